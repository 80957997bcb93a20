"""The bucket is one integer; here it meets the textbook's token bucket, which is a fraction and an instant."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.policy.bucket import Charge, Reading, decide, effective, retry_after, take
from asgi_guard.policy.rates import MAX_SPAN, SECOND, Limit

NOW = 1_795_000_000 * SECOND
DAY = 86_400 * SECOND
TEN_YEARS = 3_652 * DAY


def limit(interval: int, burst: int) -> Limit:
    return Limit("user", "", "user", interval, burst)


@dataclass
class Textbook:
    """So many units, at most `burst`, one more every `interval`."""

    interval: int
    burst: int
    last: int
    units: Fraction = field(init=False)

    def __post_init__(self) -> None:
        self.units = Fraction(self.burst)

    def take(self, now: int, cost: int) -> bool:
        self.units = min(Fraction(self.burst), self.units + Fraction(now - self.last, self.interval))
        self.last = now
        if cost > self.units:
            return False
        self.units -= cost
        return True


@dataclass
class Kept:
    """One bucket as a store keeps it: a refusal writes down no more than what it healed."""

    limit: Limit
    state: int = 0

    def drain(self, now: int, cost: int) -> Reading:
        """Take until it is refused."""
        while (reading := self.take(now, cost)).wait == 0:
            pass
        return reading

    def take(self, now: int, cost: int) -> Reading:
        charge = Charge(self.limit, "key", cost)
        _, (after,), (reading,) = decide((charge,), [self.state], now)
        self.state = min(after, now + self.limit.capacity)
        return reading


limits = st.builds(limit, st.integers(1, 3 * SECOND), st.integers(1, 12))
steps = st.lists(st.tuples(st.one_of(st.integers(0, 3), st.integers(0, 5 * SECOND)), st.integers(0, 14)), max_size=40)


@given(limits, steps)
@example(limit(10, 1), [(0, 1), (9, 1), (1, 1)])
@example(limit(333_334, 3), [(0, 3), (333_333, 1), (1, 1), (0, 1)])
@example(limit(7, 5), [(0, 5), (3, 0), (TEN_YEARS, 5), (0, 1)])
@example(limit(1, 12), [(0, 13), (0, 12), (12, 12)])
def test_equals_the_textbook(rule: Limit, requests: list[tuple[int, int]]) -> None:
    """On a clock that moves forward every decision, and what remains, is the textbook token bucket's."""
    textbook, kept, now = Textbook(rule.interval, rule.burst, NOW), Kept(rule), NOW
    for step, cost in requests:
        now += step
        reading = kept.take(now, cost)
        assert (reading.wait == 0) is textbook.take(now, cost)
        assert reading.remaining == int(textbook.units)
        assert reading.reset == (rule.burst - textbook.units) * rule.interval


@given(limits, st.lists(st.tuples(st.integers(-4 * SECOND, 4 * SECOND), st.integers(0, 12)), max_size=60))
@example(limit(SECOND, 1), [(0, 1), (-TEN_YEARS, 1), (SECOND, 1), (TEN_YEARS, 1)])
def test_admits_no_more_than_capacity_and_rate(rule: Limit, requests: list[tuple[int, int]]) -> None:
    """However the clock jumps, no more is admitted than the burst and what its forward steps bring back."""
    kept, now, admitted, forward = Kept(rule), NOW, 0, 0
    for step, cost in requests:
        now += step
        forward += max(step, 0)
        if kept.take(now, cost).wait == 0:
            admitted += cost
        assert admitted <= rule.burst + Fraction(forward, rule.interval)


@given(limits, steps, st.integers(1, 12))
@example(limit(1, 1), [(0, 1)], 1)
@example(limit(SECOND, 2), [(0, 2), (500_000, 0)], 2)
def test_wait_is_exact(rule: Limit, requests: list[tuple[int, int]], cost: int) -> None:
    """A refused request is admitted once it has waited as told, and not a microsecond sooner."""
    kept, now = Kept(rule), NOW
    for step, earlier in requests:
        now += step
        kept.take(now, earlier)
    wait = kept.drain(now, cost).wait
    assert (wait is None) is (cost > rule.burst)
    if wait is not None:
        charge = Charge(rule, "key", cost)
        assert take(kept.state, now + wait, charge)[1] == 0
        assert take(kept.state, now + wait - 1, charge)[1] == 1


@given(st.lists(st.tuples(limits, st.integers(0, 14), st.integers(-2 * SECOND, 40 * SECOND)), min_size=1, max_size=5))
def test_all_or_none(rows: list[tuple[Limit, int, int]]) -> None:
    """A request is charged to every one of its buckets, or to none."""
    charges = tuple(Charge(rule, f"key{index}", cost) for index, (rule, cost, _) in enumerate(rows))
    states = [NOW + ahead for _, _, ahead in rows]
    admitted, after, readings = decide(charges, states, NOW)
    alone = [take(state, NOW, charge) for charge, state in zip(charges, states, strict=True)]
    assert admitted is all(wait == 0 for _, wait in alone)
    assert [reading.wait for reading in readings] == [wait for _, wait in alone]
    counting = [effective(state, NOW, charge.limit.capacity) for charge, state in zip(charges, states, strict=True)]
    assert after == ([state for state, _ in alone] if admitted else counting)


@given(limits, st.integers(0, 12), st.integers(0, 3 * SECOND), steps)
@example(limit(SECOND, 1), 0, 0, [(0, 1), (0, 1), (SECOND, 1)])
def test_a_limit_that_covers_another(strict: Limit, more: int, faster: int, requests: list[tuple[int, int]]) -> None:
    """What a limit refuses is refused by every one that covers it, however requests come."""
    loose = limit(max(1, strict.interval - faster), strict.burst + more)
    assert strict.covers(loose)
    states, now = [0, 0], NOW
    for gap, cost in requests:
        now += gap
        charges = (Charge(strict, "strict", cost), Charge(loose, "loose", cost))
        _, after, (of_strict, of_loose) = decide(charges, states, now)
        states = list(after)
        assert of_strict.wait != 0 or of_loose.wait == 0


def test_refusal_changes_nothing() -> None:
    """A refused request charges no bucket, not even the one that would have allowed it."""
    empty, full = limit(SECOND, 2), limit(SECOND, 50)
    states = [NOW + empty.capacity, 0]
    admitted, after, (first, second) = decide((Charge(empty, "a"), Charge(full, "b")), states, NOW)
    assert not admitted
    assert after == [states[0], NOW]
    assert first == Reading(empty, 0, 2 * SECOND, SECOND)
    assert second == Reading(full, 50, 0, 0)


def test_nothing_to_charge_is_admitted() -> None:
    """A request without limits is admitted."""
    assert decide((), [], NOW) == (True, [], ())


@pytest.mark.parametrize(
    ("cost", "wait", "remaining"),
    [(0, 0, 3), (1, 0, 2), (3, 0, 0), (4, None, 3), (10**9, None, 3)],
    ids=["a look", "one", "all of it", "one too many", "far too many"],
)
def test_cost_at_a_full_bucket(cost: int, wait: int | None, remaining: int) -> None:
    """A full bucket allows up to its capacity at once, and never more, however long one waits."""
    kept = Kept(limit(SECOND, 3))
    reading = kept.take(NOW, cost)
    assert (reading.wait, reading.remaining) == (wait, remaining)
    assert kept.take(NOW + TEN_YEARS, 3).wait == 0


@pytest.mark.parametrize("state", [0, NOW - 1, NOW, NOW + SECOND, NOW + 3 * SECOND, NOW + TEN_YEARS])
def test_a_look_takes_nothing(state: int) -> None:
    """A request of cost 0 is admitted by any bucket, and leaves the same number of units."""
    rule = limit(SECOND, 3)
    _, (after,), (looked,) = decide((Charge(rule, "key", 0),), [state], NOW)
    _, _, (again,) = decide((Charge(rule, "key", 0),), [after], NOW)
    assert looked.wait == 0
    assert looked == again


def test_ten_years_fill_a_bucket_once() -> None:
    """A gap of ten years fills the bucket, and does not save up more than its capacity."""
    kept = Kept(limit(SECOND, 3))
    kept.take(NOW, 3)
    assert kept.take(NOW + TEN_YEARS, 1) == Reading(kept.limit, 2, SECOND, 0)


def test_a_clock_that_was_ahead_is_healed() -> None:
    """After the clock went back by ten years, the bucket is empty, and fills from there."""
    kept = Kept(limit(SECOND, 3))
    kept.take(NOW, 1)
    before = NOW - TEN_YEARS
    assert kept.take(before, 1) == Reading(kept.limit, 0, 3 * SECOND, SECOND)
    assert kept.take(before + SECOND, 1).wait == 0
    assert kept.take(before + SECOND, 1).wait == SECOND


def test_a_lowered_limit_holds_at_once() -> None:
    """A bucket that a larger limit left holds no more than the smaller one, and comes back at its rate."""
    kept = Kept(limit(SECOND, 100))
    kept.take(NOW, 100)
    kept.limit = limit(SECOND, 2)
    assert kept.take(NOW, 1) == Reading(kept.limit, 0, 2 * SECOND, SECOND)
    assert kept.take(NOW + SECOND, 1).wait == 0


def test_a_raised_limit_holds_at_once() -> None:
    """A bucket that a smaller limit left empty gains the difference at once, and never more than the new capacity."""
    kept = Kept(limit(SECOND, 2))
    kept.take(NOW, 2)
    kept.limit = limit(SECOND, 5)
    assert kept.take(NOW, 0).remaining == 3
    assert kept.take(NOW, 4).wait == SECOND


@given(st.integers(0, 2**53), st.integers(0, 2**52), st.integers(1, MAX_SPAN))
@example(0, NOW, 1)
def test_effective_lies_within_one_capacity(state: int, now: int, capacity: int) -> None:
    """The state that counts lies between now and one capacity later, and is the stored one if that does."""
    counted = effective(state, now, capacity)
    assert now <= counted <= now + capacity
    assert counted == state or not now <= state <= now + capacity


def test_arithmetic_stays_exact_in_lua() -> None:
    """The largest limit that can be said, a century from now, stays below the integers that Lua keeps exact."""
    rule = limit(MAX_SPAN, 1)
    after, wait = take(0, NOW + 100 * 366 * DAY, Charge(rule, "key", 1))
    assert wait == 0
    assert after < 2**53


@pytest.mark.parametrize(
    ("state", "remaining", "reset"),
    [(0, 3, 0), (NOW, 3, 0), (NOW + 1, 2, 1), (NOW + SECOND, 2, SECOND), (NOW + 3 * SECOND, 0, 3 * SECOND)],
)
def test_what_remains(state: int, remaining: int, reset: int) -> None:
    """What remains is whole units, rounded down."""
    rule = limit(SECOND, 3)
    assert decide((Charge(rule, "key", 0),), [state], NOW)[2] == (Reading(rule, remaining, reset, 0),)


@pytest.mark.parametrize(
    ("waits", "seconds"),
    [
        ([0], 1),
        ([1], 1),
        ([SECOND], 1),
        ([SECOND + 1], 2),
        ([SECOND, 0, 59 * SECOND + 1], 60),
        ([5 * SECOND, None], None),
        ([None], None),
        ([], 1),
    ],
)
def test_retry_after(waits: list[int | None], seconds: int | None) -> None:
    """Retry-After is whole seconds, rounded up, at least one, of the longest wait; none where no waiting helps."""
    assert retry_after(tuple(Reading(limit(1, 1), 0, 0, wait) for wait in waits)) == seconds


@given(limits, steps, st.integers(1, 12))
def test_retry_after_is_enough(rule: Limit, requests: list[tuple[int, int]], cost: int) -> None:
    """A request that comes back after Retry-After is admitted."""
    kept, now = Kept(rule), NOW
    for step, earlier in requests:
        now += step
        kept.take(now, earlier)
    seconds = retry_after((kept.drain(now, cost),))
    assert (seconds is None) is (cost > rule.burst)
    if seconds is not None:
        assert kept.take(now + seconds * SECOND, cost).wait == 0
