"""The Identity layer: *who is it*. It verifies what was shown and rejects nothing; that is Access's to do."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, get_args

from asgi_guard.errors import ConfigError, KeysUnavailableError, Problem, TokenError, require_choice
from asgi_guard.introspection import Introspection, Introspector
from asgi_guard.jwks import KeyEngine, check_url, default_client
from asgi_guard.layer import Decision, Layer
from asgi_guard.policy import token
from asgi_guard.policy.access import Failure
from asgi_guard.policy.claims import SCOPE_CLAIMS, ClaimsPolicy, Profile, parse_required, scopes_of
from asgi_guard.policy.credentials import Credential, MalformedCredentialsError, find
from asgi_guard.policy.identity import ANONYMOUS, NO_AUTH, APIKey, Auth, User, api_key_digest, revocation_key, store_key
from asgi_guard.policy.introspection import is_opaque
from asgi_guard.policy.keyring import KeyTimes
from asgi_guard.policy.keys import ALGORITHMS, VerificationKey
from asgi_guard.policy.listing import listed
from asgi_guard.policy.routes import AuthMode, Route, RouteTable
from asgi_guard.policy.token_cache import TokenCache

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import httpx

    from asgi_guard.asgi import ASGIApp
    from asgi_guard.exchange import Exchange

LONGEST = len(b"Bearer ") + token.MAX_TOKEN_BYTES
DEFAULT_ALGORITHMS = ("RS256", "ES256", "EdDSA")


@dataclass(frozen=True)
class Issuer:
    """An issuer whose tokens are accepted, bound to its own keys, algorithms and audience.

    Attributes:
        issuer: its identifier: `iss`, exactly, and where its keys are discovered.
        audience: of which a token has to name one.
        jwks_url: where its keys are, if they shall not be discovered.
        algorithms: the allowed ones, all asymmetric.
        leeway: seconds by which its clock may differ.
        max_token_age: seconds after which a token is refused though it has not expired.
        require_jti: whether a token has to have an id, without which it cannot be revoked.
        max_token_lifetime: seconds from `iat` to `exp` beyond which a token is refused from the first.
        profile: `at+jwt` takes access tokens as RFC 9068 has them only; `any` takes what has the right audience.
        required_claims: claims that have to be there, as `NAME` or `NAME=VALUE`.
        scope_claims: where scopes are; the first of these that is there counts.
        times: how its keys age.
        client: makes the HTTP client of a key fetch: the place for a proxy, a CA bundle, or headers.

    Raises:
        ConfigError: something of this cannot be used.
    """

    issuer: str
    audience: Sequence[str] | str
    jwks_url: str | None = None
    algorithms: Sequence[str] = DEFAULT_ALGORITHMS
    leeway: float = 30
    max_token_age: float | None = None
    require_jti: bool = False
    max_token_lifetime: float | None = None
    profile: Profile = "any"
    required_claims: Sequence[str] = ()
    scope_claims: Sequence[str] = SCOPE_CLAIMS
    times: KeyTimes = field(default_factory=KeyTimes)
    client: Callable[[], httpx.AsyncClient] = default_client

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        for name, url in (("issuer", self.issuer), ("jwks_url", self.jwks_url)):
            try:
                if url is not None:
                    check_url(url, query=name == "jwks_url")
            except ValueError as error:
                problems.append(Problem(name, str(error)))
        try:
            if not listed(self.audience):
                message = "name this API: a token without an audience could be meant for anyone"
                problems.append(Problem("audience", message))
        except ValueError as error:
            problems.append(Problem("audience", str(error)))
        try:
            parse_required(self.required_claims)
        except ValueError as error:
            problems.append(Problem("required_claims", str(error)))
        if self.profile not in get_args(Profile):
            problems.append(Problem("profile", f"{self.profile!r} is none of {', '.join(get_args(Profile))}"))
        unknown = [name for name in self.algorithms if name not in ALGORITHMS]
        if unknown or not self.algorithms:
            what = f"{', '.join(unknown)} cannot be allowed" if unknown else "none is allowed"
            problems.append(Problem("algorithms", f"{what}; choose among {', '.join(ALGORITHMS)}"))
        if problems:
            raise ConfigError(problems)


@dataclass(frozen=True)
class _Verifier:
    """An issuer, ready to judge tokens."""

    claims: ClaimsPolicy
    engine: KeyEngine
    algorithms: frozenset[str]

    @classmethod
    def of(cls, issuer: Issuer) -> _Verifier:
        algorithms = frozenset(issuer.algorithms)
        claims = ClaimsPolicy(
            issuer.issuer,
            frozenset(listed(issuer.audience)),
            issuer.leeway,
            issuer.max_token_age,
            issuer.require_jti,
            issuer.max_token_lifetime,
            issuer.profile,
            parse_required(issuer.required_claims),
            tuple(issuer.scope_claims),
        )
        engine = KeyEngine(
            issuer.issuer, issuer.jwks_url, algorithms=algorithms, times=issuer.times, client=issuer.client
        )
        return cls(claims, engine, algorithms)

    def user(self, parsed: token.ParsedToken, key: VerificationKey, now: float) -> User:
        """Verify the signature, then the claims, and say who it is."""
        if parsed.algorithm not in self.algorithms:
            raise TokenError("algorithm", f"{parsed.algorithm} is not allowed for {self.claims.issuer}")
        self.claims.check_type(parsed.header)
        if not key.verifies(parsed.algorithm, parsed.signing_input, parsed.signature):
            raise TokenError("signature", "the signature is not that of the issuer's key")
        claims = parsed.claims
        expires = self.claims.check(claims, now)
        subject, issuer = claims["sub"], self.claims.issuer
        token_id = claims.get("jti")
        return User(
            subject,
            scopes_of(claims, self.claims.scope_claims),
            MappingProxyType(claims),
            issuer,
            expires=expires,
            key=store_key("user", issuer, subject),
            token_id=None if token_id is None else revocation_key(issuer, token_id),
        )


class IdentityMiddleware(Layer):
    """Verifies a bearer token, a cookie or an API key, and shows the app who it is.

    `scope["user"]` is a `User` or `Anonymous`, and `scope["auth"]` holds the scopes, in the shape of Starlette's
    `request.user` and `request.auth`. Nothing is refused here: `AccessMiddleware` does that.

    Args:
        app: the app within.
        issuers: whose tokens are accepted.
        introspection: where opaque tokens are asked about (RFC 7662), and all tokens where there are no issuers.
        api_keys: keys that are accepted, by their hashes.
        api_key_header: the header that a key comes in.
        cookie: the name of a cookie that a token may come in; None for none.
        routes: the route table; rows whose column `auth` is `none` are served without looking at credentials.
        default: what holds where no row says: `required`, `optional`, or `none`.
        cache_size: how many verified tokens are remembered, for a minute at most; 0 remembers none.
        clock: seconds since the Unix epoch.
    """

    name = "identity"

    def __init__(
        self,
        app: ASGIApp,
        *,
        issuers: Sequence[Issuer] = (),
        introspection: Introspection | None = None,
        api_keys: Sequence[APIKey] = (),
        api_key_header: str = "x-api-key",
        cookie: str | None = None,
        routes: Sequence[Route] | RouteTable = (),
        default: AuthMode = "required",
        cache_size: int = 10_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(app)
        require_choice("default", default, AuthMode)
        self.verifiers = {issuer.issuer: _Verifier.of(issuer) for issuer in issuers}
        if len(self.verifiers) != len(issuers):
            raise ConfigError([Problem("issuers", "an issuer is named twice")])
        self.introspector = None if introspection is None else introspection.introspector()
        self._algorithms = frozenset(name for issuer in issuers for name in issuer.algorithms)
        self._api_keys = {key.sha256: key.user() for key in api_keys}
        self._api_key_header = api_key_header.lower().encode() if api_keys else b""
        self._cookie = None if cookie is None else cookie.encode()
        self._table = RouteTable.of(routes)
        modes = (*(route.auth or default for route in self._table.routes), default)
        self._unasked = tuple(mode == "none" for mode in modes)
        self._cache = TokenCache(cache_size)
        self._clock = clock

    async def startup(self) -> None:
        """Fetch the keys before the first request needs them. A failure is logged, and requests try again."""
        await asyncio.gather(*(verifier.engine.refresh() for verifier in self.verifiers.values()))

    async def shutdown(self) -> None:
        """Give up fetches under way."""
        for verifier in self.verifiers.values():
            await verifier.engine.aclose()
        if self.introspector is not None:
            await self.introspector.aclose()

    async def check(self) -> None:
        """Raise `KeysUnavailableError` unless every issuer's tokens can be verified; for readiness."""
        for verifier in self.verifiers.values():
            await verifier.engine.check()

    def decide(self, exchange: Exchange) -> Decision:
        """Find out who it is. Only a token whose key has to be fetched first takes a wait."""
        scope = exchange.scope
        scope["user"], scope["auth"] = ANONYMOUS, NO_AUTH
        # An outer guard's user is none of this one's: what it accepts, it has to see for itself.
        exchange.user = exchange.failure = exchange.detail = None
        exchange.ambient = False
        if self._unasked[exchange.row(self._table)] or self._remembers(exchange):
            return None
        try:
            credential = self._credential(exchange)
            if credential is None:
                return None
            exchange.ambient = credential.kind == "cookie"
            if credential.kind == "api-key":
                self._key(exchange, credential.value)
                return None
            return self._token(exchange, credential.value)
        except MalformedCredentialsError:
            exchange.failure = Failure.MALFORMED
        except TokenError as error:
            exchange.failure, exchange.detail = Failure.INVALID, error.reason
        except KeysUnavailableError as error:
            exchange.failure, exchange.retry_after = Failure.KEYS_UNAVAILABLE, error.retry_after
        return None

    def _remembers(self, exchange: Exchange) -> bool:
        """Recognise the token of most requests: one Authorization header, nothing beside it, and verified a moment ago.

        Only a token that passed every check is remembered, so none of them has to be made again.
        """
        headers, cookie = exchange.headers, self._cookie
        value = headers.get(b"authorization")
        if value is None or exchange.repeated or value[:7] != b"Bearer " or len(value) > LONGEST:
            return False
        if self._api_key_header in headers or (cookie is not None and b"cookie" in headers):
            return False
        user = self._remembered(self._cache.digest(value[7:]), self._clock())
        if user is not None:
            self._accept(exchange, user)
        return user is not None

    def _remembered(self, digest: bytes, now: float) -> User | None:
        """The user of a token that was verified a moment ago, by the keys that hold now."""
        hit = self._cache.get(digest, now)
        if hit is None:
            return None
        user, keys = hit
        if keys is self.verifiers[user.issuer or ""].engine.keys:
            return user
        self._cache.forget(digest)
        return None

    def _credential(self, exchange: Exchange) -> Credential | None:
        headers, cookie = exchange.headers, self._cookie
        if b"authorization" not in headers and self._api_key_header not in headers and cookie is None:
            return None
        return find(
            exchange.lines(b"authorization"),
            exchange.lines(self._api_key_header),
            () if cookie is None else exchange.lines(b"cookie"),
            cookie,
        )

    def _key(self, exchange: Exchange, value: bytes) -> None:
        user = self._api_keys.get(api_key_digest(value))
        if user is None:
            raise TokenError("api_key", "there is no such API key")
        self._accept(exchange, user)

    def _accept(self, exchange: Exchange, user: User) -> None:
        exchange.user = exchange.scope["user"] = user
        exchange.scope["auth"] = Auth(user.scopes)

    def _token(self, exchange: Exchange, value: bytes) -> Decision:
        """Verify a token, unless it is remembered."""
        if len(value) > token.MAX_TOKEN_BYTES:
            raise token.too_large(value)
        if self._is_asked_about(value):
            return self._opaque(exchange, value)
        digest = self._cache.digest(value)
        user = self._remembered(digest, self._clock())
        if user is not None:
            self._accept(exchange, user)
            return None
        parsed, verifier = self.parse(value)
        key = verifier.engine.peek(parsed.kid, parsed.algorithm)
        if key is None:
            return self._wait(exchange, digest, parsed, verifier)
        self._verify(exchange, digest, parsed, verifier, key)
        return None

    def _is_asked_about(self, value: bytes) -> bool:
        return self.introspector is not None and (not self.verifiers or is_opaque(value))

    def _opaque(self, exchange: Exchange, value: bytes) -> Decision:
        """Ask about a token, unless it was asked about a moment ago."""
        assert self.introspector is not None  # noqa: S101 - else no token is asked about
        user = self.introspector.peek(value)
        if user is None:
            return self._ask_about(exchange, value, self.introspector)
        self._accept(exchange, user)
        return None

    async def _ask_about(self, exchange: Exchange, value: bytes, introspector: Introspector) -> None:
        try:
            self._accept(exchange, await introspector.obtain(value))
        except TokenError as error:
            exchange.failure, exchange.detail = Failure.INVALID, error.reason
        except KeysUnavailableError as error:
            exchange.failure, exchange.retry_after = Failure.KEYS_UNAVAILABLE, error.retry_after

    def parse(self, value: bytes) -> tuple[token.ParsedToken, _Verifier]:
        """Parse a token and find its issuer, before any signature is checked; raises `TokenError`."""
        parsed = token.parse(value, self._algorithms)
        issuer = parsed.claims.get("iss")
        verifier = self.verifiers.get(issuer) if isinstance(issuer, str) else None
        if verifier is None:
            raise TokenError("issuer", f"iss is {ascii(issuer)[:128]}, which is none of {sorted(self.verifiers)}")
        return parsed, verifier

    def _verify(
        self, exchange: Exchange, digest: bytes, parsed: token.ParsedToken, verifier: _Verifier, key: VerificationKey
    ) -> None:
        now = self._clock()
        user = verifier.user(parsed, key, now)
        keys = verifier.engine.keys
        if keys is not None:
            self._cache.put(digest, user, now, keys)
        self._accept(exchange, user)

    async def _wait(self, exchange: Exchange, digest: bytes, parsed: token.ParsedToken, verifier: _Verifier) -> None:
        try:
            key = await verifier.engine.obtain(parsed.kid, parsed.algorithm)
            self._verify(exchange, digest, parsed, verifier, key)
        except TokenError as error:
            exchange.failure, exchange.detail = Failure.INVALID, error.reason
        except KeysUnavailableError as error:
            exchange.failure, exchange.retry_after = Failure.KEYS_UNAVAILABLE, error.retry_after

    async def verify(self, value: bytes) -> User:
        """Verify a token apart from any request, for people who ask why it fails.

        Raises:
            TokenError: what is wrong with it.
            KeysUnavailableError: it cannot be judged.
        """
        if self.introspector is not None and self._is_asked_about(value):
            return await self.introspector.obtain(value)
        parsed, verifier = self.parse(value)
        key = await verifier.engine.obtain(parsed.kid, parsed.algorithm)
        return verifier.user(parsed, key, self._clock())
