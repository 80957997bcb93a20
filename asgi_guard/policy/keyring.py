"""When an issuer's keys are fetched: the decision, as a table over the state of the key ring and the time.

The order of decisions for a token, `asgi_guard.identity.jwks` carrying them out:

1. The keys are usable, and one fits: it is used. If they are due for refresh, a fetch starts in the background; the
   request does not wait.
2. The keys are usable, none fits, and a fetch is allowed or under way: the request waits for it (a key may have been
   rotated in).
3. The keys are usable, none fits, and no fetch is allowed: the token is refused; but if the last try failed, its key
   may be a new one that could not be had, so it is unavailable, as in 5.
4. The keys are not usable, and a fetch is allowed or under way: the request waits for it.
5. The same, and no fetch is allowed: the keys are unavailable, which is 503, never 401.

Keys are usable for their life, and for `stale_for` beyond it while the last try to fetch them has failed. Past their
life and with no try failed since, they are fetched first: a key that the issuer withdrew does not outlive its set
because nobody asked for a while. Nor does it where the issuer answers with a set that has no key of use: that counts as
a failure, but not as an outage; the keys end with their life, and a token that none of them fits is refused.

**What may start a fetch.** A key id is known if the last set that was fetched has it, however old that set is.

* A token of a known key id, start-up and readiness: after a failure, when the backoff is over.
* A token of any other key id: besides, no sooner than `cooldown` after the last try, whatever that was for and however
  it ended. Before there was a first set no key id is known, so this holds for a cold start, too.

So requests with made-up key ids never start more than one fetch a cooldown, whether the issuer answers or not. There is
no memory of key ids that were not found: within the cooldown it would save one look into a set of at most a hundred
keys, and beyond the cooldown it would keep a key that has been rotated in from being found.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Literal, TypeAlias

from asgi_guard.errors import ConfigError, Problem
from asgi_guard.policy.plain_types import require_times

if TYPE_CHECKING:
    from asgi_guard.policy.keys import KeySet, VerificationKey

KeyState: TypeAlias = Literal["fresh", "stale", "expired", "missing"]
_LONGEST_AGE = 2.0**31
"""Seconds beyond which an age is not told from a longer one (RFC 9111 section 1.2.2)."""


@dataclass(frozen=True, slots=True)
class KeyTimes:
    """How keys age, in seconds.

    Attributes:
        ttl: how long fetched keys are fresh, unless the issuer says otherwise (`Cache-Control`).
        min_ttl: the shortest life that the issuer may ask for.
        max_ttl: the longest.
        refresh_ahead: how long before the end of their life they are fetched anew, in the background; never more than
            half of their life, or short-lived keys would be fetched without a pause. When exactly, within the first
            half of this time, is left to chance, so that workers that started together do not ask together.
        stale_for: how long past their life they are still used while the issuer cannot be reached; 0 for not at all.
        cooldown: the shortest time from any try to a fetch for an unknown key id.
        first_backoff: the wait after a first failure; it doubles with each further one, up to `max_backoff`. Up to half
            of a wait is left to chance, too.
        max_backoff: the longest wait between tries.

    Raises:
        ConfigError: keys would have no life, or a time is negative or no number.
    """

    ttl: float = 300
    min_ttl: float = 60
    max_ttl: float = 3600
    refresh_ahead: float = 60
    stale_for: float = 3600
    cooldown: float = 30
    first_backoff: float = 1
    max_backoff: float = 60

    def __post_init__(self) -> None:
        require_times(self)
        if self.ttl == 0 or self.min_ttl == 0:
            raise ConfigError([Problem("ttl", "keys need a life: give ttl and min_ttl more than 0 seconds")])
        if self.min_ttl > self.max_ttl:
            raise ConfigError([Problem("min_ttl", "it is longer than max_ttl")])


class Step(Enum):
    """What to do for a token; the module's docstring says when."""

    USE = "use"
    USE_AND_REFRESH = "use and refresh"
    WAIT = "wait for a fetch"
    UNKNOWN_KEY = "unknown key"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """How things stand with an issuer's keys, for people.

    Attributes:
        state: `fresh`; `stale`, which is past their life and used because the issuer does not answer; `expired`, which
            is not used; or `missing`, when none was ever fetched.
        keys: how many there are.
        age: seconds since the issuer last confirmed them.
        left: seconds for which they can be used yet, should no fetch succeed.
        failures: how many fetches have failed since the last that succeeded.
        failure: why the last of them failed.
        next_try: seconds until the next try may be made for a known key id, at start-up, or for readiness.
    """

    state: KeyState
    keys: int
    age: float | None
    left: float
    failures: int
    failure: str | None
    next_try: float

    @property
    def usable(self) -> bool:
        """Whether tokens can be verified now."""
        return self.state in ("fresh", "stale")

    def __str__(self) -> str:
        age = "" if self.age is None else f", {self.age:.0f} s old"
        what = "no keys" if not self.keys else f"{self.keys} {'key' if self.keys == 1 else 'keys'}{age}, {self.state}"
        if not self.failures:
            return what
        if self.usable:
            what += f", of use for {self.left:.0f} s more"
        return f"{what}; failed tries: {self.failures}, the last one: {self.failure}"


@dataclass(frozen=True, slots=True)
class KeyRing:
    """What is known of an issuer's keys.

    Attributes:
        keys: the last set fetched.
        confirmed: when it was fetched, or found unchanged.
        expires: when it stops being fresh.
        due: when it is to be fetched anew, in the background.
        tried: when the last fetch was started, or failed.
        retry: when the backoff is over.
        failures: how many fetches have failed since the last that succeeded.
        failure: why the last of them failed.
        withdrawn: whether one of them brought a set without any key of use.
    """

    keys: KeySet | None = None
    confirmed: float = 0.0
    expires: float = 0.0
    due: float = float("-inf")
    tried: float = float("-inf")
    retry: float = float("-inf")
    failures: int = 0
    failure: str | None = None
    withdrawn: bool = False

    def started(self, now: float) -> KeyRing:
        """The state once a fetch was started."""
        return replace(self, tried=now)

    def fetched(
        self, keys: KeySet, now: float, times: KeyTimes, life: float | None = None, jitter: float = 0.0
    ) -> KeyRing:
        """The state once a fetch brought keys, or found these unchanged.

        Args:
            keys: the keys.
            now: the time.
            times: how keys age.
            life: how long they are fresh, as the issuer says; None if it does not.
            jitter: a random number from 0 to 1; 0 fetches them anew the soonest.
        """
        life = times.ttl if life is None else min(max(life, times.min_ttl), times.max_ttl)
        ahead = min(times.refresh_ahead, life / 2) * (1 - jitter / 2)
        return KeyRing(keys, confirmed=now, expires=now + life, due=now + life - ahead, tried=self.tried)

    def failed(
        self, now: float, times: KeyTimes, failure: str, jitter: float = 0.0, *, withdrawn: bool = False
    ) -> KeyRing:
        """The state once a fetch failed: what was known stays known, and the wait for the next try counts from here.

        Args:
            now: the time.
            times: how keys age.
            failure: why, for people.
            jitter: a random number from 0 to 1; 0 waits the longest.
            withdrawn: whether the issuer answered, with a set without any key of use.
        """
        wait = min(times.first_backoff * 2 ** min(self.failures, 16), times.max_backoff) * (1 - jitter / 2)
        return replace(
            self, tried=now, retry=now + wait, failures=self.failures + 1, failure=failure,
            withdrawn=self.withdrawn or withdrawn,
        )  # fmt: skip

    def knows(self, kid: str | None, algorithm: str) -> bool:
        """Tell whether the last set fetched has a key for such a token, however old the set is."""
        return self.keys is not None and self.keys.has(kid, algorithm)

    def next_try(self, times: KeyTimes, *, known: bool) -> float:
        """When the next fetch may be started, for a known key id (or none at all), or for an unknown one."""
        return self.retry if known else max(self.retry, self.tried + times.cooldown)

    def held(self, now: float, times: KeyTimes) -> bool:
        """Tell whether there are keys that may verify tokens, if the issuer cannot be reached."""
        return self.keys is not None and now < self._ends(times)

    def _ends(self, times: KeyTimes) -> float:
        return self.expires if self.withdrawn else self.expires + times.stale_for

    def usable(self, now: float, times: KeyTimes) -> bool:
        """Tell whether the keys may verify tokens now."""
        return self.keys is not None and (now < self.expires or (self.failures > 0 and self.held(now, times)))

    def decide(
        self, kid: str | None, algorithm: str, now: float, times: KeyTimes, *, fetching: bool, waited: bool = False
    ) -> tuple[Step, VerificationKey | None]:
        """Decide for one token; the module's docstring gives the order.

        Args:
            kid: the token's key id.
            algorithm: the token's algorithm.
            now: the time, in seconds of any clock that only moves forward.
            times: how keys age.
            fetching: whether a fetch is under way.
            waited: whether the token has waited for a fetch already; nobody waits twice, or starts a second one.

        Raises:
            TokenError: several keys fit.
        """
        if self.keys is None or not self.usable(now, times):
            may = fetching or self.next_try(times, known=self.knows(kid, algorithm)) <= now
            return (Step.WAIT if may and not waited else Step.UNAVAILABLE), None
        key = self.keys.select(kid, algorithm)
        if key is None:
            may = fetching or self.next_try(times, known=False) <= now
            refused = Step.UNAVAILABLE if self.failures and not self.withdrawn else Step.UNKNOWN_KEY
            return (Step.WAIT if may and not waited else refused), None
        refresh = not fetching and not waited and self.is_due(now, times)
        return (Step.USE_AND_REFRESH if refresh else Step.USE), key

    def is_due(self, now: float, times: KeyTimes) -> bool:
        """Tell whether a fetch is wanted though nobody has to wait for it, and may be started."""
        return self.due <= now and self.next_try(times, known=True) <= now

    def status(self, now: float, times: KeyTimes) -> KeyStatus:
        """How things stand."""
        state: KeyState = "fresh"
        if self.keys is None:
            state = "missing"
        elif now >= self.expires:
            state = "stale" if self.usable(now, times) else "expired"
        return KeyStatus(
            state,
            keys=0 if self.keys is None else len(self.keys.keys),
            age=None if self.keys is None else now - self.confirmed,
            left=max(0.0, self._ends(times) - now) if self.keys is not None else 0.0,
            failures=self.failures,
            failure=self.failure,
            next_try=max(0.0, self.retry - now),
        )


def remaining_life(cache_control: str, age: str) -> float | None:
    """How much longer an answer is fresh, by its `Cache-Control` and its `Age` (RFC 9111 sections 4.2 and 5.2.2).

    `no-store` and `no-cache` come to 0: who does not want its keys kept has them fetched as often as `min_ttl` allows,
    which is less often than for every request. Several `max-age` come to the least. None if nothing of this is said,
    or nothing that makes sense; no other header is asked.
    """
    found: list[float] = []
    for directive in cache_control.lower().split(","):
        name, _, value = directive.strip().partition("=")
        if name in ("no-store", "no-cache") and not value:  # with a value, it is about single headers
            return 0.0
        seconds = _seconds(value.strip('"'))
        if name == "max-age" and seconds is not None:
            found.append(seconds)
    return max(0.0, min(found) - (_seconds(age.strip()) or 0.0)) if found else None


def _seconds(text: str) -> float | None:
    return min(float(text), _LONGEST_AGE) if text.isascii() and text.isdigit() else None
