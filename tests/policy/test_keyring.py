"""When keys are fetched, as a table, as laws over any course of events, and never too often."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from asgi_guard.errors import TokenError
from asgi_guard.policy.keyring import KeyRing, KeyTimes, Step
from asgi_guard.policy.keys import KeySet, VerificationKey

TIMES = KeyTimes()


def key_set(*kids: str) -> KeySet:
    """A set of keys; what they verify is of no interest here."""
    return KeySet(tuple(VerificationKey(kid, frozenset({"ES256"}), material=None) for kid in kids))


KEYS = key_set("known")
AT = 1000.0
"""When the keys of the table were asked for and came."""
FETCHED = KeyRing().started(AT).fetched(KEYS, AT, TIMES)


@pytest.mark.parametrize(
    ("kid", "later", "fetching", "step"),
    [
        ("known", 0, False, Step.USE),
        ("known", 239, False, Step.USE),
        ("known", 240, False, Step.USE_AND_REFRESH),
        ("known", 240, True, Step.USE),
        ("known", 300, False, Step.USE_AND_REFRESH),
        ("known", 300, True, Step.USE),
        ("known", 3899, False, Step.USE_AND_REFRESH),
        ("known", 3899, True, Step.USE),
        ("known", 3900, False, Step.WAIT),
        ("known", 3900, True, Step.WAIT),
        ("other", 0, False, Step.UNKNOWN_KEY),
        ("other", 29, False, Step.UNKNOWN_KEY),
        ("other", 29, True, Step.WAIT),
        ("other", 30, False, Step.WAIT),
        ("other", 30, True, Step.WAIT),
        ("other", 300, False, Step.WAIT),
        ("other", 3900, False, Step.WAIT),
        (None, 0, False, Step.USE),
    ],
)
def test_what_is_done_for_a_token(kid: str | None, later: float, fetching: bool, step: Step) -> None:
    """The age of the keys, the kid and a fetch under way decide whether to use, refresh, wait or refuse."""
    decided, key = FETCHED.decide(kid, "ES256", AT + later, TIMES, fetching=fetching)
    assert decided is step
    assert key is (KEYS.keys[0] if step in (Step.USE, Step.USE_AND_REFRESH) else None)


@pytest.mark.parametrize(
    ("failures", "later", "known", "other"),
    [
        (1, 0.9, Step.USE, Step.UNKNOWN_KEY),
        (1, 1, Step.USE_AND_REFRESH, Step.UNKNOWN_KEY),
        (1, 29, Step.USE_AND_REFRESH, Step.UNKNOWN_KEY),
        (1, 30, Step.USE_AND_REFRESH, Step.WAIT),
        (3, 3.9, Step.USE, Step.UNKNOWN_KEY),
        (3, 4, Step.USE_AND_REFRESH, Step.UNKNOWN_KEY),
        (6, 31.9, Step.USE, Step.UNKNOWN_KEY),
        (6, 32, Step.USE_AND_REFRESH, Step.WAIT),
        (7, 59.9, Step.USE, Step.UNKNOWN_KEY),
        (7, 60, Step.USE_AND_REFRESH, Step.WAIT),
        (5000, 60, Step.USE_AND_REFRESH, Step.WAIT),
    ],
)
def test_failures_spread_the_tries(failures: int, later: float, known: Step, other: Step) -> None:
    """While the issuer fails, stale keys are used, and tries are spread by backoff, those for unknown kids more so."""
    ring = replace(FETCHED, failures=failures - 1).failed(AT + 400)
    assert ring.decide("known", "ES256", AT + 400 + later, TIMES, fetching=False)[0] is known
    assert ring.decide("other", "ES256", AT + 400 + later, TIMES, fetching=False)[0] is other


@pytest.mark.parametrize(("failures", "wait"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 32), (7, 60), (100, 60)])
def test_without_keys_tries_are_spread_by_backoff(failures: int, wait: float) -> None:
    """An issuer that was never reached is tried again after the backoff, and until then keys are unavailable."""
    ring = replace(KeyRing().started(AT), failures=failures - 1).failed(AT)
    assert ring.next_try(TIMES) == AT + wait
    assert ring.decide("any", "ES256", AT + wait - 0.1, TIMES, fetching=False) == (Step.UNAVAILABLE, None)
    assert ring.decide("any", "ES256", AT + wait - 0.1, TIMES, fetching=True) == (Step.WAIT, None)
    assert ring.decide("any", "ES256", AT + wait, TIMES, fetching=False) == (Step.WAIT, None)


def test_a_ring_that_never_fetched_waits_for_its_first_fetch() -> None:
    """Before the first fetch, any token waits for one, at any time of the clock."""
    for now in (-1e9, 0.0, 1e9):
        assert KeyRing().decide(None, "ES256", now, TIMES, fetching=False) == (Step.WAIT, None)


@pytest.mark.parametrize(
    ("max_age", "life"),
    [(None, 300), (0, 60), (59, 60), (60, 60), (600, 600), (3600, 3600), (86400, 3600), (1e12, 3600)],
)
def test_the_issuer_says_how_long_keys_live_within_bounds(max_age: float | None, life: float) -> None:
    """The issuer's `max-age` holds between the shortest and the longest life; without it the default does."""
    assert KeyRing().fetched(KEYS, AT, TIMES, max_age).expires == AT + life


@pytest.mark.parametrize("max_age", [0, 1, 59, 60, 61, 90, 119, 120, 300, 3600, 86400])
def test_short_lived_keys_are_not_fetched_without_a_pause(max_age: float) -> None:
    """However short a life the issuer gives its keys, they are used for half of it before they are fetched anew."""
    ring = KeyRing().started(AT).fetched(KEYS, AT, TIMES, max_age)
    pause = (ring.expires - AT) / 2
    assert ring.decide("known", "ES256", AT, TIMES, fetching=False)[0] is Step.USE
    assert ring.decide("known", "ES256", AT + pause - 0.1, TIMES, fetching=False)[0] is Step.USE
    assert ring.decide("known", "ES256", ring.expires, TIMES, fetching=False)[0] is Step.USE_AND_REFRESH


def test_a_failure_takes_nothing_away() -> None:
    """A failed fetch leaves the keys and their life as they were."""
    failed = FETCHED.started(AT + 250).failed(AT + 253)
    assert (failed.keys, failed.expires, failed.due) == (FETCHED.keys, FETCHED.expires, FETCHED.due)
    assert (failed.tried, failed.failures) == (AT + 253, 1)


def test_a_success_ends_the_backoff() -> None:
    """After a fetch that succeeded, failures are forgotten."""
    ring = FETCHED.failed(AT).failed(AT).started(AT + 5).fetched(KEYS, AT + 6, TIMES)
    assert ring.failures == 0
    assert ring.may_fetch(AT + 6, TIMES, for_unknown_key=False)


def test_without_staleness_keys_end_with_their_life() -> None:
    """Where stale keys are not to be used, expired ones are not."""
    times = KeyTimes(stale_for=0)
    ring = FETCHED.failed(AT + 299)
    assert ring.usable(AT + 299.9, times)
    assert not ring.usable(AT + 300, times)
    assert ring.decide("known", "ES256", AT + 299.9, times, fetching=False)[0] is Step.USE
    assert replace(ring, tried=AT + 300).decide("known", "ES256", AT + 300, times, fetching=False) == (
        Step.UNAVAILABLE,
        None,
    )


def test_an_ambiguous_kid_starts_no_fetch() -> None:
    """Where several keys fit, the token is refused, whatever could be fetched."""
    ring = KeyRing().fetched(key_set("twice", "twice"), AT, TIMES)
    with pytest.raises(TokenError) as caught:
        ring.decide("twice", "ES256", AT + 1000, TIMES, fetching=False)
    assert caught.value.reason == "ambiguous_key"


@given(
    arrivals=st.lists(st.integers(0, 160).map(lambda eighths: eighths / 8), min_size=1, max_size=200),
    outcomes=st.lists(st.booleans(), min_size=1, max_size=50),
)
@example(arrivals=[0.125] * 200, outcomes=[False])
@example(arrivals=[10.0] * 200, outcomes=[True, False, False])
def test_a_flood_of_unknown_kids_costs_one_fetch_a_cooldown(arrivals: list[float], outcomes: list[bool]) -> None:
    """However many unknown kids arrive, and whether fetches succeed or fail, one starts a cooldown at most."""
    ring, now, starts = FETCHED, AT, [AT]
    for number, gap in enumerate(arrivals):
        now += gap
        step, _ = ring.decide(f"made-up-{number}", "ES256", now, TIMES, fetching=False)
        assert step in (Step.WAIT, Step.UNKNOWN_KEY)
        if step is Step.WAIT and ring.usable(now, TIMES):
            starts.append(now)
            succeeds = outcomes[len(starts) % len(outcomes)]
            ring = ring.started(now)
            ring = ring.fetched(KEYS, now, TIMES) if succeeds else ring.failed(now)
    assert all(later - earlier >= TIMES.cooldown for earlier, later in pairwise(starts))


class Course(RuleBasedStateMachine):
    """Any course of requests, rotations and outages, against what the issuer and an outsider know.

    All times are multiples of an eighth of a second, which floating-point numbers add up exactly.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ring = KeyRing()
        self.now = AT
        self.published = 0
        self.outage = False
        self.fetching = False
        self.known: set[str] = set()
        self.usable_until = float("-inf")
        self.succeeded: float | None = None
        self.starts: list[float] = []
        self.starts_for_unknown: list[float] = []

    @property
    def current(self) -> str:
        return f"key-{self.published}"

    @property
    def usable(self) -> bool:
        return self.now < self.usable_until

    @initialize(outage=st.booleans())
    def begin(self, outage: bool) -> None:
        """The issuer may be down from the first."""
        self.outage = outage

    @rule(seconds=st.sampled_from([0.125, 1.0, 5.0, 29.0, 30.0, 31.0, 60.0, 240.0, 300.0, 3599.0, 3600.0, 4000.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @rule()
    def rotate(self) -> None:
        """The issuer replaces its key."""
        self.published += 1

    @rule()
    def break_or_mend(self) -> None:
        """The issuer goes down, or comes back."""
        self.outage = not self.outage

    @rule(which=st.sampled_from(["current", "old", "made up"]))
    def request(self, which: str) -> None:
        """A token arrives."""
        self._request(which)

    def _request(self, which: str) -> Step:
        kid = {"current": self.current, "old": "key-0", "made up": f"made-up-{self.now}"}[which]
        step, key = self.ring.decide(kid, "ES256", self.now, TIMES, fetching=self.fetching)
        if self.usable and kid in self.known:
            assert step in (Step.USE, Step.USE_AND_REFRESH), "keys that are not too old are used, stale or not"
        elif self.usable:
            assert step in (Step.WAIT, Step.UNKNOWN_KEY), "with usable keys, a token is never told that there are none"
        else:
            assert step in (Step.WAIT, Step.UNAVAILABLE), (
                "without usable keys, no token is told that its key is unknown"
            )
        assert (key is not None and key.kid == kid) == (step in (Step.USE, Step.USE_AND_REFRESH))
        if self.fetching:
            assert step in (Step.USE, Step.WAIT), "while a fetch is under way, nobody starts another or gives up"
        elif step in (Step.WAIT, Step.USE_AND_REFRESH):
            self._start(for_unknown=self.usable and step is Step.WAIT)
        return step

    def _start(self, *, for_unknown: bool) -> None:
        if for_unknown:
            assert not self.starts or self.now - self.starts[-1] >= TIMES.cooldown
            self.starts_for_unknown.append(self.now)
        elif self.usable and not self.ring.failures and self.succeeded is not None:
            assert self.now - self.succeeded >= TIMES.min_ttl / 2
        self.starts.append(self.now)
        self.fetching = True
        self.ring = self.ring.started(self.now)

    @precondition(lambda self: self.fetching)
    @rule(takes=st.sampled_from([0.0, 0.5, 3.0]), max_age=st.sampled_from([None, 0.0, 60.0, 600.0, 1e6]))
    def answer(self, takes: float, max_age: float | None) -> None:
        """The issuer answers, or does not."""
        self.now += takes
        self.fetching = False
        if self.outage:
            self.ring = self.ring.failed(self.now)
            return
        self.ring = self.ring.fetched(key_set(self.current), self.now, TIMES, max_age)
        self.known, self.succeeded = {self.current}, self.now
        life = 300.0 if max_age is None else min(max(max_age, 60.0), 3600.0)
        self.usable_until = self.now + life + 3600.0

    @precondition(lambda self: not self.fetching)
    @rule()
    def rotate_and_be_found(self) -> None:
        """A key rotated in is found by the first request after the cooldown, if the issuer answers."""
        self.outage = False
        self.rotate()
        self.now = max(self.now, self.ring.next_try(TIMES, for_unknown_key=True))
        assert self._request("current") is Step.WAIT
        self.answer(0.5, None)
        assert self._request("current") is Step.USE

    @invariant()
    def the_wait_is_bounded(self) -> None:
        """The next try is never further off than the longest backoff."""
        assert self.ring.next_try(TIMES, for_unknown_key=True) <= self.now + TIMES.max_backoff

    @invariant()
    def unknown_kids_cost_one_fetch_a_cooldown(self) -> None:
        """The fetches that unknown kids started are few."""
        assert len(self.starts_for_unknown) <= (self.now - AT) / TIMES.cooldown + 1

    @invariant()
    def the_ring_knows_what_is_usable(self) -> None:
        """Keys are usable exactly until their life and the time for stale ones are over."""
        assert self.ring.usable(self.now, TIMES) == self.usable


TestCourse = Course.TestCase
TestCourse.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_a_quiet_course_refreshes_its_keys_in_the_background() -> None:
    """A key in use is fetched anew before its life is over, and nobody waits for it."""
    course = Course()
    course.begin(outage=False)
    course.request("current")
    course.answer(0.5, None)
    course.wait(240.0)
    course.request("current")
    assert course.starts == [AT, AT + 240.5]
    assert course.starts_for_unknown == []
