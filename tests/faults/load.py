"""Requests that go on while something breaks, and what became of them."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from asgi_guard.errors import StoreUnavailableError
from tests.stores.server import PATIENCE, ask, limit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from asgi_guard.stores import Store

DEEP = limit("1/15m burst 30000 by ip")
"""A limit that no test reaches, and that gives nothing back while one runs."""
SLACK = 3.0
"""Seconds beyond its deadline that a call may take on a busy machine before it counts as one that hangs."""


@dataclass
class Count:
    """What became of the calls for one key."""

    answered: int = 0
    unavailable: int = 0
    since: int = 0  # answered since `Load.mark`


@dataclass
class Load:
    """Calls one after the other for each key. Whatever is neither an answer nor unavailable ends the test."""

    store: Store
    counts: dict[str, Count] = field(default_factory=dict)
    longest: float = 0.0
    hopeless: int = 0  # unavailable, without a time after which to come again
    over: bool = False

    async def _go_on(self, key: str) -> None:
        count = self.counts[key]
        while not self.over:
            started = time.monotonic()
            try:
                verdict = await self.store.admit(ask(key, rule=DEEP))
            except StoreUnavailableError as error:
                count.unavailable += 1
                self.hopeless += error.retry_after <= 0
                await asyncio.sleep(0.002)  # an open breaker answers without any wait
            else:
                assert verdict.admitted
                count.answered += 1
                count.since += 1
            self.longest = max(self.longest, time.monotonic() - started)
            await asyncio.sleep(0)

    def mark(self) -> None:
        """Begin to count anew who is answered."""
        for count in self.counts.values():
            count.since = 0

    async def all_answered(self, times: int, *keys: str) -> None:
        """Wait until every key, or each of these, has been answered so many times from now on."""
        self.mark()
        async with asyncio.timeout(PATIENCE):
            while any(self.counts[key].since < times for key in keys or self.counts):  # noqa: ASYNC110 - calls tell nobody
                await asyncio.sleep(0.01)

    async def some_unavailable(self, key: str) -> None:
        """Wait until calls for a key have been told that the store does not answer."""
        before = self.counts[key].unavailable
        async with asyncio.timeout(PATIENCE):
            while self.counts[key].unavailable == before:  # noqa: ASYNC110 - calls tell nobody
                await asyncio.sleep(0.005)

    def report(self, what: str) -> None:
        """Print what `pytest -s` shows."""
        answered = sum(count.answered for count in self.counts.values())
        unavailable = sum(count.unavailable for count in self.counts.values())
        print(f"\n{what}: {answered} answered, {unavailable} unavailable, longest call {self.longest * 1000:.0f} ms")  # noqa: T201 - figures are what it is for


@asynccontextmanager
async def load(store: Store, keys: Sequence[str]) -> AsyncIterator[Load]:
    """Make calls while inside, for all keys at once."""
    made = Load(store, {key: Count() for key in keys})
    async with asyncio.TaskGroup() as group:
        for key in keys:
            group.create_task(made._go_on(key))
        try:
            yield made
        finally:
            made.over = True


async def taken(store: Store, key: str) -> int:
    """How many units of a bucket were taken."""
    return DEEP.burst - (await store.admit(ask(key, 0, DEEP))).readings[0].remaining
