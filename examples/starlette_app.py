"""A Starlette app behind the guard: `request.user`, `request.auth` and `@requires` work as with its own middleware.

Run it with a local issuer and calls to try:

    asgi-guard demo examples.starlette_app:app
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


async def index(request: Request) -> JSONResponse:
    return JSONResponse({"hello": "world", "request_id": request.state.request_id})


async def list_items(request: Request) -> JSONResponse:
    return JSONResponse(
        {
            "items": ["pen", "paper"],
            "user": request.user.display_name,
            "scopes": request.auth.scopes,
            "request_id": request.state.request_id,
        }
    )


@requires("items:write")
async def add_item(request: Request) -> JSONResponse:
    return JSONResponse({"added_by": request.user.display_name}, status_code=201)


async def login(request: Request) -> JSONResponse:
    return JSONResponse({"detail": "this demo has no passwords: its tokens are printed at the start"})


app = Starlette(
    routes=[
        Route("/", index),
        Route("/items", list_items, methods=["GET"]),
        Route("/items", add_item, methods=["POST"]),
        Route("/login", login, methods=["POST"]),
    ]
)
