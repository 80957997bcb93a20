"""Charges of all sorts decided together: buckets, requests at once, limits in shadow, and accounts."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.policy.bucket import Charge, Reading, Verdict, allowed, decide, effective, retry_after, settle, take
from asgi_guard.policy.ratelimit_headers import HEADER_NAMES, state_headers
from asgi_guard.policy.rates import LEASE, SECOND, Limit

NOW = 1_795_000_000 * SECOND
BUCKET = Limit("user", "", "user", SECOND, 3)
AT_ONCE = Limit("at-once", "", "user", LEASE, 2, at_once=True)
EMPTY = NOW + BUCKET.capacity


@pytest.mark.parametrize(
    ("others", "wait", "remaining"),
    [(0, 0, 1), (1, 0, 0), (2, SECOND, 0), (3, SECOND, 0)],
    ids=["alone", "the last", "one too many", "after the number was lowered"],
)
def test_requests_at_once(others: int, wait: int, remaining: int) -> None:
    """A request is admitted while fewer than the number are under way, and else is told to come back in a second."""
    admitted, after, readings = decide((Charge(AT_ONCE, "key"),), [others], NOW)
    assert admitted is (wait == 0)
    assert after == [others + (wait == 0)]
    assert readings == (Reading(AT_ONCE, remaining, 0, wait),)


@pytest.mark.parametrize("cost", [-1, -(10**30)])
@pytest.mark.parametrize("binding", [True, False])
def test_a_negative_cost_is_an_error(cost: int, binding: bool) -> None:
    """A request that would give units back is an error, in shadow too."""
    with pytest.raises(ValueError, match="negative"):
        decide((Charge(BUCKET, "key", cost, binding),), [0], NOW)
    assert allowed((Charge(BUCKET, "key", cost, binding),), [0], NOW) is None


@pytest.mark.parametrize(
    ("charges", "states", "admitted", "after", "waits"),
    [
        pytest.param(
            [Charge(BUCKET, "a", 1, binding=False), Charge(BUCKET, "b", 1)],
            [EMPTY, NOW],
            True,
            [EMPTY, NOW + SECOND],
            [SECOND, 0],
            id="an empty bucket in shadow refuses nothing, is not charged, and says what it would do",
        ),
        pytest.param(
            [Charge(BUCKET, "a", 1, binding=False), Charge(BUCKET, "b", 1)],
            [NOW, EMPTY],
            False,
            [NOW, EMPTY],
            [0, SECOND],
            id="a bucket in shadow is not charged for a request that another refuses",
        ),
        pytest.param(
            [Charge(AT_ONCE, "a"), Charge(BUCKET, "b", 1)],
            [1, EMPTY],
            False,
            [1, EMPTY],
            [0, SECOND],
            id="a request that a bucket refuses is not under way",
        ),
        pytest.param(
            [Charge(BUCKET, "a", 2), Charge(AT_ONCE, "b")],
            [NOW, 2],
            False,
            [NOW, 2],
            [0, SECOND],
            id="a request too many at once is charged to no bucket",
        ),
        pytest.param(
            [Charge(BUCKET, "a", 2), Charge(AT_ONCE, "b", binding=False)],
            [NOW, 2],
            True,
            [NOW + 2 * SECOND, 2],
            [0, SECOND],
            id="a number in shadow refuses nothing, and does not count the one too many",
        ),
        pytest.param(
            [Charge(BUCKET, "a", 4, binding=False)],
            [NOW],
            True,
            [NOW],
            [None],
            id="a cost that a bucket in shadow never holds",
        ),
    ],
)
def test_decided_together(
    charges: list[Charge], states: list[int], admitted: bool, after: list[int], waits: list[int | None]
) -> None:
    """All that are binding are charged or none is, and each in shadow by itself where the request is admitted."""
    decided, states_after, readings = decide(charges, states, NOW)
    assert (decided, states_after) == (admitted, after)
    assert [reading.wait for reading in readings] == waits
    assert [reading.binding for reading in readings] == [charge.binding for charge in charges]
    verdict = Verdict(decided, readings)
    assert bool(verdict.refusing) is not admitted
    assert all(reading.binding for reading in verdict.refusing)
    assert [reading for reading in readings if reading.wait != 0 and not reading.binding] == list(verdict.shadowed)


CHARGES = st.lists(
    st.tuples(
        st.one_of(
            st.tuples(st.just(AT_ONCE), st.integers(0, 4)),
            st.tuples(
                st.builds(Limit, st.just("l"), st.just(""), st.just("ip"), st.integers(1, 10**7), st.integers(1, 9)),
                st.integers(NOW - 10**8, NOW + 10**8),
            ),
        ),
        st.integers(0, 10),
        st.booleans(),
    ),
    max_size=6,
)


@given(CHARGES)
@example([((AT_ONCE, 2), 1, False), ((BUCKET, EMPTY), 1, True), ((AT_ONCE, 0), 1, True)])
def test_what_holds_of_every_decision(rows: list[tuple[tuple[Limit, int], int, bool]]) -> None:
    """It is admitted if all that bind allow it, who waits is not charged, and readings tell of the states after it."""
    charges = [Charge(limit, f"k{index}", cost, binding) for index, ((limit, _), cost, binding) in enumerate(rows)]
    states = [state for (_, state), _, _ in rows]

    admitted, after, readings = decide(charges, states, NOW)

    waits = [take(state, NOW, charge)[1] for charge, state in zip(charges, states, strict=True)]
    assert admitted is all(wait == 0 for charge, wait in zip(charges, waits, strict=True) if charge.binding)
    for charge, before, state, wait, reading in zip(charges, states, after, waits, readings, strict=True):
        limit = charge.limit
        charged = admitted and wait == 0
        counted = before if limit.at_once else effective(before, NOW, limit.capacity)
        assert state == counted + charged * (1 if limit.at_once else charge.cost * limit.interval)
        assert (reading.limit, reading.wait, reading.binding) == (limit, wait, charge.binding)
        assert 0 <= reading.remaining <= limit.burst
        assert reading.reset == (0 if limit.at_once else state - NOW)


@given(CHARGES)
@example([((BUCKET, NOW - 1), 3, True), ((BUCKET, NOW + 2 * SECOND), 1, False)])
@example([((BUCKET, NOW + 1), 3, True)])
@example([((BUCKET, NOW + 1), 1, True)])
@example([((BUCKET, NOW + 10**15), 0, True)])
@example([((AT_ONCE, 0), 1, True)])
def test_the_short_way_decides_the_same(rows: list[tuple[tuple[Limit, int], int, bool]]) -> None:
    """What all of a request's rates allow is decided as the long way does; anything else is left to it."""
    charges = [Charge(limit, f"k{index}", cost, binding) for index, ((limit, _), cost, binding) in enumerate(rows)]
    states = [state for (_, state), _, _ in rows]

    resets = allowed(charges, states, NOW)

    _, after, expected = decide(charges, states, NOW)
    ordinary = all(
        not charge.limit.at_once and reading.wait == 0 for charge, reading in zip(charges, expected, strict=True)
    )
    too_far = any(state > NOW + charge.limit.capacity for charge, state in zip(charges, states, strict=True))
    assert (resets is not None) == (ordinary and not too_far)
    if resets is not None:
        assert [NOW + reset for reset in resets] == after
        short, long = Verdict(True, (), False, charges, resets), Verdict(True, expected)
        for style in HEADER_NAMES:
            assert state_headers(short, style) == state_headers(long, style)
        assert (short, short.readings) == (long, expected)
        assert short not in (Verdict(False, expected), Verdict(True, expected, revoked=True), None)


@pytest.mark.parametrize(
    ("state", "cost", "after"),
    [
        (0, 1, NOW + SECOND),
        (EMPTY, 1, EMPTY),
        (NOW + SECOND, 10**30, EMPTY),
        (EMPTY, -1, EMPTY - SECOND),
        (NOW + 1, -1, NOW),
        (0, -5, NOW),
        (EMPTY, -(10**30), NOW),
        (NOW + 10**15, -1, EMPTY - SECOND),
        (NOW + SECOND, 0, NOW + SECOND),
    ],
)
def test_accounts(state: int, cost: int, after: int) -> None:
    """An account takes what there is and gives back what there is room for, so a bucket is empty or full at most."""
    assert settle(state, NOW, Charge(BUCKET, "key", cost)) == after


@given(
    st.lists(st.one_of(st.none(), st.integers(0, 10**12)), max_size=5),
    st.floats(0, 1, allow_nan=False),
)
@example([1], 1.0)
@example([SECOND], 0.0)
@example([10 * SECOND], 1.0)
def test_jitter_is_only_upward(waits: list[int | None], jitter: float) -> None:
    """Retry-After with jitter is never before the one without, and at most a tenth and a second after it."""
    readings = [Reading(BUCKET, 0, 0, wait) for wait in waits]
    exact, spread = retry_after(readings), retry_after(readings, jitter)
    assert (exact is None, spread is None) == (None in waits, None in waits)
    if exact is not None and spread is not None:
        assert exact <= spread <= exact * 1.1 + 1


@pytest.mark.parametrize(
    ("seconds", "jitter", "told"),
    [(1, 0.9, 1), (1, 0.95, 2), (10, 0.5, 11), (10, 0.99, 11), (100, 0.5, 105), (100, 0.99, 110), (100, 0.0, 100)],
)
def test_jitter_spreads_a_tenth_of_the_wait_and_a_second(seconds: int, jitter: float, told: int) -> None:
    """Those who were refused together are told to come back over a tenth of the wait and a second more."""
    assert retry_after([Reading(BUCKET, 0, 0, seconds * SECOND)], jitter) == told
