"""The store in Redis or Valkey: one `EVALSHA` for all requests that wait, on the server's clock."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, ClassVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

from asgi_guard.configuration.arguments import typed
from asgi_guard.errors import StoreUnavailableError
from asgi_guard.policy.breaker import Breaker
from asgi_guard.policy.bucket import Admission
from asgi_guard.policy.revocation import EVER, Marks
from asgi_guard.stores.base import UNWATCHED
from asgi_guard.stores.batching import Line
from asgi_guard.stores.eviction import policy_of
from asgi_guard.stores.server_link import (
    CLIENT_OPTIONS,
    ServerLink,
    beside,
    in_one_write,
    probe,
    revoking,
    signs_of_life,
)
from asgi_guard.stores.urls import advised, check_store_url, reading_url, try_client, unverified
from asgi_guard.stores.wire import question, revocation_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asgi_guard.policy.bucket import Verdict
    from asgi_guard.stores.base import Watch


def own_clock() -> int:
    """Microseconds since the Unix epoch."""
    return time.time_ns() // 1000


class RedisStore:
    """Buckets, revocations and requests under way in a Redis or Valkey server that all workers share.

    All requests that wait are asked in one call; see `asgi_guard.stores.batching`. A call that has not been answered
    after `timeout` counts as not answered, and is *not* repeated: a charge that was made and whose answer was lost
    would be made twice. After three such calls in a row the breaker opens, and calls fail at once until a probe is
    answered.

    Args:
        url: `redis://`, `rediss://` or `unix://`. It is kept out of errors, logs and reprs, for it may hold a password.
        prefix: put before every key.
        timeout: seconds until an answer counts as none.
        breaker: when to stop asking, and when to try again.
        clock: microseconds since the Unix epoch, where scripts may not ask the server's clock; workers' clocks then
            have to differ by far less than the shortest window of a limit. None asks the server's.

    Raises:
        ConfigError: an argument is of the wrong type, or the URL cannot be read.
    """

    shared = True
    schemes: ClassVar[tuple[str, ...]] = ("redis", "rediss", "unix")
    """What URLs of this store begin with."""

    @typed
    def __init__(
        self,
        url: str,
        *,
        prefix: str = "asgi-guard:",
        timeout: float = 0.05,
        breaker: Breaker | None = None,
        clock: Callable[[], int] | None = None,
    ) -> None:
        self._url = url
        self.prefix = prefix
        self._timeout = timeout
        self._breaker = breaker or Breaker()
        self._clock = clock
        self._client: Redis | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._line: Line
        self._watch = UNWATCHED
        self._at_once = False
        with reading_url(url, self.schemes, "host, port, path and options"):
            try_client(self._make_client(), url)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(prefix={self.prefix!r}, timeout={self._timeout})"

    def _make_client(self) -> Redis:
        check_store_url(self._url)
        return Redis.from_url(self._url, **CLIENT_OPTIONS)

    def _connected(self) -> Line:
        """The line of this event loop: connections belong to the loop they were opened in."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._client, self._loop = self._make_client(), loop
            self._line = Line(ServerLink(self._client, self._clock), self._breaker, self._timeout, watch=self._watch)
        return self._line

    def watch(self, watch: Watch) -> None:
        """Tell of each call from now on. Before the first one."""
        self._watch = watch

    def expect_at_once(self) -> None:
        """Have `ping` count a request among those under way too, and end it: limits count those."""
        self._at_once = True

    @property
    def breakers(self) -> Sequence[Breaker]:
        """The breaker of the server."""
        return (self._breaker,)

    @property
    def is_away(self) -> bool:
        """Whether the server is not asked for a while."""
        return self._breaker.is_open

    @property
    def unverified(self) -> str | None:
        """The option by which its URL has any certificate accepted, or one of any host; None where it has neither."""
        return unverified(self._url)

    def same_as(self, other: object) -> bool:
        """Whether the other was given the same URL and prefix."""
        return isinstance(other, RedisStore) and (other._url, other.prefix) == (self._url, self.prefix)

    def client(self) -> Redis:
        """The client of this event loop, for commands that are none of a request's."""
        self._connected()
        assert self._client is not None  # noqa: S101 - the line above sees to it
        return self._client

    async def admit(self, request: Admission) -> Verdict:
        """Decide all that a request asks, in one call with those that wait beside it."""
        line, asked = self._connected(), question(request, self.prefix)
        try:
            answer = line.ask(asked)
        except StoreUnavailableError as error:
            error.revoked = await line.look_up(asked)
            raise
        return await answer

    def tell(self, request: Admission) -> None:
        """Have a request decided or settled without waiting for it."""
        self._connected().tell(question(request, self.prefix))

    async def revoke(self, name: str, ttl: float, instant: int = EVER) -> None:
        """Put a token, a session or a subject among the revoked, for `ttl` seconds at least."""
        await self._run(revoking(revocation_key(name, self.prefix), ttl, instant))

    async def ping(self) -> float:
        """Ask as requests ask, by the script, but charging nobody; seconds that it took.

        It asks even while the breaker is open, and closes it. To connect may take a second, but an answer that comes
        after `timeout` is none, as it is none for requests. PING alone is answered too where nothing can be decided: by
        a Sentinel, a node of a cluster, a replica, a server that is full, or one whose ACL forbids the script or the
        keys.
        """
        started = time.perf_counter()
        # Names that are in different slots, which a node of a cluster says of.
        asked = signs_of_life(self.prefix, "ping", Marks("ping, session", "ping, subject"), at_once=self._at_once)
        late = await self._run(*probe(asked, 0 if self._clock is None else self._clock()))
        if late is not None:
            raise late
        return time.perf_counter() - started

    async def evicts(self) -> str | None:
        """The policy by which the server forgets keys that have not expired; None where it does not, or tells none."""
        return await policy_of(self.client())

    async def aclose(self) -> None:
        """Let go of the connections of this event loop, once what is under way is answered."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await self._line.leave()
            await client.aclose()

    async def _run(self, *commands: Sequence[bytes | str | int]) -> StoreUnavailableError | None:
        """Run commands that are none of a request's, so they may take the time to connect; what `Line.run` gives."""
        line = self._connected()
        assert self._client is not None  # noqa: S101 - the line above sees to it
        try:
            async with beside(self._client) as client:
                return await line.run(in_one_write(client, commands))
        except (RedisError, OSError, TimeoutError) as error:
            line.fails(error)
            raise advised(line.unavailable(error), self._url) from error
