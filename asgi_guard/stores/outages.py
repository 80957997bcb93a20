"""What the log is told of a server that fails and answers in turns: little, and nothing in the end that is not so."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from asgi_guard.errors import with_cause

if TYPE_CHECKING:
    import asyncio

logger = logging.getLogger("asgi_guard")

QUIET = 60.0
"""Seconds between two outages that the log is told of."""


class Outages:
    """Tells of each outage that it begins, and that it is over; of those that follow too soon, only if they last.

    One that begins within `QUIET` of the last that was told is held back: if it is over by then, the log's last word
    was right all the time.

    Args:
        loop: the event loop.
        begun: what is told, as an error, of one that begins; why is added to it.
        over: what is told, as a warning, of one that is over.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, begun: str, over: str) -> None:
        self._loop = loop
        self._begun, self._over = begun, over
        self._quiet_until = 0.0
        self._held_back: asyncio.TimerHandle | None = None

    def begins(self, error: Exception | None) -> None:
        """Note that nobody answers any more."""
        self.close()
        wait = self._quiet_until - time.monotonic()
        said = with_cause(type(error).__name__, error)
        if wait <= 0:
            self._tell(said)
        else:
            self._held_back = self._loop.call_later(wait, self._tell, said)

    def ends(self) -> None:
        """Note that an answer came after all. One that began elsewhere, in another event loop say, may end here."""
        if self._held_back is None:
            logger.warning("%s", self._over)
        self.close()

    def close(self) -> None:
        """Tell no more of what is held back."""
        if self._held_back is not None:
            self._held_back.cancel()
            self._held_back = None

    def _tell(self, said: str) -> None:
        self._held_back = None
        self._quiet_until = time.monotonic() + QUIET
        logger.error("%s: %s", self._begun, said)
