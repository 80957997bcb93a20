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


@dataclass(slots=True)
class _Running:
    contender: Contender
    limiter: Limiter
    samples: list[Sample] = field(default_factory=list)


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


async def level(
    contenders: Sequence[Contender],
    setup: Setup,
    client: Any,
    tasks: int,
    rounds: int,
    seconds: float,
    passed: Callable[[float], None],
) -> tuple[list[Cell], list[Skipped]]:
    """Measure everyone at one level of concurrency. One that fails is left out from then on, and said to be.

    Args:
        contenders: ours first.
        setup: what is asked.
        client: to read the server's counts with.
        tasks: checks under way at once.
        rounds: how often each has its turn, of
        seconds: this length.
        passed: is told the seconds that have been spent.
    """
    running: list[_Running] = []
    skipped: list[Skipped] = []
    async with AsyncExitStack() as opened:
        opened.enter_context(collector_off())
        for number, contender in enumerate(contenders):
            try:
                # A prefix of its own: some would read the keys of others.
                limiter = await contender.open(replace(setup, prefix=f"{setup.prefix}{number}:"))
                opened.push_async_callback(limiter.aclose)
                # To connect, and to warm up.
                await asyncio.gather(*(limiter.check(CLIENTS[index % len(CLIENTS)]) for index in range(tasks)))
                running.append(_Running(contender, limiter))
            except Exception as error:  # noqa: BLE001 - whatever a contender raises, the others are measured
                skipped.append(Skipped(contender.name, _reason(error, tasks)))
                passed(rounds * seconds)
        dice = shuffler()
        for _ in range(rounds):
            order = list(running)
            dice.shuffle(order)
            for one in order:
                gc.collect()
                counters = Counters(client, one.contender.commands)
                try:
                    one.samples.append(await closed_loop(one.limiter, tasks, seconds, counters))
                except Exception as error:  # noqa: BLE001 - as above
                    skipped.append(Skipped(one.contender.name, _reason(error, tasks)))
                    running.remove(one)
                passed(seconds)
    return _cells(running, tasks), skipped


def _reason(error: Exception, tasks: int) -> str:
    detail = str(error) if isinstance(error, UnsuitableError | AssertionError) else type(error).__name__
    return f"at {tasks} tasks: {detail}"


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
