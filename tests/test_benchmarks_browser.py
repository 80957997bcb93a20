"""The benchmark of the browser's rules: that it measures what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks import browser
from benchmarks.subjects import receive

if TYPE_CHECKING:
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
    suite = browser.measure(0, 1, passed.append)
    assert len(passed) >= 3
    assert set(suite.names(1, "preflight")) == {name for name in browser.apps() if "CORS" in name}
    assert len(suite.names(1, "actual request")) == len(browser.apps()) - 1
    (sheet,) = browser.sheets(suite)
    assert "Starlette's CORS" in [row[0] for row in sheet.rows]
