"""The circuit breaker, over any course of successes and failures."""

from __future__ import annotations

from math import nan
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.errors import ConfigError
from asgi_guard.policy.breaker import Breaker


def opened(now: float = 100.0, first_wait: float = 0.5, max_wait: float = 10.0) -> Breaker:
    """A breaker that has just opened."""
    breaker = Breaker(3, first_wait, max_wait)
    for _ in range(3):
        breaker.failed(now)
    return breaker


def test_a_closed_breaker_lets_everyone_ask() -> None:
    """Below the threshold nobody is turned away."""
    breaker = Breaker(threshold=3)
    assert [breaker.failed(100.0), breaker.failed(100.0)] == [False, False]
    assert breaker.allows(100.0)
    assert not breaker.is_open
    assert breaker.retry_after(100.0) == 0.0


def test_failures_in_a_row_open_it() -> None:
    """The failure that reaches the threshold opens the breaker, and says so once."""
    breaker = Breaker(threshold=3)
    assert [breaker.failed(100.0) for _ in range(5)] == [False, False, True, False, False]
    assert breaker.is_open
    assert not breaker.allows(100.0)


def test_a_success_between_failures_starts_the_count_anew() -> None:
    """Only failures in a row count."""
    breaker = Breaker(threshold=3)
    for _ in range(5):
        assert [breaker.failed(100.0), breaker.failed(100.0)] == [False, False]
        assert not breaker.succeeded()
    assert breaker.allows(100.0)


def test_a_threshold_of_one_opens_at_the_first_failure() -> None:
    """The first failure may be enough."""
    breaker = Breaker(threshold=1, first_wait=2.0)
    assert breaker.failed(100.0)
    assert breaker.retry_after(100.0) == 2.0


def test_one_probes_and_the_others_wait() -> None:
    """Once the wait is over, exactly one caller may ask until its answer, or another wait, is there."""
    breaker = opened(first_wait=0.5)
    assert not breaker.allows(100.49)
    assert [breaker.allows(100.5) for _ in range(5)] == [True, False, False, False, False]
    assert breaker.is_open
    assert not breaker.allows(100.9)
    assert breaker.allows(101.0)


def test_the_probes_success_closes_it() -> None:
    """A success closes the breaker, says so once, and the next failure starts from nothing."""
    breaker = opened()
    assert breaker.allows(100.5)
    assert [breaker.succeeded(), breaker.succeeded()] == [True, False]
    assert not breaker.is_open
    assert breaker.allows(100.5)
    assert not breaker.failed(100.5)
    assert breaker.allows(100.5)


def test_waits_double_up_to_the_longest() -> None:
    """Each probe that fails doubles the wait, up to the longest one."""
    breaker, now, waits = opened(first_wait=0.5, max_wait=3.0), 100.0, []
    for _ in range(40):
        wait = breaker.retry_after(now)
        waits.append(wait)
        assert not breaker.allows(now + wait - 0.01)
        now += wait
        assert breaker.allows(now)
        breaker.failed(now)
    assert waits[:5] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert set(waits[5:]) == {3.0}


def test_a_sign_of_life_lets_the_next_one_probe() -> None:
    """After a sign of life one may ask at once, and the others wait as they would for any probe."""
    breaker = opened(first_wait=0.5)
    breaker.hasten(100.1)
    assert breaker.is_open
    assert [breaker.allows(100.1) for _ in range(5)] == [True, False, False, False, False]
    assert breaker.retry_after(100.1) == pytest.approx(0.5)
    assert breaker.succeeded()


def test_the_first_sign_of_life_of_an_outage_is_heeded() -> None:
    """Where the first failure opens the breaker, a sign of life after it is heeded, in every outage anew."""
    breaker = Breaker(threshold=1, first_wait=5.0)
    for _ in range(2):
        assert breaker.failed(100.0)
        breaker.hasten(100.1)
        assert breaker.allows(100.1)
        assert breaker.succeeded()


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"threshold": 0}, "threshold"), ({"threshold": -1}, "threshold"), ({"threshold": "3"}, "threshold"),
        ({"first_wait": -0.5}, "first_wait"), ({"first_wait": nan}, "first_wait"), ({"max_wait": -1}, "max_wait"),
        ({"max_wait": nan}, "max_wait"), ({"max_wait": "1"}, "max_wait"),
    ],
)  # fmt: skip
def test_what_no_breaker_can_be(options: dict[str, Any], name: str) -> None:
    """A breaker that would never open or wait for no known time is an error that names what it was given."""
    with pytest.raises(ConfigError) as caught:
        Breaker(**options)
    assert [problem.name for problem in caught.value.problems] == [name]
    assert opened(first_wait=0, max_wait=0).allows(100.0)


def test_signs_of_life_alone_are_heeded_for_one_failure_in_two() -> None:
    """A service that shows signs of life and never answers is asked twice a wait at most, and waits go on to double."""
    breaker, now, waits = opened(first_wait=0.5), 100.0, []
    for _ in range(8):
        breaker.hasten(now)
        waits.append(breaker.retry_after(now))
        now += waits[-1]
        assert breaker.allows(now)
        breaker.failed(now)
    assert waits == [0, 1, 0, 4, 0, 10, 0, 10]


def test_a_sign_of_life_of_a_service_that_answers_changes_nothing() -> None:
    """While the breaker is closed, and for the outage after that, it counts for nothing."""
    breaker = Breaker(threshold=1)
    breaker.hasten(100.0)
    assert not breaker.is_open
    assert breaker.failed(100.0)
    assert not breaker.allows(100.0)


@pytest.mark.parametrize(("now", "after"), [(100.0, 0.5), (100.3, 0.2), (100.5, 0.0), (200.0, 0.0)])
def test_when_to_come_back_is_when_the_next_probe_may_go(now: float, after: float) -> None:
    """The wait that callers are told ends when the next probe may go, and is never negative."""
    assert opened(first_wait=0.5).retry_after(now) == pytest.approx(after)


def test_the_clock_may_start_anywhere() -> None:
    """A breaker that opens so that its wait ends at zero is as open as any."""
    breaker = opened(-0.5, first_wait=0.5)
    assert breaker.retry_after(-0.5) == 0.5
    assert not breaker.allows(-0.1)
    assert breaker.allows(0.0)


events = st.lists(st.tuples(st.sampled_from(["ask", "fail", "succeed", "hasten"]), st.floats(0, 5)), max_size=80)


@given(course=events, threshold=st.integers(1, 5), first_wait=st.floats(0.1, 2), max_wait=st.floats(2, 10))
@example(course=[("fail", 0.0)] * 60, threshold=1, first_wait=0.5, max_wait=10.0)
def test_any_course_keeps_the_promises(
    course: list[tuple[str, float]], threshold: int, first_wait: float, max_wait: float
) -> None:
    """Open is what too many failures in a row are; probes are a wait apart; nobody waits longer than the longest."""
    breaker, now, failures = Breaker(threshold, first_wait, max_wait), 100.0, 0
    probe: float | None = None
    for event, gap in course:
        now += gap
        if event == "fail":
            failures += 1
            assert breaker.failed(now) == (failures == threshold)
        elif event == "succeed":
            assert breaker.succeeded() == (failures >= threshold)
            failures, probe = 0, None
        elif event == "hasten":
            wait = breaker.retry_after(now)
            breaker.hasten(now)
            if breaker.retry_after(now) < wait:
                probe = None
        elif breaker.allows(now) and failures >= threshold:
            assert probe is None or now - probe >= first_wait * 0.999
            probe = now
        assert breaker.is_open == (failures >= threshold)
        assert 0 <= breaker.retry_after(now) <= max_wait + 1e-9
        assert failures >= threshold or breaker.allows(now)
