"""Server processes: started, asked once, timed, ended."""

from __future__ import annotations

import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import httpx

from benchmarks import subjects
from benchmarks.child import child
from benchmarks.server.serve import WITHOUT_STORE
from benchmarks.subjects import not_installed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.server.serve import Served

PATIENCE = 60.0
"""Seconds that a server has to start and to answer its first request, and as many to end."""


KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")
"""What servers see of the environment."""


NEEDED = ("uvicorn", "uvloop", "httptools")
"""What servers serve with."""


def absence() -> str | None:
    """Why no server can be measured here, or None if they can."""
    if platform.system() != "Linux":
        return "the CPU time of other processes is read on Linux only"
    return not_installed(NEEDED)


@dataclass(slots=True)
class Running:
    """A server that runs.

    Attributes:
        port: of 127.0.0.1.
        pid: of its process.
        without_store: once it has ended, how many requests it judged without its store, which was too slow.
    """

    port: int
    pid: int
    without_store: int = 0


class UnfitError(Exception):
    """A server did not answer as it should. The text is what it said."""


def cpu_seconds(pid: int) -> float:
    """What a process has used so far, in user and system mode, all its threads together.

    Linux has a clock for every process, whose number is made of its id (clock_getcpuclockid(3) does the same); it is
    exact to the microsecond, where /proc/PID/stat counts in hundredths of a second.
    """
    return time.clock_gettime((~pid << 3) | 2)


@contextmanager
def serving(served: Served, token: str, under: Sequence[str] = ()) -> Iterator[Running]:
    """A server that has answered a request.

    Args:
        served: what it serves.
        token: that it is asked with.
        under: a program that runs it, with its options: so much slower that its first answers may be no good ones.

    Raises:
        UnfitError: it did not answer as it should.
        TimeoutExpired: it did not end, and was killed.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener, tempfile.TemporaryFile("w+") as errors:
        port: int = listener.getsockname()[1]
        descriptor = listener.fileno()
        command = [*under, sys.executable, "-m", "benchmarks.server.serve", served.to_json(), str(descriptor)]
        with _started(command, descriptor, errors) as process:
            problem = _ask(port, token, process, lenient=bool(under))
            if problem is not None:
                errors.seek(0)
                raise UnfitError(f"{served.stack} around {served.app}: {problem}\n{errors.read()}")
            running = Running(port, process.pid)
            yield running
        running.without_store = _without_store(errors)


@contextmanager
def _started(command: Sequence[str], descriptor: int, errors: IO[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has this descriptor, and ends with its input, or is killed."""
    files: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": errors}
    with child(command, **files, pass_fds=(descriptor,), env=_environ()) as process:
        assert process.stdin is not None
        yield process
        process.stdin.close()
        process.wait(PATIENCE)


def _without_store(said: IO[str]) -> int:
    """What a server that has ended said of the requests that it judged without its store."""
    said.seek(0)
    found = re.search(rf"^{WITHOUT_STORE}(\d+)$", said.read(), re.MULTILINE)
    return 0 if found is None else int(found[1])


def _environ() -> dict[str, str]:
    """Of ours only what Python needs: some packages look through all of it for every request."""
    return {name: os.environ[name] for name in KEPT if name in os.environ}


def _ask(port: int, token: str, process: subprocess.Popen[bytes], *, lenient: bool) -> str | None:
    """What is wrong with its answer, if anything. The socket is open before the server runs."""
    said = "it does not answer"
    url = f"http://127.0.0.1:{port}{subjects.PATH}?{subjects.QUERY}"
    deadline = time.monotonic() + (4 * PATIENCE if lenient else PATIENCE)
    while process.poll() is None and time.monotonic() < deadline:
        try:
            answer = httpx.get(url, headers=subjects.headers(token), timeout=1, trust_env=False)
        except httpx.TimeoutException:
            continue
        if answer.status_code == 200:
            return None
        said = f"{answer.status_code} {answer.text}"
        if not lenient:
            break
        time.sleep(1)
    return f"{said} (exit code {process.returncode})"
