"""Starts the command line's servers as processes, as a user would, and stops them as an orchestrator would."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
READY_SECONDS = 30
STOP_SECONDS = 20


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listened on a moment ago, and that the system gives to no connection."""
    while True:
        port = 10_000 + secrets.randbelow(5_000)  # below those of the stores, too
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@dataclass
class Served:
    """A server that runs, or has run.

    Attributes:
        url: where.
        process: the process.
        out: the file of its standard output, and
        err: of its standard error.
    """

    url: str
    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def log(self) -> list[dict[str, Any]]:
        """The lines of the access log; every line of standard output has to be one."""
        return [orjson.loads(line) for line in self.out.read_bytes().splitlines()]

    def line(self, request_id: str) -> dict[str, Any]:
        """The one line of a request, which is written once its response is over."""
        deadline = time.monotonic() + STOP_SECONDS
        while not (found := [line for line in self.log() if line.get("request_id") == request_id]):
            assert time.monotonic() < deadline, f"no line of {request_id}"
            time.sleep(0.02)
        (line,) = found
        return line

    def errors(self) -> str:
        return self.err.read_text()

    def wait_until_ready(self, path: str = "/health/ready") -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"it ended with {self.process.returncode}: {self.errors()}")
            try:
                if httpx.get(self.url + path).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"it was not ready in {READY_SECONDS} s: {self.errors()}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end: the exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)


@contextmanager
def serve(tmp_path: Path, *arguments: str, port: int, **environment: str) -> Iterator[Served]:
    """Run `asgi-guard ARGUMENTS` until the context is left; of the guard's variables only those given are set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ASGI_GUARD_")}
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "asgi_guard", *arguments],
            stdout=stdout,
            stderr=stderr,
            cwd=ROOT,
            env={**kept, "HOME": str(tmp_path), **environment},
            start_new_session=True,
        )
        served = Served(f"http://127.0.0.1:{port}", process, out, err)
        try:
            served.wait_until_ready()
            yield served
        finally:
            with suppress(ProcessLookupError):  # workers know nothing of a parent that is killed: all go at once
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
