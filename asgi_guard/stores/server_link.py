"""The connection of one Redis or Valkey server, and the script that is called over it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from asgi_guard.policy.bucket import Admission, Charge
from asgi_guard.policy.rates import SECOND, Limit
from asgi_guard.stores.batching import CONNECT_TIMEOUT
from asgi_guard.stores.replies import Replies
from asgi_guard.stores.wire import encode, pack, question, read, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from redis.asyncio import Redis

    from asgi_guard.policy.bucket import Verdict
    from asgi_guard.policy.revocation import Marks
    from asgi_guard.stores.wire import Question, Unwritten

SCRIPT = files(__package__).joinpath("admit.lua").read_bytes()
SCRIPT_SHA1 = sha1(SCRIPT, usedforsecurity=False).hexdigest().encode()
REVOKE = files(__package__).joinpath("revoke.lua").read_bytes()
"""It goes along with each call: revocations are few, and no server has to know it."""


_PING = Limit("ping", "1000/second by route", "route", interval=1000, burst=1000)
"""What a sign of life charges: a bucket of its own, which is full again a millisecond later."""
_PING_AT_ONCE = Limit("ping-at-once", "1000 at once by route", "route", interval=SECOND, burst=1000, at_once=True)


def signs_of_life(prefix: str, name: str, marks: Marks | None = None, *, at_once: bool) -> list[Question]:
    """What a sign of life asks, in one call of the script.

    Args:
        prefix: put before every key.
        name: of its bucket, and of its token among the revoked where there are marks.
        marks: what else that token is looked up by; None asks of none.
        at_once: whether it is counted among requests under way too, and ended at once.
    """
    token, counted = None if marks is None else name, Charge(_PING_AT_ONCE, f"{name}-at-once")
    if not at_once:
        return [question(Admission((Charge(_PING, name),), token, marks=marks), prefix)]
    begun = Admission((Charge(_PING, name), counted), token, lease="ping", marks=marks)
    ended = Admission((counted,), lease="ping", settles=True)
    return [question(begun, prefix), question(ended, prefix)]


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


@asynccontextmanager
async def beside(client: Redis) -> AsyncIterator[Any]:
    """One connection of the client's beside that of the requests, for commands that are none of theirs.

    It may take the time to connect.

    Raises:
        RedisError, OSError, TimeoutError: there is none.
    """
    single: Any = client.client()  # whose methods are not typed in every version
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await single.initialize()
        yield single
    finally:
        await single.aclose()


async def in_one_write(client: Any, commands: Sequence[Sequence[bytes | str | int]]) -> None:
    """Run commands on a connection that `beside` gives, in one round trip.

    Raises:
        ResponseError: the server refused some: the error of the last that it did, but where that did not know a script.
            One that lets nothing be written refuses what asks for that.
        RedisError, OSError: it does not answer.
    """
    connection = client.connection
    await connection.send_packed_command(connection.pack_commands(commands))
    errors: list[ResponseError] = []
    leave = False
    for _ in commands:
        try:
            answer = await connection.read_response()
            if isinstance(answer, list):
                errors.append(refusal(answer))
                leave = not is_full(errors[-1])
        except ResponseError as error:
            errors.append(error)
    if leave:
        await connection.disconnect()  # as the client does where it is told: the next one may lead to a master
    if errors:
        raise next((error for error in reversed(errors) if not isinstance(error, NoScriptError)), errors[-1])


def probe(asked: Sequence[Question], now: int) -> list[list[bytes]]:
    """The commands by which requests ask something: the first has the script known, and asks nothing itself.

    Args:
        asked: what is asked, by the second.
        now: microseconds since the Unix epoch by our own clock; 0 leaves it to the server's.
    """
    return [[b"EVAL", SCRIPT, *encode((), now)], [b"EVALSHA", SCRIPT_SHA1, *encode(asked, now)]]


def revoking(key: bytes, ttl: float, instant: int) -> Sequence[bytes | str | int]:
    """The command that puts a token, a session or a subject among the revoked.

    Args:
        key: what is revoked, as `wire.revocation_key` names it.
        ttl: seconds for which that is kept; a millisecond at least.
        instant: of a subject, up to when its tokens are revoked, in microseconds since the Unix epoch; else `EVER`.
    """
    return b"EVAL", REVOKE, 1, key, max(1, int(ttl * 1000)), instant


def is_full(error: ResponseError) -> bool:
    """Whether a server, or its disk, is full. Any other that refuses to write may be no master."""
    return str(error).startswith(("OOM ", "MISCONF "))


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

    async def ask(self, questions: Sequence[Question]) -> Sequence[Verdict | Exception | Unwritten | None]:
        """Ask by one call of the script."""
        replies = self._replies
        arguments = encode(questions, 0 if self._clock is None else self._clock())
        (answer,) = await self.call([pack(b"EVALSHA", SCRIPT_SHA1, *arguments)])
        if isinstance(answer, NoScriptError):
            # A server that was restarted, failed over or flushed: the script goes along once, and is known again.
            (answer,) = await self.call([pack(b"EVAL", SCRIPT, *arguments)])
        if isinstance(answer, ResponseError):
            raise answer
        if isinstance(answer, list) and self._replies is replies and not is_full(refusal(answer)):
            self._leave()  # nothing may be written over this connection: the next one may lead to a master
        return read(answer, questions)

    def call(self, commands: Sequence[bytes]) -> asyncio.Future[list[Any]]:
        """Send commands in one write, and get their replies."""
        if self._replies is None:
            raise RedisConnectionError("the connection was dropped")
        return self._replies.ask(commands)

    def close(self) -> None:
        """Drop the connection. Whoever still waits for an answer on it is told that it has ended."""
        if self._replies is not None:
            self._replies.drop(RedisConnectionError("the connection was dropped"))
        self._leave()

    def _leave(self) -> None:
        """Let the connection go once whoever waits for an answer on it has that."""
        connection, self._connection = self._connection, None
        replies, self._replies = self._replies, None
        if connection is not None:
            under_way = [] if replies is None else replies.under_way
            task = asyncio.get_running_loop().create_task(self._release(connection, under_way))
            self._releasing.add(task)
            task.add_done_callback(self._releasing.discard)

    async def _release(self, connection: Any, under_way: Sequence[asyncio.Future[Any]]) -> None:
        if under_way:
            await asyncio.wait(under_way, timeout=CONNECT_TIMEOUT)
        await connection.disconnect(nowait=True)
        await self._pool.release(connection)
