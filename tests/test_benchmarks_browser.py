"""The benchmark of the browser's rules: that it measures what it says."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import orjson
import pytest
from click.testing import CliRunner
from rich.console import Console

from benchmarks import browser
from benchmarks.__main__ import main
from benchmarks.layers import receive

if TYPE_CHECKING:
    from pathlib import Path

    from asgi_guard.asgi import Message


@pytest.mark.parametrize("name", browser.apps())
@pytest.mark.parametrize("what", browser.REQUESTS)
async def test_what_is_measured(name: str, what: str) -> None:
    """Each app answers each sort of request, and those with CORS refuse the commas only."""
    statuses: list[int] = []

    async def send(message: Message) -> None:
        statuses.extend(message[key] for key in ("status",) if key in message)

    await browser.apps()[name](dict(browser.REQUESTS[what]), receive, send)
    (status,) = statuses
    refused = "commas" in what and "CORS" in name
    # Starlette takes empty names for names that are not allowed, or for none, as its version has it.
    assert status in ((200, 204, 400, 403) if refused else (200, 204))
    if refused and "Starlette" not in name:
        assert status == 403


def test_figures() -> None:
    """Every app has a figure for the actual request, and those with CORS for preflights too."""
    passed: list[float] = []
    figures = browser.measure(0, 1, passed.append)
    assert len(passed) >= 3
    assert {(figure.what, figure.app) for figure in figures if figure.what == "preflight"} == {
        ("preflight", name) for name in browser.apps() if "CORS" in name
    }
    assert len([figure for figure in figures if figure.what == "actual request"]) == len(browser.apps()) - 1
    stream = io.StringIO()
    browser.show(Console(file=stream, width=120), figures)
    assert "Starlette's CORS" in stream.getvalue()


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command prints a table, and writes JSON where it is told to."""
    figures = [browser.Figure("preflight", "CORS", 1.25)]
    monkeypatch.setattr(browser, "measure", lambda *_: figures)
    path = tmp_path / "figures.json"
    ran = CliRunner().invoke(main, ["browser", "--quick", "--json", str(path)])
    assert ran.exit_code == 0
    assert "1.2" in ran.output
    assert orjson.loads(path.read_bytes()) == [{"what": "preflight", "app": "CORS", "added": 1.25}]
