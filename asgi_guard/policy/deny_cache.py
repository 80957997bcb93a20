"""What is known of buckets that refused: enough to refuse again without asking, and never what the store would admit.

A bucket's state only moves forward, so what the store last told of it is the least that it is now: where that refuses,
the bucket does. Instants are on this process's clock, taken *before* the store was asked, so they are never too late.

Three things move a bucket back: units that are given back, a reset by the operator, and a store that lost its data. So
nothing is believed for longer than `life`, and what is given back here is forgotten at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_guard.policy.bucket import Reading, Verdict, take

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asgi_guard.policy.bucket import Charge


class DenyCache:
    """The buckets that refused lately.

    Args:
        life: microseconds for which a refusal is believed; 0 believes none.
        size: how many buckets are known; the oldest leave first.

    Attributes:
        known: of each, the instant at which it is full, and until when that is believed.
    """

    def __init__(self, life: int, size: int = 10_000) -> None:
        self.life = life
        self._size = size
        self.known: dict[str, tuple[int, int]] = {}
        self._forgotten = -1  # when units were last given back

    def __len__(self) -> int:
        return len(self.known)

    def note(self, charges: Sequence[Charge], verdict: Verdict, asked: int) -> None:
        """Remember which buckets refused.

        Args:
            charges: what was asked.
            verdict: the store's answer.
            asked: microseconds, when the store was asked.
        """
        if asked <= self._forgotten:
            return
        for charge, reading in zip(charges, verdict.readings, strict=True):
            wait = reading.wait
            # What will never be admitted costs nobody a bucket: it is the request that is at fault.
            if not wait or not reading.binding or reading.limit.at_once or not self.life:
                continue
            self.known.pop(charge.key, None)
            if len(self.known) >= self._size:
                del self.known[next(iter(self.known))]
            self.known[charge.key] = (asked + reading.reset, asked + min(wait, self.life))

    def refuse(self, charges: Iterable[Charge], now: int) -> Verdict | None:
        """Refuse a request if one of its buckets is known to; None asks the store.

        The verdict has the readings of those buckets only.
        """
        readings = []
        for charge in charges:
            known = self.known.get(charge.key)
            if known is None or not charge.binding:
                continue
            full, until = known
            if now >= until:
                del self.known[charge.key]
                continue
            limit = charge.limit
            _, wait = take(full, now, charge)
            if wait != 0:
                reset = full - now
                readings.append(Reading(limit, (limit.capacity - reset) // limit.interval, reset, wait))
        return Verdict(False, tuple(readings)) if readings else None

    def forget(self, keys: Iterable[str], now: int) -> None:
        """Forget buckets that units were given back to.

        Refusals that are on their way may be from before that: none that was asked for until now is remembered.
        """
        self._forgotten = now
        for key in keys:
            self.known.pop(key, None)
