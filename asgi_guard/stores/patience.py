"""A clock for those who wait, which stands still while the event loop is held up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

SLICES = 5
"""Into how many parts a wait is divided. Whatever holds the event loop up costs those who wait one of them at most."""
SHORTEST = 0.001
"""Seconds between two looks at least: some loops count in milliseconds, and would come too early by less than one."""


class Patience:
    """Seconds in which answers could be read, and a look at who has waited for too long, as long as anyone waits.

    Work that does not yield holds up the reading of answers as it does timers, and some loops run timers first: an
    answer that came in time would be taken for one that did not.

    Args:
        loop: the event loop.
        timeout: seconds that are waited for at most.
        look: lets go who has waited for too long, and tells how many seconds the next one has left; None if nobody
            waits.
    """

    __slots__ = ("_due", "_held_up", "_longest", "_look", "_loop", "_waits")

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout: float, look: Callable[[], float | None]) -> None:
        self._loop = loop
        self._longest = timeout / SLICES
        self._look = look
        self._held_up = 0.0  # seconds that timers came too late, all in all
        self._due = 0.0
        self._waits = False

    def now(self) -> float:
        """What the clock shows, in seconds."""
        return time.monotonic() - self._held_up

    def attend(self) -> None:
        """See to it that somebody looks."""
        if not self._waits:
            self._wait(self._longest)

    def _wait(self, seconds: float) -> None:
        self._waits = True
        seconds = max(SHORTEST, min(self._longest, seconds))
        self._due = time.monotonic() + seconds
        self._loop.call_later(seconds, self._come)

    def _come(self) -> None:
        self._held_up += max(0.0, time.monotonic() - self._due)
        self._waits = False
        left: float | None = self._longest
        try:
            left = self._look()
        finally:
            # Also where it failed half-way: nobody else would let go those whom it did not come to.
            if left is not None:
                self._wait(left)
