"""Lines on standard output that never hold up the event loop, however slow whoever reads them is.

- A file takes a line at once, so it is written at once.
- A pipe, a socket or a terminal (a container's log, a service's journal) takes what it has room for, without waiting.
  Once it has none, a thread waits in the loop's place and lines queue up for it, in order; when the last one is out,
  lines are written at once again.
- The queue is bounded. Lines beyond it are dropped and counted, and a line of the log tells how many.
- While something else stands for standard output, as `contextlib.redirect_stdout` puts it there, lines go to where they
  went before, until that is closed: what one request captures is not to hold the lines of others.
- Lines that cannot be written, since the disk is full or nobody reads any more, are dropped and counted too. What was
  written in part spoils no other: the next one begins a line of its own.
- On a clean exit the queue is written to its end, as long as the reader reads.
"""

from __future__ import annotations

import atexit
import logging
import os
import select
import socket
import stat
import sys
import threading
import weakref
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("asgi_guard")

MAX_QUEUED_BYTES = 4 * 1024 * 1024
"""What waits for a slow reader: some ten thousand lines."""
PATIENCE = 5.0
"""Seconds without any progress after which an exit waits no longer."""
PTMX = 5 << 8 | 2
"""Linux's /dev/ptmx. Every opening of it makes a terminal, so the one in hand cannot be opened anew."""


class _Place(NamedTuple):
    """Where a stream leads: its descriptor, and what that is."""

    descriptor: int
    kind: int
    device: int
    inode: int


class _Output:
    """One opening of standard output, and how to write to it without waiting.

    Attributes:
        stream: what stands for standard output.
        place: where that leads; None for something in Python.
        lasting: whether that is standard output, and what takes its place while it is open only captures.
        send: writes what there is room for; None for what takes a line at once.
        put: writes to what takes a line at once, and tells how much of it.
        wait: waits until there is room.
    """

    def __init__(self, stream: TextIO, place: _Place | None) -> None:
        self.stream, self.place = stream, place
        self.lasting = stream is sys.__stdout__
        self.send: Callable[[bytes], int] | None = None
        self.wait: Callable[[], object] = int
        self._at_once = False
        buffer: BinaryIO | None = getattr(stream, "buffer", None)
        self.put: Callable[[bytes], int]
        self.put = partial(_put_text, stream) if buffer is None else partial(_put_through, buffer)
        if place is not None:
            self._open(place)

    def _open(self, place: _Place) -> None:
        if sys.platform == "win32":
            return  # whose consoles take bytes from Python's own stream only
        descriptor = place.descriptor
        if not _may_wait(place):
            self.put = partial(os.write, descriptor)  # half as dear as by the stream's buffer
            return
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        self.wait, self._at_once = poll.poll, True
        if place.kind == stat.S_IFSOCK:
            connection = socket.socket(fileno=os.dup(descriptor))
            weakref.finalize(self, connection.close)
            self.send = partial(_send_to, connection)
            return
        try:
            own = _open_anew(descriptor)
        except OSError:
            self._at_once = False  # no such thing here: the thread writes all
            self.send = partial(os.write, descriptor)
        else:
            weakref.finalize(self, os.close, own)
            self.send = partial(os.write, own)

    @property
    def is_gone(self) -> bool:
        """Whether its stream was closed, or leads elsewhere by now."""
        return _place(self.stream) != self.place

    def put_rest(self, rest: bytes) -> None:
        """Write the rest of a line that was put in part. If that fails, the next line begins with a newline.

        What `send` writes to needs none: a pipe takes a line whole or not at all, and a socket or a terminal that has
        failed takes no more.
        """
        put, self.put = self.put, partial(self._put_after_part, self.put)
        _put_all(put, rest)
        self.put = put

    def _put_after_part(self, put: Callable[[bytes], int], line: bytes) -> int:
        _put_all(put, b"\n" + line)
        self.put = put
        return len(line)

    def sent(self, line: bytes) -> int:
        """How much of a line could be written at once."""
        if not self._at_once or self.send is None:
            return 0
        try:
            return self.send(line)
        except BlockingIOError:
            return 0


class LineWriter:
    """Writes lines to standard output.

    Args:
        tell: makes the line that tells how many were dropped.
        limit: bytes that may wait for a slow reader.

    Attributes:
        dropped: lines that were dropped so far.
    """

    def __init__(self, tell: Callable[[int], bytes], limit: int = MAX_QUEUED_BYTES) -> None:
        self._tell = tell
        self._limit = limit
        self.dropped = 0
        self._output: _Output | None = None
        self._failing = False  # whether it was told that lines are lost, and none was written since
        self._start_anew()
        _writers.add(self)

    def _start_anew(self) -> None:
        """Queue nothing and run no thread: at first, and in a forked process, whose parent writes what was queued."""
        self._changed = threading.Condition()
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._untold = 0
        self._draining = False
        self._given_up = False  # whether an exit has waited in vain, and nothing was read since

    def open(self) -> None:
        """Find out where standard output leads, before any request captures what is printed."""
        stream: TextIO | None = sys.stdout
        if stream is not None:
            self._follow(stream, at_start=True)

    def write(self, line: bytes) -> None:
        """Write a line, or queue it. One that cannot be written is dropped, which is told in the guard's own log."""
        output, stream = self._output, sys.stdout
        try:
            if output is None or stream is not output.stream:
                if stream is None:  # as where it was closed, or Windows runs a program without a console
                    self._lose(1, OSError("there is no standard output"))
                    return
                output = self._follow(stream)
            if output.send is None:
                output.stream.flush()  # what the app has printed comes first
                done = output.put(line)
                if done != len(line):
                    output.put_rest(line[done:])
                self._failing = False
                return
            with self._changed:
                if not self._draining:
                    output.stream.flush()  # what the app has printed comes first, and whole
                    line = line[output.sent(line) :]
                    if not line:
                        self._failing = False
                        return
                self._enqueue(output, line)
        except (OSError, ValueError) as error:  # the latter where the stream was closed
            self._lose(1, error)

    def _enqueue(self, output: _Output, line: bytes) -> None:
        """Let a line wait for the thread, which is started if it does not run."""
        if not self._draining:
            self._draining = True
            atexit.register(self.flush)
            threading.Thread(target=self._drain, args=(output,), name="asgi-guard log", daemon=True).start()
        elif self._queued + len(line) > self._limit:
            self._untold += 1
            self.dropped += 1
            return
        self._queue.append(line)
        self._queued += len(line)

    def _lose(self, count: int, error: Exception) -> None:
        """Count lines that cannot be written, and tell so once, until one can be."""
        with self._changed:
            self.dropped += count
            told, self._failing = self._failing, True
        if not told:
            logger.error(
                "lines of the access log are lost until it can be written again, %d so far: %r", self.dropped, error
            )

    def flush(self, patience: float = PATIENCE) -> bool:
        """Wait until nothing is queued. False if for so many seconds nothing was read, now or when it waited last."""
        with self._changed:
            while self._draining and not self._given_up:
                if not self._changed.wait(patience):
                    self._given_up = True
                    logger.error("%d lines of the access log are lost: nobody reads them", len(self._queue) + 1)
            return not self._draining

    def _follow(self, stream: TextIO, *, at_start: bool = False) -> _Output:
        """What to write to, now that another stream stands for standard output."""
        place, now = _place(stream), self._output
        if now is not None and now.place is not None and not now.is_gone:
            if place == now.place:
                now.stream, now.lasting = stream, now.lasting or at_start
                return now
            if place is None or (now.lasting and not at_start):
                # This captures what is printed, for whoever put it there: lines of other requests are not for them.
                return now
        self._output = now = _Output(stream, place)  # the one before closes what it opened once its last line is out
        now.lasting = now.lasting or at_start
        return now

    def _drain(self, output: _Output) -> None:
        """Write what is queued, and what comes meanwhile (the thread)."""
        send = output.send
        assert send is not None  # noqa: S101 - the thread is started for what has it
        while True:
            with self._changed:
                if self._queue:
                    line = self._queue.popleft()
                    self._queued -= len(line)
                elif self._untold:
                    line, self._untold = self._tell(self._untold), 0
                else:
                    self._end()
                    return
            try:
                while line:
                    output.wait()
                    try:
                        line = line[send(line) :]
                    except BlockingIOError:
                        continue  # another process took the room
            except OSError as error:
                with self._changed:
                    lost = len(self._queue) + 1
                    self._queue.clear()
                    self._queued = self._untold = 0
                self._lose(lost, error)
                continue
            with self._changed:
                self._failing = self._given_up = False
                self._changed.notify_all()

    def _end(self) -> None:
        self._draining = self._given_up = False
        atexit.unregister(self.flush)
        self._changed.notify_all()


def _place(stream: TextIO) -> _Place | None:
    """Where a stream leads; None for something in Python, such as a test's capture, and for what was closed."""
    try:
        descriptor = stream.fileno()
        found = os.fstat(descriptor)
    except (AttributeError, OSError, ValueError):
        return None
    return _Place(descriptor, stat.S_IFMT(found.st_mode), found.st_dev, found.st_ino)


def _may_wait(place: _Place) -> bool:
    """Whether what is written there waits for whoever reads it."""
    if place.kind == stat.S_IFCHR:
        return os.isatty(place.descriptor)  # and /dev/null is none
    return place.kind in (stat.S_IFIFO, stat.S_IFSOCK)


def _open_anew(descriptor: int) -> int:
    """An opening of our own: "do not wait" said of the shared one would hold for every process that has it.

    Raises:
        OSError: there is no such thing here.
    """
    if os.fstat(descriptor).st_rdev == PTMX:
        raise OSError("another opening would be another terminal")
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY  # else a session without a terminal would get it
    return os.open(f"/proc/self/fd/{descriptor}", flags)


def _put_all(put: Callable[[bytes], int], line: bytes) -> None:
    while line:
        line = line[put(line) :]


def _put_through(buffer: BinaryIO, line: bytes) -> int:
    buffer.write(line)
    buffer.flush()
    return len(line)


def _put_text(stream: TextIO, line: bytes) -> int:
    stream.write(line.decode())
    return len(line)


def _send_to(connection: socket.socket, line: bytes) -> int:
    return connection.send(line, socket.MSG_DONTWAIT)


_writers: weakref.WeakSet[LineWriter] = weakref.WeakSet()


def _start_anew() -> None:
    for writer in _writers:
        writer._start_anew()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_start_anew)
