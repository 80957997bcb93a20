"""The requests under way that a limit counts: each is held by a lease, renewed until the request ends."""

from __future__ import annotations

import asyncio
import logging
import os
from itertools import count
from typing import TYPE_CHECKING

from asgi_guard.policy.bucket import Admission
from asgi_guard.policy.rates import LEASE, SECOND

if TYPE_CHECKING:
    from asgi_guard.policy.bucket import Charge
    from asgi_guard.stores import Store

logger = logging.getLogger("asgi_guard")

RENEWAL = LEASE / SECOND / 3
"""Seconds between renewals: two may be lost before a lease ends."""


class Leases:
    """The leases that this process holds. A worker that dies renews none, so its leases end by themselves."""

    def __init__(self) -> None:
        self._worker = ""
        self._numbers = count()
        self._held: dict[str, tuple[Store, tuple[Charge, ...]]] = {}
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
            self._timer = loop.call_later(RENEWAL, self.renew)

    def let_go(self, lease: str) -> None:
        """Renew it no more."""
        self._held.pop(lease, None)

    def renew(self) -> None:
        """Renew every lease, and come again while there are any."""
        self._timer = self._loop.call_later(RENEWAL, self.renew) if self._held and self._loop is not None else None
        for lease, (store, charges) in self._held.items():
            try:
                store.tell(Admission(charges, lease=lease))
            except Exception:
                # One that fails must not keep the others from being renewed.
                logger.exception("a request under way could not be renewed")
