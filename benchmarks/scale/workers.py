"""Worker processes that share one store: `python -m benchmarks.scale.workers URL SECONDS` is one of them.

It says so on a line once it is ready, begins once it is told a line, and prints the checks that it made and the CPU
time that they took it, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from benchmarks.child import child
from benchmarks.limits.contenders import Setup, ours
from benchmarks.limits.servers import PREFIX, Counters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.limits.servers import Target

TASKS = 64
"""Checks under way in each process."""


async def _check(url: str, seconds: float) -> dict[str, float]:
    limiter = await ours().open(Setup(url, windows=2, revocation=True, prefix=f"{PREFIX}workers:"))
    try:
        await asyncio.gather(*(limiter.check(f"client-{number}") for number in range(TASKS)))
        print("ready", flush=True)
        sys.stdin.readline()
        until = time.perf_counter() + seconds
        began, cpu = time.perf_counter(), time.process_time()

        async def ask(number: int) -> int:
            made = 0
            while time.perf_counter() < until:
                await limiter.check(f"client-{number}-{made % 100}")
                made += 1
            return made

        made = sum(await asyncio.gather(*map(ask, range(TASKS))))
        return {"checks": made, "cpu": time.process_time() - cpu, "seconds": time.perf_counter() - began}
    finally:
        await limiter.aclose()


def measure(target: Target, sizes: Sequence[int], rounds: int, seconds: float) -> dict[int, list[tuple[float, float]]]:
    """For each number of processes and round: checks a second of all together, and microseconds of CPU time a check.

    Args:
        target: the server.
        sizes: numbers of processes.
        rounds: how often each has its turn.
        seconds: of a turn.
    """
    found: dict[int, list[tuple[float, float]]] = {size: [] for size in sizes}
    for _ in range(rounds):
        for size in sizes:
            counters = Counters(target.client)
            said = _together(target.url, size, seconds)
            assert counters.since()[0], "the server counted no call"
            checks = sum(one["checks"] for one in said)
            rate = sum(one["checks"] / one["seconds"] for one in said)
            found[size].append((rate, sum(one["cpu"] for one in said) / checks * 1e6))
    return found


def _together(url: str, size: int, seconds: float) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", __name__, url, str(seconds)]
    with ExitStack() as stack:
        running = [
            stack.enter_context(child(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for _ in range(size)
        ]
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", "a worker process did not start"
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return [json.loads(process.communicate(timeout=seconds + 60)[0]) for process in running]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_check(sys.argv[1], float(sys.argv[2])))))
