"""The protocol of a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from asgi_guard.policy.revocation import EVER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asgi_guard.policy.breaker import Breaker
    from asgi_guard.policy.bucket import Admission, Verdict


@runtime_checkable
class Store(Protocol):
    """Where buckets, revocations and requests under way are kept.

    The name is for annotations. What a store is asked, and answers, is the guard's own, and changes with it: use one of
    the stores that come with the package.

    Whatever waits for an answer (`admit`, `revoke`, `ping`) raises `StoreUnavailableError`, and nothing else, where the
    store does not answer in time.
    """

    shared: bool
    """Whether other processes see the same buckets."""

    async def admit(self, request: Admission) -> Verdict:
        """Decide all that a request asks, in one call: every bucket is charged, or none, and the token is looked up."""

    def tell(self, request: Admission) -> None:
        """Have a request decided, or settled, without waiting for it.

        If the store does not answer, a question is forgotten. An account may be kept until it does.

        It belongs into the event loop of the requests. What is told after an `admit` is decided after it.
        """

    async def revoke(self, name: str, ttl: float, instant: int = EVER) -> None:
        """Put a token, a session or a subject among the revoked. What was kept of it before is not cut short.

        Of both, the later end and the later instant count; `EVER` is the latest.

        Args:
            name: the store's name for it.
            ttl: seconds until it is forgotten.
            instant: of a subject, up to when its tokens are revoked, in microseconds since the Unix epoch.
        """

    async def ping(self) -> float:
        """Ask for a sign of life; seconds that it took."""

    async def aclose(self) -> None:
        """Let go of connections. The store may be used again afterwards."""


@runtime_checkable
class Probed(Protocol):
    """A store whose `ping` can also test the counting of requests at once."""

    def expect_at_once(self) -> None:
        """Have `ping` count a request among those under way too, and end it: limits count those."""


@runtime_checkable
class Watched(Protocol):
    """A store that tells how its calls go."""

    def watch(self, watch: Watch) -> None:
        """Tell of each call from now on. Before the first one."""

    @property
    def breakers(self) -> Sequence[Breaker]:
        """The breakers of its servers."""

    @property
    def is_away(self) -> bool:
        """Whether the log is told by itself that it, or a server of it, does not answer."""


def _unwatched(*_: object) -> None:
    pass


class Watch(NamedTuple):
    """Who is told how calls go.

    Attributes:
        answered: of each call that was answered: its seconds, and how many requests it was for.
        failed: of each failure: no answer in time, no connection, or an error in the place of an answer.
    """

    answered: Callable[[float, int], object] = _unwatched
    failed: Callable[[], object] = _unwatched


UNWATCHED = Watch()


def is_same(store: Store, other: object) -> bool:
    """Whether two stores keep the same: one and the same, or two of the same place."""
    same_as = getattr(store, "same_as", None)
    return store is other if same_as is None else bool(same_as(other))
