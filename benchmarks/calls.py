"""Requests to an app in this process, by raw ASGI, without a server: made, checked and timed."""

from __future__ import annotations

import io
import logging
import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from asgi_guard.chain.layer import Layer
from benchmarks.subjects import receive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from asgi_guard.asgi import ASGIApp, Message, Scope


class Idle(Layer):
    """A layer without hooks: what it takes is the price of having any layer at all, and stands in each one's figure."""

    name = "idle"


async def check(app: ASGIApp, scope: Scope) -> None:
    """See to it that what will be timed is a request that is served."""
    starts: list[Message] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            starts.append(message)

    await app(dict(scope), receive, send)
    assert [start["status"] for start in starts] == [200], f"{app!r} answers {starts}"


async def send(message: Message) -> None:
    """Take a message, as a server would."""


async def timed(app: ASGIApp, scope: Scope, calls: int, clock: Callable[[], int] = time.process_time_ns) -> float:
    """Microseconds a call.

    Args:
        app: what is called.
        scope: with what.
        calls: how often.
        clock: nanoseconds; of CPU time unless said, which tells nothing of what else the machine does. Where an app
            waits for something, that is not what is to be known.
    """
    started = clock()
    for _ in range(calls):
        await app(dict(scope), receive, send)
    return (clock() - started) / calls / 1000


async def timed_over(app: ASGIApp, scopes: Sequence[Scope]) -> float:
    """Microseconds of CPU time a call, with one call for each scope."""
    started = time.process_time_ns()
    for scope in scopes:
        await app(dict(scope), receive, send)
    return (time.process_time_ns() - started) / len(scopes) / 1000


@contextmanager
def discarded_output() -> Iterator[None]:
    """Let the access log write to the null device: the call is made, and nobody's terminal is measured."""
    ours = sys.stdout
    with open(os.devnull, "wb") as null, io.TextIOWrapper(null) as stream:  # noqa: PTH123 - it is no file of anyone's
        sys.stdout = stream
        try:
            yield
        finally:
            sys.stdout = ours


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the guard's own warnings off the terminal, where what they warn of is intended: an outage, an odd limit."""
    logger = logging.getLogger("asgi_guard")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
