"""What a server that stalls, or that forgets its scripts, does to the checks of the moment."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from benchmarks.calls import quiet
from benchmarks.interval import Interval
from benchmarks.limits import peers, scripts
from benchmarks.limits.contenders import OURS, Contender, Limiter, Setup, named, renamed
from benchmarks.limits.outages import TIMEOUT, attempt
from benchmarks.limits.rounds import CLIENTS
from benchmarks.limits.servers import PREFIX
from benchmarks.rounds import shuffler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.limits.servers import Target

CALLS = 8
TASKS = 64
BETWEEN_FLUSHES = 0.02
"""Seconds."""
SETTLED = 15.0
"""Seconds after which every limiter can be asked again."""


@dataclass(frozen=True, slots=True)
class Stall:
    """What was charged for calls that a stalled server did not answer in time.

    Attributes:
        name: the contender.
        calls: checks made, each of another client.
        charged: units that were charged for them in the end.
        twice: clients that were charged more than once for their one call.
        seconds: until the last call came back.
        outcomes: what came of the calls, and how often.
    """

    name: str
    calls: int
    charged: int
    twice: int
    seconds: float
    outcomes: dict[str, int]


@dataclass(frozen=True, slots=True)
class Flush:
    """What came of checks while the server was told to forget its scripts, again and again.

    Attributes:
        name: the contender.
        checks: how many were made, in all turns.
        failed: how many of them raised.
        flushes: how often the server forgot.
        share: of the checks of a turn, that raised.
    """

    name: str
    checks: int
    failed: int
    flushes: int
    share: Interval


def stall(
    target: Target, contenders: Sequence[Contender], seconds: float, patience: float, passed: Callable[[float], None]
) -> list[Stall]:
    """Stop the server, let everyone ask, let it go on, and look at what was charged.

    Args:
        target: a server of our own, which is stopped.
        contenders: all that are present.
        seconds: for how long it stands still.
        patience: seconds until a call is given up.
        passed: is told which share of this part is done, each time.
    """
    default = renamed(scripts.WITH_DEFAULTS, f"{scripts.DEFAULTS}, but for its timeout")
    chosen = [*named(contenders, OURS), default, *named(contenders, peers.FIXED.name, peers.THROTTLED.name)]
    with quiet():
        found = asyncio.run(_stall(target, chosen, seconds, patience))
    passed(1.0)
    return found


async def _stall(target: Target, contenders: Sequence[Contender], seconds: float, patience: float) -> list[Stall]:
    clients = CLIENTS[:CALLS]
    limiters: list[Limiter] = []
    try:
        for contender in contenders:
            # So slow that nothing comes back while this runs.
            setup = Setup(
                target.url, count=100, seconds=86400, timeout=TIMEOUT, prefix=f"{PREFIX}stall:{contender.name}:"
            )
            limiters.append(await contender.open(setup))
        for limiter in limiters:
            # To connect. On a busy machine that may take longer than the timeout allows; then it is tried again.
            await asyncio.gather(*(attempt(limiter, f"other-{client}", patience) for client in clients))
            await _eventually(limiter, f"other-{clients[0]}")
        with target.frozen():
            calls = [asyncio.ensure_future(_calls(limiter, clients, patience)) for limiter in limiters]
            await asyncio.sleep(seconds)
        made = [await call for call in calls]
        return [
            await _charged(contender.name, limiter, clients, taken, outcomes)
            for contender, limiter, (taken, outcomes) in zip(contenders, limiters, made, strict=True)
        ]
    finally:
        for limiter in limiters:
            await limiter.aclose()


async def _calls(limiter: Limiter, clients: Sequence[str], patience: float) -> tuple[float, list[str]]:
    started = time.perf_counter()
    outcomes = await asyncio.gather(*(attempt(limiter, client, patience) for client in clients))
    return time.perf_counter() - started, outcomes


async def _charged(
    name: str, limiter: Limiter, clients: Sequence[str], seconds: float, outcomes: Sequence[str]
) -> Stall:
    used = [await _eventually(limiter, client) for client in clients]
    counts = {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))}
    return Stall(name, len(clients), sum(used), sum(units > 1 for units in used), seconds, counts)


async def _eventually(limiter: Limiter, client: str) -> int:
    """Units used, as soon as the limiter can be asked again: its breaker may be open for a while yet."""
    until = time.monotonic() + SETTLED
    while True:
        try:
            return await limiter.used(client)
        except Exception:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.1)


def flush(
    target: Target, contenders: Sequence[Contender], turns: int, seconds: float, passed: Callable[[float], None]
) -> list[Flush]:
    """Make the server forget its scripts while each contender is under load, round after round.

    Args:
        target: a server of our own.
        contenders: all that are present.
        turns: of each contender.
        seconds: for how long, each turn.
        passed: is told which share of this part is done, each time.
    """
    found: dict[str, list[tuple[int, int, int]]] = {contender.name: [] for contender in contenders}
    order, dice = list(contenders), shuffler()
    for _ in range(turns):
        dice.shuffle(order)
        for contender in order:
            with quiet():
                found[contender.name].append(asyncio.run(_flush(target, contender, seconds)))
            passed(1 / len(contenders) / turns)
    return [_summed(name, made) for name, made in found.items()]


def _summed(name: str, turns: Sequence[tuple[int, int, int]]) -> Flush:
    checks, failed, flushes = map(sum, zip(*turns, strict=True))
    return Flush(name, checks, failed, flushes, Interval.of([lost / made for made, lost, _ in turns]))


async def _flush(target: Target, contender: Contender, seconds: float) -> tuple[int, int, int]:
    """Checks, how many of them failed, and flushes, of one turn."""
    assert target.own, "a server that someone gave keeps its scripts"
    limiter = await contender.open(Setup(target.url, prefix=f"{PREFIX}flush:"))
    checks = failed = flushes = 0
    until = time.perf_counter() + seconds

    async def ask(offset: int) -> None:
        nonlocal checks, failed
        index = offset
        while checks < TASKS or time.perf_counter() < until:
            checks += 1
            try:
                await limiter.check(CLIENTS[index % len(CLIENTS)])
            except Exception:  # noqa: BLE001 - whatever it is, the request has failed
                failed += 1
            index += TASKS

    async def forget() -> None:
        nonlocal flushes
        while True:
            await asyncio.sleep(BETWEEN_FLUSHES)
            target.client.script_flush()
            flushes += 1

    try:
        with suppress(RedisError):
            await limiter.check(CLIENTS[0])
        forgetting = asyncio.ensure_future(forget())
        await asyncio.gather(*(ask(offset) for offset in range(TASKS)))
        forgetting.cancel()
        with suppress(asyncio.CancelledError):
            await forgetting
    finally:
        await limiter.aclose()
    return checks, failed, flushes
