"""What a benchmark starts for itself is gone when it is, and says nothing to that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.child import child

if TYPE_CHECKING:
    from tests.stores.server import Server

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
    command = [sys.executable, "-c", code, server.url]
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


def test_a_child_is_waited_for() -> None:
    """Who does not break off has its child end by itself."""
    with child([sys.executable, "-c", "print(1)"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.read() == "1\n"
    assert process.returncode == 0
