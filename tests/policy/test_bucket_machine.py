"""The bucket against the textbook's token bucket, over any history: charges, accounts, clocks, and changed limits."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from asgi_guard.policy.bucket import Charge, decide, effective, settle, take
from asgi_guard.policy.rates import SECOND, Limit

NOW = 1_795_000_000 * SECOND
TEN_YEARS = 3_652 * 86_400 * SECOND
LIMITS = st.builds(
    lambda interval, burst: Limit("user", "", "user", interval, burst), st.integers(1, 3 * SECOND), st.integers(1, 12)
)


class BucketMachine(RuleBasedStateMachine):
    """A bucket as stores keep it, and beside it units that come back as fractions.

    A clock that goes back takes away what the time would have brought, down to an empty bucket. A changed limit keeps
    the time in which the bucket becomes full, as far as the new capacity reaches.
    """

    limit: Limit
    state: int
    now: int
    units: Fraction
    forward: int
    net: Fraction
    history: list[tuple[int, Fraction]]

    @initialize(limit=LIMITS)
    def start(self, limit: Limit) -> None:
        self.limit, self.state, self.now = limit, 0, NOW
        self.units, self.forward = Fraction(limit.burst), 0
        self.net = Fraction(0)  # units that were admitted, less those that were given back
        self.history = [(0, self.net)]
        self.look()

    @rule(step=st.one_of(st.integers(0, 3), st.integers(0, 8 * SECOND), st.just(TEN_YEARS)))
    def time_passes(self, step: int) -> None:
        self.now += step
        self.forward += step
        self.units = min(Fraction(self.limit.burst), self.units + Fraction(step, self.limit.interval))
        self.look()

    @rule(step=st.one_of(st.integers(1, 3), st.integers(1, 8 * SECOND), st.just(TEN_YEARS // 2)))
    def the_clock_goes_back(self, step: int) -> None:
        self.now -= step
        self.units = max(Fraction(0), self.units - Fraction(step, self.limit.interval))
        self.look()

    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        burst = self.limit.burst
        cost = data.draw(st.one_of(st.sampled_from([0, 1, burst, burst + 1]), st.integers(0, 14)), "cost")
        charge = Charge(self.limit, "key", cost)
        counted = effective(self.state, self.now, self.limit.capacity)

        admitted, (after,), (reading,) = decide((charge,), [self.state], self.now)

        assert admitted is (cost <= self.units)
        if admitted:
            self.units -= cost
            self.net += cost
            assert reading.wait == 0
        else:
            assert after == counted
            assert reading.wait == (None if cost > burst else (cost - self.units) * self.limit.interval)
            if reading.wait is not None:
                assert take(after, self.now + reading.wait, charge)[1] == 0
                assert take(after, self.now + reading.wait - 1, charge)[1] == 1
        assert reading.remaining == int(self.units)
        assert reading.reset == (burst - self.units) * self.limit.interval
        self.state = after

    def look(self) -> None:
        """What counts is written down, as with any charge, one of no unit too."""
        _, (self.state,), _ = decide((Charge(self.limit, "key", 0),), [self.state], self.now)

    @rule(cost=st.one_of(st.integers(-14, 14), st.sampled_from([-(10**30), 10**30])))
    def settle(self, cost: int) -> None:
        before = self.units
        self.state = settle(self.state, self.now, Charge(self.limit, "key", cost))
        self.units = min(Fraction(self.limit.burst), max(Fraction(0), self.units - cost))
        # What is given back beyond a full bucket is lost, and what is taken beyond an empty one is forgiven.
        if cost < 0:
            self.net -= self.units - before

    @rule(limit=LIMITS)
    def change_the_limit(self, limit: Limit) -> None:
        missing = (self.limit.burst - self.units) * self.limit.interval
        self.units = max(Fraction(0), limit.burst - missing / limit.interval)
        self.limit = limit
        self.history = [(self.forward, self.net)]
        self.look()

    @invariant()
    def no_more_than_capacity_and_rate(self) -> None:
        """Over every interval since the limit was changed, units that were given back aside."""
        for then, net in self.history:
            assert self.net - net <= self.limit.burst + Fraction(self.forward - then, self.limit.interval)
        self.history.append((self.forward, self.net))

    @invariant()
    def no_more_than_one_capacity_ahead(self) -> None:
        missing = effective(self.state, self.now, self.limit.capacity) - self.now
        assert missing == (self.limit.burst - self.units) * self.limit.interval
        assert 0 <= missing <= self.limit.capacity


TestBucket = BucketMachine.TestCase
TestBucket.settings = settings(max_examples=100, stateful_step_count=40)
