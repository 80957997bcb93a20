"""Which tokens are revoked: one by its id, all of a session, or all of a subject that were issued up to an instant.

The order of decisions on a token:

1. Its `jti` is among the revoked: it is revoked.
2. Its `sid` is (OpenID Connect Back-Channel Logout 1.0 section 2.1): it is revoked, whenever it was issued.
3. An instant is kept for its `sub`: it is revoked if its `iat` is not after that. One that does not say when it was
   issued is, for it may have been before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgi_guard.policy.identity import Marks as Marks  # whoever asks for a token's state here names it by them
from asgi_guard.policy.identity import store_key

if TYPE_CHECKING:
    from collections.abc import Mapping

EVER = 1
"""Kept for a token or a session, in the place of an instant: whenever the token was issued, it is revoked."""
DEFAULT_TTL = 30 * 86_400.0
"""Seconds that a revocation by subject or session is kept where nothing bounds the age of tokens: 30 days."""
MARGIN = 300.0
"""Seconds for which a token's revocation outlasts the token: it ends later by another machine's clock,
and by the leeway of another guard on the same store, which may be as much."""
LONGEST_TTL = 10 * 366 * 86_400.0
"""Seconds that a revocation is kept at most: ten years."""


def session_key(issuer: str, session_id: str) -> str:
    """The name of a session among the revoked: issuers choose their `sid`s apart from one another."""
    return store_key("sid", issuer, session_id)


def subject_key(issuer: str, subject: str) -> str:
    """The name of a subject in the store: among the revoked, and in limits."""
    return store_key("user", issuer, subject)


def marks_of(issuer: str, subject: str, claims: Mapping[str, Any]) -> Marks:
    """The marks of a token whose claims were checked."""
    session, issued = claims.get("sid"), claims.get("iat")
    return Marks(
        None if session is None else session_key(issuer, session),
        subject_key(issuer, subject),
        0 if issued is None else int(issued * 1_000_000),
    )


def is_revoked(instant: int, marks: Marks | None) -> bool:
    """Whether a token is revoked.

    Args:
        instant: what the store keeps of the token: 0 for nothing, `EVER` if it or its session is named, else the
            microseconds since the Unix epoch up to which its subject's tokens are revoked.
        marks: the token's.
    """
    return instant == EVER or (instant > EVER and marks is not None and marks.issued <= instant)


def longest_life(max_age: float | None, max_lifetime: float | None, leeway: float) -> float | None:
    """Seconds from now for which a token can be accepted that was issued up to now; None if nothing bounds that.

    Args:
        max_age: seconds since `iat` for which tokens are accepted.
        max_lifetime: seconds from `iat` to `exp` at most.
        leeway: seconds by which the issuer's clock may differ: `iat` may lie ahead by these, and `exp` behind.
    """
    bounds = [bound for bound in (max_age, max_lifetime) if bound is not None]
    return min(bounds) + 2 * leeway if bounds else None


def kept_for(life: float | None, ttl: float | None) -> float:
    """Seconds that a revocation by subject or session is kept: at least as long as what it revokes could be accepted.

    Args:
        life: the longest life of a token; None if nothing bounds it.
        ttl: what the caller asks for; None takes the longest life, or 30 days where that is not bounded.

    Raises:
        ValueError: a token could outlive the revocation, or it is none of 0 to ten years.
    """
    if ttl is None:
        return DEFAULT_TTL if life is None else max(1.0, life)
    if not 0 < ttl <= LONGEST_TTL:
        raise ValueError("the ttl has to be more than 0 seconds, and ten years at most")
    if life is not None and ttl < life:
        raise ValueError(f"the ttl is too short: a token may be accepted for {life:.0f} s from now")
    return ttl
