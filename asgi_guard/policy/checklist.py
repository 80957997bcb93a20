"""What a service in production is to have: a table of lines, each judged by what is known of a configuration.

A line passes, fails, or cannot be known from here: what an app's code, its issuer or its deployment does is said to be
looked at there, and fails nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from asgi_guard.policy.origins import is_installed

if TYPE_CHECKING:
    from collections.abc import Callable

Status: TypeAlias = Literal["pass", "fail", "unknown"]

MAX_ACCESS_SECONDS = 900
"""The longest life of an access token: who steals one has it for no longer."""
MAX_REFRESH_DAYS = 30
YEAR = 31_536_000
"""Seconds for which browsers are to remember that there is https only."""
BY_ADDRESS = frozenset({"ip", "anonymous"})
BY_IDENTITY = frozenset({"user", "api-key"})


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a configuration. None is what was not asked, or not told.

    Attributes:
        lifetimes: by issuer, the seconds beyond which its tokens are refused; None for no bound.
        over_http: the issuers whose keys come over http.
        introspected: whether opaque tokens are asked about.
        keys: whether every issuer's keys were had.
        revocation: whether tokens are looked up among the revoked, and
        denies_unknown: whether one that cannot be looked up is refused.
        shared_store: whether the store is one that all processes share, and
        store: whether it answered.
        limited_by: what the limits go by that refuse every client where no row says otherwise.
        limits_told: whether clients are told of limits before they meet them.
        live_path: empty for none.
        ready_path: empty for none.
        asked: what readiness asks by itself: `store`, `keys`.
        app_checks: what else it asks, as the app's own guard says.
        drain: seconds to serve on after SIGTERM.
        graceful: seconds that the server then gives requests to end.
        p99: seconds that 99 of 100 requests take at most.
        grace_period: seconds after which whoever sent SIGTERM kills.
        request_id_header: where the id is.
        log_format: `off` for no access log.
        log_sample: the share of ordinary exchanges that are logged.
        headers: whether security headers are sent, and
        hsts: for how many seconds https is asked for; 0 for no such header.
        behind_proxy: whether any proxy is believed, which tells what came over https.
        origins: whose pages may call, and
        credentials: whether with cookies, and
        any_method: whether with any method or header.
    """

    lifetimes: tuple[tuple[str, float | None], ...] = ()
    over_http: tuple[str, ...] = ()
    introspected: bool = False
    keys: bool | None = None
    revocation: bool = False
    denies_unknown: bool = True
    shared_store: bool = False
    store: bool | None = None
    limited_by: frozenset[str] = frozenset()
    limits_told: bool = True
    live_path: str = ""
    ready_path: str = ""
    asked: frozenset[str] = frozenset()
    app_checks: tuple[str, ...] | None = None
    drain: float = 0
    graceful: float = 30
    p99: float | None = None
    grace_period: float | None = None
    request_id_header: str = ""
    log_format: str = "off"
    log_sample: float = 1
    headers: bool = False
    hsts: int = 0
    behind_proxy: bool = False
    origins: tuple[str, ...] = ()
    credentials: bool = False
    any_method: bool = False


class Finding(NamedTuple):
    """What came of a line.

    Attributes:
        status: whether it holds.
        found: what was seen.
        remedy: what to set or to do, where it does not hold or cannot be known.
    """

    status: Status
    found: str
    remedy: str = ""


class Line(NamedTuple):
    """A line of the checklist.

    Attributes:
        name: a word for it.
        wanted: what is to hold.
        judge: tells whether it does.
    """

    name: str
    wanted: str
    judge: Callable[[Facts], Finding]


def _tokens(facts: Facts) -> Finding:
    if not facts.lifetimes and not facts.introspected:
        return Finding("fail", "no issuer is named", "ASGI_GUARD_AUTH_ISSUER and ASGI_GUARD_AUTH_AUDIENCE")
    if facts.over_http:
        return Finding("fail", f"keys of {facts.over_http[0]} come over http", "ASGI_GUARD_AUTH_ISSUER with https")
    if facts.keys is False:
        return Finding("fail", "the issuer's keys could not be had", "see the probes of `asgi-guard check`")
    if not facts.lifetimes:
        return Finding("pass", "the issuer is asked about each token (RFC 7662)")
    asked = "had just now" if facts.keys else "not asked for now"
    return Finding("pass", f"keys by JWKS, {asked}; an unknown kid makes the set be fetched anew")


def _access_lifetime(facts: Facts) -> Finding:
    unbounded = [issuer for issuer, most in facts.lifetimes if most is None or most > MAX_ACCESS_SECONDS]
    if unbounded:
        return Finding(
            "fail",
            f"tokens of {unbounded[0]} may live longer than {MAX_ACCESS_SECONDS // 60} minutes",
            f"ASGI_GUARD_AUTH_MAX_TOKEN_LIFETIME={MAX_ACCESS_SECONDS} or less",
        )
    if not facts.lifetimes:
        return Finding("unknown", "no issuer is named whose tokens say how long they live", "look at the issuer")
    longest = max(most for _, most in facts.lifetimes if most is not None)
    return Finding("pass", f"a token that lives longer than {longest:g} s is refused")


def _refresh_lifetime(facts: Facts) -> Finding:
    del facts
    remedy = f"at the issuer: {MAX_REFRESH_DAYS} days at most, each used once"
    return Finding("unknown", "refresh tokens pass between client and issuer alone", remedy)


def _denylist(facts: Facts) -> Finding:
    if not facts.revocation:
        return Finding("fail", "tokens are not looked up among the revoked", "ASGI_GUARD_AUTH_REVOCATION=true")
    if not facts.shared_store:
        return Finding("fail", "revocations end with this process", "ASGI_GUARD_STORE_URL=redis://...")
    if not facts.denies_unknown:
        remedy = "ASGI_GUARD_AUTH_REVOCATION_ON_STORE_FAILURE=deny"
        return Finding("fail", "a revoked token is accepted while the store is away", remedy)
    return Finding("pass", "by jti, for the rest of the token's life, in the call that asks for the limits")


def _logout(facts: Facts) -> Finding:
    del facts
    return Finding("unknown", "what the app does at a logout", "in the app: await asgi_guard.revoke(request.scope)")


def _bucket(facts: Facts) -> Finding:
    if not facts.limited_by:
        remedy = "ASGI_GUARD_RATE_LIMIT='60/second burst 120 by user; 10/second burst 20 by anonymous'"
        return Finding("fail", "what no row names is under no limit that refuses every client", remedy)
    if not facts.shared_store:
        return Finding("fail", "each process counts for itself", "ASGI_GUARD_STORE_URL=redis://...")
    if facts.store is False:
        return Finding("fail", "the store did not answer", "see the probes of `asgi-guard check`")
    if not facts.limited_by & BY_ADDRESS:
        return Finding("fail", "strangers are under no limit", "ASGI_GUARD_RATE_LIMIT with a limit by anonymous or ip")
    if facts.lifetimes and not facts.limited_by & BY_IDENTITY:
        return Finding("fail", "identities are under no limit of their own", "ASGI_GUARD_RATE_LIMIT with one by user")
    return Finding("pass", f"one call to the shared store; by {', '.join(sorted(facts.limited_by))}")


def _retry_after(facts: Facts) -> Finding:
    if not facts.limited_by:
        return Finding(
            "fail",
            "no limit refuses every client, and who is not refused is not told when to come back",
            "ASGI_GUARD_RATE_LIMIT",
        )
    told = "with" if facts.limits_told else "without"
    return Finding("pass", f"each 429 has it, as the bucket computes it; {told} RateLimit headers beforehand")


def _probes(facts: Facts) -> Finding:
    for name, path in (("LIVE", facts.live_path), ("READY", facts.ready_path)):
        if not path:
            return Finding("fail", f"there is no probe at all for {name.lower()}", f"ASGI_GUARD_HEALTH_{name}_PATH")
    if "store" not in facts.asked:
        return Finding("fail", "readiness asks no shared store", "ASGI_GUARD_STORE_URL=redis://...")
    if facts.app_checks is None:
        remedy = "name the app with --app; in it: Guard(app, checks={'postgres': ping})"
        return Finding("unknown", "readiness asks the store; whether it asks the database, the app knows", remedy)
    if not facts.app_checks:
        return Finding("fail", "readiness asks no database", "in the app: Guard(app, checks={'postgres': ping})")
    return Finding("pass", f"readiness asks {', '.join(sorted((*facts.asked, *facts.app_checks)))}")


def _drain(facts: Facts) -> Finding:
    if not facts.drain:
        remedy = "ASGI_GUARD_HEALTH_DRAIN_SECONDS: the balancer's period x threshold, and a little"
        return Finding("fail", "readiness stays up until the server is gone", remedy)
    stop = facts.drain + facts.graceful
    if facts.grace_period is not None and facts.grace_period <= stop:
        found = f"{facts.drain:g} s to drain and {facts.graceful:g} s to end, and SIGKILL after {facts.grace_period:g}"
        return Finding("fail", found, f"terminationGracePeriodSeconds: more than {stop:g}, and preStop on top")
    if facts.p99 is None:
        found = f"{facts.drain:g} s to drain, then {facts.graceful:g} s for requests to end"
        return Finding("unknown", found, "say how long 99 of 100 requests take: --p99 SECONDS")
    if facts.graceful < facts.p99:
        found = f"{facts.graceful:g} s for requests that take {facts.p99:g}"
        return Finding("fail", found, f"asgi-guard run --graceful {facts.p99:.0f} or more")
    return Finding("pass", f"{facts.drain:g} s to drain, then {facts.graceful:g} s for requests of {facts.p99:g} s")


def _migrations(facts: Facts) -> Finding:
    del facts
    remedy = "expand, write both, backfill, contract a release later; as a job, never in lifespan"
    return Finding("unknown", "how the database changes", remedy)


def _request_id(facts: Facts) -> Finding:
    if not facts.request_id_header:
        return Finding("fail", "no header carries the id", "ASGI_GUARD_REQUEST_ID_HEADER=x-request-id")
    return Finding("pass", f"{facts.request_id_header} on every response, refusals and 500s included")


def _log(facts: Facts) -> Finding:
    if facts.log_format == "off":
        return Finding("fail", "there is no access log", "ASGI_GUARD_LOG_FORMAT=json")
    share = "every exchange" if facts.log_sample == 1 else f"{facts.log_sample:.0%} of ordinary exchanges, all failures"
    return Finding("pass", f"{facts.log_format}: duration, status, route and request id of {share}")


def _headers(facts: Facts) -> Finding:
    if not facts.headers:
        return Finding("fail", "no security headers are sent", "ASGI_GUARD_SECURITY_PRESET=api")
    if facts.hsts < YEAR:
        return Finding("fail", "https is asked for less than a year", f"ASGI_GUARD_SECURITY_HSTS='max-age={YEAR}; ...'")
    if not facts.behind_proxy:
        remedy = "ASGI_GUARD_PROXY_TRUSTED, unless TLS ends in the server itself"
        return Finding("unknown", "Strict-Transport-Security goes over https alone, which a proxy has to tell", remedy)
    return Finding("pass", f"with Strict-Transport-Security for {facts.hsts} s")


def _cors(facts: Facts) -> Finding:
    if not facts.origins:
        return Finding("pass", "pages of no other origin may call")
    loose = [origin for origin in facts.origins if "*" in origin]
    if loose:
        return Finding("fail", f"{loose[0]} is more than one origin", "ASGI_GUARD_CORS_ALLOW_ORIGINS with exact ones")
    insecure = [origin for origin in facts.origins if not (origin.startswith("https://") or is_installed(origin))]
    if insecure:
        return Finding("fail", f"{insecure[0]} can be forged on the way", "ASGI_GUARD_CORS_ALLOW_ORIGINS with https")
    if facts.any_method:
        remedy = "ASGI_GUARD_CORS_ALLOW_METHODS and ASGI_GUARD_CORS_ALLOW_HEADERS without *"
        return Finding("fail", "any method or header may be used", remedy)
    cookies = "with" if facts.credentials else "without"
    return Finding("pass", f"{len(facts.origins)} exact origins, {cookies} credentials")


def _lifespan(facts: Facts) -> Finding:
    del facts
    remedy = "in the app: open pools in its lifespan and close them there"
    return Finding("unknown", "the guard passes lifespan on; what the app does in it, the app knows", remedy)


CHECKLIST = (
    Line("tokens", "JWT by the issuer's keys, with rotation", _tokens),
    Line("access tokens", "15 minutes at most", _access_lifetime),
    Line("refresh tokens", f"{MAX_REFRESH_DAYS} days at most", _refresh_lifetime),
    Line("denylist", "revoked tokens are refused, by jti", _denylist),
    Line("logout", "revokes the token", _logout),
    Line("limits", "token buckets that all processes share", _bucket),
    Line("retry-after", "on every 429", _retry_after),
    Line("probes", "liveness, and readiness that asks database and Redis", _probes),
    Line("graceful stop", "drains, then waits longer than the slowest requests", _drain),
    Line("migrations", "by expand and contract", _migrations),
    Line("request id", "on every response and in every line", _request_id),
    Line("logs", "JSON with duration, status and route", _log),
    Line("headers", "security headers on every response", _headers),
    Line("cors", "exact origins, methods and headers", _cors),
    Line("lifespan", "opens and closes the pools", _lifespan),
)
"""Every line, in the order of a request's way and then of a deployment's."""


def judge(facts: Facts) -> list[tuple[Line, Finding]]:
    """Judge every line."""
    return [(line, line.judge(facts)) for line in CHECKLIST]
