"""What a page of another origin makes of a guarded app's answers: refusals and failures too."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from asgi_guard import (
    AuthSettings,
    CORSSettings,
    Guard,
    GuardSettings,
    LogSettings,
    Route,
    SecurityHeaders,
    SecuritySettings,
)
from asgi_guard.testing import LocalIssuer
from tests.browser.serving import empty_page

if TYPE_CHECKING:
    from asgi_guard.asgi import Receive, Scope, Send
    from asgi_guard.testing import SigningKey
    from tests.browser.pages import Visits
    from tests.browser.serving import Site, Sites

pytestmark = pytest.mark.asyncio(loop_scope="package")

ROUTES = (
    Route("/open", auth="none"),
    Route("/broken", auth="none"),
    Route("/picture", auth="none"),
    Route("/shared/picture", auth="none", security=SecurityHeaders(resource_policy="cross-origin")),
    Route("/limited", auth="none", limits="1/hour by ip"),
    Route("/admin", scopes=("admin",)),
)

_SHOW = """url => new Promise(resolve => {
    const picture = new Image();
    picture.onload = () => resolve('shown');
    picture.onerror = () => resolve('refused');
    picture.src = url;
})"""


class BrokenError(Exception):
    """What the app raises."""


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/broken":
        raise BrokenError
    picture = scope["path"].endswith("/picture")
    kind = b"image/svg+xml" if picture else b"text/plain"
    body = b'<svg xmlns="http://www.w3.org/2000/svg"/>' if picture else b"told"
    headers = [(b"content-type", kind), (b"x-total", b"7"), (b"x-hidden", b"1")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def issuer(signing_key: SigningKey) -> LocalIssuer:
    return LocalIssuer(key=signing_key)


@pytest.fixture(scope="module")
def api(sites: Sites, issuer: LocalIssuer) -> Site:
    """An app that needs tokens, and lets the pages of one origin call."""
    settings = GuardSettings(
        auth=AuthSettings(issuer=issuer.url, audience=(issuer.audience,)),
        cors=CORSSettings(
            allow_origins=(sites.at("pages.localhost").origin,),
            allow_headers=("authorization", "content-type"),
            allow_methods=("PUT",),
            expose_headers=("x-total",),
        ),
        routes=ROUTES,
        log=LogSettings(format="off"),
    )
    return sites.at("answers.localhost", Guard(app, settings, http_client=issuer.client))


ANSWERS: list[tuple[str, int, dict[str, Any]]] = [
    ("/open", 200, {}),
    ("/items", 401, {}),
    ("/items", 401, {"authorization": "Bearer nonsense"}),
    ("/admin", 403, {"authorization": "Bearer READ"}),
    ("/items", 200, {"authorization": "Bearer READ"}),
    ("/broken", 500, {}),
]


@pytest.mark.parametrize(("path", "status", "headers"), ANSWERS)
async def test_a_page_reads_the_answer(
    sites: Sites, api: Site, visits: Visits, issuer: LocalIssuer, path: str, status: int, headers: dict[str, str]
) -> None:
    """A script of an allowed origin reads its answer, refusals and failures too; that of another reads none."""
    token = issuer.token(scopes=("items:read",))
    sent = {name: value.replace("READ", token) for name, value in headers.items()}
    visit = await visits.at(sites.at("pages.localhost").origin)
    answer = await visit.fetch(api.origin + path, headers=sent)
    assert answer["status"] == status
    shown = answer["headers"]
    assert shown["x-request-id"]
    assert ("www-authenticate" in shown) is (status in (401, 403))
    if status == 200:
        assert (answer["text"], shown["x-total"], "x-hidden" in shown) == ("told", "7", False)
    else:
        problem = json.loads(answer["text"])
        assert (problem["status"], problem["request_id"]) == (status, shown["x-request-id"])
    before = len(api.asked(path))
    foreign = await (await visits.at(sites.at("strangers.localhost").origin)).fetch(api.origin + path, headers=sent)
    assert foreign == {"error": "TypeError: Failed to fetch"}
    (last,) = api.asked(path)[before:]
    assert (last.method, last.status) == (("OPTIONS", 403) if headers else ("GET", status))


async def test_a_page_reads_when_to_come_back(sites: Sites, api: Site, visits: Visits) -> None:
    """A script over its limit reads the 429, how long to wait, and what is left of which limit."""
    visit = await visits.at(sites.at("pages.localhost").origin)
    assert (await visit.fetch(api.origin + "/limited"))["status"] == 200
    over = await visit.fetch(api.origin + "/limited")
    assert over["status"] == 429
    assert int(over["headers"]["retry-after"]) > 0
    assert {"ratelimit", "ratelimit-policy", "x-request-id"} <= set(over["headers"])
    foreign = await visits.at(sites.at("strangers.localhost").origin)
    assert "error" in await foreign.fetch(api.origin + "/limited")
    assert [each.status for each in api.asked("/limited")] == [200, 429, 429]


async def test_nothing_is_read_where_no_origin_is_named(sites: Sites, visits: Visits, issuer: LocalIssuer) -> None:
    """Without CORS, a script of another origin reads no answer, whatever its status; one of the app's own reads all."""
    auth = AuthSettings(issuer=issuer.url, audience=(issuer.audience,))
    page = SecuritySettings(preset="page")
    settings = GuardSettings(auth=auth, routes=ROUTES, security=page, log=LogSettings(format="off"))
    api = sites.at("closed.localhost", Guard(app, settings, http_client=issuer.client))
    asked = [{"url": api.origin + path} for path in ("/open", "/items", "/broken")]
    visit = await visits.at(sites.at("pages.localhost").origin)
    assert [answer.get("status") for answer in await visit.fetch_all(asked)] == [None, None, None]
    assert sorted(each.status for each in api.seen) == [200, 401, 500]
    own = await visits.at(api.origin + "/open")
    assert [answer.get("status") for answer in await own.fetch_all(asked)] == [200, 401, 500]


@pytest.mark.parametrize("name", ["pages.localhost", "strangers.localhost"])
async def test_any_page_learns_whom_to_ask_for_a_token(
    sites: Sites, visits: Visits, issuer: LocalIssuer, name: str
) -> None:
    """A client in a page of any origin reads what the API says of itself, with a header that needs a preflight."""
    auth = AuthSettings(issuer=issuer.url, resource="https://described.localhost/mcp")
    named = (sites.at("pages.localhost").origin,)
    cors = CORSSettings(allow_origins=named, allow_credentials=True, unsafe_insecure_origins=True)
    settings = GuardSettings(auth=auth, cors=cors, log=LogSettings(format="off"))
    site = sites.at("described.localhost", Guard(app, settings, http_client=issuer.client))
    path = "/.well-known/oauth-protected-resource/mcp"
    visit = await visits.at(sites.at(name).origin)
    answer = await visit.fetch(site.origin + path, headers={"mcp-protocol-version": "2025-06-18"})
    assert answer["status"] == 200
    assert json.loads(answer["text"])["authorization_servers"] == [issuer.url]
    assert [(each.method, each.status) for each in site.asked(path)] == [("OPTIONS", 204), ("GET", 200)]


async def test_another_page_embeds_nothing(sites: Sites, api: Site, visits: Visits) -> None:
    """A page of another origin shows no picture but one that is shared, no frame, and learns nothing without CORS."""
    visit = await visits.at(sites.at("strangers.localhost").origin)
    shown = [await visit.page.evaluate(_SHOW, api.origin + path) for path in ("/picture", "/shared/picture")]
    assert shown == ["refused", "shown"]
    assert api.asked("/picture")[0].status == 200
    assert "error" in await visit.fetch(api.origin + "/open", mode="no-cors")
    async with visit.page.expect_event("framenavigated", lambda frame: frame.parent_frame is not None):
        await visit.page.evaluate(
            "url => document.body.append(Object.assign(document.createElement('iframe'), {src: url}))",
            api.origin + "/open",
        )
    framed = visit.page.frames[1]
    assert framed.url == "chrome-error://chromewebdata/"
    own = await visits.at(api.origin + "/picture")
    assert await own.page.evaluate("document.documentElement.tagName") == "svg"


async def greet(scope: Scope, receive: Receive, send: Send) -> None:
    """A page, and a WebSocket that says one thing to whoever opens it."""
    if scope["type"] == "http":
        await empty_page(scope, receive, send)
        return
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": "hello"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


@pytest.mark.parametrize(
    ("name", "status"),
    [("pages.localhost", 101), ("a.pages.localhost", 403), ("strangers.localhost", 403), ("talking.localhost", 101)],
)
async def test_who_may_open_a_websocket(sites: Sites, visits: Visits, name: str, status: int) -> None:
    """A page of an allowed origin opens a WebSocket, and the app's own; any other is refused."""
    cors = CORSSettings(allow_origins=(sites.at("pages.localhost").origin,))
    settings = GuardSettings(cors=cors, security=SecuritySettings(preset="page"), log=LogSettings(format="off"))
    site = sites.at("talking.localhost", Guard(greet, settings))
    visit = await visits.at(sites.at(name).origin)
    ended = await visit.open_websocket(site.websocket + "/talk")
    assert ended == ({"code": 1000, "greeting": "hello"} if status == 101 else {"code": 1006, "greeting": None})
    assert [each.status for each in site.asked("/talk")] == [status]
