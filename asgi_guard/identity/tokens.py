"""Whose a token is: what was found out a moment ago, what issuers' keys say, and what an issuer says that is asked."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from asgi_guard.errors import ConfigError, Problem, TokenError
from asgi_guard.identity.issuer import Verifier
from asgi_guard.identity.jwks import check_any
from asgi_guard.policy import token
from asgi_guard.policy.introspection import is_opaque
from asgi_guard.policy.token_cache import TokenCache

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from asgi_guard.identity.introspection import Introspection
    from asgi_guard.identity.issuer import Issuer
    from asgi_guard.policy.identity import User
    from asgi_guard.policy.keys import VerificationKey


def _require_no_jwts(issuer: str, verifiers: Collection[str]) -> None:
    """See to it that nobody can be called by what another one's `sub` is, in a JWT of the same issuer."""
    if issuer in verifiers:
        message = (
            f"the JWTs of {issuer} name their users by sub, so whoever is called what that of another one is would be "
            "that one: have the endpoint say sub, and take no unsafe_subject, or name another issuer of opaque tokens"
        )
        raise ConfigError([Problem("introspection", message)])


class Tokens:
    """Tells whose a token is, or raises `TokenError`; what it is bound to is for others to look at.

    Args:
        issuers: whose tokens are accepted.
        introspection: where opaque tokens are asked about (RFC 7662), and all tokens where there are no issuers.
        bindings: the ways in which a token may be bound to a key or a certificate.
        cache_size: how many verified tokens are remembered, for a minute at most; 0 remembers none.
        clock: seconds since the Unix epoch.

    Attributes:
        verifiers: what judges the tokens of each issuer.
        introspector: what asks about opaque tokens; None for nobody.
        hits: tokens that were found among those verified before.
        misses: tokens that had to be verified.
    """

    def __init__(
        self,
        issuers: Sequence[Issuer],
        introspection: Introspection | None = None,
        *,
        bindings: frozenset[str] = frozenset(),
        cache_size: int = 10_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.verifiers = {issuer.issuer: Verifier.of(issuer, bindings) for issuer in issuers}
        if len(self.verifiers) != len(issuers):
            raise ConfigError([Problem("issuers", "an issuer is named twice")])
        self.introspector = None if introspection is None else introspection.introspector()
        if self.introspector is not None and self.introspector.policy.unsafe_subject:
            _require_no_jwts(self.introspector.policy.issuer, self.verifiers)
        self.hits = self.misses = 0
        self._algorithms = frozenset(name for issuer in issuers for name in issuer.algorithms)
        self._cache = TokenCache(cache_size)
        self._clock = clock

    async def startup(self) -> None:
        """Fetch the keys before the first request needs them. A failure is logged, and requests try again."""
        await asyncio.gather(*(verifier.engine.refresh() for verifier in self.verifiers.values()))

    async def aclose(self) -> None:
        """Give up what is under way."""
        for verifier in self.verifiers.values():
            await verifier.engine.aclose()
        if self.introspector is not None:
            await self.introspector.aclose()

    async def check(self) -> None:
        """Raise `KeysUnavailableError` unless the tokens of one issuer at least can be verified; for readiness."""
        await check_any(verifier.engine for verifier in self.verifiers.values())

    def remembered(self, digest: bytes) -> User | None:
        """The user of a token that was verified a moment ago, by the keys that hold now.

        Only a token that passed every check is remembered, so none of them has to be made again.

        Args:
            digest: of the token, as `TokenCache.digest` makes it.
        """
        hit = self._cache.get(digest, self._clock())
        if hit is None:
            return None
        user, keys = hit
        if keys is self.verifiers[user.issuer or ""].engine.keys:
            return user
        self._cache.forget(digest)
        return None

    def find(self, value: bytes) -> User | Awaitable[User]:
        """Tell whose a token is: at once, unless somebody has to be asked first.

        In this order: a token that is too long is refused; an opaque one is its issuer's to judge; one that is
        remembered is good; any other is parsed, its issuer found, whose its algorithm has to be, then its key, and
        signature and claims are checked.

        Raises:
            TokenError: what is wrong with it. Awaiting raises that, or `KeysUnavailableError`: it cannot be judged.
        """
        if len(value) > token.MAX_TOKEN_BYTES:
            raise token.too_large(value)
        if self.introspector is not None and self._is_asked_about(value):
            user = self.introspector.peek(value)
            return self.introspector.obtain(value) if user is None else user
        digest = TokenCache.digest(value)
        user = self.remembered(digest)
        if user is not None:
            self.hits += 1
            return user
        self.misses += 1
        parsed, verifier = self._parse(value)
        key = verifier.engine.peek(parsed.kid, parsed.algorithm)
        if key is None:
            return self._obtain(digest, parsed, verifier)
        return self._verify(digest, parsed, verifier, key)

    async def verify(self, value: bytes) -> User:
        """Verify a token apart from any request, for people who ask why it fails; nothing of it is remembered.

        Raises:
            TokenError: what is wrong with it.
            KeysUnavailableError: it cannot be judged.
        """
        if self.introspector is not None and self._is_asked_about(value):
            return await self.introspector.obtain(value)
        parsed, verifier = self._parse(value)
        key = await verifier.engine.obtain(parsed.kid, parsed.algorithm)
        return verifier.user(parsed, key, self._clock())

    def _is_asked_about(self, value: bytes) -> bool:
        return not self.verifiers or is_opaque(value)

    def _parse(self, value: bytes) -> tuple[token.ParsedToken, Verifier]:
        """Parse a token and find its issuer, before any key is looked for."""
        parsed = token.parse(value, self._algorithms)
        issuer = parsed.claims.get("iss")
        verifier = self.verifiers.get(issuer) if isinstance(issuer, str) else None
        if verifier is None:
            raise TokenError("issuer", f"iss is {ascii(issuer)[:128]}, which is none of {sorted(self.verifiers)}")
        verifier.check_algorithm(parsed.algorithm)
        return parsed, verifier

    def _verify(self, digest: bytes, parsed: token.ParsedToken, verifier: Verifier, key: VerificationKey) -> User:
        now = self._clock()
        user = verifier.user(parsed, key, now)
        keys = verifier.engine.keys
        if keys is not None:
            self._cache.put(digest, user, now, keys)
        return user

    async def _obtain(self, digest: bytes, parsed: token.ParsedToken, verifier: Verifier) -> User:
        key = await verifier.engine.obtain(parsed.kid, parsed.algorithm)
        return self._verify(digest, parsed, verifier, key)
