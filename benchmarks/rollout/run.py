"""Rolling updates under load: how many requests were answered, and how many failed, by front and by side."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import Figure, Suite
from benchmarks.interval import Interval
from benchmarks.rollout.fronts import DRAIN_SECONDS, FRONTS
from benchmarks.rollout.load import Load
from benchmarks.rollout.processes import StuckError, answers, processes, wait_for
from benchmarks.sheet import Sheet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.rollout.fronts import Front, Side

__all__ = ["CHECK", "FULL", "QUICK", "Budget", "Outcome", "StuckError", "lost", "measure", "outcome", "sheets"]
NAMES: dict[Side, str] = {"alone": "the app alone", "article": "the article's way", "guarded": "asgi-guard"}
FAILED, ANSWERED = "failed", "answered"
KINDS = ("refused", "reset", "truncated", "status", "timeout")
MEANING = "refused: no connection; reset: closed before an answer; truncated: closed within it; status: not 200."
CLAIM = "deployment errors from 5-10 timeouts to zero; no measurement shown"
"""What the article says of its rolling updates."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much is measured.

    Attributes:
        sides: who.
        clients: at once.
        rolls: at least, of all processes of a front.
        requests: that the guarded side at least has to answer; it is rolled on until then.
        seconds: after which no roll begins.
        warm: seconds of load before the first roll, and after the last.
    """

    sides: tuple[Side, ...] = ("alone", "article", "guarded")
    clients: int = 48
    rolls: int = 3
    requests: int = 100_000
    seconds: float = 300.0
    warm: float = 1.0

    def total(self, fronts: int = len(FRONTS)) -> float:
        """About how many seconds it takes."""
        return fronts * sum(
            self.rolls * 8 + 4 + (self.requests / 1500 if side == "guarded" else 0) for side in self.sides
        )


FULL = Budget()
QUICK = Budget(rolls=1, requests=0, seconds=0)
CHECK = Budget(("guarded",), rolls=1, requests=0, seconds=0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the requests to one side behind one front."""

    answered: int
    failed: dict[str, int]
    rolls: int

    def __str__(self) -> str:
        return f"{sum(self.failed.values()):,} / {self.answered:,}"

    def kinds(self) -> str:
        """The failures by kind, the most frequent first."""
        return ", ".join(f"{count:,} {kind}" for kind, count in Counter(self.failed).most_common())


def outcome(front: Front, side: Side, budget: Budget) -> Outcome:
    """Roll one side behind one front."""
    least = budget.requests if side == "guarded" else 0
    with (
        tempfile.TemporaryDirectory() as folder,
        processes(Path(folder)) as running,
        front.open(running, side) as (port, roll),
    ):
        wait_for(f"answers by {front.name}", lambda: answers(port, "/quick"))
        with Load(port, budget.clients) as load:
            time.sleep(budget.warm)
            until, rolls = time.monotonic() + budget.seconds, 0
            while rolls < budget.rolls or (load.counts.answered < least and time.monotonic() < until):
                roll(load)
                rolls += 1
            time.sleep(budget.warm)
    return Outcome(load.counts.answered, dict(load.counts.failed), rolls)


def measure(budget: Budget, advance: Callable[[str, float], None], fronts: Sequence[Front] = FRONTS) -> Suite:
    """Roll every side behind every front that is here.

    Args:
        budget: how much.
        advance: is told what is measured, and the seconds that it took.
        fronts: which.
    """
    skipped = {front.name: reason for front in fronts if (reason := front.missing())}
    figures, kinds = [], {}
    for front in fronts:
        if front.name in skipped:
            continue
        for side in budget.sides:
            began = time.monotonic()
            advance(f"{front.name}: {NAMES[side]}", 0)
            try:
                found = outcome(front, side, budget)
            except StuckError as error:
                raise StuckError(f"{front.name}, {NAMES[side]}: {error}") from error
            figures += _figures(front.name, side, found)
            kinds[f"{front.name}: {NAMES[side]}"] = {"rolls": found.rolls, **found.failed}
            advance(f"{front.name}: {NAMES[side]}", time.monotonic() - began)
    method = {
        "load": f"{budget.clients} clients that keep connections; 1 POST in 8 takes 0.3 s, 1 in 16 comes after a pause",
        "asgi-guard": f"ASGI_GUARD_HEALTH_DRAIN_SECONDS={DRAIN_SECONDS}; haproxy asks every 0.5 s, twice",
        "the article": CLAIM,
    }
    return Suite("rollout", figures, method, skipped, kinds)


def _figures(front: str, side: Side, found: Outcome) -> list[Figure]:
    failed = Interval.of([float(sum(found.failed.values()))])
    return [
        Figure((front, NAMES[side], FAILED), "requests", failed, 0 if side == "guarded" else None),
        Figure((front, NAMES[side], ANSWERED), "requests", Interval.of([float(found.answered)])),
    ]


def sheets(suite: Suite) -> list[Sheet]:
    """The tables: failed / answered, and how they failed."""
    sides = suite.names(1)
    rows = [[front, *(_cell(suite, front, side) for side in sides)] for front in suite.names(0)]
    made = [
        Sheet(
            "Rolling updates under load: failed / answered", ("front",), sides, rows,
            f"The article's claim: {CLAIM}.",
        )
    ]  # fmt: skip
    failures = [
        [name, *(str(kinds.get(kind, "")) for kind in ("rolls", *KINDS))] for name, kinds in suite.details.items()
    ]
    made.append(Sheet("How they failed", ("",), ("rolls", *KINDS), failures, MEANING))
    return made


def _cell(suite: Suite, front: str, side: str) -> str:
    failed, answered = (suite.find(front, side, what) for what in (FAILED, ANSWERED))
    return "" if failed is None or answered is None else f"{failed.median:,.0f} / {answered.median:,.0f}"


def lost(suite: Suite) -> list[str]:
    """The fronts behind which the guarded side lost requests, or answered none."""
    ours = NAMES["guarded"]
    return [
        front
        for front in suite.names(0)
        if (failed := suite.find(front, ours, FAILED)) is not None
        and (failed.median > 0 or not (answered := suite.find(front, ours, ANSWERED)) or not answered.median)
    ]
