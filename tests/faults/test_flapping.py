"""What is told of a store that fails now and then: enough to be seen, and no more than can be read."""

from __future__ import annotations

import asyncio
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from asgi_guard import RateLimitMiddleware
from asgi_guard.errors import StoreUnavailableError
from asgi_guard.policy.breaker import Breaker
from asgi_guard.stores import RedisStore, outages
from asgi_guard.stores.base import Watch
from tests.asgi import Echo, get
from tests.stores.server import VAST, Server, ask, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_guard.policy.rates import OnStoreFailure

GONE, BACK = "the store does not answer, so it is not asked for a while: TimeoutError", "the store answers again"


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that the test may stop."""
    with Server() as started:
        yield started


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """Have the server answer nothing."""
    pid = server.pid
    server.signal(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        server.signal(pid, signal.SIGCONT)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "asgi_guard"]


def flapping(server: Server) -> RedisStore:
    """A store whose breaker opens at the second failure, and is tried again soon."""
    return RedisStore(server.url, timeout=0.05, breaker=Breaker(threshold=2, first_wait=0.01, max_wait=0.01))


async def answers(store: RedisStore) -> bool:
    try:
        return (await store.admit(ask("a", 0, VAST))).admitted
    except StoreUnavailableError:
        return False


async def outage(store: RedisStore) -> None:
    """Ask a server that is stopped until it is not asked any more."""

    async def opened() -> bool:
        await answers(store)
        return store.breakers[0].is_open

    await until(opened)


@pytest.mark.parametrize(("choice", "status"), [("deny", 503), ("allow", 200), ("local", 200)])
async def test_failures_that_open_no_breaker(
    server: Server, caplog: pytest.LogCaptureFixture, choice: OnStoreFailure, status: int
) -> None:
    """Failures with answers between them are all counted, and the first is told, with what such requests meet."""
    store = RedisStore(server.url, timeout=0.05, breaker=Breaker(threshold=1000))
    failed: list[None] = []
    store.watch(Watch(failed=lambda: failed.append(None)))
    app = RateLimitMiddleware(Echo(), limit="1000/hour by ip", store=store, on_store_failure=choice)
    await app.startup()
    for number in range(1, 5):
        with stopped(server):
            assert (await get(app)).status == status
        assert len(failed) == number
        await until(lambda: answers(store))
        del failed[number:]  # of those that a busy machine made fail
    said = "the store did not decide a request: the store does not answer (TimeoutError); where that happens,"
    assert told(caplog) == [f"{said} limits meet '{choice}'"]
    await store.aclose()


async def flaps(store: RedisStore, server: Server) -> None:
    """It answers, and then does not for an outage's length."""
    await until(lambda: answers(store))
    with stopped(server):
        await outage(store)


async def test_outages_one_after_the_other(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Of outages that follow each other and do not last, the log is told of the first."""
    store = flapping(server)
    for _ in range(4):
        await flaps(store, server)
    await until(lambda: answers(store))
    assert told(caplog) == [GONE, BACK]
    await store.aclose()


async def test_an_outage_that_did_not_last(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage that is held back, and is over before the quiet is, is told by nobody afterwards."""
    monkeypatch.setattr(outages, "QUIET", 1.0)
    tells = outages.Outages(asyncio.get_running_loop(), "gone", "back")
    for _ in range(2):
        tells.begins(TimeoutError())
        tells.ends()
    await asyncio.sleep(1.2)
    assert told(caplog) == ["gone: TimeoutError", "back"]


async def test_an_outage_that_lasts(
    server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage that is held back and lasts is told when the quiet is over, though nobody asks, and then its end."""
    monkeypatch.setattr(outages, "QUIET", 1.0)
    store = flapping(server)
    await flaps(store, server)
    await until(lambda: answers(store))
    with stopped(server):
        await outage(store)

        async def is_told() -> bool:
            return told(caplog) == [GONE, BACK, GONE]

        await until(is_told)
    await until(lambda: answers(store))
    assert told(caplog) == [GONE, BACK, GONE, BACK]
    await store.aclose()


async def test_a_store_that_is_let_go_tells_no_more(
    server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held back is told by nobody once the store's connections are let go."""
    monkeypatch.setattr(outages, "QUIET", 1.0)
    store = flapping(server)
    for _ in range(2):
        await flaps(store, server)
    await store.aclose()
    before = told(caplog)
    await asyncio.sleep(1.2)
    assert told(caplog) == before
