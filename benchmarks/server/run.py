"""The benchmark of whole requests: interleaved rounds over servers that run at the same time, one loaded at a time.

What is compared is the CPU time that the server's process takes for a request, user and system mode together: it is
steadier than requests a second, which depend on what else the machine does. A ratio is that of the bare app to that of
the same app with a stack around it, in the same round: 1 would be a stack that costs nothing.
"""

from __future__ import annotations

import os
import statistics
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from asgi_guard.testing import LocalIssuer
from benchmarks import peers, subjects
from benchmarks.interval import Interval
from benchmarks.limits.servers import target
from benchmarks.machine import Machine
from benchmarks.server.load import Asking, Load, run, tool
from benchmarks.server.process import cpu_seconds, serving
from benchmarks.server.serve import Served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SCHEMA = 1
"""Of the JSON. It goes up when a figure changes its name or its meaning."""
BARE = "bare"
STACKS = (BARE, "guard", "assembly", "article")
PACKAGES = ("uvicorn", "uvloop", "httptools", "fastapi", "starlette", "asgi-correlation-id", "secure", "asgi-logger",
            "limits")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Setting:
    """What stacks are compared in.

    Attributes:
        name: for people.
        app: the app within.
        redis: whether limits and revoked tokens are in a Redis.
        stacks: what is compared.
        asked: the ratio that the guard is to reach.
    """

    name: str
    app: str
    redis: bool
    stacks: tuple[str, ...]
    asked: float


SETTINGS = (
    Setting("FastAPI, embedded store", "fastapi", redis=False, stacks=STACKS, asked=0.90),
    Setting("FastAPI, Redis", "fastapi", redis=True, stacks=STACKS, asked=0.82),
    Setting("raw ASGI app, embedded store", "raw", redis=False, stacks=(BARE, "guard"), asked=0.68),
)


@dataclass(frozen=True, slots=True)
class Budget:
    """How much is measured.

    Attributes:
        rounds: turns of each stack, of
        seconds: this length.
        connections: kept alive, each with one request under way.
    """

    rounds: int = 15
    seconds: float = 2.0
    connections: int = 32

    def total(self) -> float:
        """About how many seconds it takes, starting included."""
        return sum(len(each.stacks) * ((self.rounds + 1) * self.seconds + 3) for each in SETTINGS)


FULL = Budget()
QUICK = Budget(rounds=4, seconds=1.0)


@dataclass(frozen=True, slots=True)
class Cell:
    """One stack in one setting.

    Attributes:
        stack: its name.
        cpu: microseconds of the server process a request: the median over the rounds.
        ratio: the bare app's CPU time to it.
        per_second: requests a second, the median.
        p50: latencies in milliseconds: the medians of the rounds' medians,
        p95: of what 19 in 20 stay below, and
        p99: 99 in 100.
    """

    stack: str
    cpu: float
    ratio: Interval
    per_second: float
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Compared:
    """One setting's figures."""

    name: str
    asked: float
    cells: list[Cell]


@dataclass(frozen=True, slots=True)
class Figures:
    """All that one run found.

    Attributes:
        schema: of the JSON.
        suite: its name.
        machine: of which the figures are.
        packages: versions of what is compared.
        load: the load generator.
        pinned: whether the server had a core of its own, and the load the others.
        collector: how Python's garbage collector was set in the servers.
        budget: how much was measured.
        store: the server of limits.
        skipped: stacks that are not here, with the reason.
        settings: the figures.
    """

    schema: int
    suite: str
    machine: Machine
    packages: dict[str, str]
    load: str
    pinned: bool
    collector: str
    budget: Budget
    store: str
    skipped: dict[str, str]
    settings: list[Compared]


def measure(
    store: str | None, budget: Budget, advance: Callable[[str, float], None], settings: Sequence[Setting] = SETTINGS
) -> Figures:
    """Measure everything.

    Args:
        store: the URL of a Redis or Valkey; None starts one.
        budget: how much.
        advance: is told what is measured, and the seconds that it took.
        settings: which settings.
    """
    machine = Machine.here()
    skipped = {name: reason for name in STACKS if (reason := peers.absence(name))}
    issuer = LocalIssuer()
    with _pinned() as core, target(store) as redis, issuer.serve():
        token = issuer.token(lifetime=24 * 3600)
        asking = Asking(
            0, f"{subjects.PATH}?{subjects.QUERY}", subjects.headers(token), budget.connections, budget.seconds
        )
        compared = []
        for setting in settings:
            url = redis.url if setting.redis else None
            stacks = [name for name in setting.stacks if name not in skipped]
            served = {name: Served(setting.app, name, url, issuer.url, issuer.audience, core) for name in stacks}
            cells = _compare(served, token, asking, budget.rounds, partial(advance, setting.name))
            compared.append(Compared(setting.name, setting.asked, cells))
        where = redis.describe()
    return Figures(
        SCHEMA, "server", machine, _versions(), tool(), core is not None, "on, as Python sets it", budget, where,
        skipped, compared,
    )  # fmt: skip


@contextmanager
def _pinned() -> Iterator[int | None]:
    """Leave one core to the server, and take this process, with what it starts, to the others; None with one core."""
    if not hasattr(os, "sched_getaffinity") or len(cores := sorted(os.sched_getaffinity(0))) < 2:
        yield None
        return
    os.sched_setaffinity(0, cores[1:])
    try:
        yield cores[0]
    finally:
        os.sched_setaffinity(0, cores)


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # its stack is among the skipped
    return found


@dataclass(frozen=True, slots=True)
class _Turn:
    cpu: float
    load: Load


def _compare(
    served: dict[str, Served], token: str, asking: Asking, rounds: int, advance: Callable[[float], None]
) -> list[Cell]:
    turns: dict[str, list[_Turn]] = {name: [] for name in served}
    with ExitStack() as stack:
        running = [(name, *stack.enter_context(serving(each, token))) for name, each in served.items()]
        for number in range(rounds + 1):
            for name, port, pid in running:
                turn = _turn(asking, port, pid)
                if number:  # the first round warms up
                    turns[name].append(turn)
                advance(asking.seconds)
            running.append(running.pop(0))  # so that nobody always comes after the same one
    return [_cell(name, taken, turns[BARE]) for name, taken in turns.items()]


def _turn(asking: Asking, port: int, pid: int) -> _Turn:
    before = cpu_seconds(pid)
    loaded = run(replace(asking, port=port), tool())
    spent = cpu_seconds(pid) - before
    assert loaded.requests, "the load generator had no answer"
    assert not loaded.failed, f"{loaded.failed} of {loaded.requests} requests to port {port} failed"
    return _Turn(spent / loaded.requests * 1e6, loaded)


def _cell(name: str, turns: Sequence[_Turn], bare: Sequence[_Turn]) -> Cell:
    def median(of: Callable[[Load], float]) -> float:
        return statistics.median(of(turn.load) for turn in turns)

    return Cell(
        name,
        statistics.median(turn.cpu for turn in turns),
        Interval.of([base.cpu / turn.cpu for base, turn in zip(bare, turns, strict=True)]),
        median(lambda load: load.requests / load.seconds),
        median(lambda load: load.p50),
        median(lambda load: load.p95),
        median(lambda load: load.p99),
    )
