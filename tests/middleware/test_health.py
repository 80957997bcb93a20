"""The Health layer: probes, checks and draining."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from asgi_guard import Check, ConfigError, HealthMiddleware, ProxyMiddleware, readiness
from tests.asgi import Echo, Exchange, call, get, http_scope, websocket_scope

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import FrameType


async def fine() -> None:
    """A check that passes."""


async def failing() -> None:
    raise RuntimeError("a secret that no probe is told")


def state(exchange: Exchange) -> tuple[int, dict[str, Any]]:
    return exchange.status, json.loads(exchange.body)


async def test_live() -> None:
    """Liveness is 200, not to be cached, and the app is not asked."""
    app = Echo()
    exchange = await get(HealthMiddleware(app), "/health/live")
    assert state(exchange) == (200, {"status": "live"})
    assert exchange.headers["cache-control"] == "no-store"
    assert app.scopes == []


async def test_head() -> None:
    """A HEAD probe gets the same head, without a body."""
    exchange = await call(HealthMiddleware(Echo()), http_scope("HEAD", "/health/ready"))
    assert (exchange.status, exchange.body) == (200, b"")
    assert exchange.headers["content-length"] == str(len(b'{"status":"ready"}'))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/health/live"),
        ("OPTIONS", "/health/ready"),
        ("GET", "/health"),
        ("GET", "/health/live/"),
        ("GET", "/x/health/live"),
        ("GET", "\0"),
        ("GET", ""),
    ],
)
async def test_not_a_probe(method: str, path: str) -> None:
    """Other methods and paths are the app's."""
    app = Echo()
    await call(HealthMiddleware(app), http_scope(method, path))
    assert len(app.scopes) == 1


async def test_websocket_is_no_probe() -> None:
    """A WebSocket at a probe's path is the app's."""
    app = Echo()
    await call(HealthMiddleware(app), websocket_scope("/health/live"))
    assert len(app.scopes) == 1


async def test_off() -> None:
    """A path of None turns its probe off."""
    app = Echo()
    layer = HealthMiddleware(app, live_path=None, ready_path="/ready")
    assert (await get(layer, "/ready")).status == 200
    await get(layer, "/health/live")
    await get(HealthMiddleware(app, ready_path=None), "/health/ready")
    assert [scope["path"] for scope in app.scopes] == ["/health/live", "/health/ready"]


async def test_root_path() -> None:
    """Behind a root path, probes are found below it."""
    exchange = await get(HealthMiddleware(Echo()), "/api/health/live", root_path="/api")
    assert exchange.status == 200
    assert state(exchange)[1] == {"status": "live"}


async def test_ready_follows_the_start() -> None:
    """A process is not ready before the app's start-up is complete, and not after it began to shut down."""
    layer = HealthMiddleware(Echo())
    assert state(await get(layer, "/health/ready")) == (200, {"status": "ready"})
    await layer.startup()
    assert state(await get(layer, "/health/ready")) == (503, {"status": "starting"})
    assert (await get(layer, "/health/live")).status == 200
    layer.started()
    assert (await get(layer, "/health/ready")).status == 200
    await layer.shutdown()
    assert state(await get(layer, "/health/ready")) == (503, {"status": "draining"})
    assert (await get(layer, "/health/live")).status == 200


@pytest.mark.parametrize(
    ("checks", "status", "body"),
    [
        ([Check("a", fine)], 200, {"status": "ready", "checks": {"a": "ok"}}),
        ([Check("a", fine), Check("b", failing)], 503, {"status": "not ready", "checks": {"a": "ok", "b": "failed"}}),
        ([Check("b", failing, required=False)], 200, {"status": "ready", "checks": {"b": "failed"}}),
    ],
)
async def test_checks(checks: list[Check], status: int, body: dict[str, Any]) -> None:
    """A required check that fails makes a process not ready, another one is told, and no exception's text is."""
    layer = HealthMiddleware(Echo(), checks=checks)
    assert state(await get(layer, "/health/ready", client=("127.0.0.1", 1))) == (status, body)


async def hanging() -> None:
    await asyncio.Event().wait()


async def stubborn() -> None:
    """A check that does not end when it is cancelled."""
    while not stopping.is_set():
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.001 if stopping.is_set() else 60)


stopping = threading.Event()


@pytest.mark.parametrize("probe", [hanging, stubborn])
@pytest.mark.parametrize("own", [True, False])
async def test_hanging_check(probe: Callable[[], Awaitable[object]], own: bool) -> None:
    """A check that does not come back has failed after its own time or that of all, whatever it does; others pass."""
    stopping.clear()
    slow = Check("slow", probe, timeout=0.01 if own else None)
    layer = HealthMiddleware(Echo(), checks=[slow, Check("a", fine)], check_timeout=60 if own else 0.01)
    exchange = await get(layer, "/health/ready", client=("127.0.0.1", 1))
    assert state(exchange) == (503, {"status": "not ready", "checks": {"slow": "timed out", "a": "ok"}})
    stopping.set()
    await layer.shutdown()
    await asyncio.sleep(0.01)


async def test_what_hangs_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that hangs is not begun again while it does, and is once it has ended."""
    monkeypatch.setattr(readiness, "CACHE_SECONDS", 0.0)
    asked, go = 0, asyncio.Event()

    async def probe() -> None:
        nonlocal asked
        asked += 1
        while not go.is_set():
            with suppress(asyncio.CancelledError):
                await go.wait()

    layer = HealthMiddleware(Echo(), checks=[Check("it", probe)], check_timeout=0.01)
    for _ in range(3):
        assert (await get(layer, "/health/ready")).status == 503
    assert asked == 1
    go.set()
    await asyncio.sleep(0.01)
    assert (await get(layer, "/health/ready")).status == 200
    assert asked == 2


@pytest.mark.parametrize(
    ("client", "details", "told"),
    [
        ("127.0.0.1", None, True),
        ("::1", None, True),
        ("::ffff:127.0.0.1", None, True),
        ("192.0.2.1", None, False),
        ("192.0.2.1", "192.0.2.0/24", True),
        ("127.0.0.1", "192.0.2.0/24", False),
        ("127.0.0.1", "", False),
        ("testclient", None, False),
        (None, None, False),
    ],
)
async def test_details(client: str | None, details: str | None, told: bool) -> None:
    """Which check failed is told to the allowed addresses only; whether it is ready, to everyone."""
    options: dict[str, Any] = {} if details is None else {"details": details}
    layer = HealthMiddleware(Echo(), checks=[Check("db", failing)], **options)
    exchange = await get(layer, "/health/ready", client=None if client is None else (client, 1))
    told_of = {"checks": {"db": "failed"}} if told else {}
    assert state(exchange) == (503, {"status": "not ready", **told_of})


async def test_a_client_in_doubt_is_told_nothing() -> None:
    """A request that a proxy handed on without saying for whom is not taken for one of the proxy's own."""
    proxy = ProxyMiddleware(HealthMiddleware(Echo(), checks=[Check("db", failing)]), trusted="127.0.0.1")
    headers = [(b"x-forwarded-for", b"nonsense")]
    exchange = await get(proxy, "/health/ready", headers, client=("127.0.0.1", 1))
    assert state(exchange) == (503, {"status": "not ready"})


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"details": "10.0.0.0/99"}, "details"),
        ({"check_timeout": 0}, "check_timeout"),
        ({"check_timeout": float("nan")}, "check_timeout"),
        ({"checks": [Check("a", fine), Check("a", fine)]}, "checks"),
        ({"checks": [Check("a", fine, timeout=0)]}, "checks"),
    ],
)
def test_what_cannot_be(options: dict[str, Any], name: str) -> None:
    """Networks that are none, checks without time and names that stand twice are refused, by name."""
    with pytest.raises(ConfigError) as caught:
        HealthMiddleware(Echo(), **options)
    assert [problem.name for problem in caught.value.problems] == [name]


async def test_checks_are_shared(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """However many probes come, at once or within a second, each check is asked once; a change is logged."""
    asked = 0
    broken = False

    async def probe() -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        if broken:
            raise OSError

    layer = HealthMiddleware(Echo(), checks=[Check("it", probe)])
    first = await asyncio.gather(*(get(layer, "/health/ready") for _ in range(20)))
    assert ({exchange.status for exchange in first}, asked) == ({200}, 1)
    broken = True
    assert ((await get(layer, "/health/ready")).status, asked) == (200, 1)
    monkeypatch.setattr(readiness, "CACHE_SECONDS", 0.0)
    layer = HealthMiddleware(Echo(), checks=[Check("it", probe)])
    broken = False
    await get(layer, "/health/ready")
    broken = True
    with caplog.at_level(logging.WARNING, "asgi_guard"):
        assert (await get(layer, "/health/ready")).status == 503
    assert "not ready" in caplog.text
    assert asked == 3


async def test_a_probe_that_leaves_does_not_cancel_the_checks() -> None:
    """A probe that is cancelled leaves the checks to the others that wait for them."""
    go = asyncio.Event()
    layer = HealthMiddleware(Echo(), checks=[Check("it", go.wait)])
    leaving = asyncio.create_task(get(layer, "/health/ready"))
    staying = asyncio.create_task(get(layer, "/health/ready"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    go.set()
    assert leaving.cancelled()
    assert (await staying).status == 200


@pytest.mark.parametrize(("version", "closes"), [("1.1", True), ("1.0", True), ("2", False), ("3", False)])
async def test_draining_closes(version: str, closes: bool) -> None:
    """While draining, requests are served on, and HTTP/1 clients are asked to connect elsewhere."""
    app = Echo(headers=[(b"Connection", b"keep-alive")])
    layer = HealthMiddleware(app)
    layer.drain()
    layer.drain()
    exchange = await get(layer, http_version=version)
    assert (exchange.status, exchange.body) == (200, b"ok")
    assert exchange.headers["connection"] == ("close" if closes else "keep-alive")


async def test_draining_websocket() -> None:
    """An accepted WebSocket is not told to close its connection."""
    layer = HealthMiddleware(Echo())
    layer.drain()
    assert (await call(layer, websocket_scope())).messages[0]["headers"] == []


@pytest.mark.parametrize("options", [{"live_path": "live"}, {"ready_path": "ready"}])
def test_bad_path(options: dict[str, str]) -> None:
    """A path that does not start with a slash is refused at construction, by name."""
    with pytest.raises(ConfigError) as caught:
        HealthMiddleware(Echo(), **{"live_path": "/l", "ready_path": "/r", **options})  # type: ignore[arg-type]  # mypy takes the values for those of every argument
    assert [problem.name for problem in caught.value.problems] == list(options)


def test_one_path_for_both() -> None:
    """One path for both probes is refused: it could only answer one of them."""
    with pytest.raises(ConfigError, match="ready_path"):
        HealthMiddleware(Echo(), live_path="/health", ready_path="/health")


class Server:
    """A server's SIGTERM handler."""

    def __init__(self) -> None:
        self.stopped = threading.Event()

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.stopped.set()


@pytest.fixture
def server() -> Iterator[Server]:
    before = signal.getsignal(signal.SIGTERM)
    server = Server()
    signal.signal(signal.SIGTERM, server.handle)
    yield server
    signal.signal(signal.SIGTERM, before)


async def test_sigterm_drains_first(server: Server) -> None:
    """SIGTERM first turns readiness to 503, and after the drain delay comes to the server's own handler."""
    layer = HealthMiddleware(Echo(), drain_seconds=0.05)
    await layer.startup()
    layer.started()
    os.kill(os.getpid(), signal.SIGTERM)
    assert not server.stopped.is_set()
    assert (await get(layer, "/health/ready")).status == 503
    assert await asyncio.to_thread(server.stopped.wait, 30)
    await layer.shutdown()
    assert signal.getsignal(signal.SIGTERM) == server.handle


async def test_sigterm_while_starting(server: Server) -> None:
    """SIGTERM that comes before the app's start-up is complete is not forgotten when it is."""
    layer = HealthMiddleware(Echo(), drain_seconds=3600)
    await layer.startup()
    os.kill(os.getpid(), signal.SIGTERM)
    layer.started()
    assert (await get(layer, "/health/ready")).status == 503
    os.kill(os.getpid(), signal.SIGTERM)
    assert server.stopped.is_set()
    await layer.shutdown()


async def test_second_sigterm(server: Server) -> None:
    """A second SIGTERM does not wait for the delay."""
    layer = HealthMiddleware(Echo(), drain_seconds=3600)
    await layer.startup()
    layer.started()
    os.kill(os.getpid(), signal.SIGTERM)
    assert not server.stopped.is_set()
    os.kill(os.getpid(), signal.SIGTERM)
    assert server.stopped.is_set()
    await layer.shutdown()


async def test_sigterm_while_draining_already(server: Server) -> None:
    """SIGTERM to a process that drains by another trigger comes to the server's handler at once."""
    layer = HealthMiddleware(Echo(), drain_seconds=3600)
    await layer.startup()
    layer.drain()
    os.kill(os.getpid(), signal.SIGTERM)
    assert server.stopped.is_set()
    assert signal.getsignal(signal.SIGTERM) == server.handle


async def test_shutdown_gives_the_signal_back(server: Server) -> None:
    """After a shut-down without SIGTERM, the server's handler is in its place again."""
    layer = HealthMiddleware(Echo(), drain_seconds=3600)
    await layer.startup()
    assert signal.getsignal(signal.SIGTERM) != server.handle
    await layer.shutdown()
    assert signal.getsignal(signal.SIGTERM) == server.handle


@pytest.mark.usefixtures("server")
async def test_a_handler_that_is_no_function() -> None:
    """Where SIGTERM was ignored, it is ignored again once the process has drained."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    layer = HealthMiddleware(Echo(), drain_seconds=3600)
    await layer.startup()
    layer.drain()
    os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


async def test_no_draining_no_signal(server: Server) -> None:
    """Without a delay, signals are left alone, and in another thread than the main one too."""
    await HealthMiddleware(Echo()).startup()
    layer = HealthMiddleware(Echo(), drain_seconds=1)
    await asyncio.to_thread(lambda: asyncio.run(layer.startup()))
    assert signal.getsignal(signal.SIGTERM) == server.handle
