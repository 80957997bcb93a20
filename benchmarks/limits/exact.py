"""Whether more is admitted than a limit allows: in the pure policy, and by each contender on a server."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asgi_guard.policy.bucket import Charge, decide
from asgi_guard.policy.rates import Limit, parse_limits
from benchmarks.limits.contenders import Contender, Setup
from benchmarks.limits.servers import PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.limits.servers import Target

RATES = (
    "10/second by ip", "10/second burst 1 by ip", "7/3s burst 20 by ip", "1/minute by ip", "100000/second by ip",
    "3/7d burst 2 by ip", "5/15m by ip", "999/hour burst 10 by ip",
)  # fmt: skip
EACH = 1000
"""Steps that one run of one bucket has."""
PER_SECOND = 10
LONGEST = 5
"""How many times its capacity a window may reasonably admit before a contender is stopped: it does not limit."""


@dataclass(frozen=True, slots=True)
class Steps:
    """What the policy decided over generated steps.

    Attributes:
        steps: how many.
        admitted: how many were admitted.
        above: admissions above capacity + rate * t, over any span of time.
        withheld: refusals of what the textbook's bucket has room for.
    """

    steps: int
    admitted: int
    above: int
    withheld: int


@dataclass(frozen=True, slots=True)
class Admitted:
    """What a contender admitted when it was asked as fast as could be.

    Attributes:
        name: the contender.
        seconds: for how long.
        asked: checks.
        admitted: how many were admitted.
        allowed: capacity + rate * t.
    """

    name: str
    seconds: float
    asked: int
    admitted: int
    allowed: float


def generate(steps: int, passed: Callable[[float], None], seed: int = 0) -> Steps:
    """Let the policy decide at random moments about random costs, and hold each decision to the textbook.

    The textbook's bucket is kept beside it, in whole microseconds: a level that runs out as time passes, and that an
    admission raises. That the level never exceeds the capacity is the same as that no span of time, wherever it begins
    and ends, admits more than capacity + rate * its length.
    """
    chance = random.Random(seed)  # noqa: S311 - nothing is to be kept secret
    limits = [limit for text in RATES for limit in parse_limits(text)]
    done = admitted = above = withheld = 0
    while done < steps:
        found = _run(chance, chance.choice(limits), min(EACH, steps - done))
        done += found.steps
        admitted += found.admitted
        above += found.above
        withheld += found.withheld
        passed(found.steps / steps)
    return Steps(done, admitted, above, withheld)


def _run(chance: random.Random, limit: Limit, steps: int) -> Steps:
    now, state, level = chance.randrange(1 << 51), 0, 0
    admitted = above = withheld = 0
    for _ in range(steps):
        passing = chance.choice((0, 1, chance.randrange(limit.interval + 1), chance.randrange(3 * limit.interval)))
        if chance.random() < 0.01:
            passing = chance.randrange(2 * limit.capacity)
        now += passing
        level = max(0, level - passing)
        cost = 1 if chance.random() < 0.8 else chance.randrange(1, limit.burst + 1)
        yes, (after,), _ = decide((Charge(limit, "key", cost),), (state,), now)
        room = level + cost * limit.interval <= limit.capacity
        if yes:
            admitted += 1
            above += not room
            level += cost * limit.interval
        else:
            withheld += room
        # A state that is not written down is one of a bucket that is full, which every store may forget.
        state = after if after > now else 0
    return Steps(steps, admitted, above, withheld)


def compare(
    target: Target, contenders: Sequence[Contender], seconds: float, passed: Callable[[float], None]
) -> list[Admitted]:
    """Ask each contender for more than it may admit, for a while: 10 a second, of which 10 at once.

    Args:
        target: the server.
        contenders: all that are present.
        seconds: for how long, each.
        passed: is told which share of this part is done, each time.
    """
    found = []
    for contender in contenders:
        found.append(asyncio.run(_compare(target, contender, seconds)))
        passed(1 / len(contenders))
    return found


async def _compare(target: Target, contender: Contender, seconds: float) -> Admitted:
    limiter = await contender.open(
        Setup(target.url, count=PER_SECOND, seconds=1, prefix=f"{PREFIX}exact:{contender.name}:")
    )
    asked = admitted = 0
    try:
        await limiter.check("another-client")  # to connect
        started = time.perf_counter()
        while (passed := time.perf_counter() - started) < seconds:
            asked += 1
            admitted += await limiter.check("client-000000")
    finally:
        await limiter.aclose()
    return Admitted(contender.name, passed, asked, admitted, PER_SECOND + PER_SECOND * passed)
