"""The benchmark of layers: interleaved rounds over every layer around every app, in this process, without a server."""

from __future__ import annotations

import asyncio
import gc
import time
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asgi_guard.testing import LocalIssuer
from benchmarks import subjects
from benchmarks.calls import check, discarded_output, send, timed
from benchmarks.figures import Figure, Suite
from benchmarks.interval import Interval
from benchmarks.layers.allocations import HELD, LEFT, PEAK, Allocated, allocated
from benchmarks.layers.around import BARE, GUARD, IDLE, around, growing
from benchmarks.rounds import CLOCK, COLLECTOR, interleave, one_core
from benchmarks.sheet import Sheet, asked, plain, spread, warned

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asgi_guard.asgi import ASGIApp, Scope

TAKES, ADDS, STACK = "takes", "adds", "stack"
RAW = "raw"
ASKED = 12.0
"""Microseconds that the whole guard is to add to the raw app at the most."""
QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)
KEPT = 200_000
"""Single times that are kept of one app, at the most."""
TITLES = {RAW: "a raw ASGI app", "starlette": "Starlette", "fastapi": "FastAPI"}


@dataclass(frozen=True, slots=True)
class Budget:
    """How much is measured.

    Attributes:
        seconds: for how long.
        calls: requests to each app in a round.
        apps: by their names in `subjects.BARE`.
    """

    seconds: float
    calls: int = 50
    apps: tuple[str, ...] = tuple(subjects.BARE)

    def expected(self) -> float:
        """About how many seconds it takes."""
        return self.seconds + len(self.apps)


FULL, QUICK, BRIEF = Budget(60.0), Budget(5.0), Budget(2.0)
Turn = tuple[str, str]


def one_by_one(app: ASGIApp, scope: Scope, calls: int, into: array[float]) -> Callable[[], Awaitable[float]]:
    """A turn that keeps the time that every single request took, in microseconds, and gives their mean CPU time."""
    took = [0] * calls

    async def turn() -> float:
        began = time.process_time_ns()
        for number in range(calls):
            asked = dict(scope)
            started = time.perf_counter_ns()
            await app(asked, subjects.receive, send)
            took[number] = time.perf_counter_ns() - started
        spent = time.process_time_ns() - began
        if len(into) < KEPT:
            into.extend(each / 1000 for each in took)
        return spent / calls / 1000

    return turn


def quantiles(values: Sequence[float]) -> list[float]:
    """The values that these shares of them do not exceed."""
    ordered = sorted(values)
    return [ordered[round(share * (len(ordered) - 1))] for share in QUANTILES]


async def _measure(budget: Budget, advance: Callable[[float], None]) -> tuple[list[Figure], dict[str, Any]]:
    issuer = LocalIssuer(algorithm="ES256")
    scope = subjects.request(issuer.token(lifetime=24 * 3600))
    measured: dict[Turn, ASGIApp] = {}
    for name in (name for name in budget.apps if subjects.absence(name) is None):
        app = subjects.BARE[name]()
        measured |= {(name, layer): made for layer, made in around(app, issuer).items()}
    measured |= {(STACK, layer): made for layer, made in growing(subjects.raw, issuer).items()}
    singles: dict[str, array[float]] = {layer: array("d") for name, layer in measured if name == RAW}
    turns: dict[Turn, Callable[[], Awaitable[float]]] = {}
    with discarded_output():
        for (name, layer), made in measured.items():
            await check(made, scope)
            await timed(made, scope, budget.calls)  # to warm up
            if name == RAW:
                turns[name, layer] = one_by_one(made, scope, budget.calls, singles[layer])
            else:
                turns[name, layer] = _mean(made, scope, budget.calls)
        times = await interleave(turns, budget.seconds, advance)
        gc.collect()
        counted = {turn: await allocated(made, scope) for turn, made in measured.items() if turn[0] != STACK}
    advance(len(budget.apps))
    details = {"quantiles": QUANTILES, "distribution": {name: quantiles(taken) for name, taken in singles.items()}}
    return [*_times(times), *_allocations(counted)], details


def _mean(app: ASGIApp, scope: Scope, calls: int) -> Callable[[], Awaitable[float]]:
    return lambda: timed(app, scope, calls)


def _times(times: dict[Turn, list[float]]) -> list[Figure]:
    found = []
    for (name, layer), taken in times.items():
        added = Interval.of([total - less for total, less in zip(taken, times[name, BARE], strict=True)])
        if name != STACK:
            found.append(Figure((name, layer, TAKES), "us", Interval.of(taken)))
        if layer != BARE:
            limit = ASKED if (name, layer) == (RAW, GUARD) else None
            found.append(Figure((name, layer, ADDS), "us", added, limit))
    return found


def _allocations(counted: dict[Turn, Allocated]) -> list[Figure]:
    found = []
    for (name, layer), one in counted.items():
        if layer == BARE:
            continue
        base = counted[name, BARE]
        for what, value in ((HELD, one.held - base.held), (PEAK, one.peak - base.peak), (LEFT, one.left - base.left)):
            found.append(Figure((name, layer, what), "bytes" if what == PEAK else "blocks", Interval.of([value])))
    return found


def measure(budget: Budget, advance: Callable[[float], None]) -> Suite:
    """Measure every layer around every app.

    Args:
        budget: how much.
        advance: is told the seconds that have passed since it was told last.
    """
    with one_core() as core:
        figures, details = asyncio.run(_measure(budget, advance))
    method = {
        "clock": CLOCK,
        "collector": COLLECTOR,
        "cores": core,
        "requests": f"raw ASGI calls in this process, {budget.calls} a turn, the access log written to the null device",
    }
    skipped = {TITLES[name]: why for name in budget.apps if (why := subjects.absence(name)) is not None}
    return Suite("layers", figures, method, skipped, details)


def sheets(suite: Suite) -> list[Sheet]:
    """The tables."""
    found = [_sheet(suite, name) for name in suite.names(0) if name != STACK]
    wanted = asked(suite.figures)
    return [*found, wanted] if wanted else found


def _sheet(suite: Suite, name: str) -> Sheet:
    rows, times = [], []
    for layer in suite.names(1, name):
        added, left = suite.find(name, layer, ADDS), suite.find(name, layer, LEFT)
        times.append(added)
        held, peak = (suite.find(name, layer, what) for what in (HELD, PEAK))
        rows.append([
            layer, plain(suite.find(name, layer, TAKES)), plain(added), spread(added),
            plain(held), plain(peak), "" if left is None else f"{abs(left.median):.1f}",
        ])  # fmt: skip
    return Sheet(
        f"What a layer adds to a request to {TITLES[name]}", ("layer",),
        ("takes us", "adds us", "interval", HELD, PEAK, LEFT), rows,
        f"Each layer alone around the app, then all {len(rows) - len((BARE, IDLE, GUARD))} in one Guard, where "
        "RateLimit also looks, before Identity, whether the client is known to be over a limit. Blocks held: allocated "
        "and in use when the response begins, beyond the app's own. Peak: the most in use at once. Left: what only the "
        f"garbage collector frees. {warned(times)}".strip(),
        frozenset({GUARD}),
    )  # fmt: skip
