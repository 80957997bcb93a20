"""The AccessLog layer: how exchanges come to their end, and what the line says of it."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import WebSocketRoute

from asgi_guard import HostMiddleware, RequestIDMiddleware
from tests.asgi import Echo, call, get, http_scope, websocket_scope

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

    from asgi_guard.asgi import ASGIApp, Message, Receive, Scope, Send
    from tests.middleware.log_lines import Lines


async def test_websocket(lines: Lines) -> None:
    """A WebSocket session is one line, with 101 and the bytes of its messages."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "é"})
        await send({"type": "websocket.send", "bytes": b"abc", "text": None})
        await receive()
        await send({"type": "websocket.close"})

    await call(lines.layer(app), websocket_scope("/ws"))
    record = lines.record
    assert (record["http.response.status_code"], record["http.response.body.size"]) == (101, 5)
    assert record["url.scheme"] == "ws"
    assert "error.type" not in record
    assert record["asgi_guard.close_code"] == 1005
    assert (record["asgi_guard.messages_received"], record["asgi_guard.messages_sent"]) == (0, 2)


@pytest.mark.parametrize(("message", "code"), [({"code": 1001}, 1001), ({}, 1005)])
async def test_left_websocket(message: Message, code: int, lines: Lines) -> None:
    """A session that the client closes has the client's code, whatever the app closes it with then."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        await send({"type": "websocket.close", "code": 4000})

    said = {"type": "websocket.receive", "text": "hello"}
    connect, leave = {"type": "websocket.connect"}, {"type": "websocket.disconnect", **message}
    await call(lines.layer(app), websocket_scope(), connect, said, said, leave)
    record = lines.record
    assert record["asgi_guard.close_code"] == code
    assert (record["asgi_guard.messages_received"], record["asgi_guard.messages_sent"]) == (2, 0)


async def test_stream(lines: Lines) -> None:
    """A body in several parts is logged with the time to its first, beside that of all; a body in one is not."""
    times = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        times.append(time.perf_counter())
        await asyncio.sleep(0.05)
        await send({"type": "http.response.body", "body": b"b", "more_body": True})
        await send({"type": "http.response.body", "body": b"c"})

    times.append(time.perf_counter())
    await get(lines.layer(app))
    record = lines.record
    asked, sent = times
    assert 0 <= record["asgi_guard.first_byte_ms"] <= min(record["duration_ms"], (sent - asked) * 1000 + 0.001)
    lines.clear()
    await get(lines.layer(Echo()))
    assert "asgi_guard.first_byte_ms" not in lines.record


async def test_denied_websocket(lines: Lines) -> None:
    """A denied handshake is logged with its status, its bytes and its reason."""
    exchange = await call(lines.layer(HostMiddleware(Echo(), allowed="a.example")), websocket_scope())
    record = lines.record
    assert (record["http.response.status_code"], record["http.response.body.size"]) == (400, len(exchange.body))
    assert (record["asgi_guard.refused_by"], record["asgi_guard.reason"]) == ("host", "host_not_allowed")


async def test_closed_websocket(lines: Lines) -> None:
    """A handshake that the app closes before accepting it is logged with 403, as the server answers it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close", "code": 1008})

    await call(lines.layer(app), websocket_scope())
    record = lines.record
    assert (record["http.response.status_code"], record["asgi_guard.close_code"]) == (403, 1008)
    assert "asgi_guard.messages_sent" not in record


async def test_error(lines: Lines) -> None:
    """An unhandled exception is logged with the 500 that the client got, and its type."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError

    await get(lines.layer(app, sample=0), "/")
    record = lines.record
    assert (record["severity"], record["http.response.status_code"]) == ("ERROR", 500)
    assert (record["error.type"], record["asgi_guard.reason"]) == ("LookupError", "app_error")
    assert "asgi_guard.refused_by" not in record


async def test_cancelled(lines: Lines) -> None:
    """A request that the server cancels is logged."""
    begun = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(get(lines.layer(app)))
    await begun.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert lines.record["error.type"] == "CancelledError"
    assert "http.response.status_code" not in lines.record


@pytest.mark.parametrize(("starts", "status"), [(False, 499), (True, 200)])
async def test_client_gone(starts: bool, status: int, lines: Lines) -> None:
    """A client that leaves is logged: with 499 before anything was sent, with the real status after."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if starts:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        await receive()

    await call(lines.layer(app, sample=0), http_scope(), {"type": "http.disconnect"})
    record = lines.record
    assert (record["http.response.status_code"], record["http.response.body.size"]) == (status, 3 if starts else 0)
    assert record["error.type"] == "client_disconnected"


@pytest.mark.parametrize("fails", [False, True])
async def test_an_answer_that_nobody_waits_for(fails: bool, lines: Lines) -> None:
    """What an app answers, or raises, once it knows that the client has left is neither a success nor an error."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if fails:
            raise LookupError
        await Echo()(scope, receive, send)

    await call(lines.layer(app, sample=0), http_scope(), {"type": "http.disconnect"})
    record = lines.record
    assert (record["http.response.status_code"], record["error.type"]) == (499, "client_disconnected")
    assert record["severity"] == "INFO"


@pytest.mark.parametrize("parts", [0, 1])
async def test_a_response_that_was_not_finished(parts: int, lines: Lines) -> None:
    """A response whose end its app never sent is told as an error, for its client saw it break off."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(parts):
            await send({"type": "http.response.body", "body": b"abc", "more_body": True})

    await get(lines.layer(app, sample=0))
    record = lines.record
    assert (record["http.response.status_code"], record["error.type"]) == (200, "response_unfinished")
    assert record["severity"] == "ERROR"


async def strictly(app: ASGIApp, scope: dict[str, Any], *received: Message) -> BaseException | None:
    """Run the app under a server that takes one head, as uvicorn's does: the exception that it comes to."""
    incoming, started = list(received), False

    async def send(message: Message) -> None:
        nonlocal started
        if message["type"].endswith((".start", ".accept")):
            if started:
                raise RuntimeError("the response has started")
            started = True

    async def receive() -> Message:
        return incoming.pop(0)

    try:
        await app(scope, receive, send)
    except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
        return error
    return None


async def idle() -> Message:
    """The whole body of a request, which is empty."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def test_a_handler_of_errors_in_a_session(lines: Lines) -> None:
    """A session that an HTTPException ends is logged as the session that it was, whatever Starlette still sends."""

    async def room(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_text()
        raise HTTPException(404)

    app = lines.layer(Starlette(routes=[WebSocketRoute("/", room)]), slow_ms=0)
    said = {"type": "websocket.receive", "text": "hello"}
    assert await strictly(app, websocket_scope(), {"type": "websocket.connect"}, said) is not None
    record = lines.record
    assert (record["http.response.status_code"], record["error.type"]) == (101, "RuntimeError")
    assert (record["asgi_guard.messages_received"], record["asgi_guard.messages_sent"]) == (1, 0)
    assert "asgi_guard.slow" not in record


@pytest.mark.parametrize("taken", [False, True], ids=["refused", "taken"])
async def test_a_handler_of_errors_in_a_stream(taken: bool, lines: Lines) -> None:
    """A stream that fails below what answers all errors is logged with the status that its client has."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await JSONResponse({}, 500)(scope, receive, send)

    if taken:
        await get(lines.layer(app))
    else:
        await strictly(lines.layer(app), http_scope())
    assert lines.record["http.response.status_code"] == 200


async def test_a_head_after_one_that_was_refused(lines: Lines) -> None:
    """What an app answers in the place of a head that the server would not send is what its client has."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(RuntimeError):
            await send({"type": "http.response.start", "status": 200, "headers": [(b"a\n", b"")]})
        await JSONResponse({}, 500)(scope, receive, send)

    async def send(message: Message) -> None:
        if message.get("status") == 200:
            raise RuntimeError("invalid header name")

    async def receive() -> Message:
        return {"type": "http.request"}

    await lines.layer(app)(http_scope(), receive, send)
    assert lines.record["http.response.status_code"] == 500


class LostError(OSError):
    """What a server raises for what is sent to a client that has left (ASGI 2.4)."""


async def until_lost(app: ASGIApp, scope: dict[str, Any], sends: int) -> None:
    """Run the app with a client that leaves after so many messages; the app is told by nothing but that error."""
    sent = 0

    async def send(message: Message) -> None:
        nonlocal sent
        sent += 1
        if sent > sends:
            raise LostError

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    with pytest.raises(LostError):
        await app(scope, receive, send)


@pytest.mark.parametrize(("sends", "status"), [(0, 499), (1, 101), (3, 101)])
async def test_lost_websocket(sends: int, status: int, lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    """That a client has left, as the server tells the sending app, is no error of the app's, and passes on to it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await send({"type": "websocket.send", "text": "tick"})

    await until_lost(lines.layer(RequestIDMiddleware(app)), websocket_scope(), sends)
    record = lines.record
    assert (record["http.response.status_code"], record["severity"]) == (status, "INFO")
    assert "error.type" not in record
    assert caplog.records == []


@pytest.mark.parametrize(("sends", "status"), [(0, 499), (1, 200), (2, 200)])
async def test_lost_client(sends: int, status: int, lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    """The same over HTTP, where what was not sent to its end was broken off; of the head that failed, no status."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})

    await until_lost(lines.layer(RequestIDMiddleware(app)), http_scope(), sends)
    record = lines.record
    assert (record["http.response.status_code"], record["error.type"]) == (status, "client_disconnected")
    assert caplog.records == []


@pytest.mark.parametrize(("sends", "status"), [(0, 499), (1, 400)])
@pytest.mark.parametrize("scope", [http_scope(), websocket_scope(extensions={"websocket.http.response": {}})])
async def test_lost_refusal(
    sends: int, status: int, scope: dict[str, Any], lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    """The same of a client that leaves before it has the guard's own answer."""
    await until_lost(lines.layer(HostMiddleware(Echo(), allowed="other.example")), scope, sends)
    record = lines.record
    assert (record["http.response.status_code"], record["asgi_guard.reason"]) == (status, "host_not_allowed")
    assert record["severity"] in ("INFO", "WARN")
    assert caplog.records == []


async def test_a_refusal_that_the_server_does_not_take(lines: Lines) -> None:
    """A head of the guard's own that the server would not send is no status, as one of the app's is none."""

    async def send(message: Message) -> None:
        raise RuntimeError(f"no {message['type']} now")

    with pytest.raises(RuntimeError, match=r"no http\.response\.start now"):
        await lines.layer(HostMiddleware(Echo(), allowed="other.example"))(http_scope(), idle, send)
    assert "http.response.status_code" not in lines.record


async def test_another_error_after_the_client_was_lost(lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    """What fails besides is the app's error still, be it of the same sort."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(OSError):
            await send({"type": "websocket.accept"})
        raise LostError("a file is not there")

    await until_lost(lines.layer(app), websocket_scope(), 0)
    assert (lines.record["error.type"], lines.record["severity"]) == ("LostError", "ERROR")
    assert "unhandled exception in the app" in caplog.text


@pytest.mark.parametrize(
    "end",
    [
        [{"type": "http.response.body", "body": b"ok"}],
        [{"type": "http.response.pathsend", "path": "/file"}],
        [{"type": "http.response.zerocopysend", "file": 3, "more_body": True}, {"type": "http.response.zerocopysend"}],
    ],
    ids=["body", "pathsend", "zerocopysend"],
)  # fmt: skip
async def test_leaving_after_the_end(end: list[Message], lines: Lines) -> None:
    """A client that leaves when all was sent has not broken anything off, however it was sent."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for message in end:
            await send(message)
        await receive()

    await call(lines.layer(app), http_scope(), {"type": "http.disconnect"})
    assert "error.type" not in lines.record


@pytest.mark.parametrize(
    ("schema", "names"),
    [
        ("otel", ["http.response.body.size"]),
        ("ecs", ["http.response.body.bytes"]),
        ("gcp", ["httpRequest", "responseSize"]),
        ("datadog", ["network.bytes_written"]),
    ],
)
@pytest.mark.parametrize(
    ("method", "end", "is_known"),
    [
        ("GET", [{"type": "http.response.body", "body": b""}], True),
        ("GET", [{"type": "http.response.pathsend", "path": "/file"}], False),
        ("HEAD", [{"type": "http.response.pathsend", "path": "/file"}], True),
        (
            "GET",
            [
                {"type": "http.response.zerocopysend", "file": 3, "more_body": True},
                {"type": "http.response.body", "body": b"ok"},
            ],
            False,
        ),
    ],
    ids=["body", "pathsend", "head", "zerocopysend"],
)
async def test_the_size_of_a_file(
    schema: Any, names: list[str], method: str, end: list[Message], is_known: bool, lines: Lines
) -> None:
    """How much the server sends from a file by itself is not known, and so not told: no file is logged as empty."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for message in end:
            await send(message)

    await call(lines.layer(app, format=schema), http_scope(method))
    record = lines.record
    for name in names[:-1]:
        record = record[name]
    assert (names[-1] in record) is is_known


@pytest.mark.parametrize(("before", "after", "slow"), [(0, 0.3, False), (0.3, 0, True)])
async def test_a_slow_stream(before: float, after: float, slow: bool, lines: Lines) -> None:
    """A stream is slow whose first part is long in coming, and not one that lasts."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(before)
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await asyncio.sleep(after)
        await send({"type": "http.response.body", "body": b"b"})

    await get(lines.layer(app, slow_ms=250))
    assert lines.record.get("asgi_guard.slow", False) is slow
    assert lines.record["severity"] == ("WARN" if slow else "INFO")


@pytest.mark.parametrize(("before", "after", "slow"), [(0, 0.3, False), (0.3, 0, True)])
async def test_a_slow_answer(before: float, after: float, slow: bool, lines: Lines) -> None:
    """An answer is slow that is long in coming, and not one after which the app goes on, as in background tasks."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(before)
        await JSONResponse({}, background=BackgroundTask(asyncio.sleep, after))(scope, receive, send)

    await get(lines.layer(app, slow_ms=250))
    assert lines.record.get("asgi_guard.slow", False) is slow
    assert lines.record["severity"] == ("WARN" if slow else "INFO")


async def test_a_session_is_not_slow(lines: Lines) -> None:
    """A WebSocket that was accepted lasts as long as it is wanted; one that is refused may be slow."""
    await call(lines.layer(Echo(), slow_ms=1e-6), websocket_scope())
    assert "asgi_guard.slow" not in lines.record
    lines.clear()
    await call(lines.layer(HostMiddleware(Echo(), allowed="a.example"), slow_ms=1e-6), websocket_scope())
    assert lines.record["asgi_guard.slow"] is True
