"""Interleaved rounds: everyone in turn, again and again, so that what slows the machine down slows them all down."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

K = TypeVar("K")
LEAST = 3
"""Rounds, however short the time."""
YARDS = 50
"""Times that the yardstick is laid on at once: about a millisecond."""
APART = 0.1
"""Seconds from one time to the next, at the least."""
CLOCK = "CPU time of the process, which tells nothing of what else the machine does"
COLLECTOR = "off while it is timed, run between rounds"


async def interleave(
    turns: Mapping[K, Callable[[], Awaitable[float]]], seconds: float, advance: Callable[[float], None]
) -> dict[K, list[float]]:
    """Give everyone a turn, round after round, and keep what each turn gave: one figure a round.

    The garbage collector is off meanwhile and runs between rounds, so that nobody pays for another's garbage. Each
    round has an order of its own, so that nobody always finds the caches that the same one left.

    Args:
        turns: what is measured.
        seconds: for how long; three rounds are made at the least.
        advance: is told the seconds that have passed since it was told last.
    """
    found: dict[K, list[float]] = {name: [] for name in turns}
    order = list(turns.items())
    dice = shuffler()
    rounds = 0
    with collector_off():
        started = told = time.perf_counter()
        while told - started < seconds or rounds < LEAST:
            dice.shuffle(order)
            for name, turn in order:
                found[name].append(await turn())
            rounds += 1
            gc.collect()
            await asyncio.sleep(0)
            now = time.perf_counter()
            advance(now - told)
            told = now
    return found


@contextmanager
def collector_off() -> Iterator[None]:
    """Keep the garbage collector from running by itself. What is there already is not looked through when it is run."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def shuffler() -> Random:
    """What the order of each round is drawn by: the same orders in every run."""
    return Random(1)  # noqa: S311 - nothing is kept secret by it


@contextmanager
def one_core() -> Iterator[str]:
    """Keep this process on one core, where the system lets it, so that it is not moved about; say which."""
    if not hasattr(os, "sched_getaffinity"):
        yield "not pinned to a core"
        return
    cores = os.sched_getaffinity(0)
    core = max(cores)
    os.sched_setaffinity(0, {core})
    try:
        yield f"pinned to core {core}"
    finally:
        os.sched_setaffinity(0, cores)


def yardstick() -> int:
    """A piece of work that nothing of ours changes: text, dictionaries and calls, as requests are made of."""
    names = {f"name-{number}".encode(): number for number in range(50)}
    return sum(names[f"name-{number}".encode().lower()] for number in range(50))


class Yards:
    """Takes the yardstick now and then while a suite is measured, where it is measured: how fast the machine was then.

    Attributes:
        cpu: microseconds of CPU time that it took, and
        wall: by the clock on the wall, which tells what else the machine did.
    """

    def __init__(self) -> None:
        self.cpu: list[float] = []
        self.wall: list[float] = []
        self._next = 0.0

    def take(self) -> None:
        """Take it once, unless it was taken a moment ago."""
        if time.perf_counter() < self._next:
            return
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        for _ in range(YARDS):
            yardstick()
        self.wall.append((time.perf_counter_ns() - wall) / YARDS / 1000)
        self.cpu.append((time.process_time_ns() - cpu) / YARDS / 1000)
        self._next = time.perf_counter() + APART
