"""What the server's log says of exceptions: those that the guard has told are not told again, and all others are."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from starlette.requests import ClientDisconnect

from asgi_guard import AccessLogMiddleware, Guard, GuardSettings
from asgi_guard.cli.server_log import WithoutRequests
from tests.asgi import call, http_scope, websocket_scope

if TYPE_CHECKING:
    from asgi_guard.asgi import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True)
class FrozenError(Exception):
    """One that lets nothing be set."""

    code: int


class Raising:
    """An app that raises, once its client has left if that is to be so."""

    def __init__(self, error: BaseException, *, gone: bool = False) -> None:
        self._error, self._gone = error, gone

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while self._gone and (await receive())["type"] != "http.disconnect":
            pass
        raise self._error


class Around:
    """What stands around a guard: it raises before, or of what it hears from it."""

    def __init__(self, app: ASGIApp, how: str) -> None:
        self._app, self._how = app, how

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._how == "before":
            raise LookupError("outside")
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            if self._how == "from":
                raise RuntimeError("wrapped") from error
            if self._how == "group":
                raise ExceptionGroup("wrapped", [error]) from None
            if self._how == "group with another":
                raise ExceptionGroup("wrapped", [error, LookupError("outside")]) from None
            raise LookupError("in the handler")  # noqa: B904 - it is an error of its own
        raise LookupError("after")


def server_says(error: BaseException | None) -> bool:
    """Whether the server's record of an exception is written."""
    record = logging.LogRecord("uvicorn.error", logging.ERROR, __file__, 1, "Exception in ASGI application\n", (), None)
    record.exc_info = None if error is None else (type(error), error, error.__traceback__)
    return WithoutRequests().filter(record)


def guard(app: ASGIApp) -> Guard:
    return Guard(app, GuardSettings())


@pytest.mark.parametrize(
    ("app", "said"),
    [
        (guard(Raising(KeyError("inside"))), False),
        (guard(Raising(FrozenError(3))), False),
        (guard(Raising(ExceptionGroup("tasks", [KeyError("inside")]))), False),
        (Around(guard(Raising(KeyError("inside"))), "from"), False),
        (Around(guard(Raising(KeyError("inside"))), "group"), False),
        (Around(guard(Raising(KeyError("inside"))), "group with another"), True),
        (Around(guard(Raising(KeyError("inside"))), "handler"), True),
        (Around(guard(Raising(KeyError("inside"))), "before"), True),
        (guard(Raising(ClientDisconnect(), gone=True)), False),
        (guard(Raising(KeyError("inside"), gone=True)), False),
        (Raising(ClientDisconnect(), gone=True), True),
        # The inner layer tells the first exception, and what is made of it further out is nobody's yet.
        (AccessLogMiddleware(Around(guard(Raising(KeyError("inside"))), "handler")), True),
    ],
)
async def test_what_the_guard_has_not_told_is_told(app: ASGIApp, said: bool) -> None:
    """An exception is in the guard's log or in the server's; a client that left is in neither, if the guard saw it."""
    error = (await call(app, http_scope())).error
    assert error is not None
    assert server_says(error) is said


async def test_a_client_that_cannot_be_sent_to_is_nobodys_error() -> None:
    """The server's own error of a client that has left is told by nobody, also where it meets an answer of the guard's.

    What an app makes of it in a group of tasks stays as quiet.
    """

    async def send(message: Message) -> None:
        raise OSError("gone")

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def sending(scope: Scope, receive: Receive, send: Send) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(one(send))

    async def one(send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    for scope in (http_scope(), http_scope("GET", "/health/live"), websocket_scope()):
        error: BaseException | None = None
        try:
            await guard(sending)(scope, receive, send)
        except Exception as caught:  # noqa: BLE001 - whatever it is, it is looked at
            error = caught
        assert error is not None
        assert server_says(error) is False


def test_what_ends_a_process_is_told_and_what_is_cancelled_is_not() -> None:
    """An app that raises SystemExit is told, and what the server cancels itself is not; nor is a record without one."""
    assert server_says(SystemExit(3)) is True
    assert server_says(asyncio.CancelledError()) is False
    assert server_says(None) is True
