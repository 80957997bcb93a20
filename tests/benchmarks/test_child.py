"""What a benchmark starts for itself is gone when it is, and says nothing to that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from benchmarks.child import child

if TYPE_CHECKING:
    from tests.stores.server import Server

AS_IN_A_TERMINAL = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
"""A shell lets what it runs in the background ignore interrupts, these tests too."""
MEMORY = "from benchmarks.memory import run; run._strangers(run.FULL, lambda _: None)"
SCALE = """
import sys
from benchmarks.limits.servers import target
from benchmarks.scale import workers
with target(sys.argv[1]) as store:
    workers.measure(store, (2,), 1, 30)
"""


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="children are told in /proc")
@pytest.mark.parametrize("late", [0.1, pytest.param(1.5, marks=pytest.mark.long)])
@pytest.mark.parametrize(("code", "count"), [(MEMORY, 1), (SCALE, 2)], ids=["memory", "scale"])
def test_an_interrupt_is_told_by_the_parent_alone(server: Server, code: str, count: int, late: float) -> None:
    """A terminal interrupts all that it runs; children that start, or work, are ended and print no traceback."""
    command = [sys.executable, "-c", AS_IN_A_TERMINAL + code, server.url]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as running:
        deadline = time.monotonic() + 20
        while len(started := children(running.pid)) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(late)
        os.killpg(running.pid, signal.SIGINT)
        _, said = running.communicate(timeout=20)
    assert len(started) == count
    assert said.count("Traceback") == 1
    assert said.endswith("KeyboardInterrupt\n")
    for each in started:
        with pytest.raises(ProcessLookupError):
            os.kill(each, 0)


def until_asked(folder: Path) -> None:
    """Wait until a server, whose socket is in a folder in this one, is under load."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(redis.RedisError):
            for path in folder.glob("*/s"):
                if "cmdstat_evalsha" in redis.Redis(unix_socket_path=str(path)).info("commandstats"):
                    return
        time.sleep(0.02)
    raise TimeoutError(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="children are told in /proc")
@pytest.mark.parametrize(
    ("before", "signals", "status"),
    [
        ("", [signal.SIGHUP, signal.SIGHUP], 129),
        ("", [signal.SIGHUP, signal.SIGTERM], 129),
        ("", [signal.SIGTERM, signal.SIGHUP], 143),
        ("trap '' HUP; ", [signal.SIGHUP, signal.SIGTERM], 143),
    ],
    ids=["closed terminal", "closed and terminated", "terminated and closed", "nohup"],
)
def test_a_server_is_ended_with_its_benchmark(
    tmp_path: Path, before: str, signals: list[signal.Signals], status: int
) -> None:
    """Whether it is terminated or its terminal is closed, which `nohup` has it pass over; its folder goes too."""
    command = ["sh", "-c", f'{before}exec "$0" -m benchmarks limits --quick', sys.executable]
    where, nowhere = {**os.environ, "TMPDIR": str(tmp_path)}, subprocess.DEVNULL
    with subprocess.Popen(command, start_new_session=True, env=where, stdout=nowhere, stderr=nowhere) as running:
        until_asked(tmp_path)
        started = children(running.pid)
        for number in signals:
            running.send_signal(number)
            time.sleep(0.01)
        assert running.wait(timeout=20) == status
    left = []
    for each in started:
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
            left.append(each)
    assert (bool(started), left, [*tmp_path.iterdir()]) == (True, [], [])


def test_a_child_is_waited_for() -> None:
    """Who does not break off has its child end by itself."""
    with child([sys.executable, "-c", "print(1)"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.read() == "1\n"
    assert process.returncode == 0
