"""Processes that are started, waited for, told to stop, and gone in any case when their context is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ROOT = Path(__file__).parents[2]
PATIENCE = 45.0
"""Seconds that a process has to start, or to stop, on a busy machine."""


class StuckError(Exception):
    """Something did not happen in time. The text says what, and what the processes wrote."""


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listened on a moment ago, no two the same."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_for(what: str, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait until a condition holds.

    Raises:
        StuckError: it does not, in this time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise StuckError(f"not in {seconds:.0f} s: {what}")
        time.sleep(0.02)


def get(port: int, path: str) -> bytes | None:
    """The body of the answer to a GET by a connection of its own, if that is 200."""
    received = b""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        while part := connection.recv(4096):
            received += part
    head, _, body = received.partition(b"\r\n\r\n")
    return body if head.startswith(b"HTTP/1.1 200") else None


def answers(port: int, path: str) -> bool:
    """Whether a GET is answered with 200."""
    return get(port, path) is not None


def alive(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Processes:
    """All that one front needs, each in a process group of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._all: list[subprocess.Popen[bytes]] = []

    def start(
        self, command: Sequence[str], environ: Mapping[str, str] | None = None, inherited: Sequence[int] = ()
    ) -> subprocess.Popen[bytes]:
        """Start a command. Python's own packages are found from the checkout, whatever it is run in."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ASGI_GUARD_")}
        with (self.folder / "errors").open("ab") as errors:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, cwd=ROOT,
                env={**kept, **(environ or {})}, pass_fds=inherited, start_new_session=True,
            )  # fmt: skip
        self._all.append(process)
        return process

    def python(
        self, module: str, *arguments: str, environ: Mapping[str, str] | None = None, inherited: Sequence[int] = ()
    ) -> subprocess.Popen[bytes]:
        """Start a module of this Python."""
        return self.start([sys.executable, "-m", module, *arguments], environ, inherited)

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """Stop a process as an orchestrator does, and wait until it has ended."""
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)

    def errors(self) -> str:
        """The end of what they wrote."""
        return (self.folder / "errors").read_text("utf-8", "replace")[-2000:]

    def kill(self) -> None:
        """End them all, with whatever they have started themselves."""
        for process in self._all:
            with suppress(ProcessLookupError):  # the group outlives its first process for as long as others are in it
                os.killpg(process.pid, signal.SIGKILL)
        for process in self._all:
            process.wait()


@contextmanager
def processes(folder: Path) -> Iterator[Processes]:
    """Processes that are gone when the context is left; SIGTERM leaves it too."""
    made = Processes(folder)
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield made
    except StuckError as error:
        raise StuckError(f"{error}\n{made.errors()}") from error
    finally:
        made.kill()
        signal.signal(signal.SIGTERM, previous)
