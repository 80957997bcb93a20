"""How many messages a WebSocket may send."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.policy.bucket import Reading
from asgi_guard.policy.meter import Meter
from asgi_guard.policy.rates import SECOND, parse_rate

RATE = parse_rate("2/second burst 3", "messages")
NOW = 1_795_000_000 * SECOND


def test_messages_come_back() -> None:
    """A connection may send its burst at once, and one more whenever one has come back, to the microsecond."""
    meter = Meter(RATE)
    assert [meter.admits(NOW) for _ in range(5)] == [True, True, True, False, False]
    assert not meter.admits(NOW + SECOND // 2 - 1)
    assert [meter.admits(NOW + SECOND // 2) for _ in range(2)] == [True, False]
    assert [meter.admits(NOW + 3600 * SECOND) for _ in range(4)] == [True, True, True, False]


def test_what_is_told_of_one_too_many() -> None:
    """A connection that sent too much is told of as an empty bucket, of a limit that closes it or is in shadow."""
    assert Meter(RATE).exceeded == Reading(RATE, 0, RATE.capacity, RATE.interval)
    assert not Meter(RATE, binding=False).exceeded.binding


def test_connections_are_apart() -> None:
    """What one connection sends takes nothing from another."""
    first, second = Meter(RATE), Meter(RATE)
    assert [first.admits(NOW) for _ in range(4)] == [True, True, True, False]
    assert second.admits(NOW)


@given(st.lists(st.integers(0, SECOND), max_size=80))
@example([0] * 10)
def test_never_more_than_burst_and_rate(gaps: list[int]) -> None:
    """Over any time no more messages are admitted than the burst and what has come back, and refused ones cost none."""
    meter, now = Meter(RATE), NOW
    times: list[int] = []
    for gap in gaps:
        now += gap
        lacking = RATE.burst - sum(now - then < RATE.capacity for then in times)
        admitted = meter.admits(now)
        assert admitted or lacking <= 0
        if admitted:
            times.append(now)
        for index, then in enumerate(times):
            assert len(times) - index <= RATE.burst + (now - then) // RATE.interval
