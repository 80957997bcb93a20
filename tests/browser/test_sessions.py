"""The CSRF layer around an app with sessions of its own, as a browser meets it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route as StarletteRoute
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from asgi_guard import CORSSettings, CSRFSettings, Guard, GuardSettings, LogSettings, SecuritySettings, csrf
from asgi_guard.cli.browsing import seen_by_browser
from asgi_guard.policy.fetch import PageRequest

if TYPE_CHECKING:
    from tests.browser.pages import Visits
    from tests.browser.serving import Site, Sites

pytestmark = pytest.mark.asyncio(loop_scope="package")

SIBLING, TRUSTED, FOREIGN = "evil.forum.localhost", "app.forum.localhost", "evil.localhost"
SECRET = "a secret for tests that is long enough"


async def login(request: Request) -> PlainTextResponse:
    request.session["user"] = "alice"
    return PlainTextResponse("welcome")


async def page(request: Request) -> HTMLResponse:
    return HTMLResponse(f'<meta name="csrf-token" content="{csrf.token()}"><link rel=icon href=/icon>')


async def post(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"posted by {request.session.get('user')}")


async def talk(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(f"hello {socket.session.get('user')}")
    await socket.receive()


def guarded(sites: Sites, name: str, *, trusted: str | None = None, referrer: str | None = None, **said: Any) -> Site:
    """A forum that keeps its users logged in by Starlette's sessions."""
    forum = Starlette(
        routes=[
            StarletteRoute("/", page),
            StarletteRoute("/login", login),
            StarletteRoute("/post", post, methods=["POST"]),
            StarletteRoute("/hooks/in", post, methods=["POST"]),
            WebSocketRoute("/talk", talk),
        ],
        middleware=[Middleware(SessionMiddleware, secret_key=SECRET)],
    )
    csrf_settings = CSRFSettings(**{"mode": "enforce", "session_cookie": "session", "secret": SECRET, **said})
    origins = (sites.at(trusted).origin,) if trusted else ()
    settings = GuardSettings(
        csrf=csrf_settings,
        cors=CORSSettings(allow_origins=origins, allow_credentials=True) if origins else CORSSettings(),
        security=SecuritySettings(preset="page", referrer_policy=referrer),
        log=LogSettings(format="off"),
    )
    return sites.at(name, Guard(forum, settings))


@pytest.fixture(scope="module")
def forum(sites: Sites) -> Site:
    return guarded(sites, "own.forum.localhost", trusted=TRUSTED, exempt=("/hooks/*",))


async def may_open(site: Site, page: Site) -> bool:
    """Whether `explain` says that a page may open a WebSocket."""
    guard, request = site.app, PageRequest(page.origin, credentials=True)
    assert isinstance(guard, Guard)
    told = await asyncio.to_thread(seen_by_browser, guard.settings, guard.layers, request, "/talk", websocket=True)
    return bool(told["readable"])


async def test_own_pages_act(forum: Site, visits: Visits) -> None:
    """A form, a script and a WebSocket of the app's own page act with its session, with a token or without."""
    await visits.at(forum.origin + "/login")
    visit = await visits.at(forum.origin + "/")
    token = await visit.page.get_attribute("meta", "content")
    assert token
    sent = await visit.fetch_all(
        [
            {"url": forum.origin + "/post", "method": "POST", "headers": headers}
            for headers in ({}, {"x-csrf-token": token})
        ]
    )
    assert [answer["text"] for answer in sent] == ["posted by alice"] * 2
    assert await visit.open_websocket(forum.websocket + "/talk") == {"code": 1000, "greeting": "hello alice"}
    assert await visit.submit(forum.origin + "/post") == (200, "posted by alice")


async def test_a_sibling_does_not_act(sites: Sites, forum: Site, visits: Visits) -> None:
    """A form, a script and a WebSocket of a sibling domain come with the session, and are refused."""
    await visits.at(forum.origin + "/login")
    visit = await visits.at(sites.at(SIBLING).origin)
    await visit.fetch(forum.origin + "/post", method="POST", mode="no-cors", credentials="include")
    assert (await visit.open_websocket(forum.websocket + "/talk"))["code"] == 1006
    status, text = await visit.submit(forum.origin + "/post")
    assert (status, json.loads(text)["title"]) == (403, "Forbidden")
    for each in (*forum.asked("/post")[-2:], forum.asked("/talk")[-1]):
        assert ("session=" in each.headers["cookie"], each.status) == (True, 403)
    assert not await may_open(forum, sites.at(SIBLING))


async def test_another_site_does_not_act(sites: Sites, forum: Site, visits: Visits) -> None:
    """A form of another site is refused, whether the cookie goes along or, by SameSite, does not."""
    await visits.at(forum.origin + "/login")
    visit = await visits.at(sites.at(FOREIGN).origin)
    assert (await visit.submit(forum.origin + "/post"))[0] == 403
    assert forum.asked("/post")[-1].headers["sec-fetch-site"] == "cross-site"


async def test_a_trusted_page_acts(sites: Sites, forum: Site, visits: Visits) -> None:
    """A page of an origin that CORS allows with credentials acts by script, by WebSocket and by form."""
    await visits.at(forum.origin + "/login")
    visit = await visits.at(sites.at(TRUSTED).origin)
    answer = await visit.fetch(forum.origin + "/post", method="POST", credentials="include")
    assert answer["text"] == "posted by alice"
    assert (await visit.open_websocket(forum.websocket + "/talk"))["greeting"] == "hello alice"
    assert await may_open(forum, sites.at(TRUSTED))
    assert await visit.submit(forum.origin + "/post") == (200, "posted by alice")


async def test_what_is_exempt_or_only_logged(sites: Sites, forum: Site, visits: Visits) -> None:
    """An exempt path and a guard that only logs take what would be refused."""
    logging = guarded(sites, "logging.forum.localhost", mode="log")
    for url in (forum.origin + "/hooks/in", logging.origin + "/post"):
        visit = await visits.at(sites.at(FOREIGN).origin)
        assert (await visit.submit(url))[0] == 200


async def test_by_origin_alone(sites: Sites, visits: Visits) -> None:
    """Over plain http, where browsers tell no site, own forms pass by their origin and others are refused."""
    forum = guarded(sites, "forum.test")
    await visits.at(forum.origin + "/login")
    own, foreign = await visits.at(forum.origin + "/"), await visits.at(sites.at("evil.test").origin)
    assert await own.submit(forum.origin + "/post") == (200, "posted by alice")
    assert (await foreign.submit(forum.origin + "/post"))[0] == 403


@pytest.mark.parametrize(("name", "status"), [("silent.forum.localhost", 200), ("silent.forum.test", 403)])
async def test_pages_that_tell_nobody_whence_they_come(sites: Sites, visits: Visits, name: str, status: int) -> None:
    """Under `no-referrer` the origin of a form is `null`: one of the app's own passes by its site, not over http."""
    forum = guarded(sites, name, referrer="no-referrer")
    visit = await visits.at(forum.origin + "/")
    assert (await visit.submit(forum.origin + "/post"))[0] == status
    assert forum.asked("/post")[-1].headers["origin"] == "null"
