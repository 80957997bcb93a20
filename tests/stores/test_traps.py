"""What other limiters get wrong, one test each: every one of these was seen in a limiter that people use."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from asgi_guard import RateLimitMiddleware
from asgi_guard.errors import ConfigError
from asgi_guard.policy.bucket import Admission, Charge
from asgi_guard.policy.identity import User
from asgi_guard.policy.limit_sets import Rules, compile_table
from asgi_guard.policy.rates import LEASE, SECOND, Limit
from asgi_guard.policy.revocation import Marks
from asgi_guard.policy.routes import Route
from asgi_guard.stores import MemoryStore, RedisStore, own_clock
from tests.asgi import Exchange, call, get, http_scope
from tests.stores.server import PATIENCE, SLOW, VAST, Server, ask, limit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asgi_guard.asgi import Receive, Scope, Send
    from asgi_guard.stores import Store

START = 1_795_000_000 * SECOND + 987_654
HOUR = 3600 * SECOND


class Driven:
    """A store in Redis on a clock that is driven by hand."""

    def __init__(self, server: Server) -> None:
        self.now = START
        self.store = RedisStore(server.url, timeout=PATIENCE, clock=lambda: self.now)

    async def take(self, cost: int = 1, rule: Limit = SLOW, key: str = "a") -> tuple[bool, int]:
        verdict = await self.store.admit(ask(key, cost, rule))
        return verdict.admitted, verdict.readings[0].remaining


@pytest.fixture
async def driven(server: Server) -> AsyncIterator[Driven]:
    made = Driven(server)
    yield made
    await made.store.aclose()


@pytest.mark.parametrize(
    "rule", [limit("10/second burst 1 by ip"), limit("10/second by ip")], ids=lambda rule: rule.text
)
async def test_a_key_that_expires_never_gives_units_away(server: Server, rule: Limit) -> None:
    """Of hundreds of requests no more are admitted than the burst and what comes back by the server's clock."""
    store = server.store()
    seconds, before = server.client.time()
    verdicts = await asyncio.gather(*(store.admit(ask("a", rule=rule)) for _ in range(600)))
    later, after = server.client.time()
    passed = (later - seconds) * SECOND + after - before
    assert 1 <= sum(verdict.admitted for verdict in verdicts) <= rule.burst + passed // rule.interval
    await store.aclose()


async def test_what_remains_is_exact_to_the_unit(driven: Driven) -> None:
    """What remains is never off by one, whatever the interval does not divide."""
    for rule in (limit("3/hour burst 7 by ip"), limit("7/hour burst 7 by ip"), limit("1/hour burst 1 by ip")):
        told = [await driven.take(1, rule, rule.text) for _ in range(rule.burst + 1)]
        assert [remaining for _, remaining in told] == [*range(rule.burst - 1, -1, -1), 0]


@pytest.mark.parametrize("cost", [-1, -8, -(10**30)])
async def test_a_negative_cost_is_an_error_in_every_store(store: Store, cost: int) -> None:
    """Nobody gets units by asking for less than nothing, and the buckets beside it are not charged."""
    with pytest.raises(ValueError, match="negative"):
        await store.admit(Admission((Charge(SLOW, "b"), Charge(SLOW, "a", cost))))
    for key in "ab":
        assert (await store.admit(ask(key, 0))).readings[0].remaining == 5


async def test_clients_are_told_apart(server: Server) -> None:
    """Two addresses, and two headers' values, have buckets of their own, in the store as well."""
    app = RateLimitMiddleware(streaming, limit="1/hour by ip; 2/hour by header:x-tenant", store=server.store())
    statuses = [
        (await get(app, client=(address, 1), headers=[(b"x-tenant", tenant)])).status
        for address, tenant in (("192.0.2.1", b"a"), ("192.0.2.1", b"a"), ("192.0.2.2", b"a"), ("192.0.2.3", b"a"))
    ]
    assert statuses == [200, 429, 200, 429]
    assert len(server.client.keys()) == 3
    await app.store.aclose()


async def streaming(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that answers in three parts."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    for part in (b"one", b"two"):
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def test_a_response_in_parts_starts_once(server: Server) -> None:
    """A response of several parts gets one start, with the limits' headers, and all its parts as they were."""
    app = RateLimitMiddleware(streaming, limit="2/hour by ip", store=server.store())
    exchange: Exchange = await call(app, http_scope())
    kinds = [message["type"] for message in exchange.messages]
    assert kinds == ["http.response.start", *["http.response.body"] * 3]
    assert exchange.headers["ratelimit"] == '"ip";r=1;t=1800'
    assert exchange.body == b"onetwo"
    await app.store.aclose()


async def test_a_refusal_costs_nothing(driven: Driven) -> None:
    """Whoever keeps asking while refused is admitted at the same moment as whoever waits."""
    assert (await driven.take(5))[0]
    told = []
    for _ in range(200):
        driven.now += HOUR // 200
        told.append(await driven.take())
    assert told == [(False, 0)] * 199 + [(True, 0)]


async def test_revocation_and_all_limits_are_one_round_trip(server: Server) -> None:
    """Look-ups of token, session and subject, three limits, a number at once and the headers' data are one command."""
    store = server.store()
    await store.admit(ask("a"))
    number = Limit("n", "", "ip", LEASE, 3, at_once=True)
    server.client.config_resetstat()
    charges = (*(Charge(VAST, key) for key in "abc"), Charge(number, "n"))
    await store.admit(Admission(charges, "t", "l", marks=Marks("s", "u", 5)))
    assert (server.calls("evalsha"), server.calls("ping"), server.calls("script|load")) == (1, 0, 0)
    await store.aclose()


async def test_every_key_has_an_end(server: Server) -> None:
    """Buckets, places and revocations all go by themselves, and a full bucket is no key."""
    store = server.store()
    number = Limit("n", "", "ip", LEASE, 3, at_once=True)
    await store.revoke("t", 60)
    await store.admit(Admission((Charge(SLOW, "a"), Charge(SLOW, "full", 0), Charge(number, "n")), "t", "l"))
    store.tell(Admission((Charge(SLOW, "told", 2),), settles=True))
    await store.admit(Admission(()))
    assert {key: server.client.pttl(key) > 0 for key in server.client.scan_iter()} == {
        b"asgi-guard:a": True, b"asgi-guard:n": True, b"asgi-guard:told": True, b"asgi-guard:revoked:t": True,
    }  # fmt: skip
    await store.aclose()


async def test_a_script_flush_fails_nothing(server: Server) -> None:
    """After the server forgot the script the next request is answered, and charged once."""
    store = server.store()
    for remaining in (4, 3, 2):
        server.client.script_flush()
        assert (await store.admit(ask("a"))).readings[0].remaining == remaining
    await store.aclose()


async def test_a_cancelled_check_costs_no_connection(server: Server) -> None:
    """Cancelling checks, however many, opens no further connection."""
    store = server.store()
    await store.admit(ask("a"))
    before = server.client.info("stats")["total_connections_received"]
    for _ in range(50):
        task = asyncio.create_task(store.admit(ask("a", 0)))
        for _ in range(3):
            await asyncio.sleep(0)
        task.cancel()
    assert (await store.admit(ask("a", 0))).readings[0].remaining == 4
    assert server.client.info("stats")["total_connections_received"] == before
    await store.aclose()


async def test_states_beyond_fourteen_digits_are_whole(server: Server, driven: Driven) -> None:
    """A state is written with all its sixteen digits, to the microsecond."""
    await driven.take()
    assert int(server.client.get("asgi-guard:a")) == START + HOUR
    driven.now += 1
    await driven.take()
    assert int(server.client.get("asgi-guard:a")) == START + 2 * HOUR


async def test_a_clock_that_goes_back_neither_gives_nor_locks_out(driven: Driven) -> None:
    """After the clock went back by a day the bucket is empty at worst, and fills from then on at its rate."""
    assert await driven.take(2) == (True, 3)
    driven.now -= 24 * HOUR
    assert await driven.take() == (False, 0)
    driven.now += HOUR
    assert await driven.take() == (True, 0)
    assert await driven.take() == (False, 0)


async def test_keys_live_as_long_as_they_count(server: Server, driven: Driven) -> None:
    """A key's life is the time until the bucket is full, rounded up to a millisecond."""
    await driven.take(1, Limit("odd", "", "ip", HOUR + 1, 5))
    expires = server.client.pexpiretime("asgi-guard:a")
    seconds, microseconds = server.client.time()
    left = expires - (seconds * 1000 + microseconds // 1000)
    assert 3_600_001 - PATIENCE * 1000 < left <= 3_600_001


async def test_a_cost_that_never_fits_is_said_at_construction() -> None:
    """A row that could never be admitted is an error when the guard is made, not a refusal without an end."""
    with pytest.raises(ConfigError, match="never holds more than 5"):
        RateLimitMiddleware(streaming, limit="5/hour by ip", routes=[Route("/a", cost=6)])


async def test_a_cost_that_never_fits_takes_nothing(store: Store) -> None:
    """A cost above the capacity is refused for good, without a time to wait for, and leaves the bucket as it was."""
    for _ in range(3):
        verdict = await store.admit(ask("a", 6))
        assert (verdict.admitted, verdict.readings[0].wait, verdict.readings[0].remaining) == (False, None, 5)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 1000])
async def test_retry_after_is_whole_seconds_and_enough(count: int) -> None:
    """Retry-After is a whole number, at least 1, not before `t`, and whoever comes back then is admitted."""
    now = START
    store = MemoryStore(clock=lambda: now)
    app = RateLimitMiddleware(streaming, limit=f"{count}/minute burst 1 by ip", store=store)
    assert (await get(app)).status == 200
    refused = await get(app)
    wait = int(refused.headers["retry-after"])
    assert wait >= max(1, int(refused.headers["ratelimit"].rpartition("t=")[2]))
    now += wait * SECOND
    assert (await get(app)).status == 200


def test_the_local_fallback_does_not_multiply_the_limit() -> None:
    """What all workers together admit without the store is no more than the limit, where it has a unit for each."""
    for workers in (1, 2, 3, 8):
        (row,) = compile_table("60/minute burst 80 by user", (), Rules("local", workers=workers))
        (share,) = row.of(User("ann")).share.values()
        assert share.burst * workers <= 80
        assert share.interval == SECOND * workers


async def test_where_scripts_may_not_ask_the_clock(server: Server) -> None:
    """With a clock of its own the store never asks the server's, so a server that refuses TIME serves."""
    store = RedisStore(server.url, timeout=PATIENCE, clock=own_clock)
    await store.admit(ask("warm"))
    server.client.config_resetstat()
    verdicts = [await store.admit(ask("a")) for _ in range(6)]
    assert [verdict.admitted for verdict in verdicts] == [True] * 5 + [False]
    assert server.calls("time") == 0
    await store.aclose()
