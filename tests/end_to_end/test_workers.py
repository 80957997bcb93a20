"""`asgi-guard run --workers`: what its parent process does on signals, and how it ends."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.cli.conftest import program
from tests.end_to_end.serving import STOP_SECONDS, free_port, serve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.end_to_end.serving import Served

SOURCE = """
import os
from pathlib import Path

if Path(__file__).with_name("broken").exists():
    raise LookupError("no key")

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        if Path(__file__).with_name("full").exists():
            await send({"type": "lifespan.startup.failed", "message": "no disk"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % os.getpid()})
"""
PATIENCE = 60.0
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="these signals are of POSIX")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an app that cannot start once there is a file called `full`, nor be loaded with one `broken`."""
    (tmp_path / "worker_site.py").write_text(SOURCE)
    return tmp_path


def command(folder: Path, port: int) -> tuple[str, ...]:
    return ("run", "worker_site:app", "--app-dir", str(folder), "--port", str(port), "--workers", "2")


def worker(served: Served) -> int:
    """The worker that answers a new connection, once one does: one that ends may have taken it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return int(httpx.get(served.url).raise_for_status().text)
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def await_workers(served: Served, enough: Callable[[set[int]], bool]) -> set[int]:
    """Those that answer, once they are enough."""
    deadline = time.monotonic() + PATIENCE
    found: set[int] = set()
    while not enough(found):
        assert time.monotonic() < deadline, f"{found} answer: {served.errors()}"
        found.add(worker(served))
    return found


def test_workers_that_cannot_start(folder: Path) -> None:
    """The exit code is 3, as it is with one worker, and the app's own words are told."""
    (folder / "full").touch()
    ran = program(*command(folder, free_port()))
    assert (ran.code, ran.out) == (3, "")
    assert "no disk" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.long
@pytest.mark.parametrize(("file", "told"), [("full", "no disk"), ("broken", "no key")])
def test_a_worker_that_cannot_start_in_anothers_place(folder: Path, file: str, told: str) -> None:
    """Where a worker has ended, and the next one cannot start or not even load the app, all end, with exit code 3."""
    port = free_port()
    with serve(folder, *command(folder, port), port=port) as served:
        await_workers(served, lambda found: len(found) == 2)
        (folder / file).touch()
        os.kill(worker(served), signal.SIGKILL)
        assert served.process.wait(STOP_SECONDS) == 3
        assert told in served.errors()


@pytest.mark.long
def test_signals_of_the_parent(folder: Path) -> None:
    """SIGTTIN adds a worker, SIGHUP has all replaced, and SIGTTOU takes one away."""
    port = free_port()
    with serve(folder, *command(folder, port), port=port) as served:
        served.process.send_signal(signal.SIGTTIN)
        first = await_workers(served, lambda found: len(found) == 3)
        served.process.send_signal(signal.SIGHUP)
        await_workers(served, lambda found: len(found - first) == 3)
        served.process.send_signal(signal.SIGTTOU)
        deadline = time.monotonic() + PATIENCE
        while "decreasing number of processes" not in served.errors():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert served.stop() == 0


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop(folder: Path, number: signal.Signals) -> None:
    """A stop by a signal ends with exit code 0, also while one of the workers only starts."""
    port = free_port()
    with serve(folder, *command(folder, port), port=port) as served:
        assert served.stop(number) == 0
