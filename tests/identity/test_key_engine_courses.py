"""Any course of requests, probes, rotations and outages, against what the issuer and an outsider know."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from asgi_guard.policy.keyring import KeyRing, KeyTimes, Step
from asgi_guard.policy.keys import KeySet, VerificationKey

TIMES = KeyTimes()
NEVER = float("-inf")
LIVES = {None: 300.0, 0.0: 60.0, 60.0: 60.0, 600.0: 600.0, 1e6: 3600.0}
"""What an issuer may say of its keys' life, and what that comes to."""


def key_set(kid: str) -> KeySet:
    """A set of one key; what it verifies is of no interest here."""
    return KeySet((VerificationKey(kid, frozenset({"ES256"}), material=None),))


class Course(RuleBasedStateMachine):
    """The world around a ring: the time, the issuer, and the fetch under way.

    All times are multiples of an eighth of a second, and all chances of a quarter: floating-point numbers add them up
    exactly.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ring = KeyRing()
        self.now = 1000.0
        self.published = 0
        self.outage = False
        self.emptied = False
        self.withdrawn = False
        self.fetching = False
        self.known: str | None = None
        self.expires = NEVER
        self.failures = 0
        self.failed = NEVER
        self.tried = NEVER
        self.starts: list[float] = []
        self.starts_for_unknown: list[float] = []

    @property
    def current(self) -> str:
        return f"key-{self.published}"

    @property
    def usable(self) -> bool:
        stale_for = 0.0 if self.withdrawn else TIMES.stale_for
        return self.now < self.expires or (self.failures > 0 and self.now < self.expires + stale_for)

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

    @rule()
    def empty_or_fill(self) -> None:
        """The issuer takes all keys out of its set, or puts one into it again."""
        self.emptied = not self.emptied

    @rule(which=st.sampled_from(["current", "old", "made up"]))
    def request(self, which: str) -> None:
        """A token arrives."""
        self._request(which)

    def _kid(self, which: str) -> str:
        return {"current": self.current, "old": "key-0", "made up": f"made-up-{self.now}"}[which]

    def _request(self, which: str) -> Step:
        kid = self._kid(which)
        step, key = self.ring.decide(kid, "ES256", self.now, TIMES, fetching=self.fetching)
        if self.usable and kid == self.known:
            assert step in (Step.USE, Step.USE_AND_REFRESH), "keys that may be used are used, and nobody waits"
        elif self.usable:
            told = "a key is told to be unknown by the issuer's last word, and not while the issuer cannot be asked"
            assert step in (Step.WAIT, self._of_no_key()), told
        else:
            assert step in (Step.WAIT, Step.UNAVAILABLE), "without usable keys, no key is told to be unknown"
        assert (key is not None and key.kid == kid) == (step in (Step.USE, Step.USE_AND_REFRESH))
        if self.fetching:
            assert step in (Step.USE, Step.WAIT), "while a fetch is under way, nobody starts another or gives up"
        elif step in (Step.WAIT, Step.USE_AND_REFRESH):
            if kid != self.known:
                assert self.now - self.tried >= TIMES.cooldown, "an unknown kid keeps to the cooldown"
                self.starts_for_unknown.append(self.now)
            self._start()
        return step

    def _of_no_key(self) -> Step:
        """What becomes of a token whose key is none of those at hand, which are of use, if nobody is to be asked."""
        return Step.UNAVAILABLE if self.failures and not self.withdrawn else Step.UNKNOWN_KEY

    @rule(which=st.sampled_from(["current", "old", "made up"]))
    def request_that_has_waited(self, which: str) -> None:
        """A token that has waited is decided now, and starts nothing."""
        kid = self._kid(which)
        step, _ = self.ring.decide(kid, "ES256", self.now, TIMES, fetching=self.fetching, waited=True)
        if not self.usable:
            assert step is Step.UNAVAILABLE
        else:
            assert step is (Step.USE if kid == self.known else self._of_no_key())

    @precondition(lambda self: not self.fetching)
    @rule()
    def probe(self) -> None:
        """Readiness is asked, and fetches what is due."""
        if self.ring.is_due(self.now, TIMES):
            self._start()

    def _start(self) -> None:
        backoff = min(2.0 ** (self.failures - 1), TIMES.max_backoff) / 2 if self.failures else 0.0
        assert self.now - self.failed >= backoff, "a fetch waits for half of the backoff at least"
        if not self.failures and self.now < self.expires and self.starts_for_unknown[-1:] != [self.now]:
            assert self.now >= self.expires - TIMES.refresh_ahead, "fresh keys are fetched shortly before their end"
        self.starts.append(self.now)
        self.fetching = True
        self.tried = self.now
        self.ring = self.ring.started(self.now)

    @precondition(lambda self: self.fetching)
    @rule(
        takes=st.sampled_from([0.0, 0.5, 3.0]),
        life=st.sampled_from(list(LIVES)),
        jitter=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    )
    def answer(self, takes: float, life: float | None, jitter: float) -> None:
        """The issuer answers, or does not."""
        self.now += takes
        self.fetching = False
        if self.outage or self.emptied:
            self.ring = self.ring.failed(self.now, TIMES, "down", jitter, withdrawn=not self.outage)
            self.withdrawn = self.withdrawn or not self.outage
            self.failures += 1
            self.failed = self.tried = self.now
            return
        self.ring = self.ring.fetched(key_set(self.current), self.now, TIMES, life, jitter)
        self.known, self.failures, self.withdrawn = self.current, 0, False
        self.expires = self.now + LIVES[life]

    @precondition(lambda self: not self.fetching)
    @rule()
    def rotate_and_be_found(self) -> None:
        """A key rotated in is found by the first request after the cooldown, if the issuer answers."""
        self.outage = self.emptied = False
        self.rotate()
        self.now = max(self.now, self.ring.next_try(TIMES, known=False))
        assert self._request("current") is Step.WAIT
        self.answer(0.5, None, 0.5)
        assert self._request("current") is Step.USE

    @invariant()
    def the_wait_is_bounded(self) -> None:
        """The next try is never further off than the longest backoff, whatever it is for."""
        assert self.ring.next_try(TIMES, known=True) <= self.now + TIMES.max_backoff
        assert self.ring.next_try(TIMES, known=False) <= self.now + TIMES.max_backoff

    @invariant()
    def unknown_kids_cost_one_fetch_a_cooldown(self) -> None:
        """The fetches that unknown kids started are few."""
        assert len(self.starts_for_unknown) <= (self.now - 1000.0) / TIMES.cooldown + 1

    @invariant()
    def the_ring_knows_what_is_usable(self) -> None:
        """The ring and its status tell what is usable, how many tries have failed, and how many keys there are."""
        status = self.ring.status(self.now, TIMES)
        assert self.ring.usable(self.now, TIMES) == status.usable == self.usable
        assert (status.failures, status.failure is None) == (self.failures, self.failures == 0)
        assert status.keys == (0 if self.known is None else 1)
        assert not status.usable or status.left > 0


TestCourse = Course.TestCase
TestCourse.settings = settings(max_examples=100, stateful_step_count=40)


def test_a_quiet_course_refreshes_its_keys_in_the_background() -> None:
    """A key in use is fetched anew before its life is over, and nobody waits for it."""
    course = Course()
    course.begin(outage=False)
    course.request("current")
    course.answer(0.5, None, 0.0)
    course.wait(240.0)
    course.request("current")
    assert course.starts == [1000.0, 1240.5]
    assert course.starts_for_unknown == [1000.0]


def test_a_quiet_hour_ends_with_a_fetch_and_an_outage_is_outlived() -> None:
    """After a pause the first request waits; if the issuer does not answer it, the old key serves it after all."""
    course = Course()
    course.begin(outage=False)
    course.request("current")
    course.answer(0.5, None, 0.0)
    course.wait(3599.0)
    course.break_or_mend()
    assert course._request("current") is Step.WAIT
    course.answer(3.0, None, 0.0)
    course.request_that_has_waited("current")
    assert course._request("current") is Step.USE
    course.wait(300.0)
    assert course._request("current") is Step.WAIT
    course.answer(0.0, None, 0.0)
    assert course._request("current") is Step.UNAVAILABLE
