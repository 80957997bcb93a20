"""Limits on requests at once: who counts, from when, and until when, however a request ends."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asgi_guard import (
    AccessMiddleware,
    CORSMiddleware,
    MemoryStore,
    RateLimitMiddleware,
    Route,
)
from asgi_guard.chain.layer import Chain
from tests.asgi import Echo, call, get, http_scope, websocket_scope
from tests.laws import SHARING
from tests.middleware.limiting import Fickle, Session, Waiting, begin, cancelled, counted, held, statuses, until

if TYPE_CHECKING:
    from asgi_guard import RedisStore
    from asgi_guard.asgi import ASGIApp, Receive, Scope, Send
    from asgi_guard.stores import Store
    from tests.stores.server import Server

LIMIT = "2 at once by ip"


async def test_one_too_many() -> None:
    """With as many under way as there may be, the next one is refused, says when to try again, and takes nothing."""
    app, store = Waiting(), MemoryStore()
    layer = RateLimitMiddleware(app, limit=f"{LIMIT}; 100/hour by ip", store=store)
    under_way = [begin(layer, http_scope()) for _ in range(2)]
    await app.reached(2)
    refused = await get(layer)
    assert refused.status == 429
    assert refused.headers["retry-after"] in ("1", "2")
    assert refused.headers["ratelimit"] == '"ip-at-once";r=0'
    assert refused.headers["ratelimit-policy"] == '"ip-at-once";q=2;qu="concurrent-requests", "ip";q=100;w=3600'
    problem = json.loads(refused.body)
    assert problem["violated-policies"] == ["ip-at-once"]
    assert problem["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert (held(layer), counted(store)) == (2, 2)
    app.go.set()
    answers = await asyncio.gather(*under_way)
    assert [answer.status for answer in answers] == [200, 200]
    assert [answer.headers["ratelimit"][:16] for answer in answers] == ['"ip-at-once";r=1', '"ip-at-once";r=0']
    assert (held(layer), counted(store)) == (0, 0)
    assert '"ip";r=97' in (await get(layer)).headers["ratelimit"]


async def test_legacy_headers() -> None:
    """The older headers tell the number of requests at once as well."""
    layer = RateLimitMiddleware(Echo(), limit=LIMIT, headers="legacy")
    assert (await get(layer)).headers["x-ratelimit-remaining"] == "1"


@pytest.mark.parametrize(("limit", "counts"), [(LIMIT, 1), ("9/hour by ip", 0)])
async def test_a_sign_of_life_counts_what_limits_count(limit: str, counts: int, server: Server) -> None:
    """Where a limit counts requests at once, readiness and `check` have the store try that too."""
    layer = RateLimitMiddleware(Echo(), limit=limit, store=server.store())
    await layer.store.ping()
    assert server.calls("zadd") == counts
    await layer.shutdown()


async def test_clients_by_themselves() -> None:
    """One client's requests under way are not held against another."""
    app = Waiting()
    layer = RateLimitMiddleware(app, limit="1 at once by ip")
    tasks = [begin(layer, http_scope(client=(f"192.0.2.{number}", 1))) for number in (1, 1, 2)]
    await app.reached(2)
    app.go.set()
    assert sorted([(await task).status for task in tasks]) == [200, 200, 429]


class Script:
    """An app that ends as the path says. Whoever waits in it is waited for by `reached`."""

    def __init__(self) -> None:
        self.here = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.here += 1
        kind, _, ending = scope["path"].rpartition("/")[2].partition("-")
        if kind == "ws":
            await self._socket(ending, receive, send)
            return
        if kind == "error":
            raise LookupError("the app fails")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if kind in ("cancel", "leaves"):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            while (await receive())["type"] != "http.disconnect":
                pass
            if kind == "cancel":
                await asyncio.Event().wait()
        elif kind == "late":
            raise LookupError("the app fails, and has sent a half")
        for _ in range(3 if kind == "stream" else 0):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"ok"})

    async def _socket(self, ending: str, receive: Receive, send: Send) -> None:
        await receive()
        if ending == "deny":
            await send({"type": "websocket.close", "code": 1008})
            return
        await send({"type": "websocket.accept"})
        if ending == "error":
            raise LookupError("the app fails")
        if ending == "leaves":
            await receive()
        else:
            await send({"type": "websocket.close", "code": 1000})


ENDINGS = (
    "ok", "error", "late", "stream", "leaves", "cancel", "ws-close", "ws-deny", "ws-error", "ws-leaves", "refused",
)  # fmt: skip


def layered(app: ASGIApp, limit: str, store: Store) -> tuple[ASGIApp, RateLimitMiddleware]:
    """A chain of limits, and of a layer behind them that refuses `/refused`."""
    layer = RateLimitMiddleware(app, limit=limit, store=store)
    access = AccessMiddleware(app, default="none", routes=[Route("/refused", auth="required")])
    return Chain(app, [layer, access]), layer


async def ended(chain: ASGIApp, app: Script, ending: str) -> None:
    """Make a request that ends so."""
    path, before = f"/{ending}", app.here
    scope = websocket_scope(path) if ending.startswith("ws") else http_scope(path=path)
    if ending == "cancel":
        task = begin(chain, scope)
        await until(lambda: app.here > before or task.done())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        return
    await call(chain, scope)


@pytest.mark.parametrize("ending", ENDINGS)
async def test_endings(ending: str, server: Server, redis_store: RedisStore) -> None:
    """However a request ends, it is under way no more: the next one is admitted, and the store holds nothing of it."""
    app = Script()
    chain, layer = layered(app, "1 at once by ip", redis_store)
    for _ in range(3):
        before = app.here
        await ended(chain, app, ending)
        assert app.here == before + (ending != "refused")
        assert held(layer) == 0
    await redis_store.aclose()
    assert server.client.keys("*") == []


@settings(SHARING, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from([*ENDINGS, "gone"]), st.sampled_from(["well", "away", "deaf"])), max_size=20))
@example([("ok", "deaf"), ("cancel", "deaf"), ("error", "away")])
@example([(ending, "well") for ending in ENDINGS])
@example([("gone", "well"), ("gone", "deaf"), ("ok", "well")])
def test_nothing_leaks(caplog: pytest.LogCaptureFixture, endings: list[tuple[str, str]]) -> None:
    """After any mix of requests that end in any way, with a store that answers or not, none counts as under way."""
    caplog.set_level("CRITICAL", "asgi_guard")

    async def run() -> None:
        app, inner, spare = Script(), MemoryStore(), MemoryStore()
        store = Fickle(inner)
        chain, layer = layered(app, "3 at once by ip; 5 at once by route; 1000/hour by ip", store)
        layer._local = spare
        others = [begin(chain, http_scope(path="/cancel")) for _ in range(2)]
        await until(lambda: app.here == 2)
        for ending, mood in endings:
            store.mood = mood  # type: ignore[assignment]  # of a list
            if ending == "gone":
                store.gate = asyncio.Event()
                asked = len(store.asked)
                task = begin(chain, http_scope())
                await until(lambda asked=asked: len(store.asked) > asked)  # type: ignore[misc]  # mypy cannot infer it
                task.cancel()
                await asyncio.wait({task})
                store.gate = None
            else:
                await ended(chain, app, ending)
            # A store that heard nothing of the end counts for a lease's time at most, so it has to hear of it here.
            store.mood = "well"
        assert held(layer) == 2
        assert counted(inner) == 2 * 2
        for task in others:
            assert await cancelled(task)
        assert (held(layer), counted(inner), counted(spare)) == (0, 0, 0)

    asyncio.run(run())


async def test_cancelled_while_it_waits_for_the_store(server: Server, redis_store: RedisStore) -> None:
    """A request that is cancelled while the store is asked is not under way, whatever the store decided of it."""
    store = Fickle(redis_store)
    layer = RateLimitMiddleware(Echo(), limit="1 at once by ip", store=store)
    store.gate = asyncio.Event()
    task = begin(layer, http_scope())
    await until(lambda: bool(store.asked))
    assert await cancelled(task)
    store.gate = None
    assert held(layer) == 0
    # The question may also be on its way already.
    task = begin(layer, http_scope())
    await until(lambda: len(store.asked) == 2)
    await asyncio.sleep(0)
    assert await cancelled(task)
    assert held(layer) == 0
    assert await statuses(layer, 2) == [200, 200]
    await redis_store.aclose()
    assert server.client.keys("*") == []


async def test_an_answer_that_was_lost() -> None:
    """A request that the store counted, and whose answer was lost, is under way no more once it is over."""
    inner = MemoryStore()
    layer = RateLimitMiddleware(Echo(), limit="2 at once by ip on-failure allow", store=Fickle(inner, "deaf"))
    assert await statuses(layer, 3) == [200, 200, 200]
    assert (held(layer), counted(inner)) == (0, 0)


@pytest.mark.parametrize(("choice", "expected"), [("allow", 200), ("local", 429), ("deny", 503)])
async def test_at_once_without_the_store(choice: str, expected: int) -> None:
    """Without the store, requests at once are counted as the limit says for that, and none of them leaks."""
    app = Waiting()
    layer = RateLimitMiddleware(app, limit=f"4 at once by ip on-failure {choice}", store=Fickle(mood="away"), workers=2)
    tasks = [begin(layer, http_scope()) for _ in range(3)]
    admitted = 3 if choice == "allow" else 2 if choice == "local" else 0
    await until(lambda: app.here + sum(task.done() for task in tasks) == 3)
    assert app.here == admitted
    app.go.set()
    statuses = sorted([(await task).status for task in tasks])
    assert statuses == [200] * admitted + [expected] * (3 - admitted)
    assert (held(layer), counted(layer._local)) == (0, 0)


async def test_streams_count_until_their_end() -> None:
    """A response that streams is under way until its last part was sent."""
    parts = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await parts.wait()
        await send({"type": "http.response.body", "body": b"y"})

    layer = RateLimitMiddleware(app, limit="1 at once by ip")
    task = begin(layer, http_scope())
    await until(lambda: held(layer) == 1)
    assert (await get(layer)).status == 429
    parts.set()
    assert (await task).status == 200
    assert (await get(layer)).status == 200


async def test_websockets_count_until_they_close() -> None:
    """A WebSocket is under way for as long as it is open."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()

    layer = RateLimitMiddleware(app, limit="1 at once by ip")
    session = Session(layer, websocket_scope())
    await until(lambda: bool(session.sent))
    assert (await call(layer, websocket_scope())).status == 429
    session.leave()
    await session.over()
    assert held(layer) == 0
    again = Session(layer, websocket_scope())
    await until(lambda: bool(again.sent))
    assert again.sent[0]["type"] == "websocket.accept"
    await again.cancel()
    assert held(layer) == 0


async def test_what_the_layers_outside_answer() -> None:
    """What a layer before the limits answers is never under way."""
    limited = RateLimitMiddleware(Echo(), limit="1 at once by ip")
    chain = Chain(Echo(), [CORSMiddleware(Echo(), allow_origins=["https://a.example"]), limited])
    preflight = [(b"origin", b"https://a.example"), (b"access-control-request-method", b"GET")]
    assert (await call(chain, http_scope("OPTIONS", headers=preflight))).status == 204
    assert held(limited) == 0


async def test_a_limit_in_shadow() -> None:
    """A limit in shadow counts no more than there may be, and refuses nobody."""
    app, store = Waiting(), MemoryStore()
    layer = RateLimitMiddleware(app, limit=f"{LIMIT} shadow", store=store)
    tasks = [begin(layer, http_scope()) for _ in range(3)]
    await app.reached(3)
    assert counted(store) == 2
    app.go.set()
    assert [(await task).status for task in tasks] == [200] * 3
    assert (held(layer), counted(store)) == (0, 0)


async def test_a_limit_that_does_not_apply() -> None:
    """A request that the limit does not apply to is not counted."""
    store = MemoryStore()
    layer = RateLimitMiddleware(
        Echo(), limit="1 at once by tenant; 9/hour by ip", store=store, functions={"tenant": lambda scope: None}
    )
    assert await statuses(layer, 2) == [200, 200]
    assert (held(layer), counted(store)) == (0, 0)
