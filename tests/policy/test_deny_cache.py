"""What is remembered of refusals: it refuses only what the store would refuse, and only as long."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asgi_guard.policy.bucket import Admission, Charge, Reading, Verdict
from asgi_guard.policy.deny_cache import DenyCache
from asgi_guard.policy.rates import LEASE, SECOND, Limit
from asgi_guard.stores import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

RULE = Limit("user", "", "user", SECOND, 3)
RULES = (RULE, Limit("quick", "", "user", 7, 5), Limit("slow", "", "user", 10 * SECOND + 1, 2))
AT_ONCE = Limit("at-once", "", "user", LEASE, 1, at_once=True)
HOUR = 3600 * SECOND


class Asked:
    """A store with a deny cache before it, as the layer has it, on one clock."""

    def __init__(self, life: int = HOUR, size: int = 10_000) -> None:
        self.now = SECOND
        self.store = MemoryStore(clock=lambda: self.now)
        self.cache = DenyCache(life, size)

    def ask(self, *charges: Charge, lease: str = "") -> Verdict:
        """What the store says; what it refuses is noted."""
        verdict = self.store.decide(Admission(charges, lease=lease))
        if not verdict.admitted:
            self.cache.note(charges, verdict, self.now)
        return verdict

    def known(self, *charges: Charge) -> Verdict | None:
        return self.cache.refuse(charges, self.now)

    def give_back(self, charge: Charge) -> None:
        self.cache.forget([charge.key], self.now)
        self.store.tell(Admission((charge,), settles=True))


def charge(key: str = "a", cost: int = 1, rule: Limit = RULE, *, binding: bool = True) -> Charge:
    return Charge(rule, key, cost, binding)


Step: TypeAlias = "tuple[int, Sequence[Charge], int | None]"
"""Microseconds that pass; a request; and what is taken afterwards, negative where it is given back."""
STEPS = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 8), st.integers(0, SECOND // 2), st.sampled_from([0, 0, 0, 4 * SECOND, HOUR])),
        st.lists(
            st.builds(
                Charge,
                st.just(RULE),
                st.sampled_from("abc"),
                st.sampled_from([1, 2, 3, 5, 0]),
                st.sampled_from([True] * 4 + [False]),
            ),
            min_size=1,
            max_size=2,
            unique_by=lambda charge: charge.key,
        ),
        st.sampled_from([None, None, None, None, 4, -1]),
    ),
    min_size=10,
    max_size=40,
)


@settings(max_examples=50)
@given(
    steps=STEPS, rules=st.permutations(RULES), life=st.sampled_from([HOUR, HOUR, SECOND, 1, 0]), size=st.integers(1, 5)
)
@example(
    steps=[
        *[(0, [charge(cost=3)], None)] * 3,
        (SECOND - 1, [charge(cost=4), charge("b")], None),
        *[(1, [charge()], None)] * 3,
    ],
    rules=RULES,
    life=HOUR,
    size=5,
)
@example(
    steps=[(0, [charge(cost=3)], None), (0, [charge()], -1), (0, [charge()], None)], rules=RULES, life=HOUR, size=5
)
def test_never_refuses_what_the_store_admits(steps: list[Step], rules: list[Limit], life: int, size: int) -> None:
    """Whatever it refuses, the store, asked at the same moment, refuses too, and for as long at least."""
    asked = Asked(life, size)
    limits = dict(zip("abc", rules, strict=True))
    for passed, request, settled in steps:
        asked.now += passed
        charges = [replace(each, limit=limits[each.key]) for each in request]
        known = asked.known(*charges)
        verdict = asked.ask(*charges)

        assert len(asked.cache) <= size
        if known is not None:
            assert not known.admitted
            assert not verdict.admitted
            told = {reading.limit.name: reading for reading in verdict.refusing}
            assert known.readings
            for reading in known.readings:
                theirs = told[reading.limit.name]
                assert reading.remaining >= theirs.remaining
                assert reading.reset <= theirs.reset
                assert (reading.wait is None) is (theirs.wait is None)
                assert (reading.wait or 0) <= (theirs.wait or 0)
        if settled is not None:
            for each in charges:
                account = replace(each, cost=settled)
                if settled < 0:
                    asked.give_back(account)
                else:
                    asked.store.tell(Admission((account,), settles=True))


@given(
    spent=st.integers(1, 3),
    cost=st.integers(1, 3),
    before=st.integers(0, 3 * SECOND),
    life=st.one_of(st.integers(1, 4 * SECOND), st.just(HOUR)),
    data=st.data(),
)
def test_refuses_until_the_store_admits(spent: int, cost: int, before: int, life: int, data: st.DataObject) -> None:
    """On one clock it refuses with the store's own reading until the very moment that the store admits, or its life."""
    asked = Asked(life)
    asked.ask(charge(cost=spent))
    asked.now += before
    first = asked.ask(charge(cost=cost))
    if first.admitted:
        assert asked.known(charge(cost=cost)) is None
        return
    wait = first.readings[0].wait
    assert wait is not None
    then = asked.now
    asked.now += data.draw(st.integers(0, min(wait, life) - 1), "passed")
    assert asked.known(charge(cost=cost)) == asked.store.decide(Admission((charge(cost=cost),)))
    asked.now = then + min(wait, life)
    assert asked.known(charge(cost=cost)) is None
    assert asked.ask(charge(cost=cost)).admitted is (wait <= life)


@pytest.mark.parametrize(
    ("first", "then", "refused"),
    [
        pytest.param(charge(cost=1), charge(cost=1), True, id="the same"),
        pytest.param(charge(cost=1), charge(cost=3), True, id="a dearer one"),
        pytest.param(charge(cost=3), charge(cost=1), False, id="a cheaper one that fits"),
        pytest.param(charge(cost=1), charge(cost=0), False, id="a look"),
        pytest.param(charge(cost=1), charge(cost=4), True, id="one that never fits"),
        pytest.param(charge(cost=1), charge(key="b"), False, id="another bucket"),
        pytest.param(charge(cost=1), charge(binding=False), False, id="the same in shadow"),
        pytest.param(charge(cost=4), charge(cost=4), False, id="one that never fits was refused"),
        pytest.param(charge(cost=1, binding=False), charge(cost=1), False, id="it was in shadow"),
    ],
)
def test_which_requests_are_refused(first: Charge, then: Charge, refused: bool) -> None:
    """A bucket that refused refuses whatever it cannot hold now, and nothing else is remembered."""
    asked = Asked()
    asked.ask(charge(cost=1 if first.cost == 3 else 3))
    asked.ask(first)
    assert (asked.known(then) is not None) is refused


def test_names_only_the_buckets_that_it_knows() -> None:
    """A request under several limits is refused if one of its buckets is known, with the readings of those alone."""
    asked = Asked()
    asked.ask(charge("a", 3))
    asked.ask(charge("a"))

    verdict = asked.known(charge("b"), charge("a", 2), charge("c", binding=False))

    assert verdict == Verdict(False, (Reading(RULE, 0, 3 * SECOND, 2 * SECOND),))


def test_requests_at_once_are_not_remembered() -> None:
    """A request that ends frees its place at once, so a number that was full is asked each time."""
    asked = Asked()
    number = Charge(AT_ONCE, "n")
    assert asked.ask(number, lease="l1").admitted
    assert not asked.ask(number, lease="l2").admitted
    assert asked.known(number) is None
    assert len(asked.cache) == 0


def test_what_is_given_back_is_forgotten() -> None:
    """After units were given back to a bucket the store is asked, and admits; the other buckets stay known."""
    asked = Asked()
    for key in "ab":
        asked.ask(charge(key, 3))
        asked.ask(charge(key))
    asked.give_back(charge("a", -1))
    assert asked.known(charge("a")) is None
    assert asked.ask(charge("a")).admitted
    assert asked.known(charge("b")) is not None
    asked.cache.forget(["never known"], asked.now)


def test_life_is_capped() -> None:
    """A refusal that would hold for long is believed for `life` only, and with a life of 0 not at all."""
    asked = Asked(life=SECOND // 2)
    asked.ask(charge(cost=3))
    asked.ask(charge(cost=3))
    asked.now += SECOND // 2 - 1
    assert asked.known(charge(cost=3)) is not None
    asked.now += 1
    assert asked.known(charge(cost=3)) is None
    assert len(asked.cache) == 0

    none = Asked(life=0)
    none.ask(charge(cost=3))
    assert not none.ask(charge()).admitted
    assert none.known(charge()) is None
    assert not none.cache


@pytest.mark.parametrize("size", [1, 2, 7])
def test_size_is_capped(size: int) -> None:
    """However many buckets refuse, the ones that refused last are known, and one that refuses again counts as new."""
    asked = Asked(size=size)
    for index in range(20):
        asked.ask(charge(f"k{index}", 3))
        asked.ask(charge(f"k{index}"))
        asked.ask(charge("k0"))
        assert len(asked.cache) == min(index + 1, size)
    known = [index for index in range(20) if asked.known(charge(f"k{index}")) is not None]
    assert known == sorted({0, *range(21 - size, 20)}) if size > 1 else known == [0]


def test_an_answer_that_was_long_under_way_is_not_believed_for_longer() -> None:
    """The instant counts from when the store was asked: how long its answer took makes no refusal last longer."""
    asked = Asked()
    asked.ask(charge(cost=3))
    verdict = asked.store.decide(Admission((charge(),)))
    sent = asked.now
    asked.now += SECOND - 1
    asked.cache.note((charge(),), verdict, sent)
    assert asked.known(charge()) == Verdict(False, (Reading(RULE, 0, 2 * SECOND + 1, 1),))
    asked.now += 1
    assert asked.known(charge()) is None
    assert asked.ask(charge()).admitted


@pytest.mark.parametrize("later", [0, 1])
def test_a_refusal_from_before_units_were_given_back_is_not_believed(later: int) -> None:
    """A refusal that was asked for before units were given back, and comes after, is not remembered."""
    asked = Asked()
    asked.ask(charge(cost=3))
    late = asked.store.decide(Admission((charge(),)))
    when = asked.now
    asked.now += later
    asked.give_back(charge(cost=-1))
    asked.cache.note((charge(),), late, when)
    assert not late.admitted
    assert asked.known(charge()) is None
    assert asked.ask(charge()).admitted
