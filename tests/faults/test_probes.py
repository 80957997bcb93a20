"""Who may ask while the breaker is open, and that nothing leaves it, or those who wait, stuck."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from asgi_guard.errors import StoreUnavailableError
from asgi_guard.policy.breaker import Breaker
from asgi_guard.policy.bucket import Verdict
from asgi_guard.stores.batching import MAX_CALLS, Line
from tests.laws import SHARING
from tests.stores.held import Held, line, ready, turns
from tests.stores.server import PATIENCE

if TYPE_CHECKING:
    from asgi_guard.stores.wire import Question
    from tests.clock import Clock


def opened() -> Breaker:
    """A breaker that opens at the first failure, for ten seconds."""
    return Breaker(threshold=1, first_wait=10, max_wait=1000)


async def failed(served: Line, link: Held) -> None:
    """Have a call fail, so that the breaker opens."""
    link.free = False
    asked = served.ask(ready("failed"))
    await turns()
    link.go_on(OSError("gone"))
    with pytest.raises(StoreUnavailableError):
        await asked
    await served.settled()
    assert len(link.asked) == 1


async def refused(served: Line, number: int = 3) -> None:
    """See that nobody may ask."""
    for _ in range(number):
        with pytest.raises(StoreUnavailableError, match="is not asked"):
            await served.ask(ready("refused"))


async def test_one_probes_and_the_others_do_not(clock: Clock) -> None:
    """When the breaker's wait is over one request asks, the others fail at once, and its answer lets all ask again.

    What was told meanwhile is told then.
    """
    link, breaker = Held(), opened()
    served = line(link, breaker)
    await failed(served, link)
    await refused(served)
    served.tell(ready("told", 5, settles=True))
    clock.now += 10

    probe = served.ask(ready("probe"))
    await turns()
    await refused(served)
    assert len(link.asked) == 2

    link.let_all_go_on()
    assert (await probe).admitted
    assert not breaker.is_open
    verdicts = await asyncio.gather(*(served.ask(ready("all")) for _ in range(5)), served.ask(ready("told", 0)))
    assert [verdict.readings[0].remaining for verdict in verdicts] == [4, 3, 2, 1, 0, 0]


async def test_a_probe_that_fails_makes_the_wait_longer(clock: Clock) -> None:
    """A probe that is not answered, and no other failure, makes the wait twice as long; then one may probe again."""
    link, breaker = Held(), opened()
    served = line(link, breaker)
    await failed(served, link)
    clock.now += 10
    probe = served.ask(ready("probe"))
    await turns()
    link.go_on(OSError("still gone"))
    with pytest.raises(StoreUnavailableError) as caught:
        await probe
    assert caught.value.retry_after == 20
    served.fails(OSError("what was under way is lost as well"))
    assert breaker.retry_after(clock.now) == 20
    clock.now += 19.9
    await refused(served)
    clock.now += 0.1
    link.free = True
    assert (await served.ask(ready("probe"))).admitted
    assert not breaker.is_open


@pytest.mark.parametrize("sent", [False, True], ids=["before it is sent", "when it is sent"])
@pytest.mark.parametrize(
    "answer", [None, OSError("gone"), IndexError("a defect")], ids=["answered", "lost", "a defect"]
)
async def test_a_cancelled_probe_leaves_no_breaker_stuck(clock: Clock, sent: bool, answer: Exception | None) -> None:
    """Whenever the probe's caller leaves, and whatever becomes of it, the next probe closes the breaker."""
    link, breaker = Held(), opened()
    served = line(link, breaker)
    await failed(served, link)
    clock.now += 10
    probe = served.ask(ready("probe"))
    if sent:
        await turns()
    assert probe.cancel()
    await turns()
    assert len(link.asked) == 1 + sent
    link.go_on(answer)
    await served.settled()

    assert breaker.is_open is not (sent and answer is None)
    link.free = True
    if breaker.is_open:
        await refused(served)
        clock.now += 20
    assert (await served.ask(ready("a"))).admitted
    assert not breaker.is_open


async def test_a_probe_that_finds_no_room_leaves_no_breaker_stuck(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A probe that cannot even wait fails as any other, and the next one may probe after the wait."""
    monkeypatch.setattr("asgi_guard.stores.batching.MAX_WAITING", 2)
    link, breaker = Held(free=False), opened()
    served = line(link, breaker)
    first = served.ask(ready("first"))
    await turns()
    waiting = [served.ask(ready("waiting")) for _ in range(2)]
    served.fails(OSError("a ping was not answered"))
    clock.now += 10
    with pytest.raises(StoreUnavailableError, match="too many"):
        await served.ask(ready("probe"))
    for each in (first, *waiting):
        each.cancel()
    link.free = True
    link.go_on(TimeoutError())
    await served.settled()
    assert breaker.is_open
    await refused(served)

    clock.now += 20
    assert (await served.ask(ready("a"))).admitted
    assert not breaker.is_open


async def test_a_connection_that_is_lost_is_one_failure() -> None:
    """However many calls are under way on a connection that is lost, and fail, the breaker counts one failure."""
    link, breaker = Held(free=False), Breaker(threshold=2, first_wait=600, max_wait=600)
    served = line(link, breaker)
    for more in (0, 1):
        asked = []
        for _ in range(MAX_CALLS):
            asked.append(served.ask(ready("a")))
            await turns()
        assert len(link.turns) == MAX_CALLS
        link.go_on(OSError("gone"))
        failures = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(failure) for failure in failures] == [StoreUnavailableError] * MAX_CALLS
        await served.settled()
        assert (link.dropped, breaker.is_open) == (1 + more, bool(more))


@pytest.mark.parametrize("who", ["a request", "a request whose caller left", "a renewal"])
async def test_whoever_is_not_answered_counts(who: str) -> None:
    """A call that is not answered in time is one failure, whether or not anybody waits for it, and is given up."""
    link, breaker = Held(free=False), Breaker(threshold=2, first_wait=600, max_wait=600)
    served, defects = Line(link, breaker, 0.05), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: defects.append(context))
    for more in (0, 1):
        if who == "a renewal":
            served.tell(ready("a"))
        else:
            asked = served.ask(ready("a"))
            await turns()
            if who == "a request":
                with pytest.raises(StoreUnavailableError, match="TimeoutError"):
                    await asked
            else:
                asked.cancel()
        async with asyncio.timeout(PATIENCE):
            await served.settled()
        assert (link.dropped, breaker.is_open) == (1 + more, bool(more))
    await asyncio.sleep(0.05)
    assert defects == []


ENDS: dict[str, Exception | None] = {
    "answer": None,
    "refuse": ResponseError("no"),
    "hang up": OSError("gone"),
    "defect": IndexError("a defect"),
}
ACTIONS = st.lists(
    st.tuples(st.sampled_from(["ask", "ask", "tell", "cancel", *ENDS, "turns", "later"]), st.integers(0, 12)),
    max_size=40,
)


class History:
    """What was asked of a line, and what became of it."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.link, self.breaker = Held(free=False), opened()
        self.line = line(self.link, self.breaker)
        self.asked: list[tuple[Question, asyncio.Future[Verdict]]] = []
        self.taken_back: list[Question] = []

    @property
    def sent(self) -> list[Question]:
        return [each for batch in self.link.asked for each in batch if not each.request.settles]

    def ask(self, number: int) -> None:
        for _ in range(number + 1):
            each = ready(f"k{len(self.asked)}")
            try:
                self.asked.append((each, self.line.ask(each)))
            except StoreUnavailableError:
                assert self.breaker.is_open

    def cancel(self, number: int) -> None:
        if self.asked:
            each, future = self.asked[number % len(self.asked)]
            if future.cancel() and each not in self.sent:
                self.taken_back.append(each)

    async def act(self, what: str, number: int) -> None:
        if what == "ask":
            self.ask(number)
        elif what == "tell":
            self.line.tell(ready("told", 1, settles=True))
        elif what == "cancel":
            self.cancel(number)
        elif what == "turns":
            await turns(number)
        elif what == "later":
            self.clock.now += number
        else:
            self.link.go_on(ENDS[what])


@settings(SHARING, max_examples=150)
@given(actions=ACTIONS)
@example(actions=[("ask", 0), ("turns", 4), ("refuse", 0), ("turns", 4), ("later", 10), ("ask", 1), ("cancel", 1)])
@example(actions=[("ask", 3), ("turns", 4), ("cancel", 0), ("cancel", 2), ("defect", 0), ("ask", 0), ("turns", 1)])
@example(actions=[("ask", 0), ("cancel", 0), ("turns", 9), ("tell", 0), ("turns", 4), ("hang up", 0), ("ask", 0)])
@example(actions=[("ask", 0), ("turns", 4), ("ask", 0), ("turns", 4), ("hang up", 0), ("ask", 9), ("answer", 0)])
def test_no_history_leaves_a_line_stuck(clock: Clock, actions: list[tuple[str, int]]) -> None:
    """Whoever leaves and whatever fails, each is asked once at most, in order, and told, and the line serves on."""

    async def run() -> None:
        clock.now += 10_000
        history = History(clock)
        served = history.line
        for what, number in actions:
            await history.act(what, number)
        history.link.let_all_go_on()
        await served.settled()

        for _, future in history.asked:
            assert future.cancelled() or isinstance(future.exception(), StoreUnavailableError | IndexError | None)
        sent = history.sent
        assert sent == [each for each, _ in history.asked if each in sent]
        assert not any(each in sent for each in history.taken_back)
        clock.now += 2000
        assert (await served.ask(ready("after"))).readings[0].remaining == 4
        assert not history.breaker.is_open
        await served.settled()

    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE):
            await run()

    asyncio.run(bounded())
