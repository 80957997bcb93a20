"""What becomes of requests when the master behind sentinels changes or dies, under load."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest

from asgi_guard.errors import StoreUnavailableError
from asgi_guard.policy.breaker import Breaker
from asgi_guard.stores import SentinelStore
from tests.faults.load import DEEP, SLACK, Load, load, taken
from tests.stores.processes import wait_for
from tests.stores.sentinels import Watched
from tests.stores.server import PATIENCE, ask, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

TIMEOUT = 0.5
KEYS = [f"k{number}" for number in range(8)]


@pytest.fixture
def watched() -> Iterator[Watched]:
    """Servers and sentinels that the test may break."""
    with Watched() as started:
        yield started


@pytest.fixture
async def store(watched: Watched) -> AsyncIterator[SentinelStore]:
    made = watched.store(timeout=TIMEOUT, breaker=Breaker(first_wait=0.1, max_wait=0.1))
    await made.ping()
    yield made
    await made.aclose()


async def never_charged_twice(store: SentinelStore, done: Load) -> None:
    """What the old master had not copied is lost; of the rest, nothing was taken that was not asked."""
    for key, count in done.counts.items():
        assert count.since <= await taken(store, key) <= count.answered + count.unavailable
    assert done.longest < TIMEOUT + SLACK
    assert done.hopeless == 0


@pytest.mark.parametrize("stuck", [True, False], ids=["stuck", "killed"])
async def test_a_master_that_fails_under_load(watched: Watched, store: SentinelStore, stuck: bool) -> None:
    """When the master dies or gets stuck, calls are unavailable until the sentinels name another; then all is well."""
    async with load(store, KEYS) as under_way:
        await under_way.all_answered(20)
        if stuck:
            watched.servers[0].signal(signal.SIGSTOP)
        else:
            watched.servers[0].kill()
        await under_way.some_unavailable(KEYS[0])
        await under_way.all_answered(20)

    under_way.report("a master stuck" if stuck else "a master killed")
    assert watched.servers[1].client.info("replication")["role"] == "master"
    await never_charged_twice(store, under_way)


def replace_master(watched: Watched) -> None:
    """Have the replica take over, with all that the master holds, and the sentinels know of it."""
    old, new = watched.servers
    old.client.execute_command("FAILOVER", "TO", *new.address)
    wait_for(lambda: old.client.info("replication")["role"] == "slave")
    for sentinel in watched.sentinels:
        sentinel.client.execute_command("SENTINEL", "REMOVE", "service")
        sentinel.client.execute_command("SENTINEL", "MONITOR", "service", *new.address, 2)


async def test_a_master_that_becomes_a_replica_under_load(watched: Watched, store: SentinelStore) -> None:
    """When an operator has the replica take over, it is found without a restart, and all was charged once."""
    async with load(store, KEYS) as under_way:
        await under_way.all_answered(20)
        await asyncio.to_thread(replace_master, watched)
        await under_way.all_answered(20)

    under_way.report("a master replaced")
    await never_charged_twice(store, under_way)
    for key, count in under_way.counts.items():
        assert count.answered <= await taken(store, key)
    assert watched.servers[0].client.info("replication")["role"] == "slave"


async def test_a_master_that_became_a_replica_is_not_asked_again(watched: Watched) -> None:
    """A master that may no longer write answers one call as unavailable, and no later one at all."""
    store = watched.store()
    await store.admit(ask("a", rule=DEEP))
    await asyncio.to_thread(replace_master, watched)

    with pytest.raises(StoreUnavailableError):
        await store.admit(ask("a", rule=DEEP))

    async def answered() -> bool:
        try:
            return (await store.admit(ask("a", rule=DEEP))).admitted
        except StoreUnavailableError:
            return False  # a sentinel that was told just now has not looked at the new one yet

    await until(answered)
    assert await taken(store, "a") == 2
    await store.aclose()


async def test_no_sentinel_is_left(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    """Without sentinels, who has a connection keeps it, and who has none is unavailable until one is back."""
    connected = watched.store()
    await connected.admit(ask("a"))
    for sentinel in watched.sentinels:
        sentinel.kill()
    fresh = watched.store(timeout=TIMEOUT, breaker=Breaker(first_wait=0.05, max_wait=0.05))

    assert (await connected.admit(ask("a"))).readings[0].remaining == 3
    async with asyncio.timeout(PATIENCE):
        for _ in range(50):
            with pytest.raises(StoreUnavailableError):
                await fresh.admit(ask("a"))
    await asyncio.to_thread(watched.sentinels[1].start)
    async with load(fresh, KEYS) as under_way:
        await under_way.all_answered(3)

    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    for store in (connected, fresh):
        await store.aclose()
