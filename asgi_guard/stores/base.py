"""The protocol of a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from asgi_guard.policy.bucket import Admission, Verdict


class Store(Protocol):
    """Where buckets, revocations and requests under way are kept.

    Every method raises `StoreUnavailableError`, and nothing else, where the store does not answer in time.
    """

    shared: bool
    """Whether other processes see the same buckets."""

    async def admit(self, request: Admission) -> Verdict:
        """Decide all that a request asks, in one call: every bucket is charged, or none, and the token is looked up."""

    def tell(self, request: Admission) -> None:
        """Have a request decided, or settled, without waiting for it. If the store does not answer, it is forgotten.

        It belongs into the event loop of the requests. What is told after an `admit` is decided after it.
        """

    async def revoke(self, token_id: str, ttl: float) -> None:
        """Put a token among the revoked, for `ttl` seconds: the rest of its life."""

    async def ping(self) -> float:
        """Ask for a sign of life; seconds that it took."""

    async def aclose(self) -> None:
        """Let go of connections. The store may be used again afterwards."""
