"""The CSRF layer: requests that another site makes a user's browser send are refused.

For apps that know their users by a cookie of their own, which browsers send along whoever asks them to. The order of
decisions is that of `asgi_guard.policy.csrf`, and then, where pages have tokens:

1. The browser said nothing (neither `Sec-Fetch-Site` nor `Origin`), and no session's cookie comes along, or this is a
   WebSocket handshake, for which every browser names the origin (RFC 6455 10.2): nothing to abuse; allowed.
2. The token of the session is in the header: allowed. Otherwise refused.

What is exempt, by a path or by a row of the route table, is let through, unless routers could disagree about the path.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Literal

from asgi_guard.chain.exchange import Exchange, trusts_nobody
from asgi_guard.chain.layer import Decision, Layer
from asgi_guard.configuration.arguments import typed
from asgi_guard.errors import ConfigError, Problem, require_choice
from asgi_guard.policy.answer import Reason, problem
from asgi_guard.policy.cors import CORSOptions, CORSPolicy
from asgi_guard.policy.cors_names import is_forbidden_header, is_token
from asgi_guard.policy.credentials import MalformedCredentialsError, cookie_values
from asgi_guard.policy.csrf import SAFE_METHODS, ForgeryExemptions, whose_page
from asgi_guard.policy.csrf_token import NONCE_BYTES, CSRFTokens
from asgi_guard.policy.listing import listed
from asgi_guard.policy.routes import Route, RouteTable
from asgi_guard.policy.secret import too_short

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from asgi_guard.asgi import ASGIApp, Head

TOKEN_KEY = "asgi_guard.csrf_token"  # noqa: S105 - a key of the scope, not a password
"""Where the scope has the function that gives the page's token."""

_DETAILS = {
    Reason.CROSS_SITE: "Another site may not do this in a user's name.",
    Reason.CSRF_TOKEN_MISSING: "The page has to send its token.",
    Reason.CSRF_TOKEN_INVALID: "The page's token is not that of the session: load the page again.",
}


class PageToken:
    """Gives the token of the page that is being answered with, and makes it when it is first asked for.

    Attributes:
        made: the token; None until somebody has asked.
    """

    __slots__ = ("_cookie", "_exchange", "_tokens", "made")

    def __init__(self, tokens: CSRFTokens, cookie: bytes, exchange: Exchange) -> None:
        self._tokens = tokens
        self._cookie = cookie
        self._exchange = exchange
        self.made: str | None = None

    def __call__(self) -> str:
        """The token; empty where there is no session."""
        if self.made is None:
            session = _session(self._exchange, self._cookie)
            self.made = self._tokens.make(session, secrets.token_bytes(NONCE_BYTES)) if session else ""
        return self.made


class CSRFMiddleware(Layer):
    """Refuses (403) what another site may have made a user's browser send; safe methods pass.

    Args:
        app: the app within.
        mode: `enforce`, or `log` to refuse nothing and only log and count what would be.
        trusted_origins: whose pages may act beside the app's own: `https://app.example.com`, `https://*.example.com`.
        trusts_origin: tells of more such origins.
        exempt: paths at which nothing is refused, in the route table's grammar: hooks that other servers call.
        routes: the route table; a row with `csrf=False` is exempt.
        session_cookie: the name of the cookie by which the app knows its users, for tokens.
        secret: what tokens are made with, the same for all workers; without one there are none.
        previous_secret: the one before it, whose tokens are still taken.
        token_header: where pages send their token.
        unsafe_insecure_origins: trust origins of plain http too, which anyone on the network can imitate.

    Attributes:
        shadowed: how many requests would have been refused, by reason, were there more than logging.
        log_only: whether that is all.

    Raises:
        ConfigError: with everything that is wrong, by argument.
    """

    name = "csrf"

    @typed
    def __init__(
        self,
        app: ASGIApp,
        *,
        mode: Literal["enforce", "log"] = "enforce",
        trusted_origins: str | Sequence[str] = (),
        trusts_origin: Callable[[bytes], bool] = trusts_nobody,
        exempt: str | Sequence[str] = (),
        routes: Sequence[Route] | RouteTable = (),
        session_cookie: str | None = None,
        secret: str = "",
        previous_secret: str = "",
        token_header: str = "x-csrf-token",  # noqa: S107 - a header's name, not a password
        unsafe_insecure_origins: bool = False,
    ) -> None:
        super().__init__(app)
        require_choice("mode", mode, Literal["enforce", "log"])
        problems = list(_token_problems(session_cookie, secret, previous_secret, token_header))
        try:
            self._trusted = _trusted(listed(trusted_origins), insecure=unsafe_insecure_origins)
        except ValueError as error:
            problems += error.problems if isinstance(error, ConfigError) else (Problem("trusted_origins", str(error)),)
        table = RouteTable.of(routes)
        try:
            self._exempt = ForgeryExemptions(table, listed(exempt))
        except ValueError as error:
            said = [each.message for each in error.problems] if isinstance(error, ConfigError) else [str(error)]
            problems += (Problem("exempt", each) for each in said)
        if problems:
            raise ConfigError(problems)
        self.shadowed: dict[Reason, int] = dict.fromkeys(_DETAILS, 0)
        self.log_only = mode == "log"
        self._trusts_origin = trusts_origin
        self._cookie = b"" if session_cookie is None else session_cookie.encode()
        self._token_header = token_header.lower().encode()
        used = [each for each in (secret, previous_secret) if each]
        self._tokens = CSRFTokens(used) if used else None

    def trusts(self, origin: bytes) -> bool:
        """Tell whether pages of this origin may act for the app's users."""
        return self._trusts_origin(origin) or (self._trusted is not None and self._trusted.names_origin(origin))

    def decide(self, exchange: Exchange) -> Decision:
        """Refuse what may be forged, or only note it."""
        if self._tokens is not None:
            exchange.scope[TOKEN_KEY] = PageToken(self._tokens, self._cookie, exchange)
        reason = self.refusal(exchange)
        if reason is None:
            return None
        if self.log_only:
            self.shadowed[reason] += 1
            exchange.csrf_shadow = reason
            return None
        return problem(403, reason, _DETAILS[reason], request_id=exchange.request_id)

    def mark(self, exchange: Exchange, head: Head) -> None:
        """Keep a page that holds a token from those who have another session."""
        if self._tokens is not None:
            token: PageToken | None = exchange.scope.get(TOKEN_KEY)
            if token is not None and token.made is not None:
                head.vary(b"cookie")

    def refusal(self, exchange: Exchange) -> Reason | None:
        """Why a request is to be refused, whatever the mode; None if it is not."""
        if exchange.method in SAFE_METHODS and exchange.kind == "http":
            return None
        page = whose_page(
            fetch_site=exchange.lines(b"sec-fetch-site"),
            origin=exchange.lines(b"origin"),
            host=exchange.lines(b"host"),
            trusts=self.trusts,
            secure=exchange.is_secure,
        )
        if page == "own":
            return None
        reason = Reason.CROSS_SITE if page == "foreign" else self._of_token(exchange)
        if reason is None:
            return None
        if exchange.claimed_root_path is not None:
            return reason
        covered = self._exempt.cover(exchange.below, exchange.method, exchange.raw_path, exchange.joined)
        return None if covered else reason

    def _of_token(self, exchange: Exchange) -> Reason | None:
        """What the token says of a request of which the browser says nothing."""
        if self._tokens is None or exchange.kind == "websocket":
            return None
        session = _session(exchange, self._cookie)
        if session == b"":
            return None
        tokens = exchange.lines(self._token_header)
        if not tokens:
            return Reason.CSRF_TOKEN_MISSING
        valid = session is not None and len(tokens) == 1 and self._tokens.verify(tokens[0], session)
        return None if valid else Reason.CSRF_TOKEN_INVALID


def _session(exchange: Exchange, name: bytes) -> bytes | None:
    """The value of the session's cookie: empty where there is none, None where nobody can tell which it is."""
    try:
        values = set(cookie_values(exchange.lines(b"cookie"), name))
    except MalformedCredentialsError:
        return None
    if len(values) > 1:
        return None
    return values.pop() if values else b""


def _trusted(origins: Sequence[str], *, insecure: bool) -> CORSPolicy | None:
    """The origins as CORS has them, held to what holds there for cookies."""
    if not origins:
        return None
    try:
        return CORSPolicy.of(
            CORSOptions(allow_origins=origins, allow_credentials=True, unsafe_insecure_origins=insecure)
        )
    except ConfigError as error:
        raise ConfigError([Problem("trusted_origins", each.message, each.kind) for each in error.problems]) from None


def _token_problems(cookie: str | None, secret: str, previous: str, header: str) -> Iterator[Problem]:
    """What is wrong with the options on tokens."""
    for field, value in (("secret", secret), ("previous_secret", previous)):
        if fault := too_short(value):
            yield Problem(field, fault)
    if previous and not secret:
        yield Problem("previous_secret", "it has no effect without the secret that came after it")
    if secret and cookie is None:
        yield Problem("session_cookie", "name the cookie of the app's sessions: tokens are bound to its value")
    if cookie is not None and not secret:
        yield Problem("secret", "set it, 32 random characters or more: the session's cookie is named for tokens alone")
    if cookie is not None and not is_token(cookie):
        yield Problem("session_cookie", f"{cookie!r} is not a cookie's name")
    if not is_token(header) or is_forbidden_header(header.lower()):
        yield Problem("token_header", f"{header!r} is not a header that a page's script can set")
