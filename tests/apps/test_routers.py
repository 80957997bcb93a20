"""Routers of real frameworks: whatever path is asked for, none serves what the guard judged by another row."""

from __future__ import annotations

import asyncio
import functools
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest
from django.conf import settings as django_settings  # type: ignore[import-untyped]
from django.core.asgi import get_asgi_application  # type: ignore[import-untyped]
from django.http import HttpResponse  # type: ignore[import-untyped]
from django.urls import path as django_path  # type: ignore[import-untyped]
from django.urls import re_path
from fastapi import APIRouter, FastAPI
from hypothesis import example, given, settings
from hypothesis import strategies as st
from litestar import Litestar
from litestar import get as litestar_get
from quart import Quart
from quart import request as quart_request
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute

from asgi_guard import AccessLogMiddleware, APIKey, AuthSettings, Guard, GuardSettings, RateSettings
from asgi_guard import Route as Row
from asgi_guard.apps.inspection import own_root_path, root_paths_within
from asgi_guard.policy.identity import api_key_digest
from tests.asgi import Exchange, call, http_scope, websocket_scope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.requests import Request
    from starlette.websockets import WebSocket

    from asgi_guard.asgi import ASGIApp, Header, Message, Receive, Scope, Send

ROWS = (
    Row("/admin", auth="required"),
    Row("/users/*/keys", auth="required"),
    Row("/files/*", auth="required"),
    Row("/files/", auth="required"),
    Row("/v1/admin", auth="required"),
    Row("/socket", auth="required"),
    Row("/*", auth="none"),
)
SETTINGS = GuardSettings(auth=AuthSettings(api_keys=(APIKey("ci", "0" * 64),)), routes=ROWS)
SCOPED = GuardSettings(
    auth=AuthSettings(api_keys=(APIKey("ci", api_key_digest(b"k")),)),
    routes=tuple(Row(row.path, scopes=("secret",)) for row in ROWS if row.auth == "required"),
)
"""The same, where everyone who is known gets anywhere else."""
SECRET = b"SECRET"


async def ask(app: ASGIApp, scope: Scope) -> Exchange:
    """Call an app, whose client leaves with the answer: Django gives none before, and Quart waits until then."""
    exchange, asked, answered = Exchange(), False, asyncio.Event()

    async def receive() -> Message:
        nonlocal asked
        if asked:
            await answered.wait()
            return {"type": "http.disconnect"}
        asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        exchange.messages.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            answered.set()

    await app(scope, receive, send)
    return exchange


def starlette() -> ASGIApp:
    async def secret(request: Request) -> PlainTextResponse:
        return PlainTextResponse(SECRET)

    async def public(request: Request) -> PlainTextResponse:
        return PlainTextResponse("public")

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    return Starlette(
        routes=[
            Route("/admin", secret),
            Route("/users/{name}/keys", secret),
            Route("/files/{path:path}", secret),
            Mount("/v1", routes=[Route("/admin", secret)]),
            WebSocketRoute("/socket", socket),
            Route("/{path:path}", public),
        ]
    )


def fastapi(root_path: str = "") -> FastAPI:
    made = FastAPI()
    made.root_path = root_path  # what its argument sets, which is deprecated, and holds

    def secret() -> str:
        return SECRET.decode()

    for path in ("/admin", "/users/{name}/keys", "/files/{path:path}"):
        made.get(path)(secret)
    inner = FastAPI()
    inner.get("/admin")(secret)
    made.mount("/v1", inner)
    return made


def quart() -> ASGIApp:
    app = Quart(__name__)

    async def secret(**_: str) -> bytes:
        return SECRET

    for rule in ("/admin", "/users/<name>/keys", "/files/<path:path>", "/v1/admin"):
        app.add_url_rule(rule, rule, secret)
    return app


def litestar() -> ASGIApp:
    @litestar_get(["/admin", "/users/{name:str}/keys", "/files/{rest:path}", "/v1/admin"], media_type="text/plain")
    async def secret() -> bytes:
        return SECRET

    return Litestar([secret], openapi_config=None, logging_config=None)


def answer(request: object, **_: str) -> HttpResponse:
    return HttpResponse(SECRET)


urlpatterns = [
    django_path("admin", answer),
    re_path("^users/(?P<name>[^/]+)/keys$", answer),
    django_path("files/<path:path>", answer),
    django_path("v1/admin", answer),
]


def django() -> ASGIApp:
    if not django_settings.configured:
        django_settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], MIDDLEWARE=[], SECRET_KEY="k" * 50)
    app: Any = get_asgi_application()
    return app  # type: ignore[no-any-return]


@pytest.fixture
def below_api() -> Iterator[None]:
    """Django with a prefix of its own, while inside."""
    django_settings.FORCE_SCRIPT_NAME = "/api"
    yield
    django_settings.FORCE_SCRIPT_NAME = None


@pytest.mark.usefixtures("below_api")
async def test_the_prefix_of_django_is_read_as_django_does() -> None:
    """Below FORCE_SCRIPT_NAME, with and without the prefix, a protected view is refused."""
    app = django()
    guard = Guard(app, SETTINGS)
    for path in ("/admin", "/api/admin", "/apiadmin"):
        served = SECRET in (await ask(app, http_scope("GET", path))).body
        assert served == (path != "/apiadmin")
        assert (await ask(guard, http_scope("GET", path))).status in (400, 401)


APPS: dict[str, ASGIApp] = {
    "django": django(),
    "litestar": litestar(),
    "starlette": starlette(),
    "fastapi": fastapi(),
    "fastapi below /api": fastapi("/api"),
    "quart": quart(),
}
GUARDS = {name: Guard(app, SETTINGS) for name, app in APPS.items()}
SCOPED_GUARDS = {name: Guard(app, SCOPED) for name, app in APPS.items()}
PIECES = st.sampled_from(
    ["/", "/", "/", "admin", "users", "keys", "files", "v1", "api", "a", "1", ".", "..", "//", "\\", ";x", "%2f", "%5C",
     "%2e", "%", "%25", "\n", "\r", "\t", "\0", "\x0b", "\x1f", "\x7f", " ", "\xa0", "\u2028", "é", "?", "#", "http:",
     "ADMIN", "/admin", "/users/1/keys", "/api/admin", "/v1/admin", "/files/x"]
)  # fmt: skip
PATHS = st.lists(PIECES, min_size=1, max_size=5).map("".join)
ROOTS = st.sampled_from(["", "", "", "/", "/api", "/api/", "/a", "/adm", "/v1", "/public", "/users/1"])


@pytest.mark.parametrize("name", APPS)
@given(path=PATHS, root_path=ROOTS)
@settings(max_examples=400)
@example(path="/admin\n", root_path="")
@example(path="/users/1/keys\n", root_path="")
@example(path="/users/\n/keys\n", root_path="")
@example(path="/v1/admin\n", root_path="")
@example(path="/admin/", root_path="")
@example(path="/users/1/keys/", root_path="")
@example(path="/a/api/admin", root_path="/api")
@example(path="/apiadmin", root_path="/api")
@example(path="/api/admin", root_path="/api/")
@example(path="/api/admin", root_path="")
@example(path="/api/api/admin", root_path="/api")
@example(path="x:admin", root_path="")
@example(path="foo:/admin", root_path="")
@example(path="admin;x", root_path="")
@example(path="admin%23x", root_path="")
@example(path="admin", root_path="")
async def test_nobody_who_may_not_reaches_a_protected_route(name: str, path: str, root_path: str) -> None:
    """A path of a protected endpoint is refused to strangers and to those without its scope, however it is written."""
    tries: tuple[tuple[Guard, list[Header]], ...] = ((GUARDS[name], []), (SCOPED_GUARDS[name], [(b"x-api-key", b"k")]))
    for guard, headers in tries:
        scope = http_scope(
            "GET", unquote(path), headers, raw_path=path.encode(), root_path=root_path, server=("testserver", 80)
        )
        exchange = await ask(guard, scope)
        assert SECRET not in exchange.body, (path, root_path, headers)


class Wrapper:
    """Someone's middleware, which keeps the app under a name of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.other_asgi_app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.other_asgi_app(scope, receive, send)


def enclosed(app: ASGIApp) -> ASGIApp:
    async def wrapper(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return wrapper


def at_root(app: ASGIApp) -> ASGIApp:
    return Starlette(routes=[Mount("/", app)])


def decorated(app: ASGIApp) -> ASGIApp:
    @functools.wraps(app)
    async def wrapper(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return wrapper


class Handling(Wrapper):
    """A wrapper that keeps a method of its own beside the app."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app)
        self.handle = self._handle

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.other_asgi_app(scope, receive, send)


def delayed(app: ASGIApp) -> ASGIApp:
    async def wrapper(scope: Scope, receive: Receive, send: Send) -> None:
        await later(scope, receive, send)

    before = wrapper
    later = app
    return before


@pytest.mark.parametrize(
    "wrap",
    [
        Wrapper,
        enclosed,
        at_root,
        delayed,
        decorated,
        Handling,
        lambda app: Wrapper(app).__call__,
        lambda app: enclosed(Wrapper(app)),
    ],
)
async def test_a_root_path_is_found_within(wrap: Callable[[ASGIApp], ASGIApp]) -> None:
    """However an app is wrapped that sets its own root path, no row is passed by, with the root path or without."""
    guard = Guard(wrap(fastapi("/api")), SCOPED)
    for path in ("/admin", "/api/admin"):
        exchange = await ask(guard, http_scope("GET", path, [(b"x-api-key", b"k")]))
        assert exchange.status == 403, path


def test_a_stand_in_for_nothing() -> None:
    """What stands for an object that is not there, as Flask's and Quart's do outside of a request, is passed over."""
    request: Any = quart_request

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert request is not None

    assert own_root_path(app) == ""
    assert own_root_path(request) == ""
    assert own_root_path(Wrapper(request)) == ""
    assert root_paths_within(app) == root_paths_within(request) == root_paths_within(Wrapper(request)) == set()


def test_root_paths_that_disagree() -> None:
    """Where several apps are found and each takes another root path, nobody's is taken for all of them."""
    both = [fastapi("/a"), fastapi("/b")]

    async def either(scope: Scope, receive: Receive, send: Send) -> None:
        await first(scope, receive, send) if scope["path"] < "/b" else await second(scope, receive, send)

    first, second = both
    assert own_root_path(either) == ""
    second = first
    assert own_root_path(either) == "/a"


class Beside:
    """A dispatcher between an app with a root path of its own and one without."""

    def __init__(self, api: ASGIApp, site: ASGIApp) -> None:
        self.api, self.site = api, site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.api if (b"host", b"api") in scope["headers"] else self.site)(scope, receive, send)


@pytest.mark.parametrize("site", [starlette(), quart(), litestar(), enclosed(starlette())])
async def test_the_root_path_of_one_of_several(site: ASGIApp, caplog: pytest.LogCaptureFixture) -> None:
    """One app's root path is not taken for that of another beside it, and that none is taken is told."""
    guard = Guard(Beside(fastapi("/api"), site), SETTINGS)
    assert own_root_path(guard.app) == ""
    assert "an app within takes /api for its root path" in caplog.text
    caplog.clear()
    Guard(enclosed(fastapi("/api")), SETTINGS)
    assert "an app within" not in caplog.text


async def test_a_guard_within_the_app_that_it_guards(caplog: pytest.LogCaptureFixture) -> None:
    """A guard that FastAPI stacks sees the root path in the scope, and warns of none."""
    app = fastapi("/api")
    app.add_middleware(Guard, settings=SCOPED)
    for path in ("/admin", "/api/admin"):
        assert (await ask(app, http_scope("GET", path, [(b"x-api-key", b"k")]))).status == 403, path
    assert "an app within" not in caplog.text


def test_a_wrapper_that_holds_much() -> None:
    """What is kept as `app` is found beside however much else."""
    wrapper = Wrapper(starlette())
    wrapper.__dict__ |= {f"hook_{number}": enclosed(starlette()) for number in range(100)}
    wrapper.__dict__["app"] = fastapi("/api")
    assert own_root_path(wrapper) == "/api"


@pytest.mark.parametrize("name", APPS)
async def test_what_is_protected_is_there(name: str) -> None:
    """Without the guard the routes serve, so that the refusals above mean something."""
    for path in ("/admin", "/users/1/keys", "/files/a/b", "/api/v1/admin" if "below" in name else "/v1/admin"):
        assert SECRET in (await ask(APPS[name], http_scope("GET", path, server=("testserver", 80)))).body, path


@pytest.mark.parametrize("path", ["/socket", "/socket\n", "//socket", "/./socket"])
async def test_a_handshake_is_held_to_the_same(path: str) -> None:
    """A WebSocket of a protected route is refused, too."""
    exchange = await call(GUARDS["starlette"], websocket_scope(path))
    assert exchange.messages[0]["type"] == "websocket.http.response.start"
    assert exchange.status in (400, 401)


async def test_a_limit_of_a_row_cannot_be_slipped_out_of() -> None:
    """A path that the router takes for that of a row with a limit is under it, or refused."""
    rows = (Row("/login", limits="2/hour by ip"),)
    guard = Guard(starlette(), GuardSettings(routes=rows, rate=RateSettings(limit="100/second by ip")))
    statuses = [(await call(guard, http_scope("GET", path))).status for path in ("/login", "/login\n", "/login\n")]
    assert statuses == [200, 400, 400]


async def test_the_route_of_an_included_router() -> None:
    """What FastAPI serves of a router is told by its whole path, with the prefixes under which it was included."""
    lines: list[bytes] = []
    users, version, app = APIRouter(), APIRouter(), FastAPI()

    @users.get("/{number}")
    async def one(number: int) -> int:
        return number

    @users.websocket("/{number}/chat")
    async def chat(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close()

    @app.get("/plain")
    async def plain() -> None: ...

    version.include_router(users, prefix="/users")
    app.include_router(version, prefix="/v1")
    app.include_router(version, prefix="/v2")
    logged = AccessLogMiddleware(app, write=lines.append)
    for path in ("/v1/users/3", "/v2/users/3", "/plain", "/v1/nothing/here"):
        await call(logged, http_scope(path=path))
    await call(logged, websocket_scope("/v1/users/3/chat"))
    told = [json.loads(line).get("http.route") for line in lines]
    assert told == ["/v1/users/{number}", "/v2/users/{number}", "/plain", None, "/v1/users/{number}/chat"]
