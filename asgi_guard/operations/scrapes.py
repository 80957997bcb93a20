"""Scrapes: what a registry holds is written by a thread, since it may take seconds, and the event loop serves on."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextvars import copy_context
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakValueDictionary

from asgi_guard.operations.instruments import exposition

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

LONGEST = 60.0
"""Seconds after which a scrape is given up, which is longer than scrapers wait."""

Written: TypeAlias = "Future[tuple[bytes, str]]"


class Scrapes:
    """Answers the scrapes of a registry, one at a time.

    Those that come while another is answered wait for the next one together, if they accept the same: however many
    come, few wait, and each is told all that was counted before it came.

    Args:
        registry: what is told.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._turn = threading.Lock()
        self._last: WeakValueDictionary[str, Written] = WeakValueDictionary()

    async def ask(self, accept: str) -> tuple[bytes, str]:
        """What the registry holds, and the format's name.

        Args:
            accept: the formats that the scraper accepts, as it says it.

        Raises:
            TimeoutError: it took longer than anyone waits: a collector hangs, or the folder of the files.
        """
        written = self._last.get(accept)
        if written is None or written.running() or written.done():
            written = self._start(accept)
        # One that is cancelled cancels it for no other. One that hangs is not to keep the server from ending.
        async with asyncio.timeout(LONGEST):
            return await asyncio.shield(asyncio.wrap_future(written))

    def _start(self, accept: str) -> Written:
        written: Written = Future()
        # A thread of its own: those of the loop may all be at the app's work, and a process that ends waits for them.
        run = copy_context().run
        arguments = (self._write, written, accept)
        threading.Thread(target=run, args=arguments, name="asgi-guard scrape", daemon=True).start()
        self._last[accept] = written
        return written

    def _write(self, written: Written, accept: str) -> None:
        with self._turn:
            written.set_running_or_notify_cancel()
            try:
                written.set_result(exposition(self._registry, accept))
            except BaseException as error:  # noqa: BLE001 - whatever it is, those who wait for it are told
                written.set_exception(error)
