"""How often the store is asked, through the whole guard and over a real server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asgi_guard import AuthSettings, Guard, RateSettings, Route
from tests.asgi import Echo, call, get, websocket_scope
from tests.guarded import KEY, settings
from tests.middleware.limiting import bearer, both, statuses

if TYPE_CHECKING:
    from asgi_guard import RedisStore
    from asgi_guard.asgi import Header
    from asgi_guard.testing import LocalIssuer
    from tests.stores.server import Server

OWN = {"info", "config|resetstat", "keys", "flushall"}
"""Commands of the tests themselves."""
INSIDE = {"time", "mget", "psetex", "zremrangebyscore", "zcount", "zscore", "zadd", "pexpire", "zrem", "get", "set"}
"""Commands that the script runs within its call."""
EVERYTHING = (
    "1000/hour by ip; 1000/hour by user; 1000/hour by api-key; 1000/hour by route; 1000/hour by header:x-tenant"
)


def calls(server: Server) -> dict[str, int]:
    """The calls that the server was asked for since the last look, by command."""
    stats = server.client.info("commandstats")
    server.client.config_resetstat()
    names = {name.removeprefix("cmdstat_"): int(value["calls"]) for name, value in stats.items()}
    return {name: count for name, count in names.items() if name not in OWN | INSIDE}


async def guarded(issuer: LocalIssuer, store: RedisStore, server: Server, limit: str) -> Guard:
    """A guard whose script is loaded, and whose issuer's keys are fetched."""
    guard = Guard(Echo(), settings(issuer, rate=RateSettings(limit=limit)), store=store, http_client=issuer.client)
    assert (await get(guard, "/private", [bearer(issuer.token())])).status == 200
    await store.aclose()
    await store.ping()
    calls(server)
    return guard


async def test_one_call_a_request(issuer: LocalIssuer, server: Server, redis_store: RedisStore) -> None:
    """A request costs one call, for all of its limits and for its token's revocation."""
    guard = await guarded(issuer, redis_store, server, EVERYTHING)
    credentials: list[tuple[str, list[Header], int]] = [
        ("/private", [bearer(issuer.token("alice"))], 200),
        ("/private", [bearer(issuer.token("bob"))], 200),
        ("/private", [(b"x-api-key", KEY)], 200),
        ("/private", [], 401),
        ("/private", [bearer(issuer.token(lifetime=-600))], 401),
        ("/maybe", [], 200),
        ("/login", [], 401),
    ]
    for path, headers, status in credentials:
        exchange = await get(guard, path, headers)
        assert exchange.status == status
        assert calls(server) == {"evalsha": 1}
        assert "ratelimit" in exchange.headers
    assert (await call(guard, websocket_scope("/private", [bearer(issuer.token())]))).error is None
    assert calls(server) == {"evalsha": 1}


async def test_no_call_where_there_is_nothing_to_ask(
    issuer: LocalIssuer, server: Server, redis_store: RedisStore
) -> None:
    """Probes, preflights, rows without limits and refusals of the layers before cost no call."""
    guard = await guarded(issuer, redis_store, server, EVERYTHING)
    assert (await get(guard, "/public")).status == 200
    assert (await get(guard, "/health/live")).status == 200
    assert (await get(guard, "/public", [(b"host", b"elsewhere.example")])).status == 400
    assert calls(server) == {}


async def test_revocation_without_limits(issuer: LocalIssuer, server: Server, redis_store: RedisStore) -> None:
    """Without any limit, a token costs one call to be looked up, and who has none costs nothing."""
    guard = await guarded(issuer, redis_store, server, "")
    assert (await get(guard, "/private", [bearer(issuer.token())])).status == 200
    assert calls(server) == {"evalsha": 1}
    assert (await get(guard, "/private")).status == 401
    assert (await get(guard, "/private", [(b"x-api-key", KEY)])).status == 200
    assert calls(server) == {}


async def test_a_revoked_token(issuer: LocalIssuer, server: Server, redis_store: RedisStore) -> None:
    """A revoked token is found out in the same call, and charges its client's address all the same."""
    guard = await guarded(issuer, redis_store, server, "3/hour by ip")  # one of which is used
    token = issuer.token("mallory", jti="the one")
    (layer,) = [layer for layer in guard.layers if layer.name == "identity"]
    user = await layer.tokens.verify(token.encode())  # type: ignore[attr-defined]  # it is Identity
    await redis_store.revoke(user.token_id, 60)
    calls(server)
    answers = [(await get(guard, "/private", [bearer(token)])) for _ in range(3)]
    assert [answer.status for answer in answers] == [401, 401, 429]
    assert b"token_revoked" in answers[0].body
    assert calls(server) == {"evalsha": 3}


async def test_requests_at_once_cost_one_more_that_nobody_waits_for(
    issuer: LocalIssuer, server: Server, redis_store: RedisStore
) -> None:
    """A limit on requests at once costs a second call, after the request is over."""
    guard = await guarded(issuer, redis_store, server, f"{EVERYTHING}; 5 at once by user")
    assert (await get(guard, "/private", [bearer(issuer.token())])).status == 200
    await redis_store.aclose()
    assert calls(server)["evalsha"] == 2


async def test_requests_of_one_moment(issuer: LocalIssuer, server: Server, redis_store: RedisStore) -> None:
    """Requests that wait together are asked for together."""
    guard = await guarded(issuer, redis_store, server, EVERYTHING)
    headers = [bearer(issuer.token())]
    assert await both(*(get(guard, "/private", headers) for _ in range(32))) == [200] * 32
    assert calls(server)["evalsha"] < 32


@pytest.mark.parametrize("limit", ["2/hour by user", "2/hour by ip", "2/hour by route", "2/hour by header:x-tenant"])
async def test_all_are_charged_or_none(
    issuer: LocalIssuer, server: Server, redis_store: RedisStore, limit: str
) -> None:
    """Whichever limit refuses, no other bucket is charged for it."""
    guard = await guarded(issuer, redis_store, server, f"100/hour by ip as vast; {limit} as small")
    headers = [bearer(issuer.token("bob")), (b"x-tenant", b"a")]
    seen = await statuses(guard, 4, path="/private", headers=headers, client=("192.0.2.7", 1))
    assert 429 in seen
    admitted = seen.count(200)
    (name,) = server.client.keys("*{ip:192.0.2.7}:vast:*")
    seconds, microseconds = server.client.time()
    reset = int(server.client.get(name)) - (seconds * 1_000_000 + microseconds)
    assert (admitted - 1) * 36_000_000 < reset <= admitted * 36_000_000


async def test_two_workers(issuer: LocalIssuer, server: Server) -> None:
    """Guards that share a store share its buckets."""
    stores = [server.store(), server.store()]
    chosen = settings(issuer, rate=RateSettings(limit="3/hour by ip"), auth=AuthSettings(), routes=(Route("/"),))
    guards = [Guard(Echo(), chosen, store=store) for store in stores]
    assert [(await get(guard)).status for guard in [*guards, *guards]] == [200, 200, 200, 429]
    for store in stores:
        await store.aclose()
