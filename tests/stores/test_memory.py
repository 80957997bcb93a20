"""What holds for the store in memory alone: its bound, its clock, and its agreement with the policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asgi_guard.errors import ConfigError
from asgi_guard.policy.bucket import Admission, Charge, Verdict, decide
from asgi_guard.policy.rates import SECOND, Limit
from asgi_guard.policy.revocation import Marks
from asgi_guard.stores import MemoryStore
from tests.stores.server import ask, full_at, limit

if TYPE_CHECKING:
    from typing import TypeAlias

DAY = 86_400 * SECOND
PER_SECOND = limit("1/second burst 4 by ip")


class Clock:
    """A clock that stands where it is put."""

    def __init__(self, now: int = 1_800_000_000 * SECOND) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def make(max_keys: int = 100_000, now: int = 0) -> tuple[MemoryStore, Clock]:
    clock = Clock(now)
    return MemoryStore(max_keys=max_keys, clock=clock), clock


def remaining(store: MemoryStore, key: str, rule: Limit = PER_SECOND) -> int:
    return store.decide(ask(key, 0, rule)).readings[0].remaining


@pytest.mark.parametrize("max_keys", [0, -1])
def test_room_for_nothing(max_keys: int) -> None:
    """A store that could hold nothing is refused when it is made."""
    with pytest.raises(ConfigError, match=f"^max_keys: {max_keys} is no number of buckets"):
        MemoryStore(max_keys=max_keys)


@pytest.mark.parametrize("max_keys", [1, 2, 7, 100])
def test_never_more_buckets_than_allowed(max_keys: int) -> None:
    """However many clients come, no more buckets are held than `max_keys`."""
    store, clock = make(max_keys)
    for index in range(1000):
        assert store.decide(ask(f"k{index}", 1, PER_SECOND)).admitted
        clock.now += index % 3
        assert len(store) <= max_keys
    assert len(store) == max_keys


def test_one_request_with_more_buckets_than_there_is_room_for() -> None:
    """A request that needs more buckets than are held is decided all the same, within the bound."""
    store, _ = make(2)

    verdict = store.decide(Admission(tuple(Charge(PER_SECOND, f"k{index}") for index in range(5))))

    assert verdict.admitted
    assert len(store) == 2


def test_full_buckets_leave_first() -> None:
    """Where there is no room, a bucket that has become full leaves, and no client gets a unit more by it."""
    store, clock = make(8)
    for index in range(4):
        store.decide(ask(f"spent{index}", 4, PER_SECOND))
    clock.now += 3 * SECOND
    for index in range(4):
        store.decide(ask(f"fresh{index}", 4, PER_SECOND))
    clock.now += SECOND  # the spent ones have become full, the fresh ones have one unit
    for index in range(4):
        store.decide(ask(f"new{index}", 4, PER_SECOND))

    assert [remaining(store, f"fresh{index}") for index in range(4)] == [1] * 4
    assert [remaining(store, f"new{index}") for index in range(4)] == [0] * 4


def test_the_fullest_leaves_where_none_is_full() -> None:
    """Where no bucket is full, of those compared the one that is the nearest to it leaves."""
    store, _ = make(4)
    for key, cost in (("a", 4), ("b", 1), ("c", 3), ("d", 2)):
        store.decide(ask(key, cost, PER_SECOND))

    store.decide(ask("e", 4, PER_SECOND))

    assert [remaining(store, key) for key in "acde"] == [0, 1, 2, 0]
    assert remaining(store, "b") == 4


def test_a_flood_of_new_clients_does_not_free_those_that_are_over() -> None:
    """Clients with a single request each push each other out, not those that have spent everything."""
    store, _ = make(50)
    store.decide(ask("greedy", 4, PER_SECOND))
    for index in range(5000):
        store.decide(ask(f"k{index}", 1, PER_SECOND))

    assert not store.decide(ask("greedy", 1, PER_SECOND)).admitted


def test_full_buckets_are_swept_away_by_later_requests() -> None:
    """Buckets that have become full are forgotten as new clients come, a few with each."""
    store, clock = make()
    for index in range(100):
        store.decide(ask(f"k{index}", 1, PER_SECOND))
    assert len(store) == 100
    clock.now += SECOND

    for index in range(60):
        store.decide(ask(f"new{index}", 1, PER_SECOND))

    assert len(store) == 60
    assert not any(key.startswith("k") for key in full_at(store))


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    """While the clock stands before where it stood, a spent bucket stays spent, for its capacity at most."""
    store, clock = make(now=DAY)
    store.decide(ask("a", 4, PER_SECOND))
    clock.now -= DAY

    reading = store.decide(ask("a", 1, PER_SECOND)).readings[0]

    assert (reading.remaining, reading.reset, reading.wait) == (0, 4 * SECOND, SECOND)


def test_a_clock_that_goes_back_is_healed() -> None:
    """After the clock has gone back a day, a client is admitted again when its bucket allows, not a day later."""
    store, clock = make(now=DAY)
    store.decide(ask("a", 4, PER_SECOND))
    clock.now -= DAY
    assert not store.decide(ask("a", 1, PER_SECOND)).admitted
    clock.now += SECOND

    assert store.decide(ask("a", 1, PER_SECOND)).admitted
    assert not store.decide(ask("a", 1, PER_SECOND)).admitted


def test_a_gap_of_ten_years() -> None:
    """After ten years without a request, a bucket is full, and no fuller."""
    store, clock = make()
    store.decide(ask("a", 4, PER_SECOND))
    clock.now += 3652 * DAY

    assert [store.decide(ask("a", 1, PER_SECOND)).admitted for _ in range(6)] == [True] * 4 + [False] * 2


def test_a_unit_comes_back_to_the_microsecond() -> None:
    """A charge is refused until the very microsecond that the refusal named."""
    store, clock = make()
    store.decide(ask("a", 4, PER_SECOND))
    clock.now += 1
    wait = store.decide(ask("a", 2, PER_SECOND)).readings[0].wait
    assert wait == 2 * SECOND - 1

    clock.now += wait - 1
    assert not store.decide(ask("a", 2, PER_SECOND)).admitted
    clock.now += 1
    assert store.decide(ask("a", 2, PER_SECOND)).admitted


def test_what_is_settled_is_charged_or_given_back() -> None:
    """A bucket is charged afterwards whatever is left in it, and given back to, up to what it holds when it is full."""
    store, clock = make(now=SECOND)

    def settle(cost: int, *, settles: bool = True) -> int:
        store.tell(Admission((Charge(PER_SECOND, "a", cost),), settles=settles))
        return remaining(store, "a")

    assert settle(-1) == 4
    assert len(store) == 0  # a bucket that is full is none
    assert [settle(cost) for cost in (1, 2, -1, 9, -1, -9)] == [3, 1, 2, 0, 1, 4]
    assert [settle(cost, settles=False) for cost in (3, 3, 1)] == [1, 1, 0]
    clock.now += SECOND
    assert settle(0) == 1
    assert len(store) == 1


def test_where_nothing_is_revoked_no_token_is() -> None:
    """A store that was told of no revocation knows of none, by whatever a token is looked up."""
    store, _ = make()
    assert store.decide(Admission((), "t")) == Verdict(True, (), False)
    assert store.decide(Admission((), None, marks=Marks("session", "subject", 1))) == Verdict(True, (), False)


async def test_a_revocation_ends_to_the_microsecond() -> None:
    """A token is among the revoked for its `ttl`, and not after."""
    store, clock = make()
    await store.revoke("t", 2.5)
    clock.now += 2_499_999
    assert store.decide(Admission((), "t")) == Verdict(True, (), True)
    clock.now += 1
    assert store.decide(Admission((), "t")) == Verdict(True, (), False)


async def test_revocations_are_bounded_and_the_ended_leave_first(caplog: pytest.LogCaptureFixture) -> None:
    """Without room for a revocation, those that have ended leave, else the one that ends first, and that is told."""
    store, clock = make(3)
    for name, ttl in (("short", 1), ("middle", 10), ("long", 100)):
        await store.revoke(name, ttl)
    clock.now += 2 * SECOND
    await store.revoke("new", 50)
    assert await _revoked(store, "short", "middle", "long", "new") == ["middle", "long", "new"]
    assert caplog.messages == []

    await store.revoke("newer", 60)

    assert await _revoked(store, "short", "middle", "long", "new", "newer") == ["long", "new", "newer"]

    await store.revoke("newer", 70)  # it has its room already

    assert await _revoked(store, "long", "new", "newer") == ["long", "new", "newer"]

    await store.revoke("newest", 80)
    (message,) = caplog.messages
    assert "3 revocations are held in memory" in message


async def test_there_is_never_more_room_for_revocations_than_is_said() -> None:
    """The one that would be too many takes the place of another at once."""
    store, _ = make(1)
    for name, ttl in (("a", 10), ("b", 20)):
        await store.revoke(name, ttl)
        assert await _revoked(store, "a", "b") == [name]


def test_buckets_beside_requests_at_once_leave_when_they_are_full() -> None:
    """Where each request counts as under way, too, what has become full makes room as others come."""
    store, clock = make()
    at_once = Limit("at-once", "", "ip", SECOND, 1000, at_once=True)

    def enter(name: str, cost: int = 1) -> bool:
        charges = Charge(PER_SECOND, name, cost), Charge(at_once, "all")
        return store.decide(Admission(charges, lease=name)).admitted

    assert all(enter(f"early {number}") for number in range(100))
    clock.now += 10 * SECOND
    assert all(enter(f"late {number}") for number in range(60))
    assert len(store) == 60
    assert enter("free", 0)
    assert len(store) == 60


async def _revoked(store: MemoryStore, *names: str) -> list[str]:
    return [name for name in names if (await store.admit(Admission((), name))).revoked]


RULES = (
    PER_SECOND,
    limit("3/second burst 1 by ip"),  # an interval that does not divide a second
    limit("100000/second burst 7 by ip"),
    limit("1/day burst 300 by user"),
)
Step: TypeAlias = "tuple[int, list[tuple[str, int, int]]]"
"""Microseconds that pass, then a request: keys, each with the index of a rule and a cost."""
STEPS = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 3), st.integers(0, 3 * SECOND), st.sampled_from([DAY, 400 * DAY])),
        st.lists(
            st.tuples(st.sampled_from("abc"), st.integers(0, len(RULES) - 1), st.integers(0, 8)),
            min_size=1,
            max_size=3,
            unique_by=lambda charge: charge[0],
        ),
    ),
    max_size=60,
)


@settings(max_examples=200)
@given(steps=STEPS)
@example(steps=[(0, [("a", 3, 300)]), (0, [("a", 0, 1)]), (SECOND, [("a", 0, 1)])])
@example(steps=[(0, [("a", 0, 4), ("b", 0, 4)]), (0, [("a", 0, 1), ("c", 0, 1)]), (0, [("c", 0, 4)])])
def test_the_transcript_is_the_policys(steps: list[Step]) -> None:
    """Any sequence of requests gets from the store the very answers that the policy gives from complete memory."""
    store, clock = make()
    states: dict[str, int] = {}
    for passed, asked in steps:
        clock.now += passed
        charges = tuple(Charge(RULES[rule], key, cost) for key, rule, cost in asked)
        admitted, after, readings = decide(charges, [states.get(charge.key, 0) for charge in charges], clock.now)
        for charge, state in zip(charges, after, strict=True):
            states[charge.key] = min(state, clock.now + charge.limit.capacity)

        assert store.decide(Admission(charges)) == Verdict(admitted, readings)


@settings(max_examples=100)
@given(steps=STEPS, max_keys=st.integers(1, 4))
def test_readings_stay_within_bounds_where_there_is_no_room(steps: list[Step], max_keys: int) -> None:
    """A store with little room holds no more than it may, and its readings stay within their limits."""
    small, clock = make(max_keys)
    for passed, asked in steps:
        clock.now += passed
        charges = tuple(Charge(RULES[rule], key, cost) for key, rule, cost in asked)
        verdict = small.decide(Admission(charges))

        assert len(small) <= max_keys
        for charge, reading in zip(charges, verdict.readings, strict=True):
            assert 0 <= reading.remaining <= charge.limit.burst
            assert 0 <= reading.reset <= charge.limit.capacity
            assert (reading.wait is None) == (charge.cost > charge.limit.burst)


@given(gaps=st.lists(st.integers(0, 2 * SECOND), max_size=200))
def test_never_more_than_burst_and_rate(gaps: list[int]) -> None:
    """Over any time, no more is admitted than the burst and what has come back since."""
    store, clock = make()
    admitted = 0
    for gap in gaps:
        clock.now += gap
        admitted += store.decide(ask("a", 1, PER_SECOND)).admitted
        assert admitted <= PER_SECOND.burst + clock.now // PER_SECOND.interval
