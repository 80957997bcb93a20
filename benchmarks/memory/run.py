"""The benchmark of memory: a process that serves strangers, and stores that are filled."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.child import child
from benchmarks.figures import Figure, Suite
from benchmarks.interval import Interval
from benchmarks.limits import memory as stores
from benchmarks.memory.process import Plan
from benchmarks.sheet import Sheet, asked, both, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

STRANGERS, STORE = "requests of strangers", "the store in memory"
AT_FIRST, WARM, LAST = "at first", "after warm-up", "at the end"
GROWN = "at the end / after warm-up"
RISING = "bytes a request, after warm-up"
HELD = "bytes a key held"
AT_LEAST = 100_000
"""Keys in all, where a store holds fewer: then there are several."""
FEW = 50_000
"""Keys, of which fewer do not tell how many bytes one takes."""
FLAT = 1.1
"""What a process may have grown to: tables are made anew now and then, and allocators fragment."""
LEAK = 4.0
"""Bytes a request that are no leak; the least object has 16."""
LEAST = 3
"""Points before a step, and behind it."""
GRAIN = 0.01
"""Bytes a request by which slopes may differ for rounding alone."""
LINE = " It is the slope of the line of least squares through {} points, with twice its error to each side."
ENOUGH = 350_000
"""Requests after warm-up, of which a leak would be more than the allocators' own steps."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much is measured.

    Attributes:
        plan: of the process that serves strangers.
        warm_up: the share of its requests that fills what is bounded.
        stores: keys in the stores in memory.
        flood: addresses that a store meets which holds `plan.max_keys`.
        each: about how many seconds a request takes, with making it up.
    """

    plan: Plan
    warm_up: float
    stores: tuple[int, ...]
    flood: int
    each: float = 250e-6

    def expected(self) -> float:
        """About how many seconds it takes."""
        return 4 + self.plan.requests * self.each + self.filling()

    def filling(self) -> float:
        """About how many seconds of it stores are filled."""
        return (sum(max(AT_LEAST, keys) for keys in self.stores) + self.flood) * 15e-6


FULL = Budget(Plan(1_000_000, 100, 100_000), 0.3, (1_000, 100_000, 1_000_000), 1_000_000)
QUICK = Budget(Plan(22_000, 44, 2_000), 0.92, (1_000, 20_000), 10_000)
BRIEF = Budget(Plan(8_000, 32, 500), 0.9, (1_000,), 2_000)


def rising(points: Sequence[tuple[int, int]]) -> Interval:
    """Bytes a request: the slope of least squares, and twice its error to each side.

    A table that is made anew for more is a step, and no leak: if the line leaves over less than half as much with one
    step, wherever that fits best, the slope is that of what is before it and behind it. Where these have slopes that
    differ by more than their errors, it is no step, but a rise that begins or ends: the line goes through all points.
    """
    line = whole = _line([points])
    splits = [(points[:at], points[at:]) for at in range(LEAST, len(points) - LEAST + 1)]
    if splits:
        best = min(splits, key=lambda parts: _line(parts).left)
        stepped, (before, behind) = _line(best), (_line([part]) for part in best)
        alike = abs(before.slope - behind.slope) <= 2 * (before.error + behind.error) + GRAIN
        line = stepped if alike and stepped.left < whole.left / 2 else whole
    return Interval(line.slope, line.slope - 2 * line.error, line.slope + 2 * line.error, len(points))


@dataclass(frozen=True, slots=True)
class _Line:
    slope: float
    left: float
    """The sum of the squares of what it leaves over."""
    error: float


def _line(parts: Sequence[Sequence[tuple[int, int]]]) -> _Line:
    """The line of least squares, with one slope in all parts and a height of its own in each."""
    across = along = up = 0.0
    for part in parts:
        middle, height = statistics.fmean(x for x, _ in part), statistics.fmean(y for _, y in part)
        across += sum((x - middle) ** 2 for x, _ in part)
        along += sum((x - middle) * (y - height) for x, y in part)
        up += sum((y - height) ** 2 for _, y in part)
    slope, free = along / across, sum(map(len, parts)) - len(parts) - 1
    left = max(0.0, up - slope * along)
    return _Line(slope, left, math.sqrt(left / free / across))


def _once(value: float) -> Interval:
    return Interval.of([value])


def _strangers(budget: Budget, advance: Callable[[float], None]) -> tuple[list[Figure], list[dict[str, Any]]]:
    command = [sys.executable, "-m", "benchmarks.memory.process", budget.plan.to_json()]
    share = budget.plan.requests * budget.each / budget.plan.samples
    points: list[dict[str, Any]] = []
    with child(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            points.append(json.loads(line))
            advance(share)
    assert process.returncode == 0, "the process that serves strangers failed"
    return figures(points, budget.warm_up), points


def figures(points: Sequence[dict[str, Any]], warm_up: float) -> list[Figure]:
    """The figures of a process that told its memory so.

    Args:
        points: what it told.
        warm_up: the share of the requests that warm up.
    """
    warm = [point for point in points if point["requests"] >= warm_up * points[-1]["requests"]]
    told = {AT_FIRST: points[0], WARM: warm[0], LAST: warm[-1]}
    found = [Figure((STRANGERS, name), "MiB", _once(point["resident"] / 2**20)) for name, point in told.items()]
    found.append(Figure((STRANGERS, GROWN), "x", _once(warm[-1]["resident"] / warm[0]["resident"]), FLAT))
    if warm[-1]["requests"] - warm[0]["requests"] < ENOUGH:
        return found
    rise = rising([(point["requests"], point["resident"]) for point in warm])
    return [*found, Figure((STRANGERS, RISING), "bytes", rise, LEAK)]


def _stores(budget: Budget, advance: Callable[[float], None]) -> tuple[list[Figure], list[dict[str, Any]]]:
    lasting = budget.filling()
    filled, flooded = stores.measure(
        budget.stores, AT_LEAST, budget.flood, budget.plan.max_keys, lambda share: advance(share * lasting)
    )
    found = [figure for one in filled for figure in _filled(f"{one.keys:,} keys", one, AT_LEAST)]
    found += _filled(f"{flooded.keys:,} keys, {flooded.max_keys:,} held at the most", flooded, flooded.held)
    return found, [asdict(one) for one in (*filled, flooded)]


def _filled(name: str, one: stores.Memory, held: int) -> list[Figure]:
    """Its figures; of the bytes a key only where enough are held in all: a process grows by many pages at once."""
    figures = [
        Figure((STORE, name, "first check us"), "us", _once(one.first)),
        Figure((STORE, name, "again us"), "us", _once(one.again)),
        Figure((STORE, name, HELD), "bytes", _once(one.bytes_per_key)),
        Figure((STORE, name, "peak MiB"), "MiB", _once(one.peak)),
    ]
    return [figure for figure in figures if figure.of[-1] != HELD or held >= FEW]


def measure(budget: Budget, advance: Callable[[float], None]) -> Suite:
    """Measure everything.

    Args:
        budget: how much.
        advance: is told the seconds that count as passed since it was told last.
    """
    if not stores.supported():
        return Suite("memory", [], skipped={STRANGERS: "this system does not tell a process's memory in /proc"})
    strangers, points = _strangers(budget, advance)
    filled, details = _stores(budget, advance)
    method = {
        "resident": "VmRSS of a process of its own, once, with the garbage collector as Python sets it",
        "strangers": f"{budget.plan.requests:,} requests through the whole Guard, no two alike in address, token, "
        f"subject, request id, path or query; half with a good token; a store of at most "
        f"{budget.plan.max_keys:,} keys; the first {budget.warm_up:.0%} warm up",
    }
    skipped = {}
    if not any(RISING in figure.of for figure in strangers):
        skipped[RISING] = "a quick run has too few requests to tell a leak from a table that is made anew"
    if len([figure for figure in filled if figure.of[-1] == HELD]) < len(details):
        skipped[HELD] = f"not of stores that hold fewer than {FEW:,}: a process grows by many pages at once"
    return Suite("memory", strangers + filled, method, skipped, details={"strangers": points, "stores": details})


def sheets(suite: Suite) -> list[Sheet]:
    """The tables."""
    if not suite.figures:
        return []
    rows = [[name, "MiB", plain(suite.find(STRANGERS, name))] for name in (AT_FIRST, WARM, LAST)]
    rows.append([GROWN, "", plain(suite.find(STRANGERS, GROWN))])
    caption = (
        f"{suite.method['strangers']}. A sudden step is a hash table being resized; a leak would be a steady rise."
    )
    rise = suite.find(STRANGERS, RISING)
    if rise is not None:
        rows.append([RISING, "bytes", both(rise)])
        caption += " Last row: the growth per request of the run after warm-up."
        caption += LINE.format(rise.rounds) if rise.rounds > 1 else ""
    found = [Sheet("Resident memory of a process that serves strangers", ("when", "in"), ("",), rows, caption)]
    columns = suite.names(2, STORE)
    held = [[name, *(plain(suite.find(STORE, name, column)) for column in columns)] for name in suite.names(1, STORE)]
    found.append(Sheet("The store in memory, over many keys", ("store",), columns, held))
    wanted = asked(suite.figures)
    return [*found, wanted] if wanted else found
