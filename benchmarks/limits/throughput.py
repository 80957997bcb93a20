"""How many checks a second, how long each takes, and whose time that is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.limits import rounds as interleaved
from benchmarks.limits import scripts
from benchmarks.limits.contenders import OURS, Contender, Setup, Skipped, ours
from benchmarks.limits.delay import delayed
from benchmarks.limits.rounds import Cell, Place
from benchmarks.limits.servers import PREFIX

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
ASKED = {1: 0.95, 64: 5.0}
"""How many times the checks of one call a check ours shall at least make, by level.

Not where a network delays: there both wait for it most of the time, and 64 tasks get at most 64 answers a round trip.
"""


def measure(
    target: Target,
    contenders: Sequence[Contender],
    levels: Mapping[str, Sequence[int]],
    rounds: int,
    seconds: float,
    passed: Callable[[float], None],
    further: int = 0,
) -> list[Throughput]:
    """Measure checks of the kinds asked for, at every level, all in the same rounds.

    Args:
        target: the server.
        contenders: ours first.
        levels: of each kind of check, how many shall be under way at once.
        rounds: how often each contender has its turn, of
        seconds: this length.
        passed: is told the seconds that have been spent.
        further: rounds more of the two whose ratio is asked, at the levels where it is: a few turns, of which each
            differs from the next by a third, do not tell whether it is reached.
    """
    places = {asks: [_place(target.url, asks, tasks) for tasks in levels[asks]] for asks in levels}
    return asyncio.run(_measure(places, target, contenders, rounds, seconds, passed, further))


def _place(url: str, asks: str, tasks: int) -> Place:
    return Place(_setup(url, asks), tasks, frozenset({OURS, scripts.ONE_CALL}) if tasks in ASKED else frozenset())


def _setup(url: str, asks: str) -> Setup:
    windows, revocation = VARIANTS[asks]
    return Setup(url, windows=windows, revocation=revocation, prefix=f"{PREFIX}{windows}-")


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
        places = {ONE: [Place(_setup(url, ONE), tasks) for tasks in levels]}
        (measured,) = asyncio.run(_measure(places, target, contenders, rounds, seconds, passed))
    return Delayed(found * 1000, measured)


async def _measure(
    places: Mapping[str, Sequence[Place]],
    target: Target,
    contenders: Sequence[Contender],
    rounds: int,
    seconds: float,
    passed: Callable[[float], None],
    further: int = 0,
) -> list[Throughput]:
    """All kinds and levels in the same rounds, so that they can be compared with each other."""
    every = [place for kind in places.values() for place in kind]
    found = iter(await interleaved.measure(contenders, every, target.client, rounds, seconds, passed, further))
    measured = []
    for asks, kind in places.items():
        there = [next(found) for _ in kind]
        cells, skipped = [cell for one in there for cell in one.cells], [out for one in there for out in one.skipped]
        measured.append(Throughput(asks, cells, skipped))
    return measured
