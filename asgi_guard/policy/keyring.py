"""When an issuer's keys are fetched: the decision, as a table over the state of the key ring and the time.

The order of decisions for a token, `asgi_guard.jwks` carrying them out:

1. There are keys that are not too old, and one fits: it is used. If they are due for refresh, a fetch starts in the
   background; the request does not wait.
2. There are keys, none fits, and a fetch is allowed or under way: the request waits for it (a key may have been
   rotated in).
3. There are keys, none fits, and no fetch is allowed: the token is refused. So a flood of made-up key ids costs one
   fetch a cooldown.
4. There are no keys, or only ones older than `stale_for` past their life, and a fetch is allowed or under way: the
   request waits for it.
5. The same, and no fetch is allowed: the keys are unavailable, which is 503, never 401.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asgi_guard.policy.keys import KeySet, VerificationKey


@dataclass(frozen=True, slots=True)
class KeyTimes:
    """How keys age, in seconds.

    Attributes:
        ttl: how long fetched keys are fresh, unless the issuer says otherwise (`Cache-Control: max-age`).
        min_ttl: the shortest life that the issuer may ask for.
        max_ttl: the longest.
        refresh_ahead: how long before the end of their life they are fetched anew, in the background; never more than
            half of their life, or short-lived keys would be fetched without a pause.
        stale_for: how long past their life they are still used while the issuer cannot be reached.
        cooldown: the shortest time between two fetches for an unknown key id, failed ones included.
        first_backoff: the wait after a first failure; it doubles with each further one, up to `max_backoff`.
        max_backoff: the longest wait between tries.
    """

    ttl: float = 300
    min_ttl: float = 60
    max_ttl: float = 3600
    refresh_ahead: float = 60
    stale_for: float = 3600
    cooldown: float = 30
    first_backoff: float = 1
    max_backoff: float = 60


class Step(Enum):
    """What to do for a token; the numbers are those of the module's order of decisions."""

    USE = "use"
    USE_AND_REFRESH = "use and refresh"
    WAIT = "wait for a fetch"
    UNKNOWN_KEY = "unknown key"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class KeyRing:
    """What is known of an issuer's keys.

    Attributes:
        keys: the last set fetched.
        expires: when it stops being fresh.
        due: when it is to be fetched anew, in the background.
        tried: when the last fetch was started, or failed.
        failures: how many fetches have failed since the last that succeeded.
    """

    keys: KeySet | None = None
    expires: float = 0.0
    due: float = 0.0
    tried: float | None = None
    failures: int = 0

    def started(self, now: float) -> KeyRing:
        """The state once a fetch was started."""
        return replace(self, tried=now)

    def fetched(self, keys: KeySet, now: float, times: KeyTimes, max_age: float | None = None) -> KeyRing:
        """The state once a fetch brought keys, which the issuer says live for `max_age`."""
        life = times.ttl if max_age is None else min(max(max_age, times.min_ttl), times.max_ttl)
        due = now + life - min(times.refresh_ahead, life / 2)
        return replace(self, keys=keys, expires=now + life, due=due, failures=0)

    def failed(self, now: float) -> KeyRing:
        """The state once a fetch failed: what was known stays known, and the wait for the next try counts from here."""
        return replace(self, tried=now, failures=self.failures + 1)

    def may_fetch(self, now: float, times: KeyTimes, *, for_unknown_key: bool) -> bool:
        """Tell whether a fetch may be started."""
        return self.next_try(times, for_unknown_key=for_unknown_key) <= now

    def next_try(self, times: KeyTimes, *, for_unknown_key: bool = False) -> float:
        """When the next fetch may be started."""
        if self.tried is None:
            return float("-inf")
        wait = 0.0
        if self.failures:
            wait = min(times.first_backoff * 2 ** min(self.failures - 1, 16), times.max_backoff)
        if for_unknown_key:
            wait = max(wait, times.cooldown)
        return self.tried + wait

    def usable(self, now: float, times: KeyTimes) -> bool:
        """Tell whether the keys may still verify tokens."""
        return self.keys is not None and now < self.expires + times.stale_for

    def decide(
        self, kid: str | None, algorithm: str, now: float, times: KeyTimes, *, fetching: bool
    ) -> tuple[Step, VerificationKey | None]:
        """Decide for one token; the module's docstring gives the order.

        Args:
            kid: the token's key id.
            algorithm: the token's algorithm.
            now: the time, in seconds of any clock that only moves forward.
            times: how keys age.
            fetching: whether a fetch is under way.

        Raises:
            TokenError: several keys fit.
        """
        if self.keys is None or not self.usable(now, times):
            may = fetching or self.may_fetch(now, times, for_unknown_key=False)
            return (Step.WAIT if may else Step.UNAVAILABLE), None
        key = self.keys.select(kid, algorithm)
        if key is None:
            may = fetching or self.may_fetch(now, times, for_unknown_key=True)
            return (Step.WAIT if may else Step.UNKNOWN_KEY), None
        due = now >= self.due and not fetching
        if due and self.may_fetch(now, times, for_unknown_key=False):
            return Step.USE_AND_REFRESH, key
        return Step.USE, key
