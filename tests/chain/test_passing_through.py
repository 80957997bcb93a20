"""What passes through layers: messages of any kind, headers of any shape, streams, and many requests at once."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING, Any

import pytest

from asgi_guard import request_id
from asgi_guard.chain.layer import Chain, Layer
from tests.asgi import Echo, call, get, http_scope, websocket_scope
from tests.chain.test_layer import BODY, START, Noting, broken, noting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asgi_guard.asgi import Head, Message, Receive, Scope, Send
    from asgi_guard.chain.exchange import Exchange


PASSING: list[Message] = [
    {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]},
    {"type": "http.response.push", "path": "/a.css", "headers": []},
    {"type": "http.response.debug", "info": {}},
    {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")], "more_trailers": False},
    {"type": "http.response.pathsend", "path": "/file"},
    {"type": "http.response.zerocopysend", "file": 3},
    {"type": "some.future.message", "anything": object()},
]


@pytest.mark.parametrize("message", PASSING, ids=[message["type"] for message in PASSING])
async def test_other_messages(message: Message) -> None:
    """Any other message passes through as the very object that the app sent."""
    exchange = await get(Noting(noting([], START, message)))
    assert exchange.error is None
    assert exchange.messages[1] is message


@pytest.mark.parametrize("message", [*PASSING[:3], PASSING[-1]], ids=lambda message: message["type"])
async def test_what_comes_before_the_response(message: Message) -> None:
    """Of what an app sends before its response, nothing is taken for it."""
    exchange = await get(Noting(broken(LookupError(), message)))
    assert exchange.messages[0] is message
    assert exchange.status == 500


@pytest.mark.parametrize("members", [{"bytes": b""}, {"bytes": b"", "text": None}, {"text": ""}])
async def test_empty_messages(members: dict[str, Any]) -> None:
    """A message of a WebSocket may be empty."""
    message = {"type": "websocket.send", **members}
    exchange = await call(Noting(noting([], {"type": "websocket.accept"}, message)), websocket_scope())
    assert exchange.error is None
    assert exchange.messages[1] is message


class Sealed(list[Any]):
    """Headers that cannot be changed."""

    def _refuse(self, *_: Any) -> Any:
        raise AssertionError("changed in place")

    append = extend = insert = pop = remove = clear = sort = reverse = __setitem__ = __delitem__ = __iadd__ = _refuse  # type: ignore[assignment]  # every one of them refuses


@pytest.mark.parametrize("scope", [http_scope(), websocket_scope()], ids=["http", "websocket"])
async def test_what_others_own_is_not_changed(scope: dict[str, Any]) -> None:
    """The scope of the server's, and the messages and headers of the app's, stay as they were."""
    scope["headers"] = Sealed([(b"host", b"testserver")])
    scope["state"] = {"pool": [1]}
    before = copy.deepcopy({**scope, "headers": list(scope["headers"])})
    start: Message = {**START, "headers": Sealed([(b"x-app", b"1")])}
    if scope["type"] == "websocket":
        start = {"type": "websocket.accept", "headers": Sealed([(b"x-app", b"1")])}
    kept = dict(start)
    exchange = await call(Noting(Noting(noting([], start))), scope)
    assert exchange.error is None
    assert (b"x-mark", b"a") in exchange.messages[0]["headers"]
    assert start == kept
    assert {**scope, "headers": list(scope["headers"])} == before


@pytest.mark.parametrize("headers", [None, (), ((b"x-app", b"1"),), iter([[b"x-app", b"1"]])])
async def test_headers_of_any_shape(headers: Iterable[Any] | None) -> None:
    """An app may leave its headers out, or send any iterable of pairs."""
    start = {"type": "http.response.start", "status": 200}
    if headers is not None:
        start["headers"] = headers
    exchange = await get(Noting(noting([], start, BODY)))
    assert exchange.error is None
    assert exchange.starts[0]["headers"][-1] == (b"x-mark", b"a")


async def test_request_headers_of_any_shape() -> None:
    """A server may give the request's headers as any iterable of pairs; the app gets all of them."""
    app = Echo()
    pairs: Any = ([name, value] for name, value in [(b"host", b"a"), (b"x", b"1"), (b"x", b"2")])
    scope = {**http_scope(), "headers": pairs}
    await call(Noting(app), scope)
    assert [tuple(pair) for pair in app.scopes[0]["headers"]] == [(b"host", b"a"), (b"x", b"1"), (b"x", b"2")]


async def test_streams_are_not_buffered() -> None:
    """Each chunk is sent before the app makes the next, and each message received when the app asks for it."""
    events: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        while True:
            message = await receive()
            events.append(f"app got {message['body']!r}")
            await send({**message, "type": "http.response.body"})
            if not message["more_body"]:
                return

    chunks = [b"1", b"2", b"3"]

    async def receive() -> Message:
        body = chunks.pop(0)
        events.append(f"server gives {body!r}")
        return {"type": "http.request", "body": body, "more_body": bool(chunks)}

    async def send(message: Message) -> None:
        events.append(f"server sends {message.get('body', 'head')!r}")

    await Chain(app, [Noting(app), Noting(app)])(http_scope(), receive, send)
    assert events == [
        "server sends 'head'",
        *(f"{step} {body!r}" for body in (b"1", b"2", b"3") for step in ("server gives", "app got", "server sends")),
    ]


async def test_concurrent_requests() -> None:
    """Many requests at once on one chain keep their facts apart, in the context too."""

    class Naming(Layer):
        name = "naming"

        def enter(self, exchange: Exchange) -> None:
            exchange.request_id = exchange.path

        def mark(self, exchange: Exchange, head: Head) -> None:
            head.lines.append((b"x-id", exchange.path.encode()))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
            assert request_id() == scope["path"]
        await Echo(headers=[])(scope, receive, send)

    paths = [f"/{number}" for number in range(200)]
    layer = Naming(app)
    exchanges = await asyncio.gather(*(get(layer, path) for path in paths))
    assert [exchange.error for exchange in exchanges] == [None] * len(paths)
    assert [exchange.headers["x-id"] for exchange in exchanges] == paths
    assert request_id() is None
