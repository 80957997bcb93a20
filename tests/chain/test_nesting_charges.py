"""What guards within one another charge a request, and count of it: once, as if they were one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from asgi_guard import (
    Guard,
    GuardSettings,
    LogSettings,
    MemoryStore,
    RateLimitMiddleware,
    RateSettings,
    RequestIDMiddleware,
    Route,
    limits,
)
from tests.asgi import Echo, get
from tests.chain.others import Mounting, shut, unheard
from tests.middleware.limiting import Fickle, held

if TYPE_CHECKING:
    from asgi_guard.asgi import ASGIApp, Receive, Scope, Send
    from tests.stores.server import Server


@pytest.mark.parametrize("separate", [False, True], ids=["the same store", "a store each"])
async def test_a_request_is_charged_once_by_nested_guards(valkey: Server, separate: bool) -> None:
    """Guards around one another that share a store charge a request once for the same limit, and count it once."""
    valkey.client.flushall()
    limits = RateSettings(limit="4/hour by ip; 1 at once by ip")
    inner_limits = RateSettings(limit="4/hour by ip; 3/hour by route")
    quiet = LogSettings(format="off")
    stores = [valkey.store(prefix="inner:" if separate else "asgi-guard:"), valkey.store()]
    inner = Guard(Echo(), GuardSettings(rate=inner_limits, log=quiet), store=stores[0])
    outer = Guard(Mounting("/sub", inner), GuardSettings(rate=limits, log=quiet), store=stores[1])

    statuses = [(await get(outer, "/sub/a")).status for _ in range(4)]

    assert statuses == [200, 200, 200, 429]
    found = {key.decode() for key in valkey.client.scan_iter(_type="string")}
    shared = "inner:" if separate else "asgi-guard:"
    assert found == {
        "asgi-guard:{ip:203.0.113.9}:ip:900000000x4", f"{shared}{{ip:203.0.113.9}}:ip:900000000x4",
        f"{shared}{{route:others}}:route:1200000000x3",
    }  # fmt: skip
    assert stores[0].same_as(stores[1]) is not separate
    for store in stores:
        await store.aclose()


@pytest.mark.parametrize("shadow", [False, True])
async def test_a_guard_within_charges_what_no_other_has(shadow: bool) -> None:
    """What a guard further out has charged is not asked for again, and what comes to the inner one alone is charged."""
    store = Fickle()
    inner = RateLimitMiddleware(Echo(), limit="3/hour by ip", store=store, shadow=shadow)
    outer = RateLimitMiddleware(Mounting("/sub", inner), limit="3/hour by ip", store=store, shadow=shadow)
    assert (await get(outer, "/sub/a")).status == 200
    assert len(store.asked) == 1
    assert [(await get(inner, "/a")).status for _ in range(3)] == [200, 200, 200 if shadow else 429]
    assert [charge.cost for asked in store.asked for charge in asked.charges] == [1] * 4


@pytest.mark.parametrize("extra", [2, -2])
async def test_the_dearest_of_nested_guards_is_what_a_request_costs(extra: int) -> None:
    """However many guards stand around one another, a request pays the highest of their costs, and is under way once.

    What the app charges or gives back beyond that is settled once, too.
    """
    store = Fickle()

    async def charging(scope: Scope, receive: Receive, send: Send) -> None:
        limits.charge(scope, extra)
        await Echo()(scope, receive, send)

    app: ASGIApp = charging
    for cost in (5, 3, 1):
        routes = [Route("/a", cost=cost)]
        app = RateLimitMiddleware(app, limit="9/hour by ip; 1 at once by ip", store=store, routes=routes)
    assert (await get(app, "/a")).status == 200
    counted = [[(charge.limit.at_once, charge.cost) for charge in asked.charges] for asked in store.asked]
    assert counted == [[(False, 1), (True, 1)], [(False, 2)], [(False, 2)]]
    settled = [charge.cost for told in store.told for charge in told.charges if not charge.limit.at_once]
    assert settled == [extra]


async def test_each_of_guarded_apps_one_after_another_is_charged() -> None:
    """Guarded apps that an app calls one after another are each charged, and pay what they charge themselves."""
    store = Fickle()

    async def work(scope: Scope, receive: Receive, send: Send) -> None:
        limits.charge(scope, 2)
        await Echo()(scope, receive, send)

    within = RateLimitMiddleware(work, limit="9/hour by ip; 1 at once by ip", store=store)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for told in (unheard, send):
            await within(dict(scope), receive, told)

    assert (await get(RequestIDMiddleware(app))).status == 200
    assert [[charge.cost for charge in asked.charges] for asked in (*store.asked, *store.told)] == [
        [1, 1],
        [1, 1],
        [2, 2],
        [2, 2],
    ]


async def test_each_layer_ends_what_it_holds() -> None:
    """Of two layers that count requests under way, each settles its own, when the request has left it."""
    within: list[tuple[int, int]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        within.append((held(outer), held(inner)))
        await Echo()(scope, receive, send)

    inner = RateLimitMiddleware(app, limit="1 at once by ip; 9/hour by ip", store=Fickle())
    outer = RateLimitMiddleware(inner, limit="1 at once by ip", store=Fickle())
    assert [(await get(outer)).status for _ in range(3)] == [200] * 3
    assert within == [(1, 1)] * 3
    assert (held(outer), held(inner)) == (0, 0)


async def test_a_stricter_limit_within_holds(valkey: Server) -> None:
    """A guard further in whose limit of the same name is another one is not content with what the outer one charged."""
    valkey.client.flushall()
    quiet = LogSettings(format="off")
    inner = Guard(Echo(), GuardSettings(rate=RateSettings(limit="2/hour by ip"), log=quiet), store=valkey.store())
    outer = Guard(
        Mounting("/sub", inner),
        GuardSettings(rate=RateSettings(limit="100/hour by ip"), log=quiet),
        store=valkey.store(),
    )
    statuses = [(await get(outer, "/sub/a")).status for _ in range(3)]
    assert statuses[-1] == 429
    await shut(inner, outer)


@pytest.mark.parametrize(
    ("outer", "path", "expected"),
    [
        ({}, "/", [200, 200, 200, 200]),
        ({}, "/dear", [200, 200, 429, 429]),
        ({"shadow": True}, "/dear", [200, 429, 429, 429]),
    ],
)
async def test_what_was_charged_further_out_counts_as_far_as_it_binds(
    outer: dict[str, Any], path: str, expected: list[int]
) -> None:
    """Of a limit that two layers have a request is charged the greater cost, and a shadow stands in for no limit."""
    store = MemoryStore()
    within = RateLimitMiddleware(Echo(), limit="6/hour by ip", store=store, routes=(Route("/dear", cost=3),))
    layer = RateLimitMiddleware(within, limit="6/hour by ip", store=store, **outer)
    assert [(await get(layer, path)).status for _ in range(4)] == expected
