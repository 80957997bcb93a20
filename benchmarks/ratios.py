"""Ratios inside one run: their median, and the interval that the median of other runs would mostly be in."""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

RESAMPLES = 2000
SEED = 7
"""Fixed, so that the same figures give the same interval."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """What became of one figure beside another, round by round.

    Attributes:
        median: over the rounds.
        low: the lower end of the 95 % interval of the median, by bootstrap, and
        high: the upper one.
        rounds: how many there were.
    """

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Ratio:
        """The ratio of each round, summed up."""
        choose = random.Random(SEED)  # noqa: S311 - statistics, no secret
        medians = sorted(statistics.median(choose.choices(values, k=len(values))) for _ in range(RESAMPLES))
        low, high = (medians[round(share * (RESAMPLES - 1))] for share in (0.025, 0.975))
        return cls(statistics.median(values), low, high, len(values))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"
