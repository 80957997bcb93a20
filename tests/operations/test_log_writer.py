"""Lines on standard output, whoever reads them and however slowly: real pipes, sockets, files and processes."""

from __future__ import annotations

import asyncio
import fcntl
import io
import json
import os
import pty
import resource
import socket
import subprocess
import sys
import termios
import threading
import tty
from array import array
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asgi_guard.middleware import AccessLogMiddleware
from asgi_guard.operations.log_writer import LineWriter
from tests.asgi import Echo, get

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LINE = b"x" * 400
MANY = 1000
"""More such lines than a pipe or a socket has room for."""
DEADLINE = 60


def tell(count: int) -> bytes:
    return b"dropped %d\n" % count


def numbered(count: int) -> list[bytes]:
    return [b"%06d%s\n" % (number, LINE) for number in range(count)]


def read_until(descriptor: int, is_over: Callable[[bytes], bool]) -> list[bytes]:
    """Read lines until what was read is all that is waited for."""
    found = b""
    while not is_over(found):
        part = os.read(descriptor, 65536)
        assert part, "nobody writes any more"
        found += part
    return found.splitlines(keepends=True)


def read_exactly(descriptor: int, count: int) -> bytes:
    """Read what a terminal may give in parts."""
    return b"".join(read_until(descriptor, lambda found: len(found) >= count))


@contextmanager
def standard_output(writing: int) -> Iterator[None]:
    """Let standard output be a descriptor. Not as a fixture: pytest sets its own after those."""
    before = sys.stdout
    with os.fdopen(writing, "w") as stream:
        sys.stdout = stream
        try:
            yield
        finally:
            sys.stdout = before


@contextmanager
def read_through(kind: str) -> Iterator[int]:
    """Let standard output be a pipe, a socket or a terminal, and get its other end."""
    if kind == "terminal":
        reading, writing = pty.openpty()
        tty.setraw(writing)  # else every newline is sent as two characters
    else:
        reading, writing = os.pipe() if kind == "pipe" else (end.detach() for end in socket.socketpair())
    with standard_output(writing):
        yield reading
    os.close(reading)


whoever_reads = pytest.mark.parametrize("kind", ["pipe", "socket", "terminal"])


@whoever_reads
def test_at_once(kind: str) -> None:
    """A line is written when it comes, after what the app has printed before it, and nothing is left to wait for."""
    with read_through(kind) as reading_end:
        writer = LineWriter(tell)
        sys.stdout.write("printed\n")
        writer.write(b"one\n")
        assert read_exactly(reading_end, 12) == b"printed\none\n"
        assert writer.flush(0)


@whoever_reads
def test_a_slow_reader(kind: str) -> None:
    """Whoever does not read holds nobody up; once they read they get all, in order, and lines come at once again."""
    with read_through(kind) as reading_end:
        writer, lines = LineWriter(tell), numbered(MANY)
        for line in lines:
            writer.write(line)
        assert read_until(reading_end, lambda found: len(found) >= sum(map(len, lines))) == lines
        assert writer.flush(DEADLINE)
        assert writer.dropped == 0
        writer.write(b"later\n")
        assert os.read(reading_end, 100) == b"later\n"


def test_a_reader_that_is_slow_again_and_again() -> None:
    """What has been read makes room for as much, however often: lines are dropped for what waits now alone."""
    with read_through("pipe") as reading_end:
        writer, lines = LineWriter(tell, limit=150_000), numbered(350)
        for _ in range(4):
            for line in lines:  # more than a pipe has room for, by less than may wait
                writer.write(line)
            assert not writer.flush(0)
            assert read_until(reading_end, lambda found: len(found) >= sum(map(len, lines))) == lines
            assert writer.flush(DEADLINE)
        assert writer.dropped == 0


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_a_reader_is_waited_for_at_rest(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While there is no room, nothing is tried again and again."""
    tried, write = [], os.write

    def counted(descriptor: int, data: bytes) -> int:
        tried.append(descriptor)
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", counted)
    with read_through(kind) as reading_end:
        writer, lines = LineWriter(tell), numbered(MANY)
        for line in lines:
            writer.write(line)
        assert not writer.flush(0.2)
        assert len(tried) < 2 * MANY
        read_until(reading_end, lambda found: len(found) >= sum(map(len, lines)))
        assert writer.flush(DEADLINE)


@whoever_reads
def test_what_is_dropped_is_told(kind: str) -> None:
    """Beyond the bound lines are dropped, whole ones, and a line tells how many, after those that were kept."""
    with read_through(kind) as reading_end:
        writer, lines = LineWriter(tell, limit=20_000), numbered(MANY)
        for line in lines:
            writer.write(line)
        assert 0 < writer.dropped < MANY
        found = read_until(reading_end, lambda found: b"dropped" in found and found.endswith(b"\n"))
        kept = found[:-1]
        assert found[-1] == tell(writer.dropped)
        assert len(kept) == MANY - writer.dropped
        assert kept == [line for line in lines if line in set(kept)]
        assert writer.flush(DEADLINE)


@whoever_reads
def test_a_reader_that_never_reads(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """An exit does not wait for ever, and tells what is lost."""
    with read_through(kind) as reading_end:
        writer, lines = LineWriter(tell), numbered(MANY)
        for line in lines:
            writer.write(line)
        assert writer.flush(0.01) is False
        assert "nobody reads them" in caplog.text
        read_until(reading_end, lambda found: len(found) >= sum(map(len, lines)))
        assert writer.flush(DEADLINE)


@pytest.mark.parametrize("reads", [True, False])
def test_an_exit_waits_once(reads: bool, caplog: pytest.LogCaptureFixture) -> None:
    """An exit does not wait again for a reader for whom a stop has waited in vain; for the next reader it does."""
    writer, lines = LineWriter(tell), numbered(MANY)
    for times in (1, 2):
        with read_through("pipe") as reading_end:
            for line in lines:
                writer.write(line)
            for _ in range(2):
                assert writer.flush(0.01) is False
            assert caplog.text.count("nobody reads them") == times
            if reads:
                read_until(reading_end, lambda found: len(found) >= sum(map(len, lines)))
        for thread in threading.enumerate():
            if thread.name == "asgi-guard log":
                thread.join(DEADLINE)


@pytest.mark.parametrize("waiting", [None, 4_000_000, 20_000])
def test_a_reader_that_leaves(waiting: int | None, caplog: pytest.LogCaptureFixture) -> None:
    """Lines that nobody will read are dropped and counted once, whether they wait or come later, and told of once."""
    reading, writing = os.pipe()
    with standard_output(writing):
        writer, lines = LineWriter(tell, limit=waiting or 0), numbered(MANY if waiting else 0)
        for line in lines:
            writer.write(line)
        written = unread(reading) // len(lines[0]) if waiting else 0
        os.close(reading)
        assert writer.flush(DEADLINE)
        lost = writer.dropped
        assert lost == len(lines) - written
        for _ in range(3):
            writer.write(b"x\n")
        assert writer.dropped == lost + 3
        (told,) = caplog.messages
        assert f"{lost or 1} so far: BrokenPipeError" in told


def unread(descriptor: int) -> int:
    """How many bytes are in a pipe."""
    found = array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, found)
    return found[0]


def test_a_reader_that_leaves_once_standard_output_has_changed(caplog: pytest.LogCaptureFixture) -> None:
    """What waited for it is lost, later lines too that had to wait behind; then all is as it was before, for the next.

    So each reader that leaves is told of.
    """
    lines, size = numbered(MANY), sum(map(len, numbered(MANY)))
    writer, lost = LineWriter(tell, limit=size), 0
    for left in (1, 2):
        reading, writing = os.pipe()
        with standard_output(writing):
            for line in lines:
                writer.write(line)
            lost += MANY - unread(reading) // len(lines[0]) + 1
            with read_through("pipe") as second:
                writer.write(b"behind\n")
                os.close(reading)
                assert writer.flush(DEADLINE)
                assert writer.dropped == lost
                assert f"{lost} so far: BrokenPipeError" in caplog.messages[-1]
                assert len(caplog.messages) == left
                for line in lines:
                    writer.write(line)
                assert read_until(second, lambda found: len(found) >= size) == lines
                assert writer.flush(DEADLINE)
    assert writer.dropped == lost


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Let no file grow beyond a size, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What there is no room for is counted, and told of once; the next line that fits is one of its own."""
    path, lines = tmp_path / "log", numbered(9)
    with standard_output(os.open(path, os.O_WRONLY | os.O_CREAT)):
        writer = LineWriter(tell)
        with room_for(1000):
            for line in lines[:5]:
                writer.write(line)
        assert writer.dropped == 3
        for line in lines[5:7]:
            writer.write(line)
        assert len(caplog.messages) == 1
        with room_for(path.stat().st_size):
            for line in lines[7:]:
                writer.write(line)
        writer.write(b"last\n")
    part = lines[2][: 1000 - len(lines[0] + lines[1])]
    assert path.read_bytes() == b"".join([*lines[:2], part, b"\n", *lines[5:7], b"last\n"])
    assert writer.dropped == 5
    assert [message.partition(" so far")[0][-1] for message in caplog.messages] == ["1", "4"]


async def test_requests_on_a_full_disk(caplog: pytest.LogCaptureFixture) -> None:
    """A log that cannot be written is no error of any request."""
    with standard_output(os.open("/dev/full", os.O_WRONLY)):
        log = AccessLogMiddleware(Echo())
        for _ in range(3):
            assert (await get(log)).status == 200
    assert log.dropped == 3
    (told,) = caplog.messages
    assert "1 so far: OSError" in told


def test_a_stream_that_was_closed(caplog: pytest.LogCaptureFixture) -> None:
    """Where the app has closed standard output, lines are counted as dropped."""
    with read_through("pipe"):
        writer = LineWriter(tell)
        writer.write(b"one\n")
        sys.stdout.close()
        writer.write(b"two\n")
        writer.write(b"three\n")
    assert writer.dropped == 2
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_without_an_opening_of_our_own(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the pipe cannot be opened anew, a thread writes every line, and all arrive in order."""

    def refuse(*_: object) -> int:
        raise PermissionError

    with read_through(kind) as reading:
        monkeypatch.setattr(os, "open", refuse)
        writer, lines = LineWriter(tell), numbered(MANY)
        for line in lines:
            writer.write(line)
        assert read_until(reading, lambda found: len(found) >= sum(map(len, lines))) == lines
        assert writer.flush(DEADLINE)


def test_the_other_end_of_a_terminal() -> None:
    """What a program writes to a terminal that it has made itself arrives there, and at no new one."""
    writing, reading = pty.openpty()
    tty.setraw(reading)
    with standard_output(writing):
        writer = LineWriter(tell)
        writer.write(b"one\n")
        assert writer.flush(DEADLINE)
        assert os.read(reading, 100) == b"one\n"
    os.close(reading)


def test_a_file(tmp_path: Path) -> None:
    """A file has a line as soon as it was written, after what the app has printed before it."""
    path = tmp_path / "log"
    with standard_output(os.open(path, os.O_WRONLY | os.O_CREAT)):
        writer = LineWriter(tell)
        for line in (b"one\n", b"two\n"):
            sys.stdout.write("printed\n")
            writer.write(line)
            assert path.read_bytes().endswith(b"printed\n" + line)


def test_a_stream_of_text_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands for standard output without taking bytes has its lines as text."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    LineWriter(tell).write(b'{"a":"\xc3\xa9"}\n')
    assert stream.getvalue() == '{"a":"\u00e9"}\n'


def test_a_stream_of_python_that_takes_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands for standard output without a descriptor, and takes bytes, has a line as soon as it was written."""
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, "utf-8"))
    LineWriter(tell).write(b"one\n")
    assert buffer.getvalue() == b"one\n"


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@pytest.mark.parametrize("kind", ["pipe", "socket", "terminal", "file"])
def test_what_others_capture(kind: str, tmp_path: Path) -> None:
    """What captures what is printed gets no lines of the log, which go on to where they went, and opens nothing."""
    path = tmp_path / "log"
    with (
        read_through(kind) if kind != "file" else standard_output(os.open(path, os.O_WRONLY | os.O_CREAT))
    ) as reading_end:
        writer = LineWriter(tell)
        writer.write(b"0\n")
        before = descriptors()
        for number in range(1, 50):
            with redirect_stdout(io.StringIO()) as captured:
                sys.stdout.write("printed\n")
                writer.write(b"%d\n" % number)
            writer.write(b"-\n")
            assert captured.getvalue() == "printed\n"
        assert descriptors() <= before
        expected = b"0\n" + b"".join(b"%d\n-\n" % number for number in range(1, 50))
        found = path.read_bytes() if reading_end is None else read_exactly(reading_end, len(expected))
        assert found == expected


@pytest.mark.parametrize("known", ["by the start", "by its name"])
def test_what_others_capture_in_a_file(known: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file captures no lines either, where it is known what standard output is: at the start, or by its name."""
    with read_through("pipe") as reading_end:
        writer = LineWriter(tell)
        if known == "by the start":
            writer.open()
        else:
            monkeypatch.setattr(sys, "__stdout__", sys.stdout)
        writer.write(b"one\n")
        before = descriptors()
        with (tmp_path / "captured").open("w+") as captured, redirect_stdout(captured):
            sys.stdout.write("printed\n")
            writer.write(b"two\n")
            captured.seek(0)
            assert captured.read() == "printed\n"
        writer.write(b"three\n")
        assert descriptors() <= before
        assert os.read(reading_end, 100) == b"one\ntwo\nthree\n"


@pytest.mark.parametrize("way", ["closed", "leads elsewhere"])
def test_what_takes_the_place_of_what_is_gone(way: str, tmp_path: Path) -> None:
    """Once standard output, as it was at the start, is closed or leads elsewhere, lines go to what stands there now."""
    with read_through("pipe"):
        writer = LineWriter(tell)
        writer.open()
        writer.write(b"one\n")
        before = sys.stdout
        with (tmp_path / "log").open("w") as rotated, redirect_stdout(rotated):
            if way == "closed":
                before.close()
            else:
                os.dup2(rotated.fileno(), before.fileno())
            writer.write(b"two\n")
        assert (tmp_path / "log").read_text() == "two\n"


def test_another_start(tmp_path: Path) -> None:
    """What stands for standard output when a server starts again is standard output, though the one before is open."""
    with read_through("pipe") as reading_end:
        writer = LineWriter(tell)
        writer.open()
        writer.write(b"one\n")
        with (tmp_path / "log").open("w") as other, redirect_stdout(other):
            writer.open()
            writer.write(b"two\n")
        writer.write(b"three\n")
        assert os.read(reading_end, 100) == b"one\nthree\n"
    assert (tmp_path / "log").read_text() == "two\n"


async def test_who_captures_before_the_first_line() -> None:
    """Where standard output leads is known from the app's start, whoever captures what its first request prints."""
    with read_through("pipe") as reading_end:
        log = AccessLogMiddleware(Echo())
        await log.startup()
        with redirect_stdout(io.StringIO()) as captured:
            await get(log)
        assert json.loads(os.read(reading_end, 4096))["url.path"] == "/"
        assert captured.getvalue() == ""


async def test_a_stop_waits() -> None:
    """A stop of the app ends once a slow reader has the last line: a server may end the process by a signal then."""
    with read_through("pipe") as reading_end:
        log = AccessLogMiddleware(Echo())
        for _ in range(MANY):
            await get(log)
        stop = asyncio.create_task(log.shutdown())
        assert not (await asyncio.wait([stop], timeout=0.1))[0]
        found = await asyncio.to_thread(read_until, reading_end, lambda found: found.count(b"\n") == MANY)
        assert len(found) == MANY
        await asyncio.wait_for(stop, DEADLINE)


@whoever_reads
def test_another_stream_of_the_same_place(kind: str) -> None:
    """Another stream by the same descriptor is written to by what is open already, after what it was printed."""
    with read_through(kind) as reading_end:
        writer = LineWriter(tell)
        writer.write(b"one\n")
        before = descriptors()
        with redirect_stdout(os.fdopen(sys.stdout.fileno(), "w", closefd=False)) as other:
            other.write("printed\n")
            writer.write(b"two\n")
        assert descriptors() <= before
        assert read_exactly(reading_end, 16) == b"one\nprinted\ntwo\n"


@whoever_reads
def test_standard_output_that_changes(kind: str) -> None:
    """Lines follow standard output to another descriptor and back, and what was open for the one before is closed."""
    with read_through(kind) as first:
        writer = LineWriter(tell)
        writer.write(b"one\n")
        before = descriptors()
        for _ in range(20):
            with read_through(kind) as second:
                writer.write(b"two\n")
                assert os.read(second, 100) == b"two\n"
            writer.write(b"one\n")
        assert descriptors() <= before
        assert read_exactly(first, 84) == b"one\n" * 21


@whoever_reads
def test_what_waits_for_a_slow_reader_when_standard_output_changes(kind: str) -> None:
    """Lines that wait go to where they were to go, though standard output has changed since."""
    with read_through(kind) as first:
        writer, lines = LineWriter(tell), numbered(MANY)
        for line in lines:
            writer.write(line)
        with read_through(kind):
            writer.write(b"last\n")
        assert read_until(first, lambda found: found.endswith(b"last\n")) == [*lines, b"last\n"]
        assert writer.flush(DEADLINE)


def test_a_descriptor_that_leads_elsewhere(tmp_path: Path) -> None:
    """Once the stream was closed that lines went to, its number may be anything's: they go to what there is now."""
    with standard_output(os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)):
        writer = LineWriter(tell)
        writer.write(b"one\n")
        number = sys.stdout.fileno()
    other = os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT)
    assert other == number
    with redirect_stdout(io.StringIO()) as captured:
        writer.write(b"two\n")
    os.close(other)
    assert captured.getvalue() == "two\n"
    assert (tmp_path / "other").read_bytes() == b""
    assert (tmp_path / "log").read_bytes() == b"one\n"


def test_no_standard_output(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Where there is none, lines are dropped, counted, and told of once."""
    monkeypatch.setattr(sys, "stdout", None)
    writer = LineWriter(tell)
    for _ in range(3):
        writer.write(b"one\n")
    assert writer.dropped == 3
    (told,) = caplog.messages
    assert "1 so far: OSError('there is no standard output')" in told


SERVICE = """
import asyncio, os, sys
from asgi_guard import AccessLogMiddleware

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})

async def ignore(message):
    pass

async def main(guarded):
    for number in range(2000):
        scope = {"type": "http", "method": "GET", "path": f"/{number}", "headers": []}
        await guarded(scope, None, ignore)

asyncio.run(main(AccessLogMiddleware(app)))
if "fork" in sys.argv and os.fork() == 0:
    sys.exit()  # the child has nothing to write, and nothing to wait for
sys.stderr.write("served")
sys.stderr.close()
"""


@pytest.mark.parametrize("way", ["alone", "fork"])
def test_a_clean_exit(way: str) -> None:
    """A process serves 2,000 requests while nobody reads its log, and then ends only when all of it was read."""
    # Since Python 3.12 a fork beside a thread is warned of; here it is just what is tried.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", SERVICE, way]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.read(6) == b"served"
        found = [json.loads(line)["url.path"] for line in process.stdout]
        assert process.wait(DEADLINE) == 0
    assert found == [f"/{number}" for number in range(2000)]


UNREAD = (
    SERVICE.partition('if "fork"')[0]
    + """
from asgi_guard.operations.log_writer import LineWriter
LineWriter.flush.__defaults__ = (0.05,)  # instead of the seconds that it waits
"""
)


def test_an_exit_that_nobody_reads() -> None:
    """A process whose log nobody reads ends all the same, and tells that lines are lost."""
    with subprocess.Popen([sys.executable, "-c", UNREAD], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.wait(DEADLINE) == 0
        finally:
            process.kill()
        assert process.stderr is not None
        assert b"nobody reads them" in process.stderr.read()
