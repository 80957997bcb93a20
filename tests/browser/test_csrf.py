"""An app with cookie sessions of its own, and pages of other sites that would act in its users' names."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from asgi_guard import CSRFSettings, Guard, GuardSettings, LogSettings, SecuritySettings, csrf
from asgi_guard.cli.browsing import seen_by_browser
from asgi_guard.policy.fetch import PageRequest

if TYPE_CHECKING:
    from asgi_guard.asgi import ASGIApp, Receive, Scope, Send
    from tests.browser.pages import Visits
    from tests.browser.serving import Exchanged, Site, Sites

pytestmark = pytest.mark.asyncio(loop_scope="package")

TRUSTED, SIBLING, FOREIGN = "app.club.localhost", "evil.club.localhost", "evil.localhost"
_SEND = """async token => {
    const answer = await fetch('/move', {method: 'POST', headers: {'x-csrf-token': token}});
    return [answer.status, await answer.text()];
}"""


def club(*, secure: bool) -> ASGIApp:
    """An app that knows its members by the session of Starlette, in a cookie that goes along from as far as it can."""

    async def page(request: Request) -> Response:
        if request.url.path == "/login":
            request.session["member"] = "alice"
        return HTMLResponse(f'<link rel=icon href=data:,><meta name=token content="{csrf.token()}">a page of the club')

    async def move(request: Request) -> Response:
        return PlainTextResponse(f"moved for {request.session['member']}")

    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(f"hello {websocket.session['member']}")
        await websocket.receive()

    post = ["POST"]
    routes = [
        Route("/", page), Route("/login", page), Route("/move", move, methods=post),
        Route("/hooks/a", move, methods=post), WebSocketRoute("/talk", talk),
    ]  # fmt: skip
    # SameSite=None would be taken from secure sites only; a name of this machine under `localhost` counts as one.
    same_site: Any = "none" if secure else "lax"
    session = Middleware(SessionMiddleware, secret_key="k" * 32, same_site=same_site, https_only=secure)
    return Starlette(routes=routes, middleware=[session])


def at(sites: Sites, name: str, *, old: bool = False, referrer: str | None = None, **section: Any) -> Site:
    """The app behind a guard; `old` takes away what browsers from before 2020 do not say."""
    said = CSRFSettings.model_validate({"mode": "enforce", "session_cookie": "session", "secret": "s" * 32, **section})
    page = SecuritySettings(preset="page", csp="off", referrer_policy=referrer)
    app = club(secure=name.endswith("localhost"))
    guard = Guard(app, GuardSettings(csrf=said, security=page, log=LogSettings(format="off")))

    async def of_before(scope: Scope, receive: Receive, send: Send) -> None:
        silent = (b"origin", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest", b"sec-fetch-user")
        await guard({**scope, "headers": [line for line in scope["headers"] if line[0] not in silent]}, receive, send)

    return sites.at(name, of_before if old else guard)


def last(site: Site, path: str) -> Exchanged:
    """What was sent there last: with the session's cookie, so that an app without a guard would act."""
    found = site.asked(path)[-1]
    assert "session=" in found.headers["cookie"]
    return found


async def test_own_pages_act(sites: Sites, visits: Visits) -> None:
    """A form, a script and a WebSocket of the app's own page act for its member."""
    site = at(sites, "own.club.localhost")
    visit = await visits.at(site.origin + "/login")
    assert (await visit.fetch(site.origin + "/move", method="POST"))["text"] == "moved for alice"
    assert await visit.open_websocket(site.websocket + "/talk") == {"code": 1000, "greeting": "hello alice"}
    assert await visit.submit(site.origin + "/move") == (200, "moved for alice")


@pytest.mark.parametrize(("attacker", "kind"), [(SIBLING, "same-site"), (FOREIGN, "cross-site")])
async def test_forms_of_other_pages_do_not(sites: Sites, visits: Visits, attacker: str, kind: str) -> None:
    """A form of another page comes with the session's cookie, and is refused."""
    site = at(sites, "own.club.localhost")
    await visits.at(site.origin + "/login")
    visit = await visits.at(sites.at(attacker).origin)
    status, text = await visit.submit(site.origin + "/move")
    assert (status, json.loads(text)["reason"]) == (403, "cross_site")
    assert last(site, "/move").headers["sec-fetch-site"] == kind


async def test_scripts_of_other_pages_do_not(sites: Sites, visits: Visits) -> None:
    """Requests and WebSockets of a sibling's script come with the cookie, and are refused but where that is exempt."""
    site = at(sites, "own.club.localhost", exempt="/hooks/*")
    await visits.at(site.origin + "/login")
    visit = await visits.at(sites.at(SIBLING).origin)
    sent = {"method": "POST", "credentials": "include", "mode": "no-cors"}
    for path, status in (("/move", 403), ("/hooks/a", 200)):
        assert "error" in await visit.fetch(site.origin + path, **sent)
        assert last(site, path).status == status
    assert await visit.open_websocket(site.websocket + "/talk") == {"code": 1006, "greeting": None}
    assert last(site, "/talk").status == 403


async def test_trusted_pages_and_only_logging(sites: Sites, visits: Visits) -> None:
    """A page of a trusted origin acts; in log mode every page does."""
    trusting = at(sites, "trusting.club.localhost", trusted_origins=sites.at(TRUSTED).origin)
    logging = at(sites, "logging.club.localhost", mode="log")
    for site in (trusting, logging):
        await visits.at(site.origin + "/login")
    trusted, foreign = await visits.at(sites.at(TRUSTED).origin), await visits.at(sites.at(FOREIGN).origin)
    assert await trusted.open_websocket(trusting.websocket + "/talk") == {"code": 1000, "greeting": "hello alice"}
    assert await foreign.open_websocket(trusting.websocket + "/talk") == {"code": 1006, "greeting": None}
    assert await trusted.submit(trusting.origin + "/move") == (200, "moved for alice")
    assert await foreign.submit(logging.origin + "/move") == (200, "moved for alice")


async def test_tokens_of_old_browsers(sites: Sites, visits: Visits) -> None:
    """A browser that says nothing of its page acts with the page's token, and another page has none."""
    site = at(sites, "old.club.localhost", old=True)
    await visits.at(site.origin + "/login")
    visit = await visits.at(site.origin)  # the session began with the answer before
    token = await visit.page.evaluate("document.querySelector('meta[name=token]').content")
    assert len(token) == 64
    assert await visit.page.evaluate(_SEND, token) == [200, "moved for alice"]
    status, text = await visit.page.evaluate(_SEND, token[::-1])
    assert (status, json.loads(text)["reason"]) == (403, "csrf_token_invalid")
    foreign = await visits.at(sites.at(FOREIGN).origin)
    asked = {"method": "POST", "credentials": "include", "headers": {"x-csrf-token": token}}
    assert "error" in await foreign.fetch(site.origin + "/move", **asked)
    assert site.asked("/move")[-1].method == "OPTIONS"  # a header of its own is asked for first, and nobody allows it
    status, text = await foreign.submit(site.origin + "/move")
    assert (status, json.loads(text)["reason"]) == (403, "csrf_token_missing")
    assert last(site, "/move").method == "POST"


async def test_by_origin_alone(sites: Sites, visits: Visits) -> None:
    """Over plain http, where browsers tell no site, own forms pass by their origin and others are refused."""
    site = at(sites, "own.club.test")
    own, foreign = await visits.at(site.origin + "/login"), await visits.at(sites.at("evil.club.test").origin)
    assert await own.submit(site.origin + "/move") == (200, "moved for alice")
    assert (await foreign.submit(site.origin + "/move"))[0] == 403
    assert "sec-fetch-site" not in last(site, "/move").headers


@pytest.mark.parametrize(("name", "status"), [("silent.club.localhost", 200), ("silent.club.test", 403)])
async def test_pages_that_tell_nobody_whence_they_come(sites: Sites, visits: Visits, name: str, status: int) -> None:
    """Under `no-referrer` the origin of a form is `null`: one of the app's own passes by its site, not over http."""
    site = at(sites, name, referrer="no-referrer")
    visit = await visits.at(site.origin + "/login")
    assert (await visit.submit(site.origin + "/move"))[0] == status
    assert last(site, "/move").headers["origin"] == "null"


async def test_explain_says_so(sites: Sites) -> None:
    """`asgi-guard explain` says whose WebSockets open, as the browser finds above."""
    for name, opens in ((TRUSTED, True), (SIBLING, False), (FOREIGN, False)):
        guard = at(sites, "explained.club.localhost", trusted_origins=sites.at(TRUSTED).origin).app
        assert isinstance(guard, Guard)
        page = PageRequest(sites.at(name).origin, credentials=True)
        told = await asyncio.to_thread(seen_by_browser, guard.settings, guard.layers, page, "/talk", websocket=True)
        assert told["readable"] is opens
