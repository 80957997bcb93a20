"""What accounts say that the store is told late, of charges that a bucket has partly got back by itself."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ResponseError

from asgi_guard.policy.bucket import Admission, Charge
from asgi_guard.policy.rates import SECOND
from asgi_guard.stores.owed import Account, Owed
from asgi_guard.stores.wire import encode, question
from tests.faults.test_owed import AT_ONCE, left, over
from tests.faults.test_probes import failed, opened
from tests.stores.held import Held, line, ready, turns
from tests.stores.server import SLOW, limit

if TYPE_CHECKING:
    from tests.clock import Clock


@pytest.mark.parametrize(
    ("cost", "late", "remaining"),
    [(2, 0, 1), (2, 3600, 1), (2, 5 * 3600, 3), (-2, 0, 5), (-2, 1, 4), (-2, 3600, 4), (-2, 3601, 3), (-2, 9999, 3)],
)
async def test_what_comes_late(clock: Clock, cost: int, late: int, remaining: int) -> None:
    """Units given back late are fewer by those that came back by themselves; a bucket long full is charged nothing."""
    link, breaker = Held(), opened()
    served = line(link, breaker)
    await failed(served, link)
    served.tell(over("a", cost))
    clock.now += late
    link.memory.decide(Admission((Charge(SLOW, "rate", 2),)))  # whose clock is another
    link.free = True
    served.works()
    await served.settled()
    assert left(link.memory) == (remaining, 2)


SEVERAL = (
    Charge(SLOW, "rate", 2),
    Charge(AT_ONCE, "way", 2),
    Charge(limit("10/second burst 20 by ip"), "quick", 3),
    Charge(SLOW, "back", -2, binding=False),
    Charge(AT_ONCE, "another way", 2),
)


WAYS = {"way": 0, "another way": 0}


@pytest.mark.parametrize(
    ("late", "sent", "expected"),
    [
        (0, False, {"rate": 7200, "quick": 0.3, "back": -7200}),
        (1, False, {"rate": 7200, "quick": 0.3, "back": -7199}),
        (2, False, {"rate": 7200, "back": -7198}),
        (7199, False, {"rate": 7200, "back": -1}),
        (7200, False, {"rate": 7200}),
        (5 * 3600 - 1, False, {"rate": 7200}),
        (5 * 3600, False, {}),
        (0, True, {}),
        (1, True, {}),
    ],
)
async def test_what_an_account_that_comes_late_says(
    clock: Clock, late: int, sent: bool, expected: dict[str, float]
) -> None:
    """Of an account that comes late each charge that is left is told with its own key, and seconds, and no other."""
    owed = Owed()
    owed.add(Account(clock.now, question(Admission(SEVERAL, lease="a", settles=True), "p:")), sent=sent)
    clock.now += late
    taken = owed.take()
    assert taken is not None
    told, _ = taken
    assert told == question(told.request, "p:")
    seconds = {charge.key: 0 if charge.limit.at_once else charge.advance / SECOND for charge in told.request.charges}
    assert seconds == expected | WAYS


@pytest.mark.parametrize("sent", [True, False])
async def test_an_account_of_which_nothing_is_left(clock: Clock, sent: bool) -> None:
    """An account that has nothing left to say is told nobody, and the next one is."""
    owed = Owed()
    owed.add(Account(clock.now, ready("long full", settles=True)), sent=sent)
    clock.now += 6 * 3600
    owed.add(Account(clock.now, over("next", 0)))
    assert len(owed) == 2 - sent
    taken = owed.take()
    assert taken is not None
    assert taken[0].request.lease == "next"
    assert owed.take() is None


@pytest.mark.parametrize(("cost", "pause", "remaining"), [(-3, 1, 3), (-3, 1200, 3), (2, 1, 1), (2, 2 * 3600, 3)])
async def test_what_is_tried_several_times(clock: Clock, cost: int, pause: int, remaining: int) -> None:
    """However often an account is tried, what it gives back or charges goes by its age, each second counted once."""
    link, breaker = Held(free=False), opened()
    served = line(link, breaker)
    served.tell(over("a", cost))
    for _ in range(3):
        await turns()
        link.go_on(ResponseError("LOADING the dataset"))
        await served.settled()
        clock.now += pause
        breaker.succeeded()
        served._remind()
    link.memory.decide(Admission((Charge(SLOW, "rate", 4 if cost < 0 else 2),)))  # whose clock is another
    link.let_all_go_on()
    await served.settled()
    assert left(link.memory) == (remaining, 2)


async def test_more_than_all_is_given_back_late(clock: Clock) -> None:
    """A cost beyond all numbers, kept for later, is one that the server can be told."""
    link, breaker = Held(), opened()
    served = line(link, breaker)
    await failed(served, link)
    for number, cost in enumerate((-sys.maxsize, sys.maxsize)):
        served.tell(over(f"{number}", cost))
    clock.now += 1
    link.asked.clear()
    link.free = True
    served.works()
    await served.settled()
    (batch,) = link.asked
    assert encode(batch)
