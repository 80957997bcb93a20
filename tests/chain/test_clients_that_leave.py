"""Clients that leave, as apps of Starlette and FastAPI meet it: nobody's error, in any log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import orjson
import pytest
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import StreamingResponse
from starlette.routing import Route, WebSocketRoute

from asgi_guard import AccessLogMiddleware
from tests.asgi import call, http_scope, websocket_scope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.middleware.base import RequestResponseEndpoint
    from starlette.requests import Request
    from starlette.responses import Response

    from asgi_guard.asgi import ASGIApp, Message, Receive, Scope, Send

CONNECT: Message = {"type": "websocket.connect"}
LEAVE: Message = {"type": "websocket.disconnect", "code": 1001}


async def listening(websocket: WebSocket) -> None:
    """Listen for ever, as tutorials do."""
    await websocket.accept()
    while True:
        await websocket.receive_text()


async def telling(websocket: WebSocket) -> None:
    """Tell for ever, and listen to nothing."""
    await websocket.accept()
    while True:
        await websocket.send_text("tick")


async def failing(websocket: WebSocket) -> None:
    """Fail while cleaning up."""
    await websocket.accept()
    try:
        await websocket.receive_text()
    finally:
        raise LookupError


async def stream(request: Request) -> StreamingResponse:
    async def ticks() -> AsyncIterator[bytes]:
        while True:
            yield b"tick"

    return StreamingResponse(ticks())


async def passing_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
    return await call_next(request)


def fastapi() -> ASGIApp:
    made = FastAPI()
    for endpoint in (listening, telling, failing):
        made.websocket(f"/{endpoint.__name__}")(endpoint)
    return made


def starlette() -> Starlette:
    sockets = [WebSocketRoute(f"/{endpoint.__name__}", endpoint) for endpoint in (listening, telling, failing)]
    return Starlette(routes=[*sockets, Route("/stream", stream)])


async def leave_while_told(app: ASGIApp, scope: Scope) -> None:
    """Have a client leave that is being sent to: the server raises, as ASGI 2.4 has it."""
    sent = 0

    async def send(message: Message) -> None:
        nonlocal sent
        sent += 1
        if sent > 3:
            raise OSError

    async def receive() -> Message:
        return CONNECT

    with pytest.raises(Exception):  # noqa: B017,PT011 - whatever frameworks make of it, servers see
        await app(scope, receive, send)


@pytest.mark.parametrize("app", [starlette(), fastapi()], ids=["starlette", "fastapi"])
@pytest.mark.parametrize("path", ["/listening", "/telling"])
async def test_a_websocket(app: ASGIApp, path: str, caplog: pytest.LogCaptureFixture) -> None:
    """A WebSocket whose client leaves, while the app listens or tells, ends without any error."""
    lines: list[bytes] = []
    logged = AccessLogMiddleware(app, write=lines.append)
    if path == "/listening":
        await call(logged, websocket_scope(path), CONNECT, LEAVE)
    else:
        await leave_while_told(logged, websocket_scope(path))
    (record,) = map(orjson.loads, lines)
    assert (record["severity"], record["http.response.status_code"], record.get("error.type")) == ("INFO", 101, None)
    assert caplog.messages == []


@pytest.mark.parametrize("app", [starlette(), fastapi()], ids=["starlette", "fastapi"])
async def test_an_error_beside_it(app: ASGIApp, caplog: pytest.LogCaptureFixture) -> None:
    """What an app fails at after its client has left is an error still."""
    lines: list[bytes] = []
    await call(AccessLogMiddleware(app, write=lines.append), websocket_scope("/failing"), CONNECT, LEAVE)
    record = orjson.loads(lines[0])
    assert (record["severity"], record["error.type"]) == ("ERROR", "LookupError")
    assert [each.levelno for each in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize("left", [False, True])
async def test_an_error_of_that_name(left: bool, caplog: pytest.LogCaptureFixture) -> None:
    """What is told by such an error is believed, alone or in a group, where the client has left, and nowhere else."""
    error = WebSocketDisconnect(1006)  # of another WebSocket, maybe, of which the app is the client

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if left:
            await receive()
        raise ExceptionGroup("tasks", [error, ExceptionGroup("more", [error])])

    await call(AccessLogMiddleware(app, write=len), websocket_scope(), CONNECT, LEAVE)
    assert [record.levelno for record in caplog.records] == ([] if left else [logging.ERROR])


async def test_a_stream(caplog: pytest.LogCaptureFixture) -> None:
    """A stream whose client leaves ends without any error, and is told as broken off."""
    lines: list[bytes] = []
    await leave_while_told(AccessLogMiddleware(starlette(), write=lines.append), http_scope(path="/stream"))
    record = orjson.loads(lines[0])
    assert (record["severity"], record["error.type"]) == ("INFO", "client_disconnected")
    assert caplog.messages == []


async def test_a_stream_below_a_function_of_middleware(caplog: pytest.LogCaptureFixture) -> None:
    """So is one below `@app.middleware("http")`, which sends the end of a body whose client has left."""
    lines: list[bytes] = []
    app = starlette()
    app.add_middleware(BaseHTTPMiddleware, dispatch=passing_on)
    # As of servers that do not raise on sending (ASGI 2.3), such as uvicorn: Starlette then looks for itself.
    scope = http_scope(path="/stream", asgi={"version": "3.0", "spec_version": "2.3"})
    await call(AccessLogMiddleware(app, write=lines.append), scope)
    record = orjson.loads(lines[0])
    assert (record["severity"], record["error.type"]) == ("INFO", "client_disconnected")
    assert caplog.messages == []
