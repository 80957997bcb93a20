"""What settings say reaches the layers, and the store, as it was said."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest
from pydantic import SecretStr

from asgi_guard import (
    DrainMiddleware,
    Guard,
    GuardSettings,
    HealthSettings,
    MemoryStore,
    RateSettings,
    RedisStore,
    StoreSettings,
)
from asgi_guard.middleware import drain
from asgi_guard.operations.readiness import CHECK_TIMEOUT
from asgi_guard.stores import own_clock
from tests.asgi import Echo, get
from tests.middleware.draining import Server, readiness

RATE = RateSettings(limit="1000/hour by ip")


@pytest.mark.parametrize("url", ["redis://h", "redis+sentinel://h/service", "redis+cluster://h"])
def test_a_shared_store(url: str) -> None:
    """A shared store has the prefix and the patience that were said."""
    section = StoreSettings(url=SecretStr(url), prefix="shop:", timeout=0.2)
    store = Guard(Echo(), GuardSettings(store=section, rate=RATE)).store
    assert repr(store) == f"{type(store).__name__}(prefix='shop:', timeout=0.2)"


@pytest.mark.parametrize(("clock", "own"), [("server", False), ("worker", True)])
def test_whose_time_counts(clock: Literal["server", "worker"], own: bool) -> None:
    """A shared store goes by the worker's clock where that was said, and else by the server's."""
    store = Guard(Echo(), GuardSettings(store=StoreSettings(url=SecretStr("redis://h"), clock=clock), rate=RATE)).store
    assert isinstance(store, RedisStore)
    assert (store._clock is own_clock) is own


async def test_the_room_of_the_memory() -> None:
    """The memory holds as many buckets as were said, and no more."""
    guard = Guard(Echo(), GuardSettings(store=StoreSettings(max_keys=1000), rate=RATE))
    for number in range(1010):
        assert (await get(guard, client=(f"10.0.{number >> 8}.{number & 255}", 1))).status == 200
    assert isinstance(guard.store, MemoryStore)
    assert len(guard.store) == 1000


async def test_the_time_of_a_check() -> None:
    """A check that takes longer than checks have by default passes, where they were given more."""

    async def slow() -> None:
        await asyncio.sleep(1.1 * CHECK_TIMEOUT)

    guard = Guard(Echo(), GuardSettings(health=HealthSettings(check_timeout=60)), checks={"slow": slow})
    assert (await get(guard, "/health/ready")).status == 200


@pytest.mark.parametrize(("workers", "status"), [(1, 503), (2, 200)])
async def test_other_workers(workers: int, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that has served its number stays ready while it drains, where it was said that there are others."""
    monkeypatch.setattr(drain, "SPREAD", 0)
    health = HealthSettings(drain_seconds=0.05, max_requests=1)
    rate = RATE.model_copy(update={"workers": workers})
    guard = Guard(Echo(), GuardSettings(health=health, rate=rate))
    (layer,) = (layer for layer in guard.layers if isinstance(layer, DrainMiddleware))
    with Server.in_place() as server:
        await layer.startup()
        assert (await get(guard)).status == 200
        assert await readiness(guard) == status
        assert await asyncio.to_thread(server.stopped.wait, 30)
        await layer.shutdown()
