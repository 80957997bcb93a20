"""The requests under way that a limit counts: each is held by a lease, renewed until the request ends."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from itertools import count
from math import ceil
from typing import TYPE_CHECKING

from asgi_guard.policy.bucket import Admission
from asgi_guard.policy.rates import LEASE, SECOND

if TYPE_CHECKING:
    from asgi_guard.policy.bucket import Charge
    from asgi_guard.stores import Store

logger = logging.getLogger("asgi_guard")

RENEWAL = LEASE / SECOND / 4
"""Seconds that a round of renewals takes: two of a lease may be lost before it ends, whenever its turn comes."""
SLICE = 256
"""Leases that are renewed at once: so few that a store has room for all of them, and for the requests beside them."""


class Leases:
    """The leases that this process holds. A worker that dies renews none, so its leases end by themselves."""

    def __init__(self) -> None:
        self._worker = ""
        self._numbers = count()
        self._held: dict[str, tuple[Store, tuple[Charge, ...]]] = {}
        self._ended: dict[str, tuple[Store, tuple[Charge, ...]]] = {}  # before their requests, and not renewed since
        self._due: deque[str] = deque()  # those whose turn in this round is still to come, or that are over since
        self._pause = RENEWAL  # between two slices of this round
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        return len(self._held)

    def name(self) -> str:
        """A name that no other request has, of this worker or another."""
        # Made late, so that no two workers that were forked share it.
        if not self._worker.startswith(f"{os.getpid()}-"):
            self._worker = f"{os.getpid()}-{os.urandom(6).hex()}"
        return f"{self._worker}-{next(self._numbers)}"

    def hold(self, lease: str, store: Store, charges: tuple[Charge, ...]) -> None:
        """Renew a lease until it is let go."""
        counted = tuple(charge for charge in charges if charge.limit.at_once)
        self._held[lease] = (store, counted)
        loop = asyncio.get_running_loop()
        if self._timer is None or self._loop is not loop:
            self._loop = loop
            self._due.clear()
            self._timer = loop.call_later(RENEWAL, self.renew)

    def let_go(self, lease: str) -> bool:
        """Renew it no more: whether its end is still to be told."""
        self._ended.pop(lease, None)
        return self._held.pop(lease, None) is not None

    def end(self) -> None:
        """Tell the end of all, as this process is about to: the requests themselves may end when it is too late.

        Those that go on all the same count again once they are renewed.
        """
        for lease, (store, charges) in self._held.items():
            store.tell(Admission(charges, lease=lease, settles=True))
        self._ended.update(self._held)
        self._held.clear()

    def renew(self) -> None:
        """Renew those whose turn it is, and come again while there are any.

        A round begins with all that there are, and is spread evenly over its time, since a store forgets what it is
        told while too many wait for it: told of all at once, it would forget the same ones each time.
        """
        if self._ended:
            self._held.update(self._ended)
            self._ended.clear()
        if not self._due:
            self._due.extend(self._held)
            self._pause = RENEWAL / max(1, ceil(len(self._due) / SLICE))
        for _ in range(min(SLICE, len(self._due))):
            self._renew(self._due.popleft())
        self._timer = self._loop.call_later(self._pause, self.renew) if self._held and self._loop is not None else None

    def _renew(self, lease: str) -> None:
        held = self._held.get(lease)
        if held is None:
            return
        store, charges = held
        try:
            store.tell(Admission(charges, lease=lease))
        except Exception:
            # One that fails must not keep the others from being renewed.
            logger.exception("a request under way could not be renewed")
