"""The store in memory, in a process of its own whose resident memory is read.

`python -m benchmarks.limits.memory KEYS STORES MAX_KEYS` fills each of so many stores with so many keys, asks again,
and prints what it took as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import random
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from asgi_guard import MemoryStore
from asgi_guard.policy.bucket import Admission, Charge
from asgi_guard.policy.rates import parse_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

STATUS = Path("/proc/self/status")
CHUNK = 1000
AGAIN = 10_000
"""Checks of keys that are there already."""
(LIMIT,) = parse_limits("5/hour by ip")


@dataclass(frozen=True, slots=True)
class Memory:
    """What a store in memory took.

    Attributes:
        keys: different keys that were checked.
        held: how many of them it held at the end.
        max_keys: how many it may hold.
        first: microseconds for the first check of a key.
        again: microseconds for another check of a key, in no order.
        bytes_per_key: resident memory that each key held added, the text of the key included.
        peak: MiB that the process's resident memory grew by at the most.
    """

    keys: int
    held: int
    max_keys: int
    first: float
    again: float
    bytes_per_key: float
    peak: float


def supported() -> bool:
    """Whether this system tells a process's resident memory where we look for it."""
    return STATUS.exists()


def measure(
    sizes: Sequence[int], at_least: int, flood: int, max_keys: int, passed: Callable[[float], None]
) -> tuple[list[Memory], Memory]:
    """Fill stores of several sizes; and meet a store that is full with more addresses than it may hold.

    Args:
        sizes: keys.
        at_least: keys in all, so that a page more or less does not count: several stores are filled
            where one holds fewer.
        flood: addresses that the full store meets.
        max_keys: how many it may hold.
        passed: is told which share of this part is done, each time.
    """
    share = 1 / (len(sizes) + 1)
    filled = []
    for size in sizes:
        filled.append(_elsewhere(size, max(1, at_least // size), size))
        passed(share)
    flooded = _elsewhere(flood, 1, max_keys)
    passed(share)
    return filled, flooded


def _elsewhere(keys: int, stores: int, max_keys: int) -> Memory:
    command = [sys.executable, "-m", __name__, str(keys), str(stores), str(max_keys)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=300)
    return Memory(**orjson.loads(done.stdout))


def resident(field: str = "VmRSS") -> int:
    """Bytes of this process's memory that are resident; or were at the most, as VmHWM."""
    for line in STATUS.read_text("ascii").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise LookupError(field)


def address(index: int) -> str:
    """The address of a client, which none of the proxies in `subjects` has."""
    return f"100.{index >> 16 & 255}.{index >> 8 & 255}.{index & 255}"


def _admissions(indices: Sequence[int]) -> list[Admission]:
    return [Admission((Charge(LIMIT, f"{LIMIT.name}:{address(index)}"),)) for index in indices]


def _chunks(indices: Sequence[int]) -> Iterator[Sequence[int]]:
    for first in range(0, len(indices), CHUNK):
        yield indices[first : first + CHUNK]


async def _microseconds(store: MemoryStore, indices: Sequence[int]) -> float:
    """Per check. The questions are made beforehand, a few at a time, so that they take neither time nor memory."""
    spent = 0
    for chunk in _chunks(indices):
        admissions = _admissions(chunk)
        started = time.perf_counter_ns()
        for admission in admissions:
            await store.admit(admission)
        spent += time.perf_counter_ns() - started
    return spent / len(indices) / 1000


async def fill(keys: int, count: int, max_keys: int) -> Memory:
    """Measure in this process."""
    warm = MemoryStore()
    await _microseconds(warm, range(CHUNK))
    del warm
    chosen = [random.Random(0).randrange(keys) for _ in range(AGAIN)]  # noqa: S311 - nothing is to be kept secret
    gc.collect()
    before = resident()
    stores = [MemoryStore(max_keys=max_keys) for _ in range(count)]
    first = [await _microseconds(store, range(keys)) for store in stores]
    gc.collect()
    after = resident()
    again = await _microseconds(stores[0], chosen)
    held = sum(len(store) for store in stores)
    peak = (resident("VmHWM") - before) / 2**20
    return Memory(keys, held // count, max_keys, sum(first) / len(first), again, (after - before) / held, peak)


def main(keys: str, stores: str, max_keys: str) -> None:
    """Measure, from the command line."""
    print(orjson.dumps(asdict(asyncio.run(fill(int(keys), int(stores), int(max_keys))))).decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
