"""How many checks a second, how long each takes, and whose time that is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.limits import scripts
from benchmarks.limits.contenders import Contender, Setup, Skipped, ours
from benchmarks.limits.delay import delayed
from benchmarks.limits.rounds import Cell, level

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.limits.servers import Target


@dataclass(frozen=True, slots=True)
class Throughput:
    """One kind of check, measured at every level.

    Attributes:
        asks: what a check asks, in words.
        cells: every contender at every level.
        skipped: what was not measured.
    """

    asks: str
    cells: list[Cell]
    skipped: list[Skipped]


@dataclass(frozen=True, slots=True)
class Delayed:
    """Throughput over a network that delays.

    Attributes:
        added: milliseconds that the delay adds to the round trip of a PING, as measured.
        throughput: what came of it.
    """

    added: float
    throughput: Throughput


ONE = "one window"
TWO = "two windows and the look-up of a token"
VARIANTS = {ONE: (1, False), TWO: (2, True)}
"""What a check asks: its windows, and whether a token is looked up."""


def measure(
    target: Target,
    contenders: Sequence[Contender],
    levels: Mapping[str, Sequence[int]],
    rounds: int,
    seconds: float,
    passed: Callable[[float], None],
) -> list[Throughput]:
    """Measure checks of the kinds asked for.

    Args:
        target: the server.
        contenders: ours first.
        levels: of each kind of check, how many shall be under way at once.
        rounds: how often each contender has its turn, of
        seconds: this length.
        passed: is told the seconds that have been spent.
    """
    found = []
    for asks, tasks in levels.items():
        windows, revocation = VARIANTS[asks]
        setup = Setup(target.url, windows=windows, revocation=revocation)
        found.append(asyncio.run(_levels(asks, setup, target, contenders, tasks, rounds, seconds, passed)))
    return found


def measure_delayed(
    target: Target,
    levels: Sequence[int],
    rounds: int,
    seconds: float,
    passed: Callable[[float], None],
    added: float = 0.001,
) -> Delayed:
    """Measure ours and one call a check through a proxy that holds back every byte.

    Args:
        target: a server of our own, on a UNIX socket.
        levels: checks under way at once.
        rounds: how often each has its turn, of
        seconds: this length.
        passed: is told the seconds that have been spent.
        added: seconds by which it shall delay a round trip, half of them each way.
    """
    contenders = [ours(), *(one for one in scripts.CONTENDERS if one.name == scripts.ONE_CALL)]
    lifetime = 60 + 4 * len(levels) * len(contenders) * rounds * seconds
    with delayed(target, added, lifetime) as (url, found):
        measured = asyncio.run(_levels(ONE, Setup(url), target, contenders, levels, rounds, seconds, passed))
    return Delayed(found * 1000, measured)


async def _levels(
    asks: str,
    setup: Setup,
    target: Target,
    contenders: Sequence[Contender],
    levels: Sequence[int],
    rounds: int,
    seconds: float,
    passed: Callable[[float], None],
) -> Throughput:
    cells: list[Cell] = []
    skipped: list[Skipped] = []
    for tasks in levels:
        # A prefix for each level, so that windows that remember every hit do not grow from level to level.
        prefixed = replace(setup, prefix=f"{setup.prefix}{setup.windows}-{tasks}:")
        measured, left_out = await level(contenders, prefixed, target.client, tasks, rounds, seconds, passed)
        cells += measured
        skipped += left_out
    return Throughput(asks, cells, skipped)
