"""Logging in from Swagger UI: OAuth 2 in a popup, to an issuer on another site, and a call with the token."""

from __future__ import annotations

import json
import re
import tomllib
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlencode

import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.security import OAuth2AuthorizationCodeBearer

from asgi_guard import AuthSettings, Guard, GuardSettings, LogSettings, Route
from asgi_guard.testing import LocalIssuer
from tests.browser.documentation import with_assets
from tests.end_to_end.serving import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asgi_guard.asgi import ASGIApp, Receive, Scope, Send
    from asgi_guard.testing import SigningKey
    from tests.browser.pages import Visits
    from tests.browser.serving import Site, Sites

pytestmark = pytest.mark.asyncio(loop_scope="package")


def authorization_server(issuer: LocalIssuer) -> ASGIApp:
    """One that knows its only user already, and sends the browser back at once."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers, status, body = [(b"access-control-allow-origin", b"*")], 200, b""
        if scope["path"] == "/authorize":
            asked = {name: value[0] for name, value in parse_qs(scope["query_string"].decode()).items()}
            back = f"{asked['redirect_uri']}?{urlencode({'code': 'once', 'state': asked['state']})}"
            headers, status = [(b"location", back.encode())], 302
        elif scope["method"] == "OPTIONS":
            headers.append((b"access-control-allow-headers", b"authorization, x-requested-with"))
        else:
            headers.append((b"content-type", b"application/json"))
            body = json.dumps({"access_token": issuer.token("alice"), "token_type": "bearer"}).encode()
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def api(server: Site) -> FastAPI:
    """An API that tells its documentation where to get tokens."""
    app = FastAPI(swagger_ui_init_oauth={"clientId": "documentation", "usePkceWithAuthorizationCodeGrant": True})
    scheme = OAuth2AuthorizationCodeBearer(f"{server.origin}/authorize", f"{server.origin}/token")

    @app.get("/me", dependencies=[Depends(scheme)])
    async def me(request: Request) -> dict[str, str]:
        return {"user": request.user.subject}

    return app


def documented_rows(server: Site) -> Sequence[Route]:
    """The rows of the route table that docs/browser.md tells, with this issuer."""
    page = (ROOT / "docs" / "browser.md").read_text("utf-8")
    (rows,) = re.findall(r"```toml\n(.*?/docs/oauth2-redirect.*?)```", page, re.DOTALL)
    made = GuardSettings.model_validate(tomllib.loads(rows.replace("https://id.example.com", server.origin)))
    return made.routes


async def test_a_login_from_the_documentation(sites: Sites, visits: Visits, signing_key: SigningKey) -> None:
    """The popup comes back to the page that opened it, which fetches a token and calls the guarded API with it."""
    issuer = LocalIssuer(key=signing_key)
    server = sites.at("id.test", authorization_server(issuer))
    settings = GuardSettings(
        auth=AuthSettings(issuer=issuer.url, audience=(issuer.audience,)),
        routes=documented_rows(server),
        log=LogSettings(format="off"),
    )
    site = sites.at("secured.localhost", Guard(api(server), settings, http_client=issuer.client))
    await with_assets(visits, [])
    visit = await visits.at(site.origin + "/docs")
    page = visit.page
    await page.locator(".auth-wrapper button.authorize").first.click()
    await page.locator(".modal-ux button.authorize").click()
    await page.locator(".modal-ux button", has_text="Logout").wait_for()
    await page.locator(".modal-ux button.btn-done").click()
    await page.locator(".opblock-summary-path", has_text="/me").click()
    await page.get_by_role("button", name="Try it out").click()
    await page.get_by_role("button", name="Execute").click()
    await page.locator(".live-responses-table .response-col_status", has_text="200").wait_for()
    assert site.asked("/me")[0].status == 200
    assert visit.errors == []
