"""How requests under way go on to count for as long as they last, and no longer where their worker has died."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from asgi_guard import MemoryStore, RateLimitMiddleware
from asgi_guard.middleware.leases import RENEWAL, Leases
from asgi_guard.policy.bucket import Admission, Charge
from asgi_guard.policy.rates import LEASE, parse_limits
from tests.asgi import Echo, get, http_scope
from tests.middleware.limiting import PATIENCE, Fickle, Micros, Waiting, begin, counted

if TYPE_CHECKING:
    from asgi_guard import RedisStore
    from asgi_guard.stores import Store
    from tests.stores.server import Server


async def test_long_requests_are_renewed() -> None:
    """A request that lasts longer than a lease counts until it ends, and not a moment longer."""
    clock, app = Micros(), Waiting()
    store = Fickle(MemoryStore(clock=clock))
    layer = RateLimitMiddleware(app, limit="1 at once by ip", store=store)
    task = begin(layer, http_scope())
    await app.reached(1)
    for _ in range(6):
        clock.pass_seconds(RENEWAL)
        layer._accounts.leases.renew()
        assert (await get(layer)).status == 429
    assert store.renewed == 6
    app.go.set()
    assert (await task).status == 200
    assert (await get(layer)).status == 200


async def test_requests_that_nobody_renews() -> None:
    """What a worker that died has left counts for the time of a lease."""
    clock = Micros()
    store = MemoryStore(clock=clock)
    (limit,) = parse_limits("1 at once by ip")
    charge = Charge(limit, "{ip:203.0.113.9}:ip-at-once")
    store.decide(Admission((charge,), lease="of-the-dead"))
    layer = RateLimitMiddleware(Echo(), limit="1 at once by ip", store=store)
    assert (await get(layer)).status == 429
    clock.now += LEASE - 1
    assert (await get(layer)).status == 429
    clock.now += 1
    assert (await get(layer)).status == 200


async def test_renewal_after_the_store_lost_its_data() -> None:
    """A request under way counts again, once it is renewed, in a store that had forgotten it."""
    app, inner = Waiting(), MemoryStore()
    layer = RateLimitMiddleware(app, limit="1 at once by ip", store=Fickle(inner))
    task = begin(layer, http_scope())
    await app.reached(1)
    inner._under_way.clear()
    layer._accounts.leases.renew()
    assert (await get(layer)).status == 429
    app.go.set()
    await task
    assert counted(inner) == 0


class Timers:
    """The timers that were set in a loop, in its place."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.after: list[float] = []
        loop = asyncio.get_running_loop()
        later = loop.call_later

        def call_later(delay: float, callback: object, *arguments: object) -> asyncio.TimerHandle:
            self.after.append(delay)
            return later(delay, callback, *arguments)  # type: ignore[arg-type]  # as it was given

        patch.setattr(loop, "call_later", call_later)


def lease_of(store: Store) -> tuple[Store, tuple[Charge, ...]]:
    (limit,) = parse_limits("1 at once by ip")
    return store, (Charge(limit, "{x}:ip-at-once"),)


async def test_one_timer_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many leases there are, one timer renews them, and none is left once there are none."""
    timers, leases, store = Timers(monkeypatch), Leases(), Fickle()
    names = [leases.name() for _ in range(3)]
    assert len(set(names)) == 3
    for name in names:
        leases.hold(name, *lease_of(store))
    assert timers.after == [RENEWAL]
    leases.renew()
    assert (len(timers.after), store.renewed) == (2, 3)
    for name in names:
        leases.let_go(name)
    leases.let_go("of nobody")
    leases.renew()
    assert (len(timers.after), store.renewed, len(leases)) == (2, 3, 0)
    leases.hold(names[0], *lease_of(store))
    assert len(timers.after) == 3


async def test_a_renewal_that_fails(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A store that fails to take one renewal is asked for the others, and again the next time."""
    timers, leases = Timers(monkeypatch), Leases()

    class Broken(Fickle):
        def tell(self, request: Admission) -> None:
            raise LookupError("a defect of the store")

    broken, well = Broken(), Fickle()
    leases.hold("a", *lease_of(broken))
    leases.hold("b", *lease_of(well))
    leases.renew()
    assert (len(timers.after), well.renewed) == (2, 1)
    assert "a request under way could not be renewed" in caplog.text


def test_another_event_loop() -> None:
    """In another event loop, leases are renewed by a timer of that loop."""
    leases, store = Leases(), Fickle()
    for expected in (1, 2):

        async def run(expected: int = expected) -> None:
            with pytest.MonkeyPatch.context() as patch:
                timers = Timers(patch)
                leases.hold(f"lease-{expected}", *lease_of(store))
                assert len(timers.after) == 1

        asyncio.run(run())


def test_forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that were forked after a lease was named give names of their own."""
    leases = Leases()
    first = leases.name()
    assert leases.name().rpartition("-")[0] == first.rpartition("-")[0]
    monkeypatch.setattr("asgi_guard.middleware.leases.os.getpid", lambda: 1)
    assert leases.name().rpartition("-")[0] != first.rpartition("-")[0]


async def test_a_real_timer_renews(server: Server, redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The timer itself renews what is under way, in a real store."""
    monkeypatch.setattr("asgi_guard.middleware.leases.RENEWAL", 0.01)
    app = Waiting()
    layer = RateLimitMiddleware(app, limit="1 at once by ip", store=redis_store)
    task = begin(layer, http_scope())
    await app.reached(1)
    (name,) = server.client.keys("*at-once")
    server.client.delete(name)
    async with asyncio.timeout(PATIENCE):
        while not server.client.exists(name):  # noqa: ASYNC110 - it happens in another process
            await asyncio.sleep(0.005)
    assert (await get(layer)).status == 429
    app.go.set()
    await task
    await redis_store.aclose()
    assert server.client.keys("*") == []
