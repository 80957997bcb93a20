"""What an app charges for its request once it knows, or gives back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute

from asgi_guard import AccessMiddleware, MemoryStore, RateLimitMiddleware, limits
from asgi_guard import Route as Row
from asgi_guard.chain.layer import Chain
from tests.asgi import Echo, call, get, websocket_scope
from tests.middleware.limiting import Fickle, Micros, Mood, begin, cancelled, statuses, until
from tests.stores.server import full_at

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.websockets import WebSocket

    from asgi_guard import RedisStore
    from asgi_guard.asgi import Receive, Scope, Send
    from tests.stores.server import Server


class Charging:
    """An app that charges as it is told, then says ok, or fails."""

    def __init__(self, *costs: int, fails: bool = False) -> None:
        self.costs = costs
        self.fails = fails

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for cost in self.costs:
            limits.charge(scope, cost)
        if self.fails:
            raise LookupError("the app fails")
        await Echo()(scope, receive, send)


async def left(layer: RateLimitMiddleware) -> int:
    """How many units are left, as one more request is told."""
    layer.app = Echo()
    told = (await get(layer)).headers["ratelimit"]
    return int(told.partition(";r=")[2].partition(";")[0]) + 1


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        ((), 9),
        ((3,), 6),
        ((3, 2), 4),
        ((-1,), 10),
        ((3, -3), 9),
        ((3, -4), 10),
        ((-100,), 10),
        ((100,), 0),
        ((10**30,), 0),
        ((-(10**30),), 10),
    ],
)
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("shared", [False, True])
async def test_what_is_taken(
    costs: tuple[int, ...], expected: int, fails: bool, shared: bool, redis_store: RedisStore
) -> None:
    """What an app charges is taken when its request is over, whether it failed: to empty at most, to full at most."""
    app = Charging(*costs, fails=fails)
    layer = RateLimitMiddleware(app, limit="10/hour by ip", store=redis_store if shared else None)
    assert (await get(layer)).status == (500 if fails else 200)
    if expected == 0:
        assert await statuses(layer, 1) == [429]
    else:
        assert await left(layer) == expected


async def test_every_bucket_of_the_request() -> None:
    """All limits of the request are charged, those in shadow too, and those of other requests are not."""
    store = MemoryStore()
    rows = [Row("/a", limits="9/hour by ip; 5/hour by route; 7/hour by header:x-tenant shadow; 2 at once by ip")]
    layer = RateLimitMiddleware(Charging(3), limit="4/hour by ip", store=store, routes=rows)
    assert (await get(layer, "/a")).status == 200
    spent = {name.split(":")[-2]: state for name, state in full_at(store).items()}
    assert set(spent) == {"a-ip", "a-route", "a-header-x-tenant"}
    layer.app = Charging()
    refused = [(await get(layer, "/a")).status for _ in range(2)]
    assert refused == [200, 429]
    assert (await get(layer, "/b")).headers["ratelimit"].startswith('"ip";r=3')


async def test_what_is_charged_over_websocket() -> None:
    """What an app charges in a WebSocket is taken when it is over."""
    layer = RateLimitMiddleware(Charging(3), limit="5/hour by ip")
    assert (await call(layer, websocket_scope())).messages[0]["type"] == "websocket.accept"
    layer.app = Charging()
    assert await statuses(layer, 2) == [200, 429]


async def test_a_request_that_is_cancelled() -> None:
    """What was charged before a request is cancelled is taken."""
    waits = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        limits.charge(scope, 3)
        waits.set()
        await asyncio.Event().wait()

    layer = RateLimitMiddleware(app, limit="5/hour by ip")
    task = begin(layer, {**websocket_scope(), "type": "websocket"})
    await until(waits.is_set)
    assert await cancelled(task)
    layer.app = Echo()
    assert await statuses(layer, 2) == [200, 429]


async def test_frameworks(redis_store: RedisStore) -> None:
    """Under Starlette, a charge arrives from handlers, from threads, from mounted apps, and from background tasks."""

    async def plain(request: Request) -> PlainTextResponse:
        limits.charge(request.scope, 1)
        return PlainTextResponse("ok")

    def in_a_thread(request: Request) -> PlainTextResponse:
        limits.charge(request.scope, 1)
        return PlainTextResponse("ok")

    async def from_a_thread(request: Request) -> PlainTextResponse:
        await run_in_threadpool(limits.charge, request.scope, 1)
        return PlainTextResponse("ok")

    async def background(request: Request) -> PlainTextResponse:
        async def later() -> None:
            limits.charge(request.scope, 1)

        return PlainTextResponse("ok", background=later)  # type: ignore[arg-type]  # Starlette awaits what it calls

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        limits.charge(websocket.scope, 1)
        await websocket.close()

    handlers = [plain, in_a_thread, from_a_thread, background]
    routes = [Route(f"/{number}", handler) for number, handler in enumerate(handlers)]
    app = Starlette(routes=[*routes, Mount("/sub", routes=routes), WebSocketRoute("/ws", socket)])
    layer = RateLimitMiddleware(app, limit="100/hour by ip", store=redis_store)
    for prefix in ("", "/sub"):
        for number in range(len(handlers)):
            exchange = await get(layer, f"{prefix}/{number}")
            assert (exchange.status, exchange.error) == (200, None)
    assert (await call(layer, websocket_scope("/ws"))).messages[0]["type"] == "websocket.accept"
    # Nine requests of one unit and one more each, and this one.
    assert (await get(layer, "/nowhere")).headers["ratelimit"].startswith('"ip";r=81;')


async def test_layers_that_are_nested() -> None:
    """Where a request passes several layers of limits, all their buckets are charged, each once."""
    inner = RateLimitMiddleware(Charging(2), limit="10/hour by ip as inner")
    outer = RateLimitMiddleware(inner, limit="10/hour by ip as outer")
    assert (await get(outer)).status == 200
    inner.app = Echo()
    headers = [(await get(layer)).headers["ratelimit"] for layer in (inner, outer)]
    assert [text.partition(";t")[0] for text in headers] == ['"inner";r=6', '"inner";r=5']
    assert int(full_at(outer.store)["{ip:203.0.113.9}:outer:360000000x10"]) > 0
    outer.app = Echo()
    assert (await get(outer)).headers["ratelimit"].startswith('"outer";r=5')


async def test_nobody_is_charged_for_others() -> None:
    """A charge concerns its own request's client."""
    layer = RateLimitMiddleware(Charging(9), limit="10/hour by ip")
    assert (await get(layer, client=("192.0.2.1", 1))).status == 200
    layer.app = Echo()
    assert (await get(layer, client=("192.0.2.1", 1))).status == 429
    assert (await get(layer, client=("192.0.2.2", 1))).status == 200


async def test_a_refused_request_charges_nothing() -> None:
    """What an outer app charges a request that an inner layer refuses is not taken there."""
    inner = RateLimitMiddleware(Echo(), limit="1/hour by ip")

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        limits.charge(scope, 5)
        await inner(scope, receive, send)

    layer = RateLimitMiddleware(outer, limit="20/hour by ip as outer")
    assert await statuses(layer, 1) == [200]
    state = full_at(inner.store)
    assert await statuses(layer, 3) == [429] * 3
    assert full_at(inner.store) == state
    layer.app = Echo()
    assert await statuses(layer, 1) == [429]


async def test_a_request_that_a_later_layer_refuses() -> None:
    """A request that is refused after it was charged stays charged."""
    limited = RateLimitMiddleware(Echo(), limit="2/hour by ip")
    chain = Chain(Echo(), [limited, AccessMiddleware(Echo())])
    assert await statuses(chain, 3) == [401, 401, 429]


@pytest.mark.parametrize(("mood", "choice"), [("away", "local"), ("deaf", "local"), ("away", "allow")])
@pytest.mark.parametrize("cost", [3, -3])
async def test_the_store_that_did_not_answer(mood: Mood, choice: str, cost: int) -> None:
    """Nothing is taken from, or given back to, the buckets of a store that is not known to have charged the request."""
    store = Fickle()
    layer = RateLimitMiddleware(Echo(), limit=f"10/hour by ip on-failure {choice}", store=store)
    assert await statuses(layer, 5) == [200] * 5
    layer.app, store.mood = Charging(cost), mood
    assert await statuses(layer, 1) == [200]
    assert store.told == []
    store.mood = "well"
    layer.app = Echo()
    expected = 4 if mood == "away" else 3
    assert (await get(layer)).headers["ratelimit"].startswith(f'"ip";r={expected};')


async def test_this_processs_buckets_are_charged_instead() -> None:
    """Where this process's own buckets are charged for want of the store, the app's charge goes there."""
    layer = RateLimitMiddleware(Charging(3), limit="10/hour by ip", store=Fickle(mood="away"))
    assert await statuses(layer, 3) == [200, 200, 200]
    assert await statuses(layer, 1) == [429]


async def test_what_is_given_back_is_known_at_once(server: Server) -> None:
    """A client that was over its limit is admitted once a request of theirs gives units back."""
    clock = Micros()
    store = server.store(clock=clock)
    release = asyncio.Event()
    waiting = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            waiting.set()
            await release.wait()
            limits.charge(scope, -2)
        await Echo()(scope, receive, send)

    layer = RateLimitMiddleware(app, limit="3/hour by ip", store=store, deny_cache=60, clock=clock)
    task = begin(layer, {**websocket_scope("/slow")})
    await until(waiting.is_set)
    assert await statuses(layer, 4) == [200, 200, 429, 429]
    release.set()
    await task
    assert await statuses(layer, 3) == [200, 200, 429]
    await store.aclose()
