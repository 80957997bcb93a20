"""The Guard that an app brings along: whether every request comes to it, and what is served if not."""

from __future__ import annotations

import logging
from functools import wraps
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from quart import Quart
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from asgi_guard import (
    AccessLogMiddleware,
    APIKey,
    AuthSettings,
    ConfigError,
    Guard,
    GuardSettings,
    RequestIDMiddleware,
)
from asgi_guard import CORSMiddleware as Cors
from asgi_guard.apps.own_guard import guard_within, guarded, own_guard, passing_by
from asgi_guard.configuration.cautions import NOTHING_SAID
from asgi_guard.policy.identity import api_key_digest
from tests.asgi import Echo, get, websocket_scope
from tests.asgi import call as ask

if TYPE_CHECKING:
    from asgi_guard.asgi import ASGIApp, Receive, Scope, Send

KEY = b"the key"
CLOSED = GuardSettings(auth=AuthSettings(api_keys=(APIKey("ci", api_key_digest(KEY)),)))


class Engine:
    """Answers what lies below a path of its own, and hands on the rest, as servers of socket.io do."""

    def __init__(self, other: ASGIApp) -> None:
        self.other_asgi_app = other  # the only app that it holds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        within = scope["type"] != "lifespan" and scope["path"].startswith("/socket.io/")
        await (Echo() if within else self.other_asgi_app)(scope, receive, send)


class Plain:
    """Hands every request on, which nobody knows of it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class Compressing(GZipMiddleware):
    """Serves as what it inherits from does."""


def added(*outer: Any) -> FastAPI:
    """An app to which the Guard was added, and then others around it."""
    app = FastAPI(docs_url=None, redoc_url=None)
    for cls in (Guard, *outer):
        app.add_middleware(cls)
    return app


def test_an_app_whose_guard_gets_every_request_gets_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """Within what is known to hand on every request, or added as middleware, the Guard serves as it is."""
    guard = Guard(Echo(), CLOSED)
    quart: Any = Quart(__name__)
    quart.asgi_app = Guard(quart.asgi_app, CLOSED)
    mounted = Starlette(routes=[Mount("/", guard)], middleware=[Middleware(GZipMiddleware)])
    compressing: Any = Compressing(AccessLogMiddleware(guard))
    behind_proxies: Any = ProxyHeadersMiddleware(compressing)
    app: Any
    for app in (guard, AccessLogMiddleware(guard), behind_proxies, mounted, quart, added(), added(GZipMiddleware)):
        assert guarded(app) is app
        assert passing_by(app) == []
    assert not caplog.records


def test_an_app_without_a_guard_of_its_own_gets_one() -> None:
    """One of the environment is put around an app that has none, or one where only some requests come to."""
    mounted = Starlette(routes=[Mount("/v1", Guard(Echo(), CLOSED))])
    for app in (Echo(), RequestIDMiddleware(Echo()), FastAPI(), Quart(__name__), Engine(Echo()), mounted):
        assert isinstance(guarded(app), Guard)
        assert passing_by(app) == []


async def test_what_stands_around_a_guard_is_guarded_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What an app answers itself, around the Guard of another, is closed as it would be without that one."""
    monkeypatch.setenv("ASGI_GUARD_AUTH_API_KEYS", f"ci={api_key_digest(KEY)}")
    monkeypatch.setenv("ASGI_GUARD_LOG_FORMAT", "off")
    app = Engine(Guard(Echo(), CLOSED))
    served, header = guarded(app), (b"x-api-key", KEY)
    for path in ("/items", "/socket.io/"):
        assert (await get(served, path)).status == 401
        assert (await get(served, path, [header])).status == 200
    opened = await ask(served, websocket_scope("/socket.io/"))
    assert opened.messages[0]["type"] != "websocket.accept"
    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert said.startswith("Engine stands around the app's own Guard, and may answer requests that never come to it")
    assert said.endswith("put your own around Engine instead")


def test_whatever_may_answer_around_a_guard_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A wrapper that nobody knows, of any kind, is named, and a Guard put around it, which is told to be open."""
    guard = Guard(Echo(), CLOSED)

    @wraps(guard)
    async def by_hand(scope: Scope, receive: Receive, send: Send) -> None:
        await guard(scope, receive, send)

    routed = Starlette(routes=[Mount("/", guard)], middleware=[Middleware(Plain)])
    cases: list[tuple[Any, str]] = [
        (Plain(guard), "Plain"), (AccessLogMiddleware(Plain(guard)), "Plain"), (by_hand, "by_hand"), (routed, "Plain"),
        (Plain(added()), "Plain"),
    ]  # fmt: skip
    for app, name in cases:
        caplog.clear()
        assert own_guard(app) is None
        assert guard_within(app) is not None
        assert isinstance(guarded(app), Guard)
        first, *rest = [record.getMessage() for record in caplog.records]
        assert first.startswith(f"{name} stands around the app's own Guard")
        assert NOTHING_SAID in rest


def test_what_was_added_after_the_guard_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Middleware that stands further out than the Guard of the same app is named, and the app served as it is."""
    app = added(GZipMiddleware, Plain)
    assert guarded(app) is app
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("Plain stands around the app's own Guard")
    assert said.endswith("add the Guard last, and so outermost")
    by_function = added()

    @by_function.middleware("http")
    async def timing(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    (said,) = passing_by(by_function)
    assert said.startswith("timing stands around")
    within = FastAPI()
    within.add_middleware(Plain)
    within.add_middleware(Guard)
    assert passing_by(within) == []


def test_whoever_answers_preflights_around_a_guard_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A CORSMiddleware outside, added or wrapped around, is named, and the app served as it is; one within is not."""
    guard = Guard(Echo(), CLOSED)
    mounted = Starlette(routes=[Mount("/", guard)], middleware=[Middleware(CORSMiddleware)])
    ours = Cors(guard, allow_origins=("https://app.example",))
    for app in (CORSMiddleware(guard), CORSMiddleware(GZipMiddleware(guard)), mounted, ours, added(CORSMiddleware)):
        caplog.clear()
        assert guarded(app) is app
        (said,) = [record.getMessage() for record in caplog.records]
        assert said.startswith("CORSMiddleware stands around the app's own Guard, and answers preflights without an id")
    both = passing_by(CORSMiddleware(added(Plain)))
    assert [each.partition(" ")[0] for each in both] == ["CORSMiddleware", "Plain"]
    within = FastAPI()
    within.add_middleware(CORSMiddleware)
    within.add_middleware(Guard)
    assert passing_by(within) == passing_by(Guard(CORSMiddleware(Echo()), CLOSED)) == []


class Ours(Guard):
    """A guard of someone's own making."""


@pytest.mark.parametrize(("cls", "args", "options"), [(Guard, (CLOSED,), {}), (Ours, (), {"settings": CLOSED})])
async def test_a_guard_is_made_as_frameworks_make_it(cls: Any, args: Any, options: Any) -> None:
    """Settings that are given by position, as Starlette hands them on, and a class of one's own, make the guard."""
    app = FastAPI()
    app.add_middleware(cls, *args, **options)
    assert guarded(app) is app
    made: Any = own_guard(app)
    assert type(made(Echo())) is cls
    assert made(Echo()).settings is CLOSED
    assert (await get(app)).status == 401


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((Guard, Guard), "a Guard was added to it twice: two would charge every limit twice; keep one"),
        ((Guard, Ours), "a Guard was added to it twice: two would charge every limit twice; keep one"),
        ((Guard(Echo(), CLOSED),), "add_middleware takes the class, not a Guard that is made: add_middleware(Guard, "),
        ((RequestIDMiddleware(Echo()), Guard), "add_middleware takes the class, not a RequestIDMiddleware that is "),
    ],
)
def test_what_no_framework_can_make_is_refused_before_the_first_request(given: Any, said: str) -> None:
    """What was added, and would fail at every request, is refused where the app is looked at, and within a wrapper."""
    app = FastAPI()
    for cls in given:
        app.add_middleware(cls)
    for outside in (app, Plain(app), AccessLogMiddleware(app)):
        with pytest.raises(ConfigError) as caught:
            guarded(outside)
        assert str(caught.value).startswith(f"app: {said}")


async def test_guards_that_are_apart_serve() -> None:
    """Of two guards with something between them each is made, and what the inner one asks holds too."""
    app = FastAPI()
    app.add_middleware(Guard, CLOSED)
    app.add_middleware(GZipMiddleware)
    app.add_middleware(Guard)
    assert guarded(app) is app
    assert (await get(app)).status == 401
