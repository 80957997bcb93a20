"""Security headers as a browser enforces them: scripts that run and scripts that do not, and pages of documentation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from asgi_guard import Guard, GuardSettings, LogSettings, Route, SecuritySettings, csp
from asgi_guard.cli.demo import demo_settings
from asgi_guard.testing import LocalIssuer
from examples.fastapi_app import app as fastapi_app
from tests.browser.documentation import PICTURE, assets, with_assets

if TYPE_CHECKING:
    from asgi_guard.asgi import Receive, Scope, Send
    from asgi_guard.policy.security import Preset
    from asgi_guard.testing import SigningKey
    from tests.browser.pages import Visit, Visits
    from tests.browser.serving import Site, Sites

pytestmark = pytest.mark.asyncio(loop_scope="package")

SCRIPTS = """<!doctype html><title>scripts</title><link rel=icon href=/picture.svg>
<link rel=stylesheet href=/style.css>
<style>#plain {{ color: rgb(1, 2, 3) }}</style><style nonce="{nonce}">#nonced {{ color: rgb(1, 2, 3) }}</style>
<p id=plain>plain</p><p id=nonced>nonced</p><p id=own>own</p><img id=picture src=/picture.svg>
<script>ran.push('inline')</script><script nonce="{nonce}">ran.push('nonced')</script>
<script nonce="wrong">ran.push('guessed')</script><script src=/own.js></script>
<button id=button onclick="ran.push('handler')">press</button>"""
BEGIN = "window.ran = []; document.addEventListener('securitypolicyviolation', ({effectiveDirective, disposition}) => "
BEGIN += "(window.violations ??= []).push(`${disposition} ${effectiveDirective}`));"
COLOURS = "['plain', 'nonced', 'own'].filter(id => getComputedStyle(window[id]).color == 'rgb(1, 2, 3)')"
OWN: dict[str, tuple[bytes, bytes]] = {
    "/own.js": (b"text/javascript", b"ran.push('own')"),
    "/style.css": (b"text/css", b"#own { color: rgb(1, 2, 3) }"),
    "/picture.svg": (b"image/svg+xml", PICTURE),
}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    kind, body = OWN.get(scope["path"], (b"text/html", b""))
    if not body:
        body = SCRIPTS.format(nonce=csp.nonce()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": body})


async def opened(visits: Visits, url: str) -> Visit:
    """A page with its scripts run, as far as they may, and its button pressed."""
    visit = await visits.new()
    await visit.page.add_init_script(BEGIN)
    await visit.page.goto(url, wait_until="load")
    await visit.page.click("#button")
    return visit


async def seen(visit: Visit) -> dict[str, Any]:
    found: dict[str, Any] = await visit.page.evaluate(
        f"({{ran, violations: window.violations ?? [], styled: {COLOURS}, picture: picture.naturalWidth}})"
    )
    return found


def guarded(sites: Sites, name: str, **said: Any) -> Site:
    routes = (Route("/docs", security="docs"),)
    settings = GuardSettings(security=SecuritySettings(**said), routes=routes, log=LogSettings(format="off"))
    return sites.at(name, Guard(app, settings))


async def test_a_page_runs_what_has_its_nonce(sites: Sites, visits: Visits) -> None:
    """Under the preset `page`, an inline script or style takes the nonce of the response; its own files need none."""
    site = guarded(sites, "page.localhost", preset="page")
    first = await opened(visits, site.origin)
    assert await seen(first) == {
        "ran": ["nonced", "own"],
        "violations": [
            "enforce style-src-elem",
            "enforce script-src-elem",
            "enforce script-src-elem",
            "enforce script-src-attr",
        ],
        "styled": ["nonced", "own"],
        "picture": 9,
    }
    assert len(first.errors) == 4
    policies = [dict(each.answered)["content-security-policy"] for each in (site.asked("/")[0], *site.asked("/own.js"))]
    await opened(visits, site.origin)
    policies.append(dict(site.asked("/")[1].answered)["content-security-policy"])
    assert len({policy for policy in policies if "'nonce-" in policy}) == 2


@pytest.mark.parametrize("preset", ["api", "page"])
async def test_a_page_runs_on_when_it_is_loaded_again(sites: Sites, visits: Visits, preset: Preset) -> None:
    """A page with a policy of its own, which its 304 does not repeat, does at a reload what it did at first."""

    async def kept(scope: Scope, receive: Receive, send: Send) -> None:
        asked = dict(scope["headers"]).get(b"if-none-match")
        headers = [(b"etag", b'"1"'), (b"cache-control", b"no-cache")]
        if asked is None:
            own = b"script-src 'self' 'unsafe-inline'; connect-src 'none'"
            headers += [(b"content-type", b"text/html"), (b"content-security-policy", own)]
        await send({"type": "http.response.start", "status": 200 if asked is None else 304, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if asked else b"<script>ran.push('inline')</script>"})

    settings = GuardSettings(security=SecuritySettings(preset=preset), log=LogSettings(format="off"))
    site = sites.at(f"again.{preset}.localhost", Guard(kept, settings))
    visit = await visits.new()
    await visit.page.add_init_script(BEGIN)
    await visit.page.goto(site.origin)
    assert await visit.page.evaluate("ran") == ["inline"]
    await visit.page.reload()
    assert await visit.page.evaluate("ran") == ["inline"]
    assert [each.status for each in site.asked("/")] == [200, 304]


@pytest.mark.parametrize("preset", ["api", "page"])
async def test_a_page_that_its_own_site_may_frame(sites: Sites, visits: Visits, preset: Preset) -> None:
    """What says SAMEORIGIN, as Django's decorator does, is framed by pages of its own origin, and by no others."""

    async def framed(scope: Scope, receive: Receive, send: Send) -> None:
        own = [(b"content-type", b"text/html"), (b"x-frame-options", b"SAMEORIGIN")]
        body = b"<p>framed"
        if scope["path"] == "/":
            own.append((b"content-security-policy", b"default-src 'self' data:"))
            body = b"<link rel=icon href=data:,><iframe src=/framed></iframe>"
        await send({"type": "http.response.start", "status": 200, "headers": own})
        await send({"type": "http.response.body", "body": body})

    settings = GuardSettings(security=SecuritySettings(preset=preset), log=LogSettings(format="off"))
    site = sites.at(f"framing.{preset}.localhost", Guard(framed, settings))
    visit = await visits.at(site.origin)
    assert await visit.page.frames[1].inner_text("body") == "framed"
    stranger = await visits.at(sites.at("elsewhere.localhost").origin)
    await stranger.page.set_content(f"<iframe src={site.origin}/framed></iframe>")
    assert stranger.page.frames[1].url != f"{site.origin}/framed"
    assert len(stranger.errors) == 1
    assert visit.errors == []


@pytest.mark.parametrize("named", [False, True])
async def test_where_a_form_leads(sites: Sites, visits: Visits, named: bool) -> None:
    """The redirect that answers a form of a page leads to another origin only where `form-action` names that."""
    word = "named" if named else "unnamed"
    provider = sites.at(f"provider.{word}.localhost")

    async def login(scope: Scope, receive: Receive, send: Send) -> None:
        status, headers = 200, [(b"content-type", b"text/html")]
        if scope["method"] == "POST":
            status, headers = 302, [(b"location", f"{provider.origin}/authorize".encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"<form method=post><button>log in</button></form>"})

    policy = f"default-src 'self'; form-action 'self' {provider.origin}" if named else None
    settings = GuardSettings(security=SecuritySettings(preset="page", csp=policy), log=LogSettings(format="off"))
    visit = await visits.at(sites.at(f"form.{word}.localhost", Guard(login, settings)).origin)
    if named:
        async with visit.page.expect_navigation(url=f"{provider.origin}/authorize"):
            await visit.page.click("button")
    else:
        async with visit.page.expect_console_message(lambda message: "form-action" in message.text):
            await visit.page.click("button")
    assert bool(provider.asked("/authorize")) is named


async def test_an_answer_that_is_no_page_runs_nothing(sites: Sites, visits: Visits) -> None:
    """Under the preset `api`, what is opened as a page runs no script, has no style, and loads nothing."""
    site = guarded(sites, "api-preset.localhost", preset="api")
    found = await seen(await opened(visits, site.origin))
    assert (found["ran"], found["styled"], found["picture"]) == ([], [], 0)
    assert {"enforce script-src-elem", "enforce style-src-elem", "enforce img-src"} <= set(found["violations"])
    assert {each.path for each in site.seen} == {"/"}


async def test_no_policy_runs_all(sites: Sites, visits: Visits) -> None:
    """Without a policy all of it runs: what is refused above is refused by the policy."""
    site = guarded(sites, "open.localhost", preset="off")
    found = await seen(await opened(visits, site.origin))
    assert found["ran"] == ["inline", "nonced", "guessed", "own", "handler"]
    assert (found["styled"], found["picture"], found["violations"]) == (["plain", "nonced", "own"], 9, [])


async def test_a_stricter_policy_is_tried_beside(sites: Sites, visits: Visits) -> None:
    """A report-only policy tells what it would refuse, and refuses nothing; the enforced one beside it holds."""
    site = guarded(sites, "tried.localhost", preset="page", csp_report_only="script-src 'nonce'; img-src 'none'")
    found = await seen(await opened(visits, site.origin))
    assert (found["ran"], found["picture"]) == (["nonced", "own"], 9)
    assert found["violations"].count("enforce script-src-elem") == 2
    assert found["violations"].count("report script-src-elem") == 3  # the file too, whose tag has no nonce
    assert "report img-src" in found["violations"]


async def test_a_row_has_its_own_policy(sites: Sites, visits: Visits) -> None:
    """The preset of a row holds for its path alone."""
    site = guarded(sites, "rows.localhost", preset="api")
    found = await seen(await opened(visits, site.origin + "/docs"))
    assert found["ran"] == ["inline", "nonced", "guessed", "own", "handler"]
    assert (await seen(await opened(visits, site.origin + "/other")))["ran"] == []


@pytest.fixture(scope="module")
def documented(sites: Sites, signing_key: SigningKey) -> Site:
    """The FastAPI example behind the guard that `make demo` runs."""
    issuer = LocalIssuer(key=signing_key)
    settings = demo_settings(issuer.url).model_copy(update={"log": LogSettings(format="off")})
    return sites.at("documented.localhost", Guard(fastapi_app, settings, http_client=issuer.client))


async def test_swagger_ui(documented: Site, visits: Visits) -> None:
    """`/docs` of the FastAPI example is drawn and calls the app, without an error in the console."""
    asked: list[str] = []
    await with_assets(visits, asked)
    visit = await visits.at(documented.origin + "/docs")
    page = visit.page
    await page.locator(".opblock-summary-path", has_text="/login").click()
    await page.get_by_role("button", name="Try it out").click()
    await page.get_by_role("button", name="Execute").click()
    answer = page.locator(".live-responses-table .response-col_status", has_text="200")
    await answer.wait_for()
    assert await page.locator(".opblock").count() == 4
    assert [each.status for each in documented.asked("/login")] == [200]
    assert visit.errors == [], asked
    assert set(asked) <= set(assets())
    assert len([url for url in asked if "swagger-ui-dist" in url]) == 2


async def test_redoc(documented: Site, visits: Visits) -> None:
    """`/redoc` of the FastAPI example is drawn and searched, without an error in the console."""
    asked: list[str] = []
    await with_assets(visits, asked)
    visit = await visits.at(documented.origin + "/redoc")
    page = visit.page
    await page.get_by_role("heading", name="Add Item").wait_for()
    await page.get_by_placeholder("Search...").fill("login")
    await page.locator("[data-role='search:results'] li").first.wait_for()
    assert visit.errors == [], asked
    assert set(asked) <= set(assets())
    assert any("redoc.standalone" in url for url in asked)


async def test_documentation_under_another_policy(sites: Sites, visits: Visits) -> None:
    """Without its row, `/docs` stays blank, and the console says why: the policy is what lets it be drawn above."""
    asked: list[str] = []
    await with_assets(visits, asked)
    site = sites.at("documented.under.localhost", Guard(fastapi_app, GuardSettings(log=LogSettings(format="off"))))
    visit = await visits.at(site.origin + "/docs")
    assert any("Content Security Policy" in error for error in visit.errors)
    assert asked == []
    assert await visit.page.locator(".opblock").count() == 0
