"""The RequestID layer: one id, in the scope, in the context and on the response."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from fastapi import FastAPI, Request

from asgi_guard import (
    AccessLogMiddleware,
    ConfigError,
    Guard,
    GuardSettings,
    ProxyMiddleware,
    RequestIDMiddleware,
    Trace,
    request_id,
    trace,
)
from asgi_guard.chain.layer import Chain, Layer
from tests.asgi import Echo, call, get, websocket_scope

if TYPE_CHECKING:
    from asgi_guard.asgi import Receive, Scope, Send
    from asgi_guard.chain.exchange import Exchange


PARENT = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"


class Noting(Echo):
    """Echo, noting what `request_id()` says in the app."""

    seen: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen = request_id()
        await super().__call__(scope, receive, send)


@pytest.mark.parametrize(("generator", "version"), [("uuid7", 7), ("uuid4", 4)])
async def test_new(generator: str, version: int) -> None:
    """A request without an id gets a new one, the same in the scope, the context and the response."""
    app = Noting()
    exchange = await get(RequestIDMiddleware(app, generator="uuid7" if generator == "uuid7" else "uuid4"))
    found = exchange.headers["x-request-id"]
    assert UUID(found).version == version
    assert app.seen == app.scopes[0]["state"]["request_id"] == found
    assert request_id() is None


async def test_incoming() -> None:
    """A well-formed id of the caller's is taken over, by the configured header, in any spelling of its name."""
    exchange = await get(RequestIDMiddleware(Echo(), header="X-Trace"), headers=[(b"x-trace", b"abc-1.2_3")])
    assert exchange.headers["x-trace"] == "abc-1.2_3"


@pytest.mark.parametrize("value", [b"%s ", b" \t%s", b"\t%s \t"])
async def test_space_at_the_ends(value: bytes) -> None:
    """Space at the ends of an id or a trace context is none of it, wherever a server leaves it there."""
    app = Echo()
    headers = [(b"x-request-id", value % b"abc"), (b"traceparent", value % PARENT), (b"tracestate", value % b"a=b")]
    assert (await get(RequestIDMiddleware(app), headers=headers)).headers["x-request-id"] == "abc"
    assert app.scopes[0]["state"]["trace"] == Trace("a" * 32, "b" * 16, 1, "a=b")


@pytest.mark.parametrize(
    "lines",
    [[b""], [b"a b"], [b"a\r\nb"], [b"a" * 129], [b"\xff"], [b"urn:uuid:1"], [b"same", b"same"], [b"one", b"two"]],
)
async def test_bad_incoming(lines: list[bytes]) -> None:
    """A malformed or repeated id is replaced by a new one."""
    exchange = await get(RequestIDMiddleware(Echo()), headers=[(b"x-request-id", line) for line in lines])
    assert UUID(exchange.headers["x-request-id"]).version == 7


async def test_untrusted() -> None:
    """Where callers are not believed, their ids are replaced."""
    app = Echo()
    headers = [(b"x-request-id", b"theirs"), (b"traceparent", PARENT)]
    exchange = await get(RequestIDMiddleware(app, trust_incoming="nobody"), headers=headers)
    assert exchange.headers["x-request-id"] != "theirs"
    assert "trace" not in app.scopes[0]["state"]


@pytest.mark.parametrize(
    ("peer", "trusted"), [(("10.0.0.2", 1), True), (("203.0.113.9", 1), False), (("nonsense", 1), False), (None, False)]
)
async def test_trusted_proxies(peer: tuple[str, int] | None, trusted: bool) -> None:
    """Ids and trace contexts may be believed only where a trusted proxy hands them on."""
    app = Echo()
    layer = RequestIDMiddleware(
        app, trust_incoming="proxies", trusts_proxy=ProxyMiddleware(app, trusted="10.0.0.0/8").policy.trusts
    )
    headers = [(b"x-request-id", b"theirs"), (b"traceparent", PARENT)]
    exchange = await get(layer, headers=headers, client=peer)
    assert (exchange.headers["x-request-id"] == "theirs") is trusted
    assert ("trace" in app.scopes[0]["state"]) is trusted


async def test_the_apps_own_is_replaced() -> None:
    """An id that the app sets itself is replaced, in any spelling, so that the response has exactly one."""
    app = Echo(headers=[(b"X-Request-ID", b"apps"), (b"x-request-id", b"again"), (b"x-other", b"stays")])
    exchange = await get(RequestIDMiddleware(app), headers=[(b"x-request-id", b"mine")])
    assert exchange.starts[0]["headers"] == [(b"x-other", b"stays"), (b"x-request-id", b"mine")]


async def test_state() -> None:
    """The id joins what stands in the state, and a state of None is taken for an empty one."""
    app = Echo()
    layer = RequestIDMiddleware(app)
    await get(layer, headers=[(b"x-request-id", b"a")], state={"pool": 1})
    await get(layer, headers=[(b"x-request-id", b"b")], state=None)
    assert [scope["state"] for scope in app.scopes] == [{"pool": 1, "request_id": "a"}, {"request_id": "b"}]


@pytest.mark.parametrize("kind", [RequestIDMiddleware, AccessLogMiddleware, Guard])
@pytest.mark.parametrize("state", [{}, {"state": {"pool": "p"}}], ids=["none", "of the lifespan"])
@pytest.mark.parametrize("touched", [True, False])
async def test_the_state_of_a_framework_is_seen_further_out(
    monkeypatch: pytest.MonkeyPatch, kind: Any, state: dict[str, Any], touched: bool
) -> None:
    """What an app notes in its state is read by middleware around what was added, each request's by its own alone."""
    monkeypatch.setenv("ASGI_GUARD_LOG_FORMAT", "off")
    inner, api = FastAPI(), FastAPI()
    seen: list[dict[str, Any]] = []

    @inner.get("/{name}")
    async def note(request: Request, name: str) -> None:
        request.state.tenant = name

    api.mount("/mounted", Guard(inner, GuardSettings()))
    api.mount("/", inner)
    api.add_middleware(kind)

    @api.middleware("http")
    async def read(request: Request, call_next: Any) -> Any:
        if touched:
            request.state.begun = True
        response = await call_next(request)
        seen.append(dict(request.state._state))
        return response

    for path in ("/a", "/mounted/b"):
        fresh = {name: dict(value) for name, value in state.items()}  # as servers copy that of the lifespan
        assert (await get(api, path, [(b"x-request-id", path[-1:].encode())], **fresh)).status == 200
    assert [each["tenant"] for each in seen] == ["a", "b"]
    assert [each.get("pool") for each in seen] == [state.get("state", {}).get("pool")] * 2
    if kind is not AccessLogMiddleware:
        assert [each["request_id"] for each in seen] == ["a", "b"]


async def test_websocket() -> None:
    """An accepted WebSocket carries the id too."""
    exchange = await call(RequestIDMiddleware(Echo()), websocket_scope(headers=[(b"x-request-id", b"ws-1")]))
    assert exchange.messages[0]["headers"] == [(b"x-request-id", b"ws-1")]


async def test_denied_websocket() -> None:
    """A handshake that the app itself denies carries the id."""

    async def deny(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"no"})

    exchange = await call(RequestIDMiddleware(deny), websocket_scope(headers=[(b"x-request-id", b"ws-2")]))
    assert exchange.headers == {"x-request-id": "ws-2"}


async def test_unhandled_exception() -> None:
    """The response to an unhandled exception carries the id, in its header and in its body."""

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError

    exchange = await get(RequestIDMiddleware(broken), headers=[(b"x-request-id", b"err-1")])
    assert isinstance(exchange.error, LookupError)
    assert exchange.status == 500
    assert exchange.headers["x-request-id"] == "err-1"
    assert b'"request_id":"err-1"' in exchange.body


@pytest.mark.parametrize(
    "header",
    [
        "",
        "x request",
        "x:id",
        "é",
        "x\r\n",
        "a" * 65,
        "Content-Type",
        "set-cookie",
        "location",
        "dpop",
        "X-API-Key",
        "traceparent",
        "x-csrf-token",
        "x-forwarded-for",
        "content-security-policy",
        "strict-transport-security",
        "access-control-allow-origin",
        "ratelimit-policy",
    ],
)
def test_bad_header(header: str) -> None:
    """A name that no header can have, or one that means something else, is refused at construction."""
    with pytest.raises(ConfigError) as caught:
        RequestIDMiddleware(Echo(), header=header)
    assert [problem.name for problem in caught.value.problems] == ["header"]


async def test_before_there_is_one() -> None:
    """Where another layer fails before there is an id, the response has none."""

    class Broken(Layer):
        name = "broken"

        def enter(self, exchange: Exchange) -> None:
            raise ZeroDivisionError

    answered = await get(Chain(Echo(), [Broken(Echo()), RequestIDMiddleware(Echo())]))
    assert answered.status == 500
    assert "x-request-id" not in answered.headers


async def test_two_of_them() -> None:
    """The layer twice, with another header each: one id, on both headers."""
    layer = RequestIDMiddleware(RequestIDMiddleware(Echo(), header="x-inner"), header="x-outer")
    headers = (await get(layer)).headers
    assert headers["x-inner"] == headers["x-outer"]


async def test_trace() -> None:
    """The caller's trace context is for the app to see, in the scope and in the context, and its headers stay."""
    seen: list[Trace | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(trace())
        await echo(scope, receive, send)

    echo = Echo()
    headers = [(b"traceparent", PARENT), (b"tracestate", b"a=1"), (b"tracestate", b"b=2")]
    await get(RequestIDMiddleware(app), headers=headers)
    (scope,) = echo.scopes
    assert seen == [scope["state"]["trace"]] == [Trace("a" * 32, "b" * 16, 1, "a=1,b=2")]
    assert (b"traceparent", PARENT) in scope["headers"]
    assert trace() is None


async def test_an_id_has_the_time_in_which_it_was_made() -> None:
    """Ids sort by time, since they begin with it (RFC 9562 5.7): milliseconds since the Unix epoch."""
    before = time.time_ns() // 1_000_000
    exchange = await get(RequestIDMiddleware(Echo()))
    made = int(exchange.headers["x-request-id"].replace("-", "")[:12], 16)
    assert before <= made <= time.time_ns() // 1_000_000


@pytest.mark.parametrize("option", ["generator", "trust_incoming"])
def test_a_choice_that_there_is_not(option: str) -> None:
    """What is none of the choices is refused at construction, by name."""
    choice: Any = {option: "ulid"}
    with pytest.raises(ConfigError, match=option):
        RequestIDMiddleware(Echo(), **choice)
