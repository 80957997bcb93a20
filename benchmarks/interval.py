"""The middle of what several rounds found, and the interval that it mostly is in."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

FEW = 6
"""Rounds, of which fewer have no interval: what stands in its place is but the least and the greatest figure."""
TAIL = 0.025
"""What may lie beyond each end of the interval."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure that was taken once a round.

    Attributes:
        median: over the rounds.
        low: the lower end of the median's 95 % interval, and
        high: the upper one; with fewer than `FEW` rounds, the least and the greatest figure.
        rounds: how many there were.
    """

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """Sum up the figures of the rounds.

        The interval is that of order statistics: it supposes nothing about how the figures are spread, but that rounds
        do not depend on each other.
        """
        ordered = sorted(values)
        cut = _cut(len(ordered))
        return cls(statistics.median(ordered), ordered[cut], ordered[-1 - cut], len(ordered))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def _cut(count: int) -> int:
    """How many of so many figures may be left out at each end: a coin falls so seldom on one side."""
    weight, below, cut = 0.5**count if count < 1000 else 0.0, 0.0, 0
    if not weight:  # so many that the normal distribution says the same
        return max(0, math.floor(count / 2 - 1.96 * math.sqrt(count) / 2))
    while below + weight <= TAIL:
        below += weight
        cut += 1
        weight = weight * (count - cut + 1) / cut
    return max(0, cut - 1)
