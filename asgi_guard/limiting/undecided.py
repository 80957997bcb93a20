"""What the log is told of requests that the store does not decide: what failed, and what such requests meet."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from asgi_guard.errors import StoreUnavailableError, with_cause
from asgi_guard.stores.base import Watched

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asgi_guard.stores import Store

logger = logging.getLogger("asgi_guard")

QUIET = 60.0
"""Seconds between two words in the log on single requests."""


class Undecided:
    """Tells of a first request that was not decided, after which there may be none for long, and of a failed start.

    Of an outage, during which it is not asked, a store tells itself.

    Args:
        store: the store; None where there is none that could fail.
        meanwhile: tells what holds without it, by what it was met with.

    Attributes:
        awaited: whether the log's last word is that the store does not answer, and the next answer takes that back.
    """

    def __init__(self, store: Store | None, meanwhile: Callable[[StoreUnavailableError], str]) -> None:
        self._store = store
        self._watched = store if store is not None and isinstance(store, Watched) else None
        self._meanwhile = meanwhile
        self._quiet_until = 0.0
        self.awaited = False

    async def startup(self, caution: Callable[[], Awaitable[str | None]]) -> None:
        """Connect to the store before the first request does; tell where it does not answer, or what to warn of."""
        if self._store is None:
            return
        try:
            await self._store.ping()
        except StoreUnavailableError as error:
            self.awaited = not self._is_outage
            logger.warning("%s; until it does, %s", with_cause(error, error.__cause__), self._meanwhile(error))
        else:
            if told := await caution():
                logger.warning("%s", told)

    def note(self, error: StoreUnavailableError) -> None:
        """Note that a request was not decided."""
        if self._is_outage:
            self.awaited = False  # what the store tells takes that word's place
        elif not self.awaited and (now := time.monotonic()) >= self._quiet_until:
            self._quiet_until = now + QUIET
            said = with_cause(error, error.__cause__)
            meanwhile = self._meanwhile(error)
            logger.warning("the store did not decide a request: %s; where that happens, %s", said, meanwhile)

    def answered(self) -> None:
        """Note that the store answers."""
        if self.awaited:
            self.awaited = False
            logger.warning("the store answers again")

    @property
    def _is_outage(self) -> bool:
        """Whether the store, or a server of it, is not asked for a while."""
        return self._watched is not None and self._watched.is_away
