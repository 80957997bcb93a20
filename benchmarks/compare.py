"""Two results beside each other: which figures differ by more than chance, and than machines do."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.figures import APART, times_as_slow
from benchmarks.interval import FEW, Interval
from benchmarks.layers.allocations import PEAK
from benchmarks.memory.run import RISING
from benchmarks.sheet import Sheet, number

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.figures import Figure, Results, Suite

NOISE = 0.1
"""What a figure may differ by from run to run though nothing was changed: the interval of a run's own rounds knows
nothing of how the machine was at another time."""
LEAST = {"us": 0.5, "ms": 0.5, "slope": 0.02, "MiB": 2.0, "bytes": 16.0, "blocks": 1.0, "calls": 0.5}
"""Differences below these are none, however large they are as shares."""
LEAST_RISE = 1.0
"""The same, of the bytes that a process grows by a request: a small leak is less than what a key's bytes differ by."""
METHOD = ("load", "server", "store", "packages", "cores")
"""What figures depend on beside the machine, as suites tell it of themselves."""
COUNTED = ("blocks", "calls", "instructions")
"""Units of what is all but the same each time, so that once is enough; the peak of bytes is, too."""
EXACT = 0.03
"""What such a figure may differ by, however often it was taken: a server's instructions do by a hundredth or two."""


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
        seen: the least share by which the second would have to be more, to be beyond; None where none would do.
    """

    name: str
    unit: str
    before: float
    after: float
    beyond: bool
    better: bool | None
    seen: float | None

    @property
    def change(self) -> float:
        """The share by which it differs."""
        return self.after / self.before - 1 if self.before else 0.0


def speed(before: Suite, after: Suite, unit: str = "us") -> Interval:
    """How many times as long the same piece of work took in the second results, as figures of this unit are taken."""
    first, second = before.yardstick, after.yardstick
    if first is None or second is None or unit not in ("us", "ms", "1/s"):
        return Interval(1.0, 1.0, 1.0, 1)
    one, two = (first.cpu, second.cpu) if unit == "us" else (first.wall, second.wall)
    return Interval(two.median / one.median, two.low / one.high, two.high / one.low, min(one.rounds, two.rounds))


def differences(before: Results, after: Results, noise: float = NOISE) -> Iterator[Difference]:
    """Every figure that both have.

    What is timed is divided by how much slower the second machine was while the same suite was measured: CPU time by
    CPU time, and what the clock on the wall tells by that; but for the part of it that only waits. A difference is
    beyond noise if the intervals of both medians, each made wider by half of the noise, have nothing in common; with
    fewer than `FEW` rounds, by three times that. What is counted has `EXACT` for its noise, or less. Of a figure that
    was timed once nothing is said.

    Args:
        before: the first results.
        after: the second.
        noise: the share that counts as none.
    """
    for suite, other in _shared(before, after):
        found = {figure.of: figure for figure in other.figures}
        for figure in suite.figures:
            beside = found.get(figure.of)
            if beside is not None and beside.unit == figure.unit:
                yield _difference(suite.name, figure, beside, speed(suite, other, figure.unit), noise)


def _shared(before: Results, after: Results) -> Iterator[tuple[Suite, Suite]]:
    for suite in before.suites:
        other = after.suite(suite.name)
        if other is not None:
            yield suite, other


def _wide(value: Interval, noise: float) -> tuple[float, float]:
    return value.low - abs(value.low) * noise / 2, value.high + abs(value.high) * noise / 2


def _counted(figure: Figure) -> bool:
    return figure.unit in COUNTED or figure.of[-1:] == (PEAK,)


def _least(figure: Figure) -> float:
    return LEAST_RISE if figure.of[-1:] == (RISING,) else LEAST.get(figure.unit, 0.0)


def _difference(suite: str, first: Figure, second: Figure, slower: Interval, noise: float) -> Difference:
    one, two = first.value, second.value
    least = min(one.rounds, two.rounds)
    noise = min(noise, EXACT) if _counted(first) else 3 * noise if least < FEW else noise
    low, high = _wide(one, noise)
    scaled = _scaled(two, slower, first.unit, max(first.waits, second.waits))
    other_low, other_high = _wide(scaled, noise)
    known = least > 1 or _counted(first)
    apart = (other_low > high or other_high < low) and abs(scaled.median - one.median) >= _least(first)
    apart = known and apart
    better = None if not apart else (scaled.median > one.median) == first.more
    measurable = known and one.median > 0 and other_low > 0
    seen = (high / one.median) * (scaled.median / other_low) - 1 if measurable else None
    return Difference(": ".join((suite, *first.of)), first.unit, one.median, scaled.median, apart, better, seen)


def _scaled(value: Interval, slower: Interval, unit: str, waits: float) -> Interval:
    """As the first machine would have found it; what is not known of the machines makes it less sure."""
    ends = [1 / slower.low, 1 / slower.high] if unit != "1/s" else [slower.low, slower.high]
    middle = 1 / slower.median if unit != "1/s" else slower.median
    corners = [end * (edge - waits) for end in ends for edge in (value.low, value.high)]
    return Interval(waits + (value.median - waits) * middle, waits + min(corners), waits + max(corners), value.rounds)


def sheet(found: Sequence[Difference], *, everything: bool = False) -> Sheet:
    """The differences as a table, those beyond noise only unless everything is asked for."""
    beyond = sorted((each for each in found if each.beyond), key=lambda each: -abs(each.change))
    rows = [
        [
            each.name, each.unit, number(each.before), number(each.after),
            f"{each.change:+.0%}" if each.before > 0 else "",  # a share of nothing, or of less, says nothing
            "" if each.better is None else "better" if each.better else "WORSE",
        ]
        for each in (found if everything else beyond)
    ]  # fmt: skip
    return Sheet("Differences", ("figure", "in"), ("before", "after", "by", ""), rows)


def notes(before: Results, after: Results, found: Sequence[Difference], noise: float = NOISE) -> list[str]:
    """What has to be known of the differences: what counts as one, what could be seen, and what may mislead."""
    beyond = sum(each.beyond for each in found)
    meant = (
        f"{noise:.0%} beside their intervals, {3 * noise:.0%} with fewer than {FEW} rounds, {min(noise, EXACT):.0%} of "
        "what is counted"
    )
    lines = [f"{beyond} of {len(found)} figures differ by more than noise ({meant})."]
    for suite, other in _shared(before, after):
        if suite.figures and other.figures:
            lines += [_seen(suite, other, found), *_otherwise(suite, other)]
    if alone := sum(len(suite.figures) for one in (before, after) for suite in one.suites) - 2 * len(found):
        lines.append(f"{alone} figures are in one of the files only.")
    if before.quick != after.quick:
        lines.append("One of the runs was a quick one, whose figures are less steady, and are of fewer rounds.")
    if before.machine.kind != after.machine.kind:
        lines.append("They are of different machines: that one piece of work is slower does not say that all are.")
    elif (times := times_as_slow([before, after])) > APART:
        lines.append(
            f"Where it was quietest, the machine was {times:.2f} times as slow for one of them as for the other: it "
            "may be another of the same name."
        )
    return lines


def _seen(suite: Suite, other: Suite, found: Sequence[Difference]) -> str:
    """How much slower the machine was in a suite, and what could be seen in it."""
    seen = [each.seen for each in found if each.name.startswith(f"{suite.name}: ") and each.seen is not None]
    unseen = f"for half of its figures, changes under {statistics.median(seen):.0%} would go unnoticed" if seen else ""
    slower = f"the same piece of work took {speed(suite, other).median:.2f} times as long, which is taken out"
    if suite.yardstick is None or other.yardstick is None:
        slower = "how fast the machine was is not known of both, so times are compared as they are"
    return f"{suite.name}: {slower}; {unseen or 'it was measured once'}."


def _otherwise(suite: Suite, other: Suite) -> Iterator[str]:
    """What a suite was measured with the second time that was not the same the first time."""
    for name in METHOD:
        first, second = (each.method.get(name, "not told") for each in (suite, other))
        if first != second:
            yield f"{suite.name}: {name}: before {first}; after {second}."
