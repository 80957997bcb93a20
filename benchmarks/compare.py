"""Two results beside each other: which figures differ by more than chance, and than machines do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.sheet import Sheet, number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.figures import Figure, Results

NOISE = 0.1
"""What a figure may differ by from run to run though nothing was changed: the interval of a run's own rounds knows
nothing of how the machine was at another time."""
FEW = 6
"""Rounds below which an interval is but the least and the greatest figure: three times the noise counts as none."""
LEAST = {"us": 0.5, "ms": 0.5, "slope": 0.02, "MiB": 2.0, "bytes": 16.0, "blocks": 1.0, "calls": 0.5}
"""Differences below these are none, however large they are as shares."""
TIMES = ("us", "ms")


@dataclass(frozen=True, slots=True)
class Difference:
    """How one figure differs.

    Attributes:
        name: suite and figure.
        unit: of both.
        before: the median in the first results, and
        after: in the second, a time as the first machine would have taken it.
        beyond: whether it is more than noise.
        better: whether the second is better; None where it is the same, or where nobody can say.
    """

    name: str
    unit: str
    before: float
    after: float
    beyond: bool
    better: bool | None

    @property
    def change(self) -> float:
        """The share by which it differs."""
        return self.after / self.before - 1 if self.before else 0.0


def speed(before: Results, after: Results) -> float:
    """How many times as long the same piece of work took in the second results."""
    return after.yardstick.median / before.yardstick.median


def differences(before: Results, after: Results, noise: float = NOISE) -> Iterator[Difference]:
    """Every figure that both have.

    Times are divided by how much slower the second machine was. A difference is beyond noise if the intervals of both
    medians, each made wider by half of the noise, have nothing in common; with few rounds, by three times that.

    Args:
        before: the first results.
        after: the second.
        noise: the share that counts as none.
    """
    slower = speed(before, after)
    for suite in before.suites:
        other = after.suite(suite.name)
        found = {} if other is None else {figure.of: figure for figure in other.figures}
        for figure in suite.figures:
            beside = found.get(figure.of)
            if beside is not None and beside.unit == figure.unit:
                yield _difference(suite.name, figure, beside, _scale(figure.unit, slower), noise)


def _scale(unit: str, slower: float) -> float:
    return 1 / slower if unit in TIMES else slower if unit == "1/s" else 1.0


def _difference(suite: str, first: Figure, second: Figure, scale: float, noise: float) -> Difference:
    one, two = first.value, second.value
    half = noise / 2 * (3 if min(one.rounds, two.rounds) < FEW else 1)
    wide = [(value.low - abs(value.low) * half, value.high + abs(value.high) * half) for value in (one, two)]
    (low, high), (other_low, other_high) = wide[0], (wide[1][0] * scale, wide[1][1] * scale)
    after = two.median * scale
    apart = (other_low > high or other_high < low) and abs(after - one.median) >= LEAST.get(first.unit, 0.0)
    better = None if not apart else (after > one.median) == first.more
    return Difference(": ".join((suite, *first.of)), first.unit, one.median, after, apart, better)


def sheet(before: Results, after: Results, noise: float = NOISE, *, everything: bool = False) -> Sheet:
    """The differences as a table, those beyond noise only unless everything is asked for."""
    found = list(differences(before, after, noise))
    beyond = [each for each in found if each.beyond]
    rows = [
        [
            each.name, each.unit, number(each.before), number(each.after), f"{each.change:+.0%}",
            "" if each.better is None else "better" if each.better else "WORSE",
        ]
        for each in (found if everything else sorted(beyond, key=lambda each: -abs(each.change)))
    ]  # fmt: skip
    caption = (
        f"{len(beyond)} of {len(found)} figures differ by more than noise ({noise:.0%} beside their intervals, "
        f"{3 * noise:.0%} with fewer than {FEW} rounds). The "
        f"second machine took {speed(before, after):.2f} times as long for the same piece of work, which times are "
        "corrected for."
    )
    return Sheet("Differences", ("figure", "in"), ("before", "after", "by", ""), rows, caption)
