"""What a sign of life makes of servers that answer, and later than requests wait."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING

import pytest

from asgi_guard.errors import StoreUnavailableError
from asgi_guard.policy.breaker import Breaker
from asgi_guard.stores import ClusterStore, RedisStore
from tests.stores.cluster import Cluster
from tests.stores.server import PATIENCE, ask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_guard.stores import Store
    from tests.stores.processes import Process
    from tests.stores.server import Server

TIMEOUT = 0.1
LATE = re.escape(f"s, and ASGI_GUARD_STORE_TIMEOUT is {TIMEOUT} s")
SLOW = 400
"""Milliseconds for which a server is made to answer nothing."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as started:
        yield started


async def hold(*servers: Server | Process) -> None:
    """Let servers answer nothing for a while, neither what has connected nor what connects."""
    for server in servers:
        await asyncio.to_thread(server.client.client_pause, SLOW)


async def late(store: Store) -> None:
    with pytest.raises(StoreUnavailableError, match=rf"it took 0\.[1-9]\d\d {LATE}"):
        await store.ping()


async def test_an_answer_that_no_request_waits_for(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """An answer after the deadline of requests is a failure, as theirs are, and does not close the breaker."""
    store = RedisStore(server.url, timeout=TIMEOUT, breaker=Breaker(first_wait=600, max_wait=600))
    await store.ping()
    for _ in range(3):
        await hold(server)
        await late(store)
    with pytest.raises(StoreUnavailableError, match="is not asked"):
        await store.admit(ask("a"))
    await hold(server)
    await late(store)
    with pytest.raises(StoreUnavailableError, match="is not asked"):
        await store.admit(ask("a"))
    await store.ping()
    assert (await store.admit(ask("a", 0))).admitted
    assert [record.levelname for record in caplog.records if record.name == "asgi_guard"] == ["ERROR", "WARNING"]
    await store.aclose()


async def test_the_time_to_connect(server: Server) -> None:
    """To connect may take longer than a request waits: nobody waits for it once it is done."""
    store = RedisStore(server.url, timeout=TIMEOUT)
    await hold(server)
    assert TIMEOUT < await store.ping() < PATIENCE
    assert (await store.admit(ask("a", 0))).admitted
    await store.aclose()


async def test_a_loop_that_is_held_up(server: Server) -> None:
    """Work that holds the event loop up while the answer comes does not make the answer late."""
    store = RedisStore(server.url, timeout=TIMEOUT)
    await store.ping()
    asyncio.get_running_loop().call_later(0.0001, time.sleep, 3 * TIMEOUT)
    assert await store.ping() < PATIENCE
    await store.aclose()


async def test_a_revocation_that_comes_late_holds(server: Server) -> None:
    """A revocation may take longer than requests wait: it is kept, and no error."""
    breaker = Breaker(threshold=1, first_wait=600, max_wait=600)
    store = RedisStore(server.url, timeout=TIMEOUT, breaker=breaker)
    await store.ping()
    await hold(server)
    await store.revoke("late", 60)
    assert breaker.is_open
    await store.ping()
    assert (await store.admit(ask("a", 0, token_id="late"))).revoked
    await store.aclose()


async def test_nodes_that_no_request_waits_for(cluster: Cluster) -> None:
    """A cluster whose nodes are all too late has no sign of life; one with a single one that is not has."""
    store = ClusterStore(cluster.url, timeout=TIMEOUT)
    await store.ping()
    await hold(*cluster.masters[:2])
    assert await store.ping() < PATIENCE
    await hold(*cluster.masters)
    await late(store)
    await store.aclose()
