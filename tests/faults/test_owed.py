"""What requests leave that end while the store does not answer: nothing that lasts, and nothing charged twice."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ClusterDownError, ResponseError, TryAgainError

from asgi_guard import RateLimitMiddleware, limits
from asgi_guard.errors import StoreUnavailableError
from asgi_guard.limiting.leases import Leases
from asgi_guard.policy.breaker import Breaker
from asgi_guard.policy.bucket import Admission, Charge
from asgi_guard.stores import batching
from asgi_guard.stores.batching import MAX_WAITING, SLICE, Line
from asgi_guard.stores.owed import MAX_OWED
from asgi_guard.stores.wire import Question, question
from tests.asgi import get, http_scope
from tests.faults.test_probes import failed, opened
from tests.middleware.limiting import Waiting, begin
from tests.stores.held import Held, line, ready, turns
from tests.stores.server import PATIENCE, SLOW, Server, ask, limit, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asgi_guard.asgi import Receive, Scope, Send
    from asgi_guard.policy.bucket import Verdict
    from asgi_guard.stores import MemoryStore
    from tests.clock import Clock

AT_ONCE = limit("2 at once by ip")


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that the test may break."""
    with Server() as started:
        yield started


def begun(lease: str) -> Question:
    return question(Admission((Charge(AT_ONCE, "way"),), lease=lease), "")


def over(lease: str, cost: int = 1) -> Question:
    """The account of a request that is over, which the app charged for."""
    charges = (Charge(SLOW, "rate", cost), Charge(AT_ONCE, "way", cost))
    return question(Admission(charges, lease=lease, settles=True), "")


def left(memory: MemoryStore) -> tuple[int, int]:
    """What is left of the rate, and of the places."""
    verdict = memory.decide(Admission((Charge(SLOW, "rate", 0), Charge(AT_ONCE, "way")), lease="look"))
    memory.tell(Admission((Charge(AT_ONCE, "way"),), lease="look", settles=True))
    return verdict.readings[0].remaining, verdict.readings[1].remaining + verdict.admitted


class Charging(Waiting):
    """An app that charges more when it is done."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)
        limits.charge(scope, 2)


async def test_requests_that_end_in_a_stall(server: Server) -> None:
    """Requests that end while the store is stuck leave no place taken and no charge out, once it answers again."""
    app = Charging()
    store = server.store(timeout=0.05)
    rule = "20/hour by ip; 1 at once by ip"
    layer = RateLimitMiddleware(app, limit=rule, store=store, on_store_failure="allow")
    clients = [(f"192.0.2.{number}", 1) for number in range(8)]
    tasks = [begin(layer, http_scope(client=client)) for client in clients]
    await app.reached(len(clients))
    pid = server.pid
    server.signal(pid, signal.SIGSTOP)
    try:
        while not store.breakers[0].is_open:
            with pytest.raises(StoreUnavailableError):
                await store.admit(ask("another"))
    finally:
        app.go.set()
        await asyncio.gather(*tasks)
        server.signal(pid, signal.SIGCONT)

    async def told() -> bool:
        return not server.client.keys("*{ip:192.0.2.?}:ip-at-once:*") and not store.breakers[0].is_open

    await until(told)
    for client in clients:
        exchange = await get(layer, client=client)
        assert (exchange.status, exchange.headers["ratelimit"].partition(";t")[0]) == (200, '"ip";r=16')
    await store.aclose()


async def test_what_is_told_while_nobody_may_ask(clock: Clock) -> None:
    """What is told while the breaker is open is told when it closes, in order, and once."""
    link, breaker = Held(), opened()
    served = line(link, breaker)
    assert (await served.ask(begun("a"))).admitted
    assert (await served.ask(begun("b"))).admitted
    link.asked.clear()
    await failed(served, link)
    for lease in "ab":
        served.tell(over(lease))
    served.tell(begun("c"))
    await turns()
    assert len(link.asked) == 1
    link.free = True
    served.works()
    await served.settled()
    assert left(link.memory) == (3, 2)
    assert [each.request.lease for batch in link.asked[1:] for each in batch] == ["a", "b"]


async def test_what_was_told_probes(clock: Clock) -> None:
    """Where nobody asks, the next renewal after the breaker's wait is the one that probes."""
    link, breaker = Held(), opened()
    served = line(link, breaker)
    await failed(served, link)
    link.free = True
    served.tell(begun("a"))
    await served.settled()
    assert len(link.asked) == 1
    clock.now += 10
    served.tell(begun("a"))
    served.tell(begun("b"))
    await served.settled()
    assert not breaker.is_open
    assert [each.request.lease for batch in link.asked[1:] for each in batch] == ["a"]


async def test_a_probe_that_nobody_waits_for_may_fail(clock: Clock) -> None:
    """A renewal that probes and is not answered makes the wait longer, as a request would."""
    link, breaker = Held(), opened()
    served = line(link, breaker)
    await failed(served, link)
    clock.now += 10
    served.tell(begun("a"))
    await turns()
    link.go_on(OSError("gone"))
    await served.settled()
    assert breaker.retry_after(clock.now) == 20


async def test_an_account_that_probes_may_fail(clock: Clock) -> None:
    """So does an account that was kept until then, which is kept on."""
    link, breaker = Held(), opened()
    served = line(link, breaker)
    await failed(served, link)
    served.tell(over("a"))
    served.tell(over("b"))
    clock.now += 10
    served._remind()
    await turns()
    assert [each.request.lease for each in link.asked[-1]] == ["a"]
    link.go_on(OSError("gone"))
    await served.settled()
    assert breaker.retry_after(clock.now) == 20
    clock.now += 20
    link.free = True
    served._remind()
    await served.settled()
    assert not breaker.is_open
    assert left(link.memory) == (4, 2)


async def test_a_worker_without_requests_keeps_its_places(server: Server) -> None:
    """A worker with nothing but long requests finds out that the store is well, and renews them."""
    store = server.store(timeout=5, breaker=Breaker(threshold=1, first_wait=0.05))
    app = Waiting()
    layer = RateLimitMiddleware(app, limit="1 at once by ip", store=store)
    task = begin(layer, http_scope())
    await app.reached(1)
    store.breakers[0].failed(asyncio.get_running_loop().time())
    server.client.flushall()
    leases: Leases = layer._accounts.leases

    async def renewed() -> bool:
        leases.renew()
        return bool(server.client.keys("*at-once:*"))

    await until(renewed)
    assert not store.breakers[0].is_open
    app.go.set()
    assert (await task).status == 200
    await store.aclose()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError("gone"), (5, 2)),
        (ResponseError("OOM command not allowed when used memory > 'maxmemory'."), (4, 2)),
        (ResponseError("ERR Error running script (call to f_1): @user_script:3: -LOADING the dataset"), (4, 2)),
        (ResponseError("WRONGTYPE an OOM of another kind"), (5, 1)),
    ],
)
async def test_what_was_sent(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, error: Exception, expected: tuple[int, int]
) -> None:
    """Of what was sent and not answered only the ends of requests are told again, since charges may have been made.

    What a server refuses for a while was not charged, and is told after that; what it refuses otherwise it would refuse
    again.
    """
    monkeypatch.setattr(batching, "AGAIN", 0.01)
    link, breaker = Held(), Breaker()
    served = line(link, breaker)
    assert (await served.ask(begun("a"))).admitted
    link.free = False
    served.tell(over("a"))
    await turns()
    link.go_on(error)
    await served.settled()
    link.free = True
    assert (await served.ask(ready("another"))).admitted

    async def told() -> bool:
        return not served._owed

    await until(told)
    await served.settled()
    assert left(link.memory) == expected


async def test_what_was_never_sent_for_want_of_a_connection() -> None:
    """What waited for a connection that did not come is told once there is one, by whoever comes next."""
    link = Held(is_open=False)
    served = line(link)
    opening, link.open = link.open, _refused  # type: ignore[method-assign]
    served.tell(over("a"))
    await served.settled()
    link.open = opening  # type: ignore[method-assign]
    assert (await served.ask(ready("another"))).admitted
    await served.settled()
    assert left(link.memory) == (4, 2)


async def _refused() -> None:
    raise ConnectionError("refused")


async def test_what_is_not_asked_owes_nothing(server: Server) -> None:
    """Requests of which the store was never asked leave it nothing to be told, and push out nothing that is owed."""
    store = server.store(timeout=5, breaker=Breaker(threshold=1, first_wait=60))
    app = Waiting()
    rule = "5 at once by ip on-failure allow; 9 at once by ip as local on-failure local"
    layer = RateLimitMiddleware(app, limit=rule, store=store)
    task = begin(layer, http_scope())
    await app.reached(1)
    store.breakers[0].failed(asyncio.get_running_loop().time())
    app.go.set()
    assert (await task).status == 200
    for _ in range(5):
        assert (await get(layer)).status == 200
    assert len(store._line._owed) == 1
    assert len(layer._accounts.leases) == 0
    await store.aclose()


async def test_whether_it_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of a request that was not answered tells whether it may have been charged all the same."""
    link, breaker = Held(free=False), Breaker(threshold=9)
    served = line(link, breaker)

    async def fails(error: Exception | None = None) -> StoreUnavailableError:
        asyncio.get_running_loop().call_later(0.01, link.go_on, error)
        with pytest.raises(StoreUnavailableError) as caught:
            await served.ask(ready("another"))
        return caught.value

    assert (await fails(OSError("gone"))).sent
    assert (await fails(ResponseError("ERR of the script"))).sent
    assert not (await fails(ResponseError("LOADING the dataset"))).sent
    assert not (await fails(ClusterDownError("the cluster is down"))).sent
    late = Line(Held(free=False), Breaker(), 0.01)
    with pytest.raises(StoreUnavailableError) as caught:
        await late.ask(ready("another"))
    assert caught.value.sent
    await late.settled()
    link.is_open = False
    link.open = _refused  # type: ignore[method-assign]
    assert not (await fails()).sent
    monkeypatch.setattr(batching, "MAX_WAITING", 0)
    for failures in (0, 9):
        for _ in range(failures):
            breaker.failed(asyncio.get_running_loop().time())
        assert not (await fails()).sent
        with pytest.raises(StoreUnavailableError) as caught:
            served.check(ready("another"), 1)  # as where it goes to several nodes
        assert not caught.value.sent


async def test_without_another_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody asks any more, what is owed is told all the same, however often there is no connection for it."""
    monkeypatch.setattr("asgi_guard.stores.batching.AGAIN", 0.01)
    link = Held(is_open=False)
    served = line(link, Breaker(threshold=1, first_wait=0.01, max_wait=0.01))
    opening, refused, attempts = link.open, asyncio.Event(), 0

    async def refuse() -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 4:
            refused.set()
            link.open = opening  # type: ignore[method-assign]
        raise ConnectionError("refused")

    link.open = refuse  # type: ignore[method-assign]
    served.tell(over("a"))
    async with asyncio.timeout(PATIENCE):
        await refused.wait()

    async def told() -> bool:
        return left(link.memory) == (4, 2)

    await until(told)


async def test_a_reminder_that_comes_while_nobody_may_ask() -> None:
    """Where the store fails again before what is owed is tried, it is tried once the store may be asked after that."""
    link, breaker = Held(free=False), Breaker(threshold=1, first_wait=0.02, max_wait=0.02)
    served = line(link, breaker)
    await failed(served, link)
    served.tell(over("a"))
    breaker.failed(time.monotonic() + 0.05)  # as another event loop finds
    link.free = True

    async def told() -> bool:
        return left(link.memory) == (4, 2)

    await until(told)


async def test_what_is_owed_is_bounded(clock: Clock) -> None:
    """Of more than are kept, the latest are told."""
    link, breaker = Held(), opened()
    served = line(link, breaker)
    await failed(served, link)
    for number in range(MAX_OWED + 7):
        served.tell(over(f"{number}", 0))
    link.free = True
    served.works()
    await served.settled()
    assert [each.request.lease for batch in link.asked[1:] for each in batch] == [
        f"{number}" for number in range(7, MAX_OWED + 7)
    ]


async def test_more_than_can_be_told_in_one_moment(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Of all that end in one moment as many are told as may wait and are kept; the log tells once a minute of more."""
    link = Held(free=False)
    served = line(link)
    for number in range(MAX_WAITING + MAX_OWED):
        served.tell(over(f"{number}", 0))
    assert caplog.records == []
    for pause, number in ((0, 0), (0, 1), (59, 2), (1, 3)):
        clock.now += pause
        served.tell(over(f"more-{number}", 0))
    assert ["more requests have ended than can be kept" in record.getMessage() for record in caplog.records] == [
        True
    ] * 2

    link.let_all_go_on()
    await served.settled()
    assert sum(map(len, link.asked)) == MAX_WAITING + MAX_OWED
    assert link.asked[-1][-1].request.lease == "more-3"
    assert await served.leave() == []


async def left_by(served: Line) -> list[str]:
    return [each.question.request.lease for each in await served.leave()]


async def test_who_leaves_tells_what_is_owed(clock: Clock) -> None:
    """A line that is let go tells what it can, gives what it cannot, and does nothing afterwards."""
    link, breaker = Held(), opened()
    served = line(link, breaker)
    await failed(served, link)
    served.tell(over("a"))
    assert await left_by(served) == ["a"]
    served.tell(over("b"))
    breaker.succeeded()
    link.free = True
    assert await left_by(served) == []
    assert [each.request.lease for batch in link.asked[1:] for each in batch] == ["b"]
    assert served._reminder is None


class Partly(Held):
    """A link to a node that does not serve what accounts concern, for as long as `error` says so."""

    error: Exception | None = None

    async def ask(self, questions: Sequence[Question]) -> list[Verdict | Exception | None]:
        if self.error is None:
            return await super().ask(questions)
        served = iter(await super().ask([each for each in questions if not each.request.settles]))
        return [self.error if each.request.settles else next(served) for each in questions]


@pytest.mark.parametrize("error", [ClusterDownError("the cluster is down"), TryAgainError("keys on the move")])
async def test_what_a_node_refuses_is_told_after_a_while(error: Exception) -> None:
    """An account of a slot that is served by none is tried again after a while, whatever else is answered, and at last.

    Who leaves meanwhile leaves at once.
    """
    link = Partly()
    link.error = error
    served = line(link)
    served.tell(begun("a"))
    served.tell(over("a"))
    await turns()
    for _ in range(20):
        assert (await served.ask(ready("another", 0))).admitted
        await turns()
    assert len(link.asked) == 21
    assert len(served._owed) == 1

    async with asyncio.timeout(batching.AGAIN / 2):
        assert await left_by(served) == ["a"]

    served.tell(over("a"))
    await turns()
    link.error = None

    async def told() -> bool:
        return left(link.memory) == (4, 2)

    await until(told)


async def test_who_leaves_tries_what_was_refused() -> None:
    """What was refused lately is tried once more by a line that is let go."""
    link = Partly()
    link.error = ClusterDownError("the cluster is down")
    served = line(link)
    served.tell(over("a"))
    await served.settled()
    link.error = None
    assert await left_by(served) == []
    assert left(link.memory) == (4, 2)


async def test_what_many_refusals_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The more was refused, the longer it is until all that is tried again."""
    monkeypatch.setattr(batching, "AGAIN", 0.2)
    link = Partly()
    link.error = ClusterDownError("the cluster is down")
    served = line(link)
    for number in range(10 * SLICE):
        served.tell(over(f"{number}"))
    await served.settled()
    await asyncio.sleep(0.3)  # from here on that they are many is known
    await served.settled()
    calls = len(link.asked)
    await asyncio.sleep(0.2)
    assert len(link.asked) == calls
    await served.leave()


class Slow(Held):
    """A link that takes its time."""

    async def ask(self, questions: Sequence[Question]) -> list[Verdict | Exception | None]:
        await asyncio.sleep(0.05)
        return await super().ask(questions)


async def test_who_leaves_does_not_wait_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that is let go while very much waits gives up what it could not tell in time, and fails who waits."""
    monkeypatch.setattr(batching, "PARTING", 0.1)
    link = Slow()
    served = Line(link, Breaker(), 0.2)
    for number in range(batching.MAX_WAITING):
        served.tell(over(f"{number}"))
    given_up = await left_by(served)
    assert given_up
    told = [each.request.lease for batch in link.asked for each in batch]
    assert len(told) + len(given_up) == batching.MAX_WAITING
    assert not served._calls


async def test_requests_do_not_wait_for_all_that_is_owed(clock: Clock) -> None:
    """Requests that come when the store answers again go before all but a slice of what is owed."""
    link, breaker = Held(), opened()
    served = line(link, breaker)
    await failed(served, link)
    for number in range(MAX_OWED):
        served.tell(over(f"{number}", 0))
    link.asked.clear()
    link.free = True
    served.works()
    assert (await served.ask(ready("another"))).admitted
    await served.settled()
    order = [each.request.settles for batch in link.asked for each in batch]
    assert len(order) == MAX_OWED + 1
    assert order.index(False) <= 2 * SLICE
