"""Draining: what begins it, who is told, and how SIGTERM is kept from the server until it is over.

A process drains as one, however many layers of it do: in guards that an app mounts, or under a server each. What begins
one of them begins all, and SIGTERM is handed on once, after the longest of their waits.
"""

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

from asgi_guard.chain.exchange import current

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
    return None if exchange is None or exchange.draining is None else exchange.draining.event


class Draining:
    """One layer's part in the drain of this process.

    Args:
        seconds: how long SIGTERM is kept from the server; 0 leaves it alone.
        on_signal: the name of a signal that begins draining, too.
        file: a file that does, once it is there, or once it is touched if it was there before.
        siblings: whether other processes take the requests of one that leaves since it has served its number.

    Attributes:
        seconds: the same.
        event: is set once draining has begun, in the loop that serves.
        event_loop: that loop, if it is known.
        begun: whether it has.
        unready: whether new requests are for other processes.
    """

    def __init__(
        self, seconds: float, on_signal: DrainSignal | None = None, file: str | None = None, *, siblings: bool = False
    ) -> None:
        self.seconds = seconds
        self._signal = None if on_signal is None else getattr(signal, on_signal)
        self._file = None if file is None else Path(file)
        self._siblings = siblings
        self._left_over: int | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.event_loop: asyncio.AbstractEventLoop | None = None
        self._set_ups: list[list[_Taken]] = []
        self._down = False
        self.event = asyncio.Event()
        self.begun = self.unready = False

    @property
    def is_set_up(self) -> bool:
        """Whether this process's triggers are in their places, or are not to be any more."""
        return self._loop is not None or self._down

    @property
    def lives(self) -> bool:
        """Whether its event loop may serve requests."""
        return self._loop is not None and not self._loop.is_closed()

    def set_up(self, *, late: bool = False) -> None:
        """Take the signals over, and look for the file. SIGTERM is left to a server that has its event loop handle it.

        Several servers of one app set it up once each, and take it down as often.

        Args:
            late: whether requests are served already, by a server without lifespan. SIGTERM is then taken over only
                from a handler, for without one there is nobody to hand it on to.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if not self.lives:
                self._set_ups.clear()
            self._loop = self.event_loop = loop
            self._down = False
            self.event, self.begun, self.unready = asyncio.Event(), False, False
            if self._file is not None:
                self._look_from_now_on(self._file, loop)
        PROCESS.join(self)
        self._set_ups.append(self._take_signals(late=late))

    def take_down(self) -> None:
        """Give everything back. A request that still comes finds the process as it is, draining or not."""
        taken = self._set_ups.pop() if self._set_ups else []
        if not self._set_ups:
            self._loop, self._down = None, True
            if self._looking is not None:
                self._looking.cancel()
            PROCESS.leave(self)
        for each in taken:
            each.release(self)

    def allow_late(self) -> None:
        """Have it set up again by requests that still come."""
        self._down = False
        if self._loop is None:
            self.event_loop = None

    def follow(self) -> None:
        """Go on in the loop in hand if the last one is closed: clients of tests may run one for each request."""
        if self.event_loop is not None and not self.event_loop.is_closed():
            return
        self.event, self.event_loop = asyncio.Event(), asyncio.get_running_loop()
        if self.begun:
            self.event.set()
        if self._loop is not None:
            self._loop = self.event_loop
            if self._file is not None:
                self._looking = self._loop.call_later(LOOK_SECONDS, self._look)

    def begin(self) -> None:
        """Have it known: to readiness, to streams and sockets, and to HTTP/1 clients with their next answer."""
        PROCESS.begin()
        self.note()  # where it is not set up, too

    def recycle(self) -> None:
        """Drain and end, as if SIGTERM had come: whoever supervises this process starts another one."""
        if not self.begun:
            PROCESS.recycle()

    def note(self, *, recycling: bool = False) -> bool:
        """Note that this process drains, recycling or otherwise: whether that is news."""
        unready = self.unready or not (recycling and self._siblings)
        news = not self.begun or unready is not self.unready
        self.begun, self.unready = True, unready
        if self._loop is None:
            self.event.set()
        elif news:
            self.call(self.event.set)
        return news

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Have something called by the loop that serves, from wherever this is: a thread, or a signal's handler."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed, and nobody is left to be told
                self._loop.call_soon_threadsafe(function, *args)

    def listen_no_more(self) -> bool:
        """Have the servers take no more connections: whether there are any that let others see to it."""
        listeners = [listener for taken in self._set_ups for each in taken for listener in each.listeners]
        for listener in listeners:
            self.call(listener.close)
        return bool(listeners)

    def _take_signals(self, *, late: bool) -> list[_Taken]:
        if threading.current_thread() is not threading.main_thread():
            if self._signal is not None:
                logger.warning("%s does not drain: this is not the main thread", signal.Signals(self._signal).name)
            return []
        numbers = [] if self._signal is None else [self._signal]
        handler = signal.getsignal(signal.SIGTERM)
        if self.seconds > 0 and not _is_of_a_loop(handler) and (callable(handler) or not late):
            numbers.append(signal.SIGTERM)
        return [_take(number, self) for number in numbers]

    def _look_from_now_on(self, file: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._left_over = self._touched()
        if self._left_over is not None:
            logger.warning("%s is left over: it drains once it is touched", file)
        # Not Path's own, which raises where it may not look.
        elif not os.path.isdir(file.parent):  # noqa: PTH112 - for that reason
            logger.warning("%s cannot be made to drain: its folder does not exist", file)
        self._looking = loop.call_later(LOOK_SECONDS, self._look)

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


class _Taken:
    """A signal that was taken from its handler, on behalf of whoever joins in.

    Args:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._before = signal.getsignal(number)
        # Its master sends it all workers for their logs: log rotation would end the service.
        if number == getattr(signal, "SIGUSR1", None) and callable(self._before) and _is_gunicorns():
            logger.warning("SIGUSR1 is gunicorn's own: who has it reopen its logs drains all workers; take SIGUSR2")
        self.users: list[Draining] = []
        signal.signal(number, self.handle)

    @property
    def should_exit(self) -> bool:
        """Whether the server is about to stop, as it says itself: libraries that end streams ask SIGTERM's handler."""
        return bool(getattr(getattr(self._before, "__self__", None), "should_exit", False))

    @property
    def listeners(self) -> list[Any]:
        """What uvicorn listens with, if the handler is uvicorn's."""
        found = getattr(getattr(self._before, "__self__", None), "servers", None)
        return found if isinstance(found, list) else []

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal in the place of who did before."""
        if number == signal.SIGTERM:
            PROCESS.on_sigterm(self, frame)
            return
        PROCESS.begin()
        if callable(self._before):
            self._before(number, frame)

    def hand_on(self, frame: FrameType | None) -> None:
        """Give the signal back, and have it handled as it would have been."""
        self._give_back()
        if callable(self._before):
            self._before(self._number, frame)
        else:
            signal.raise_signal(self._number)

    def release(self, user: Draining) -> None:
        """Give the signal back once nobody needs it any more."""
        self.users.remove(user)
        if not any(each.lives for each in self.users) and signal.getsignal(self._number) == self.handle:
            self._give_back()

    def _give_back(self) -> None:
        signal.signal(self._number, self._before if self._before is not None else signal.SIG_DFL)


class _Process:
    """The drain of this process: who takes part, and the time from SIGTERM to the server's own stop."""

    def __init__(self) -> None:
        self._members: list[Draining] = []
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._timer: threading.Timer | None = None
        self._signalled: float | None = None
        self._over = False

    def join(self, member: Draining) -> None:
        """Drain together with it from now on, at once if this process does already."""
        others = [each for each in self._alive() if each is not member]
        if not others and not member.begun:
            self._start_afresh()
        self._members = [*others, member]  # before it is looked, for a signal may begin in between
        if any(each.begun for each in others):
            member.note(recycling=not any(each.unready for each in others))

    def leave(self, member: Draining) -> None:
        """Go on without it. SIGTERM that is kept for nobody any more is due at once."""
        self._members = [each for each in self._alive() if each is not member]
        if not self._members and self._timer is not None:
            self._stop_timer()
            if not self._over and _taken(signal.SIGTERM) is not None:
                self._end()

    def begin(self, *, recycling: bool = False) -> None:
        """Have all know it, and leave the log to a loop: what a signal interrupts may be writing to it, with its locks.

        Args:
            recycling: whether it is since this process has served its number of requests.
        """
        members = self._alive()
        news = [each.note(recycling=recycling) for each in members]
        if any(news):
            why = "it has served its number of requests" if recycling else "not ready for new requests"
            members[0].call(logger.warning, "draining: %s", why)

    def recycle(self) -> None:
        """Begin, and have SIGTERM come at the end."""
        self.begin(recycling=True)
        self._after(max((each.seconds for each in self._alive()), default=0), self._listen_no_more)

    def on_sigterm(self, taken: _Taken, frame: FrameType | None) -> None:
        """Drain first, unless whoever sends new requests was told before that there are to be none.

        A second signal is handed on: whoever sends it does not want to wait. Under gunicorn it is not, whose arbiter
        repeats it every second to a worker that is one too many.
        """
        now = time.monotonic()
        if not self._over:
            if self._signalled is not None and (now - self._signalled < ECHO_SECONDS or _is_gunicorns()):
                return
            is_first, self._signalled = self._signalled is None, now
            waits = [each.seconds for each in self._alive() if not each.unready]
            if waits:
                self._after(max(waits), self._listen_no_more)  # first, so that this process ends whatever happens
                self.begin()
                return
            if is_first and self._timer is not None:
                return  # it has served its number, and ends after the drain that is under way
            self._over = True
            if self._timer is not None:
                for member in self._alive()[:1]:
                    member.call(logger.warning, "draining: another SIGTERM ends it early")
        self._stop_timer()
        taken.hand_on(frame)

    def _alive(self) -> list[Draining]:
        return [each for each in self._members if each.lives]

    def _after(self, seconds: float, call: Callable[[], None]) -> None:
        # A thread of its own, for the event loop may be busy, and the signal has to come again whatever happens.
        self._stop_timer()
        self._timer = threading.Timer(seconds, call)
        self._timer.daemon = True
        self._timer.start()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _listen_no_more(self) -> None:
        """Have uvicorn take no more connections, and a moment later stop.

        At its stop it closes those whose request has not arrived yet, unheard. New ones are for the other workers of
        this socket, if there are any; of other servers nothing is known, and they stop at once.
        """
        closing = [each.listen_no_more() for each in self._alive()]
        if any(closing):
            self._after(LAST_SECONDS, self._end)
        else:
            self._end()

    def _end(self) -> None:
        self._over = True
        _signal_main_thread(signal.SIGTERM)


PROCESS = _Process()


def _take(number: int, user: Draining) -> _Taken:
    """Take a signal, or join in where it is taken already."""
    taken = _taken(number) or _Taken(number)
    taken.users.append(user)
    return taken


def _taken(number: int) -> _Taken | None:
    found = getattr(signal.getsignal(number), "__self__", None)
    return found if isinstance(found, _Taken) else None


def _is_gunicorns() -> bool:
    """Tell whether this process is a worker of gunicorn's."""
    # The arbiter's module is there, too, where another server runs an app that can start gunicorn; a worker's is not.
    return "gunicorn.workers.base" in sys.modules


def _is_of_a_loop(handler: Any) -> bool:
    """Tell whether this only stands in for a callback of the event loop, which nobody but the loop could call."""
    return getattr(handler, "__module__", "").partition(".")[0] in ("asyncio", "uvloop")


def _signal_main_thread(number: int) -> None:
    """Send this process a signal where its handlers run: in another thread, it would not wake a sleeping event loop."""
    if sys.platform == "win32":
        signal.raise_signal(number)
    else:
        signal.pthread_kill(threading.main_thread().ident or 0, number)
