"""What is measured: small apps, bare and with the whole guard around them, and the request that they are sent."""

from __future__ import annotations

import importlib.util
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from asgi_guard import (
    AuthSettings,
    CORSSettings,
    GuardSettings,
    HostsSettings,
    ProxySettings,
    RateSettings,
    StoreSettings,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from asgi_guard.asgi import ASGIApp, Message, Receive, Scope, Send

ORIGIN = "https://app.example.com"
HOST = "api.example.com"
PROXIES = "10.0.0.0/8, 127.0.0.1"
RATE = 100_000
BURST = 100_000_000
LIMITS = f"{RATE}/second burst {BURST} by ip; {RATE}/second burst {BURST} by {{}}"
"""Two limits that nobody meets: what is measured is the asking."""
PATH = "/items/42"
QUERY = "page=2"


def headers(token: str) -> list[tuple[str, str]]:
    """Those of a browser's ordinary API request, through one proxy."""
    return [
        ("host", HOST),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        ("accept", "application/json"),
        ("accept-encoding", "gzip, deflate, br"),
        ("origin", ORIGIN),
        ("authorization", f"Bearer {token}"),
        ("x-forwarded-for", "198.51.100.7"),
    ]


def request(token: str) -> dict[str, Any]:
    """The request, as servers make its scope."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": QUERY.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers(token)],
        "client": ("10.0.0.2", 50000),
        "server": ("10.0.0.9", 8000),
        "state": {},
    }


async def receive() -> Message:
    """The whole body, which is empty."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def raw(scope: Scope, receive: Receive, send: Send) -> None:
    """The least that an app can do: a small JSON answer."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    lines = [(b"content-type", b"application/json"), (b"content-length", b"15")]
    await send({"type": "http.response.start", "status": 200, "headers": lines})
    await send({"type": "http.response.body", "body": b'{"status":"ok"}'})


def starlette() -> ASGIApp:
    """The same endpoint as FastAPI's, in Starlette."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def item(request: Request) -> JSONResponse:
        return JSONResponse({"item": request.path_params["item"], "page": int(request.query_params["page"])})

    return Starlette(routes=[Route("/items/{item:int}", item)])


def fastapi() -> ASGIApp:
    """An endpoint with a path parameter, a query parameter and a small answer."""
    from fastapi import FastAPI

    made = FastAPI()

    @made.get("/items/{item}")
    async def read(item: int, page: int = 1) -> dict[str, int]:
        return {"item": item, "page": page}

    return made


BARE: dict[str, Callable[[], ASGIApp]] = {"raw": lambda: raw, "starlette": starlette, "fastapi": fastapi}
"""The apps that are guarded, by name."""


def absence(app: str) -> str | None:
    """Why one of these apps cannot be measured here, or None if it can."""
    return not_installed(() if app == "raw" else (app,))


def not_installed(modules: Iterable[str], packages: Mapping[str, str] = MappingProxyType({})) -> str | None:
    """Which of these modules are not here, in words, or None if all are.

    Args:
        modules: by their names.
        packages: what brings them, where that is called otherwise.
    """
    missing = [packages.get(name, name) for name in modules if importlib.util.find_spec(name) is None]
    return f"{', '.join(missing)} not installed" if missing else None


def settings(issuer: str, audience: str, store: str = "memory://", *, revocation: bool = False) -> GuardSettings:
    """Every layer on: two limits, one origin, one host, one proxy. The store has the time that it has by default.

    A token that cannot be looked up in that time is let in, so that such a request is served, and counted.

    Args:
        issuer: the URL of the tokens' issuer.
        audience: the tokens' audience.
        store: the store's URL.
        revocation: whether each token is looked up among the revoked.
    """
    return GuardSettings(
        auth=AuthSettings(
            issuer=issuer,
            audience=(audience,),
            revocation=revocation,
            revocation_on_store_failure="allow" if revocation else "deny",
        ),
        rate=RateSettings(limit=LIMITS.format("user")),
        cors=CORSSettings(allow_origins=(ORIGIN,), allow_headers=("authorization",)),
        hosts=HostsSettings(allowed=(HOST,)),
        proxy=ProxySettings(trusted=tuple(PROXIES.split(", "))),
        store=StoreSettings(url=SecretStr(store)),
    )
