"""How requests under way go on to count for as long as they last, and no longer where their worker has died."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asgi_guard import MemoryStore, RateLimitMiddleware, limits
from asgi_guard.limiting.leases import RENEWAL, SLICE, Leases
from asgi_guard.policy.bucket import Admission, Charge
from asgi_guard.policy.rates import LEASE, SECOND, parse_limits
from asgi_guard.stores.batching import MAX_WAITING
from tests.asgi import Echo, get, http_scope
from tests.laws import SHARING
from tests.middleware.limiting import PATIENCE, Fickle, Micros, Waiting, begin, cancelled, counted

if TYPE_CHECKING:
    from asgi_guard import RedisStore
    from asgi_guard.asgi import Receive, Scope, Send
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
    charge = Charge(limit, f"{{ip:203.0.113.9}}:{limit.bucket}")
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


async def test_a_round_of_several_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """More leases than a slice are renewed in slices spread over a round, each once, but for those that are over."""
    monkeypatch.setattr("asgi_guard.limiting.leases.SLICE", 4)
    timers, leases, store = Timers(monkeypatch), Leases(), Fickle()
    for number in range(10):
        leases.hold(f"{number}", *lease_of(store))
    leases.renew()
    assert told(store) == [*"0123"]
    leases.let_go("5")
    leases.hold("late", *lease_of(store))
    leases.renew()
    leases.renew()
    assert told(store) == [*"01234678", "9"]
    assert timers.after == [RENEWAL, *[RENEWAL / 3] * 3]
    leases.renew()
    assert told(store)[9:] == [*"0123"]
    for number in range(10):
        leases.let_go(f"{number}")
    leases.let_go("late")
    leases.renew()
    leases.hold("new", *lease_of(store))
    leases.renew()
    assert told(store)[13:] == ["new"]
    assert timers.after[5:] == [RENEWAL] * 2


def told(store: Fickle) -> list[str]:
    """The leases that were renewed, in order."""
    return [request.lease for request in store.told]


@settings(SHARING, max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.booleans()), min_size=8, max_size=40))
@example([(30, 0, False), *[(0, 3, True)] * 9])
@example([(30, 0, False), *[(3, 0, True)] * 9])
def test_no_lease_goes_unrenewed(monkeypatch: pytest.MonkeyPatch, course: list[tuple[int, int, bool]]) -> None:
    """However many come and go between two slices, a lease's third renewal from any moment on is within its life."""
    monkeypatch.setattr("asgi_guard.limiting.leases.SLICE", 4)

    async def run() -> None:
        leases, store, now = Leases(), Fickle(), 0.0
        times: dict[str, list[float]] = {}
        with pytest.MonkeyPatch.context() as patch:
            timers = Timers(patch)
            for coming, going, oldest in course:
                for _ in range(coming):
                    name = leases.name()
                    leases.hold(name, *lease_of(store))
                    times[name] = [now]
                for name in (list(times) if oldest else list(reversed(times)))[:going]:
                    leases.let_go(name)
                    del times[name]
                if not timers.after:
                    continue
                now += timers.after[-1]
                store.told.clear()
                leases.renew()
                assert len(store.told) <= 4
                assert all(now - each[-3:][0] < LEASE / SECOND + 1e-6 for each in times.values())
                for name in told(store):
                    times[name].append(now)

    asyncio.run(run())


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
    monkeypatch.setattr("asgi_guard.limiting.leases.os.getpid", lambda: 1)
    assert leases.name().rpartition("-")[0] != first.rpartition("-")[0]


async def test_a_real_timer_renews(server: Server, redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The timer itself renews what is under way, in a real store."""
    monkeypatch.setattr("asgi_guard.limiting.leases.RENEWAL", 0.01)
    app = Waiting()
    layer = RateLimitMiddleware(app, limit="1 at once by ip", store=redis_store)
    task = begin(layer, http_scope())
    await app.reached(1)
    (name,) = server.client.keys("*at-once:*")
    server.client.delete(name)
    async with asyncio.timeout(PATIENCE):
        while not server.client.exists(name):  # noqa: ASYNC110 - it happens in another process
            await asyncio.sleep(0.005)
    assert (await get(layer)).status == 429
    app.go.set()
    await task
    await redis_store.aclose()
    assert server.client.keys("*") == []


async def test_what_is_cut_off_by_the_shut_down(server: Server, redis_store: RedisStore) -> None:
    """Nobody counts as under way in a process that has ended, though its requests end later than its store does."""
    app = Waiting()
    layer = RateLimitMiddleware(app, limit="9 at once by ip", store=redis_store)
    tasks = [begin(layer, http_scope()) for _ in range(3)]
    await app.reached(3)
    assert [server.client.zcard(name) for name in server.client.keys("*at-once:*")] == [3]
    await layer.shutdown()
    assert server.client.keys("*") == []
    connections = server.client.info("stats")["total_connections_received"]
    for task in tasks:
        assert await cancelled(task)
    await asyncio.sleep(0)
    assert redis_store._client is None  # for nobody would close what they open
    assert server.client.info("stats")["total_connections_received"] == connections
    assert len(layer._accounts.leases) == 0


async def test_what_outlasts_the_shut_down(server: Server, redis_store: RedisStore) -> None:
    """Where another server of the process goes on, its requests count again once they are renewed, until they end."""
    app = Waiting()
    layer = RateLimitMiddleware(app, limit="9 at once by ip", store=redis_store)
    tasks = [begin(layer, http_scope()) for _ in range(3)]
    await app.reached(3)
    (name,) = server.client.keys("*at-once:*")
    await layer.shutdown()
    layer._accounts.leases.renew()
    assert len(layer._accounts.leases) == 3
    await redis_store.aclose()
    assert server.client.zcard(name) == 3
    app.go.set()
    assert [(await task).status for task in tasks] == [200] * 3
    await redis_store.aclose()
    assert server.client.keys("*") == []


async def test_what_ended_after_the_shut_down_is_not_renewed() -> None:
    """Of requests that outlast a shut-down those that are over by then never count again, and the others do."""
    leases, store = Leases(), Fickle()
    for name in "ab":
        leases.hold(name, *lease_of(store))
    leases.end()
    assert not leases.let_go("a")
    store.told.clear()
    leases.renew()
    assert told(store) == ["b"]
    assert leases.let_go("b")
    leases.renew()
    assert (told(store), len(leases)) == (["b"], 0)


async def test_a_cost_beyond_the_shut_down(redis_store: RedisStore, caplog: pytest.LogCaptureFixture) -> None:
    """What a request costs is taken also where its end among those under way was told before it ended."""
    waiting = Waiting()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        limits.charge(scope, 2)
        await waiting(scope, receive, send)

    layer = RateLimitMiddleware(app, limit="9 at once by ip; 3/hour by ip", store=redis_store)
    task = begin(layer, http_scope())
    await waiting.reached(1)
    await layer.shutdown()
    waiting.go.set()
    assert (await task).status == 200
    assert caplog.messages == []
    assert (await get(layer)).status == 429
    await redis_store.aclose()


async def test_more_under_way_than_may_wait(
    server: Server, redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where more requests are under way than may wait for the store, each of them is renewed all the same."""
    assert SLICE * 4 <= MAX_WAITING
    monkeypatch.setattr("asgi_guard.limiting.leases.RENEWAL", 0.5)
    number, app = 2 * SLICE + 1, Waiting()
    layer = RateLimitMiddleware(app, limit="1000 at once by ip", store=redis_store)
    tasks = [begin(layer, http_scope()) for _ in range(number)]
    await app.reached(number)
    (name,) = server.client.keys("*at-once:*")
    with monkeypatch.context() as patched:
        patched.setattr("asgi_guard.stores.batching.MAX_WAITING", SLICE + 1)
        server.client.delete(name)
        async with asyncio.timeout(PATIENCE):
            while server.client.zcard(name) < number:  # noqa: ASYNC110 - it happens in another process
                await asyncio.sleep(0.005)
    app.go.set()
    assert {(await task).status for task in tasks} == {200}
    await redis_store.aclose()
    assert server.client.keys("*") == []


async def test_an_answer_that_was_lost_does_not_end_the_lease() -> None:
    """Who was counted by the store and by this process goes on counting in both, and leaves both."""
    clock, app = Micros(), Waiting()
    inner = MemoryStore(clock=clock)
    store = Fickle(inner, "deaf")
    layer = RateLimitMiddleware(app, limit="2 at once by ip", store=store)
    tasks = [begin(layer, http_scope()) for _ in range(2)]
    await app.reached(2)
    store.mood = "well"
    for _ in range(6):
        clock.pass_seconds(RENEWAL)
        layer._accounts.leases.renew()
    assert (await get(layer)).status == 429
    app.go.set()
    assert [(await task).status for task in tasks] == [200, 200]
    assert (counted(inner), counted(layer._local), len(layer._accounts.leases)) == (0, 0, 0)
