"""The words that stand in problem documents, log lines and metrics: what each means, and what to do about it.

Nothing on a request's path reads this: people do, in docs/operations.md and by `asgi-guard token --explain`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from asgi_guard.policy.answer import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asgi_guard.policy.proxies import Doubt


class Refusal(NamedTuple):
    """What a reason stands for.

    Attributes:
        status: the status that goes with it.
        layers: who gives it, as `asgi_guard.refused_by` and the metrics' label `layer` name them.
        meaning: what happened.
        advice: what to do about it.
    """

    status: int
    layers: tuple[str, ...]
    meaning: str
    advice: str


class Word(NamedTuple):
    """What a word of the log stands for, and what to do about it."""

    meaning: str
    advice: str


REASONS: Mapping[Reason, Refusal] = {
    Reason.NOT_READY: Refusal(
        503, ("health",),
        "The readiness probe: the process starts or drains, or a required check fails.",
        "In a rollout, nothing. Else the log names the check that failed.",
    ),
    Reason.METHOD_NOT_ALLOWED: Refusal(
        405, ("resource_metadata",),
        "The resource's metadata was asked for by another method than GET or HEAD.",
        "The client has to ask by GET.",
    ),
    Reason.PATH_AMBIGUOUS: Refusal(
        400, ("rate_limit", "access"),
        "Routers could read the path in more than one way, some without regard to case, and take it for another row's.",
        "`asgi-guard explain METHOD PATH` shows it; the client has to send the path plainly, in the case of the row. "
        "With the detail `root_path` see [Root paths](#root-paths).",
    ),
    Reason.HOST_NOT_ALLOWED: Refusal(
        400, ("host",),
        "`Host` is missing, repeated or malformed, or is no name of `ASGI_GUARD_HOSTS_ALLOWED`.",
        "Add the name if it is yours. A proxy has to hand `Host` on (or set `ASGI_GUARD_PROXY_HOST`). Paths that are "
        "called by address go into `ASGI_GUARD_HOSTS_EXEMPT`.",
    ),
    Reason.HTTPS_REQUIRED: Refusal(
        400, ("host",),
        "A WebSocket came by plain `ws`, and `ASGI_GUARD_HOSTS_HTTPS_REDIRECT` is on: a handshake is not redirected.",
        "Use `wss`. Where a proxy ends TLS, name it in `ASGI_GUARD_PROXY_TRUSTED`, and have it send the scheme.",
    ),
    Reason.ORIGIN_NOT_ALLOWED: Refusal(
        403, ("cors",),
        "A page of another origin opens a WebSocket, and CORS does not allow that origin.",
        "`asgi-guard explain --origin ORIGIN --websocket GET PATH` says what to change.",
    ),
    Reason.PREFLIGHT_REFUSED: Refusal(
        403, ("cors",),
        "A browser asked before a request, and the origin, the method or a header is not allowed.",
        "`asgi-guard explain --origin ORIGIN METHOD PATH --header NAME` says what to change.",
    ),
    Reason.CREDENTIALS_MALFORMED: Refusal(
        400, ("access",),
        "Credentials were sent twice, in two ways at once (a token and an API key, say), or are not `Bearer TOKEN`.",
        "The client has to send one of them, in one line. See whether a proxy adds a second.",
    ),
    Reason.CREDENTIALS_MISSING: Refusal(
        401, ("access",),
        "The path needs an identity, and no credentials came. Another scheme, such as `Basic`, counts as none.",
        "Send a token or an API key. If anyone may call, the path needs a row: `asgi-guard explain METHOD PATH`.",
    ),
    Reason.CREDENTIALS_INVALID: Refusal(
        401, ("access",),
        "The token, its proof or the API key is not accepted. The client is not told why.",
        "`asgi_guard.detail` in the log is the cause, see below; `asgi-guard token --explain -` judges a token.",
    ),
    Reason.TOKEN_REVOKED: Refusal(
        401, ("access",),
        "The token is good, but it, its session or its subject was revoked.",
        "The user has to log in again.",
    ),
    Reason.SCOPE_MISSING: Refusal(
        403, ("access",),
        "The identity lacks a scope that the row asks for; `WWW-Authenticate` names it.",
        "`asgi-guard explain METHOD PATH` shows what is asked, `asgi-guard token --explain -` what a token has. Scopes "
        "that stand in another claim are found by `ASGI_GUARD_AUTH_SCOPE_CLAIMS`.",
    ),
    Reason.CROSS_SITE: Refusal(
        403, ("csrf", "access"),
        "By what the browser says, a page of another origin sent it; to `access`, with the token in a cookie.",
        "If the page is yours, trust its origin: by `ASGI_GUARD_CSRF_TRUSTED_ORIGINS` (`csrf`), or by CORS with "
        "credentials (either). Paths for other servers go into `ASGI_GUARD_CSRF_EXEMPT`.",
    ),
    Reason.CSRF_TOKEN_MISSING: Refusal(
        403, ("csrf",),
        "The session's cookie came without a word on the page that sent it, and without the session's token.",
        "The page, or the program, has to send `csrf.token()` in `ASGI_GUARD_CSRF_TOKEN_HEADER`.",
    ),
    Reason.CSRF_TOKEN_INVALID: Refusal(
        403, ("csrf",),
        "The token is not that of this session, or the token or the cookie came twice.",
        "Load the page anew. If all are refused, see that all workers have the same `ASGI_GUARD_CSRF_SECRET`.",
    ),
    Reason.RATE_LIMITED: Refusal(
        429, ("rate_limit",),
        "A limit is used up: `asgi_guard.limit` names it. An open WebSocket that sends too much is closed by 1008.",
        "`asgi-guard limits show user:NAME` tells what is left; `asgi-guard limits top` who has the least.",
    ),
    Reason.KEYS_UNAVAILABLE: Refusal(
        503, ("access",),
        "A token cannot be judged: neither the issuer's keys nor an answer of its introspection endpoint can be had.",
        "The log says what failed, and `asgi-guard check` asks the issuer.",
    ),
    Reason.STORE_UNAVAILABLE: Refusal(
        503, ("rate_limit", "access"),
        "The store did not answer, and a limit or revocation is set to `deny`, or a DPoP proof had to be remembered.",
        "`asgi-guard check` asks the store. `ASGI_GUARD_RATE_ON_STORE_FAILURE`, a limit's `on-failure` and "
        "`ASGI_GUARD_AUTH_REVOCATION_ON_STORE_FAILURE` decide.",
    ),
    Reason.GUARD_ERROR: Refusal(
        500, ("guard",),
        "The guard raised, or a function that it was given, such as one of `limit_functions`.",
        "The traceback is in the log of `asgi_guard`, with the request's id.",
    ),
    Reason.APP_ERROR: Refusal(
        500, ("app",),
        "The app raised before it began to answer, or returned without an answer.",
        "The traceback is in the log of `asgi_guard`, with the request's id.",
    ),
}  # fmt: skip
"""Every reason."""

DETAILS: Mapping[str, Word] = {
    "too_large": Word(
        "the token is too long to be looked at",
        "have the issuer leave out what this API does not read, groups first: Entra ID can list those assigned to the "
        "application only",
    ),
    "malformed": Word(
        "it is no JWT",
        "send the access token itself: three parts with dots between, nothing before or behind it",
    ),
    "algorithm": Word(
        "it is signed by an algorithm that is not allowed",
        "allow it by ASGI_GUARD_AUTH_ALGORITHMS if the issuer really signs so; HS256 and none never are",
    ),
    "unsupported": Word("it is compressed, nested, or has critical headers", "ask the issuer for a plain signed token"),
    "issuer": Word(
        "`iss` is no issuer that is configured",
        "compare it with ASGI_GUARD_AUTH_ISSUER, letter by letter, the trailing slash too; if it is opaque, with "
        "ASGI_GUARD_AUTH_INTROSPECTION_ISSUER",
    ),
    "audience": Word(
        "`aud` does not name this API",
        "ask the issuer for a token for this API, or add the name to ASGI_GUARD_AUTH_AUDIENCE",
    ),
    "expired": Word("`exp` has passed", "get a new one; if it is new, compare the clocks"),
    "not_yet_valid": Word(
        "`nbf` or `iat` lies ahead", "compare the clocks; ASGI_GUARD_AUTH_LEEWAY allows for a difference"
    ),
    "too_old": Word("`iat` is too long ago", "get a new one; ASGI_GUARD_AUTH_MAX_TOKEN_AGE bounds the age"),
    "too_long": Word(
        "there is too much time from `iat` to `exp`",
        "ask the issuer for shorter lives; ASGI_GUARD_AUTH_MAX_TOKEN_LIFETIME bounds them",
    ),
    "type": Word(
        "it is not marked as an access token",
        "send the access token, not another one of the issuer's; ASGI_GUARD_AUTH_PROFILE=any takes unmarked JWTs, and "
        "for an unmarked opaque one the introspection endpoint has to say `token_type` or `exp`, unless "
        "ASGI_GUARD_AUTH_INTROSPECTION_UNSAFE_ANY_TYPE takes all, at a risk that docs/identity.md tells",
    ),
    "inactive": Word(
        "the introspection endpoint does not accept it",
        "the issuer does not know it, or has taken it back: get a new one",
    ),
    "unknown_key": Word(
        "the key that it names is not known",
        "the issuer does not publish the key that signed it: it may be another issuer's, or rotated out",
    ),
    "ambiguous_key": Word(
        "several keys could have signed it",
        "the issuer publishes several keys under this kid, or the token names none",
    ),
    "token_revoked": Word(
        "it is among the revoked", "get a new one, by logging in again: a revocation ends with the token's life"
    ),
    "signature": Word("the signature is wrong", "it was changed, or signed by someone else"),
    "claim": Word(
        "a claim is missing or wrong, such as `jti` where revocation is on, or `cnf` where bound tokens are not taken",
        "have the issuer put the claim into its access tokens as this guard needs it",
    ),
    "binding": Word(
        "it is bound to a key, and was not sent so, or the other way round",
        "ask the issuer for one that is bound to the client's key: ASGI_GUARD_AUTH_DPOP=require takes no other",
    ),
}
"""Why a token is not accepted: `asgi_guard.detail`, and what `asgi-guard token --explain` tells."""

DETAILS_OF_REQUESTS: Mapping[str, Word] = {
    "api_key": Word("no such API key is configured", "compare its SHA-256 with ASGI_GUARD_AUTH_API_KEYS"),
    "certificate": Word(
        "the token is bound to a certificate, and the client did not show it",
        "see that the proxy hands it on as ASGI_GUARD_AUTH_CLIENT_CERT says, and is in ASGI_GUARD_PROXY_TRUSTED; if it "
        "connects by a UNIX socket, ASGI_GUARD_PROXY_HOPS has to be set, and no networks",
    ),
    "proof_missing": Word("there is no `DPoP` header", "the client has to send a proof with each request (RFC 9449)"),
    "proof_repeated": Word("there are several `DPoP` headers", "the client has to send one"),
    "proof_malformed": Word("the proof is no JWT that can be read", "look at the client's library"),
    "proof_type": Word("the proof's `typ` is not `dpop+jwt`", "look at the client's library"),
    "proof_key": Word("the proof's `jwk` is missing, private, or cannot be used", "look at the client's library"),
    "proof_signature": Word("the proof is not signed by its own key", "look at the client's library"),
    "proof_method": Word("`htm` is another method", "the client has to make a proof for each request"),
    "proof_url": Word(
        "`htu` is another URL",
        "behind a proxy, name it in ASGI_GUARD_PROXY_TRUSTED, and have it hand `Host` on; if it takes a prefix from "
        "the path, the server or the app has to have that for its root path",
    ),
    "proof_time": Word("`iat` is not of now", "compare the clocks"),
    "proof_token": Word("`ath` is another token's hash", "the client has to make a proof for each token"),
    "proof_nonce": Word("there is no nonce, or an old one", "nothing: the answer names the one to use"),
    "proof_replayed": Word("the proof was seen before", "the client has to make a proof for each request"),
}
"""Why a request is not accepted with a token that may be good, or with an API key: `asgi_guard.detail`."""

DOUBTS: Mapping[Doubt, str] = {
    "unreadable": "the entry that counts is no address",
    "too_few": "it has fewer entries than `ASGI_GUARD_PROXY_HOPS`",
    "too_many": "it names more proxies than are followed",
    "all_trusted": "it names nobody but proxies: `ASGI_GUARD_PROXY_TRUSTED` covers more than the proxies",
    "other_header": "the client is named in another header than `ASGI_GUARD_PROXY_HEADER`",
    "unnamed": "a trusted proxy handed the request on, by its other headers, and named no client",
}
"""Why a client's address is only that of the connection's other end: `asgi_guard.client_doubt`."""
