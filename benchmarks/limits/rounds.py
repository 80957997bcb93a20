"""Rounds: every contender in turn, again and again, so that whatever slows the machine down slows them all down."""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from benchmarks.interval import Interval
from benchmarks.limits.contenders import OURS, Skipped, UnsuitableError
from benchmarks.limits.servers import Counters
from benchmarks.rounds import collector_off, shuffler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.limits.contenders import Contender, Limiter, Setup

CLIENTS = [f"client-{index:06}" for index in range(1000)]


@dataclass(frozen=True, slots=True)
class Sample:
    """One contender in one round. Latencies are in milliseconds, and the rest in microseconds."""

    checks: int
    per_second: float
    p50: float
    p95: float
    p99: float
    client_cpu: float
    server_call: float
    server_check: float
    trips: float


@dataclass(frozen=True, slots=True)
class Cell:
    """What one contender took at one level: over the rounds.

    Attributes:
        name: the contender.
        tasks: checks under way at once: each task makes its next check when the last is answered.
        checks: how many were made, in all rounds together.
        per_second: how many a second.
        ours: how many times as many ours makes, in the same round.
        p50: milliseconds that half of the checks took at most; so too
        p95: 19 of 20, and
        p99: 99 of 100.
        client_cpu: microseconds of this process's CPU time a check.
        server_call: microseconds in the server a call, as its INFO commandstats tells, and
        server_check: a check.
        trips: calls that the server counted, a check.
    """

    name: str
    tasks: int
    checks: int
    per_second: Interval
    ours: Interval
    p50: Interval
    p95: Interval
    p99: Interval
    client_cpu: Interval
    server_call: Interval
    server_check: Interval
    trips: Interval


@dataclass(frozen=True, slots=True)
class Place:
    """Where everyone has a turn in each round.

    Attributes:
        setup: what is asked.
        tasks: checks under way at once.
        longer: the contenders that have turns in further rounds, too.
    """

    setup: Setup
    tasks: int
    longer: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Running:
    contender: Contender
    limiter: Limiter
    samples: list[Sample] = field(default_factory=list)


@dataclass(slots=True)
class Found:
    """What was found at a place: a cell for each contender, and who was left out."""

    cells: list[Cell] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The value that this share of the values does not exceed."""
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


async def closed_loop(limiter: Limiter, tasks: int, seconds: float, counters: Counters) -> Sample:
    """Let tasks make check after check, over all clients in turn, for a while: each of them one at the least.

    Raises:
        Exception: whatever a check raised first.
    """
    taken: list[float] = []
    started = time.perf_counter()

    async def ask(offset: int) -> None:
        index, now = offset, time.perf_counter()
        while True:
            begun = now
            admitted = await limiter.check(CLIENTS[index % len(CLIENTS)])
            now = time.perf_counter()
            taken.append(now - begun)
            assert admitted, "a check was refused: that is not what is measured"
            if now - started >= seconds:
                return
            index += tasks

    cpu = time.process_time()
    ended = await asyncio.gather(*(ask(offset) for offset in range(tasks)), return_exceptions=True)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - started
    for error in ended:
        if error is not None:
            raise error
    calls, spent = counters.since()
    count = len(taken)
    taken.sort()
    p50, p95, p99 = (percentile(taken, percent) * 1000 for percent in (50, 95, 99))
    return Sample(
        count, count / wall, p50, p95, p99, cpu / count * 1e6, spent / max(1, calls), spent / count, calls / count
    )


async def measure(
    contenders: Sequence[Contender],
    places: Sequence[Place],
    client: Any,
    rounds: int,
    seconds: float,
    passed: Callable[[float], None],
    further: int = 0,
) -> list[Found]:
    """Measure everyone at every place, in interleaved rounds: a round has all places, and each place all contenders.

    So places can be compared with each other, and whoever is compared at one place was there at the same moment. One
    that fails at a place is left out there from then on, and said to be.

    Args:
        contenders: ours first.
        places: what is asked, and how many checks are under way at once.
        client: to read the server's counts with.
        rounds: how often each contender has its turn at a place, of
        seconds: this length.
        passed: is told the seconds that have been spent.
        further: rounds after those, for the few that have turns in them.
    """
    found = [Found() for _ in places]
    async with AsyncExitStack() as opened:
        opened.enter_context(collector_off())
        running = await _opened(opened, contenders, places, found, lambda: passed(rounds * seconds))
        gc.collect()
        gc.freeze()  # thousands of connections, which need not be looked through before every turn
        dice = shuffler()
        for done in range(rounds + further):
            for number in dice.sample(range(len(places)), len(places)):
                for one in dice.sample(running[number], len(running[number])):
                    if done >= rounds and one.contender.name not in places[number].longer:
                        continue
                    failed = await _turn(one, places[number].tasks, seconds, client)
                    if failed is not None:
                        found[number].skipped.append(failed)
                        running[number].remove(one)
                    passed(seconds)
    for one_place, place, there in zip(found, places, running, strict=True):
        one_place.cells += _cells(there, place.tasks)
    return found


async def _opened(
    opened: AsyncExitStack,
    contenders: Sequence[Contender],
    places: Sequence[Place],
    found: Sequence[Found],
    missed: Callable[[], None],
) -> list[list[_Running]]:
    """Those that are ready at each place: one limiter of a contender for all places where the same is asked."""
    limiters: dict[tuple[int, Setup], Limiter] = {}
    running: list[list[_Running]] = [[] for _ in places]
    for at, place in enumerate(places):
        for number, contender in enumerate(contenders):
            try:
                limiter = limiters.get((number, place.setup))
                if limiter is None:
                    # A prefix of its own: some would read the keys of others.
                    limiter = await contender.open(replace(place.setup, prefix=f"{place.setup.prefix}{number}:"))
                    opened.push_async_callback(limiter.aclose)
                    limiters[number, place.setup] = limiter
                # To connect, and to warm up.
                await asyncio.gather(*(limiter.check(CLIENTS[index % len(CLIENTS)]) for index in range(place.tasks)))
                running[at].append(_Running(contender, limiter))
            except Exception as error:  # noqa: BLE001 - whatever a contender raises, the others are measured
                found[at].skipped.append(Skipped(contender.name, _reason(error, place.tasks)))
                missed()
    return running


async def _turn(one: _Running, tasks: int, seconds: float, client: Any) -> Skipped | None:
    """Let one have its turn; why it is left out from now on, if it failed."""
    gc.collect()
    counters = Counters(client, one.contender.commands)
    try:
        one.samples.append(await closed_loop(one.limiter, tasks, seconds, counters))
    except Exception as error:  # noqa: BLE001 - as above
        return Skipped(one.contender.name, _reason(error, tasks))
    return None


def _reason(error: Exception, tasks: int) -> str:
    detail = str(error) if isinstance(error, UnsuitableError | AssertionError) else type(error).__name__
    return f"at {tasks} {'task' if tasks == 1 else 'tasks'}: {detail}"


def _cells(running: Sequence[_Running], tasks: int) -> list[Cell]:
    ours = next((one.samples for one in running if one.contender.name == OURS), [])
    cells = []
    for one in running:
        samples = one.samples
        ratios = [mine.per_second / theirs.per_second for mine, theirs in zip(ours, samples, strict=False)] or [
            float("nan")
        ]
        kinds = ("per_second", "p50", "p95", "p99", "client_cpu", "server_call", "server_check", "trips")
        found = {kind: Interval.of([getattr(sample, kind) for sample in samples]) for kind in kinds}
        checks = sum(sample.checks for sample in samples)
        cells.append(Cell(one.contender.name, tasks, checks, ours=Interval.of(ratios), **found))
    return cells
