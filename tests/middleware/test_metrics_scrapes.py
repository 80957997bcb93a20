"""Scrapes that take their time: what goes on meanwhile, and what comes of those that fail or are given up."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from asgi_guard import MetricsMiddleware
from asgi_guard.operations import scrapes
from tests.asgi import Echo, get
from tests.stores.server import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from asgi_guard.asgi import ASGIApp
    from tests.asgi import Exchange

LOCAL: Any = ("127.0.0.1", 50000)
OPENMETRICS = (b"accept", b"application/openmetrics-text")


class Slow(Collector):
    """Holds up every scrape until it is let go, and counts them."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.error: Exception | None = None
        self.scrapes = self.at_once = self.most_at_once = 0

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> list[Metric]:
        self.scrapes += 1
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        self.begun.set()
        try:
            assert self.go_on.wait(PATIENCE)
            if self.error is not None:
                raise self.error
        finally:
            self.at_once -= 1
        return []

    async def wait(self) -> None:
        """Wait until a scrape is under way."""
        async with asyncio.timeout(PATIENCE):
            while not self.begun.is_set():  # noqa: ASYNC110 - a thread sets it
                await asyncio.sleep(0.001)


@pytest.fixture
def slow() -> Iterator[Slow]:
    found = Slow()
    yield found
    found.go_on.set()


@pytest.fixture
def layer(slow: Slow) -> MetricsMiddleware:
    registry = CollectorRegistry()
    registry.register(slow)
    return MetricsMiddleware(Echo(), registry=registry)


def scraping(app: ASGIApp, *headers: tuple[bytes, bytes]) -> asyncio.Task[Exchange]:
    """A scrape that begins with the loop's next turn."""
    return asyncio.create_task(get(app, "/metrics", headers, client=LOCAL))


async def test_others_are_answered_meanwhile(layer: MetricsMiddleware, slow: Slow) -> None:
    """While a scrape is under way, the event loop answers other requests."""
    scrape = scraping(layer)
    await slow.wait()
    assert (await get(layer)).body == b"ok"
    assert not scrape.done()
    slow.go_on.set()
    assert b"asgi_guard_requests_in_flight 1.0" in (await scrape).body


async def test_those_that_come_meanwhile(layer: MetricsMiddleware, slow: Slow) -> None:
    """Of scrapes that come while one is under way, those of one format share the next, in which all is told.

    A registry is never asked twice at once.
    """
    first = scraping(layer)
    await slow.wait()
    await get(layer)
    others = [scraping(layer), scraping(layer, OPENMETRICS), scraping(layer), scraping(layer)]
    await asyncio.sleep(0)
    slow.go_on.set()
    assert (await first).status == 200
    for other in others:
        assert b'request_duration_seconds_count{method="GET",route="_unmatched",status="200"} 1' in (await other).body
    assert (await others[1]).headers["content-type"].startswith(OPENMETRICS[1].decode())
    assert (slow.scrapes, slow.most_at_once) == (3, 1)


async def test_a_scrape_that_fails(layer: MetricsMiddleware, slow: Slow) -> None:
    """What a collector raises is an error of the guard's: 500, and nobody asks the app. The next scrape may be well."""
    slow.go_on.set()
    slow.error = LookupError("no such thing")
    failed = await get(layer, "/metrics", client=LOCAL)
    assert (failed.status, failed.error) == (500, slow.error)
    assert b'"reason":"guard_error"' in failed.body
    assert isinstance(layer.app, Echo)
    assert not layer.app.scopes
    slow.error = None
    found = await get(layer, "/metrics", client=LOCAL)
    assert b'asgi_guard_refusals_total{layer="guard",reason="guard_error"} 1.0' in found.body


async def test_a_scrape_that_is_given_up(layer: MetricsMiddleware, slow: Slow) -> None:
    """A scrape that is cancelled, under way or waiting, takes no other with it."""
    first = scraping(layer)
    await slow.wait()
    second, third = scraping(layer), scraping(layer)
    await asyncio.sleep(0)
    for each in (first, second):
        each.cancel()
        with pytest.raises(asyncio.CancelledError):
            await each
    slow.go_on.set()
    assert (await third).status == 200
    found = await get(layer, "/metrics", client=LOCAL)
    assert (found.status, b"asgi_guard_requests_in_flight 1.0" in found.body) == (200, True)


def test_a_loop_that_ends_meanwhile(layer: MetricsMiddleware, slow: Slow) -> None:
    """A scrape that its event loop did not wait for holds up none of the next loop's."""

    async def leave() -> None:
        scraping(layer)
        await slow.wait()

    asyncio.run(leave())
    slow.go_on.set()
    assert asyncio.run(get(layer, "/metrics", client=LOCAL)).status == 200


async def test_a_scrape_that_hangs_is_given_up(
    layer: MetricsMiddleware, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for a scrape that does not end is answered at last, so that no server waits for it."""
    monkeypatch.setattr(scrapes, "LONGEST", 0.05)
    exchange = await get(layer, "/metrics", client=LOCAL)
    assert (exchange.status, isinstance(exchange.error, TimeoutError)) == (500, True)
    slow.go_on.set()
    monkeypatch.setattr(scrapes, "LONGEST", PATIENCE)
    assert (await get(layer, "/metrics", client=LOCAL)).status == 200
