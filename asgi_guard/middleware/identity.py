"""The Identity layer: *who is it*. It verifies what was shown and rejects nothing; that is Access's to do."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from asgi_guard.chain.layer import Decision, Layer
from asgi_guard.configuration.arguments import typed
from asgi_guard.errors import (
    ConfigError,
    KeysUnavailableError,
    Problem,
    StoreUnavailableError,
    TokenError,
    require_choice,
    wrong_type,
)
from asgi_guard.identity.introspection import Introspection
from asgi_guard.identity.issuer import Issuer
from asgi_guard.identity.possession import Possession
from asgi_guard.identity.tokens import Tokens
from asgi_guard.policy import token
from asgi_guard.policy.access import NOT_REVOKED, Failure
from asgi_guard.policy.cors_names import is_forbidden_header, is_token
from asgi_guard.policy.credentials import Credential, MalformedCredentialsError, find, key_alone
from asgi_guard.policy.dpop import ProofError
from asgi_guard.policy.identity import ANONYMOUS, NO_AUTH, APIKey, User, api_key_digest, names_of_one_key
from asgi_guard.policy.routes import AuthMode, Route, RouteTable
from asgi_guard.policy.token_cache import TokenCache

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asgi_guard.asgi import ASGIApp
    from asgi_guard.chain.exchange import Exchange


LONGEST = len(b"Bearer ") + token.MAX_TOKEN_BYTES
_FAILURES = (TokenError, KeysUnavailableError, StoreUnavailableError)
"""How a token that was sent leads to nobody."""


class IdentityMiddleware(Layer):
    """Verifies a bearer token, a cookie or an API key, and shows the app who it is.

    `scope["user"]` is a `User` or `Anonymous`, and `scope["auth"]` holds the scopes, in the shape of Starlette's
    `request.user` and `request.auth`. Nothing is refused here: `AccessMiddleware` does that.

    Args:
        app: the app within.
        issuers: whose tokens are accepted.
        introspection: where opaque tokens are asked about (RFC 7662), and all tokens where there are no issuers.
        api_keys: keys that are accepted, by their hashes.
        api_key_header: the header that a key comes in; `authorization` where no tokens are taken, in which `Bearer` or
            `ApiKey` may stand before it.
        cookie: the name of a cookie that a token may come in; None for none.
        unsafe_websocket_query_token: the parameter that a token may come in, of the address of a WebSocket; None for
            none. It is unsafe, since servers and proxies write addresses to their logs.
        routes: the route table; rows whose column `auth` is `none` are served without looking at credentials.
        default: what holds where no row says: `required`, `optional`, or `none`.
        cache_size: how many verified tokens are remembered, for a minute at most; 0 remembers none.
        possession: which tokens are taken that are bound to a key or to a certificate; none unless said.
        clock: seconds since the Unix epoch.

    Raises:
        ConfigError: an argument cannot be what it is, or nothing is given by which anybody could be known.
    """

    name = "identity"

    @typed
    def __init__(
        self,
        app: ASGIApp,
        *,
        issuers: Sequence[Issuer] = (),
        introspection: Introspection | None = None,
        api_keys: Sequence[APIKey] = (),
        api_key_header: str = "x-api-key",
        cookie: str | None = None,
        unsafe_websocket_query_token: str | None = None,
        routes: Sequence[Route] | RouteTable = (),
        default: AuthMode = "required",
        cache_size: int = 10_000,
        possession: Possession | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(app)
        require_choice("default", default, AuthMode)
        given: Sequence[object] = issuers
        if strangers := [each for each in given if not isinstance(each, Issuer)]:
            raise ConfigError([Problem("issuers", wrong_type(strangers[0], "Issuer(issuer, audience)"))])
        if not issuers and introspection is None and not api_keys:
            message = "nobody could show who they are: give issuers, introspection or api_keys"
            raise ConfigError([Problem("issuers", message)])
        if doubles := [Problem("api_keys", message) for message in names_of_one_key(api_keys)]:
            raise ConfigError(doubles)
        taken = api_key_header.lower() == "authorization" and (issuers or introspection is not None)
        if taken or is_forbidden_header(api_key_header.lower()):
            message = f"{api_key_header!r} is where something else stands: name another header, such as x-api-key"
            raise ConfigError([Problem("api_key_header", message)])
        for option, name in (("api_key_header", api_key_header), ("cookie", cookie)):
            if name is not None and not is_token(name):
                raise ConfigError([Problem(option, f"{name!r} is no name of a {option.rpartition('_')[2]}")])
        self.possession = possession if possession is not None else Possession()
        self.tokens = Tokens(
            issuers, introspection, bindings=self.possession.bindings, cache_size=cache_size, clock=clock
        )
        self._api_keys = {key.sha256: key.user() for key in api_keys}
        self._api_key_header = api_key_header.lower().encode() if api_keys else b""
        self._cookie = None if cookie is None else cookie.encode()
        parameter = unsafe_websocket_query_token
        self._parameter = None if parameter is None else parameter.encode()
        # Only what issuers' keys have verified is remembered, and where a proof is always asked for none suffices.
        self._remembers_any = bool(issuers) and not self.possession.required
        # Whether a token may come in no header of its own.
        self._elsewhere = cookie is not None or parameter is not None
        self._table = RouteTable.of(routes, open_to_all=default != "required")
        modes = (*(route.auth or default for route in self._table.routes), default)
        self._unasked = tuple(mode == "none" for mode in modes)

    async def startup(self) -> None:
        """Fetch the keys before the first request needs them. A failure is logged, and requests try again."""
        await self.tokens.startup()
        await self.possession.startup()

    async def shutdown(self) -> None:
        """Give up fetches under way."""
        await self.tokens.aclose()
        await self.possession.aclose()

    def decide(self, exchange: Exchange) -> Decision:
        """Find out who it is. Only a token whose key has to be fetched first takes a wait."""
        # An outer guard's user is none of this one's: what it accepts, it has to see for itself.
        exchange.user = exchange.failure = exchange.detail = None
        exchange.ambient, exchange.revocation = False, NOT_REVOKED
        # A disputed path is refused whoever asks, and charged to nobody: it is to cost no signature check.
        row, disputed = exchange.find(self._table)
        unasked = disputed or self._unasked[row]
        if self._remembers_any and not unasked and self._remembers(exchange):
            return None
        exchange.scope["user"], exchange.scope["auth"] = ANONYMOUS, NO_AUTH
        if unasked:
            return None
        try:
            credential = self._credential(exchange)
            if credential is None:
                return None
            exchange.ambient = credential.kind == "cookie"
            if credential.kind == "api-key":
                self._key(exchange, credential.value)
                return None
            return self._token(exchange, credential)
        except MalformedCredentialsError:
            exchange.failure = Failure.MALFORMED
        except _FAILURES as error:
            _fail(exchange, error)
        return None

    def _remembers(self, exchange: Exchange) -> bool:
        """Recognise the token of most requests: one Authorization header, nothing beside it, and verified a moment ago.

        What a token is bound to is asked for with every request, elsewhere.
        """
        headers = exchange.headers
        value = headers.get(b"authorization")
        if value is None or exchange.repeated or value[:7] != b"Bearer " or len(value) > LONGEST:
            return False
        if self._api_key_header in headers or (self._elsewhere and self._may_be_elsewhere(exchange)):
            return False
        user = self.tokens.remembered(TokenCache.digest(value[7:]))
        if user is None or "cnf" in user.claims:
            return False
        self.tokens.hits += 1
        self._accept(exchange, user)
        return True

    def _may_be_elsewhere(self, exchange: Exchange) -> bool:
        """Whether there may be a token in the cookie, or in the address."""
        in_cookie = self._cookie is not None and b"cookie" in exchange.headers
        return in_cookie or (self._parameter is not None and bool(_query(exchange)))

    def _credential(self, exchange: Exchange) -> Credential | None:
        headers, cookie = exchange.headers, self._cookie
        if b"authorization" not in headers and self._api_key_header not in headers and not self._elsewhere:
            return None
        authorization, keys = exchange.lines(b"authorization"), exchange.lines(self._api_key_header)
        if self._api_key_header == b"authorization":
            authorization, keys = [], [key_alone(value) for value in keys]
        return find(
            authorization,
            keys,
            () if cookie is None else exchange.lines(b"cookie"),
            cookie,
            dpop=self.possession.dpop,
            query=b"" if self._parameter is None else _query(exchange),
            query_name=self._parameter,
        )

    def _key(self, exchange: Exchange, value: bytes) -> None:
        user = self._api_keys.get(api_key_digest(value))
        if user is None:
            raise TokenError("api_key", "there is no such API key")
        self._accept(exchange, user)

    def _accept(self, exchange: Exchange, user: User) -> None:
        exchange.user = exchange.scope["user"] = user
        exchange.scope["auth"] = user.auth

    def _admit(self, exchange: Exchange, credential: Credential, user: User) -> Awaitable[None] | None:
        """Accept a user whose token is good, if whoever sent it has what it is bound to."""
        proof = self.possession.check(exchange, credential, user)
        counting = None if proof is None else self.possession.count(exchange, user, proof)
        if counting is not None:
            return self._counted(exchange, user, counting)
        self._accept(exchange, user)
        return None

    async def _counted(self, exchange: Exchange, user: User, counting: Awaitable[None]) -> None:
        try:
            await exchange.wait(counting)
        except _FAILURES as error:
            _fail(exchange, error)
        else:
            self._accept(exchange, user)

    def _token(self, exchange: Exchange, credential: Credential) -> Decision:
        user = self.tokens.find(credential.value)
        if isinstance(user, User):
            return self._admit(exchange, credential, user)
        return self._wait(exchange, credential, user)

    async def _wait(self, exchange: Exchange, credential: Credential, obtaining: Awaitable[User]) -> None:
        """Accept a user who cannot be told at once."""
        try:
            counting = self._admit(exchange, credential, await exchange.wait(obtaining))
        except _FAILURES as error:
            _fail(exchange, error)
        else:
            if counting is not None:
                await counting


def _query(exchange: Exchange) -> bytes:
    """The query in which a token may be: that of a WebSocket handshake, where browsers let scripts set no header."""
    return exchange.scope.get("query_string") or b"" if exchange.kind == "websocket" else b""


def _fail(exchange: Exchange, error: TokenError | KeysUnavailableError | StoreUnavailableError) -> None:
    """Note why credentials that were sent led to nobody."""
    if isinstance(error, TokenError):
        exchange.failure, exchange.detail = Failure.INVALID, error.reason
        if isinstance(error, ProofError):
            exchange.failure = Failure.NONCE if error.reason == "proof_nonce" else Failure.PROOF
        return
    unavailable = isinstance(error, KeysUnavailableError)
    exchange.failure = Failure.KEYS_UNAVAILABLE if unavailable else Failure.STORE_UNAVAILABLE
    exchange.retry_after = error.retry_after
