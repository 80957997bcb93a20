"""A Quart app behind the guard: the user and the scopes are in the request's scope, the request id anywhere.

Run it with a local issuer and calls to try:

    pip install '.[demo]' quart
    asgi-guard demo examples.quart_app:app
"""

from __future__ import annotations

from typing import Any

from quart import Quart, request

from asgi_guard import User, request_id

app = Quart(__name__)


def current_user() -> User:
    """The verified caller."""
    user: User = request.scope["user"]  # type: ignore[typeddict-item]  # Quart's type names the standard members only
    return user


@app.get("/")
async def index() -> dict[str, Any]:
    return {"hello": "world", "request_id": request_id()}


@app.get("/items")
async def list_items() -> dict[str, Any]:
    user = current_user()
    return {"items": ["pen", "paper"], "user": user.subject, "scopes": list(user.scopes), "request_id": request_id()}


@app.post("/items")
async def add_item() -> tuple[dict[str, Any], int]:
    return {"added_by": current_user().subject}, 201


@app.post("/login")
async def login() -> dict[str, Any]:
    return {"detail": "this demo has no passwords: its tokens are printed at the start"}
