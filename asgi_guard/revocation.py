"""Putting tokens among the revoked: what `revoke`, `Guard.revoke*` and `asgi-guard revoke` do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING

from asgi_guard.chain.exchange import SCOPE_KEY
from asgi_guard.configuration.variables import PREFIX
from asgi_guard.errors import ConfigError, Problem, wrong_type
from asgi_guard.policy.identity import User
from asgi_guard.policy.plain_types import wrong_types
from asgi_guard.policy.revocation import (
    DEFAULT_TTL,
    LONGEST_TTL,
    MARGIN,
    kept_for,
    longest_life,
    session_key,
    subject_key,
)

if TYPE_CHECKING:
    from asgi_guard.asgi import Scope
    from asgi_guard.chain.exchange import Exchange
    from asgi_guard.middleware import IdentityMiddleware
    from asgi_guard.stores import Store


async def revoke(scope: Scope) -> None:
    """Refuse the token of this request from now on, for the rest of its life: what a logout is to do.

    It is revoked wherever the guards that serve the request look tokens up, whichever guards these are.

    Args:
        scope: the ASGI scope of the request; `request.scope` in Starlette and FastAPI.

    Raises:
        LookupError: the scope did not pass a guard.
        ConfigError: `auth.revocation` is off, or nobody was identified, so that no token was looked up.
        ValueError: an API key showed the identity, or an opaque token without a `jti`, as for `Guard.revoke`.
        TypeError: it is no scope.
        StoreUnavailableError: the store did not answer, and the token may be accepted still.
    """
    given: object = scope
    if not isinstance(given, Mapping):
        raise TypeError(f"scope: {wrong_type(given, 'that of the request, as request.scope')}")
    exchange: Exchange | None = scope.get(SCOPE_KEY)
    if exchange is None:
        raise LookupError("this scope did not pass a guard: wrap the app in Guard")
    if not exchange.revocations or exchange.user is None:
        raise nobody_looks("no token of this request was looked up among the revoked: set it, and require an identity")
    told = (Revocations(store, {}).token(exchange.user) for store in exchange.revocations)
    for answer in await asyncio.gather(*told, return_exceptions=True):  # one store that is gone keeps no other from it
        if isinstance(answer, BaseException):
            raise answer


def nobody_looks(message: str) -> ConfigError:
    """The error of a revocation that would not hold."""
    return ConfigError([Problem(f"{PREFIX}AUTH_REVOCATION", message)])


def require_user(user: object) -> None:
    """See to it that this is an identity.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(user, User):
        raise TypeError(f"user: {wrong_type(user, 'the one of a request that was identified, as request.user')}")


def lives_of(identity: IdentityMiddleware) -> Mapping[str, float | None]:
    """The issuers whose tokens are accepted, each with the longest life of a token, where that is bounded."""
    lives: dict[str, float | None] = {}
    for name, verifier in identity.tokens.verifiers.items():
        claims = verifier.claims
        lives[name] = longest_life(claims.max_age, claims.max_lifetime, claims.leeway)
    if identity.tokens.introspector is not None:
        asked = identity.tokens.introspector.policy
        life = longest_life(asked.max_age, asked.max_lifetime, asked.leeway)
        other = lives.get(asked.issuer, life)  # of the tokens of the same issuer that are verified here
        lives[asked.issuer] = None if life is None or other is None else max(life, other)
    return lives


_TYPES = {"session_id": "str", "subject": "str", "issuer": "str | None", "ttl": "float | None"}


def _require_types(**given: object) -> None:
    if problems := list(wrong_types(_TYPES, given)):
        raise TypeError("; ".join(map(str, problems)))


def _end(user: User) -> float:
    """When the token of an identity ends for whoever takes it, in seconds since the Unix epoch.

    That is by its `exp`. An opaque token need not say one, and may never end; where its age is bounded here, others are
    taken to bound it too, by 30 days at the most.
    """
    if user.expires is None:
        return inf
    said: float = user.claims.get("exp", time.time() + DEFAULT_TTL) if user.claims else 0
    return max(said, user.expires)


class Revocations:
    """Revokes tokens in a store.

    Args:
        store: where every guard looks tokens up.
        lives: the issuers that there are, each with the longest life of its tokens.
    """

    def __init__(self, store: Store, lives: Mapping[str, float | None]) -> None:
        self._store = store
        self._lives = lives

    async def token(self, user: User) -> float:
        """Revoke the token that showed an identity, for the rest of its life and a margin; seconds of the former.

        Its life is the one that its issuer gave it, and not what this guard's bound on its age leaves of it: another
        guard on the same store may have no such bound.

        Raises:
            ValueError: there is no such token, or it has no id.
        """
        if user.token_id is None:
            raise ValueError("this identity was not shown by a token with an id, so there is none to revoke")
        seconds = min(max(0.0, _end(user) - time.time()), LONGEST_TTL)
        await self._store.revoke(user.token_id, min(seconds + MARGIN, LONGEST_TTL))
        return seconds

    async def session(self, session_id: str, issuer: str | None, ttl: float | None) -> float:
        """Revoke every token of a session; seconds for which that is kept."""
        _require_types(session_id=session_id, issuer=issuer, ttl=ttl)
        if not session_id:
            raise ValueError("a session has a name: the `sid` of its tokens")
        issuer = self._issuer(issuer)
        seconds = kept_for(self._lives[issuer], ttl)
        await self._store.revoke(session_key(issuer, session_id), seconds)
        return seconds

    async def subject(self, subject: str, issuer: str | None, ttl: float | None) -> float:
        """Revoke every token of a subject that was issued until now; seconds for which that is kept."""
        _require_types(subject=subject, issuer=issuer, ttl=ttl)
        if not subject:
            raise ValueError("a subject has a name: the `sub` of its tokens")
        issuer = self._issuer(issuer)
        seconds = kept_for(self._lives[issuer], ttl)
        await self._store.revoke(subject_key(issuer, subject), seconds, time.time_ns() // 1000)
        return seconds

    def _issuer(self, issuer: str | None) -> str:
        known = ", ".join(self._lives)
        if issuer is None:
            if len(self._lives) != 1:
                raise ValueError(f"say of which issuer: {known}")
            return next(iter(self._lives))
        if issuer not in self._lives:
            raise ValueError(f"{issuer!r} is none of the issuers: {known}")
        return issuer
