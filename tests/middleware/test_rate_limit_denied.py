"""What is known of clients over their limits: that it costs the store nothing, and whom it never refuses."""

from __future__ import annotations

from contextlib import asynccontextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from asgi_guard import APIKey, AuthSettings, Guard, GuardSettings, RateLimitMiddleware, RateSettings, Route
from asgi_guard.middleware.rate_limit import KnownLimits
from tests.asgi import Echo, call, get, http_scope, websocket_scope
from tests.guarded import settings
from tests.middleware.limiting import Fickle, Micros, Waiting, bearer, begin, statuses

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asgi_guard import RedisStore
    from asgi_guard.testing import LocalIssuer
    from tests.stores.server import Server

FAR = ("198.51.100.7", 1)


@asynccontextmanager
async def limited(
    server: Server, clock: Micros, app: Any = None, **options: Any
) -> AsyncIterator[tuple[RateLimitMiddleware, RedisStore]]:
    """A layer over a real server, both on the same clock, with the script loaded."""
    store = server.store(clock=clock)
    layer = RateLimitMiddleware(app or Echo(), store=store, clock=clock, **{"deny_cache": 60, **options})
    assert (await get(layer, client=FAR)).status == 200
    server.client.config_resetstat()
    try:
        yield layer, store
    finally:
        await store.aclose()


@pytest.mark.parametrize("count", [1, 3])
async def test_over_the_limit(server: Server, count: int) -> None:
    """A client over its limit costs no call until there is a unit again, and then it is admitted."""
    clock = Micros()
    async with limited(server, clock, limit=f"{count}/minute by ip") as (layer, _):
        assert await statuses(layer, count + 1) == [200] * count + [429]
        assert server.calls("evalsha") == count + 1
        interval = 60_000_000 // count
        for later in (0, 1, interval // 2, interval - 1):
            clock.now = 1_000_000_000 + later
            assert await statuses(layer, 3) == [429] * 3
        assert server.calls("evalsha") == count + 1
        clock.now = 1_000_000_000 + interval
        assert await statuses(layer, 2) == [200, 429]
        assert server.calls("evalsha") == count + 3


async def test_for_as_long_as_it_is_believed(server: Server) -> None:
    """A refusal is believed for the time that was said, then the store is asked again."""
    clock = Micros()
    async with limited(server, clock, limit="1/hour by ip", deny_cache=2.5) as (layer, _):
        assert await statuses(layer, 3) == [200, 429, 429]
        clock.now += 2_499_999
        assert await statuses(layer, 1) == [429]
        assert server.calls("evalsha") == 2
        clock.now += 1
        assert await statuses(layer, 2) == [429, 429]
        assert server.calls("evalsha") == 3


async def test_no_belief_at_all(server: Server) -> None:
    """With a deny cache of 0, the store is asked every time."""
    async with limited(server, Micros(), limit="1/hour by ip", deny_cache=0) as (layer, _):
        assert await statuses(layer, 4) == [200, 429, 429, 429]
        assert server.calls("evalsha") == 4


async def test_a_bucket_that_was_reset(server: Server) -> None:
    """What an operator resets is admitted once the refusal is believed no longer."""
    clock = Micros()
    async with limited(server, clock, limit="1/hour by ip", deny_cache=1) as (layer, _):
        assert await statuses(layer, 2) == [200, 429]
        server.client.flushall()
        assert await statuses(layer, 1) == [429]
        clock.pass_seconds(1)
        assert await statuses(layer, 1) == [200]


async def test_others_are_asked_for(server: Server) -> None:
    """What is known of one client, or of a dear request, is not held against another, or against a cheap one."""
    rows = [Route("/dear", cost=3)]
    async with limited(server, Micros(), limit="4/hour by ip", routes=rows) as (layer, _):
        assert await statuses(layer, 2, path="/dear") == [200, 429]
        assert await statuses(layer, 1, path="/dear") == [429]
        assert server.calls("evalsha") == 2
        assert await statuses(layer, 2) == [200, 429]
        assert await statuses(layer, 1, client=FAR) == [200]


async def test_what_is_told_of_a_known_refusal(server: Server) -> None:
    """A refusal that the store was not asked for tells the wait and the limit as the store's own does."""
    clock = Micros()
    async with limited(server, clock, limit="2/minute by ip; 9/minute by route") as (layer, _):
        assert await statuses(layer, 2) == [200, 200]
        for passed, wait in ((0, 30), (10, 20), (19.5, 1)):
            clock.pass_seconds(passed)
            exchange = await get(layer)
            assert exchange.status == 429
            assert exchange.headers["ratelimit"] == f'"ip";r=0;t={wait}'
            assert exchange.headers["ratelimit-policy"] == '"ip";q=2;w=60, "route";q=9;w=60'
            assert wait <= int(exchange.headers["retry-after"]) <= wait + wait // 10 + 1
            assert exchange.headers["content-type"] == "application/problem+json"
            assert b'"violated-policies":["ip"]' in exchange.body
        assert server.calls("evalsha") == 3


async def test_websockets(server: Server) -> None:
    """A handshake of a client that is known to be over its limit costs no call either."""
    async with limited(server, Micros(), limit="1/hour by ip") as (layer, _):
        assert await statuses(layer, 2) == [200, 429]
        assert (await call(layer, websocket_scope())).status == 429
        assert server.calls("evalsha") == 2


async def test_requests_at_once_are_always_asked_for(server: Server) -> None:
    """A refusal for too many requests at once is not remembered: who knows when one of them ends."""
    app = Waiting()
    app.go.set()
    async with limited(server, Micros(), app=app, limit="1 at once by ip") as (layer, _):
        app.go.clear()
        task = begin(layer, http_scope())
        await app.reached(1)
        assert await statuses(layer, 2) == [429, 429]
        app.go.set()
        await task
        assert await statuses(layer, 1) == [200]


async def test_over_memory_it_saves_what_comes_before(issuer: LocalIssuer) -> None:
    """Over this process's memory too, whoever is over a limit by address has no token looked at."""
    chosen = settings(issuer, rate=RateSettings(limit="1/hour by ip", deny_cache=60), routes=())
    guard = Guard(Echo(), chosen, http_client=issuer.client)
    assert await statuses(guard, 2) == [401, 429]
    assert (await get(guard, headers=[bearer(issuer.token())])).status == 429
    assert issuer.fetches == {}
    assert (await get(guard, headers=[bearer(issuer.token())], client=FAR)).status == 200


async def known(issuer: LocalIssuer, store: RedisStore, route: str = "/private", **rate: Any) -> tuple[Guard, int]:
    """A guard to which an address is known to be over its limit; and what a request with a token from there gets."""
    chosen = settings(issuer, rate=RateSettings(**{"limit": "1/hour by ip", "deny_cache": 60, **rate}))
    guard = Guard(Echo(), chosen, store=store, http_client=issuer.client)
    assert await statuses(guard, 2) == [401, 401 if "shadow" in str(rate) else 429]
    assert issuer.fetches == {}
    return guard, (await get(guard, route, [bearer(issuer.token("alice"))])).status


async def test_no_signature_is_checked(issuer: LocalIssuer, redis_store: RedisStore, server: Server) -> None:
    """Whoever is known to be over a limit by address is refused before the token is looked at, or its keys fetched."""
    guard, status = await known(issuer, redis_store)
    assert status == 429
    assert issuer.fetches == {}
    before = server.calls("evalsha")
    exchange = await get(guard, "/private", [bearer(issuer.token())])
    assert server.calls("evalsha") == before
    assert int(exchange.headers["retry-after"]) >= int(exchange.headers["ratelimit"].rpartition("t=")[2]) > 3500
    assert exchange.headers["ratelimit-policy"] == '"ip";q=1;w=3600'
    # Another address is not concerned.
    other = await get(guard, "/private", [bearer(issuer.token())], client=("192.0.2.77", 1))
    assert other.status == 200
    assert issuer.fetches != {}


@pytest.mark.parametrize(
    ("rate", "status"),
    [
        ({"exempt": ("user:alice",)}, 200),
        ({"exempt": ("user:bob",)}, 429),
        ({"deny_cache": 0}, 429),
        ({"shadow": True}, 200),
        ({"limit": "1/hour by ip shadow"}, 200),
        ({"limit": "1/hour by anonymous"}, 200),
        ({"limit": "1/hour by anonymous; 1/hour by user"}, 200),
    ],
)
async def test_whose_signature_is_checked(
    issuer: LocalIssuer, redis_store: RedisStore, rate: dict[str, Any], status: int
) -> None:
    """Where the limit may not concern who it turns out to be, or nothing is remembered, the token is verified first."""
    _, answered = await known(issuer, redis_store, **rate)
    assert answered == status
    assert issuer.fetches != {}


async def test_a_limit_that_holds_for_anyone_beside_others(issuer: LocalIssuer, redis_store: RedisStore) -> None:
    """A limit by address refuses before the token is looked at, though one by user stands beside it."""
    _, status = await known(issuer, redis_store, limit="1/hour by ip; 1/hour by user")
    assert status == 429
    assert issuer.fetches == {}


async def by_route(issuer: LocalIssuer, store: RedisStore, limit: str = "1/hour by route", **rate: Any) -> Guard:
    """A guard to which the limit of a route is known to be used up, by somebody who was served."""
    chosen = settings(issuer, rate=RateSettings(limit=limit, deny_cache=60, **rate))
    guard = Guard(Echo(), chosen, store=store, http_client=issuer.client)
    assert [(await get(guard, "/maybe")).status for _ in range(2)] == [200, 429]
    return guard


@pytest.mark.parametrize(("limit", "client"), [("1/hour by route", FAR), ("1/hour by header:host", FAR)])
async def test_limits_that_hold_for_anyone(
    issuer: LocalIssuer, redis_store: RedisStore, limit: str, client: tuple[str, int]
) -> None:
    """Limits by route and by header hold for anyone as well, from wherever they come."""
    guard = await by_route(issuer, redis_store, limit)
    assert (await get(guard, "/maybe", [bearer(issuer.token())], client=client)).status == 429
    assert issuer.fetches == {}


async def test_an_exempt_address(issuer: LocalIssuer, redis_store: RedisStore) -> None:
    """An exempt address is never refused, though the bucket that it shares with others is known to refuse."""
    guard = await by_route(issuer, redis_store, exempt=("192.0.2.0/24",))
    exempt = await get(guard, "/maybe", [bearer(issuer.token())], client=("192.0.2.7", 1))
    assert exempt.status == 200
    assert "ratelimit" not in exempt.headers


async def test_a_row_without_limits(issuer: LocalIssuer, redis_store: RedisStore) -> None:
    """On a row that has no limits, a client that is known to be over the default ones is served."""
    guard, _ = await known(issuer, redis_store)
    assert (await get(guard, "/public")).status == 200


async def test_a_disputed_path(redis_store: RedisStore) -> None:
    """A path that could be another row's is refused with 400, also of a client that is over its limit."""
    keys = (APIKey("robot", sha256(b"k").hexdigest()),)
    chosen = GuardSettings(
        auth=AuthSettings(api_keys=keys),
        rate=RateSettings(limit="1/hour by ip", deny_cache=60),
        routes=(Route("/public/*", auth="none"),),
    )
    guard = Guard(Echo(), chosen, store=redis_store)
    assert await statuses(guard, 2) == [401, 429]
    assert (await get(guard, "/public//x")).status == 400


async def test_a_store_that_fails_afterwards(server: Server) -> None:
    """What is known stays known while the store is away, and nothing new is learnt."""
    store = Fickle(server.store())
    layer = RateLimitMiddleware(Echo(), limit="1/hour by ip", store=store, deny_cache=60, on_store_failure="allow")
    assert await statuses(layer, 2) == [200, 429]
    store.mood = "away"
    assert await statuses(layer, 2) == [429, 429]
    assert (await get(layer, client=FAR)).status == 200
    assert len(store.asked) == 3
    await store.aclose()


async def test_alone() -> None:
    """The layer that refuses early has nothing to say where nothing is known."""
    layer = RateLimitMiddleware(Echo(), limit="1/hour by ip")
    assert await statuses(KnownLimits(Echo(), layer), 3) == [200, 200, 200]
