"""Comparing two results tells what differs by more than noise, whichever machine was slower."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from benchmarks import compare
from benchmarks.__main__ import main
from benchmarks.figures import Figure, Results, Suite, Yardstick
from benchmarks.interval import Interval
from benchmarks.layers.allocations import PEAK
from benchmarks.memory.run import RISING

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.figures import Unit


def results(
    median: float,
    yard: float = 10.0,
    unit: Unit = "us",
    *,
    more: bool = False,
    wide: float = 0.02,
    rounds: int = 9,
    loose: float = 0.0,
    waits: float = 0.0,
    what: str = "Guard",
) -> Results:
    """One figure, with an interval so wide; the yardstick is the same by both clocks, and by that of the wall loose."""
    value = Interval(median, median * (1 - wide), median * (1 + wide), rounds)
    yardstick = Yardstick(Interval(yard, yard, yard, 9), Interval(yard, yard * (1 - loose), yard * (1 + loose), 9))
    suite = Suite("layers", [Figure(("raw", what), unit, value, more=more, waits=waits)], yardstick=yardstick)
    return Results.of([suite], quick=True)


@pytest.mark.parametrize(
    ("before", "after", "beyond", "better"),
    [
        (results(20), results(21), False, None),
        (results(20), results(25), True, False),
        (results(20), results(16), True, True),
        (results(20, wide=0.2), results(25), False, None),
        (results(0.2), results(0.4), False, None),
        (results(20), results(40, yard=20), False, None),
        (results(20), results(20, yard=20), True, True),
        (results(20, unit="1/s", more=True), results(10, yard=20, unit="1/s", more=True), False, None),
        (results(20, unit="1/s", more=True), results(10, unit="1/s", more=True), True, False),
        (results(0.8, unit="x", more=True), results(0.8, yard=20, unit="x", more=True), False, None),
        (results(0.8, unit="x", more=True), results(0.6, unit="x", more=True), True, False),
        (results(-0.01, unit="slope"), results(0.2, unit="slope"), True, False),
        (results(20, rounds=5), results(25), False, None),
        (results(20, rounds=5), results(30), True, False),
        (results(20, rounds=1), results(90), False, None),
        (results(20, rounds=1, unit="blocks"), results(90, rounds=1, unit="blocks"), True, False),
        (
            results(403_157, rounds=1, unit="instructions", wide=0),
            results(524_000, rounds=1, unit="instructions", wide=0),
            True,
            False,
        ),
        (
            results(403_157, rounds=1, unit="instructions", wide=0),
            results(407_000, rounds=1, unit="instructions", wide=0),
            False,
            None,
        ),
        (
            results(11_068, rounds=1, unit="bytes", wide=0, what=PEAK),
            results(12_000, rounds=1, unit="bytes", wide=0, what=PEAK),
            True,
            False,
        ),
        (results(158, rounds=1, unit="bytes"), results(316, rounds=1, unit="bytes"), False, None),
        (results(40, unit="bytes"), results(54, unit="bytes"), False, None),
        (results(0, unit="bytes", what=RISING), results(14, unit="bytes", what=RISING), True, False),
        (results(0, unit="bytes", what=RISING), results(0.9, unit="bytes", what=RISING), False, None),
        (results(80, unit="ms", waits=50), results(110, yard=20, unit="ms", waits=50), False, None),
        (results(80, unit="ms"), results(110, yard=20, unit="ms", waits=50), False, None),
        (results(80, unit="ms", waits=50), results(80, yard=20, unit="ms", waits=50), True, True),
        (results(80, unit="ms", waits=50), results(110, unit="ms", waits=50), True, False),
        (results(20, unit="ms", loose=0.2), results(25, unit="ms", loose=0.2), False, None),
        (results(20, loose=0.2), results(25, loose=0.2), True, False),
    ],
)
def test_differences(before: Results, after: Results, beyond: bool, better: bool | None) -> None:
    """A figure differs if its intervals do by more than noise, a time after the machine's own speed is taken out.

    What is counted differs by less, and the part of a time that is a wait is no machine's.
    """
    (found,) = compare.differences(before, after)
    assert (found.beyond, found.better) == (beyond, better)


def test_what_one_alone_has_is_passed_over() -> None:
    """Figures are compared by their names and units."""
    other = Results.of([Suite("layers", [Figure(("raw", "Host"), "us", Interval.of([1.0]))])], quick=True)
    assert list(compare.differences(results(1), other)) == []
    assert list(compare.differences(results(1), Results.of([], quick=True))) == []
    assert list(compare.differences(results(1), results(1, unit="ms"))) == []


def test_of_what_was_nothing_no_share_is_told() -> None:
    """A rise from nothing, or from less, is in the table as two figures; one from something has its share too."""
    for before, by in ((0, ""), (-0.2, ""), (7, "+100%")):
        first, second = (results(each, unit="bytes", what=RISING) for each in (before, 14))
        found = list(compare.differences(first, second))
        assert [row[-2:] for row in compare.sheet(found).rows] == [[by, "WORSE"]]


def notes(before: Results, after: Results) -> str:
    return "\n".join(compare.notes(before, after, list(compare.differences(before, after))))


def test_what_may_mislead_is_said() -> None:
    """Beside the differences stand what is in one of the files only, and that pace and machine are not the same."""
    before, after = results(20), results(20)
    alone = Figure(("raw", "Host"), "us", Interval.of([1.0]))
    suites = [replace(after.suites[0], figures=[*after.suites[0].figures, alone])]
    after = replace(after, quick=False, machine=replace(after.machine, cpu="another"), suites=suites)
    said = notes(before, after)
    assert "1 figures are in one of the files only." in said
    assert "One of the runs was a quick one" in said
    assert "They are of different machines" in said
    assert "10% beside their intervals, 30% with fewer than 6 rounds, 3% of what is counted" in said
    assert "as slow" not in said
    said = notes(results(20), results(50, yard=25.0))
    assert "Where it was quietest, the machine was 2.50 times as slow for one of them as for the other" in said
    assert "as slow" not in notes(results(20), results(20, yard=19.9))
    said = notes(before, before)
    assert "One of the runs" not in said
    assert said.endswith(
        "took 1.00 times as long, which is taken out; for half of its figures, changes under 15% would go unnoticed."
    )


def test_what_was_not_measured_is_not_spoken_of() -> None:
    """A suite without figures on one side has no line; where no yardstick was taken, none is told of."""
    empty = Results.of([Suite("layers", [], skipped={"layers": "why"}), *results(20).suites[1:]], quick=True)
    for before, after in ((empty, results(20)), (results(20), empty), (empty, empty)):
        assert "layers" not in notes(before, after)
    before = results(20)
    bare = replace(before, suites=[replace(before.suites[0], yardstick=None)])
    for one, other in ((before, bare), (bare, before)):
        said = notes(one, other)
        assert "layers: how fast the machine was is not known of both, so times are compared as they are; " in said
        assert "which is taken out" not in said


def test_what_was_measured_otherwise_is_said() -> None:
    """Another load, server, store, package or core has a line; what is the same, or is of the figures, has none."""
    before = results(20)
    (suite,) = before.suites
    method = {"load": "wrk", "cores": "pinned to core 1", "packages": "limits 5.8.0", "taken": "then", "rounds": "9"}
    other = {**method, "load": "oha", "packages": "limits 6", "taken": "now", "rounds": "8", "store": "x"}
    found = [replace(before, suites=[replace(suite, method=each)]) for each in (method, other)]
    lines = [line for line in notes(*found).splitlines() if "; after" in line]
    assert lines == [
        "layers: load: before wrk; after oha.",
        "layers: store: before not told; after x.",
        "layers: packages: before limits 5.8.0; after limits 6.",
    ]
    assert "; after" not in notes(found[0], found[0])


def test_a_change_that_is_seen_is_told_from_how_large_it_would_be() -> None:
    """What a figure has to change by to be seen is what it is: a little less is not seen, and a little more is."""
    (least,) = [each.seen for each in compare.differences(results(20), results(20))]
    assert least is not None
    for factor, beyond in ((1 + least * 0.98, False), (1 + least * 1.02, True)):
        (found,) = compare.differences(results(20), results(20 * factor))
        assert found.beyond == beyond


def test_command(tmp_path: Path) -> None:
    """It prints what differs, everything if asked, and says of a file that it cannot read why."""
    before, after, other = (tmp_path / name for name in ("before.json", "after.json", "other.json"))
    before.write_bytes(results(20).json())
    after.write_bytes(results(30).json())
    other.write_text('{"schema": 1}')

    ran = CliRunner().invoke(main, ["compare", str(before), str(after)])
    assert ran.exit_code == 0, ran.output
    assert "layers: raw: Guard" in ran.output
    assert "+50%" in ran.output
    assert "WORSE" in ran.output
    ran = CliRunner().invoke(main, ["compare", str(before), str(after), "--noise", "1"])
    assert "layers: raw: Guard" not in ran.output
    assert "0 of 1 figures differ" in ran.output
    ran = CliRunner().invoke(main, ["compare", str(before), str(after), "--noise", "1", "--all"])
    assert "layers: raw: Guard" in ran.output
    ran = CliRunner().invoke(main, ["compare", str(before), str(after), "--noise", "-1"])
    assert ran.exit_code == 2
    after.write_bytes(Results.of([Suite("auth", [])], quick=True).json())
    ran = CliRunner().invoke(main, ["compare", str(before), str(after)])
    assert ran.exit_code == 1
    assert "no figure in common" in ran.output
    ran = CliRunner().invoke(main, ["compare", str(before), str(other)])
    assert ran.exit_code == 1
    assert "schema 1" in ran.output
