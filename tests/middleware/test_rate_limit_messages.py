"""How many messages a WebSocket may send, and what becomes of the one too many."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard import AccessLogMiddleware, IdentityMiddleware, RateLimitMiddleware
from asgi_guard.policy.meter import Meter
from asgi_guard.policy.rates import SECOND, parse_rate
from tests.asgi import Echo, call, get, websocket_scope
from tests.middleware.limiting import PATIENCE, Session, bearer

if TYPE_CHECKING:
    from asgi_guard.asgi import ASGIApp, Message, Receive, Scope, Send
    from asgi_guard.testing import LocalIssuer

CUT = (1008, "rate_limited")


class Parrot:
    """An app that says every message back, and remembers what else it received."""

    def __init__(self, *, stubborn: bool = False) -> None:
        self.left: list[Message] = []
        self.stubborn = stubborn

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        self.left.append(message)
        if self.stubborn:
            for _ in range(2):
                self.left.append(await receive())
                await send({"type": "websocket.send", "text": "too late"})
            await send({"type": "websocket.close", "code": 1000})


async def said(app: ASGIApp, *texts: str, scope: Scope | None = None) -> Session:
    """Say these, then leave, and wait until the app has ended."""
    session = Session(app, scope or websocket_scope())
    session.say(*texts)
    session.leave()
    await session.over()
    return session


async def test_one_too_many() -> None:
    """The message that is one too many closes the connection with 1008, and the app sees the client leave."""
    app = Parrot()
    session = await said(RateLimitMiddleware(app, messages="2/hour"), "a", "b", "c")
    assert session.texts == ["a", "b"]
    assert session.closes == [CUT]
    assert app.left == [{"type": "websocket.disconnect", "code": 1008, "reason": "rate_limited"}]


async def test_as_many_as_there_may_be() -> None:
    """Who sends no more than there may be is not concerned."""
    app = Parrot()
    session = await said(RateLimitMiddleware(app, messages="3/hour"), "a", "b", "c")
    assert (session.texts, session.closes) == (["a", "b", "c"], [])
    assert app.left == [{"type": "websocket.disconnect", "code": 1001}]


async def test_an_app_that_goes_on() -> None:
    """An app that goes on after it was told sends nothing to anyone, and gets no message any more."""
    app = Parrot(stubborn=True)
    session = await said(RateLimitMiddleware(app, messages="1000/second burst 1"), "a", "b", "c")
    assert (session.texts, session.closes) == (["a"], [CUT])
    assert [message["type"] for message in app.left] == ["websocket.disconnect"] * 3


async def test_messages_that_come_once_there_is_room_again() -> None:
    """A connection that was closed stays closed, though there would be room for a message again."""
    received: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        for pause in (0, 0, 0, 0.02):
            await asyncio.sleep(pause)
            received.append((await receive())["type"])

    session = Session(RateLimitMiddleware(app, messages="100/second burst 1"), websocket_scope())
    session.say("a", "b", "c")
    await session.over()
    assert received == ["websocket.connect", "websocket.receive", "websocket.disconnect", "websocket.disconnect"]


async def test_a_task_of_the_app_that_sends_meanwhile() -> None:
    """What another task of the app sends while the connection is being closed does not reach the server."""
    closing, sent = asyncio.Event(), asyncio.Event()
    messages: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})

        async def reading() -> None:
            assert [(await receive())["type"] for _ in range(2)] == ["websocket.receive", "websocket.disconnect"]

        async with asyncio.TaskGroup() as group:
            group.create_task(reading())
            await closing.wait()
            await send({"type": "websocket.send", "text": "meanwhile"})
            sent.set()

    incoming = [{"type": "websocket.connect"}, *[{"type": "websocket.receive", "text": "a"}] * 2]

    async def receive() -> Message:
        return incoming.pop(0)

    async def send(message: Message) -> None:
        messages.append(message["type"])
        if message["type"] == "websocket.close":
            closing.set()
            await sent.wait()

    async with asyncio.timeout(PATIENCE):
        await RateLimitMiddleware(app, messages="1/hour")(websocket_scope(), receive, send)
    assert messages == ["websocket.accept", "websocket.close"]


async def test_a_client_that_is_gone_already() -> None:
    """Where the close cannot be sent any more, the app sees the client leave all the same."""
    app = Parrot()
    incoming = [{"type": "websocket.connect"}, *({"type": "websocket.receive", "text": text} for text in "ab")]

    async def receive() -> Message:
        return incoming.pop(0)

    async def send(message: Message) -> None:
        if message["type"] == "websocket.close":
            raise OSError("the client is gone")

    await RateLimitMiddleware(app, messages="1/hour")(websocket_scope(), receive, send)
    assert [message["type"] for message in app.left] == ["websocket.disconnect"]


async def test_what_comes_after_the_apps_own_close() -> None:
    """A message that arrives after the app has closed the connection is not held against the client."""
    lines: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1000})
        for _ in range(3):
            await receive()

    layer = AccessLogMiddleware(RateLimitMiddleware(app, messages="1/hour"), write=lines.append)
    session = await said(layer, "a", "b")
    assert session.closes == [(1000, "")]
    assert "asgi_guard.reason" not in json.loads(lines[0])


class Choosy(RateLimitMiddleware):
    """Below a server that refuses some codes to close with, as daphne does."""

    refused: tuple[int, ...] = (1008,)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sends(message: Message) -> None:
            if message.get("code") in self.refused:
                raise ValueError("invalid close code")
            await send(message)

        await super().__call__(scope, receive, sends)


async def test_a_server_that_does_not_take_the_code() -> None:
    """Where a server does not close with 1008, it is asked to with a code of ours; that it takes none is an error."""
    layer = Choosy(Parrot(), messages="1/hour")
    session = await said(layer, "a", "b")
    assert session.closes == [(4008, "rate_limited")]
    layer.refused = (1008, 4008)
    with pytest.raises(ValueError, match="invalid close code"):
        await said(layer, "a", "b")


async def test_each_connection_by_itself() -> None:
    """What one connection has sent is not held against another of the same client."""
    layer = RateLimitMiddleware(Parrot(), messages="1/hour")
    first, second = Session(layer, websocket_scope()), Session(layer, websocket_scope())
    first.say("a", "b")
    await first.over()
    second.say("c")
    await second.heard(1)
    assert (first.closes, second.closes, second.texts) == ([CUT], [], ["c"])
    second.leave()
    await second.over()


async def test_layers_that_are_nested() -> None:
    """Two layers around each other count a message once each, and the smaller number holds."""
    outer = RateLimitMiddleware(RateLimitMiddleware(Parrot(), messages="3/hour"), messages="5/hour")
    session = await said(outer, *"abcde")
    assert (session.texts, session.closes) == (list("abc"), [CUT])
    inner = RateLimitMiddleware(RateLimitMiddleware(Parrot(), messages="5/hour"), messages="3/hour")
    session = await said(inner, *"abcde")
    assert (session.texts, session.closes) == (list("abc"), [CUT])


async def test_other_layers_around_it() -> None:
    """Layers without a limit on messages count none, inside and outside of one that has it."""
    limited = RateLimitMiddleware(RateLimitMiddleware(Parrot(), limit="9/hour by ip"), messages="3/hour")
    session = await said(AccessLogMiddleware(limited, write=lambda line: None), *"abcd")
    assert (session.texts, session.closes) == (list("abc"), [CUT])


async def test_what_is_logged() -> None:
    """The log tells that the connection was closed by a limit, and by which."""
    lines: list[bytes] = []
    layer = AccessLogMiddleware(
        RateLimitMiddleware(Parrot(), limit="9/hour by ip", messages="1/hour"), write=lines.append
    )
    await said(layer, "a", "b")
    record = json.loads(lines[0])
    assert record["asgi_guard.reason"] == "rate_limited"
    assert record["asgi_guard.refused_by"] == "rate_limit"
    assert record["asgi_guard.limit"] == "messages"
    assert record["http.response.status_code"] == 101


async def test_shadow() -> None:
    """In shadow no connection is closed, and the log tells that one would have been."""
    lines: list[bytes] = []
    layer = AccessLogMiddleware(
        RateLimitMiddleware(Parrot(), limit="9/hour by ip", messages="1/hour", shadow=True), write=lines.append
    )
    session = await said(layer, *"abcd")
    assert (session.texts, session.closes) == (list("abcd"), [])
    record = json.loads(lines[0])
    assert record["asgi_guard.limit_shadow"] == "messages"
    assert "asgi_guard.reason" not in record


@pytest.mark.parametrize("exempt", ["203.0.113.0/24", "user:alice"])
async def test_exempt(issuer: LocalIssuer, exempt: str) -> None:
    """Who is exempt may send as many messages as they like."""
    limited = RateLimitMiddleware(Parrot(), messages="1/hour", exempt=[exempt])
    layer = IdentityMiddleware(limited, issuers=[issuer.accepted()])
    session = await said(layer, *"abc", scope=websocket_scope(headers=[bearer(issuer.token())]))
    assert (session.texts, session.closes) == (list("abc"), [])


async def test_handshakes_and_http() -> None:
    """A limit on messages has no say in handshakes, nor over HTTP."""
    layer = RateLimitMiddleware(Echo(), messages="1/hour")
    for _ in range(3):
        assert (await call(layer, websocket_scope())).messages[0]["type"] == "websocket.accept"
        assert (await get(layer)).status == 200


@given(st.lists(st.integers(0, 3 * SECOND), max_size=60), st.integers(1, 5), st.integers(1, 5))
@example([0, 0, 0], 2, 1)
@example([SECOND // 2 - 1, 1], 2, 1)
def test_no_more_than_the_rate(pauses: list[int], count: int, burst: int) -> None:
    """In no stretch of time are more messages admitted than the burst and what comes back in that time."""
    limit = parse_rate(f"{count}/second burst {burst}", "messages")
    meter, now, admitted = Meter(limit), 5 * SECOND, []
    for pause in pauses:
        now += pause
        if meter.admits(now):
            admitted.append(now)
    for first, start in enumerate(admitted):
        for last in range(first, len(admitted)):
            assert last - first + 1 <= burst + (admitted[last] - start) // limit.interval


@pytest.mark.parametrize("text", ["20/second by ip", "2 at once", "lots", "0/second"])
def test_what_is_no_rate(text: str) -> None:
    """A limit on messages is a rate without a key."""
    with pytest.raises(ValueError, match="messages: "):
        RateLimitMiddleware(Echo(), messages=text)
