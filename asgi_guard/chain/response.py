"""The response of one exchange on its way out, whoever gives it."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Protocol

from asgi_guard.asgi import Head, Header, Headers, Message, Receive, Send
from asgi_guard.chain.told import note
from asgi_guard.policy.answer import Answer, Reason
from asgi_guard.policy.bucket import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asgi_guard.chain.exchange import Exchange
    from asgi_guard.policy.meter import Meter

logger = logging.getLogger("asgi_guard")

MAX_DRAINED_BYTES = 8 * 1024 * 1024
MAX_DRAINING_SECONDS = 2.0
"""How much of a refused request's body is read, and for how long, so that the refusal is not lost to a reset."""
MAX_SILENT_SECONDS = 0.2
"""How long the first part is waited for of a body that no header names."""
WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that send none, as far as nothing says that one comes."""
CUT_OFF = (1008, 4008)
"""How a WebSocket is closed whose client sends too much: policy violation (RFC 6455 7.4), or what stands for it where a
server lets apps close with codes of their own only, as daphne does."""

_RESPONSE_STARTS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})
_FILES = frozenset({"http.response.pathsend", "http.response.zerocopysend"})
_RESPONSE_BODIES = frozenset({"http.response.body", "websocket.http.response.body", *_FILES})
_OF_SESSIONS = frozenset({"websocket.send", "websocket.close"})
_SECOND_START = ""
"""What an app sends that starts to answer once more, as in an error handler: the head that was sent first stands."""

CLIENT_LEFT, UNFINISHED = "client_disconnected", "response_unfinished"
"""How a response broke off: its client left, which is no error of the app's, or the app returned before its end."""
_LOSSES = frozenset({"WebSocketDisconnect", "ClientDisconnect"})
"""What Starlette, FastAPI and Litestar raise in an app whose client has left."""


class _Mark(Protocol):
    def __call__(self, exchange: Exchange, head: Head) -> None: ...


class Response:
    """The response of one exchange on its way out: marks its head, counts its body, and knows how far it came.

    Attributes:
        started: whether the head was sent (or a WebSocket accepted or refused).
        finished: whether the last of it was sent.
        status: the head's status; 101 for an accepted WebSocket, 403 for one closed before that.
        sent: bytes of body, or of WebSocket messages.
        from_file: whether the server reads some of the body from a file by itself, so that these are not all.
        disconnected: whether the app was told that the client left.
        unheard: whether that was before the head, so that nobody has the response.
        lost: the server's error on sending, if it was told by one (ASGI 2.4).
        streamed: when the first part of a body in several was sent, in nanoseconds; None for any other.
        ended: when the app sent the last part, where that has to be known; what it does after keeps no client waiting.
        close_code: what a WebSocket was closed with, by whoever did it first; None if it was not.
        messages_received: messages of a WebSocket that the app was given, and
        messages_sent: those that it sent.
        meter: counts the messages of a WebSocket's client; None counts none.
    """

    __slots__ = (
        "_cut", "_exchange", "_marks", "_read", "_receive", "_scope", "_send", "close_code", "disconnected", "ended",
        "finished", "from_file", "lost", "messages_received", "messages_sent", "meter", "sent", "started", "status",
        "streamed", "unheard",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, receive: Receive, send: Send, marks: Sequence[_Mark]) -> None:
        self._exchange = exchange
        self._scope = exchange.scope
        self._read = False  # whether the request's body was read to its end
        self._receive = receive
        self._send = send
        self._marks = marks
        self.started = False
        self.finished = False
        self.disconnected = self.unheard = False
        self.lost: OSError | None = None
        self.streamed: int | None = None
        self.ended: int | None = None
        self.close_code: int | None = None
        self.messages_received = self.messages_sent = 0
        self.status: int | None = None
        self.sent = 0
        self.from_file = False
        self.meter: Meter | None = None
        self._cut = False  # whether the guard has closed a WebSocket that the app has accepted

    async def send(self, message: Message) -> None:
        """The `send` that the app gets. Adapters such as asgiref's look whether it is a coroutine function."""
        kind = message["type"]
        if kind in _RESPONSE_BODIES:
            self.sent += len(message.get("body", b""))
            if kind in _FILES:
                self.from_file = True
            if message.get("more_body", False):
                if self.streamed is None:
                    self.streamed = time.perf_counter_ns()
            elif not self.disconnected:  # some middlewares end a body that its client has left in the middle
                self.finished = True
                if self._exchange.timed:
                    self.ended = time.perf_counter_ns()
        elif kind in _RESPONSE_STARTS:
            message = {**message, "headers": self._marked(message.get("headers") or (), message.get("status"))}
            if self.status is None:
                self.status, self.started = message.get("status", 101), True
            else:
                kind = _SECOND_START
        elif kind in _OF_SESSIONS:
            if self._cut:
                return  # the guard has closed it, which the app may not know yet
            self._note_sent(kind, message)
        try:
            await self._send(message)
        except Exception as error:
            self._note_failure(error, of_head=kind in _RESPONSE_STARTS)
            raise

    def _note_sent(self, kind: str, message: Message) -> None:
        """Note what the app sends on a WebSocket."""
        if kind == "websocket.send":
            data = message.get("bytes") or message.get("text") or b""
            self.sent += len(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)
            self.messages_sent += 1
            return
        self.finished = True
        self._note_close(message)
        if not self.started:
            self.started, self.status = True, 403

    def is_loss(self, error: BaseException) -> bool:
        """Whether an app's exception only says that its client left: the server's own, or a framework's."""
        if isinstance(error, BaseExceptionGroup):
            return all(map(self.is_loss, error.exceptions))
        kinds = {kind.__name__ for kind in type(error).__mro__}
        return error is self.lost or (self.disconnected and not kinds.isdisjoint(_LOSSES))

    @property
    def is_left(self) -> bool:
        """Whether the client left before it had the whole response."""
        return self.disconnected and (self.unheard or not self.finished)

    def failure(self, error: BaseException | None) -> str | None:
        """How it broke off, in a word for logs and metrics; None if it did not, or if a session ended as they do.

        Args:
            error: what the app raised, if anything.
        """
        if self._exchange.kind == "http":
            if self.is_left:
                return CLIENT_LEFT
            if error is None:
                return None if self.finished else UNFINISHED
        return None if error is None or self.is_loss(error) else type(error).__name__

    def _note_failure(self, error: Exception, *, of_head: bool) -> None:
        """Note that the server would not send something, or, as an OSError says, had nobody to send it to."""
        if isinstance(error, OSError):
            self.disconnected, self.finished, self.lost = True, False, error
            note(error)
        if of_head:
            self.status = None

    def _marked(self, headers: Iterable[Header], status: int | None) -> Headers:
        """The headers of a response, and what the layers add to them."""
        exchange, head = self._exchange, Head(headers, status)
        seen = exchange.scope
        if seen is not self._scope:
            # Another chain further in was handed another one: see the request as this one was, for as long as it marks.
            exchange.turn_to(self._scope)
        try:
            for mark in self._marks:
                mark(exchange, head)
        except Exception as error:
            exchange.fault = error
            raise
        finally:
            if seen is not self._scope:
                exchange.turn_to(seen)
        return head.lines

    async def receive(self) -> Message:
        """The `receive` that the app gets: the server's, watched for the body's end and the client's leaving."""
        message = await self._receive()
        kind = message["type"]
        if kind == "http.request":
            self._read = not message.get("more_body", False)
        elif kind in ("http.disconnect", "websocket.disconnect"):
            self.disconnected = True
            self.unheard = self.unheard or not self.started
            if kind == "websocket.disconnect":
                self._note_close(message)
        elif kind == "websocket.receive":
            if self._cut or self._is_one_too_many():
                return await self._cut_off()
            self.messages_received += 1
        return message

    def _note_close(self, message: Message) -> None:
        if self.close_code is None:
            # What ASGI takes for a missing code: of a close 1000, of a client that vanished 1005.
            self.close_code = message.get("code", 1000 if message["type"] == "websocket.close" else 1005)

    def _is_one_too_many(self) -> bool:
        meter = self.meter
        if meter is None or self.finished or meter.admits(time.monotonic_ns() // 1000):
            return False
        exceeded, verdict = meter.exceeded, self._exchange.verdict or Verdict(True)
        if exceeded not in verdict.readings:
            readings = (*verdict.readings, exceeded)
            self._exchange.verdict = Verdict(not exceeded.binding, readings, verdict.revoked)
        return exceeded.binding

    async def _cut_off(self) -> Message:
        """Close a WebSocket whose client sends too much. The app sees it leave, as often as it asks."""
        reason = Reason.RATE_LIMITED.value
        if not self._cut:
            self._cut = self.disconnected = self.finished = True  # first, since other tasks of the app may be sending
            self._exchange.answer = Answer(101, reason=Reason.RATE_LIMITED)
            self._exchange.answered_by = "rate_limit"
            await self._close(reason)
        return {"type": "websocket.disconnect", "code": self.close_code, "reason": reason}

    async def _close(self, reason: str) -> None:
        for code in CUT_OFF:
            self.close_code = code
            try:
                await self._send({"type": "websocket.close", "code": code, "reason": reason})
            except OSError:
                return  # the client is gone already
            except Exception:
                if code == CUT_OFF[-1]:
                    raise
            else:
                return

    @property
    def can_answer(self) -> bool:
        """Whether an answer can be sent, as it can to a WebSocket handshake only by an extension of the server's."""
        exchange = self._exchange
        return exchange.kind == "http" or "websocket.http.response" in (exchange.scope.get("extensions") or ())

    async def answer(self, answer: Answer) -> None:
        """Send an answer of the guard's own."""
        exchange, status, headers, body = self._exchange, answer.status, answer.headers, answer.body
        start, end = "http.response.start", "http.response.body"
        if exchange.kind == "http":
            asked = exchange.headers
            # Most refused requests, and preflights, have no body: they pay for no call.
            if b"content-length" in asked or b"transfer-encoding" in asked:
                if self._is_unread():
                    await exchange.wait(self._drain(MAX_DRAINING_SECONDS))
            elif exchange.method not in WITHOUT_BODY and not self._read and not exchange.is_http_1:
                await exchange.wait(self._drain(MAX_SILENT_SECONDS))
        elif self.can_answer:
            start, end = "websocket.http.response.start", "websocket.http.response.body"
        else:
            # Without that extension a handshake can only be refused bare; the server then answers 403.
            code = 1013 if status in (429, 503) else 1011 if status >= 500 else 1008
            await self.send({"type": "websocket.close", "code": code, "reason": answer.reason or ""})
            return
        if status not in (204, 304):
            headers = (*headers, (b"content-length", b"%d" % len(body)))
        if exchange.method == "HEAD":
            body = b""
        # As `send` does it, without asking what is sent.
        lines = self._marked(headers, status)
        self.status, self.started = status, True
        try:
            await self._send({"type": start, "status": status, "headers": lines})
            self.sent += len(body)
            self.finished = True
            await self._send({"type": end, "body": body})
        except Exception as error:
            self._note_failure(error, of_head=not self.finished)
            raise

    def _is_unread(self) -> bool:
        """Tell whether a body is on its way. Who asked whether to send it (`Expect: 100-continue`) has not begun."""
        headers = self._exchange.headers
        if headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers:
            return False
        return not self._read and b"expect" not in headers

    async def _drain(self, first: float) -> None:
        """Read the request's body before it is answered without the app, within bounds.

        A server closes a connection whose request was not read; a client that is still sending then meets a reset, and
        may never see the answer. One that names no body may be waiting for the answer before it sends any.

        Args:
            first: seconds that the first part has to come.
        """
        left = MAX_DRAINED_BYTES
        try:
            async with asyncio.timeout(first) as bound:
                while left > 0:
                    message = await self.receive()
                    if first < MAX_DRAINING_SECONDS:
                        first = MAX_DRAINING_SECONDS
                        bound.reschedule(asyncio.get_running_loop().time() + first)
                    left -= len(message.get("body", b""))
                    if message["type"] != "http.request" or not message.get("more_body", False):
                        return
        except TimeoutError:
            return

    async def fail(self, answer: Answer) -> None:
        """Send an answer for an error. If it is a mark that fails, the answer goes out without marks."""
        try:
            await self.answer(answer)
        except Exception:
            if self.started:
                raise
            logger.exception("a layer failed to mark the response to an error")
            self._marks = ()
            await self.answer(answer)
