"""The store in Redis or Valkey: one `EVALSHA` for all requests that wait, on the server's clock."""

from __future__ import annotations

import asyncio
import time
from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError

from asgi_guard.arguments import typed
from asgi_guard.policy.breaker import Breaker
from asgi_guard.policy.bucket import Admission, Charge
from asgi_guard.policy.rates import Limit
from asgi_guard.policy.revocation import EVER, Marks
from asgi_guard.stores.batching import CONNECT_TIMEOUT, Line
from asgi_guard.stores.replies import Replies
from asgi_guard.stores.urls import check_store_url, reading_url, try_client
from asgi_guard.stores.wire import decode, encode, pack, question, revocation_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asgi_guard.policy.bucket import Verdict
    from asgi_guard.stores.wire import Question

SCRIPT = files(__package__).joinpath("admit.lua").read_bytes()
SCRIPT_SHA1 = sha1(SCRIPT, usedforsecurity=False).hexdigest().encode()


PING = Charge(Limit("ping", "1000/second by route", "route", interval=1000, burst=1000), "ping")
"""What a sign of life charges: a bucket of its own, which is full again a millisecond later."""


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
        clock: microseconds since the Unix epoch, where scripts may not ask the server's clock; all workers' clocks then
            have to agree. None asks the server's.
    """

    shared = True

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
        self._watch: Callable[[float, int], None] | None = None
        with reading_url("host, port, path and options"):
            try_client(self._make_client())

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

    def watch(self, told: Callable[[float, int], None]) -> None:
        """Tell of each call from now on: its seconds, and how many requests it was for. Before the first one."""
        self._watch = told

    @property
    def breakers(self) -> Sequence[Breaker]:
        """The breaker of the server."""
        return (self._breaker,)

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
        return await self._connected().ask(question(request, self.prefix))

    def tell(self, request: Admission) -> None:
        """Have a request decided or settled without waiting for it."""
        self._connected().tell(question(request, self.prefix))

    async def revoke(self, name: str, ttl: float, instant: int = EVER) -> None:
        """Put a token, a session or a subject among the revoked, for `ttl` seconds."""
        milliseconds = max(1, int(ttl * 1000))
        await self._call(lambda client: client.psetex(revocation_key(name, self.prefix), milliseconds, instant))

    async def ping(self) -> float:
        """Ask as requests ask, by the script, but charging nobody; seconds that it took.

        It asks even while the breaker is open, and closes it. PING alone is answered too where nothing can be decided:
        by a Sentinel, a node of a cluster, a replica, a server that is full, or one whose ACL forbids the script or the
        keys.
        """
        started = time.perf_counter()
        await self._call(self._probe)
        return time.perf_counter() - started

    async def _probe(self, client: Any) -> None:  # whose methods are not typed in every version
        # Names that are in different slots, which a node of a cluster says of.
        names = Admission((PING,), "ping", marks=Marks("ping, session", "ping, subject"))
        await client.execute_command("EVAL", SCRIPT, *encode([question(names, self.prefix)]))

    async def aclose(self) -> None:
        """Let go of the connections of this event loop, once what is under way is answered."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await self._line.settled()
            await client.aclose()

    async def _call(self, command: Callable[[Redis], Awaitable[Any]]) -> Any:
        """Run a command that is none of a request's, so it may take the time to connect."""
        line = self._connected()
        assert self._client is not None  # noqa: S101 - the line above sees to it
        try:
            async with asyncio.timeout(max(CONNECT_TIMEOUT, self._timeout)):
                answer = await command(self._client)
        except (RedisError, OSError, TimeoutError) as error:
            line.fails(error)
            raise line.unavailable(error) from error
        line.works()
        return answer


CLIENT_OPTIONS: dict[str, Any] = {
    "socket_connect_timeout": CONNECT_TIMEOUT,
    # The deadline is ours alone. The client's own costs a task a command, and before Python 3.12 that task can swallow
    # a cancellation, so that a call would outlive its deadline.
    "socket_timeout": None,
    # A call that was sent is never sent again: what was charged would be charged twice.
    "retry": Retry(NoBackoff(), 0),
    "health_check_interval": 0,
    "client_name": "asgi-guard",
}


class ServerLink:
    """One connection of the client's, kept for as long as it works."""

    def __init__(self, client: Redis, clock: Callable[[], int] | None) -> None:
        self._pool: Any = client.connection_pool  # whose methods are not typed in every version
        self._clock = clock
        self._connection: Any = None
        self._replies: Replies | None = None
        self._releasing: set[asyncio.Task[None]] = set()

    @property
    def is_open(self) -> bool:
        """Whether there is a connection that has not ended."""
        return self._replies is not None and not self._replies.ended

    async def open(self) -> None:
        """Take a connection from the pool, in the place of one that has ended."""
        self.close()
        async with asyncio.timeout(CONNECT_TIMEOUT):
            self._connection = connection = await self._pool.get_connection()
        # The client has no public name for it.
        self._replies = Replies(connection._writer.transport)

    async def ask(self, questions: Sequence[Question]) -> Sequence[Verdict | Exception | None]:
        """Ask by one call of the script."""
        arguments = encode(questions, 0 if self._clock is None else self._clock())
        (answer,) = await self.call([pack(b"EVALSHA", SCRIPT_SHA1, *arguments)])
        if isinstance(answer, NoScriptError):
            # A server that was restarted, failed over or flushed: the script goes along once, and is known again.
            (answer,) = await self.call([pack(b"EVAL", SCRIPT, *arguments)])
        if isinstance(answer, ResponseError):
            raise answer
        return decode(answer, questions)

    def call(self, commands: Sequence[bytes]) -> asyncio.Future[list[Any]]:
        """Send commands in one write, and get their replies."""
        if self._replies is None:
            raise RedisConnectionError("the connection was dropped")
        return self._replies.ask(commands)

    def close(self) -> None:
        """Drop the connection. Whoever still waits for an answer on it is told that it has ended."""
        connection, self._connection = self._connection, None
        replies, self._replies = self._replies, None
        if replies is not None:
            replies.end(RedisConnectionError("the connection was dropped"))
        if connection is not None:
            task = asyncio.get_running_loop().create_task(self._release(connection))
            self._releasing.add(task)
            task.add_done_callback(self._releasing.discard)

    async def _release(self, connection: Any) -> None:
        await connection.disconnect(nowait=True)
        await self._pool.release(connection)
