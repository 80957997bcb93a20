"""What an app has within, and the guard does in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest.mock import AsyncMock, MagicMock

import pytest
from fastapi import FastAPI
from litestar import Litestar, asgi
from litestar.middleware import DefineMiddleware
from litestar.types import Receive as LitestarReceive
from litestar.types import Scope as LitestarScope
from litestar.types import Send as LitestarSend
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from asgi_guard import (
    APIKey,
    AuthSettings,
    ConfigError,
    CORSSettings,
    Guard,
    GuardSettings,
    RateLimitMiddleware,
    RateSettings,
    RequestIDMiddleware,
    Route,
    SecuritySettings,
)
from asgi_guard.apps.conflicts import conflicts
from tests.asgi import Echo, call, get, http_scope
from tests.configuring import DIGEST

if TYPE_CHECKING:
    from asgi_guard.asgi import ASGIApp

KEYS = AuthSettings(api_keys=(APIKey("ci", DIGEST),))
TOKENS = AuthSettings(issuer="https://i.example", audience=("a",))
CORS = CORSSettings(allow_origins=("https://app.example",))


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"auth": KEYS}, "the app's own CORSMiddleware sees no preflight"),
        ({"cors": CORSSettings(allow_origins=("https://a.example",))}, "the app's own CORSMiddleware marks answers"),
        ({}, ""),
    ],
)
def test_an_app_with_cors_of_its_own(sections: dict[str, Any], told: str, caplog: pytest.LogCaptureFixture) -> None:
    """An app that marks answers for browsers itself is told of where it and the guard are in each other's way."""
    app = FastAPI()
    Guard(app, GuardSettings(**sections))
    assert "CORSMiddleware" not in caplog.text
    app.add_middleware(CORSMiddleware, allow_origins=["*"])
    Guard(app, GuardSettings(**sections))
    assert told in caplog.text
    assert ("CORSMiddleware" in caplog.text) is bool(told)


@pytest.mark.parametrize("cors_first", [True, False])
async def test_cors_of_an_apps_own_is_in_the_way_within_the_guard_only(
    cors_first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """What was added after the guard stands around it, and sees every preflight; what was added before sees none."""
    app, settings = FastAPI(docs_url=None, redoc_url=None), GuardSettings(auth=KEYS)
    added: list[tuple[Any, Any]] = [(CORSMiddleware, {"allow_origins": ["*"]}), (Guard, {"settings": settings})]
    for cls, options in added if cors_first else reversed(added):
        app.add_middleware(cls, **options)
    said = list(conflicts(app, settings, added=True))
    assert ["sees no preflight" in each for each in said] == [True] * cors_first
    asked = [(b"origin", b"https://a.example"), (b"access-control-request-method", b"GET")]
    exchange = await call(app, http_scope("OPTIONS", "/", asked))
    assert (exchange.status, "x-request-id" in exchange.headers) == ((401, True) if cors_first else (200, False))
    assert ("sees no preflight" in caplog.text) is cors_first


def test_cors_within_wrappers_of_the_app_is_told() -> None:
    """However deep a CORSMiddleware stands within the guard, added or wrapped around, it is told of."""
    app = FastAPI(docs_url=None, redoc_url=None)
    app.add_middleware(CORSMiddleware, allow_origins=["*"])
    for held in (CORSMiddleware(Echo()), RequestIDMiddleware(CORSMiddleware(Echo())), RequestIDMiddleware(app)):
        (said,) = conflicts(held, GuardSettings(auth=KEYS))
        assert said.startswith("the app's own CORSMiddleware sees no preflight")


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({}, 'nothing at /docs and /redoc, whose scripts'),
        ({}, 'give them rows, as in {"path": "/docs", "security": "docs"}, or'),
        ({"auth": KEYS, "routes": (Route("/docs", auth="none"),)}, "and one for /openapi.json, or"),
        ({"routes": (Route("/docs", security="docs"),)}, "nothing at /redoc, whose"),
        ({"auth": KEYS, "routes": (Route("/docs", auth="none"),)}, '{"path": "/docs", "auth": "none", "security"'),
        ({"routes": (Route("/docs", security="docs"), Route("/redoc", security="docs"))}, ""),
        ({"auth": KEYS}, ""),
        ({"security": SecuritySettings(preset="docs")}, ""),
        ({"security": SecuritySettings(preset="page")}, "whose scripts the preset 'page' forbids"),
        ({"security": SecuritySettings(csp="default-src 'self'")}, ""),
    ],
)  # fmt: skip
def test_an_app_with_pages_of_documentation(sections: dict[str, Any], told: str) -> None:
    """FastAPI's own pages are told of where they are let through and stay blank, with the row that mends it."""
    said = list(conflicts(FastAPI(), GuardSettings(**sections)))
    assert [told in each for each in said] == [True] * bool(told)
    assert list(conflicts(FastAPI(docs_url=None, redoc_url=None), GuardSettings(**sections))) == []
    assert list(conflicts(FastAPI(openapi_url=None), GuardSettings(**sections))) == []


@pytest.mark.parametrize("caught", [Exception, 500, LookupError, None])
@pytest.mark.parametrize("added", [True, False])
async def test_an_app_with_a_handler_of_all_exceptions(caught: Any, added: bool) -> None:
    """An app is told that nobody gets the answer of its handler of all exceptions, exactly where that is so."""
    app = FastAPI(docs_url=None, redoc_url=None)

    async def handler(request: Request, error: Exception) -> Response:
        return Response(status_code=503)

    @app.get("/")
    def page() -> None:
        raise ZeroDivisionError

    if caught is not None:
        app.add_exception_handler(caught, handler)
    if added:
        app.add_middleware(RequestIDMiddleware)
    said = list(conflicts(app, GuardSettings()))
    exchange = await get(Guard(app, GuardSettings()))
    handles = caught in (Exception, 500)
    assert [each.partition(" by ")[0] for each in said] == [
        "what the app's own handler of Exception answers is not sent: RequestIDMiddleware stands within it"
    ] * (handles and added)
    assert exchange.status == (503 if handles and not added else 500)


@pytest.mark.parametrize("app", [AsyncMock(), MagicMock()])
def test_an_app_that_has_whatever_it_is_asked_for(app: Any) -> None:
    """The stubs of other people's tests are no apps with pages."""
    assert list(conflicts(app, GuardSettings(routes=(Route("/a", auth=None),)))) == []


def test_a_guard_within_that_charges_too() -> None:
    """A guard around an app that holds one, and charges limits as that does, says so; a layer alone was meant."""
    limited = GuardSettings(rate=RateSettings(limit="1/second by ip"))
    guard = Guard(Echo(), limited)
    wrapped = CORSMiddleware(guard)
    for held in (wrapped, guard):
        (said,) = conflicts(held, limited)
        assert said.startswith("a guard within this one charges limits too")
    assert list(conflicts(wrapped, GuardSettings())) == []
    alone = RateLimitMiddleware(Echo(), limit="1/second by ip")
    inner: tuple[ASGIApp, ...] = (Guard(Echo(), GuardSettings()), alone, Echo())
    for app in inner:
        assert list(conflicts(CORSMiddleware(app), limited)) == []


@asgi("/admin", is_mount=True, copy_scope=True)  # which older versions keep as an option of the app
async def mounted(scope: LitestarScope, receive: LitestarReceive, send: LitestarSend) -> None:
    """Whatever is mounted."""


@pytest.mark.parametrize(
    ("routes", "told"),
    [
        ((Route("/admin"), Route("/admin/*"), Route("/*", auth="none")), True),
        ((Route("/admin/*", scopes=("a",)), Route("/*", auth="optional")), True),
        ((Route("/admin"), Route("/admin/*"), Route("/public/*", auth="none")), False),
        ((Route("/*", auth="none"),), False),
        ((Route("/admin/*", auth="none"), Route("/*", auth="none")), False),
    ],
)
def test_what_is_mounted_in_litestar(routes: tuple[Route, ...], told: bool) -> None:
    """Litestar's mounts take paths that a row for them does not hold for: where those are let in, it is told."""
    app = Litestar([mounted], logging_config=None)  # else it would set up logging for all
    said = list(conflicts(app, GuardSettings(auth=TOKENS, routes=routes)))
    assert len(said) == told
    assert all("Litestar hands what is mounted at /admin every path" in each for each in said)
    assert list(conflicts(app, GuardSettings(routes=(Route("/*", auth="none"),)))) == []


@pytest.mark.parametrize("form", ["alone", "first", "last", "defined"])
def test_a_guard_for_each_route(form: str) -> None:
    """A Guard in Litestar's list of middleware, which is made for each route, is refused; one around it is not."""
    listed: dict[str, list[Any]] = {
        "alone": [Guard],
        "first": [Guard, RequestIDMiddleware],
        "last": [RequestIDMiddleware, Guard],
        "defined": [DefineMiddleware(Guard, settings=GuardSettings())],
    }
    with pytest.raises(ConfigError, match=r"app: .* wrap the app, Guard\(Litestar"):
        Litestar([mounted], middleware=listed[form], logging_config=None)
    app = Litestar([mounted], middleware=[RequestIDMiddleware], logging_config=None)
    Guard(app, GuardSettings())
    Guard(app.asgi_handler, GuardSettings())
