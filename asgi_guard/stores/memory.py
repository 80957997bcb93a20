"""The store in this process's memory: bounded, exact, and shared with nobody."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING

from asgi_guard.configuration.arguments import typed
from asgi_guard.configuration.variables import PREFIX
from asgi_guard.errors import ConfigError, Problem
from asgi_guard.policy.bucket import SHARDS, Admission, Verdict, allowed, decide, settle
from asgi_guard.policy.revocation import EVER, is_revoked

if TYPE_CHECKING:
    from collections.abc import Callable

    from asgi_guard.policy.bucket import Charge, Reading
    from asgi_guard.policy.revocation import Marks

logger = logging.getLogger("asgi_guard")

SWEEP = 2
"""Buckets looked at for each new one, to drop those that have become full: an absent bucket *is* a full one."""
EVICT = 8
"""Buckets compared when there is no room: the fullest of them leaves."""


class MemoryStore:
    """Buckets, revocations and requests under way, in dicts.

    Args:
        max_keys: how many buckets, and how many revocations, are held at most. When there is no room, a few old
            buckets are looked at, and the fullest of them leaves: if it has become full, nothing is lost. Of
            revocations those that end soonest leave, which the log tells once.
        clock: microseconds of a clock that only moves forward.

    Raises:
        ConfigError: an argument is of the wrong type, or there is room for none.
    """

    shared = False

    @typed
    def __init__(
        self, *, max_keys: int = 100_000, clock: Callable[[], int] = lambda: time.monotonic_ns() // 1000
    ) -> None:
        if max_keys < 1:
            raise ConfigError(
                [Problem("max_keys", f"{max_keys} is no number of buckets: there is room for at least 1")]
            )
        self._max_keys = max_keys
        self._clock = clock
        # When each bucket is full. A dict whose keys come and go makes its table anew at times: one of a million keys
        # would hold up the event loop for tens of milliseconds, and leave holes in memory as large.
        self._shards: tuple[dict[str, int], ...] = tuple({} for _ in range(SHARDS))
        self._queue: deque[str] = deque()  # every key of them once, the longest unlooked-at first
        self._revoked: dict[str, tuple[int, int]] = {}  # until when each is kept, and up to which instant it holds
        self._overfull = False  # whether a revocation had to be forgotten
        self._under_way: dict[str, dict[str, int]] = {}  # each ends what it began, so these need no bound

    def __len__(self) -> int:
        return len(self._queue)

    def _shard(self, key: str) -> dict[str, int]:
        return self._shards[hash(key) % SHARDS]

    async def admit(self, request: Admission) -> Verdict:
        """Decide at once: nothing here waits."""
        return self.decide(request)

    def tell(self, request: Admission) -> None:
        """Decide or settle at once."""
        if request.settles:
            self._settle(request)
        else:
            self.decide(request)

    def decide(self, request: Admission) -> Verdict:
        """Decide, synchronously."""
        return self.judge(request.charges, request.token_id, request.lease, request.marks)

    def judge(
        self, charges: tuple[Charge, ...], token_id: str | None = None, lease: str = "", marks: Marks | None = None
    ) -> Verdict:
        """Decide what an `Admission` of these asks, without making one."""
        now = self._clock()
        revoked = (token_id is not None or marks is not None) and self._is_revoked(token_id, marks, now)
        if not charges:
            return Verdict(True, (), revoked)
        shards = self._shards
        states = []
        homes = []
        for charge in charges:
            full_at = shards[charge.shard]
            homes.append(full_at)
            states.append(full_at.get(charge.key, 0))
        resets = allowed(charges, states, now)
        if resets is None:
            return Verdict(*self._decide(charges, lease, now), revoked)
        for index, reset in enumerate(resets):
            key = charges[index].key
            full_at = homes[index]
            if key in full_at:
                full_at[key] = now + reset
            elif reset > 0:
                self._sweep(now)
                self._put(key, now + reset, now)
        return Verdict(True, (), revoked, charges, resets)

    def _decide(self, charges: tuple[Charge, ...], lease: str, now: int) -> tuple[bool, tuple[Reading, ...]]:
        """Decide whatever may be refused, or counts what is under way."""
        states = []
        for charge in charges:
            key = charge.key
            states.append(self._others(key, lease, now) if charge.limit.at_once else self._shard(key).get(key, 0))
        admitted, after, readings = decide(charges, states, now)
        for charge, before, state in zip(charges, states, after, strict=True):
            limit, key = charge.limit, charge.key
            if limit.at_once:
                if state > before:
                    self._begin(key, lease, now + limit.interval)
            elif state > now and state != before:
                if key not in self._shard(key):
                    self._sweep(now)
                self._put(key, state, now)
        return admitted, readings

    def _begin(self, key: str, lease: str, until: int) -> None:
        leases = self._under_way.setdefault(key, {})
        leases.pop(lease, None)  # who renews goes to the end: the first ends first
        leases[lease] = until

    def _settle(self, request: Admission) -> None:
        now = self._clock()
        for charge in request.charges:
            if charge.limit.at_once:
                leases = self._under_way.get(charge.key, {})
                leases.pop(request.lease, None)
                if not leases:
                    self._under_way.pop(charge.key, None)
            else:
                full_at = self._shard(charge.key)
                state = settle(full_at.get(charge.key, 0), now, charge)
                if state > now or charge.key in full_at:
                    self._put(charge.key, state, now)

    def _others(self, key: str, lease: str, now: int) -> int:
        """How many are under way, this one aside; who did not renew in time no longer is."""
        leases = self._under_way.get(key)
        if leases is None:
            return 0
        while leases and leases[first := next(iter(leases))] <= now:
            del leases[first]
        return len(leases) - (lease in leases)

    def _put(self, key: str, state: int, now: int) -> None:
        full_at = self._shard(key)
        if key not in full_at:
            if len(self._queue) >= self._max_keys:
                self._evict(now)
            self._queue.append(key)
        full_at[key] = state

    def _sweep(self, now: int) -> None:
        for _ in range(min(SWEEP, len(self._queue))):
            key = self._queue.popleft()
            full_at = self._shard(key)
            if full_at[key] <= now:
                del full_at[key]
            else:
                self._queue.append(key)

    def _evict(self, now: int) -> None:
        """Make room: the first full bucket of a few, else the one that would be full the soonest."""
        seen = [self._queue.popleft() for _ in range(min(EVICT, len(self._queue)))]
        fullest = min(seen, key=lambda key: max(self._shard(key)[key], now))
        del self._shard(fullest)[fullest]
        seen.remove(fullest)
        self._queue.extend(seen)

    def _is_revoked(self, token_id: str | None, marks: Marks | None, now: int) -> bool:
        if not self._revoked:
            return False
        if marks is None:
            return is_revoked(self._instant(token_id, now), None)
        named = self._instant(token_id, now) or self._instant(marks.session, now)
        return is_revoked(named or self._instant(marks.subject, now), marks)

    def _instant(self, name: str | None, now: int) -> int:
        until, instant = self._revoked.get(name, (0, 0)) if name is not None else (0, 0)
        return instant if until > now else 0

    async def revoke(self, name: str, ttl: float, instant: int = EVER) -> None:
        """Put a token, a session or a subject among the revoked, for `ttl` seconds at least."""
        now = self._clock()
        until, known = self._revoked.get(name, (0, 0))
        if name not in self._revoked and len(self._revoked) >= self._max_keys:
            self._revoked = {key: kept for key, kept in self._revoked.items() if kept[0] > now}
            if len(self._revoked) >= self._max_keys:
                if not self._overfull:
                    self._overfull = True
                    logger.warning(
                        "%d revocations are held in memory, and no more may be: those that end soonest are forgotten, "
                        "so their tokens are accepted again; raise %sSTORE_MAX_KEYS, or keep them in a Redis",
                        self._max_keys, PREFIX,
                    )  # fmt: skip
                # The one that ends first is the least loss.
                del self._revoked[min(self._revoked, key=lambda key: self._revoked[key])]
        if until > now:
            instant = EVER if EVER in (known, instant) else max(known, instant)
        self._revoked[name] = max(until, now + int(ttl * 1_000_000)), instant

    async def ping(self) -> float:
        """It is always there."""
        return 0.0

    async def aclose(self) -> None:
        """There is nothing to let go of: what is remembered stays."""
