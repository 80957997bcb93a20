"""The suites, each behind the same two functions: measure it, and make its tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from benchmarks.auth import run as auth
from benchmarks.memory import run as memory
from benchmarks.scale import run as scale

if TYPE_CHECKING:
    from benchmarks.figures import Suite
    from benchmarks.sheet import Sheet

Advance: TypeAlias = Callable[[str, float], None]
"""Is told what is measured, and the seconds that count as passed."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A suite that can be measured.

    Attributes:
        name: of the command.
        help: of the command: what it measures.
        seconds: about how long it takes, quick or in full; for the progress bar, and for people.
        measure: measures it: quick or in full, with the store of this URL or one of its own.
        sheets: makes the tables of what was found.
    """

    name: str
    help: str
    seconds: Callable[[bool], float]
    measure: Callable[[bool, str | None, Advance], Suite]
    sheets: Callable[[Suite], list[Sheet]]


def _auth(quick: bool, store: str | None, advance: Advance) -> Suite:
    seconds, rotations = _AUTH[quick]
    return auth.measure(seconds, rotations, lambda passed: advance("auth", passed))


_AUTH = {True: (4.0, 3), False: (30.0, 15)}

AUTH = Kind(
    "auth",
    "Measure what a token costs: verified, remembered, hostile, and when its key is rotated; beside PyJWT and joserfc.",
    lambda quick: auth.expected(*_AUTH[quick]),
    _auth,
    auth.sheets,
)


def _scale(quick: bool, store: str | None, advance: Advance) -> Suite:
    return scale.measure(store, scale.QUICK if quick else scale.FULL, lambda passed: advance("scale", passed))


SCALE = Kind(
    "scale",
    "Measure the cost against the number of limit keys, limits, routes, origins, requests at once and processes.",
    lambda quick: (scale.QUICK if quick else scale.FULL).expected(),
    _scale,
    scale.sheets,
)


def _memory(quick: bool, store: str | None, advance: Advance) -> Suite:
    return memory.measure(memory.QUICK if quick else memory.FULL, lambda passed: advance("memory", passed))


MEMORY = Kind(
    "memory",
    "Measure resident memory over a million requests of strangers, and over a million keys.",
    lambda quick: (memory.QUICK if quick else memory.FULL).expected(),
    _memory,
    memory.sheets,
)
KINDS = (AUTH, SCALE, MEMORY)
