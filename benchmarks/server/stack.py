"""What each layer of the stack costs inside a real server, where other code has had the processor's caches meanwhile.

Around one app there are as many servers as the guard has layers: the first with one of them, the next with two, and so
on. Beside them one that sends the very lines of headers that the guard adds: what a server takes for them nobody can
spare.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from asgi_guard.testing import LocalIssuer
from benchmarks import subjects
from benchmarks.figures import Figure, Suite
from benchmarks.interval import Interval
from benchmarks.layers.around import BARE as ALONE
from benchmarks.layers.around import IDLE, growing
from benchmarks.server.load import Asking, tool
from benchmarks.server.process import absence
from benchmarks.server.run import Budget, compare, pinned
from benchmarks.server.serve import Served
from benchmarks.server.tables import BARE, CPU, LEAST
from benchmarks.sheet import Sheet, number, plain, spread, warned

if TYPE_CHECKING:
    from collections.abc import Callable

ADDS = "adds"
NOTHING = "may be nothing"
LINES = "(nothing but its headers)"
APPS = {"raw": "a raw ASGI app", "fastapi": "FastAPI"}
FEW = {"fastapi": (IDLE, "AccessLog", "CORS", "RateLimit", "Access")}
"""Around a slow app a layer is less than what its time varies by: fewer steps leave time for more rounds."""
FULL = Budget(rounds=15, seconds=1.0)
QUICK = Budget(rounds=2, seconds=1.0)


def names(app: str) -> list[str]:
    """The layers up to which there is a server, in the order in which they are put around the app; none first."""
    every = [name for name in growing(subjects.raw, LocalIssuer(algorithm="ES256")) if name != ALONE]
    return [name for name in every if name in FEW.get(app, every)]


def expected(budget: Budget) -> float:
    """About how many seconds it takes, starting included."""
    return sum(len(names(app)) + 2 for app in APPS) * ((budget.rounds + 1) * budget.seconds + 1.5)


def measure(budget: Budget, advance: Callable[[str, float], None]) -> Suite:
    """Measure every layer around every app.

    Args:
        budget: how much.
        advance: is told what is measured, and the seconds that it took.
    """
    if (why := absence()) is not None:
        return Suite("stack", [], skipped={"servers": why})
    skipped = {APPS[app]: why for app in APPS if (why := subjects.absence(app)) is not None}
    issuer = LocalIssuer()
    figures: list[Figure] = []
    with pinned() as core, issuer.serve():
        token = issuer.token(lifetime=24 * 3600)
        path = f"{subjects.PATH}?{subjects.QUERY}"
        asking = Asking(0, path, subjects.headers(token), budget.connections, budget.seconds)
        for app in (app for app in APPS if APPS[app] not in skipped):
            make = partial(Served, app, store=None, issuer=issuer.url, audience=issuer.audience, core=core)
            served = {BARE: make("bare"), LINES: make(LEAST)}
            served |= {name: make("layers", last="" if name == IDLE else name) for name in names(app)}
            turns = compare(served, token, asking, budget.rounds, partial(advance, f"stack: {APPS[app]}")).turns
            for name, taken in turns.items():
                figures.append(Figure((app, name, CPU), "us", Interval.of([turn.cpu for turn in taken])))
                added = [turn.cpu - base.cpu for turn, base in zip(taken, turns[BARE], strict=True)]
                if name != BARE:
                    figures.append(Figure((app, name, ADDS), "us", Interval.of(added)))
    method = {
        "load": f"{tool()}, {budget.connections} connections",
        "cores": "nothing is pinned" if core is None else f"the server on core {core}, the load on the others",
        "rounds": f"{budget.rounds} of {budget.seconds:g} s each, interleaved, after one that warms up",
    }
    return Suite("stack", figures, method, skipped)


def sheets(suite: Suite) -> list[Sheet]:
    """The tables: what the server takes with each layer more."""
    return [_sheet(suite, app) for app in suite.names(0)]


def _sheet(suite: Suite, app: str) -> Sheet:
    rows, found = [], []
    for name in suite.names(1, app):
        added = suite.find(app, name, ADDS)
        if added is not None:
            found.append(added)
            rows.append([name, number(added.median), spread(added), NOTHING if added.low <= 0 <= added.high else ""])
    rounds = max((added.rounds for added in found), default=0)
    return Sheet(
        f"Inside a server, around {APPS[app]}: with each layer more", ("up to this layer",),
        ("adds us", "interval", ""), rows,
        f"The bare app takes {plain(suite.find(app, BARE, CPU))} us of the server's CPU time for a request. Adds: what "
        f"more it takes than the bare app in the same round, the median of {rounds}. {NOTHING.capitalize()}: the "
        "interval holds 0. Where intervals overlap, the layers between look alike. "
        f"{LINES[1:-1].capitalize()}: a wrapper that adds the very lines that the guard adds, and does nothing else. "
        f"{warned(found)}".strip(),
    )  # fmt: skip
