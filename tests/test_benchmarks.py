"""The benchmarks run, print what they say they print, and measure what they say they measure."""

from __future__ import annotations

import io
import re
import sys
from typing import TYPE_CHECKING

import orjson
import pytest
from click.testing import CliRunner
from rich.console import Console

from benchmarks import __main__ as benchmarks
from benchmarks import layers, machine
from benchmarks.limits import servers
from benchmarks.report import Report
from tests.asgi import Echo
from tests.stores.server import Server

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def report() -> Report:
    """One run, as short as can be."""
    return benchmarks.run(0.3, calls=3, console=Console(file=io.StringIO()))


@pytest.fixture
def printed(report: Report) -> str:
    stream = io.StringIO()
    report.show(Console(file=stream, width=120))
    return stream.getvalue()


def test_every_layer_and_the_whole_are_measured(report: Report) -> None:
    """The app alone, every layer and the whole guard have a figure, and its quartiles enclose the median."""
    names = [cost.name.partition(" ")[0] for cost in report.layers]
    assert names[0] == "the"
    expected = "Health Proxy RequestID AccessLog SecurityHeaders Host CORS Identity RateLimit Access"
    assert names[2:-1] == expected.split()
    assert report.layers[-1].name == layers.GUARD
    for cost in report.layers:
        assert cost.total > 0
        assert cost.low <= cost.added <= cost.high
    assert report.layers[0].added == 0


def test_every_level_of_concurrency_is_measured(report: Report) -> None:
    """Each level has made checks, ours and one call a check, and the server has a name."""
    cells = [(cell.tasks, cell.name) for cell in report.limits.checks.cells]
    assert cells == [(tasks, name) for tasks in (1, 16, 64) for name in ("asgi-guard", "one call a check")]
    for cell in report.limits.checks.cells:
        assert cell.checks >= cell.tasks
    assert re.match(r"Valkey \d+\.\d+\.\d+, started for this", report.limits.server)


def test_the_tables_are_printed_with_the_machine(report: Report, printed: str) -> None:
    """What is printed names the machine, every layer and every level, and says of what the figures are."""
    for text in (report.machine.cpu, report.machine.python, "asgi-guard 0", "in microseconds", "p50 ms", "p99 ms"):
        assert text in printed
    for cost in report.layers:
        assert cost.name in printed
    assert report.limits.server in printed
    assert "These figures are of this machine" in printed


def test_the_json_holds_the_same_figures(report: Report) -> None:
    """The JSON names the machine and holds every figure of the tables."""
    document = orjson.loads(report.json())

    assert set(document) == {"schema", "machine", "layers", "limits"}
    assert set(document["machine"]) == {"cpu", "cores", "load", "system", "python", "versions"}
    assert [cost["added"] for cost in document["layers"]] == [cost.added for cost in report.layers]
    assert [cell["p50"] for cell in document["limits"]["checks"]["cells"]] == [
        cell.p50 for cell in report.limits.checks.cells
    ]


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command measures the given server, leaves nothing in it, writes the file, and heeds no ASGI_GUARD_* value."""
    monkeypatch.setenv("ASGI_GUARD_RATE_LIMIT", "1/day by ip")
    lengths: list[float] = []
    measure = benchmarks.run

    def briefly(seconds: float, *, store: str | None = None) -> Report:
        lengths.append(seconds)
        return measure(0.3, store=store, calls=3, console=Console(file=io.StringIO()))

    monkeypatch.setattr(benchmarks, "run", briefly)
    path = tmp_path / "figures.json"
    with Server() as server:
        server.client.set("someone", "else")
        result = CliRunner().invoke(benchmarks.main, ["--quick", "--json", str(path), "--store", server.url])
        left = server.client.keys()

    assert result.exit_code == 0, result.output
    assert left == [b"someone"]
    assert "the one given with --store" in result.output
    assert server.url not in result.output + path.read_text()
    assert orjson.loads(path.read_bytes())["limits"]["checks"]["cells"]
    assert lengths == [9]


def test_the_command_line_without_options(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without options the command starts a server of its own, takes its time, prints, and writes no file."""
    asked: list[tuple[float, str | None]] = []

    def at_once(seconds: float, *, store: str | None = None) -> Report:
        asked.append((seconds, store))
        return report

    monkeypatch.setattr(benchmarks, "run", at_once)
    result = CliRunner().invoke(benchmarks.main, [])

    assert (result.exit_code, asked) == (0, [(36, None)])
    assert "These figures are of this machine" in result.output


def test_options_stand_after_the_name_of_what_they_are_for() -> None:
    """An option before `limits` is refused, rather than quietly passed over."""
    result = CliRunner().invoke(benchmarks.main, ["--quick", "limits"])
    assert result.exit_code == 2
    assert "stand after its name" in result.output


async def test_an_app_that_refuses_is_not_timed() -> None:
    """A request that would be refused ends the run, for its figure would be of something else."""
    with pytest.raises(AssertionError, match="answers"):
        await layers.check(Echo(status=418), layers.request("token"))


def test_output_is_discarded_and_comes_back() -> None:
    """While layers are measured, standard output is discarded, and it is itself again afterwards."""
    before = sys.stdout
    with layers.discarded_output():
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
