"""What becomes of requests when a cluster's slots move and its nodes die, under load."""

from __future__ import annotations

import asyncio
import signal
from itertools import islice
from typing import TYPE_CHECKING

import pytest

from asgi_guard.errors import StoreUnavailableError
from asgi_guard.policy.breaker import Breaker
from asgi_guard.policy.bucket import Admission, Charge
from asgi_guard.stores import ClusterStore
from tests.faults.load import SLACK, Load, load, taken
from tests.stores.cluster import Cluster, identity, names, slot
from tests.stores.server import PATIENCE, SLOW, ask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

TIMEOUT = 0.5


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A cluster that the test may break: the first master has a replica."""
    with Cluster(0) as started:
        yield started


@pytest.fixture
async def store(cluster: Cluster) -> AsyncIterator[ClusterStore]:
    made = cluster.store(timeout=TIMEOUT, breaker=Breaker(first_wait=0.1, max_wait=0.1))
    await made.ping()
    yield made
    await made.aclose()


def keys_of(master: int, number: int) -> list[str]:
    return list(islice(names(master), number))


async def never_charged_twice(store: ClusterStore, done: Load) -> None:
    """Of each key at least what was answered was taken, and at most what was asked."""
    for key, count in done.counts.items():
        assert count.answered <= await taken(store, key) <= count.answered + count.unavailable
    assert done.longest < TIMEOUT + SLACK
    assert done.hopeless == 0


async def test_slots_that_move_under_load(cluster: Cluster, store: ClusterStore) -> None:
    """While slots move to another node and back, with their keys, every call is answered or unavailable, and once."""
    moving, staying = keys_of(0, 4), [*keys_of(1, 2), *keys_of(2, 2)]
    async with load(store, [*moving, *staying]) as under_way:
        await under_way.all_answered(20)
        for source, target in ((0, 1), (1, 0)):
            for key in moving:
                with cluster.moving(slot(key), source, target):
                    await asyncio.sleep(0.02)  # some find it on the move
                    cluster.hand_over(source, target, key)
                    await under_way.all_answered(3, key)
                    cluster.assign(slot(key), target)
                await under_way.all_answered(3, key)
        await under_way.all_answered(20)

    under_way.report("8 moves of slots")
    await never_charged_twice(store, under_way)
    assert cluster.errors("MOVED") >= 4
    assert cluster.errors("ASK") >= 4
    # One key is one key wherever it is, so nobody was without it.
    assert {key: under_way.counts[key].unavailable for key in staying} == dict.fromkeys(staying, 0)
    assert sum(count.unavailable for count in under_way.counts.values()) == 0


async def test_a_master_that_is_killed_under_load(
    cluster: Cluster, store: ClusterStore, caplog: pytest.LogCaptureFixture
) -> None:
    """A master that dies takes only its own keys along, and those until its replica has taken over."""
    lost, others = keys_of(0, 4), [*keys_of(1, 3), *keys_of(2, 3)]
    async with load(store, [*lost, *others]) as under_way:
        await under_way.all_answered(20)
        cluster.nodes[0].kill()
        await under_way.some_unavailable(lost[0])
        await under_way.all_answered(20, *others)
        await under_way.all_answered(20)

    under_way.report("a master killed")
    for key in lost:
        # What the dead one had not copied yet is lost; what was sent to it and not answered may have been taken.
        count = under_way.counts[key]
        assert count.since <= await taken(store, key) <= count.answered + count.unavailable
    for key in others:
        assert under_way.counts[key].unavailable == 0
        assert under_way.counts[key].answered == await taken(store, key)
    assert under_way.longest < TIMEOUT + SLACK
    assert under_way.hopeless == 0
    assert {record.levelname for record in caplog.records} <= {"ERROR", "WARNING"}
    assert len(caplog.records) <= 4


@pytest.mark.parametrize("stuck", [True, False], ids=["stuck", "gone"])
async def test_a_node_that_does_not_answer_stops_no_other(cluster: Cluster, stuck: bool) -> None:
    """While a node is stuck or gone, what a request took from the others is given back, and those serve on."""
    well, broken = (keys_of(master, 1)[0] for master in (0, 1))
    store = cluster.store(timeout=0.2, breaker=Breaker(first_wait=600, max_wait=600))
    assert (await store.admit(Admission((Charge(SLOW, well), Charge(SLOW, broken))))).admitted
    if stuck:
        cluster.nodes[1].signal(signal.SIGSTOP)
    else:
        cluster.nodes[1].kill()

    # A slot that moved there is no better off.
    moved = keys_of(0, 2)[1]
    cluster.nodes[0].client.execute_command("CLUSTER", "SETSLOT", slot(moved), "NODE", identity(1))
    with pytest.raises(StoreUnavailableError):
        await store.admit(ask(moved))
    # Nor is who finds out only now what nodes there are.
    late = cluster.store(timeout=TIMEOUT)
    with pytest.raises(StoreUnavailableError):
        await late.admit(Admission((Charge(SLOW, well), Charge(SLOW, broken))))
    assert (await late.admit(ask(well, 0))).readings[0].remaining == 4
    await late.aclose()
    # Who leaves is not waited for.
    leaving = asyncio.create_task(store.admit(Admission((Charge(SLOW, keys_of(0, 3)[2]), Charge(SLOW, broken)))))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving

    for _ in range(8):
        with pytest.raises(StoreUnavailableError):
            await store.admit(Admission((Charge(SLOW, well, 2), Charge(SLOW, broken, 2))))
        assert (await store.admit(ask(well, 0))).readings[0].remaining == 4
    # With its breaker open, nobody waits for it.
    async with asyncio.timeout(PATIENCE):
        for _ in range(200):
            with pytest.raises(StoreUnavailableError, match="is not asked"):
                await store.admit(Admission((Charge(SLOW, well), Charge(SLOW, broken))))

    assert (await store.admit(ask(well, 0))).readings[0].remaining == 4
    assert await store.ping() >= 0
    await store.aclose()


async def test_a_cluster_that_is_gone(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """Where no node is left, every call is unavailable and the log is short; when they are back, all is well."""
    key = keys_of(2, 1)[0]
    store = cluster.store(timeout=TIMEOUT, breaker=Breaker(first_wait=0.05, max_wait=0.05))
    await store.admit(ask(key))
    fresh = cluster.store(timeout=TIMEOUT)
    for node in cluster.nodes:
        node.kill()

    for each in (store, fresh):
        async with asyncio.timeout(PATIENCE):
            for _ in range(100):
                with pytest.raises(StoreUnavailableError):
                    await each.admit(ask(key))
        for call in (each.ping(), each.revoke("t", 60)):
            with pytest.raises(StoreUnavailableError):
                await call
    assert len(caplog.records) <= 8
    for node in cluster.nodes:
        await asyncio.to_thread(node.start)
    for each in (store, fresh):
        async with load(each, [key]) as under_way:
            await under_way.all_answered(3)
        await each.aclose()


async def test_connections_killed_under_load_lose_only_what_was_under_way(
    cluster: Cluster, store: ClusterStore
) -> None:
    """Where nodes close connections under load, calls are answered or unavailable, none is charged twice."""
    async with load(store, [key for master in range(3) for key in keys_of(master, 3)]) as under_way:
        await under_way.all_answered(5)
        for _ in range(20):
            for node in cluster.masters:
                node.client.client_kill_filter(_type="normal", skipme=True)
            await asyncio.sleep(0.01)
        await under_way.all_answered(20)

    under_way.report("60 times connections closed")
    await never_charged_twice(store, under_way)
