"""Cookies that a browser sends by itself: to pages that may act with them, and on behalf of those that may not."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from asgi_guard import AuthSettings, CORSSettings, Guard, GuardSettings, LogSettings, Route, SecuritySettings
from asgi_guard.cli.browsing import seen_by_browser
from asgi_guard.policy.fetch import PageRequest
from asgi_guard.testing import LocalIssuer

if TYPE_CHECKING:
    from asgi_guard.asgi import ASGIApp, Receive, Scope, Send
    from asgi_guard.testing import SigningKey
    from tests.browser.pages import Visits
    from tests.browser.serving import Exchanged, Site, Sites

pytestmark = pytest.mark.asyncio(loop_scope="package")

# A cookie without SameSite, as many are: browsers send it with a form of any site for two minutes, and with all that a
# sibling domain sends.
ROUTES = (Route("/login", auth="none"), Route("/", auth="none"))
TRUSTED, SIBLING, FOREIGN = "app.shop.localhost", "evil.shop.localhost", "evil.localhost"


@pytest.fixture(scope="module")
def issuer(signing_key: SigningKey) -> LocalIssuer:
    return LocalIssuer(key=signing_key)


def shop(issuer: LocalIssuer) -> ASGIApp:
    """An app that keeps its users logged in by a cookie, and tells who they are."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": f"hello {scope['user'].subject}"})
            while (await receive())["type"] != "websocket.disconnect":
                pass
            return
        headers = [(b"content-type", b"text/html")]
        if scope["path"] == "/login":
            headers.append((b"set-cookie", f"session={issuer.token('alice')}; Path=/; HttpOnly".encode()))
        body = b"moved for alice" if scope["path"] == "/move" else b"a page of the shop"
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def guarded(sites: Sites, issuer: LocalIssuer, name: str, *trusted: str) -> Site:
    auth = AuthSettings(issuer=issuer.url, audience=(issuer.audience,), cookie="session")
    origins = tuple(sites.at(each).origin for each in trusted)
    cors = CORSSettings(allow_origins=origins, allow_credentials=True) if origins else CORSSettings()
    page = SecuritySettings(preset="page")
    settings = GuardSettings(auth=auth, cors=cors, routes=ROUTES, security=page, log=LogSettings(format="off"))
    return sites.at(name, Guard(shop(issuer), settings, http_client=issuer.client))


@pytest.fixture(scope="module")
def own(sites: Sites, issuer: LocalIssuer) -> Site:
    """A shop whose own pages alone may act for its users."""
    return guarded(sites, issuer, "own.shop.localhost")


@pytest.fixture(scope="module")
def shared(sites: Sites, issuer: LocalIssuer) -> Site:
    """A shop where the pages of one other origin may, too."""
    return guarded(sites, issuer, "shared.shop.localhost", TRUSTED)


def last(site: Site, path: str) -> Exchanged:
    return site.asked(path)[-1]


async def test_own_pages_act_for_their_user(own: Site, visits: Visits) -> None:
    """A form, a script and a WebSocket of the app's own page act with its cookie."""
    visit = await visits.at(own.origin + "/login")
    assert (await visit.fetch(own.origin + "/move", method="POST"))["text"] == "moved for alice"
    assert await visit.open_websocket(own.websocket + "/talk") == {"code": 1000, "greeting": "hello alice"}
    assert await visit.submit(own.origin + "/move") == (200, "moved for alice")
    assert last(own, "/move").headers["sec-fetch-site"] == "same-origin"
    typed = await visits.at(own.origin + "/move")
    assert await typed.page.inner_text("body") == "moved for alice"
    assert last(own, "/move").headers["sec-fetch-site"] == "none"


@pytest.mark.parametrize(("attacker", "site"), [(SIBLING, "same-site"), (FOREIGN, "cross-site")])
async def test_a_form_of_another_page_is_refused(
    sites: Sites, own: Site, visits: Visits, attacker: str, site: str
) -> None:
    """A form that another origin's page submits comes with the user's cookie, and is refused by whence it comes."""
    await visits.at(own.origin + "/login")
    visit = await visits.at(sites.at(attacker).origin)
    status, text = await visit.submit(own.origin + "/move")
    sent = last(own, "/move").headers
    assert ("session=" in sent["cookie"], sent["sec-fetch-site"]) == (True, site)
    assert (status, "moved" in text) == (403, False)
    assert json.loads(text)["title"] == "Forbidden"


async def test_a_form_is_refused_by_its_origin(sites: Sites, issuer: LocalIssuer, visits: Visits) -> None:
    """Over plain http browsers tell the origin alone: by it the app's own forms pass, and others are refused."""
    shop = guarded(sites, issuer, "own.shop.test")
    visit = await visits.at(shop.origin + "/login")
    assert await visit.submit(shop.origin + "/move") == (200, "moved for alice")
    visit = await visits.at(sites.at("evil.test").origin)
    assert (await visit.submit(shop.origin + "/move"))[0] == 403
    for each in shop.asked("/move"):
        assert ("session=" in each.headers["cookie"], "sec-fetch-site" in each.headers) == (True, False)


async def test_a_form_of_nobody_is_refused(sites: Sites, own: Site, visits: Visits) -> None:
    """A sandboxed page, whose origin is `null`, gets no further than any other."""
    await visits.at(own.origin + "/login")
    visit = await visits.at(sites.at(SIBLING).origin)
    await visit.page.set_content(
        "<iframe name=hidden sandbox='allow-forms allow-scripts allow-top-navigation'></iframe>"
    )
    async with visit.page.expect_navigation(url=own.origin + "/move") as navigation:
        await visit.page.frames[1].evaluate(
            """url => {
                const form = document.createElement('form');
                Object.assign(form, {method: 'POST', action: url, target: '_top'});
                document.body.append(form);
                form.submit();
            }""",
            own.origin + "/move",
        )
    answer = await navigation.value
    assert answer is not None
    assert last(own, "/move").headers["origin"] == "null"
    assert answer.status == 403


async def test_a_script_of_another_page_is_refused(sites: Sites, own: Site, visits: Visits) -> None:
    """A request that needs no preflight is sent with the cookie by a sibling's script, and refused."""
    await visits.at(own.origin + "/login")
    visit = await visits.at(sites.at(SIBLING).origin)
    answer = await visit.fetch(own.origin + "/move", method="POST", credentials="include", mode="no-cors", body="a=b")
    assert "error" in answer
    assert ("session=" in last(own, "/move").headers["cookie"], last(own, "/move").status) == (True, 403)


async def test_links_of_another_page_lead_in(sites: Sites, own: Site, visits: Visits) -> None:
    """A link from another site is a GET, and finds the user logged in."""
    await visits.at(own.origin + "/login")
    visit = await visits.at(sites.at(FOREIGN).origin)
    async with visit.page.expect_navigation(url=own.origin + "/move"):
        await visit.page.evaluate("url => { location = url }", own.origin + "/move")
    assert await visit.page.inner_text("body") == "moved for alice"
    assert last(own, "/move").headers["sec-fetch-site"] == "cross-site"


async def test_a_trusted_page_acts_with_cookies(sites: Sites, shared: Site, visits: Visits) -> None:
    """A page of an origin that CORS names acts with the user's cookie and reads the answer; without it, as nobody."""
    visit = await visits.at(sites.at(TRUSTED).origin)
    login = await visit.fetch(shared.origin + "/login", credentials="include")
    assert (login["status"], "set-cookie" in login["headers"]) == (200, False)
    moved = await visit.fetch(shared.origin + "/move", method="POST", credentials="include")
    assert (moved["status"], moved["text"]) == (200, "moved for alice")
    assert (await visit.fetch(shared.origin + "/move", method="POST", credentials="omit"))["status"] == 401
    other = await visits.at(sites.at(SIBLING).origin)
    assert "error" in await other.fetch(shared.origin + "/move", method="POST", credentials="include")
    assert ("session=" in last(shared, "/move").headers["cookie"], last(shared, "/move").status) == (True, 403)


async def test_websockets(sites: Sites, own: Site, shared: Site, visits: Visits) -> None:
    """A WebSocket of another origin brings the cookie, and is refused unless CORS names it, as `explain` says."""
    for site in (own, shared):
        await visits.at(site.origin + "/login")
    trusted, sibling = await visits.at(sites.at(TRUSTED).origin), await visits.at(sites.at(SIBLING).origin)
    refused = {"code": 1006, "greeting": None}
    for site, visit, ended in (
        (own, trusted, refused),
        (own, sibling, refused),
        (shared, trusted, {"code": 1000, "greeting": "hello alice"}),
        (shared, sibling, refused),
    ):
        assert await visit.open_websocket(site.websocket + "/talk") == ended
        handshake = last(site, "/talk")
        assert "session=" in handshake.headers["cookie"]
        assert handshake.status == (403 if ended is refused else 101)
        guard = site.app
        assert isinstance(guard, Guard)
        request = PageRequest(handshake.headers["origin"], credentials=True)
        told = await asyncio.to_thread(seen_by_browser, guard.settings, guard.layers, request, "/talk", websocket=True)
        assert told["readable"] is (ended is not refused)
