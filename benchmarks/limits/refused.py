"""What it costs to refuse a client that is over its limit, again and again."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asgi_guard import RateLimitMiddleware, RedisStore
from benchmarks import subjects
from benchmarks.calls import Idle, timed
from benchmarks.limits import peers, scripts
from benchmarks.limits.contenders import OURS, Contender, Setup, named
from benchmarks.limits.servers import PREFIX, Counters, Target
from benchmarks.rounds import collector_off, shuffler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from asgi_guard.asgi import Message
    from asgi_guard.policy.bucket import Admission, Verdict

CALLS = 50
CLIENT = "client-000000"


@dataclass(frozen=True, slots=True)
class Refused:
    """What one refusal took.

    Attributes:
        name: the contender.
        microseconds: of one refusal, by the clock on the wall. Of ours, what a refused request takes through the whole
            layer, the making of the answer included, less what a request takes through a layer that does nothing. Of
            others, their check alone.
        store_calls: how often the store was asked, a refusal; None where there is no such thing.
        trips: calls that the server counted, a refusal.
    """

    name: str
    microseconds: float
    store_calls: float | None
    trips: float


@dataclass(frozen=True, slots=True)
class _Part:
    """One of those that refuse.

    Attributes:
        name: the contender.
        commands: by which it asks the server, as the server counts them.
        turn: refuses a number of times, and tells how many microseconds one took.
        asked: how often the store was asked by all turns; None where there is no such thing.
    """

    name: str
    commands: Sequence[str]
    turn: Callable[[], Awaitable[float]]
    asked: Callable[[], int] | None


class Counted(RedisStore):
    """The store, counting how often it is asked."""

    asked = 0

    async def admit(self, request: Admission) -> Verdict:
        """Count, and decide."""
        self.asked += 1
        return await super().admit(request)


def measure(
    target: Target, contenders: Sequence[Contender], rounds: int, passed: Callable[[float], None]
) -> list[Refused]:
    """Measure our layer, and the checks of others.

    Args:
        target: the server.
        contenders: all that are present.
        rounds: how often each is asked a number of times; the medians are told.
        passed: is told which share of this part is done, each time.
    """
    chosen = named(contenders, scripts.ONE_CALL, peers.FIXED.name, peers.THROTTLED.name)
    return asyncio.run(_measure(target, chosen, rounds, passed))


async def _measure(
    target: Target, contenders: Sequence[Contender], rounds: int, passed: Callable[[float], None]
) -> list[Refused]:
    async with AsyncExitStack() as opened:
        parts = [await opened.enter_async_context(_layer(target))]
        parts += [await opened.enter_async_context(_check(contender, target)) for contender in contenders]
        taken: list[list[float]] = [[] for _ in parts]
        trips = [0] * len(parts)
        order, dice = list(range(len(parts))), shuffler()
        with collector_off():
            for _ in range(rounds):
                dice.shuffle(order)
                for number in order:
                    counters = Counters(target.client, parts[number].commands)
                    taken[number].append(await parts[number].turn())
                    trips[number] += counters.since()[0]
                gc.collect()
                passed(1 / rounds)
        refusals = rounds * CALLS
        return [
            Refused(
                part.name,
                statistics.median(each),
                None if part.asked is None else part.asked() / refusals,
                calls / refusals,
            )
            for part, each, calls in zip(parts, taken, trips, strict=True)
        ]


async def _status(app: Any, scope: dict[str, Any]) -> int:
    statuses: list[int] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app(dict(scope), subjects.receive, send)
    (status,) = statuses
    return status


@asynccontextmanager
async def _layer(target: Target) -> AsyncIterator[_Part]:
    scope = subjects.request("none")
    store = Counted(target.url, prefix=f"{PREFIX}refused:", timeout=10)
    idle = Idle(subjects.raw)
    limited = RateLimitMiddleware(subjects.raw, limit="1/hour by ip", store=store)

    async def turn() -> float:
        base = await timed(idle, scope, CALLS, time.perf_counter_ns)
        return await timed(limited, scope, CALLS, time.perf_counter_ns) - base

    try:
        assert [await _status(limited, scope) for _ in range(3)] == [200, 429, 429]
        await turn()
        before = store.asked
        yield _Part(OURS, ("evalsha",), turn, lambda: store.asked - before)
    finally:
        await store.aclose()


@asynccontextmanager
async def _check(contender: Contender, target: Target) -> AsyncIterator[_Part]:
    limiter = await contender.open(Setup(target.url, count=1, seconds=3600, prefix=f"{PREFIX}refused:"))

    async def turn() -> float:
        started = time.perf_counter_ns()
        for _ in range(CALLS):
            await limiter.check(CLIENT)
        return (time.perf_counter_ns() - started) / CALLS / 1000

    try:
        await limiter.check(CLIENT)
        assert not await limiter.check(CLIENT)
        await turn()
        yield _Part(contender.name, contender.commands, turn, None)
    finally:
        await limiter.aclose()
