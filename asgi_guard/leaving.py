"""Draining: what begins it, who is told, and how SIGTERM is kept from the server until it is over."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from asgi_guard.exchange import current

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

logger = logging.getLogger("asgi_guard")

SCOPE_KEY = "asgi_guard.draining"
"""Where the app finds the event in its scope."""
LOOK_SECONDS = 0.25
"""How often it is looked whether the file is there."""
ECHO_SECONDS = 1.0
"""From a SIGTERM on, how long another counts as the same: service managers send it to all processes of a service, and
a parent among them hands its own on to its workers."""
LAST_SECONDS = 0.5
"""From the last new connection to the server's own stop, for the requests that are on their way by then."""

DrainSignal: TypeAlias = Literal["SIGUSR1", "SIGUSR2"]


def draining() -> asyncio.Event | None:
    """The event that is set once this process drains, for the request in hand; None where draining is off.

    Tasks that the request has started find it too, and those among them that go on when it is over.

    What serves a stream or a WebSocket waits for it beside what it waits for anyhow, and then ends in good order.
    """
    exchange = current.get()
    return None if exchange is None or exchange.leaving is None else exchange.leaving.event


class Draining:
    """One process that is to leave without losing a request.

    Args:
        seconds: how long SIGTERM is kept from the server; 0 leaves it alone.
        on_signal: the name of a signal that begins draining, too.
        file: a file that does, once it is there, or once it is touched if it was there before.
        siblings: whether other processes take the requests of one that leaves since it has served its number.

    Attributes:
        event: is set once draining has begun, in the loop that serves.
        begun: whether it has.
        recycling: whether it has since this process has served its number of requests.
    """

    def __init__(
        self, seconds: float, on_signal: DrainSignal | None = None, file: str | None = None, *, siblings: bool = False
    ) -> None:
        self._seconds = seconds
        self._signal = None if on_signal is None else getattr(signal, on_signal)
        self._file = None if file is None else Path(file)
        self._siblings = siblings
        self._left_over: int | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._before: dict[int, Any] = {}
        self._timer: threading.Timer | None = None
        self.event = asyncio.Event()
        self.begun = False
        self.recycling = False
        self._down = False
        self._signalled: float | None = None

    @property
    def should_exit(self) -> bool:
        """Whether the server is about to stop, as it says itself: libraries that end streams ask SIGTERM's handler."""
        server = getattr(self._before.get(signal.SIGTERM), "__self__", None)
        return bool(getattr(server, "should_exit", False))

    @property
    def unready(self) -> bool:
        """Whether this process wants no new requests."""
        return self.begun and not (self.recycling and self._siblings)

    @property
    def is_set_up(self) -> bool:
        """Whether this process's triggers are in their places, or are not to be any more."""
        return self._loop is not None or self._down

    def set_up(self, *, late: bool = False) -> None:
        """Take the signals over, and look for the file. SIGTERM is left to a server that has its event loop handle it.

        Args:
            late: whether requests are served already, by a server without lifespan. SIGTERM is then taken over only
                from a handler, for without one there is nobody to hand it on to.
        """
        self._loop, self._down = asyncio.get_running_loop(), False
        self.event, self.begun, self.recycling, self._signalled = asyncio.Event(), False, False, None
        if threading.current_thread() is threading.main_thread():
            handler = signal.getsignal(signal.SIGTERM)
            if self._seconds > 0 and not _is_of_a_loop(handler) and (callable(handler) or not late):
                self._take(signal.SIGTERM, self._on_sigterm)
            if self._signal is not None:
                self._take(self._signal, self._on_signal)
        elif self._signal is not None:
            logger.warning("%s does not drain: this is not the main thread", signal.Signals(self._signal).name)
        if self._file is not None:
            self._left_over = self._touched()
            if self._left_over is not None:
                logger.warning("%s is left over: it drains once it is touched", self._file)
            # Not Path's own, which raises where it may not look.
            elif not os.path.isdir(self._file.parent):  # noqa: PTH112 - for that reason
                logger.warning("%s cannot be made to drain: its folder does not exist", self._file)
            self._looking = self._loop.call_later(LOOK_SECONDS, self._look)

    def take_down(self) -> None:
        """Give everything back. A request that still comes finds the process as it is, draining or not."""
        self._loop, self._down = None, True
        if self._looking is not None:
            self._looking.cancel()
        if self._timer is not None:
            self._timer.cancel()
        for number, handler in ((signal.SIGTERM, self._on_sigterm), (self._signal, self._on_signal)):
            if number in self._before and signal.getsignal(number) == handler:
                signal.signal(number, self._before.pop(number))

    def begin(self) -> None:
        """Have it known: to readiness, to streams and sockets, and to HTTP/1 clients with their next answer."""
        if not self.begun:
            self.begun = True
            self._log()
            self._have_known(self.event.set)

    def recycle(self) -> None:
        """Drain and end, as if SIGTERM had come: whoever supervises this process starts another one."""
        if not self.begun:
            self.recycling = True
            self.begin()
            self._end_later(signal.SIGTERM)

    def _begin_in_handler(self) -> None:
        """Begin, and leave the log to the loop: what a signal interrupts may be writing to it, and hold its locks."""
        if not self.begun:
            self.begun = True
            self._have_known(self._log, self.event.set)

    def _have_known(self, *calls: Callable[[], object]) -> None:
        loop = self._loop
        if loop is None:  # nothing is served, so there is no drain to log
            self.event.set()
            return
        with suppress(RuntimeError):  # the loop is closed, and nobody is left to be told
            for call in calls:
                loop.call_soon_threadsafe(call)

    def _log(self) -> None:
        why = "it has served its number of requests" if self.recycling else "not ready for new requests"
        logger.warning("draining: %s", why)

    def _take(self, number: int, handler: Any) -> None:
        self._before[number] = signal.getsignal(number)
        signal.signal(number, handler)

    def _look(self) -> None:
        if self._loop is None or self.begun:
            return
        if self._touched() not in (None, self._left_over):
            self.begin()
        else:
            self._looking = self._loop.call_later(LOOK_SECONDS, self._look)

    def _touched(self) -> int | None:
        try:
            return self._file.stat().st_mtime_ns if self._file is not None else None
        except OSError:
            return None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._begin_in_handler()
        if callable(before := self._before.get(number)):
            before(number, frame)

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._signalled is not None and now - self._signalled < ECHO_SECONDS:
            return
        self._signalled = now
        if self.begun:
            self._hand_on(number, frame)  # a second signal: whoever sends it does not want to wait
            return
        self._end_later(number)  # first of all, so that this process ends whatever happens
        self._begin_in_handler()

    def _end_later(self, number: int) -> None:
        # A thread of its own, for the event loop may be busy, and the signal has to come again whatever happens.
        self._after(self._seconds, self._listen_no_more, number)

    def _after(self, seconds: float, call: Callable[[int], None], number: int) -> None:
        self._timer = threading.Timer(seconds, call, [number])
        self._timer.daemon = True
        self._timer.start()

    def _listen_no_more(self, number: int) -> None:
        """Have uvicorn take no more connections, and a moment later stop.

        At its stop it closes those whose request has not arrived yet, unheard. New ones are for the other workers of
        this socket, if there are any; of other servers nothing is known, and they stop at once.
        """
        listeners = getattr(getattr(self._before.get(number), "__self__", None), "servers", None)
        if not isinstance(listeners, list) or self._loop is None:
            self._end(number)
            return
        for listener in listeners:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(listener.close)
        self._after(LAST_SECONDS, self._end, number)

    def _end(self, number: int) -> None:
        self._signalled = None  # this is no echo
        _signal_main_thread(number)

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        before = self._before.pop(number, None)
        signal.signal(number, before if before is not None else signal.SIG_DFL)
        if callable(before):
            before(number, frame)
        else:
            signal.raise_signal(number)


def _is_of_a_loop(handler: Any) -> bool:
    """Tell whether this only stands in for a callback of the event loop, which nobody but the loop could call."""
    return getattr(handler, "__module__", "").partition(".")[0] in ("asyncio", "uvloop")


def _signal_main_thread(number: int) -> None:
    """Send this process a signal where its handlers run: in another thread, it would not wake a sleeping event loop."""
    if sys.platform == "win32":
        signal.raise_signal(number)
    else:
        signal.pthread_kill(threading.main_thread().ident or 0, number)
