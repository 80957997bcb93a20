"""The suites, each behind the same two functions: measure it, and make its tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from benchmarks import browser
from benchmarks.auth import run as auth
from benchmarks.figures import Suite
from benchmarks.layers import run as layers
from benchmarks.limits import run as limits
from benchmarks.limits import suite as limits_suite
from benchmarks.memory import run as memory
from benchmarks.rollout import run as rollout
from benchmarks.scale import run as scale
from benchmarks.server import counted, stack
from benchmarks.server import run as server
from benchmarks.server import tables as server_tables

if TYPE_CHECKING:
    from rich.console import Console

    from benchmarks.sheet import Sheet

Pace: TypeAlias = Literal["brief", "quick", "full"]
"""How much time is taken: `quick` for less steady figures, `brief` where all suites together shall be quick."""
Advance: TypeAlias = Callable[[str, float], None]
"""Is told what is measured, and the seconds that count as passed."""
CONTENDERS = 6
"""Limiters that are mostly there, to tell how long they take."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A suite that can be measured.

    Attributes:
        name: of the command.
        help: of the command: what it measures.
        seconds: about how long it takes, for the progress bar, and for people.
        measure: measures it, with the store of this URL or one of its own.
        sheets: makes the tables of what was found.
        show: prints what was found just now, where there is more of it than in the tables.
    """

    name: str
    help: str
    seconds: Callable[[Pace], float]
    measure: Callable[[Pace, str | None, Advance], Suite]
    sheets: Callable[[Suite], list[Sheet]]
    show: Callable[[Console, Suite], None] | None = None


def _named(name: str, advance: Advance) -> Callable[[float], None]:
    return lambda passed: advance(name, passed)


# Brief, all suites together take some 45 seconds, so that they take less than a minute on a slower machine too.
_AUTH: dict[Pace, tuple[float, int]] = {"brief": (1.5, 1), "quick": (4.0, 3), "full": (30.0, 15)}
_BROWSER: dict[Pace, float] = {"brief": 1.0, "quick": 3.0, "full": 15.0}
_BRIEF_LIMITS = 2.0


def _limits(pace: Pace, store: str | None, advance: Advance) -> Suite:
    if pace == "brief":
        return limits_suite.of(limits.brief(store, _BRIEF_LIMITS, _named("limits", advance)))

    def begin(_: float) -> Advance:
        return lambda name, passed: advance(f"limits: {name}", passed)

    return limits_suite.of(limits.measure(store, limits.FULL if pace == "full" else limits.QUICK, begin))


def _limits_seconds(pace: Pace) -> float:
    if pace == "brief":
        return _BRIEF_LIMITS
    return sum(limits.expected(limits.FULL if pace == "full" else limits.QUICK, CONTENDERS).values())


def _server(pace: Pace) -> server.Budget:
    return {"brief": server.BRIEF, "quick": server.QUICK, "full": server.FULL}[pace]


def _layers(pace: Pace) -> layers.Budget:
    return {"brief": layers.BRIEF, "quick": layers.QUICK, "full": layers.FULL}[pace]


def _scale(pace: Pace) -> scale.Budget:
    return {"brief": scale.BRIEF, "quick": scale.QUICK, "full": scale.FULL}[pace]


def _memory(pace: Pace) -> memory.Budget:
    return {"brief": memory.BRIEF, "quick": memory.QUICK, "full": memory.FULL}[pace]


def _stack(pace: Pace) -> server.Budget:
    return stack.FULL if pace == "full" else stack.QUICK


def _measured_stack(pace: Pace, advance: Advance) -> Suite:
    if pace == "brief":
        return Suite(
            "stack", [], skipped={"each layer inside a server": "it takes more than a minute; ask for `stack`"}
        )
    return stack.measure(_stack(pace), advance)


def _counted(pace: Pace) -> tuple[str, ...]:
    return {"brief": (), "quick": ("raw",), "full": tuple(counted.APPS)}[pace]


def _measured_counts(pace: Pace, advance: Advance) -> Suite:
    if pace == "brief":
        return Suite("counted", [], skipped={"instructions of whole requests": "they take minutes; ask for `counted`"})
    return counted.measure(_counted(pace), advance)


def _rollout(pace: Pace) -> rollout.Budget:
    return {"brief": rollout.CHECK, "quick": rollout.QUICK, "full": rollout.FULL}[pace]


KINDS = (
    Kind(
        "server",
        "Measure whole requests under uvicorn: the app alone, guarded, and with others' stacks. On Linux only.",
        lambda pace: _server(pace).total(),
        lambda pace, store, advance: server.measure(store, _server(pace), advance),
        server_tables.sheets,
    ),
    Kind(
        "layers",
        "Measure each layer and the whole guard around a raw app, Starlette and FastAPI: microseconds and allocations.",
        lambda pace: _layers(pace).expected(),
        lambda pace, store, advance: layers.measure(_layers(pace), _named("layers", advance)),
        layers.sheets,
    ),
    Kind(
        "stack",
        "Measure what each layer costs inside a real server, around a raw app and FastAPI. On Linux only.",
        lambda pace: 0.0 if pace == "brief" else stack.expected(_stack(pace)),
        lambda pace, store, advance: _measured_stack(pace, advance),
        stack.sheets,
    ),
    Kind(
        "counted",
        "Count the instructions of whole requests, by valgrind: the app alone, guarded, and with others' stacks.",
        lambda pace: counted.expected(_counted(pace)),
        lambda pace, store, advance: _measured_counts(pace, advance),
        counted.sheets,
    ),
    Kind(
        "auth",
        "Measure what a token costs: verified, remembered, hostile, and when its key is rotated; beside others.",
        lambda pace: auth.expected(*_AUTH[pace]),
        lambda pace, store, advance: auth.measure(*_AUTH[pace], _named("auth", advance)),
        auth.sheets,
    ),
    Kind(
        "limits",
        """Measure limits beside other limiters: throughput, memory, refusals, faults.

        Those that are not installed are left out, by name. A server given by --store is asked for checks only: it is
        never emptied, stopped or filled, and every key is taken away again.
        """,
        _limits_seconds,
        _limits,
        limits_suite.sheets,
        limits_suite.show,
    ),
    Kind(
        "browser",
        "Measure CORS, beside Starlette's, security headers, CSRF, and addresses behind a thousand proxies.",
        lambda pace: _BROWSER[pace],
        lambda pace, store, advance: browser.measure(_BROWSER[pace], 200, _named("browser", advance)),
        browser.sheets,
    ),
    Kind(
        "scale",
        "Measure the cost against the number of limit keys, limits, routes, origins, requests at once and processes.",
        lambda pace: _scale(pace).expected(),
        lambda pace, store, advance: scale.measure(store, _scale(pace), _named("scale", advance)),
        scale.sheets,
    ),
    Kind(
        "memory",
        "Measure resident memory over a million requests of strangers, and over a million keys.",
        lambda pace: _memory(pace).expected(),
        lambda pace, store, advance: memory.measure(_memory(pace), _named("memory", advance)),
        memory.sheets,
    ),
)
"""In the order in which they are measured and printed."""
ROLLOUT = Kind(
    "rollout",
    "Replace processes under load, behind balancers and by reloads, and count the requests that fail.",
    lambda pace: _rollout(pace).total(),
    lambda pace, _, advance: rollout.measure(_rollout(pace), advance),
    rollout.sheets,
)
"""By itself: it needs programs that are no Python packages, and what it counts is no cost."""
