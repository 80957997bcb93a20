"""The benchmark of whole requests: interleaved rounds over servers that run at the same time, one loaded at a time.

What is compared is the CPU time that the server's process takes for a request, user and system mode together: it is
steadier than requests a second, which depend on what else the machine does. A ratio is that of the bare app to that of
the same app with a stack around it, in the same round: 1 would be a stack that costs nothing.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from asgi_guard import StoreSettings
from asgi_guard.testing import LocalIssuer
from benchmarks import peers, subjects
from benchmarks.figures import Figure, Suite
from benchmarks.interval import Interval
from benchmarks.limits.servers import NoServerError, target
from benchmarks.rounds import shuffler
from benchmarks.server.load import Asking, Load, run, tool
from benchmarks.server.process import Running, absence, cpu_seconds, serving
from benchmarks.server.serve import Served
from benchmarks.server.tables import BARE, CPU, GUARD, LEAST, NAMES, P50, P95, P99, RATE, RATIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.figures import Unit

STACKS = (BARE, GUARD, "assembly", "article")
ONE_CLIENT = "article_one_client"
PACKAGES = ("uvicorn", "uvloop", "httptools", "fastapi", "starlette", "asgi-correlation-id", "secure", "asgi-logger",
            "limits")  # fmt: skip


TOO_SLOW = (
    f"had no answer of the store within {StoreSettings.model_fields['timeout'].default * 1000:.0f} ms, the default: "
    "they were judged by limits of the process, and their tokens not looked up"
)


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
    Setting("FastAPI, embedded store", "fastapi", redis=False, stacks=(*STACKS, LEAST), asked=0.90),
    Setting("FastAPI, Redis", "fastapi", redis=True, stacks=(*STACKS, ONE_CLIENT), asked=0.82),
    Setting("raw ASGI app, embedded store", "raw", redis=False, stacks=(BARE, GUARD, LEAST), asked=0.68),
)


@dataclass(frozen=True, slots=True)
class Budget:
    """How much is measured.

    Attributes:
        rounds: turns of each stack, of
        seconds: this length; whole ones, for wrk takes no others.
        connections: kept alive, each with one request under way.
        settings: how many of the settings are measured.
    """

    rounds: int = 15
    seconds: float = 2.0
    connections: int = 32
    settings: int = len(SETTINGS)

    def total(self) -> float:
        """About how many seconds it takes, starting included."""
        return sum(len(each.stacks) * ((self.rounds + 1) * self.seconds + 1.5) for each in SETTINGS[: self.settings])


FULL = Budget()
QUICK = Budget(rounds=6, seconds=1.0)
BRIEF = Budget(rounds=2, seconds=1.0, settings=1)


def measure(
    store: str | None, budget: Budget, advance: Callable[[str, float], None], settings: Sequence[Setting] = SETTINGS
) -> Suite:
    """Measure everything.

    Args:
        store: the URL of a Redis or Valkey; None starts one.
        budget: how much.
        advance: is told what is measured, and the seconds that it took.
        settings: which settings.
    """
    if (why := absence()) is not None:
        return Suite("server", [], skipped={"servers": why})
    skipped = {NAMES[name]: reason for name in (*STACKS, ONE_CLIENT) if (reason := peers.absence(name))}
    skipped |= {each.name: "left out of what is quick; `server` has it" for each in settings[budget.settings :]}
    settings = settings[: budget.settings]
    skipped |= {each.name: why for each in settings if (why := subjects.absence(each.app)) is not None}
    settings = [each for each in settings if each.name not in skipped]
    issuer = LocalIssuer()
    with pinned() as core, ExitStack() as stack, issuer.serve():
        redis, where = None, "embedded"
        if any(setting.redis for setting in settings):
            try:
                redis = stack.enter_context(target(store))
                where = redis.describe()
            except NoServerError as error:
                skipped |= {setting.name: str(error) for setting in settings if setting.redis}
                settings = [setting for setting in settings if not setting.redis]
        token = issuer.token(lifetime=24 * 3600)
        asking = Asking(
            0, f"{subjects.PATH}?{subjects.QUERY}", subjects.headers(token), budget.connections, budget.seconds
        )
        figures: list[Figure] = []
        told: dict[str, str] = {}
        for setting in settings:
            url = redis.url if setting.redis and redis is not None else None
            stacks = [name for name in setting.stacks if peers.absence(name) is None]
            served = {name: Served(setting.app, name, url, issuer.url, issuer.audience, core) for name in stacks}
            found = compare(served, token, asking, budget.rounds, partial(advance, f"server: {setting.name}"))
            for name, taken in found.turns.items():
                figures += _figures(setting, name, taken, found.turns[BARE])
            if setting.redis and GUARD in served:
                slow = f"{found.without_store[GUARD]:,} of {found.requests[GUARD]:,} requests"
                told["too slow a store"] = f"{slow} to asgi-guard in {setting.name} {TOO_SLOW}"
    method = {
        "load": f"{tool()}, {budget.connections} connections",
        "cores": "nothing is pinned" if core is None else f"the server on core {core}, the load on the others",
        "collector": "on in the servers, as Python sets it",
        "rounds": f"{budget.rounds} of {budget.seconds:g} s each, interleaved, after one that warms up",
        "store": where,
        **told,
        "packages": ", ".join(f"{name} {number}" for name, number in _versions().items()),
    }
    return Suite("server", figures, method, skipped)


@contextmanager
def pinned() -> Iterator[int | None]:
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
class Turn:
    """One server in one round: microseconds of its CPU time a request, and the load."""

    cpu: float
    load: Load


@dataclass(slots=True)
class Compared:
    """What was found of servers, by name.

    Attributes:
        turns: one a round.
        requests: how many each answered, the round that warms up included.
        without_store: how many of those it judged without its store, which was too slow.
    """

    turns: dict[str, list[Turn]]
    requests: dict[str, int]
    without_store: dict[str, int]


def compare(
    served: dict[str, Served], token: str, asking: Asking, rounds: int, advance: Callable[[float], None]
) -> Compared:
    """Load servers that run at the same time, one after the other, round after round.

    Args:
        served: the servers, by name.
        token: that they are asked with.
        asking: what they are asked.
        rounds: how many, after one that warms up.
        advance: is told the seconds of each turn.
    """
    found = Compared({name: [] for name in served}, dict.fromkeys(served, 0), {})
    with ExitStack() as stack:
        dice = shuffler()
        running = [(name, stack.enter_context(serving(each, token))) for name, each in served.items()]
        for number in range(rounds + 1):
            dice.shuffle(running)
            for name, server in running:
                turn = _turn(asking, server)
                found.requests[name] += turn.load.requests
                if number:  # the first round warms up
                    found.turns[name].append(turn)
                advance(asking.seconds)
    found.without_store = {name: server.without_store for name, server in running}
    return found


def _turn(asking: Asking, server: Running) -> Turn:
    before = cpu_seconds(server.pid)
    loaded = run(replace(asking, port=server.port), tool())
    spent = cpu_seconds(server.pid) - before
    assert loaded.requests, "the load generator had no answer"
    assert not loaded.failed, f"{loaded.failed} of {loaded.requests} requests to port {server.port} failed"
    return Turn(spent / loaded.requests * 1e6, loaded)


def _figures(setting: Setting, name: str, turns: Sequence[Turn], bare: Sequence[Turn]) -> Iterator[Figure]:
    def figure(what: str, unit: Unit, of: Callable[[Turn], float], *, more: bool = False) -> Figure:
        return Figure((setting.name, name, what), unit, Interval.of([of(turn) for turn in turns]), more=more)

    yield figure(CPU, "us", lambda turn: turn.cpu)
    if name != BARE:
        ratio = Interval.of([base.cpu / turn.cpu for base, turn in zip(bare, turns, strict=True)])
        least = setting.asked if name == GUARD else None
        yield Figure((setting.name, name, RATIO), "x", ratio, least, more=True)
    yield figure(RATE, "1/s", lambda turn: turn.load.requests / turn.load.seconds, more=True)
    yield figure(P50, "ms", lambda turn: turn.load.p50)
    yield figure(P95, "ms", lambda turn: turn.load.p95)
    yield figure(P99, "ms", lambda turn: turn.load.p99)
