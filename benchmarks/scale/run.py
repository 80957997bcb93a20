"""The benchmark of scale: what the guard adds to a request, at every size, in interleaved rounds."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from asgi_guard.testing import LocalIssuer
from benchmarks import subjects
from benchmarks.calls import check, discarded_output, quiet
from benchmarks.figures import Figure, Suite
from benchmarks.interval import Interval
from benchmarks.limits.servers import NoServerError, target
from benchmarks.rounds import CLOCK, COLLECTOR, interleave, one_core
from benchmarks.scale import workers
from benchmarks.scale.axes import ASKED, AXES, Axis, at_once, one_by_one, waiting
from benchmarks.sheet import Sheet, both, number, plain, spread, warned

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

WORKERS = "worker processes, one Redis"
RATE = "checks a second"
CPU = "CPU us a check"
SLOPE = "slope"
FILLING = 25e-6
"""Seconds to make a key, about."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much is measured.

    Attributes:
        quick: whether the axes have few points.
        seconds: of rounds.
        workers: numbers of processes, each for
        rounds: times, of
        each: seconds.
        axes: what there may be more of.
    """

    quick: bool
    seconds: float
    workers: tuple[int, ...]
    rounds: int
    each: float
    axes: tuple[Axis, ...] = AXES

    def sizes(self, axis: Axis) -> tuple[int, ...]:
        """How much there is of something."""
        return axis.quick if self.quick else axis.sizes

    def expected(self) -> float:
        """About how many seconds it takes."""
        return self._filling() + self.seconds + self.rounds * len(self.workers) * (self.each + 1)

    def _filling(self) -> float:
        return sum(sum(self.sizes(axis)) for axis in self.axes) * FILLING


FULL = Budget(quick=False, seconds=60, workers=(1, 2, 4), rounds=5, each=2.0)
QUICK = Budget(quick=True, seconds=2, workers=(1, 2), rounds=1, each=0.5)
SMALL = 1000
"""How much there is of anything at the most where it shall be brief: more takes longer to make than to measure."""
BRIEF = Budget(
    quick=True, seconds=1, workers=(1, 2), rounds=1, each=0.25,
    axes=tuple(
        replace(axis, quick=tuple(dict.fromkeys(min(size, SMALL) for size in axis.quick))) for axis in AXES
    ),
)  # fmt: skip


def slope(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The slope of the line through the logarithms, by least squares: 0 where the cost does not depend on the size."""
    xs, ys = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    middle, height = sum(xs) / len(xs), sum(ys) / len(ys)
    over = sum((x - middle) * (y - height) for x, y in zip(xs, ys, strict=True))
    return over / sum((x - middle) ** 2 for x in xs)


Turns = dict[tuple[str, int], "Callable[[], Awaitable[float]]"]
BARE = "bare"


async def _turns(budget: Budget, advance: Callable[[float], None]) -> Turns:
    issuer = LocalIssuer(algorithm="ES256")
    token = issuer.token(lifetime=24 * 3600)
    scope = subjects.request(token)
    turns: Turns = {(BARE, 0): one_by_one(subjects.raw, lambda: scope)}
    for axis in budget.axes:
        for size in budget.sizes(axis):
            app, make = await axis.build(size, issuer, token)
            if axis.together:
                turns[axis.name, size] = at_once(app, make, size)
                turns[BARE, size] = at_once(waiting, make, size)
            else:
                turns[axis.name, size] = one_by_one(app, make)
            await check(app, make())
            await turns[axis.name, size]()  # to warm up
            advance(size * FILLING)
    return turns


def _figures(axis: Axis, sizes: Sequence[int], times: dict[tuple[str, int], list[float]]) -> list[Figure]:
    added = {}
    for size in sizes:
        base = times[BARE, size if axis.together else 0]
        added[size] = [max(0.01, total - less) for total, less in zip(times[axis.name, size], base, strict=True)]
    slopes = [slope(sizes, costs) for costs in zip(*added.values(), strict=True)]
    found = [Figure((axis.name, f"{size:,}"), "us", Interval.of(costs)) for size, costs in added.items()]
    asked = ASKED if axis.flat and tuple(sizes) == axis.sizes else None
    return [*found, Figure((SLOPE, axis.name, sized(sizes)), "slope", Interval.of(slopes), asked)]


def sized(sizes: Sequence[int]) -> str:
    """The sizes that a slope is over, as its name has them: over other sizes, it would be another quantity."""
    return " / ".join(f"{size:,}" for size in sizes)


async def _measure(budget: Budget, advance: Callable[[float], None]) -> list[Figure]:
    with discarded_output(), quiet():
        times = await interleave(await _turns(budget, advance), budget.seconds, advance)
    return [figure for axis in budget.axes for figure in _figures(axis, budget.sizes(axis), times)]


def _workers(store: str | None, budget: Budget) -> list[Figure]:
    with target(store) as asked:
        found = workers.measure(asked, budget.workers, budget.rounds, budget.each)
    figures = []
    for size, rounds in found.items():
        rates, cpus = zip(*rounds, strict=True)
        figures.append(Figure((WORKERS, f"{size:,}", RATE), "1/s", Interval.of(rates), more=True))
        figures.append(Figure((WORKERS, f"{size:,}", CPU), "us", Interval.of(cpus)))
    slopes = [slope(budget.workers, [cpu for _, cpu in round_]) for round_ in zip(*found.values(), strict=True)]
    return [*figures, Figure((SLOPE, WORKERS, sized(budget.workers)), "slope", Interval.of(slopes))]


def measure(store: str | None, budget: Budget, advance: Callable[[float], None]) -> Suite:
    """Measure everything.

    Args:
        store: the URL of the Redis or Valkey that worker processes share; None starts one.
        budget: how much.
        advance: is told the seconds that have passed since it was told last.
    """
    with one_core() as core:
        figures = asyncio.run(_measure(budget, advance))
    skipped = {}
    try:
        figures += _workers(store, budget)
    except NoServerError as error:
        skipped[WORKERS] = str(error)
    advance(budget.rounds * len(budget.workers) * (budget.each + 1))
    method = {
        "clock": CLOCK,
        "collector": COLLECTOR,
        "cores": f"{core}; worker processes are not",
        "cost": "what the whole Guard adds to a request to the raw app, in this process",
        "slope": "of the logarithms of cost and size, in each round; the median, with its interval",
        "workers": f"{workers.TASKS} checks at once in each process: two windows and a token",
    }
    return Suite("scale", figures, method, skipped)


def slope_of(suite: Suite, axis: str) -> Interval | None:
    """The slope of an axis, over the sizes that it was measured at."""
    return next((suite.find(SLOPE, axis, sizes) for sizes in suite.names(2, SLOPE, axis)), None)


def sheets(suite: Suite) -> list[Sheet]:
    """The tables."""
    rows, slopes = [], []
    for figure in suite.figures:
        if figure.of[0] != SLOPE or figure.of[1] == WORKERS:
            continue
        axis, sizes = figure.of[1:]
        costs = " / ".join(plain(suite.find(axis, size)) for size in suite.names(1, axis))
        wanted = "" if figure.asked is None else f"<= {figure.asked}: {figure.verdict}"
        value = figure.value
        slopes.append(value)
        rows.append([
            axis, sizes, costs, f"{value.median:.3f}", spread(value, "{:.3f}".format), wanted,
        ])  # fmt: skip
    table = Sheet(
        "What the whole Guard adds to a request, by how much there is of something",
        ("of what", "how many", "adds, us", "slope", "interval", "asked"), (), rows,
        "A slope of 0 costs the same whatever the size, 1 costs twice as much for twice as many. "
        f"{warned(slopes)}".strip(),
    )  # fmt: skip
    processes = [
        [size, plain(suite.find(WORKERS, size, RATE)), spread(suite.find(WORKERS, size, RATE)),
         both(suite.find(WORKERS, size, CPU))]
        for size in suite.names(1, WORKERS)
    ]  # fmt: skip
    grown = slope_of(suite, WORKERS)
    caption = "" if grown is None else f"Slope of the CPU time: {number(grown.median)}."
    caption += f" {warned(suite.find(WORKERS, size, RATE) for size in suite.names(1, WORKERS))}"
    return [
        table,
        Sheet(
            "Checks of worker processes that share one Redis",
            ("processes",),
            (RATE, "interval", CPU),
            processes,
            caption.strip(),
        ),
    ]
