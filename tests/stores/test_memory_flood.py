"""The store in memory against someone with more addresses than it has room for.

What holds: the memory is bounded. A bucket that is not full is let go only where there is no room, and only if none of
the buckets that it is compared with becomes full sooner. So a bucket that needs longer than all others to become full
is never let go, whoever comes; and what an eviction gives away is never more than the fullest of those compared lacks.
"""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.policy.bucket import Admission, Charge
from asgi_guard.policy.rates import SECOND, Limit
from asgi_guard.stores import MemoryStore
from asgi_guard.stores.memory import EVICT
from tests.stores.server import SLOW, ask, full_at, limit
from tests.stores.test_memory import Clock, make

PER_SECOND = limit("1/second burst 4 by ip")


def lacking(store: MemoryStore, key: str, rule: Limit) -> int:
    """Microseconds until a bucket is full."""
    return store.decide(ask(key, 0, rule)).readings[0].reset


def spend(store: MemoryStore, key: str, rule: Limit, cost: int) -> bool:
    return store.decide(ask(key, cost, rule)).admitted


def settle(store: MemoryStore, key: str, rule: Limit, cost: int) -> None:
    store.tell(Admission((Charge(rule, key, cost),), settles=True))


def test_a_flood_of_spent_addresses_is_bounded_and_frees_no_slower_bucket() -> None:
    """However many addresses spend all they may, no more are held than allowed, and a slow bucket stays spent."""
    store, clock = make(500)
    assert spend(store, "slow", SLOW, 5)
    for index in range(20_000):
        assert spend(store, f"k{index}", PER_SECOND, 4)
        if index % 10 == 0:
            clock.now += 50_000
            assert not spend(store, "slow", SLOW, 1)
        assert len(store) <= 500
        assert len(full_at(store)) == len(store)
    assert lacking(store, "slow", SLOW) == SLOW.capacity - clock.now


FLOOD = st.lists(
    st.tuples(st.integers(0, 30), st.integers(-4, 4), st.booleans(), st.one_of(st.just(0), st.integers(0, SECOND))),
    max_size=80,
)


@given(max_keys=st.integers(2, 12), flood=FLOOD)
@example(max_keys=2, flood=[(index, 4, True, 0) for index in range(30)])
@example(max_keys=9, flood=[(index % 13, 4, index % 2 == 0, 1) for index in range(80)])
def test_the_emptiest_bucket_is_never_let_go(max_keys: int, flood: list[tuple[int, int, bool, int]]) -> None:
    """Whatever others spend, are charged or get back, the bucket that needs the longest stays as it is, to the unit."""
    store, clock = make(max_keys)
    spent = SLOW.burst
    assert spend(store, "slow", SLOW, spent)
    for index, cost, account, passed in flood:
        clock.now += passed
        if account:
            settle(store, f"k{index}", PER_SECOND, cost)
        else:
            spend(store, f"k{index}", PER_SECOND, abs(cost))
        assert len(store) <= max_keys
        assert len(full_at(store)) == len(store)
    assert lacking(store, "slow", SLOW) == spent * SLOW.interval - clock.now


@given(costs=st.lists(st.integers(1, 4), min_size=1, max_size=EVICT), passed=st.integers(0, 5 * SECOND))
@example(costs=[4, 4, 1, 4], passed=SECOND)
@example(costs=[4, 3, 2], passed=0)
def test_an_eviction_gives_away_the_least(costs: list[int], passed: int) -> None:
    """Of the buckets that are compared the one that becomes full the soonest leaves, and no other changes."""
    store, clock = make(len(costs))
    for index, cost in enumerate(costs):
        assert spend(store, f"k{index}", PER_SECOND, cost)
    clock.now += passed
    before = {index: max(0, cost * PER_SECOND.interval - passed) for index, cost in enumerate(costs)}

    # Settling looks at no other bucket, so this makes room by eviction alone.
    settle(store, "new", PER_SECOND, 4)

    assert len(store) == len(costs)
    after = {index: max(0, full_at(store).get(f"k{index}", 0) - clock.now) for index in before}
    changed = [index for index in before if f"k{index}" not in full_at(store)]
    assert [before[index] for index in changed] == [min(before.values())]
    assert {index: after[index] for index in before if index not in changed} == {
        index: before[index] for index in before if index not in changed
    }


def test_accounts_are_bounded_too() -> None:
    """Accounts of any number of addresses hold no more buckets than allowed, and of those given back nothing stays."""
    store, clock = make(50)
    for index in range(1000):
        settle(store, f"k{index}", PER_SECOND, 3)
        assert len(store) <= 50
    for index in range(1000):
        settle(store, f"k{index}", PER_SECOND, -4)
    assert lacking(store, "k999", PER_SECOND) == 0
    for index in range(30):
        store.decide(ask(f"new{index}", 1, PER_SECOND))
    assert len(store) == 30
    assert clock.now == 0


def test_an_account_of_a_full_bucket_is_no_bucket() -> None:
    """Giving back to a bucket that is full, and taking nothing, hold nothing."""
    store = MemoryStore(clock=Clock())
    settle(store, "a", PER_SECOND, -1)
    settle(store, "b", PER_SECOND, 0)
    assert len(store) == 0
    store.tell(ask("c", 0, PER_SECOND))
    assert len(store) == 0
    store.tell(ask("c", 1, PER_SECOND))
    assert len(store) == 1
