"""The Drain layer: what begins draining, who is told, and what comes of SIGTERM."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import signal
import sys
from contextlib import suppress
from time import monotonic
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from starlette.responses import JSONResponse

import asgi_guard
from asgi_guard import (
    ConfigError,
    DrainMiddleware,
    Guard,
    GuardSettings,
    HealthSettings,
    LogSettings,
    ProxySettings,
)
from asgi_guard.middleware import drain
from asgi_guard.operations import draining as operations_draining
from tests.asgi import Echo, Exchange, call, get, http_scope, websocket_scope
from tests.configuring import problems
from tests.middleware.draining import Server, made, readiness

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asgi_guard.asgi import ASGIApp, Message, Receive, Scope, Send


@pytest.mark.parametrize(("version", "closes"), [("1.1", True), ("1.0", True), ("2", False), ("3", False)])
async def test_draining_closes(version: str, closes: bool) -> None:
    """While draining, requests are served on, and HTTP/1 clients are asked to connect elsewhere."""
    app = Echo(headers=[(b"Connection", b"keep-alive")])
    layer = DrainMiddleware(app)
    await layer.startup()
    layer.draining.begin()
    layer.draining.begin()
    exchange = await get(layer, http_version=version)
    assert (exchange.status, exchange.body) == (200, b"ok")
    assert exchange.headers["connection"] == ("close" if closes else "keep-alive")


async def test_draining_websocket() -> None:
    """An accepted WebSocket is not told to close its connection."""
    layer = made()
    await layer.startup()
    layer.draining.begin()
    assert (await call(layer, websocket_scope())).messages[0]["headers"] == []
    assert layer.draining.begun
    await layer.shutdown()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server.in_place() as server:
        yield server


async def test_sigterm_drains_first(server: Server) -> None:
    """SIGTERM first turns readiness to 503, and after the drain delay comes to the server's own handler."""
    layer = made(seconds=0.05)
    await layer.startup()
    os.kill(os.getpid(), signal.SIGTERM)
    assert not server.stopped.is_set()
    assert await readiness(layer) == 503
    assert await asyncio.to_thread(server.stopped.wait, 30)
    await layer.shutdown()
    assert signal.getsignal(signal.SIGTERM) == server.handle


async def test_the_listeners_go_first(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uvicorn takes no more connections before it stops: requests that are on their way by then are still heard."""
    monkeypatch.setattr(operations_draining, "LAST_SECONDS", 0.2)
    stopped_at_close: list[bool] = []

    class Listener:
        def close(self) -> None:
            stopped_at_close.append(server.stopped.is_set())

    server.servers = [Listener(), Listener()]
    layer = made(seconds=0.05)
    await layer.startup()
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.to_thread(server.stopped.wait, 30)
    assert stopped_at_close == [False, False]
    await layer.shutdown()


async def test_sigterm_while_starting(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM that comes before the app's start-up is complete is not forgotten when it is."""
    layer = made(seconds=3600)
    await layer.startup()
    os.kill(os.getpid(), signal.SIGTERM)
    assert await readiness(layer) == 503
    monkeypatch.setattr(operations_draining, "ECHO_SECONDS", 0)
    os.kill(os.getpid(), signal.SIGTERM)
    assert server.stopped.is_set()
    await layer.shutdown()


class Terminating(io.RawIOBase):
    """What a log is written to while SIGTERM comes."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.written += bytes(data).decode().splitlines()
        if len(self.written) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return len(data)


async def test_sigterm_within_a_log_line(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM that interrupts the log ends the process as any other, and is logged after the line it interrupted."""
    raw = Terminating()
    stream = io.TextIOWrapper(io.BufferedWriter(raw), write_through=True)
    handler = logging.StreamHandler(stream)
    monkeypatch.setattr(logging.getLogger("asgi_guard"), "handlers", [handler])
    layer = made(seconds=0.05)
    await layer.startup()
    handler.handle(logging.makeLogRecord({"msg": "a request", "levelno": logging.INFO}))
    assert await readiness(layer) == 503
    assert await asyncio.to_thread(server.stopped.wait, 30)
    assert raw.written == ["a request", "draining: not ready for new requests"]
    await layer.shutdown()


async def test_second_sigterm(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A second SIGTERM does not wait for the delay, which is told, unless it is the first once more, of a parent."""
    layer = made(seconds=3600)
    await layer.startup()
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
        assert not server.stopped.is_set()
    monkeypatch.setattr(operations_draining, "ECHO_SECONDS", 0)
    os.kill(os.getpid(), signal.SIGTERM)
    assert server.stopped.is_set()
    assert await readiness(layer) == 503
    await layer.shutdown()
    told = [record.getMessage() for record in caplog.records]
    assert told == ["draining: not ready for new requests", "draining: another SIGTERM ends it early"]


@pytest.mark.parametrize("recycles", [False, True])
async def test_sigterms_of_gunicorn(
    server: Server, recycles: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In a worker of gunicorn's, whose arbiter repeats SIGTERM, no further one ends the delay, and it is one stop."""
    monkeypatch.setitem(sys.modules, "gunicorn.workers.base", ModuleType("gunicorn.workers.base"))
    monkeypatch.setattr(operations_draining, "ECHO_SECONDS", 0)
    layer = made(seconds=0.5)
    await layer.startup()
    begun = monotonic()
    if recycles:
        layer.draining.recycle()
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.01)
    assert await asyncio.to_thread(server.stopped.wait, 30)
    assert monotonic() - begun >= 0.5
    assert server.signals == 1
    await layer.shutdown()
    assert len(caplog.records) == 1


@pytest.mark.parametrize("recycles", [False, True])
async def test_a_shutdown_while_draining(server: Server, recycles: bool) -> None:
    """SIGTERM that is kept at the shut-down, as when the app's lifespan breaks down, comes to the server at once."""
    layers = [made(seconds=3600), made(seconds=3600)]
    for layer in layers:
        await layer.startup()
    if recycles:
        layers[0].draining.recycle()
    else:
        os.kill(os.getpid(), signal.SIGTERM)
    await layers[0].shutdown()
    assert server.signals == 0
    await layers[1].shutdown()
    assert (server.signals, signal.getsignal(signal.SIGTERM)) == (1, server.handle)


async def test_a_shutdown_where_sigterm_is_left_alone(server: Server) -> None:
    """A process that has served its number, and whose SIGTERM is the event loop's, just shuts down."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.handle, signal.SIGTERM, None)
    layer = made(seconds=3600)
    await layer.startup()
    layer.draining.recycle()
    await layer.shutdown()
    await asyncio.sleep(0.01)
    asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
    assert server.signals == 0


async def test_sigterm_while_draining_already(server: Server) -> None:
    """SIGTERM to a process that drains by another trigger comes to the server's handler at once."""
    layer = made(seconds=3600)
    await layer.startup()
    layer.draining.begin()
    os.kill(os.getpid(), signal.SIGTERM)
    assert server.stopped.is_set()
    assert signal.getsignal(signal.SIGTERM) == server.handle


async def test_shutdown_gives_the_signal_back(server: Server) -> None:
    """After a shut-down without SIGTERM, the server's handler is in its place again."""
    layer = made(seconds=3600)
    await layer.startup()
    assert signal.getsignal(signal.SIGTERM) != server.handle
    await layer.shutdown()
    assert signal.getsignal(signal.SIGTERM) == server.handle


@pytest.mark.usefixtures("server")
async def test_a_handler_that_is_no_function() -> None:
    """Where SIGTERM was ignored, it is ignored again once the process has drained."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    layer = made(seconds=3600)
    await layer.startup()
    layer.draining.begin()
    os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


async def test_no_draining_no_signal(server: Server) -> None:
    """Without a delay, signals are left alone, and in another thread than the main one too."""
    await made().startup()
    layer = made(seconds=1)
    await asyncio.to_thread(lambda: asyncio.run(layer.startup()))
    assert signal.getsignal(signal.SIGTERM) == server.handle


async def ask(
    app: ASGIApp,
    *headers: tuple[bytes, bytes],
    peer: str | None = "127.0.0.1",
    host: bytes = b"localhost:80",
    method: str = "POST",
) -> Exchange:
    """Ask to drain, as this machine does unless said."""
    members = {"client": None if peer is None else (peer, 1), "headers": [(b"host", host), *headers]}
    return await call(app, http_scope(method, "/drain") | members)


async def test_this_machine_may_ask() -> None:
    """A POST of this machine's own begins draining, and is answered."""
    for options in ({}, {"peer": "::1", "host": b"[::1]:80"}, {"host": b"127.0.0.1"}, {"peer": "::ffff:127.0.0.1"}):
        layer = made(path="/drain")
        await layer.startup()
        assert (await ask(layer, **options)).body == b'{"status":"draining"}'
        assert await readiness(layer) == 503
        await layer.shutdown()


async def test_who_asks_is_answered_once_it_is_over(server: Server) -> None:
    """Whoever stops a process once its POST is answered, as a hook before a stop does, lets it drain in full."""
    layer = made(path="/drain", seconds=0.2)
    await layer.startup()
    begun = monotonic()
    assert (await ask(layer)).status == 200
    assert monotonic() - begun >= 0.2
    await layer.shutdown()


@pytest.mark.parametrize(
    ("headers", "options"),
    [
        ([], {"peer": "127.0.0.2"}),
        ([], {"peer": "10.0.0.1"}),
        ([], {"peer": None}),
        ([], {"method": "GET"}),
        ([], {"host": b"api.example.com"}),
        ([], {"host": b"localhost.example.com"}),
        ([(b"host", b"localhost")], {}),
        ([(b"x-forwarded-for", b"127.0.0.1")], {}),
        ([(b"forwarded", b"for=127.0.0.1")], {}),
        ([(b"via", b"1.1 proxy")], {}),
        ([(b"origin", b"https://evil.example")], {}),
    ],
)
async def test_nobody_else_may_ask(headers: list[tuple[bytes, bytes]], options: dict[str, Any]) -> None:
    """For everyone else, whatever proxy they come by, the path is the app's, and nothing is drained."""
    app = Echo()
    layer = DrainMiddleware(app, path="/drain")
    assert (await ask(layer, *headers, **options)).body == b"ok"
    assert not layer.draining.begun


async def test_a_trusted_proxy_may_not_ask() -> None:
    """A guard that believes the proxy on this machine does not drain for the clients behind it."""
    guard = Guard(
        Echo(), GuardSettings(health=HealthSettings(drain_path="/drain"), proxy=ProxySettings(trusted="127.0.0.1"))
    )
    assert (await ask(guard, (b"x-forwarded-for", b"127.0.0.1"))).body == b"ok"


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGUSR2"])
async def test_a_signal_begins(name: Any) -> None:
    """Another signal begins draining, and whoever handled it before is called, and has it back afterwards."""
    called = []
    number = getattr(signal, name)
    before = signal.signal(number, lambda *_: called.append(name))
    try:
        layer = made(on_signal=name)
        await layer.startup()
        os.kill(os.getpid(), number)
        assert (await readiness(layer), called) == (503, [name])
        await layer.shutdown()
        os.kill(os.getpid(), number)
        assert called == [name] * 2
    finally:
        signal.signal(number, before)


async def test_a_file_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file begins draining when it comes, and one that is left over when it is touched."""
    monkeypatch.setattr(operations_draining, "LOOK_SECONDS", 0.001)
    file = tmp_path / "drain"
    for time in (1, 2):
        layer = made(file=str(file))
        await layer.startup()
        await asyncio.sleep(0.01)
        assert await readiness(layer) == 200
        file.touch()
        os.utime(file, (time, time))
        async with asyncio.timeout(30):
            await layer.draining.event.wait()
        assert await readiness(layer) == 503
        await layer.shutdown()


async def test_streams_are_told() -> None:
    """What serves a stream or a WebSocket finds the event in its scope and by a function, and sees it set."""
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        event = asgi_guard.draining()
        assert event is scope["asgi_guard.draining"]
        waiting.set()
        async with asyncio.timeout(30):
            await event.wait()
        seen.append(scope["type"])

    layer = DrainMiddleware(app)
    await layer.startup()
    for scope in (http_scope(), websocket_scope()):
        waiting = asyncio.Event()
        served = asyncio.create_task(call(layer, scope))
        await waiting.wait()
        layer.draining.begin()
        await served
    assert seen == ["http", "websocket"]
    assert asgi_guard.draining() is None
    await layer.shutdown()


async def test_a_task_that_goes_on_is_told() -> None:
    """A task that goes on when its request is over still finds the event, also within a guard that drains nothing."""
    tasks: list[asyncio.Task[asyncio.Event | None]] = []
    over = asyncio.Event()

    async def later() -> asyncio.Event | None:
        await over.wait()
        return asgi_guard.draining()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        tasks.append(asyncio.create_task(later()))
        await Echo()(scope, receive, send)

    layer = DrainMiddleware(app)
    for guarded in (layer, Guard(layer, GuardSettings()), Guard(app, GuardSettings())):
        await get(guarded)
    over.set()
    event = layer.draining.event
    assert await asyncio.gather(*tasks) == [event, event, None]


async def patient(scope: Scope, receive: Receive, send: Send) -> None:
    """Wait for the drain for a moment, and tell whether it has begun."""
    event = asgi_guard.draining()
    assert event is not None
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), 0.01)
    await JSONResponse(event.is_set())(scope, receive, send)


async def told(app: ASGIApp) -> bool:
    """Whether a request to `patient` is told that this process drains."""
    exchange = await get(app)
    assert exchange.error is None
    return exchange.body == b"true"


def test_an_event_loop_for_each_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each request has an event loop of its own, as in tests, each may wait, and is told by any trigger."""
    monkeypatch.setattr(operations_draining, "LOOK_SECONDS", 0.001)
    file = tmp_path / "drain"
    layer = DrainMiddleware(patient, file=str(file))
    assert not any(asyncio.run(told(layer)) for _ in range(3))
    file.touch()
    assert all(asyncio.run(told(layer)) for _ in range(3))


@pytest.mark.parametrize("begun", [False, True])
def test_requests_after_the_end_in_another_loop(begun: bool) -> None:
    """Requests after the shut-down may wait too, and find the process as it is, with its triggers given back."""
    layer = DrainMiddleware(patient, seconds=1)

    async def serve() -> None:
        await layer.startup()
        assert not await told(layer)
        if begun:
            layer.draining.begin()
        await layer.shutdown()

    with Server.in_place() as server:
        asyncio.run(serve())
        assert [asyncio.run(told(layer)) for _ in range(2)] == [begun, begun]
        assert signal.getsignal(signal.SIGTERM) == server.handle


async def test_off_costs_nothing() -> None:
    """Where nothing begins draining there is no such layer, and no event."""
    guard = Guard(Echo(), GuardSettings())
    assert not any(isinstance(layer, DrainMiddleware) for layer in guard.layers)


async def test_without_lifespan(server: Server) -> None:
    """A server without lifespan has its SIGTERM taken over with the first request."""
    layer = made(seconds=3600)
    await get(layer, "/")
    assert signal.getsignal(signal.SIGTERM) != server.handle
    os.kill(os.getpid(), signal.SIGTERM)
    assert (await readiness(layer), server.stopped.is_set()) == (503, False)
    await layer.shutdown()


async def test_without_lifespan_and_handler() -> None:
    """Where nobody handles SIGTERM, a late layer leaves it alone: there is nobody to hand it on to."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        await get(made(seconds=1), "/")
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_bad_path() -> None:
    """A path that could never be asked for is refused, by the variable's name."""
    with pytest.raises(ConfigError) as caught:
        Guard(Echo(), GuardSettings(health=HealthSettings(drain_path="drain")))
    assert [problem.name for problem in caught.value.problems] == ["ASGI_GUARD_HEALTH_DRAIN_PATH"]


@pytest.mark.parametrize(("options", "status"), [({}, 503), ({"siblings": True}, 200)])
async def test_after_a_number_of_requests(
    server: Server, options: dict[str, Any], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that has served its number drains and ends; it stays ready where others take its requests."""
    monkeypatch.setattr(drain, "SPREAD", 0)
    layer = made(seconds=0.05, max_requests=3, **options)
    await layer.startup()
    served = [await get(layer, http_version="1.1") for _ in range(4)]
    assert [exchange.headers.get("connection") for exchange in served] == [None, None, "close", "close"]
    assert await readiness(layer) == status
    assert layer.draining.event.is_set()
    assert await asyncio.to_thread(server.stopped.wait, 30)
    await layer.shutdown()


async def test_sigterm_while_recycling(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first SIGTERM to a worker that has served its number is drained by what is under way, the second ends it."""
    monkeypatch.setattr(operations_draining, "ECHO_SECONDS", 0)
    for seconds, signals in ((0.2, 1), (3600, 2)):
        server.stopped.clear()
        layer = made(seconds=seconds)
        await layer.startup()
        begun = monotonic()
        layer.draining.recycle()
        for _ in range(signals):
            assert not server.stopped.is_set()
            os.kill(os.getpid(), signal.SIGTERM)
        assert await asyncio.to_thread(server.stopped.wait, 30)
        assert seconds == 3600 or monotonic() - begun >= 0.2
        await layer.shutdown()


async def test_sigterm_while_others_take_its_requests(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM to a worker that recycles, and is ready, drains in full: nobody was told yet to go elsewhere."""
    monkeypatch.setattr(operations_draining, "ECHO_SECONDS", 0)
    layer = made(seconds=0.5, siblings=True)
    await layer.startup()
    layer.draining.recycle()
    assert await readiness(layer) == 200
    await asyncio.sleep(0.3)
    begun = monotonic()
    os.kill(os.getpid(), signal.SIGTERM)
    assert await readiness(layer) == 503
    assert await asyncio.to_thread(server.stopped.wait, 30)
    assert monotonic() - begun >= 0.5
    assert server.signals == 1
    await layer.shutdown()


async def test_workers_do_not_leave_at_once() -> None:
    """Workers of one app that was loaded before they were forked serve up to a tenth more, each another part of it."""
    layer, numbers = DrainMiddleware(Echo(), seconds=1, max_requests=1000), set()
    for _ in range(50):
        await layer.startup()
        numbers.add(layer._left)
        await layer.shutdown()
    assert len(numbers) > 10
    assert min(numbers) >= 1000
    assert max(numbers) <= 1100


async def test_a_request_after_the_end(server: Server) -> None:
    """A request that comes after the shut-down takes no signal over again, and is served while draining still."""
    layer = made(seconds=3600)
    await layer.startup()
    layer.draining.begin()
    await layer.shutdown()
    assert (await get(layer, http_version="1.1")).headers["connection"] == "close"
    assert signal.getsignal(signal.SIGTERM) == server.handle


async def test_an_app_that_raised_in_its_start_up(server: Server) -> None:
    """Where the server serves on, it is ready, and drains as without lifespan: from the first request on."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        raise LookupError

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    settings = GuardSettings(health=HealthSettings(drain_seconds=3600), log=LogSettings(format="off"))
    guard = Guard(app, settings)
    with pytest.raises(LookupError):
        await guard({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, receive)
    assert signal.getsignal(signal.SIGTERM) == server.handle
    assert await readiness(guard) == 200
    os.kill(os.getpid(), signal.SIGTERM)
    assert (await readiness(guard), server.stopped.is_set()) == (503, False)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"max_requests": 5}, ["max_requests"]),
        ({"max_requests": -1, "seconds": 1}, ["max_requests"]),
        ({"max_requests": 5, "path": "drain"}, ["path", "max_requests"]),
        ({"on_signal": "SIGFOO"}, ["on_signal"]),
    ],
)
def test_an_end_without_draining(options: dict[str, Any], names: list[str]) -> None:
    """What would end or begin in no way there is is refused, by name, with all else that is wrong."""
    with pytest.raises(ConfigError) as caught:
        DrainMiddleware(Echo(), **options)
    assert [problem.name for problem in caught.value.problems] == names


def test_a_signal_that_this_system_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that is not there, as on Windows, is told by its variable."""
    monkeypatch.delattr(signal, "SIGUSR1")
    found = problems(HEALTH_DRAIN_SIGNAL="SIGUSR1", HEALTH_DRAIN_SECONDS="5")
    assert found == {"HEALTH_DRAIN_SIGNAL": ["there is no SIGUSR1 on this system"]}


async def test_libraries_find_the_server(server: Server) -> None:
    """What asks SIGTERM's handler whether the server is about to stop is told what the server says."""
    layer = made(seconds=3600)
    await layer.startup()
    taken: Any = signal.getsignal(signal.SIGTERM)
    before = taken.__self__.should_exit
    server.should_exit = True
    assert (before, taken.__self__.should_exit) == (False, True)
    await layer.shutdown()
