"""Figures as every suite gives them, and the one format of JSON that holds them all."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import orjson
from pydantic import TypeAdapter, ValidationError

from benchmarks.interval import FEW, Interval
from benchmarks.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SCHEMA = 5
"""Of the JSON. It goes up when a figure changes its name or its meaning."""
MARGIN = 0.05
"""The share by which a figure of few rounds has to be better or worse than what is asked, to be so."""
APART = 2.0
"""How many times as slow a machine may be as itself, each time where it was quietest: suites of one run, minutes apart,
find a shared one 1.6 times as slow."""
Unit: TypeAlias = Literal[
    "us", "ms", "1/s", "x", "slope", "blocks", "bytes", "MiB", "calls", "requests", "instructions"
]


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure.

    Attributes:
        of: what it is of, from the general to the particular.
        unit: what it is in: `us` and `ms` are times, `1/s` how many a second, `x` and `slope` have no unit.
        value: its median over the rounds, and that median's interval.
        asked: what the project asks it to be, if anything, at the most, or
        more: at the least, for figures of which more is better.
        waits: what of it is a wait of a fixed length, which takes as long on every machine.
    """

    of: tuple[str, ...]
    unit: Unit
    value: Interval
    asked: float | None = None
    more: bool = False
    waits: float = 0.0

    @property
    def verdict(self) -> str:
        """Whether it is what is asked, if anything is.

        Undecided, where its interval holds what is asked; of fewer than `FEW` rounds, where all of them and `MARGIN`
        are not on one side of it.
        """
        if self.asked is None:
            return ""
        low, high = self.value.low, self.value.high
        if self.value.rounds < FEW:
            low, high = low - abs(low) * MARGIN, high + abs(high) * MARGIN
        if low < self.asked < high:
            return "undecided"
        reached = self.value.median >= self.asked if self.more else self.value.median <= self.asked
        return "reached" if reached else "NOT reached"


@dataclass(frozen=True, slots=True)
class Yardstick:
    """Microseconds of a fixed piece of work, taken all through a suite: how fast the machine was meanwhile.

    Attributes:
        cpu: of CPU time, and
        wall: by the clock on the wall.
    """

    cpu: Interval
    wall: Interval


@dataclass(frozen=True, slots=True)
class Suite:
    """All that one suite found.

    Attributes:
        name: the suite's.
        figures: by name.
        method: what a reader has to know of how they were taken.
        skipped: what was not measured, with the reason.
        details: what else there is, for its tables and plots.
        yardstick: how fast the machine was meanwhile; None where nobody looked.
        failed: whether it broke off; why is among what was not measured.
        quick: whether it is of a quick run; None where the results tell it of all of them, as older files do.
    """

    name: str
    figures: list[Figure]
    method: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    details: Any = None
    yardstick: Yardstick | None = None
    failed: bool = False
    quick: bool | None = None

    def find(self, *of: str) -> Interval | None:
        """The value of the figure of this name, if it is there."""
        return next((figure.value for figure in self.figures if figure.of == of), None)

    def names(self, place: int, *of: str) -> list[str]:
        """What stands at a place in the names of figures that begin so, each once."""
        begun = (figure.of for figure in self.figures if figure.of[: len(of)] == of and len(figure.of) > place)
        return list(dict.fromkeys(name[place] for name in begun))


@dataclass(frozen=True, slots=True)
class Results:
    """One run.

    Attributes:
        taken: when, in UTC.
        quick: whether it was a quick one, whose figures are less steady; or some of its suites are of such a one.
        machine: of which the figures are.
        suites: what was measured.
    """

    taken: str
    quick: bool
    machine: Machine
    suites: list[Suite]

    def told(self) -> Results:
        """The same: each suite tells whether it is of a quick run, and all of them whether one with figures is."""
        suites = [replace(each, quick=self.quick if each.quick is None else each.quick) for each in self.suites]
        return replace(self, suites=suites, quick=any(each.quick for each in suites if each.figures))

    def hurried(self) -> list[str]:
        """The names of the suites with figures that are of a quick run."""
        return [suite.name for suite in self.told().suites if suite.figures and suite.quick]

    @property
    def yard(self) -> float | None:
        """Microseconds that the yardstick took where the machine was quietest; None where nobody looked.

        Moments differ: in one run, a suite may find it nearly twice as slow as another.
        """
        yards = [suite.yardstick.cpu.low for suite in self.suites if suite.figures and suite.yardstick is not None]
        return min(yards, default=None)

    @classmethod
    def of(cls, suites: Iterable[Suite], *, quick: bool) -> Results:
        """What these suites found just now, here."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(now, quick, Machine.here(), [replace(suite, quick=quick) for suite in suites])

    def suite(self, name: str) -> Suite | None:
        """The suite of this name, if it was measured."""
        return next((suite for suite in self.suites if suite.name == name), None)

    def json(self, *, short: bool = False) -> bytes:
        """As JSON, for people to read too unless it shall be short."""
        document = {"schema": SCHEMA, **asdict(self)}
        return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE | (0 if short else orjson.OPT_INDENT_2))


def times_as_slow(results: Sequence[Results]) -> float:
    """How many times as slow the slowest machine was as the fastest, each where it was quietest; 1 if nobody knows."""
    yards = [one.yard for one in results if one.yard is not None]
    return max(yards) / min(yards) if yards else 1.0


def merged(results: Sequence[Results], *, mixed: bool = False) -> Results:
    """Several results of one machine as one: of a suite that is in several, the last that has figures.

    Args:
        results: in their order.
        mixed: whether they may be of machines that are called the same, and are not as fast as each other.

    Raises:
        UnreadableError: they are of different machines.
    """
    if len({one.machine.kind for one in results}) > 1:
        raise UnreadableError("these are of different machines, systems or Pythons: measure all on one")
    if (times := times_as_slow(results)) > APART and not mixed:
        raise UnreadableError(
            f"where it was quietest, the machine was {times:.2f} times as slow for one of these as for another: it is "
            "another one, or was never quiet. Measure all on one, or say --mixed"
        )
    suites: dict[str, Suite] = {}
    for suite in (suite for one in results for suite in one.told().suites):
        if suite.figures or suite.name not in suites:
            suites[suite.name] = suite
    return replace(results[-1], suites=list(suites.values())).told()


def hastened(results: Sequence[Results]) -> list[str]:
    """The suites of which a quick run takes the place of a full one, where these are put together."""
    full: set[str] = set()
    last: dict[str, bool] = {}
    for one in results:
        quick = one.hurried()
        for name in (suite.name for suite in one.suites if suite.figures):
            last[name] = name in quick
            full |= {name} - {*quick}
    return [name for name, quick in last.items() if quick and name in full]


class UnreadableError(Exception):
    """A file does not hold results of this schema. The text is for people."""


def suites_in(path: Path) -> list[str]:
    """The names of the suites that have figures in a file of whatever schema; none, where it holds no results."""
    try:
        return [suite["name"] for suite in json.loads(path.read_bytes())["suites"] if suite["figures"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def read(path: Path) -> Results:
    """The results in a file.

    Raises:
        UnreadableError: it holds none, or those of another schema.
    """
    try:
        text = path.read_bytes()
        document: Any = json.loads(text)
    except (OSError, ValueError) as error:
        raise UnreadableError(f"{path}: {error}") from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise UnreadableError(f"{path} has schema {schema}; this reads {SCHEMA}: measure it again")
    try:
        return _RESULTS.validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = " ".join(map(str, first["loc"]))
        raise UnreadableError(f"{path} does not hold what results have: {where}: {first['msg']}") from error


_RESULTS = TypeAdapter(Results)
