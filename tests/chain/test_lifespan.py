"""The lifespan protocol, through apps that have one and in the place of apps that have none."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal

import pytest
from asgiref.wsgi import WsgiToAsgi
from django.core.handlers.asgi import ASGIHandler  # type: ignore[import-untyped]
from starlette.applications import Starlette
from uvicorn import Config
from uvicorn.lifespan.on import LifespanOn

from asgi_guard import Guard
from asgi_guard.chain.layer import Chain, Layer
from tests.asgi import get

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from asgi_guard.asgi import ASGIApp, Message, Receive, Scope, Send

STARTUP = "lifespan.startup"
SHUTDOWN = "lifespan.shutdown"


class Noting(Layer):
    """A layer that notes what it is told, and fails where it is to."""

    name = "noting"

    def __init__(self, label: str, events: list[str], fails: str = "") -> None:
        super().__init__(without_lifespan)
        self.label = label
        self.events = events
        self.fails = fails

    def _note(self, what: str) -> None:
        self.events.append(f"{what} {self.label}")
        if self.fails == what:
            raise OSError("it does not work")

    async def startup(self) -> None:
        self._note("startup")

    def started(self) -> None:
        self._note("started")

    async def shutdown(self) -> None:
        self._note("shutdown")

    def without_lifespan(self) -> None:
        self._note("without")


async def without_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """Raise on any scope, as apps without lifespan do on this one."""
    raise KeyError(scope["type"])


class Server:
    """A server that runs the protocol once and notes what it is sent, between what the layers note."""

    def __init__(self, events: list[str]) -> None:
        self.events = events
        self.sent: list[Message] = []
        self.error: BaseException | None = None
        self.incoming: list[Message] = [{"type": STARTUP}, {"type": SHUTDOWN}]

    async def receive(self) -> Message:
        await asyncio.sleep(0)
        assert self.incoming, "the protocol is over: a server would wait here for ever"
        return self.incoming.pop(0)

    async def send(self, message: Message) -> None:
        self.events.append(message["type"].removeprefix("lifespan."))
        self.sent.append(message)

    async def run(self, app: ASGIApp, **members: Any) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, **members}
        try:
            await app(scope, self.receive, self.send)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
            self.error = error


async def run(app: ASGIApp, fails: Sequence[str] = ("", ""), **members: Any) -> Server:
    """Run the protocol through two layers."""
    server = Server([])
    layers = [Noting(label, server.events, what) for label, what in zip("ab", fails, strict=True)]
    await server.run(Chain(app, layers), **members)
    return server


WHOLE = [
    "startup a", "startup b", "started a", "started b", "startup.complete",
    "shutdown b", "shutdown a", "shutdown.complete",
]  # fmt: skip


def starlette(events: list[str], *, fails: str = "") -> Starlette:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        events.append("app startup")
        if fails == "startup":
            raise OSError("no database")
        yield {"pool": 1}
        events.append("app shutdown")
        if fails == "shutdown":
            raise OSError("no database")

    return Starlette(lifespan=lifespan)


async def test_an_app_with_lifespan() -> None:
    """Layers start before the app and stop after it, in reverse, and its state passes through."""
    events: list[str] = []
    state: dict[str, Any] = {}
    server = Server(events)
    await server.run(Chain(starlette(events), [Noting(label, events) for label in "ab"]), state=state)
    assert server.error is None
    assert events == [
        "startup a", "startup b", "app startup", "started a", "started b", "startup.complete",
        "app shutdown", "shutdown b", "shutdown a", "shutdown.complete",
    ]  # fmt: skip
    assert state == {"pool": 1}


async def returning(scope: Scope, receive: Receive, send: Send) -> None:
    """Return at once."""


async def returning_later(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()


async def returning_after_start(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})


async def returning_after_shutdown(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()


async def hasty(scope: Scope, receive: Receive, send: Send) -> None:
    """Say that all is ready before being asked."""
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == STARTUP
    assert (await receive())["type"] == SHUTDOWN


async def raising_later(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    raise KeyError("method")


@pytest.mark.parametrize(
    "app",
    [
        without_lifespan,
        returning,
        returning_later,
        returning_after_start,
        returning_after_shutdown,
        hasty,
    ],
)
async def test_an_app_without_lifespan(app: ASGIApp) -> None:
    """In the place of an app that has no lifespan, or leaves it early, the protocol is completed once."""
    server = await run(app)
    assert server.error is None
    assert server.events == WHOLE
    assert server.incoming == []  # layers are stopped once the server says so, and not before


async def test_other_messages() -> None:
    """What the protocol may say one day passes through, both ways."""
    received: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while not received or received[-1] != SHUTDOWN:
            received.append((await receive())["type"])
            await send({"type": f"{received[-1]}.complete"})

    server = Server([])
    server.incoming.insert(1, {"type": "lifespan.reload"})
    await server.run(Chain(app, [Noting("a", server.events)]))
    assert received == [STARTUP, "lifespan.reload", SHUTDOWN]
    assert server.events == [
        "startup a", "started a", "startup.complete", "reload.complete", "shutdown a", "shutdown.complete"
    ]  # fmt: skip


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_layer_in_layer(times: int) -> None:
    """However many layers lie around it, the protocol is completed once, whether or not the app has a lifespan."""
    for inner in (without_lifespan, returning, starlette([])):
        app: ASGIApp = inner
        for _ in range(times):
            app = Chain(app, [Noting("x", [])])
        server = await run(app, state={})
        assert server.error is None
        assert server.events == WHOLE


async def test_an_app_that_fails_to_start() -> None:
    """An app's failed start-up is passed on, once, after the layers were stopped."""
    events: list[str] = []
    server = Server(events)
    await server.run(Chain(starlette(events, fails="startup"), [Noting("a", events)]), state={})
    assert events == ["startup a", "app startup", "shutdown a", "startup.failed"]
    assert "no database" in server.sent[0]["message"]
    assert isinstance(server.error, OSError)


async def serving(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve until told to stop, and clean nothing up."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()


@pytest.mark.parametrize("app", [starlette([]), serving, returning, without_lifespan])
async def test_a_scope_that_is_given_up(app: ASGIApp) -> None:
    """Where the server cancels the scope, what was started is stopped all the same, whatever the app makes of it."""
    events: list[str] = []
    layers = [Noting(label, events, "") for label in "ab"]
    begun, never = asyncio.Event(), asyncio.Event()

    async def receive() -> Message:
        if begun.is_set():
            await never.wait()
        return {"type": STARTUP}

    async def send(message: Message) -> None:
        begun.set()

    async def serve() -> None:
        await Chain(app, layers)({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)

    task = asyncio.create_task(serve())
    await begun.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert events == ["startup a", "startup b", "started a", "started b", "shutdown b", "shutdown a"]


async def test_an_app_that_fails_to_stop() -> None:
    """An app's failed shut-down is passed on, once, and the layers are stopped all the same."""
    events: list[str] = []
    server = Server(events)
    await server.run(Chain(starlette(events, fails="shutdown"), [Noting("a", events)]), state={})
    assert events[-3:] == ["app shutdown", "shutdown a", "shutdown.failed"]
    assert isinstance(server.error, OSError)


async def test_an_app_that_breaks_down() -> None:
    """An app that raises while it serves stops the layers, and the exception is passed on."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise LookupError

    server = await run(app)
    assert isinstance(server.error, LookupError)
    assert server.events == [*WHOLE[:-1]]


@pytest.mark.parametrize("times", [0, 1])
async def test_an_app_that_raises_in_its_start_up(times: int, caplog: pytest.LogCaptureFixture) -> None:
    """It may have meant to start, so the server decides: it is told nothing, and layers are as without lifespan."""
    app: ASGIApp = raising_later
    for _ in range(times):
        app = Chain(app, [])
    server = await run(app)
    assert isinstance(server.error, KeyError)
    assert server.events == ["startup a", "startup b", "shutdown b", "shutdown a", "without a", "without b"]
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert "KeyError: 'method'" in caplog.text  # which not every server tells


@pytest.mark.parametrize(("mode", "ends"), [("on", True), ("auto", False)])
async def test_the_server_decides(mode: Literal["on", "auto"], ends: bool) -> None:
    """Uvicorn ends where an app that raises in its start-up is to have a lifespan, and else goes on."""
    lifespan = LifespanOn(Config(Chain(raising_later, []), lifespan=mode, log_config=None))
    await lifespan.startup()
    assert lifespan.should_exit is ends


class Misspelt:
    """A middleware that is added with an option that it does not have."""

    def __init__(self, app: ASGIApp, *, option: str = "") -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class HTTPAlone:
    """A middleware that knows no lifespan."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await self.app(scope, receive, send)


def unbuildable() -> Starlette:
    app = starlette([])
    app.add_middleware(Misspelt, options="")  # type: ignore[call-arg]
    return app


def with_middleware_of_http_alone() -> Starlette:
    app = starlette([])
    app.add_middleware(HTTPAlone)
    return app


class Indexing:
    """A middleware that takes every scope for a request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/closed":
            await self.app(scope, receive, send)


def guarded_from_within(broken: type[HTTPAlone | Indexing] = Indexing) -> Starlette:
    """An app to which first a middleware was added that fails on the lifespan scope, and then, around it, a guard."""
    app = starlette([])
    app.add_middleware(broken)
    app.add_middleware(Guard)
    return app


class Builder:
    """An app that is none of Starlette's, and has functions of the same names."""

    def build_middleware_stack(self, scope: Scope) -> None:
        raise ValueError(scope["type"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.build_middleware_stack(scope)


class Building(Starlette):
    """An app whose class builds by itself, as FastAPI does."""

    def build_middleware_stack(self) -> ASGIApp:
        raise LookupError("no such middleware")


@pytest.mark.parametrize("wrap", [lambda app: app, Misspelt, lambda app: Chain(app, [])])
async def test_an_app_that_cannot_be_built(wrap: Callable[[ASGIApp], ASGIApp]) -> None:
    """Its start-up has failed, with the reason, and the layers are not started: it would answer nothing."""
    server = await run(wrap(unbuildable()), state={})
    assert server.events == ["startup.failed"]
    assert "unexpected keyword argument 'options'" in server.sent[0]["message"]
    assert isinstance(server.error, TypeError)


async def test_a_class_that_builds_by_itself() -> None:
    """Of an app of a derived class it is the same, whether or not it asks Starlette to build."""
    server = await run(Building())
    assert server.events == ["startup.failed"]
    assert isinstance(server.error, LookupError)


async def test_one_of_several_that_cannot_be_built() -> None:
    """Where others would serve, nothing else is said of them."""

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        await (unbuildable() if scope["type"] == "lifespan" else starlette([]))(scope, receive, send)

    server = await run(dispatch, state={})
    assert server.sent[0]["message"].startswith("asgi-guard: the app could not be built, and would not be served: ")


async def test_what_is_called_as_if_it_built() -> None:
    """An app of one's own with functions of the same names is taken to have no lifespan, as any other."""
    server = await run(Builder())
    assert (server.error, server.events) == (None, WHOLE)


@pytest.mark.parametrize("broken", [HTTPAlone, Indexing])
async def test_a_guard_that_was_added_around_it(
    broken: type[HTTPAlone | Indexing], caplog: pytest.LogCaptureFixture
) -> None:
    """Middleware within a guard that was added keeps the app from its lifespan too: the server decides."""
    app = guarded_from_within(broken)
    server = Server([])
    await server.run(app, state={})
    assert isinstance(server.error, AssertionError | KeyError)
    assert server.events == []
    assert "the app raised in its start-up" in caplog.text
    assert (await get(app, "/health/ready")).status == 200


@pytest.mark.parametrize(("mode", "ends"), [("on", True), ("auto", False)])
async def test_the_server_decides_of_such_a_one(mode: Literal["on", "auto"], ends: bool) -> None:
    """Uvicorn ends with it where it insists on lifespan, and else goes on."""
    lifespan = LifespanOn(Config(guarded_from_within(), lifespan=mode, log_config=None))
    await lifespan.startup()
    assert lifespan.should_exit is ends


@pytest.mark.parametrize("mode", ["on", "auto"])
async def test_no_server_starts_with_it(mode: Literal["on", "auto"]) -> None:
    """Uvicorn ends with an app that cannot be built, whether or not it insists on lifespan."""
    lifespan = LifespanOn(Config(Chain(unbuildable(), []), lifespan=mode, log_config=None))
    await lifespan.startup()
    assert lifespan.should_exit


async def test_middleware_that_knows_no_lifespan(caplog: pytest.LogCaptureFixture) -> None:
    """Where it keeps an app from its lifespan, the server decides, and requests that come are served."""
    app = with_middleware_of_http_alone()
    server = await run(app, state={})
    assert isinstance(server.error, AssertionError)
    assert server.events == ["without a", "without b"]
    assert "the app raised in its start-up" in caplog.text
    assert (await get(Guard(app), "/health/ready")).status == 200


async def test_what_stands_around_an_app_with_lifespan(caplog: pytest.LogCaptureFixture) -> None:
    """What refuses a lifespan is completed for, whatever it wraps."""
    server = await run(HTTPAlone(starlette([])), state={})
    assert (server.error, server.events) == (None, WHOLE)
    assert caplog.records == []


async def building_late(scope: Scope, receive: Receive, send: Send) -> None:
    """Make the app with the first scope, whatever it is, which fails."""
    make()


def make() -> None:
    raise ValueError("no such database")


@pytest.mark.parametrize("app", [without_lifespan, building_late])
async def test_what_may_be_no_refusal(app: ASGIApp, caplog: pytest.LogCaptureFixture) -> None:
    """What raises by a slip, or further in, is completed for too, and this is told, with where it was raised."""
    server = await run(app)
    assert (server.error, server.events) == (None, WHOLE)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.exc_info is not None


async def insisting(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer whatever happens, as apps do whose lifespan stands in one `try`."""
    try:
        await receive()
    except OSError:
        await send({"type": "lifespan.startup.failed", "message": "the app's own"})


async def asking_again(scope: Scope, receive: Receive, send: Send) -> None:
    """Ask for more whatever happens."""
    for _ in range(2):
        with suppress(OSError):
            await receive()


STARTED: list[str] = []


@pytest.mark.parametrize(
    "app",
    [
        starlette(STARTED), returning_later, without_lifespan, insisting, asking_again, Chain(returning, []),
        Chain(returning_later, []),
    ],
)  # fmt: skip
async def test_a_layer_that_fails_to_start(app: ASGIApp) -> None:
    """A layer that cannot start fails the start-up, with the reason, once; it and those before it are stopped.

    The app is not started, and the server, which may tell nothing more, is asked for nothing more.
    """
    server = await run(app, ("", "startup"), state={})
    assert (STARTED, len(server.incoming)) == ([], 1)
    assert server.events == ["startup a", "startup b", "shutdown b", "shutdown a", "startup.failed"]
    assert server.sent[0]["message"] == "asgi-guard: it does not work"


async def test_a_layer_that_fails_to_stop(caplog: pytest.LogCaptureFixture) -> None:
    """A layer that cannot stop is logged, and keeps no other from stopping."""
    server = await run(returning, ("", "shutdown"))
    assert (server.error, server.events) == (None, WHOLE)
    assert "failed to shut down" in caplog.text


async def django(scope: Scope, receive: Receive, send: Send) -> None:
    """Django's app, without the settings of a project, which it needs for requests alone."""
    await ASGIHandler.__new__(ASGIHandler)(scope, receive, send)


async def asserting(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"


async def wsgi(scope: Scope, receive: Receive, send: Send) -> None:
    await WsgiToAsgi(print)(scope, receive, send)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("app", [django, asserting, wsgi])
async def test_an_app_that_says_that_it_has_none(app: ASGIApp, caplog: pytest.LogCaptureFixture) -> None:
    """That an app refuses the scope, as Django does, is no warning."""
    with caplog.at_level("INFO", "asgi_guard"):
        server = await run(app)
    assert (server.error, server.events) == (None, WHOLE)
    (record,) = caplog.records
    assert record.levelname == "INFO"


def test_another_event_loop() -> None:
    """Where no loop of asyncio runs, as under trio, the start-up fails, and says which loop is needed."""
    server = Server([])
    running = server.run(Chain(returning, []))
    with suppress(StopIteration):
        while True:
            running.send(None)
    assert server.events == ["startup.failed"]
    assert "needs an event loop of asyncio" in server.sent[0]["message"]
