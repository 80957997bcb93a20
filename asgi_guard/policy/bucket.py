"""The token bucket, as one integer: the instant, in microseconds, at which the bucket is full again.

An absent state means a full bucket. Taking moves the instant forward by `cost * interval`; it is allowed if the
instant then lies at most `capacity` ahead of now. That is the textbook token bucket, decision for decision, without
fractions and without a second field. The Lua script of the Redis store does the same arithmetic on the server's
clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from asgi_guard.policy.rates import SECOND, Limit

if TYPE_CHECKING:
    from collections.abc import Sequence


class Charge(NamedTuple):
    """What a request takes from one bucket.

    Attributes:
        limit: the rule.
        key: the bucket's name in the store.
        cost: units to take, at least 0; 0 only looks.
    """

    limit: Limit
    key: str
    cost: int = 1


class Admission(NamedTuple):
    """All that one request asks of the store, in one call.

    Attributes:
        charges: the buckets it takes from: all of them, or none.
        token_id: the store's name for the token, to be looked up among the revoked; None asks nothing.
    """

    charges: tuple[Charge, ...]
    token_id: str | None = None


class Reading(NamedTuple):
    """The state of one bucket after a decision.

    Attributes:
        limit: the rule.
        remaining: whole units left.
        reset: microseconds until the bucket is full.
        wait: microseconds until this charge would be allowed: 0 if it was, None if it never will be (it costs more than
            the bucket holds).
    """

    limit: Limit
    remaining: int
    reset: int
    wait: int | None


class Verdict(NamedTuple):
    """The store's answer to an `Admission`.

    Attributes:
        admitted: whether every bucket allowed it; if not, none was charged.
        readings: one a charge, in order.
        revoked: whether the token is among the revoked.
    """

    admitted: bool
    readings: tuple[Reading, ...] = ()
    revoked: bool = False


def effective(state: int, now: int, capacity: int) -> int:
    """The state that counts: not in the past, and at most one capacity ahead.

    The second clamp heals a clock that was once ahead, and a limit that was lowered.
    """
    if state <= now:
        return now
    ceiling = now + capacity
    if state > ceiling:
        return ceiling
    return state


def take(state: int, now: int, charge: Charge) -> tuple[int, int | None]:
    """Decide one charge: the state that it leads to, and how long to wait for it.

    Returns:
        The new state if it is allowed, and microseconds to wait: 0 if it is allowed now, None if never.
    """
    limit, _, cost = charge
    capacity = limit.capacity
    after = effective(state, now, capacity) + cost * limit.interval
    wait = after - now - capacity
    if wait <= 0:
        return after, 0
    return after, wait if cost <= limit.burst else None


def decide(charges: Sequence[Charge], states: Sequence[int], now: int) -> tuple[bool, list[int], tuple[Reading, ...]]:
    """Decide a request's charges together: all or none.

    Returns:
        Whether it is admitted; the states afterwards, which are charged if it is, and else those that count now, to be
        written down where they differ (a clock that was ahead would refuse until then); and the readings.
    """
    taken = [take(state, now, charge) for charge, state in zip(charges, states, strict=True)]
    admitted = True
    for _, wait in taken:
        if wait != 0:
            admitted = False
    after, readings = [], []
    for (limit, _, cost), (state, wait) in zip(charges, taken, strict=True):
        until = state if admitted else state - cost * limit.interval
        reset = until - now
        after.append(until)
        readings.append(Reading(limit, (limit.capacity - reset) // limit.interval, reset, wait))
    return admitted, after, tuple(readings)


def retry_after(readings: tuple[Reading, ...]) -> int | None:
    """Whole seconds, at least 1, until a refused request would be admitted (RFC 9110 10.2.3); None if it never will."""
    seconds = 1
    for reading in readings:
        if reading.wait is None:
            return None
        seconds = max(seconds, -(-reading.wait // SECOND))
    return seconds
