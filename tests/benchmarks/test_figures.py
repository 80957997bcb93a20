"""What all suites share: intervals, the file of results, tables."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from benchmarks import figures, rounds
from benchmarks.figures import Figure, Results, Suite, UnreadableError, Yardstick
from benchmarks.interval import Interval
from benchmarks.sheet import Sheet, asked, number
from benchmarks.suites import KINDS

if TYPE_CHECKING:
    from benchmarks.suites import Kind

KEPT = Path(__file__).parents[2] / "docs" / "benchmarks.json"


@pytest.mark.parametrize(("count", "cut"), [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (20, 5), (100, 39), (4000, 1938)])
def test_intervals_leave_out_what_chance_allows(count: int, cut: int) -> None:
    """So many of the least and of the greatest lie outside as a fair coin would leave, 1 in 20 times at the most."""
    found = Interval.of([float(value) for value in range(count)])
    assert (found.low, found.high, found.rounds) == (cut, count - 1 - cut, count)
    if 6 <= count < 1000:
        outside = sum(math.comb(count, below) for below in range(cut + 1)) / 2**count
        assert outside <= 0.025 < outside + math.comb(count, cut + 1) / 2**count


def results() -> Results:
    suite = Suite(
        "auth",
        [
            Figure(("token", "ours", "RS256"), "us", Interval(60, 58, 63, 9), asked=50),
            Figure(("speed", "ours"), "1/s", Interval(60, 58, 63, 9), asked=50, more=True),
        ],
        {"collector": "off"},
        {"joserfc": "is not installed"},
        {"more": [1]},
        Yardstick(Interval.of([1.0, 2.0, 3.0]), Interval.of([4.0])),
    )
    return Results.of([suite], quick=True)


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    """The file has all of a run, with the schema's number and the machine."""
    written, path = results(), tmp_path / "results.json"
    path.write_bytes(written.json())
    assert figures.read(path) == written
    assert written.machine.cores > 0
    suite = written.suites[0]
    assert suite.find("token", "ours", "RS256") == Interval(60, 58, 63, 9)
    assert suite.find("token", "ours") is None
    assert suite.names(0) == ["token", "speed"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 1}', '{"schema": 5}', '{"schema": 5, "suites": [{}]}'])
def test_what_holds_no_results_is_refused(tmp_path: Path, text: str) -> None:
    """The error names the file."""
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(UnreadableError, match=r"results\.json"):
        figures.read(path)


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ('"median":60', '"median":"x"'),
        ('"low":58', '"low":null'),
        ('"rounds":9', '"rounds":true'),
        ('"of":["speed","ours"]', '"of":"speed"'),
        ('"unit":"us"', '"unit":"hours"'),
        ('"collector":"off"', '"collector":7'),
        ('"yardstick":{"cpu":', '"yardstick":{"gpu":'),
        ('"quick":true', '"quick":"no"'),
    ],
)
def test_what_is_of_another_type_is_refused(tmp_path: Path, here: str, there: str) -> None:
    """What is no number where one is expected is told while reading, by its place, and not while comparing."""
    path = tmp_path / "results.json"
    text = results().json(short=True).decode().replace("60.0", "60")
    assert here in text
    path.write_text(text)
    figures.read(path)
    path.write_text(text.replace(here, there))
    with pytest.raises(UnreadableError, match=r"results\.json does not hold what results have: \w+.*: (Input|Field)"):
        figures.read(path)


def test_a_file_of_before_a_figure_told_what_it_waits_is_read(tmp_path: Path) -> None:
    """What it does not tell is none."""
    path = tmp_path / "results.json"
    path.write_text(results().json(short=True).decode().replace(',"waits":0.0', ""))
    assert "waits" not in path.read_text()
    assert figures.read(path).suites[0].figures[0].waits == 0


def test_what_is_asked_is_told() -> None:
    """A time is to be at most, a speed at least, what is asked of it."""
    sheet = asked(results().suites[0].figures)
    assert sheet is not None
    assert [row[-1] for row in sheet.rows] == ["NOT reached", "reached"]
    assert asked([]) is None


def test_what_chance_may_decide_is_undecided() -> None:
    """An interval that holds what is asked decides nothing; few rounds decide where all are well on one side of it."""
    near = Figure(("a",), "x", Interval(0.91, 0.85, 0.93, 9), asked=0.9, more=True)
    once = Figure(("b",), "x", Interval.of([0.91]), asked=0.9, more=True)
    well = Figure(("c",), "x", Interval.of([0.95, 0.96, 0.97]), asked=0.9, more=True)
    sheet = asked([near, once, well])
    assert sheet is not None
    assert [row[1:] for row in sheet.rows] == [
        ["0.91 (0.85 to 0.93) x", ">= 0.90", "undecided"],
        ["0.91 x", ">= 0.90", "undecided"],
        ["0.96 (0.95 to 0.97) x", ">= 0.90", "reached"],
    ]
    few, more = sheet.caption.split("; of more, ")
    assert (few, more) == ("Interval: the least and the greatest of 3 rounds", "the 95 % interval of the median.")


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([10.6], "NOT reached"),
        ([10.4], "undecided"),
        ([9.6], "undecided"),
        ([9.4], "reached"),
        ([9.0, 9.1, 9.6], "undecided"),
        ([9.0, 9.1, 9.4], "reached"),
        ([10.4, 12, 13], "undecided"),
        ([9.9] * 6, "reached"),
    ],
)
def test_few_rounds_decide_little(values: list[float], verdict: str) -> None:
    """Fewer than six have to be all on one side, and five hundredths beyond; with six there is an interval."""
    assert Figure(("a",), "us", Interval.of(values), asked=10).verdict == verdict


def retaken(suite: Suite, rounds: int) -> Suite:
    """The same, as if every figure had been taken in so many rounds."""
    return replace(suite, figures=[replace(each, value=replace(each.value, rounds=rounds)) for each in suite.figures])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_few_rounds_are_told_for_what_they_are(kind: Kind) -> None:
    """A table with intervals of three rounds says that they are least and greatest; one round has no interval."""
    suite = figures.read(KEPT).suite(kind.name)
    assert suite is not None
    for sheet in kind.sheets(retaken(suite, 3)):
        cells = " ".join(cell for row in sheet.rows for cell in row)
        if re.search(r"\d to -?\d", cells):
            assert "least" in sheet.caption, sheet.title
            assert "the 95 %" not in sheet.caption
    for sheet in kind.sheets(retaken(suite, 1)):
        assert not re.search(r"\d to -?\d", " ".join(cell for row in sheet.rows for cell in row))


def test_tables_in_pages() -> None:
    """A page's table has its title, its caption, a bold row, and no cell that would break it."""
    sheet = Sheet("Times", ("who",), ("us",), [["ours", "1"], ["a|b", "2"]], "in microseconds", frozenset({"ours"}))
    assert sheet.markdown().splitlines() == [
        "**Times**", "", "| who | us |", "| --- | ---: |", "| **ours** | **1** |",
        "| a\\|b | 2 |", "", "in microseconds",
    ]  # fmt: skip


def printed(sheet: Sheet, width: int) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(sheet.rich())
    return stream.getvalue()


@pytest.mark.parametrize("width", [30, 50, 80, 100, 140])
def test_tables_lose_nothing_in_a_narrow_terminal(width: int) -> None:
    """Whatever is published stands in a table of any width: no name is cut off, and no figure ends in dots."""
    results = figures.read(KEPT)
    for sheet in (sheet for kind in KINDS if (suite := results.suite(kind.name)) for sheet in kind.sheets(suite)):
        text = printed(sheet, width)
        assert "\N{HORIZONTAL ELLIPSIS}" not in text
        assert max(map(len, text.splitlines())) <= width
        words = text.split()
        for cell in (*sheet.left, *sheet.right, *(cell for row in sheet.rows for cell in row)):
            assert {word.rstrip(":;") for word in cell.split()} <= {word.rstrip(":;") for word in words}, sheet.title


def test_a_table_without_room_is_a_list() -> None:
    """A wide terminal has the table, a narrower one its headings in two lines, and a narrow one a list of rows."""
    sheet = Sheet("Times", ("who",), ("CPU us", "p99 ms"), [["the app", "12,345", ""], ["ours", "1", "2"]])
    assert "│ the app │ 12,345 │        │" in printed(sheet, 80)
    assert "│ the app │ 12,345 │     │" in printed(sheet, 26)
    assert [line.rstrip() for line in printed(sheet, 24).splitlines()] == [
        "Times", "who: the app", "  CPU us: 12,345", "who: ours", "  CPU us: 1; p99 ms: 2",
    ]  # fmt: skip


@pytest.mark.parametrize(("value", "text"), [(0.014, "0.014"), (12.34, "12.3"), (123.4, "123"), (-1234.5, "-1,234")])
def test_numbers(value: float, text: str) -> None:
    """Three figures or so."""
    assert number(value) == text


async def test_rounds_are_interleaved() -> None:
    """Everyone has a turn in every round, three at the least, in orders that differ, and in the same ones each time."""
    order: list[str] = []

    async def turn(name: str) -> float:
        order.append(name)
        return len(order)

    passed: list[float] = []
    found = await rounds.interleave({name: lambda name=name: turn(name) for name in "abc"}, 0, passed.append)  # type: ignore[misc]
    turns = ["".join(order[at : at + 3]) for at in (0, 3, 6)]
    assert [sorted(each) for each in turns] == [["a", "b", "c"]] * 3
    assert len(set(turns)) > 1
    assert found == {name: [at + 1 for at in range(9) if order[at] == name] for name in "abc"}
    assert len(passed) == 3
    first, order = order, []
    await rounds.interleave({name: lambda name=name: turn(name) for name in "abc"}, 0, passed.append)  # type: ignore[misc]
    assert order == first
