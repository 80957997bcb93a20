"""Comparing two results tells what differs by more than noise, whichever machine was slower."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from benchmarks import compare
from benchmarks.__main__ import main
from benchmarks.figures import Figure, Results, Suite
from benchmarks.interval import Interval

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.figures import Unit


def results(median: float, yard: float = 10.0, unit: Unit = "us", *, more: bool = False, wide: float = 0.02) -> Results:
    value = Interval(median, median * (1 - wide), median * (1 + wide), 9)
    suite = Suite("layers", [Figure(("raw", "Guard"), unit, value, more=more)])
    return Results.of([suite], [yard] * 9, quick=True)


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
    ],
)
def test_differences(before: Results, after: Results, beyond: bool, better: bool | None) -> None:
    """A figure differs if its intervals do by more than noise, a time after the machine's own speed is taken out."""
    (found,) = compare.differences(before, after)
    assert (found.beyond, found.better) == (beyond, better)


def test_what_one_alone_has_is_passed_over() -> None:
    """Figures are compared by their names and units."""
    other = Results.of([Suite("layers", [Figure(("raw", "Host"), "us", Interval.of([1.0]))])], [1.0], quick=True)
    assert list(compare.differences(results(1), other)) == []
    assert list(compare.differences(results(1), Results.of([], [1.0], quick=True))) == []
    assert list(compare.differences(results(1), results(1, unit="ms"))) == []


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
    ran = CliRunner().invoke(main, ["compare", str(before), str(other)])
    assert ran.exit_code == 1
    assert "schema 1" in ran.output
