"""One call for all who wait: who goes along with whom, in which order, and what becomes of those who leave."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asgi_guard.errors import StoreUnavailableError
from asgi_guard.policy.breaker import Breaker
from asgi_guard.policy.bucket import Admission, Charge, Verdict
from asgi_guard.policy.rates import LEASE, Limit
from asgi_guard.stores import RedisStore, batching
from asgi_guard.stores.batching import MAX_CALLS, MAX_KEYS, MAX_WAITING, MIN_BATCH
from asgi_guard.stores.wire import question
from tests.laws import SHARING
from tests.stores.held import Held, line, ready, turns
from tests.stores.server import PATIENCE, SLOW, VAST, Server, ask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from asgi_guard.stores.wire import Question

AT_ONCE = Limit("at-once", "", "ip", LEASE, 3, at_once=True)


@pytest.fixture
async def store(server: Server) -> AsyncIterator[RedisStore]:
    made = server.store()
    await made.ping()
    server.client.config_resetstat()
    yield made
    await made.aclose()


@pytest.mark.parametrize(("callers", "limits"), [(1, 1), (4, 1), (40, 1), (400, 1), (90, 3), (100, 5)])
async def test_all_who_wait_go_in_few_calls(server: Server, store: RedisStore, callers: int, limits: int) -> None:
    """Requests of one moment cost one call for as many as fit, and two at the least, where so few are not one alone."""
    requests = [
        Admission(tuple(Charge(VAST, f"k{index}-{which}") for which in range(limits))) for index in range(callers)
    ]

    verdicts = await asyncio.gather(*map(store.admit, requests))

    assert all(verdict.admitted for verdict in verdicts)
    fit = -(-MAX_KEYS // limits)
    assert server.calls("evalsha") == max(-(-callers // fit), 1 if callers <= MIN_BATCH else 2)


@pytest.mark.parametrize("first", [4, 10, 17, 30, 50])
async def test_no_call_takes_more_than_half(first: int) -> None:
    """Of callers who ask again when they are answered, no call takes most while the others take few, for good."""
    link = Held(free=False)
    served = line(link)

    async def ask_again_and_again() -> None:
        for _ in range(30):
            await served.ask(ready("a", 0))

    callers = [asyncio.create_task(ask_again_and_again()) for _ in range(first)]
    await turns()
    callers += [asyncio.create_task(ask_again_and_again()) for _ in range(64 - first)]
    for _ in range(40):
        await turns()
        link.go_on()
    assert max(len(call) for call in link.asked[20:]) <= 32

    link.let_all_go_on()
    await asyncio.gather(*callers)
    assert sum(len(call) for call in link.asked) == 64 * 30


@dataclass
class Closing(Held):
    """A link whose server closes the connection after each call."""

    opened: int = 0

    async def open(self) -> None:
        self.is_open, self.opened = True, self.opened + 1

    async def ask(self, questions: Sequence[Question]) -> list[Verdict | Exception | None]:
        assert self.is_open, "asked by a connection that is closed"
        verdicts = await super().ask(questions)
        self.is_open = False
        return verdicts


async def test_a_server_that_closes_between_two_calls_fails_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever was not asked by a connection that is closed is asked by the next one."""
    monkeypatch.setattr(batching, "MAX_CALLS", 1)
    link = Closing()
    served = line(link)
    verdicts = await asyncio.gather(*(served.ask(ready(f"k{index}")) for index in range(40)))
    assert all(verdict.admitted for verdict in verdicts)
    assert link.opened == len(link.asked) - 1 > 1


@dataclass
class Opening(Held):
    """A link that takes a while to connect."""

    is_open: bool = False
    opened: int = 0

    async def open(self) -> None:
        self.opened += 1
        await turns()
        self.is_open = True

    def close(self) -> None:
        self.is_open = False
        super().close()


@pytest.mark.parametrize("gap", [1, 8])
async def test_no_more_calls_than_may_be_under_way(gap: int) -> None:
    """However requests and accounts come, one connection is opened for all of them, and few calls are under way."""
    link = Opening(free=False)
    served = line(link)
    asked = []
    for number in range(60):
        asked.append(served.ask(ready(f"k{number}")))
        served.tell(ready(f"told-{number}", settles=True))
        await turns(gap)
    await turns(20)
    assert (link.opened, len(link.turns)) == (1, MAX_CALLS)
    link.go_on()
    await turns(20)
    assert len(link.turns) == MAX_CALLS

    link.let_all_go_on()
    assert all(verdict.admitted for verdict in await asyncio.gather(*asked))
    await served.settled()
    assert (link.opened, sum(map(len, link.asked))) == (1, 120)


async def test_a_connection_that_is_lost_is_opened_anew_once() -> None:
    """Where a connection is lost with several calls on it, who waits behind them is asked by one that is new."""
    link = Opening(free=False)
    served = line(link)
    asked = []
    for number in range(60):
        asked.append(served.ask(ready(f"k{number}")))
        await turns(8)
    assert len(link.turns) == MAX_CALLS
    lost = sum(map(len, link.asked))
    link.free = True
    link.go_on(OSError("gone"))
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailableError] * lost + [Verdict] * (60 - lost)
    await served.settled()
    assert (link.opened, link.dropped) == (2, 1)


async def test_one_key_is_decided_in_order_of_arrival(store: RedisStore) -> None:
    """Of requests for one bucket in one call, those that came first are admitted, each with what was then left."""
    verdicts = await asyncio.gather(*(store.admit(ask("a", 2 if index == 1 else 1)) for index in range(7)))

    assert [verdict.admitted for verdict in verdicts] == [True] * 4 + [False] * 3
    assert [verdict.readings[0].remaining for verdict in verdicts] == [4, 2, 1, 0, 0, 0, 0]


@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=60))
@example(sizes=[0] * 60)
@example(sizes=[40] * 60)
@example(sizes=[1000, 1, 1000])
def test_a_batch_is_bounded(sizes: list[int]) -> None:
    """No call has more keys than allowed before its last request, and all requests are asked once, in order."""

    async def run() -> None:
        link = Held()
        served = line(link)
        asked = [
            question(Admission(tuple(Charge(VAST, f"{index}-{key}") for key in range(size))), "")
            for index, size in enumerate(sizes)
        ]
        verdicts = await asyncio.gather(*map(served.ask, asked))
        assert [len(verdict.readings) for verdict in verdicts] == sizes
        assert [each for batch in link.asked for each in batch] == asked
        for batch in link.asked:
            assert sum(len(each.keys) or 1 for each in batch[:-1]) < MAX_KEYS
        await served.settled()
        assert link.dropped == 0

    asyncio.run(run())


async def test_too_many_fail_at_once() -> None:
    """Where as many wait as may, the next fails at once and what is told is told later; the others are served."""
    link = Held(free=False)
    served = line(link)
    first = served.ask(ready("first"))
    await turns()
    waiting = [served.ask(ready(f"k{index}")) for index in range(MAX_WAITING)]

    with pytest.raises(StoreUnavailableError, match="too many") as caught:
        await served.ask(ready("late"))
    served.tell(ready("late", 2, settles=True))

    assert caught.value.retry_after > 0
    link.let_all_go_on()
    verdicts = await asyncio.gather(first, *waiting)
    assert len(verdicts) == MAX_WAITING + 1
    assert (await served.ask(ready("late"))).readings[0].remaining == 2


POISON: list[Any] = [
    pytest.param(Admission((Charge(SLOW, "p", -1),)), ValueError, id="a negative cost"),
    pytest.param(Admission((Charge(SLOW, "p", -1, binding=False),)), ValueError, id="a negative cost in shadow"),
    pytest.param(Admission((Charge(AT_ONCE, "p"),)), ValueError, id="no lease"),
    pytest.param(Admission((Charge(AT_ONCE, "p"),), None, "\ud800"), None, id="a lease that is no text"),
    pytest.param(Admission((Charge(SLOW, "\ud800"),), "\udfff"), None, id="names that are no text"),
    pytest.param(Admission((Charge(SLOW, "p", 10**30),)), None, id="a cost beyond all numbers"),
    pytest.param(Admission((Charge(SLOW, "p\0\r\n$1\r\n{", 1),), "\0\r\n"), None, id="names of control characters"),
    pytest.param(Admission((Charge(AT_ONCE, "p"),), None, '",\0]\r\n'), None, id="a lease of control characters"),
]


@pytest.mark.parametrize(("poison", "error"), POISON)
async def test_a_poisoned_request_is_its_own_error(
    server: Server, store: RedisStore, poison: Admission, error: type[Exception] | None
) -> None:
    """Whatever is wrong with a request, it alone fails, and those beside it are answered in the same call."""
    requests = [ask("a"), poison, ask("a", 2)]

    first, between, last = await asyncio.gather(*map(store.admit, requests), return_exceptions=True)

    assert isinstance(first, Verdict)
    assert isinstance(last, Verdict)
    assert (first.readings[0].remaining, last.readings[0].remaining) == (4, 2)
    assert isinstance(between, Verdict if error is None else error)
    assert server.calls("evalsha") + server.calls("eval") <= 2


async def test_what_is_told_after_a_request_is_decided_after_it(server: Server, store: RedisStore) -> None:
    """An account that is told while its request still waits is settled after it, in the same call."""

    async def tell() -> None:
        store.tell(Admission((Charge(SLOW, "a", -3),), settles=True))

    before, _, after = await asyncio.gather(store.admit(ask("a", 5)), tell(), store.admit(ask("a", 0)))

    assert [verdict.readings[0].remaining for verdict in (before, after)] == [0, 3]
    assert server.calls("evalsha") == 1


async def test_a_defect_fails_those_concerned_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A defect on the way fails whoever it concerns, closed, with one log line; the next requests are served."""
    link, breaker = Held(free=False), Breaker(threshold=1)
    served = line(link, breaker)
    asked = [served.ask(ready("a")) for _ in range(3)]
    served.tell(ready("a", 1, settles=True))
    await turns()

    link.go_on(IndexError("a defect"))
    results = await asyncio.gather(*asked, return_exceptions=True)

    assert [type(result) for result in results] == [IndexError] * 3
    assert [record.levelname for record in caplog.records if record.name == "asgi_guard"] == ["ERROR"]
    await served.settled()
    assert link.dropped == 1
    assert not breaker.is_open
    link.let_all_go_on()
    assert (await served.ask(ready("a"))).readings[0].remaining == 4


class Unfinished(Held):
    """A link that gives fewer answers than there are questions."""

    async def ask(self, questions: Sequence[Question]) -> list[Verdict | Exception | None]:
        return (await super().ask(questions))[:-1]


@pytest.mark.parametrize("callers", [1, 3])
async def test_a_missing_answer_leaves_nobody_waiting(callers: int, caplog: pytest.LogCaptureFixture) -> None:
    """Where answers are missing, whoever has none is told of the defect instead of waiting for it."""
    results = await asyncio.gather(
        *map(line(Unfinished()).ask, [ready(f"k{index}") for index in range(callers)]), return_exceptions=True
    )

    assert [type(result) for result in results] == [Verdict] * (callers - 1) + [ValueError]
    assert "asking the store failed" in caplog.text


class Selective(Held):
    """A link that cannot answer for one of the questions."""

    async def ask(self, questions: Sequence[Question]) -> list[Verdict | Exception | None]:
        verdicts = await super().ask(questions)
        return [verdicts[0], StoreUnavailableError("one node is gone"), *verdicts[2:]]


async def test_a_call_that_is_cancelled_before_it_begins(store: RedisStore) -> None:
    """Where all tasks are cancelled, as at the event loop's end, nobody waits on; the line serves again, or ends."""
    under_way = store._connected()
    future = under_way.ask(question(Admission((Charge(VAST, "k"),)), store.prefix))
    (call,) = under_way._calls
    assert call.cancel()
    await turns()
    assert future.cancelled()
    assert (await store.admit(Admission((Charge(VAST, "k"),)))).admitted
    await under_way.settled()

    later = under_way.ask(question(Admission((Charge(VAST, "k"),)), store.prefix))
    assert all(each.cancel() for each in under_way._calls)
    await under_way.settled()
    await turns()
    assert later.cancelled()


async def test_a_call_that_is_cancelled_under_way() -> None:
    """Where a call alone is cancelled nobody whom it asked for waits on, and who comes behind them is served."""
    link = Held(free=False)
    served = line(link)
    asked = [served.ask(ready("a")) for _ in range(3)]
    await turns()
    (call,) = served._calls
    behind = served.ask(ready("b"))
    assert call.cancel()
    await turns()
    assert all(each.cancelled() for each in asked)
    link.let_all_go_on()
    async with asyncio.timeout(PATIENCE):
        assert (await behind).admitted
        await served.settled()


async def test_an_error_of_one_is_no_error_of_all() -> None:
    """A link may fail some of the questions: they get its error, and the others their answers."""
    results = await asyncio.gather(*map(line(Selective()).ask, map(ready, "abc")), return_exceptions=True)

    assert [type(result) for result in results] == [Verdict, StoreUnavailableError, Verdict]


@settings(SHARING, max_examples=25)
@given(cancelled=st.sets(st.integers(0, 39)), when=st.integers(0, 12))
@example(cancelled=set(range(40)), when=0)
@example(cancelled=set(range(40)), when=2)
@example(cancelled=set(range(39)), when=4)
def test_whoever_is_cancelled_harms_nobody(valkey: Server, cancelled: set[int], when: int) -> None:
    """Any of the waiting may be cancelled at any point: the others get their own answers, on the same connection."""
    valkey.client.flushall()

    async def run() -> None:
        store = valkey.store()
        await store.admit(ask("other", 0))
        before = valkey.client.info("stats")["total_connections_received"]
        tasks = [asyncio.create_task(store.admit(ask(f"k{index}", index % 6))) for index in range(40)]
        await turns(when)
        for index in cancelled:
            tasks[index].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for index, result in enumerate(results):
            if isinstance(result, asyncio.CancelledError):
                assert index in cancelled
            else:
                assert isinstance(result, Verdict)
                assert result.readings[0].remaining == 5 - index % 6
        for index in range(40):
            left = (await store.admit(ask(f"k{index}", 0))).readings[0].remaining
            assert left == 5 - index % 6 or (index in cancelled and left == 5)
        await store.aclose()
        assert valkey.client.info("stats")["total_connections_received"] == before

    asyncio.run(run())
