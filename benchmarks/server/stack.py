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
from benchmarks.layers.around import growing
from benchmarks.server.load import Asking, tool
from benchmarks.server.process import absence
from benchmarks.server.run import Budget, compare, pinned
from benchmarks.server.serve import Served
from benchmarks.server.tables import BARE, CPU, LEAST
from benchmarks.sheet import Sheet, plain, spread

if TYPE_CHECKING:
    from collections.abc import Callable

ADDS = "adds"
LINES = "(nothing but its headers)"
APPS = {"raw": "a raw ASGI app", "fastapi": "FastAPI"}
FULL = Budget(rounds=7, seconds=1.0)
QUICK = Budget(rounds=2, seconds=1.0)


def names() -> list[str]:
    """The layers, in the order in which they are put around the app; none first."""
    return [name for name in growing(subjects.raw, LocalIssuer(algorithm="ES256")) if name != ALONE]


def expected(budget: Budget) -> float:
    """About how many seconds it takes, starting included."""
    return len(APPS) * (len(names()) + 2) * ((budget.rounds + 1) * budget.seconds + 1.5)


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
            served |= {name: make("layers", layers=count) for count, name in enumerate(names())}
            turns = compare(served, token, asking, budget.rounds, partial(advance, f"stack: {APPS[app]}"))
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
    rows = []
    for name in suite.names(1, app):
        added = suite.find(app, name, ADDS)
        rows.append([name, plain(suite.find(app, name, CPU)), plain(added), spread(added)])
    return Sheet(
        f"Inside a server, around {APPS[app]}: with each layer more", ("up to this layer",),
        ("CPU us", "adds us", "interval"), rows,
        "CPU time of the server's process for a request. Where intervals overlap, the layers between look alike. "
        f"{LINES[1:-1].capitalize()}: a wrapper that adds the very lines that the guard adds, and does nothing else.",
    )  # fmt: skip
