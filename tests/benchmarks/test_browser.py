"""The benchmark of the browser's rules: that it measures what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asgi_guard.chain.layer import Chain, Layer
from asgi_guard.middleware import ProxyMiddleware
from benchmarks import browser
from benchmarks.calls import send
from benchmarks.subjects import receive

if TYPE_CHECKING:
    from asgi_guard.asgi import Message, Scope
    from asgi_guard.chain.exchange import Exchange


@pytest.mark.parametrize(
    ("what", "name"),
    [(what, name) for what in browser.REQUESTS for name in browser.apps() if browser.is_measured(what, name)],
)
async def test_what_is_measured(name: str, what: str) -> None:
    """Each app answers each sort of request that it is measured with, and those with CORS refuse the commas only."""
    statuses: list[int] = []

    async def send(message: Message) -> None:
        statuses.extend(message[key] for key in ("status",) if key in message)

    await browser.apps()[name](dict(browser.REQUESTS[what][0]), receive, send)
    (status,) = statuses
    refused = "commas" in what and "CORS" in name
    # Starlette takes empty names for names that are not allowed, or for none, as its version has it.
    assert status in ((200, 204, 400, 403) if refused else (200, 204))
    if refused and "Starlette" not in name:
        assert status == 403


@pytest.mark.parametrize("what", browser.WALKS)
async def test_the_walk_goes_as_far_as_it_may(what: str) -> None:
    """Behind a thousand trusted proxies, each of a new address, it cannot be told who calls, and nobody is believed."""
    scopes = browser.REQUESTS[what]
    lines = {scope["headers"][-1] for scope in scopes}
    assert len(lines) == len(scopes)
    for name, value in lines:
        assert value.count(b",") == browser.ENTRIES - 1
        assert name.decode() in what.lower()
    (name,) = (name for name in browser.apps() if browser.is_measured(what, name) and "Proxy" in name)
    seen: list[Scope] = []

    class Watching(Layer):
        name = "watching"

        def decide(self, exchange: Exchange) -> None:
            assert exchange.client_doubt == "too_many"
            seen.append(exchange.scope)

    proxy = browser.apps()[name]
    assert isinstance(proxy, ProxyMiddleware)
    await Chain(proxy.app, [proxy, Watching(proxy.app)])(dict(scopes[0]), receive, send)
    assert len(seen) == 1


def test_figures(caplog: pytest.LogCaptureFixture) -> None:
    """Every app has a figure for the actual request, those with CORS for preflights too; what is asked is told."""
    passed: list[float] = []
    suite = browser.measure(0, 1, passed.append)
    assert caplog.text == ""  # no warning of the guard's tears the progress bar
    assert len(passed) >= 3
    assert set(suite.names(1, "preflight")) == {name for name in browser.apps() if "CORS" in name}
    assert len(suite.names(1, "actual request")) == len(browser.apps()) - 1
    table, walks, asked = browser.sheets(suite)
    assert [row[1] for row in walks.rows] == list(browser.WALKS)
    assert "Starlette's CORS" in [row[0] for row in table.rows]
    assert [row[0] for row in asked.rows] == [": ".join(name) for name in browser.ASKED]
