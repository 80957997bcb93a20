"""What it costs to refuse a client that is over its limit, again and again."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asgi_guard import RateLimitMiddleware, RedisStore
from benchmarks import subjects
from benchmarks.calls import Idle, timed
from benchmarks.limits import peers, scripts
from benchmarks.limits.contenders import OURS, Contender, Setup, named
from benchmarks.limits.servers import PREFIX, Counters, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asgi_guard.asgi import Message
    from asgi_guard.policy.bucket import Admission, Verdict

CALLS = 50
CLIENT = "client-000000"


@dataclass(frozen=True, slots=True)
class Refused:
    """What one refusal took.

    Attributes:
        name: the contender.
        microseconds: of one refusal. Of ours, what a refused request takes through the whole layer, the making of the
            answer included, less what a request takes through a layer that does nothing. Of others, their check alone.
        store_calls: how often the store was asked, a refusal; None where there is no such thing.
        trips: calls that the server counted, a refusal.
    """

    name: str
    microseconds: float
    store_calls: float | None
    trips: float


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
    share = 1 / (1 + len(chosen))
    found = [asyncio.run(_layer(target, rounds))]
    passed(share)
    for contender in chosen:
        found.append(asyncio.run(_check(contender, target, rounds)))
        passed(share)
    return found


async def _status(app: Any, scope: dict[str, Any]) -> int:
    statuses: list[int] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app(dict(scope), subjects.receive, send)
    (status,) = statuses
    return status


async def _layer(target: Target, rounds: int) -> Refused:
    scope = subjects.request("none")
    store = Counted(target.url, prefix=f"{PREFIX}refused:", timeout=10)
    idle = Idle(subjects.raw)
    limited = RateLimitMiddleware(subjects.raw, limit="1/hour by ip", store=store)
    try:
        assert [await _status(limited, scope) for _ in range(3)] == [200, 429, 429]
        await timed(idle, scope, CALLS)
        added: list[float] = []
        counters, asked = Counters(target.client), store.asked
        gc.collect()
        for _ in range(rounds):
            base = await timed(idle, scope, CALLS)
            added.append(await timed(limited, scope, CALLS) - base)
        calls, _ = counters.since()
    finally:
        await store.aclose()
    refusals = rounds * CALLS
    return Refused(OURS, statistics.median(added), (store.asked - asked) / refusals, calls / refusals)


async def _check(contender: Contender, target: Target, rounds: int) -> Refused:
    limiter = await contender.open(Setup(target.url, count=1, seconds=3600, prefix=f"{PREFIX}refused:"))
    try:
        await limiter.check(CLIENT)
        assert not await limiter.check(CLIENT)
        taken = []
        counters = Counters(target.client, contender.commands)
        for _ in range(rounds):
            started = time.perf_counter_ns()
            for _ in range(CALLS):
                await limiter.check(CLIENT)
            taken.append((time.perf_counter_ns() - started) / CALLS / 1000)
        calls, _ = counters.since()
    finally:
        await limiter.aclose()
    return Refused(contender.name, statistics.median(taken), None, calls / (rounds * CALLS))
