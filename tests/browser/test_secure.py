"""What holds between a browser and a guarded app over https, and what pages may do there."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from asgi_guard import CORSSettings, Guard, GuardSettings, LogSettings, Route, SecurityHeaders, SecuritySettings
from tests.browser.serving import PATIENCE

if TYPE_CHECKING:
    from asgi_guard.asgi import ASGIApp, Receive, Scope, Send
    from tests.browser.pages import Visits
    from tests.browser.serving import Site, Sites

pytestmark = pytest.mark.asyncio(loop_scope="package")

OFF = LogSettings(format="off")
PAGE = "<!doctype html><title>a page</title><link rel=icon href=/icon><script>1</script><img src='{picture}'>"


def page_with(picture: str = "/picture") -> ASGIApp:
    """A page with an inline script and a picture."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        whole = scope["path"] in ("/", "/strict")
        body = (
            PAGE.format(picture=picture).encode() if whole else b'<svg xmlns="http://www.w3.org/2000/svg" width="9"/>'
        )
        headers = [(b"content-type", b"text/html" if whole else b"image/svg+xml")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


class Collector:
    """An app that keeps the reports that browsers send."""

    def __init__(self) -> None:
        self.reports: list[dict[str, Any]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        read = json.loads(body)
        self.reports += read if isinstance(read, list) else [{"type": "csp-report", "body": read["csp-report"]}]
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def wait_for(self, *found: tuple[str, str]) -> None:
        """Wait until these were reported, each by its disposition and directive."""
        deadline = time.monotonic() + PATIENCE
        while not set(found) <= {self.told(report["body"]) for report in self.reports}:
            assert time.monotonic() < deadline, self.reports
            await asyncio.sleep(0.05)

    @staticmethod
    def told(body: dict[str, Any]) -> tuple[str, str]:
        return body.get("disposition", ""), body.get("effectiveDirective") or body.get("effective-directive", "")


def collecting(sites: Sites, name: str, *pages: str) -> tuple[Site, Collector]:
    """A collector behind a guard of its own, which lets these pages' reports in."""
    collector = Collector()
    cors = CORSSettings(allow_origins=pages, allow_headers=("content-type",)) if pages else CORSSettings()
    return sites.at(name, Guard(collector, GuardSettings(cors=cors, log=OFF))), collector


async def test_reports_arrive(secure_sites: Sites, visits: Visits) -> None:
    """What the enforced and the report-only policy refuse is reported to the endpoint, which is another site's."""
    origin = secure_sites.at("reporting.test").origin
    site, collector = collecting(secure_sites, "reports.example.test", origin)
    security = SecuritySettings(
        preset="page", csp_report_only="img-src 'none'", reporting_endpoints=(f"default={site.origin}/csp",)
    )
    routes = (Route("/strict", security=SecurityHeaders(csp="default-src 'none'; report-to default")),)
    settings = GuardSettings(security=security, routes=routes, log=OFF)
    secure_sites.at("reporting.test", Guard(page_with(), settings))
    await visits.at(origin + "/")
    await collector.wait_for(("enforce", "script-src-elem"), ("report", "img-src"))
    assert {report["type"] for report in collector.reports} == {"csp-violation"}
    collector.reports.clear()
    await visits.at(origin + "/strict")
    await collector.wait_for(("enforce", "script-src-elem"), ("enforce", "img-src"))


async def test_reports_arrive_over_http(sites: Sites, secure_sites: Sites, visits: Visits) -> None:
    """Over http no browser knows endpoints: there the policies say by an address where to report."""
    site, collector = collecting(secure_sites, "reports.plain.test")
    ends = (f"default={site.origin}/csp",)
    security = SecuritySettings(preset="page", csp_report_only="img-src 'none'", reporting_endpoints=ends)
    plain = sites.at("reporting-plain.test", Guard(page_with(), GuardSettings(security=security, log=OFF)))
    await visits.at(plain.origin)
    await collector.wait_for(("enforce", "script-src-elem"), ("report", "img-src"))
    assert {report["type"] for report in collector.reports} == {"csp-report"}


async def test_who_came_by_https_comes_by_nothing_else(sites: Sites, secure_sites: Sites, visits: Visits) -> None:
    """A browser that was answered over https takes no http to that host or below it; over http it is told nothing."""
    guard = Guard(page_with(), GuardSettings(security=SecuritySettings(preset="page"), log=OFF))
    plain = sites.at("strict.test", guard)
    secure = secure_sites.at("strict.test", guard)
    below = secure_sites.at("below.strict.test", guard)
    visit = await visits.at(plain.origin + "/")
    assert visit.page.url.startswith("http://")
    await visits.at(secure.origin + "/")
    for site in (secure, below):
        visit = await visits.at(site.origin.replace("https", "http") + "/")
        assert visit.page.url == site.origin + "/"


async def test_a_page_asks_for_all_by_https(secure_sites: Sites, visits: Visits) -> None:
    """A picture that a page names by http is asked for by https."""
    site = secure_sites.at("upgraded.test")
    picture = site.origin.replace("https", "http") + "/picture"
    security = SecuritySettings(preset="page", hsts="off")
    secure_sites.at("upgraded.test", Guard(page_with(picture), GuardSettings(security=security, log=OFF)))
    visit = await visits.at(secure_sites.at("upgraded.test").origin + "/")
    assert await visit.page.evaluate("document.images[0].naturalWidth") == 9


@pytest.mark.parametrize(("preset", "origin_told"), [("api", False), ("page", True), ("docs", False)])
async def test_what_a_page_gives_away(secure_sites: Sites, visits: Visits, preset: Any, origin_told: bool) -> None:
    """Another site that a page leads to learns its origin at most, and no site that opens it keeps a hold on it."""
    guard = Guard(page_with(), GuardSettings(security=SecuritySettings(preset=preset), log=OFF))
    site, other = secure_sites.at(f"discreet-{preset}.test", guard), secure_sites.at("curious.test")
    visit = await visits.at(site.origin + "/")
    async with visit.page.expect_navigation(url=other.origin + "/"):
        await visit.page.evaluate("url => { location = url }", other.origin + "/")
    assert other.asked("/")[-1].headers.get("referer") == (site.origin + "/" if origin_told else None)
    async with visit.page.expect_popup() as popup:
        await visit.page.evaluate("url => { window.opened = open(url) }", site.origin + "/")
    await (await popup.value).wait_for_load_state()
    assert await (await popup.value).evaluate("opener") is None
    await visit.page.wait_for_function("opened.closed")


async def test_what_a_page_may_use(secure_sites: Sites, visits: Visits) -> None:
    """A page uses no feature that is denied, though its user would let it, and those that nobody names."""
    guard = Guard(page_with(), GuardSettings(security=SecuritySettings(preset="page"), log=OFF))
    await visits.context.grant_permissions(["geolocation"])
    await visits.context.set_geolocation({"latitude": 0, "longitude": 0})
    visit = await visits.at(secure_sites.at("features.test", guard).origin + "/")
    allowed = await visit.page.evaluate("document.featurePolicy.allowedFeatures()")
    told = {"camera", "microphone", "geolocation", "payment", "fullscreen", "publickey-credentials-get"}
    assert not {*told, "usb", "clipboard-read"} & set(allowed)
    assert "clipboard-write" in allowed
    locate = "new Promise(told => navigator.geolocation.getCurrentPosition(() => told(0), error => told(error.code)))"
    assert await visit.page.evaluate(locate) == 1
    other = await visits.at(secure_sites.at("curious.test").origin + "/")
    assert await other.page.evaluate(locate) == 0
