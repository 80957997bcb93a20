"""A FastAPI app behind the guard. Of the guard it knows the type of its users, and the id of the request.

Run it with a local issuer and calls to try:

    asgi-guard demo examples.fastapi_app:app
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse

from asgi_guard import User, request_id

app = FastAPI(title="Items")


def current_user(request: Request) -> User:
    """The verified caller: the guard lets no one else through to paths that no row opens."""
    user: User = request.user
    return user


CurrentUser = Annotated[User, Depends(current_user)]


@app.get("/")
async def index() -> dict[str, Any]:
    return {"hello": "world", "request_id": request_id()}


@app.get("/items")
async def list_items(user: CurrentUser, request: Request) -> dict[str, Any]:
    return {
        "items": ["pen", "paper"],
        "user": user.subject,
        "scopes": request.auth.scopes,
        "request_id": request.state.request_id,
    }


@app.post("/items", status_code=201)
async def add_item(user: CurrentUser) -> dict[str, Any]:
    return {"added_by": user.subject}


@app.post("/login")
async def login() -> JSONResponse:
    return JSONResponse({"detail": "this demo has no passwords: its tokens are printed at the start"}, status_code=200)
