"""Results become tables in pages, and pictures where matplotlib is."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import combinations
from operator import mul
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from benchmarks import pages, suites
from benchmarks.__main__ import main
from benchmarks.figures import Figure, Results, Suite, UnreadableError, Yardstick, hastened, merged, read
from benchmarks.interval import Interval
from benchmarks.layers.run import ADDS, QUANTILES, STACK
from benchmarks.limits import suite as limits
from benchmarks.limits.suite import CPU as CHECK_CPU
from benchmarks.limits.suite import P50 as CHECK_P50
from benchmarks.limits.suite import P99 as CHECK_P99
from benchmarks.limits.suite import RATE as CHECKS
from benchmarks.limits.throughput import ONE
from benchmarks.memory.run import AT_FIRST, GROWN, LAST, RISING, STRANGERS, WARM
from benchmarks.plots import layers, style
from benchmarks.plots.draw import PICTURES
from benchmarks.scale.run import SLOPE
from benchmarks.server import tables

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]


def figure(*of: str, unit: Any = "us", value: float = 10.0, **options: Any) -> Figure:
    return Figure(of, unit, Interval(value, value * 0.9, value * 1.1, 9), **options)


def results() -> Results:
    """A little of every suite that has a picture."""
    names = ("the app alone", "(a layer that does nothing)", "the whole Guard")
    stacked = [("(a layer that does nothing)", 4.0), ("Health", 6.0), ("Host", 5.5)]
    found = [
        Suite(
            "server",
            [
                figure("FastAPI", stack, what, value=value)
                for stack in tables.NAMES
                for what, value in ((tables.CPU, 100.0), (tables.RATIO, 0.5), (tables.RATE, 8000.0))
                if (stack, what) != ("bare", tables.RATIO)
            ],
            {"load": "wrk, 32 connections", "taken": "today"},
        ),
        Suite(
            "layers",
            [
                *(figure("raw", name, ADDS, value=4.5) for name in names[1:]),
                *(figure(STACK, name, ADDS, value=value) for name, value in stacked),
            ],
            {"taken": "yesterday"},
            details={"quantiles": QUANTILES, "distribution": {name: [5.0] * len(QUANTILES) for name in names}},
        ),
        Suite(
            "limits",
            [
                figure(ONE, tasks, "asgi-guard", what)
                for tasks in ("1", "64")
                for what in (CHECKS, CHECK_P50, CHECK_P99, CHECK_CPU)
            ],
            {"server": "Valkey"},
        ),
        Suite(
            "scale",
            [figure("origins", "1"), figure("origins", "1,000"), figure(SLOPE, "origins", "1 / 1,000", unit="slope")],
        ),
        Suite(
            "memory",
            [figure(STRANGERS, name, unit="MiB") for name in (AT_FIRST, WARM, LAST, GROWN, RISING)],
            {"strangers": "100 requests"},
            details={"strangers": [{"requests": 0, "resident": 1e8}, {"requests": 10, "resident": 2e8}]},
        ),
    ]
    return Results.of(found, quick=False)


def test_a_region_is_filled_and_all_else_stays() -> None:
    """What was measured is put between the marks, again and again the same; what was not stays."""
    page = "before\n<!-- figures: layers -->\nold\n<!-- end -->\n<!-- figures: auth -->\nkept\n<!-- end -->\nafter\n"
    once = pages.filled(page, results())
    assert once.startswith("before\n<!-- figures: layers -->\n\n**What a layer adds to a request to a raw ASGI app**\n")
    assert once.endswith("<!-- end -->\n<!-- figures: auth -->\nkept\n<!-- end -->\nafter\n")
    assert "old" not in once
    assert "| **the whole Guard** |" in once
    assert pages.filled(once, results()) == once


def test_the_pages_have_a_place_for_every_suite() -> None:
    """The page of benchmarks has one region a suite, the README a summary, and every picture that is shown is drawn."""
    page, readme = ((ROOT / name).read_text("utf-8") for name in ("docs/benchmarks.md", "README.md"))
    regions = re.findall(r"<!-- figures: (\w+) -->", page)
    assert sorted(regions) == sorted([*(kind.name for kind in suites.KINDS), "asked", "headers", "machine"])
    assert re.findall(r"<!-- figures: (\w+) -->", readme) == ["summary", "faults"]
    shown = {*re.findall(r"plots/(\w+)\.svg", page), *re.findall(r"plots/(\w+)\.svg", readme)}
    assert shown == set(PICTURES)
    for name in shown:
        assert (ROOT / "docs" / "plots" / f"{name}.svg").exists()


def test_the_summary() -> None:
    """It has each stack's ratio, and what the guard adds in process."""
    text = pages.filled("<!-- figures: summary -->\n<!-- end -->\n", results())
    assert "| FastAPI | 100 / 100 | 0.50 | 0.50 | 0.50 | 0.50 |" in text
    assert "\n\nTaken today.\n\nIn process" in text
    assert "4.50 to a raw ASGI app. Taken yesterday." in text


@pytest.mark.parametrize("name", pages.PAGES)
def test_the_pages_are_of_the_figures_that_are_kept(name: str) -> None:
    """What stands between the marks is what the kept figures give, by the code as it is."""
    page = (ROOT / name).read_text("utf-8")
    assert pages.filled(page, read(ROOT / pages.KEPT)) == page


def test_what_becomes_of_checks_while_redis_is_not_well() -> None:
    """It is told of each kind of outage, first the one that lasts, and of flushes, for whom there are figures."""
    found = [
        figure(limits.OUTAGE, "refuses connections", "asgi-guard", unit="ms", value=0.5),
        figure(limits.OUTAGE, "never answers", "asgi-guard", unit="ms", value=50.0),
        figure(limits.LATER, "never answers", "asgi-guard", unit="ms", value=0.012),
        figure(limits.OUTAGE, "never answers", "throttled-py", unit="ms", value=5000.0),
    ]
    flushed = figure(limits.FLUSHED, "limits, fixed window", unit="x", value=0.01)
    page = "<!-- figures: faults -->\n<!-- end -->\n"
    results = Results.of([Suite("limits", found, {"taken": "today"})], quick=False)
    rows = [line for line in pages.filled(page, results).splitlines() if line.startswith("| Redis")]
    assert rows == [
        "| Redis never answers: a check waits, ms | 50.0, then 0.012 |  | 5,000 |",
        "| Redis refuses connections: a check waits, ms | 0.50 |  |  |",
    ]
    assert "scripts" not in pages.filled(page, results)
    results.suites[0].figures.append(flushed)
    assert "every 20 ms: checks that fail |  | 1.0% (0.9% to 1.1%) |  |\n" in pages.filled(page, results)
    assert pages.filled(page, Results.of([Suite("limits", [])], quick=False)) == page


def test_what_the_readme_says_of_faults_follows_from_the_figures() -> None:
    """In each kept run: who waits for how long while Redis hangs, and whose checks fail when scripts are flushed."""
    suite = read(ROOT / pages.KEPT).suite("limits")
    assert suite is not None
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "| Redis hangs | 50 ms, then hardly anything; as each limit says | an error when the Redis client" in readme
    assert "once that is known less than a tenth of a millisecond" in " ".join(readme.split())
    assert "| scripts flushed under load | no check fails | some may fail, with limits and throttled-py |" in readme

    def found(*of: str) -> float:
        value = suite.find(*of)
        assert value is not None
        return value.high if of[0] == limits.FLUSHED else value.median

    kind, others = "never answers", ("limits, fixed window", "throttled-py")
    assert found(limits.OUTAGE, kind, "asgi-guard") < 100
    assert found(limits.LATER, kind, "asgi-guard") < 0.1
    assert all(found(limits.OUTAGE, kind, other) > 1000 for other in others)
    assert found(limits.FLUSHED, "asgi-guard") == 0
    assert max(found(limits.FLUSHED, other) for other in others) > 0


def test_what_the_page_says_of_its_figures_follows_from_them() -> None:
    """Which of what is asked is not reached, what a server makes of layers, and how wide intervals of ratios are."""
    kept = read(ROOT / pages.KEPT)
    page = " ".join((ROOT / "docs" / "benchmarks.md").read_text("utf-8").split())
    first = [(suite.name, figure.verdict) for suite in kept.suites for figure in suite.figures if figure.verdict]
    assert "Why the first three are not: a server checks" in page
    assert "The fourth is taken in process" in page
    assert first[:4] == [(name, "NOT reached") for name in ("server", "server", "server", "layers")]

    server, inside = kept.suite("server"), kept.suite("layers")
    assert server is not None
    assert inside is not None
    bare, guarded = (server.find("raw ASGI app, embedded store", of, tables.CPU) for of in ("bare", "guard"))
    alone = inside.find("raw", "the whole Guard", ADDS)
    assert bare is not None
    assert guarded is not None
    assert alone is not None
    assert "in a server the same layers cost up to two and a half times as much" in page
    assert 2 < (guarded.median - bare.median) / alone.median < 2.6

    wide = [each.value.high - each.value.low for each in server.figures if each.of[-1] == tables.RATIO]
    assert "intervals of a few hundredths, and where others are busy of up to a fifth" in page
    assert 0.02 < max(wide) < 1 / 5 + 0.01


def test_what_is_not_reached_is_said() -> None:
    """Whatever is asked of any suite stands in one table, and how much of it is not reached below."""
    page = "<!-- figures: asked -->\n<!-- end -->\n"
    found = results()
    assert pages.filled(page, found) == page
    found.suites[0].figures.append(figure("FastAPI", "guard", "more", unit="x", asked=0.9, more=True, value=0.5))
    text = pages.filled(page, found)
    assert "| server: FastAPI: guard: more | 0.50 (0.45 to 0.55) x | >= 0.90 | NOT reached |" in text
    assert "Of 1 figures that are asked, 1 are not reached, and 0 undecided" in text


def test_what_headers_alone_reach_is_told_from_the_figures() -> None:
    """The page says of each app how near they come: in time beside what is asked, what is left, and in instructions."""
    page = "<!-- figures: headers -->\n<!-- end -->\n"
    found = results()
    assert pages.filled(page, found) == page
    found.suites[0].figures.append(figure("FastAPI", "guard", "more", unit="x", asked=0.9, more=True))
    found.suites.append(Suite("counted", [figure("raw ASGI app", "headers", tables.RATIO, unit="x", value=0.55)]))
    text = pages.filled(page, found)
    assert (
        "- FastAPI: 0.50 (0.45 to 0.55) of the CPU time, where 0.90 is asked of the guard: by the medians 100 µs, "
        "where the guard may take 111, so 11.1 µs are left for all else\n"
    ) in text
    assert "- raw ASGI app: 0.550 of the instructions" in text
    found.suites[0].figures[-1] = figure("FastAPI", "guard", "more", unit="x", asked=0.5, more=True)
    assert "may take 200, so 100 µs are left for all else; its interval holds what is asked\n" in pages.filled(
        page, found
    )
    found.suites[0].figures[-1] = figure("FastAPI", "guard", "more", unit="x", asked=1.25, more=True)
    assert "may take 80.0, so 20.0 µs too many without all else\n" in pages.filled(page, found)


def test_several_results_are_merged() -> None:
    """Of a suite that is in several, the last that has figures counts."""
    first, second = results(), Results.of([Suite("auth", []), Suite("scale", [])], quick=True)
    found = merged([first, second])
    assert {suite.name for suite in found.suites} == {"auth", *(suite.name for suite in first.suites)}
    assert found.suite("scale") == first.suite("scale")
    assert merged([second, first]).suite("scale") == first.suite("scale")
    others: list[dict[str, Any]] = [{"cpu": "another"}, {"system": "Linux 7"}, {"python": "CPython 4"}]
    for other in others:
        elsewhere = replace(second, machine=replace(second.machine, **other))
        with pytest.raises(UnreadableError, match="different machines"):
            merged([first, elsewhere])


def run(name: str, *, quick: bool) -> Results:
    return Results.of([Suite(name, [figure("x")], {"taken": "today"})], quick=quick)


def test_a_quick_run_is_told_as_long_as_a_suite_is_of_it() -> None:
    """What has no figures, or is measured again in full, makes nothing quick; what is of a quick run does, by name."""
    full, empty = run("auth", quick=False), Results.of([Suite("auth", []), Suite("scale", [])], quick=True)
    assert not merged([full, empty]).quick
    mixed = merged([full, run("scale", quick=False), run("auth", quick=True)])
    assert mixed.quick
    page = "<!-- figures: machine -->\n<!-- end -->\n"
    assert "Of a quick run, so less steady: auth.\n" in pages.filled(page, mixed)
    again = merged([mixed, run("auth", quick=False)])
    assert not again.quick
    assert "quick run" not in pages.filled(page, again)
    older = replace(mixed, suites=[replace(suite, quick=None) for suite in mixed.suites])
    assert older.hurried() == ["auth", "scale"]
    assert hastened([full, run("auth", quick=True), run("scale", quick=True)]) == ["auth"]
    assert hastened([run("auth", quick=True), full]) == hastened([full, empty]) == []


def test_a_quick_run_in_the_place_of_a_full_one_is_told(tmp_path: Path) -> None:
    """The command that puts figures into pages says of which suite it does, and of no other."""
    (tmp_path / "docs").mkdir()
    for name in pages.PAGES:
        (tmp_path / name).write_text("")
    kept, path = tmp_path / pages.KEPT, tmp_path / "new.json"
    kept.write_bytes(run("auth", quick=False).json())
    for found, said in ((run("scale", quick=True), ""), (run("auth", quick=True), "auth: a quick run takes")):
        path.write_bytes(found.json())
        ran = CliRunner().invoke(main, ["pages", str(path), "--root", str(tmp_path)])
        assert ("takes the place" in ran.output) == bool(said)
        assert said in ran.output
    assert read(kept).quick


def timed(name: str, *yards: float, of: Sequence[Figure] = (figure("x"),)) -> Suite:
    """A suite, and what the yardstick took meanwhile."""
    return Suite(name, list(of), {"taken": "today"}, yardstick=Yardstick(Interval.of(yards), Interval.of([1.0])))


def test_machines_that_are_called_the_same_are_told_apart_by_their_speed() -> None:
    """The yardstick of each file is compared where it was least, of suites with figures; busy moments do not matter."""
    kept = Results.of([timed("auth", 29.0, 27.0, 28.0), timed("memory", 17.0, 16.0, 18.0)], quick=False)
    for alike in (
        Results.of([timed("limits", 31.9, 32.1, 32.0)], quick=False),
        Results.of([timed("limits", 40.0, 50.0), timed("scale", 16.0)], quick=False),
        Results.of([Suite("limits", [figure("x")])], quick=False),
        Results.of([timed("limits", 40.0, of=())], quick=False),
    ):
        assert len(merged([kept, alike]).suites) >= 3
    slow = Results.of([timed("limits", 40.0, 41.0)], quick=False)
    for order in ([kept, slow], [slow, kept]):
        with pytest.raises(UnreadableError, match=r"2\.50 times as slow .* say --mixed"):
            merged(order)
        assert len(merged(order, mixed=True).suites) == 3


def test_pages_are_not_mixed_unless_asked_for(tmp_path: Path) -> None:
    """Figures of a machine that is another by its speed do not come into pages that keep others, but by a flag."""
    (tmp_path / "docs").mkdir()
    for name in pages.PAGES:
        (tmp_path / name).write_text("<!-- figures: machine -->\n<!-- end -->\n")
    kept, path = tmp_path / pages.KEPT, tmp_path / "new.json"
    kept.write_bytes(Results.of([timed("auth", 16.0)], quick=False).json())
    path.write_bytes(Results.of([timed("limits", 40.0)], quick=False).json())
    before = kept.read_bytes()

    ran = CliRunner().invoke(main, ["pages", str(path), "--root", str(tmp_path)])
    assert ran.exit_code == 1
    assert "would take the place of docs/benchmarks.json, and lack what is there of auth: where it was" in ran.output
    assert kept.read_bytes() == before
    CliRunner().invoke(main, ["pages", str(path), "--root", str(tmp_path), "--mixed"])
    assert {suite.name for suite in read(kept).suites} == {"auth", "limits"}
    assert "took from 16.0 to 40.0" in (tmp_path / "README.md").read_text()
    drawn = "there are pictures of" if style.missing() is None else "matplotlib is not installed"
    for options, said in (((), "2.50 times as slow"), (("--mixed",), drawn)):
        ran = CliRunner().invoke(main, ["plot", str(path), str(kept), "--to", str(tmp_path), *options])
        assert said in ran.output


def test_steps_of_the_waterfall() -> None:
    """Each begins where the one before it ends, and one that saves something goes back."""
    suite = results().suite("layers")
    assert suite is not None
    assert layers.steps(suite) == [(layers.ANY_LAYER, 0, 4), ("Health", 4, 6), ("Host", 6, 5.5)]


@pytest.mark.long
def test_commands(tmp_path: Path) -> None:
    """Pages and pictures come from a file of results; without matplotlib, it is said that pictures need it."""
    path = tmp_path / "results.json"
    path.write_bytes(results().json())
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("<!-- figures: summary -->\n<!-- end -->\n")
    (tmp_path / "docs" / "benchmarks.md").write_text("<!-- figures: server -->\n<!-- end -->\n")

    ran = CliRunner().invoke(main, ["pages", str(path), "--root", str(tmp_path)])

    assert "Whole requests: FastAPI" in (tmp_path / "docs" / "benchmarks.md").read_text()
    assert read(tmp_path / pages.KEPT) == read(path)
    drawn = {file.name for file in tmp_path.glob("docs/plots/*")}
    if style.missing() is not None:
        assert ran.exit_code == 1
        assert "matplotlib is not installed" in ran.output
        return
    assert ran.exit_code == 0, ran.output
    assert drawn == {f"{name}.{kind}" for name in PICTURES for kind in ("png", "svg")}
    before = {file.name: file.read_bytes() for file in tmp_path.glob("docs/plots/*.svg")}
    assert CliRunner().invoke(main, ["plot", str(path), "--to", str(tmp_path / "again")]).exit_code == 0
    assert {file.name: file.read_bytes() for file in (tmp_path / "again").glob("*.svg")} == before


@pytest.mark.long
def test_pages_keep_the_suites_that_were_not_measured_again(tmp_path: Path) -> None:
    """One suite takes the place of its own; where the others could not stay beside it, nothing is written."""
    (tmp_path / "docs").mkdir()
    for name in pages.PAGES:
        (tmp_path / name).write_text("<!-- figures: asked -->\n<!-- end -->\n")
    kept, path = tmp_path / pages.KEPT, tmp_path / "auth.json"
    kept.write_bytes(results().json())
    one = Results.of([Suite("auth", [figure("token", "ours")])], quick=False)
    path.write_bytes(one.json())

    CliRunner().invoke(main, ["pages", str(path), "--root", str(tmp_path)])
    assert {suite.name for suite in read(kept).suites} == {*(suite.name for suite in results().suites), "auth"}

    before = kept.read_bytes()
    path.write_bytes(replace(one, machine=replace(one.machine, cpu="another")).json())
    ran = CliRunner().invoke(main, ["pages", str(path), "--root", str(tmp_path)])
    assert ran.exit_code == 1
    assert "lack what is there of server, layers, limits, scale, memory: these are of different machines" in ran.output
    kept.write_bytes(before.replace(b'"schema": 5', b'"schema": 4').replace(b'"schema":5', b'"schema":4'))
    ran = CliRunner().invoke(main, ["pages", str(path), "--root", str(tmp_path)])
    assert ran.exit_code == 1
    assert "has schema 4" in ran.output
    path.write_bytes(merged([results(), one]).json())
    CliRunner().invoke(main, ["pages", str(path), "--root", str(tmp_path)])
    assert "auth" in {suite.name for suite in read(kept).suites}


def test_what_cannot_be_drawn_or_written_is_told(tmp_path: Path) -> None:
    """Results without a picture, a folder that cannot be made and a page that is not there are told in a line."""
    if style.missing() is not None:
        pytest.skip(style.missing() or "")
    path, blocked = tmp_path / "results.json", tmp_path / "blocked"
    blocked.touch()
    path.write_bytes(Results.of([Suite("stack", [figure("raw", "bare", "CPU us")])], quick=False).json())
    ran = CliRunner().invoke(main, ["plot", str(path), "--to", str(tmp_path)])
    assert (ran.exit_code, "nothing is drawn: there are pictures of" in ran.output) == (1, True)
    assert "figures of stack" in ran.output
    path.write_bytes(results().json())
    for command, said in (
        (["plot", "--to", str(blocked / "x")], "Not a directory"),
        (["pages", "--root", str(tmp_path)], "README"),
    ):
        ran = CliRunner().invoke(main, [command[0], str(path), *command[1:]])
        assert (ran.exit_code, said in ran.output) == (1, True), ran.output
        assert isinstance(ran.exception, SystemExit)


def test_without_matplotlib_nothing_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command says what to install."""
    monkeypatch.setattr("benchmarks.plots.draw.missing", lambda: "matplotlib is not installed: ...")
    path = tmp_path / "results.json"
    path.write_bytes(results().json())
    ran = CliRunner().invoke(main, ["plot", str(path), "--to", str(tmp_path)])
    assert ran.exit_code == 1
    assert "matplotlib is not installed" in ran.output


@pytest.mark.parametrize(
    ("place", "changed", "lacking"),
    [
        (1, {"details": None}, ["latency"]),
        (1, {"details": {"quantiles": [0.5], "distribution": {"the app alone": [5.0]}}}, ["latency"]),
        (1, {"details": {"quantiles": QUANTILES, "distribution": {"the app alone": "x"}}}, ["latency"]),
        (1, {"figures": [figure("raw", "the whole Guard", ADDS)]}, ["waterfall"]),
        (4, {"details": None}, ["memory"]),
        (4, {"details": {"strangers": [{"requests": 0}]}}, ["memory"]),
        (0, {"method": {}}, []),
        (0, {"figures": [figure("FastAPI", "bare", tables.CPU)]}, ["throughput"]),
        (2, {"figures": [figure("bytes", "asgi-guard")]}, ["concurrency"]),
        (3, {"figures": [figure("origins", "1")]}, ["scale"]),
    ],
)
def test_a_picture_whose_figures_are_not_there_is_left_out_by_name(
    tmp_path: Path, place: int, changed: dict[str, Any], lacking: list[str]
) -> None:
    """The others are drawn, and the command says which is not, and what it lacks."""
    if style.missing() is not None:
        pytest.skip(style.missing() or "")
    path, found = tmp_path / "results.json", results()
    found.suites[place] = replace(found.suites[place], **changed)
    path.write_bytes(replace(found, suites=[found.suites[place]]).json())
    ran = CliRunner().invoke(main, ["plot", str(path), "--to", str(tmp_path / "plots")])
    assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.output
    assert re.findall(r"not drawn: (\w+): the results of \w+ have no \w+", ran.output) == lacking
    of = [name for name, (suite, _) in PICTURES.items() if suite == found.suites[place].name]
    assert {file.stem for file in tmp_path.glob("plots/*")} == {*of} - {*lacking}


NORMAL = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
SEEN = {
    "by most people": NORMAL,
    "with protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "with deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "with tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}
"""How a colour in linear light is seen, by Machado, Oliveira and Fernandes (2009)."""


def lab(color: str, seen: Sequence[Sequence[float]]) -> list[float]:
    """The colour's place in CIELAB, where distances are what eyes tell apart."""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    red, green, blue = (min(1.0, max(0.0, sum(map(mul, row, linear)))) for row in seen)
    lights = (
        (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505,
        0.2126 * red + 0.7152 * green + 0.0722 * blue,
        (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089,
    )
    x, y, z = (math.cbrt(light) if light > 0.008856 else 7.787 * light + 16 / 116 for light in lights)
    return [116 * y - 16, 500 * (x - y), 200 * (y - z)]


@pytest.mark.parametrize("seen", SEEN)
def test_lines_are_told_apart(seen: str) -> None:
    """Any two colours are far enough from each other whoever looks, and no two lines differ by colour alone."""
    for one, other in combinations(style.LINES, 2):
        assert math.dist(lab(one, SEEN[seen]), lab(other, SEEN[seen])) > 15, (one, other)
    looks = [style.line(number) for number in range(len(style.LINES))]
    assert len({look["marker"] for look in looks}) == len(looks)
