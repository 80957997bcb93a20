"""The guard against regress fails where a request costs more than recorded, and says what it compared."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from benchmarks import __main__ as benchmarks
from benchmarks.instructions import check, hot

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recorded 1000 instructions and a ratio that no machine exceeds, in place of ours."""
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps({"instructions": {check.build(): 1000, "another": 7}, "ratio": 1e6}))
    for function in (check.check, check.record):
        monkeypatch.setattr(function, "__defaults__", (path,))
    monkeypatch.setattr(check.timed, "__defaults__", (3, 5))
    return path


@pytest.mark.parametrize(("found", "status", "words"), [(1149.0, 0, "+14.9%"), (1151.0, 1, "+15.1%, at most +15%")])
def test_what_is_counted_may_grow_by_fifteen_percent(
    baseline: Path, monkeypatch: pytest.MonkeyPatch, found: float, status: int, words: str
) -> None:
    """Below that the command succeeds, and above it fails and says by how much it is too much."""
    monkeypatch.setattr(check, "counted", lambda: found)
    result = CliRunner().invoke(benchmarks.main, ["instructions"])
    assert result.exit_code == status
    assert words in result.output


def test_without_valgrind_times_are_compared(baseline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command says so, and holds a ratio of times to the recorded one, which it can exceed."""
    monkeypatch.setenv("PATH", "")
    result = CliRunner().invoke(benchmarks.main, ["instructions"])
    assert result.exit_code == 0
    assert result.output.startswith("valgrind is not installed: times are compared instead\n")

    baseline.write_text(json.dumps({"instructions": {check.build(): 1000}, "ratio": 1e-6}))
    result = CliRunner().invoke(benchmarks.main, ["instructions"])
    assert result.exit_code == 1
    assert "too much" in result.output


@pytest.mark.parametrize(("collected", "recordable"), [(4500, True), (0, False)])
def test_a_figure_is_missed_only_where_it_can_be_recorded(
    baseline: Path, monkeypatch: pytest.MonkeyPatch, collected: int, recordable: bool
) -> None:
    """A build of Python without a figure is told as such; one that callgrind finds no way in is told for that."""
    monkeypatch.setattr(check, "counted", lambda: check.read(f"==1== Collected : {collected}\n", 10))
    baseline.write_text(json.dumps({"instructions": {}, "ratio": 1e6}))
    result = CliRunner().invoke(benchmarks.main, ["instructions"])
    assert result.exit_code == 0
    assert result.output.splitlines()[0].endswith(": times are compared instead")
    assert result.output.startswith(f"no figure is recorded for {check.build()}") == recordable
    assert result.output.startswith("callgrind does not find functools_reduce") != recordable
    assert (CliRunner().invoke(benchmarks.main, ["instructions", "--record"]).exit_code == 0) == recordable


def test_recording_keeps_the_figures_of_other_builds(baseline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only this build's figure is replaced."""
    monkeypatch.setattr(check, "counted", lambda: 1234.4)
    assert CliRunner().invoke(benchmarks.main, ["instructions", "--record"]).exit_code == 0
    assert json.loads(baseline.read_bytes())["instructions"] == {check.build(): 1234, "another": 7}


def test_what_callgrind_says_is_read() -> None:
    """Its count is divided by the requests; a count of nothing means that it did not find its way in."""
    assert check.read("==1== Collected : 4500\n", 10) == 450
    with pytest.raises(check.UncountedError, match="functools_reduce"):
        check.read("==1== Collected : 0\n", 10)


def test_the_counted_request_must_not_wait() -> None:
    """One that waits would be counted to its first pause only, so it is an error."""

    async def waits(scope: object, receive: object, send: object) -> None:
        import asyncio

        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="wait"):
        hot.once(waits, {})(None, None)


def test_a_recorded_figure_is_there() -> None:
    """The baseline has figures of the kind that are compared."""
    recorded = json.loads(check.BASELINE.read_bytes())
    assert recorded["instructions"]
    assert all(instructions > 10_000 for instructions in recorded["instructions"].values())
    assert 0.1 < recorded["ratio"] < 10
