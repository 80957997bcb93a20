"""What the app's own calls and records carry of the request in hand."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import logging.config
import logging.handlers
import queue
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import structlog

from asgi_guard import (
    APIKey,
    IdentityMiddleware,
    RequestContextFilter,
    RequestIDMiddleware,
    add_request_context,
    propagate,
    propagation_headers,
    trace,
)
from asgi_guard.chain.exchange import current
from asgi_guard.policy.identity import User
from tests.asgi import Echo, call, get, websocket_scope
from tests.guarded import KEY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asgi_guard.asgi import ASGIApp, Receive, Scope, Send
    from asgi_guard.middleware.request_id import Trusted

TRACE_ID = "a" * 32
PARENT = f"00-{TRACE_ID}-{'b' * 16}-01"
HEADERS = [(b"x-request-id", b"r1"), (b"traceparent", PARENT.encode()), (b"tracestate", b"a=1")]


def around(work: Callable[[], Awaitable[None]]) -> ASGIApp:
    """An app that does this work before it answers."""
    echo = Echo()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await work()
        await echo(scope, receive, send)

    return app


async def test_what_came_is_handed_on() -> None:
    """Outgoing calls carry the request's id, by its own header, and the caller's trace context."""
    found: list[dict[str, str]] = []

    async def work() -> None:
        found.append(propagation_headers())

    await get(
        RequestIDMiddleware(around(work), header="X-Correlation-ID"), headers=[(b"x-correlation-id", b"c1"), *HEADERS]
    )
    assert found == [{"x-correlation-id": "c1", "traceparent": PARENT, "tracestate": "a=1"}]
    assert propagation_headers() == {}


@pytest.mark.parametrize("trusted", ["anyone", "nobody"])
async def test_no_trace_is_made_up(trusted: Trusted) -> None:
    """Without a trace that the caller sent, and may send, calls carry the id alone: who is called decides on traces."""
    found: list[dict[str, str]] = []

    async def work() -> None:
        found.append(propagation_headers())
        assert trace() is None

    headers = HEADERS[1:] if trusted == "nobody" else []
    answer = await get(RequestIDMiddleware(around(work), trust_incoming=trusted), headers=headers)
    assert found == [{"x-request-id": answer.headers["x-request-id"]}]


async def test_httpx() -> None:
    """The event hook puts the headers on requests of both kinds of client, and what a request says itself stays."""
    received: list[httpx.Headers] = []

    def answer(request: httpx.Request) -> httpx.Response:
        received.append(request.headers)
        return httpx.Response(200)

    hooks: dict[str, list[Callable[..., Any]]] = {"request": [propagate]}

    async def work() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer), event_hooks=hooks) as client:
            await client.get("http://inner.example/")
            await client.get("http://inner.example/", headers={"X-Request-ID": "mine"})
        with httpx.Client(transport=httpx.MockTransport(answer), event_hooks=hooks) as blocking:
            await asyncio.to_thread(blocking.get, "http://inner.example/")

    await get(RequestIDMiddleware(around(work)), headers=HEADERS)
    assert [headers["x-request-id"] for headers in received] == ["r1", "mine", "r1"]
    assert {headers["traceparent"] for headers in received} == {PARENT}


@pytest.mark.parametrize("own", [{"traceparent": f"00-{'c' * 32}-{'d' * 16}-01"}, {"tracestate": "own=1"}])
async def test_contexts_are_not_mixed(own: dict[str, str]) -> None:
    """A request with a trace context of its own, a span's say, gets no part of the caller's beside it."""
    request = httpx.Request("GET", "http://inner.example/", headers=own)

    async def work() -> None:
        propagate(request)

    await get(RequestIDMiddleware(around(work)), headers=HEADERS)
    found = {name: value for name, value in request.headers.items() if name.startswith("trace")}
    assert (found, request.headers["x-request-id"]) == (own, "r1")


@pytest.fixture
def identified() -> Callable[[ASGIApp], ASGIApp]:
    """Puts ids and an identity around an app."""
    key = APIKey("robot", sha256(KEY).hexdigest())
    return lambda app: RequestIDMiddleware(IdentityMiddleware(app, api_keys=[key]))


async def test_records_of_concurrent_requests(identified: Callable[[ASGIApp], ASGIApp]) -> None:
    """Every record has its own request's id, trace and user, however the tasks of many requests alternate."""
    stream = io.StringIO()
    logging_as = {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"request": {"()": "asgi_guard.RequestContextFilter"}},
        "formatters": {"line": {"format": "%(request_id)s %(trace_id)s %(user)s %(message)s"}},
        "handlers": {
            "stream": {"class": "logging.StreamHandler", "stream": stream, "filters": ["request"], "formatter": "line"}
        },
        "loggers": {"tests.shop": {"handlers": ["stream"], "level": "INFO", "propagate": False}},
    }
    logging.config.dictConfig(logging_as)
    logger = logging.getLogger("tests.shop.orders")
    turn = asyncio.Barrier(20)

    async def work() -> None:
        await turn.wait()
        logger.info("first")
        await asyncio.create_task(other())

    async def other() -> None:
        await turn.wait()
        logger.info("second")

    app = identified(around(work))
    logger.info("outside")

    async def ask(index: int) -> None:
        headers = [(b"x-request-id", b"r%d" % index)]
        if index % 2:
            headers += [(b"traceparent", PARENT.encode()), (b"x-api-key", KEY)]
        await get(app, headers=headers)

    await asyncio.gather(*(ask(index) for index in range(20)))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "- - - outside"
    expected = [f"r{i} {TRACE_ID} robot" if i % 2 else f"r{i} - -" for i in range(20)]
    for word in ("first", "second"):
        assert sorted(line for line in lines if line.endswith(word)) == sorted(f"{each} {word}" for each in expected)


async def test_records_that_go_by_a_queue() -> None:
    """A handler that hands records to another thread needs the filter itself, and then they have the id there."""
    passed: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    handler = logging.handlers.QueueHandler(passed)
    handler.addFilter(RequestContextFilter(missing=None))
    logger = logging.getLogger("tests.queued")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)

    async def work() -> None:
        logger.info("in hand")
        logger.info("said", extra={"request_id": "own"})

    await get(RequestIDMiddleware(around(work)), headers=HEADERS)
    first, second = passed.get_nowait(), passed.get_nowait()
    assert vars(first).items() >= {"request_id": "r1", "trace_id": TRACE_ID, "user": None}.items()
    assert vars(second)["request_id"] == "own"


async def test_structlog() -> None:
    """Structlog's events have the facts that are known, and what an event says itself stays."""
    written = io.StringIO()
    logger = structlog.wrap_logger(
        structlog.PrintLogger(written), processors=[add_request_context, structlog.processors.JSONRenderer()]
    )

    async def work() -> None:
        logger.info("paid", amount=3)
        logger.info("said", request_id="own")

    await get(RequestIDMiddleware(around(work)), headers=HEADERS)
    logger.info("outside")
    assert [json.loads(line) for line in written.getvalue().splitlines()] == [
        {"event": "paid", "amount": 3, "request_id": "r1", "trace_id": TRACE_ID},
        {"event": "said", "request_id": "own", "trace_id": TRACE_ID},
        {"event": "outside"},
    ]


async def test_websocket() -> None:
    """In a WebSocket session all of this holds as well."""
    found: list[dict[str, str]] = []

    async def work() -> None:
        found.append(propagation_headers())

    await call(RequestIDMiddleware(around(work)), websocket_scope(headers=HEADERS))
    assert found[0]["x-request-id"] == "r1"


@pytest.mark.parametrize(
    ("name", "shown"), [("mallory\nCRITICAL - all is lost", "mallory\\nCRITICAL - all is lost"), ("Zoë", "Zoë")]
)
async def test_no_name_makes_two_lines(name: str, shown: str) -> None:
    """A user's name is one that the issuer took from somebody: its line ends are escaped in lines of text."""
    record = logging.makeLogRecord({})

    async def work() -> None:
        exchange = current.get()
        assert exchange is not None
        exchange.user = User(name)
        RequestContextFilter().filter(record)

    await get(RequestIDMiddleware(around(work)))
    assert vars(record)["user"] == shown
