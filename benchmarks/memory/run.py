"""The benchmark of memory: a process that serves strangers, and stores that are filled."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.figures import Figure, Suite
from benchmarks.interval import Interval
from benchmarks.limits import memory as stores
from benchmarks.memory.process import Plan
from benchmarks.sheet import Sheet, asked, number, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

STRANGERS, STORE = "requests of strangers", "the store in memory"
AT_FIRST, WARM, LAST, GROWN = "at first", "after warm-up", "at the end", "grown after warm-up"
BYTES = "bytes a request, by least squares, after warm-up"
FLAT = 2.0
"""MiB by which a process may have grown after warm-up: allocators round and fragment."""


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
        return 4 + self.plan.requests * self.each + (sum(self.stores) + self.flood) * 15e-6


FULL = Budget(Plan(1_000_000, 100, 100_000), 0.3, (1_000, 100_000, 1_000_000), 1_000_000)
QUICK = Budget(Plan(22_000, 44, 2_000), 0.92, (1_000, 20_000), 10_000)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The slope of the line through these, by least squares."""
    middle = sum(x for x, _ in points) / len(points)
    height = sum(y for _, y in points) / len(points)
    return sum((x - middle) * (y - height) for x, y in points) / sum((x - middle) ** 2 for x, _ in points)


def _once(value: float) -> Interval:
    return Interval.of([value])


def _strangers(budget: Budget, advance: Callable[[float], None]) -> tuple[list[Figure], list[dict[str, Any]]]:
    command = [sys.executable, "-m", "benchmarks.memory.process", budget.plan.to_json()]
    share = budget.plan.requests * budget.each / budget.plan.samples
    points: list[dict[str, Any]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            points.append(json.loads(line))
            advance(share)
    assert process.returncode == 0, "the process that serves strangers failed"
    warm = [point for point in points if point["requests"] >= budget.warm_up * budget.plan.requests]
    found = {AT_FIRST: points[0], WARM: warm[0], LAST: warm[-1]}
    mebibytes = {name: point["resident"] / 2**20 for name, point in found.items()}
    figures = [Figure((STRANGERS, name), "MiB", _once(value)) for name, value in mebibytes.items()]
    figures.append(Figure((STRANGERS, GROWN), "MiB", _once(mebibytes[LAST] - mebibytes[WARM]), FLAT))
    rising = slope([(point["requests"], point["resident"]) for point in warm])
    return [*figures, Figure((STRANGERS, BYTES), "bytes", _once(rising))], points


def _stores(budget: Budget, advance: Callable[[float], None]) -> tuple[list[Figure], list[dict[str, Any]]]:
    lasting = (sum(budget.stores) + budget.flood) * 15e-6
    filled, flooded = stores.measure(
        budget.stores, min(100_000, max(budget.stores)), budget.flood, budget.plan.max_keys,
        lambda share: advance(share * lasting),
    )  # fmt: skip
    figures = []
    for one in (*filled, flooded):
        name = f"{one.keys:,} keys" if one is not flooded else f"{one.keys:,} keys, {one.max_keys:,} held at the most"
        figures += [
            Figure((STORE, name, "first check us"), "us", _once(one.first)),
            Figure((STORE, name, "again us"), "us", _once(one.again)),
            Figure((STORE, name, "bytes a key held"), "bytes", _once(one.bytes_per_key)),
            Figure((STORE, name, "peak MiB"), "MiB", _once(one.peak)),
        ]
    return figures, [asdict(one) for one in (*filled, flooded)]


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
    return Suite("memory", strangers + filled, method, details={"strangers": points, "stores": details})


def sheets(suite: Suite) -> list[Sheet]:
    """The tables."""
    if not suite.figures:
        return []
    rows = [[name, plain(suite.find(STRANGERS, name))] for name in (AT_FIRST, WARM, LAST, GROWN)]
    rising = suite.find(STRANGERS, BYTES)
    assert rising is not None
    caption = f"{number(rising.median)} {BYTES}. {suite.method['strangers']}."
    found = [Sheet("Resident memory of a process that serves strangers", ("",), ("MiB",), rows, caption)]
    columns = suite.names(2, STORE)
    held = [[name, *(plain(suite.find(STORE, name, column)) for column in columns)] for name in suite.names(1, STORE)]
    found.append(Sheet("The store in memory, over many keys", ("store",), columns, held))
    wanted = asked(suite.figures)
    return [*found, wanted] if wanted else found
