"""A request taken apart by slots: the parts, decided each by itself, come to what the whole would have come to."""

from __future__ import annotations

from typing import TypeAlias

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis.crc import key_slot

from asgi_guard.policy.bucket import Admission, Charge, Verdict
from asgi_guard.policy.rates import SECOND, Limit
from asgi_guard.policy.revocation import Marks
from asgi_guard.stores import MemoryStore
from asgi_guard.stores.parts import is_revoked, merge, slot_of, split, taken
from asgi_guard.stores.wire import question
from tests.stores.server import limit

RULES = (limit("1/hour burst 5 by ip"), limit("2/day burst 3 by user"), limit("2 at once by ip"))
KEYS = ("{a}:x", "{a}:y", "{b}:x", "{b}:y", "{c}:x", "{d}:x")
CHARGES = st.lists(
    st.tuples(st.sampled_from(KEYS), st.sampled_from(RULES), st.integers(0, 6), st.booleans()),
    max_size=len(KEYS),
    unique_by=lambda charge: charge[0],
)
Charges: TypeAlias = "list[tuple[str, Limit, int, bool]]"


@pytest.mark.parametrize(
    ("known", "revoked"),
    [([], False), ([False, False], False), ([False, None], None), ([None, True, False], True), ([True], True)],
)
def test_what_is_known_of_a_token(known: list[bool | None], revoked: bool | None) -> None:
    """One slot that says so is enough for a token to be revoked, and one that says nothing, for that to be unknown."""
    assert is_revoked(known) is revoked


def admission(charges: Charges, lease: str, token_id: str | None = None) -> Admission:
    # One limit a key: a key that is a set of requests under way is no bucket.
    asked = tuple(Charge(rule, f"{key}{rule.name}", cost, binding) for key, rule, cost, binding in charges)
    return Admission(asked, token_id, lease)


def test_what_is_in_one_slot_stays_together() -> None:
    """A question whose keys are all in one slot is one part, and asked as it is."""
    request = admission([("{a}:x", RULES[0], 1, True), ("{a}:y", RULES[1], 1, True)], "")

    (part,) = split(request, "p:")

    assert part.question == question(request, "p:")
    assert (part.slot, part.places) == (key_slot(b"a"), (0, 1))


def test_each_name_that_is_looked_up_goes_to_its_own_slot() -> None:
    """Token, session and subject are looked up where they are, and the parts come to one answer."""
    parts = split(Admission((), "t", marks=Marks("s", "u", 5)), "p:")

    requests = [part.question.request for part in parts]
    assert [part.question.keys for part in parts] == [[b"p:revoked:u"], [b"p:revoked:t"], [b"p:revoked:s"]]
    assert [(request.token_id, request.marks) for request in requests] == [
        (None, Marks(None, "u", 5)), ("t", None), (None, Marks("s", None, 5)),
    ]  # fmt: skip
    for part in parts:
        assert slot_of(part.question) == part.slot
    verdicts = [(part, Verdict(True, (), revoked)) for part, revoked in zip(parts, (False, False, True), strict=True)]
    assert merge(verdicts).revoked
    assert not merge(verdicts[:2]).revoked


def test_what_is_in_several_slots_is_taken_apart_in_order() -> None:
    """Each slot's part has its own charges, in their order, and one of them has the token."""
    keys = ("{a}:x", "{b}:x", "{a}:y", "{c}:x", "{b}:y")
    request = admission([(key, RULES[0], 1, True) for key in keys], "", "t")

    parts = split(request, "p:")

    assert [part.places for part in parts] == [(), (0, 2), (1, 4), (3,)]
    assert [part.slot for part in parts] == [*map(key_slot, (b"p:revoked:t", b"a", b"b", b"c"))]
    assert [part.question.request.token_id for part in parts] == ["t", None, None, None]
    for part in parts:
        assert slot_of(part.question) == part.slot
        assert part.question == question(part.question.request, "p:")
        assert part.question.request.charges == tuple(request.charges[place] for place in part.places)


def test_a_token_may_share_a_slot_with_charges() -> None:
    """A prefix with a hash tag puts all keys, the token's too, into one part."""
    request = admission([("a", RULES[0], 1, True), ("b", RULES[0], 1, True)], "", "t")

    (part,) = split(request, "{p}")

    assert (part.question, part.places) == (question(request, "{p}"), (0, 1))


def test_nothing_asked_is_no_part() -> None:
    """A question without keys has no parts, and merged they admit."""
    assert split(Admission(()), "p:") == []
    assert merge([]) == MemoryStore().decide(Admission(()))


@given(steps=st.lists(CHARGES, max_size=12))
@example(steps=[[("{a}:x", RULES[0], 5, True)], [("{b}:x", RULES[0], 1, True), ("{a}:x", RULES[0], 1, True)]])
@example(steps=[[("{a}:x", RULES[0], 6, False), ("{b}:x", RULES[1], 4, True), ("{c}:x", RULES[2], 1, True)]])
@example(steps=[[("{a}:x", RULES[2], 1, True)]] * 2 + [[("{a}:x", RULES[2], 1, True), ("{b}:x", RULES[2], 1, True)]])
def test_the_parts_come_to_what_the_whole_comes_to(steps: list[Charges]) -> None:
    """Decided slot by slot and given back where one refuses, requests get the verdicts that one store gives."""
    whole = MemoryStore(clock=lambda: SECOND)
    slots: dict[int, MemoryStore] = {}

    for number, step in enumerate(steps):
        request = admission(step, f"lease-{number}")
        parts = split(request, "")
        stores = [slots.setdefault(part.slot, MemoryStore(clock=lambda: SECOND)) for part in parts]
        answered = [(part, store.decide(part.question.request)) for part, store in zip(parts, stores, strict=True)]
        verdict = merge(answered)
        if not verdict.admitted:
            for (part, decided), store in zip(answered, stores, strict=True):
                store.tell(Admission(taken(part, decided), lease=request.lease, settles=True))

        assert verdict == whole.decide(request)


@pytest.mark.parametrize("admitted", [True, False])
def test_only_what_was_taken_is_given_back(admitted: bool) -> None:
    """What a look cost, what a limit in shadow did not allow, and what a refused part asked for, are not given back."""
    charges: Charges = [
        ("{a}:1", RULES[0], 2, True), ("{a}:2", RULES[0], 0, True), ("{a}:3", RULES[0], 6, False),
        ("{a}:4", RULES[2], 0, True), ("{a}:5", RULES[0], 1 if admitted else 6, True),
    ]  # fmt: skip
    request = admission(charges, "lease")
    (part,) = split(request, "")

    back = taken(part, MemoryStore().decide(request))

    expected = [(charge.key, -charge.cost) for charge in (request.charges[at] for at in (0, 3, 4))]
    assert [(charge.key, charge.cost) for charge in back] == (expected if admitted else [])
