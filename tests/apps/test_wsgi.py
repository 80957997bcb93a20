"""An app of another kind: WSGI, through asgiref's adapter, which raises on every scope that is not HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.testing import ApplicationCommunicator
from asgiref.wsgi import WsgiToAsgi

from asgi_guard import APIKey, AuthSettings, Guard, GuardSettings
from asgi_guard.policy.identity import api_key_digest
from tests.asgi import http_scope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

KEY = (b"x-api-key", b"correct horse")


def app(environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], object]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Frame-Options", "SAMEORIGIN")])
    return [environ["wsgi.input"].read(), b" for ", environ["REMOTE_ADDR"].encode()]


def communicator(scope: dict[str, Any]) -> Any:
    keys = (APIKey("someone", api_key_digest(b"correct horse")),)
    adapted = WsgiToAsgi(app)  # type: ignore[no-untyped-call]  # asgiref leaves it untyped
    guarded = Guard(adapted, GuardSettings(auth=AuthSettings(api_keys=keys)))
    return ApplicationCommunicator(guarded, scope)  # type: ignore[no-untyped-call]  # asgiref leaves it untyped


async def test_a_wsgi_app_is_guarded() -> None:
    """The app's answer passes with the guard's headers beside its own, and strangers do not reach it."""
    for headers, status in (([], 401), ([KEY], 200)):
        client = communicator(http_scope("POST", "/", headers))
        await client.send_input({"type": "http.request", "body": b"tea"})
        start = await client.receive_output()
        assert start["status"] == status
        names = [name.lower() for name, _ in start["headers"]]
        assert b"x-request-id" in names
        if status == 200:
            assert dict(start["headers"])[b"x-frame-options"] == b"SAMEORIGIN"
            assert names.count(b"x-frame-options") == 1
            body = await client.receive_output()
            assert body["body"] == b"tea"
        await client.wait()


async def test_an_app_that_raises_on_the_lifespan_starts_and_stops() -> None:
    """The server is told that start-up and shut-down are complete, though the app knows neither."""
    client = communicator({"type": "lifespan", "asgi": {"version": "3.0"}})
    for event in ("startup", "shutdown"):
        await client.send_input({"type": f"lifespan.{event}"})
        assert (await client.receive_output())["type"] == f"lifespan.{event}.complete"
    await client.wait()
