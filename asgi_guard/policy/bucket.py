"""The token bucket, as one integer: the instant, in microseconds, at which the bucket is full again.

An absent state means a full bucket. Taking moves the instant forward by `cost * interval`; it is allowed if the
instant then lies at most `capacity` ahead of now. That is the textbook token bucket, decision for decision, without
fractions and without a second field. The Lua script of the Redis store does the same arithmetic on the server's
clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from asgi_guard.policy.rates import SECOND, Limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from asgi_guard.policy.revocation import Marks


SHARDS = 64
"""Into how many parts a store may spread its buckets, so that none of them is large."""


@dataclass(slots=True)
class Charge:
    """What a request takes from one bucket, or that it counts among those under way.

    Nobody changes one, since it is remembered. It is no tuple, whose members take thrice as long to read.

    Attributes:
        limit: the rule.
        key: the bucket's name in the store.
        cost: units to take, at least 0; 0 only looks. Only when an account is settled may it be negative: units are
            given back.
        binding: whether the limit refuses. One in shadow is charged where it allows a request that is served, and told.
        advance: microseconds that it moves the bucket's state forward.
        furthest: the latest state that `allowed` accepts, in microseconds from now; below every state if only `decide`
            can judge.
        shard: a number below `SHARDS`, by which a store may spread its buckets.
    """

    limit: Limit
    key: str
    cost: int = 1
    binding: bool = True
    advance: int = field(init=False, repr=False, compare=False)
    furthest: int = field(init=False, repr=False, compare=False)
    shard: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        limit, cost = self.limit, self.cost
        self.advance = advance = cost * limit.interval
        # Less than it moves the state: `allowed` lets none of these pass, and `decide` judges them.
        self.furthest = advance - 1 if limit.at_once or cost < 0 else limit.capacity
        self.shard = hash(self.key) % SHARDS


class Admission(NamedTuple):
    """All that one request asks of the store, in one call.

    Attributes:
        charges: the buckets it takes from: all that are binding, or none.
        token_id: the store's name for the token, to be looked up among the revoked; None asks nothing.
        lease: the request's own name among those under way, where a limit counts them.
        settles: whether this is no question but an account of a request that was admitted before: its costs are taken
            whatever is left, or given back, and it is no longer under way.
        marks: what else the token is looked up by; None asks nothing.
    """

    charges: tuple[Charge, ...]
    token_id: str | None = None
    lease: str = ""
    settles: bool = False
    marks: Marks | None = None


asked: Callable[[tuple[tuple[Charge, ...], str | None, str, bool, Marks | None]], Admission]
asked = partial(tuple.__new__, Admission)
"""Makes an admission of all its parts, in a third of the time that `Admission` takes: every request makes one."""


class Reading(NamedTuple):
    """The state of one limit after a decision.

    Attributes:
        limit: the rule.
        remaining: whole units left; how many more requests there may be at once.
        reset: microseconds until the bucket is full; 0 where requests at once are counted.
        wait: microseconds until this charge would be allowed: 0 if it was, None if it never will be (it costs more than
            the bucket holds). When a request that is under way will end nobody knows: a second is told.
        binding: whether the limit refuses.
    """

    limit: Limit
    remaining: int
    reset: int
    wait: int | None
    binding: bool = True


class Verdict:
    """The store's answer to an `Admission`.

    Most requests take from rates that all allow it, and of these nobody asks more than how far each bucket is from
    full: what a reading says beyond that is worked out when it is asked for.

    Args:
        admitted: whether every binding limit allowed it; if not, none was charged.
        readings: one a charge, in order.
        revoked: whether the token is among the revoked.
        charges: in the place of readings, what was taken from rates that all allowed it, with
        resets: microseconds, one a charge, until the bucket is full.
    """

    __slots__ = ("_readings", "admitted", "charges", "resets", "revoked")

    def __init__(
        self,
        admitted: bool,
        readings: tuple[Reading, ...] = (),
        revoked: bool = False,
        charges: Sequence[Charge] = (),
        resets: Sequence[int] = (),
    ) -> None:
        self.admitted = admitted
        self._readings = readings
        self.revoked = revoked
        self.charges = charges
        self.resets = resets

    @property
    def readings(self) -> tuple[Reading, ...]:
        """The state of each limit, in the order of the charges."""
        if self.resets and not self._readings:
            states = zip(self.charges, self.resets, strict=True)
            self._readings = tuple(
                Reading(
                    charge.limit, (charge.limit.capacity - reset) // charge.limit.interval, reset, 0, charge.binding
                )
                for charge, reset in states
            )
        return self._readings

    @property
    def refusing(self) -> tuple[Reading, ...]:
        """The readings of the limits that refuse."""
        return tuple(reading for reading in self.readings if reading.wait != 0 and reading.binding)

    @property
    def shadowed(self) -> tuple[Reading, ...]:
        """The readings of the limits that would refuse, were they not in shadow."""
        return tuple(reading for reading in self.readings if reading.wait != 0 and not reading.binding)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Verdict) and self._said == other._said

    def __hash__(self) -> int:
        return hash(self._said)

    def __repr__(self) -> str:
        return f"Verdict{self._said}"

    @property
    def _said(self) -> tuple[bool, tuple[Reading, ...], bool]:
        return self.admitted, self.readings, self.revoked


def effective(state: int, now: int, capacity: int) -> int:
    """The state that counts: not in the past, and at most one capacity ahead.

    The second clamp heals a clock that was once ahead.
    """
    if state <= now:
        return now
    ceiling = now + capacity
    if state > ceiling:
        return ceiling
    return state


def take(state: int, now: int, charge: Charge) -> tuple[int, int | None]:
    """Decide one charge: the state that it leads to, and how long to wait for it.

    Args:
        state: the bucket's; for requests at once, how many others are under way.
        now: microseconds.
        charge: what is asked.

    Returns:
        The new state if it is allowed, and microseconds to wait: 0 if it is allowed now, None if never.
    """
    limit = charge.limit
    if limit.at_once:
        return state + 1, 0 if state < limit.burst else SECOND
    if charge.cost < 0:
        raise ValueError("a cost is negative: units are given back only when an account is settled")
    ceiling = now + limit.capacity
    # What counts is `effective(state, now, capacity)`, without the call.
    after = (now if state <= now else min(ceiling, state)) + charge.advance
    if after <= ceiling:
        return after, 0
    return after, after - ceiling if charge.cost <= limit.burst else None


def decide(charges: Sequence[Charge], states: Sequence[int], now: int) -> tuple[bool, list[int], tuple[Reading, ...]]:
    """Decide a request's charges together: all that are binding, or none. Charges in shadow follow, each by itself.

    Returns:
        Whether it is admitted; the states afterwards, which are charged if it is, and else those that count now, to be
        written down where they differ (a clock that was ahead would refuse until then); and the readings.
    """
    admitted, refused = True, False
    after, readings = [], []
    for charge, state in zip(charges, states, strict=True):
        limit, binding = charge.limit, charge.binding
        until, wait = take(state, now, charge)
        if wait != 0:
            refused = True
            admitted = admitted and not binding
        after.append(until)
        readings.append(_reading(limit, until, now, wait, binding))
    if refused:
        for index, charge in enumerate(charges):
            limit, wait = charge.limit, readings[index].wait
            if not admitted or wait != 0:
                after[index] -= 1 if limit.at_once else charge.advance
                readings[index] = _reading(limit, after[index], now, wait, charge.binding)
    return admitted, after, tuple(readings)


def allowed(charges: Sequence[Charge], states: Sequence[int], now: int) -> list[int] | None:
    """Decide, in a third of the time, what most requests are: charges of rates that are all allowed.

    Args:
        charges: what is asked.
        states: those of the buckets.
        now: microseconds.

    Returns:
        Microseconds, one a charge, until the bucket is full again: all that a `Verdict` has to be told. None for any
        other request, which `decide` has to judge.
    """
    resets = []
    for index, charge in enumerate(charges):  # `zip(strict=True)` takes as long as the decision
        state = states[index]
        reset = charge.advance + state - now if state > now else charge.advance
        if reset > charge.furthest:
            return None
        resets.append(reset)
    return resets


def _reading(limit: Limit, state: int, now: int, wait: int | None, binding: bool) -> Reading:
    if limit.at_once:
        return Reading(limit, max(0, limit.burst - state), 0, wait, binding)
    reset = state - now
    return Reading(limit, (limit.capacity - reset) // limit.interval, reset, wait, binding)


def settle(state: int, now: int, charge: Charge) -> int:
    """The state of a bucket that is charged whatever is left in it, or given units back: empty or full at most."""
    after = effective(state, now, charge.limit.capacity) + charge.advance
    return effective(after, now, charge.limit.capacity)


def retry_after(readings: Iterable[Reading], jitter: float = 0.0) -> int | None:
    """Whole seconds, at least 1, until a refused request would be admitted (RFC 9110 10.2.3); None if it never will.

    Args:
        readings: those of the limits that refuse.
        jitter: from 0 to less than 1: of a tenth of the wait and a second, this part is added, so that those who were
            refused together do not come back together. None comes too early.
    """
    longest = 0
    for reading in readings:
        if reading.wait is None:
            return None
        longest = max(longest, reading.wait)
    seconds = max(1, -(-longest // SECOND))
    return seconds + int(jitter * (seconds / 10 + 1))
