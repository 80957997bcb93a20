"""What FastAPI's pages of documentation load from CDNs, where there is no internet."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.async_api import Route as Intercepted

    from tests.browser.pages import Visits

PICTURE = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'


def assets() -> dict[str, tuple[bytes, bytes]]:
    """What FastAPI's pages of documentation load from CDNs, type and body by URL; font and logo stand for others."""
    spec = find_spec("fastapi_offline")
    assert spec is not None, "install the extra 'browser'"
    assert spec.origin is not None
    files = Path(spec.origin).parent / "static"
    cdn, font = "https://cdn.jsdelivr.net/npm/", "https://fonts.gstatic.com/s/roboto.woff2"
    styles = f"@font-face {{ font-family: Roboto; src: url({font}) format('woff2') }}"
    return {
        f"{cdn}swagger-ui-dist@5/swagger-ui-bundle.js": (
            b"text/javascript",
            (files / "swagger-ui-bundle.js").read_bytes(),
        ),
        f"{cdn}swagger-ui-dist@5/swagger-ui.css": (b"text/css", (files / "swagger-ui.css").read_bytes()),
        f"{cdn}redoc@2/bundles/redoc.standalone.js": (b"text/javascript", (files / "redoc.standalone.js").read_bytes()),
        "https://fastapi.tiangolo.com/img/favicon.png": (b"image/png", (files / "favicon.png").read_bytes()),
        "https://fonts.googleapis.com/css": (b"text/css", styles.encode()),
        font: (b"font/woff2", b""),
        "https://cdn.redoc.ly/redoc/logo-mini.svg": (b"image/svg+xml", PICTURE),
    }


async def with_assets(visits: Visits, asked: list[str]) -> None:
    """Have the real scripts and styles stand in for the CDNs: the browser judges them as if they came from there."""
    served = assets()

    async def answer(route: Intercepted) -> None:
        url = route.request.url.partition("?")[0]
        asked.append(url)
        if url not in served:
            await route.abort()
            return
        kind, body = served[url]
        headers = {"access-control-allow-origin": "*", "content-type": kind.decode()}
        await route.fulfill(status=200, headers=headers, body=body)

    await visits.context.route(lambda url: url.startswith("https:") and ".test" not in url, answer)
