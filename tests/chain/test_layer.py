"""How layers run: the order of their hooks, what passes through, and what happens when something fails."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from asgi_guard import AccessLogMiddleware, RequestIDMiddleware, UnknownScopeError
from asgi_guard.chain.layer import Chain, Layer
from asgi_guard.chain.response import Response
from asgi_guard.policy.answer import Answer, Reason, problem
from tests.asgi import Echo, call, get, http_scope, websocket_scope

if TYPE_CHECKING:
    from asgi_guard.asgi import ASGIApp, Head, Header, Message, Receive, Scope, Send
    from asgi_guard.chain.exchange import Exchange
    from asgi_guard.chain.layer import Decision


class Noting(Layer):
    """A layer that notes its hooks, and does in each what it is told."""

    name = "noting"

    def __init__(self, app: ASGIApp, label: str = "a", events: list[str] | None = None, **told: Any) -> None:
        super().__init__(app)
        self.label = label
        self.events: list[str] = [] if events is None else events
        self.told = told

    def _note(self, hook: str) -> Any:
        self.events.append(f"{hook} {self.label}")
        told = self.told.get(hook)
        if isinstance(told, Exception):
            raise told
        return told

    def enter(self, exchange: Exchange) -> None:
        self._note("enter")
        exchange.request_id = exchange.request_id or "id-1"

    def decide(self, exchange: Exchange) -> Decision:
        answer: Decision = self._note("decide")
        return answer

    def mark(self, exchange: Exchange, head: Head) -> None:
        self._note("mark")
        head.lines.append((b"x-mark", self.label.encode()))

    def leave(self, exchange: Exchange, response: Response, error: BaseException | None) -> None:
        self._note("leave")


async def empty() -> Message:
    """The `receive` of a request without a body."""
    return {"type": "http.request"}


REFUSAL = problem(403, Reason.CROSS_SITE, "No.")


def chain(app: ASGIApp, events: list[str], *told: dict[str, Any]) -> Chain:
    return Chain(app, [Noting(app, label, events, **each) for label, each in zip("abc", told, strict=False)])


def noting(events: list[str], *messages: Message) -> ASGIApp:
    """An app that notes that it was called and sends messages."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        events.append("app")
        for message in messages:
            await send(message)

    return app


START: Message = {"type": "http.response.start", "status": 200, "headers": []}
BODY: Message = {"type": "http.response.body", "body": b"ok"}


def broken(error: Exception, *messages: Message) -> ASGIApp:
    """An app that sends messages and raises."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        raise error

    return app


async def test_order() -> None:
    """Hooks run inward, the app, then outward; marks are set in the app's own response."""
    events: list[str] = []
    exchange = await get(chain(noting(events, START, BODY), events, {}, {}))
    assert events == [
        "enter a", "enter b", "decide a", "decide b", "app", "mark b", "mark a", "leave b", "leave a",
    ]  # fmt: skip
    assert exchange.starts[0]["headers"] == [(b"x-mark", b"b"), (b"x-mark", b"a")]


async def later(answer: Answer | None) -> Answer | None:
    await asyncio.sleep(0)
    return answer


@pytest.mark.parametrize("waits", [False, True])
async def test_a_refusal(waits: bool) -> None:
    """A layer that answers, at once or later, is the last to decide, and every layer marks its answer."""
    events: list[str] = []
    told = {"decide": later(REFUSAL) if waits else REFUSAL}
    exchange = await get(chain(noting(events), events, {"decide": later(None)}, told, {}))
    assert events == [
        "enter a", "enter b", "enter c", "decide a", "decide b", "mark c", "mark b", "mark a",
        "leave c", "leave b", "leave a",
    ]  # fmt: skip
    assert exchange.status == 403
    assert exchange.headers["x-mark"] == "c, b, a"
    assert exchange.headers["content-length"] == str(len(exchange.body))


async def test_head() -> None:
    """An answer to HEAD has the head of the answer to GET, and no body."""
    events: list[str] = []
    exchange = await call(chain(noting(events), events, {"decide": REFUSAL}), http_scope("HEAD"))
    assert exchange.body == b""
    assert exchange.headers["content-length"] == str(len(REFUSAL.body))


async def test_no_content() -> None:
    """An answer without content names no length (RFC 9110 8.6)."""
    events: list[str] = []
    exchange = await get(chain(noting(events), events, {"decide": Answer(204)}))
    assert exchange.headers == {"x-mark": "a"}


async def test_an_unhandled_exception(caplog: pytest.LogCaptureFixture) -> None:
    """An exception of the app's gets a marked 500, is logged with the request's id, and is raised on."""
    error = LookupError("a secret")
    exchange = await get(Noting(broken(error)))
    assert exchange.error is error
    assert exchange.status == 500
    assert exchange.headers["x-mark"] == "a"
    assert exchange.headers["content-type"] == "application/problem+json"
    assert b'"reason":"app_error"' in exchange.body
    assert b"secret" not in exchange.body
    (record,) = caplog.records
    assert (record.levelno, record.__dict__["request_id"]) == (logging.ERROR, "id-1")
    assert record.exc_info is not None
    assert record.exc_info[1] is error


@pytest.mark.parametrize(("version", "said"), [("1.1", "close"), ("1.0", "close"), ("2", None), ("3", None)])
async def test_a_connection_that_ends_with_an_exception(version: str, said: str | None) -> None:
    """A client of HTTP/1 is told so, since servers close it where an app raises; later versions have no such header."""
    exchange = await get(Noting(broken(LookupError())), http_version=version)
    assert exchange.headers.get("connection") == said
    assert "connection" not in (await get(Noting(silent), http_version=version)).headers


async def test_an_exception_after_the_start(caplog: pytest.LogCaptureFixture) -> None:
    """An exception after the response has begun is logged and raised on, and nothing is sent after it."""
    exchange = await get(Noting(broken(LookupError(), START, {**BODY, "more_body": True})))
    assert isinstance(exchange.error, LookupError)
    assert [message["type"] for message in exchange.messages] == ["http.response.start", "http.response.body"]
    assert len(caplog.records) == 1


async def test_an_exception_over_websocket() -> None:
    """Before a WebSocket is accepted, an exception denies it with 500; after that it is raised on."""
    denied = await call(Noting(broken(LookupError())), websocket_scope())
    assert denied.status == 500
    accepted = await call(Noting(broken(LookupError(), {"type": "websocket.accept"})), websocket_scope())
    assert [message["type"] for message in accepted.messages] == ["websocket.accept"]
    assert isinstance(accepted.error, LookupError)


@pytest.mark.parametrize(("told", "reason"), [({}, "app_error"), ({"decide": LookupError()}, "guard_error")])
async def test_an_exception_over_websocket_that_can_only_be_closed(told: dict[str, Any], reason: str) -> None:
    """Such a one is left to the server, which answers 500: a close would make it 403, and the client's fault."""
    lines: list[bytes] = []
    app = AccessLogMiddleware(Noting(broken(LookupError()), **told), write=lines.append)
    bare = await call(app, websocket_scope(extensions={}))
    assert bare.messages == []
    assert isinstance(bare.error, LookupError)
    record = json.loads(lines[0])
    assert (record["severity"], record["http.response.status_code"]) == ("ERROR", 500)
    assert record["asgi_guard.reason"] == reason


async def cancelled(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that awaits what was cancelled."""
    other = asyncio.create_task(asyncio.sleep(9))
    other.cancel()
    await other


async def test_an_exception_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """However many layers see an exception pass, it is logged once and answered once."""
    exchange = await get(Noting(Noting(Noting(broken(LookupError())))))
    assert exchange.status == 500
    assert len(caplog.records) == 1


async def test_an_exception_once_the_client_is_gone() -> None:
    """Nothing is sent to a client that has left."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        raise LookupError

    exchange = await call(Noting(app), http_scope(), {"type": "http.disconnect"})
    assert exchange.messages == []
    assert isinstance(exchange.error, LookupError)


async def test_an_exception_of_an_app_that_was_told(caplog: pytest.LogCaptureFixture) -> None:
    """That an app gives up by an exception once its client has left is told, and is no error."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        raise LookupError

    with caplog.at_level(logging.INFO):
        await call(Noting(app), http_scope(), {"type": "http.disconnect"})
    (record,) = caplog.records
    assert (record.levelno, record.exc_info is not None) == (logging.INFO, True)
    assert "after its client had left: 'GET' '/', request id id-1" in record.getMessage()


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that returns without a word."""


async def test_an_app_that_does_not_answer(caplog: pytest.LogCaptureFixture) -> None:
    """In the place of an app that returned without a word, a marked 500 is sent, and one line names the request."""
    exchange = await get(Noting(Noting(silent)), "/a")
    assert (exchange.error, exchange.status, exchange.headers["x-mark"]) == (None, 500, "a, a")
    assert b'"reason":"app_error"' in exchange.body
    (record,) = caplog.records
    assert (record.levelno, record.__dict__["request_id"]) == (logging.ERROR, "id-1")
    assert record.getMessage() == "the app returned without a response: 'GET' '/a', request id id-1"


async def test_an_app_that_does_not_answer_a_handshake() -> None:
    """A WebSocket that an app leaves without a word is denied too."""
    assert (await call(Noting(silent), websocket_scope())).status == 500


@pytest.mark.parametrize("app", [silent, cancelled])
async def test_an_error_that_no_server_answers(app: ASGIApp) -> None:
    """A WebSocket is closed where it could only be left open, and the log tells it as an error, whatever its status."""
    lines: list[bytes] = []
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    with suppress(asyncio.CancelledError):
        await AccessLogMiddleware(app, write=lines.append)(websocket_scope(extensions={}), empty, send)
    assert sent == [{"type": "websocket.close", "code": 1011, "reason": "app_error"}]
    record = json.loads(lines[0])
    assert (record["severity"], record["http.response.status_code"]) == ("ERROR", 403)


async def test_an_app_that_leaves_with_its_client(caplog: pytest.LogCaptureFixture) -> None:
    """An app that returns because its client has left owes nobody an answer."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    exchange = await call(Noting(app), http_scope(), {"type": "http.disconnect"})
    assert (exchange.error, exchange.messages, caplog.records) == (None, [], [])


@pytest.mark.parametrize(("version", "headers"), [("1.1", [(b"content-length", b"2")]), ("2", [])])
async def test_an_exception_once_the_body_was_read(version: str, headers: list[Header]) -> None:
    """The 500 to a request whose body the app has read does not wait for more of it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        raise LookupError

    pieces: list[Message] = [
        {"type": "http.request", "body": b"a", "more_body": True},
        {"type": "http.request", "body": b"b"},
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        assert pieces, "the server would wait here for the client to leave"
        return pieces.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    with pytest.raises(LookupError):
        await Noting(app)(http_scope("POST", headers=headers, http_version=version), receive, send)
    assert sent[0]["status"] == 500


@pytest.mark.parametrize("hook", ["enter", "decide"])
async def test_a_fault_of_a_layer(hook: str, caplog: pytest.LogCaptureFixture) -> None:
    """A layer that fails on the way in keeps the app from being reached, and the client gets 500 `guard_error`."""
    events: list[str] = []
    error = ZeroDivisionError()
    exchange = await get(chain(noting(events), events, {}, {hook: error}))
    assert exchange.error is error
    assert exchange.status == 500
    assert b'"reason":"guard_error"' in exchange.body
    assert exchange.headers["x-mark"] == "b, a"
    assert "app" not in events
    assert "leave a" in events
    assert len(caplog.records) == 1


async def test_a_decision_that_fails_later() -> None:
    """A decision that fails after a wait is a fault of the guard's too."""

    async def failing() -> Answer | None:
        raise ZeroDivisionError

    events: list[str] = []
    exchange = await get(chain(noting(events), events, {"decide": failing()}))
    assert exchange.status == 500
    assert b"guard_error" in exchange.body
    assert "app" not in events


@pytest.mark.parametrize("decision", [None, REFUSAL])
async def test_a_mark_that_fails(decision: Answer | None, caplog: pytest.LogCaptureFixture) -> None:
    """Where marks fail, the response becomes a 500 without marks, sent once, and both failures are logged."""
    events: list[str] = []
    app = noting(events, START, BODY)
    exchange = await get(chain(app, events, {}, {"mark": ZeroDivisionError(), "decide": decision}))
    assert isinstance(exchange.error, ZeroDivisionError)
    assert exchange.status == 500
    assert b'"reason":"guard_error"' in exchange.body
    assert "x-mark" not in exchange.headers
    assert len(caplog.records) == 2
    assert "unhandled exception in the guard" in caplog.text


async def test_a_mark_that_fails_around_another_chain(caplog: pytest.LogCaptureFixture) -> None:
    """An outer layer that fails to mark is at fault, though the chain within sees its error first."""
    outer = Noting(RequestIDMiddleware(Echo()), mark=ZeroDivisionError())
    exchange = await get(outer)
    assert b'"reason":"guard_error"' in exchange.body
    assert "unhandled exception in the guard" in caplog.text
    assert "in the app" not in caplog.text


async def test_an_answer_that_cannot_be_sent() -> None:
    """If sending the 500 fails half-way, nothing is sent a second time."""
    sent: list[str] = []

    async def send(message: Message) -> None:
        sent.append(message["type"])
        if message["type"] == "http.response.body":
            raise ConnectionResetError

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    with pytest.raises(ConnectionResetError):
        await Noting(broken(LookupError()))(http_scope(), receive, send)
    assert sent == ["http.response.start", "http.response.body"]


async def test_a_head_that_the_server_refuses() -> None:
    """A head that the server does not send is not logged as if it had been."""

    async def send(message: Message) -> None:
        raise RuntimeError("invalid header value")

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    lines: list[bytes] = []
    with pytest.raises(RuntimeError):
        await AccessLogMiddleware(Echo(), write=lines.append)(http_scope(), receive, send)
    record = json.loads(lines[0])
    assert (record["severity"], record.get("http.response.status_code")) == ("ERROR", None)


async def test_a_leave_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """A layer that fails on leaving takes no response back, and keeps no other layer from leaving."""
    events: list[str] = []
    exchange = await get(chain(noting(events, START, BODY), events, {}, {"leave": ZeroDivisionError()}))
    assert (exchange.error, exchange.status) == (None, 200)
    assert events[-1] == "leave a"
    assert "failed on leaving" in caplog.text


async def test_cancellation() -> None:
    """A cancelled request is no exception of the app's: layers leave, and nothing is sent."""
    events: list[str] = []
    begun = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(get(chain(app, events, {})))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert events[-1] == "leave a"
    assert "mark a" not in events


async def test_the_cancellation_of_another_task(caplog: pytest.LogCaptureFixture) -> None:
    """That a task which an app awaits was cancelled is an exception of the app's: the request's own was not."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        other = asyncio.create_task(asyncio.Event().wait())
        other.cancel()
        await other

    started: list[str] = []
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    with pytest.raises(asyncio.CancelledError):
        await Noting(Noting(app, events=started), events=started)(http_scope(), empty, send)
    assert started[-2:] == ["leave a", "leave a"]
    assert (sent[0]["status"], len(sent)) == (500, 2)
    assert dict(sent[0]["headers"])[b"x-mark"] == b"a"
    assert b'"reason":"app_error"' in sent[1]["body"]
    (record,) = caplog.records
    assert (record.levelno, record.getMessage().partition(":")[0]) == (logging.ERROR, "unhandled exception in the app")


async def test_the_cancellation_of_another_task_and_its_own() -> None:
    """A request that is cancelled is so too where it awaits a task, which is cancelled with it."""
    sent: list[Message] = []
    begun = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await asyncio.create_task(asyncio.Event().wait())

    async def send(message: Message) -> None:
        sent.append(message)

    task = asyncio.ensure_future(Noting(app)(http_scope(), empty, send))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sent == []


@pytest.mark.parametrize("kind", ["", "http2", "webtransport"])
async def test_unknown_scope(kind: str) -> None:
    """A scope that cannot be guarded does not reach the app."""
    app = Echo()
    exchange = await call(Noting(app), {"type": kind})
    assert isinstance(exchange.error, UnknownScopeError)
    assert (app.scopes, exchange.messages) == ([], [])
