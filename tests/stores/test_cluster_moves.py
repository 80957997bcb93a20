"""Slots of a cluster that move, are on the move, or are nobody's."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from asgi_guard.errors import StoreUnavailableError
from asgi_guard.policy.bucket import Admission, Charge
from asgi_guard.stores import ClusterStore
from tests.stores.cluster import PREFIX, RANGES, Cluster, left, name, slot
from tests.stores.server import SLOW, ask, limit, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

DEEP = limit("1/15m burst 30000 by ip")
TOKEN = next(f"t{number}" for number in range(100_000) if slot(f"revoked:t{number}") <= RANGES[0][1])
"""One whose slot is the first master's."""


@pytest.fixture
async def store(cluster: Cluster) -> AsyncIterator[ClusterStore]:
    made = cluster.store()
    yield made
    await made.aclose()


@pytest.fixture
def moved(cluster: Cluster) -> Iterator[Callable[[int], None]]:
    """Moves a slot of the first master, which is empty, to the second; afterwards all are where they were."""
    slots: list[int] = []

    def move(number: int) -> None:
        slots.append(number)
        cluster.assign(number, 1)

    yield move
    cluster.empty()
    for number in slots:
        cluster.assign(number, 0)


async def test_what_is_asked_of_a_slot_that_moved(
    cluster: Cluster, store: ClusterStore, moved: Callable[[int], None]
) -> None:
    """After a slot has moved, requests go on at its new node: one is sent there twice, and all are charged once."""
    await store.admit(ask(name(1), 0))
    moved(slot(name(0)))

    first = await store.admit(ask(name(0)))
    verdicts = await asyncio.gather(*(store.admit(ask(name(0))) for _ in range(5)))

    assert first.readings[0].remaining == 4
    assert sorted(verdict.admitted for verdict in verdicts) == [False, *[True] * 4]
    assert cluster.errors("MOVED") == 1
    assert cluster.nodes[1].client.exists(PREFIX + name(0))


async def test_what_is_told_of_a_slot_that_moved(
    cluster: Cluster, store: ClusterStore, moved: Callable[[int], None]
) -> None:
    """What nobody waits for goes to the new node as well."""
    await store.admit(ask(name(1), 0))
    moved(slot(name(0)))

    store.tell(ask(name(0), 2))

    await until(lambda: _left_is(store, name(0), 3))
    assert cluster.errors("MOVED") >= 1
    assert cluster.nodes[1].client.exists(PREFIX + name(0))


async def test_a_token_is_revoked_whose_slot_moved(
    cluster: Cluster, store: ClusterStore, moved: Callable[[int], None]
) -> None:
    """A revocation goes to the new node as well."""
    await store.admit(ask(name(1), 0))
    moved(slot(f"revoked:{TOKEN}"))

    await store.revoke(TOKEN, 60)

    assert (await store.admit(Admission((), TOKEN))).revoked
    assert cluster.errors("MOVED") == 1
    assert cluster.nodes[1].client.exists(f"{PREFIX}revoked:{TOKEN}")


@pytest.fixture
def unnamed(cluster: Cluster) -> Iterator[None]:
    """Nodes that name each other by their ports alone: the host is the one by which they were asked."""
    setting = "cluster-preferred-endpoint-type"
    for node in cluster.nodes:
        node.client.config_set(setting, "unknown-endpoint")
    yield
    for node in cluster.nodes:
        node.client.config_set(setting, "ip")


@pytest.mark.usefixtures("unnamed")
async def test_nodes_that_name_no_host(cluster: Cluster, store: ClusterStore, moved: Callable[[int], None]) -> None:
    """Whoever is sent on to a port finds it where the node is that said so, after a slot has moved and meanwhile."""
    other = cluster.store()
    for each in (store, other):
        await each.admit(ask(name(1), 0))
    moved(slot(name(0)))
    moved(slot(f"revoked:{TOKEN}"))

    assert (await store.admit(ask(name(0)))).readings[0].remaining == 4
    await other.revoke(TOKEN, 60)
    assert cluster.errors("MOVED") == 2
    assert (await store.admit(Admission((), TOKEN))).revoked
    await other.aclose()
    with cluster.moving(slot(name(0, 1)), 0, 1):
        assert (await store.admit(ask(name(0, 1)))).readings[0].remaining == 4
        assert cluster.errors("ASK") == 1
        cluster.nodes[1].client.flushall()


async def _left_is(store: ClusterStore, key: str, units: int) -> bool:
    return await left(store, key) == [units]


async def test_many_at_once_find_a_slot_that_moved(cluster: Cluster, store: ClusterStore) -> None:
    """However many find at once that a slot has moved, each is answered and charged once, and few ask who serves it."""
    key = name(0)
    await store.admit(ask(key, rule=DEEP))
    cluster.empty()
    cluster.assign(slot(key), 2)
    try:
        verdicts = await asyncio.gather(*(store.admit(ask(key, rule=DEEP)) for _ in range(200)))

        assert sorted(verdict.readings[0].remaining for verdict in verdicts) == [*range(DEEP.burst - 200, DEEP.burst)]
        assert sum(cluster.calls("cluster|slots")) <= 2
        assert cluster.errors("MOVED") >= 1
    finally:
        cluster.empty()
        cluster.assign(slot(key), 0)


async def test_a_slot_on_the_move(cluster: Cluster, store: ClusterStore) -> None:
    """While a slot moves, each key is decided where it is, and one that is nowhere yet where the slot moves to."""
    tag = name(0)
    stays, goes, fresh, told = (f"{{{tag}}}:{word}" for word in ("stays", "goes", "fresh", "told"))
    await store.admit(ask(stays, 1))
    await store.admit(ask(goes, 2))
    with cluster.moving(slot(stays), 0, 1):
        cluster.hand_over(0, 1, goes)

        verdicts = [await store.admit(ask(key, 2)) for key in (stays, goes, fresh)]
        store.tell(ask(told, 3))
        store.tell(Admission((Charge(SLOW, goes, -1),), settles=True))
        await until(lambda: _left_is(store, told, 2))

        assert [verdict.readings[0].remaining for verdict in verdicts] == [2, 1, 3]
        assert await left(store, stays, goes, fresh) == [2, 2, 3]
        together = await asyncio.gather(*(store.admit(ask(key)) for key in (stays, goes, stays, fresh)))
        assert [verdict.readings[0].remaining for verdict in together] == [1, 1, 0, 2]
        assert cluster.errors("TRYAGAIN") == 1
        pair = await asyncio.gather(*(store.admit(ask(key)) for key in (goes, fresh)))
        assert [verdict.readings[0].remaining for verdict in pair] == [0, 1]
        pair = await asyncio.gather(*(store.admit(ask(key, 0)) for key in (stays, goes)))
        assert [verdict.readings[0].remaining for verdict in pair] == [0, 0]
        assert cluster.errors("TRYAGAIN") == 2
        assert cluster.errors("ASK") > 0
        assert (cluster.nodes[0].client.dbsize(), cluster.nodes[1].client.dbsize()) == (1, 3)
        assert cluster.errors("MOVED") == 0


async def test_a_token_is_revoked_while_its_slot_moves(cluster: Cluster, store: ClusterStore) -> None:
    """A revocation goes where the slot is moving to, and is seen there."""
    with cluster.moving(slot(f"revoked:{TOKEN}"), 0, 2):
        await store.revoke(TOKEN, 60)

        assert cluster.nodes[2].client.dbsize() == 1
        assert (await store.admit(Admission((), TOKEN))).revoked
        cluster.nodes[2].client.flushall()


async def test_keys_that_are_apart_for_a_while_are_unavailable(
    cluster: Cluster, store: ClusterStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Keys of one request of which some have moved and some have not: unavailable, uncharged, and others are served."""
    stays, goes, other = f"{{{name(0)}}}:stays", f"{{{name(0)}}}:goes", name(0, 1)
    for key in (stays, goes):
        await store.admit(ask(key))
    with cluster.moving(slot(stays), 0, 1):
        cluster.hand_over(0, 1, goes)
        both = Admission((Charge(SLOW, stays), Charge(SLOW, goes)))
        for _ in range(6):
            results = await asyncio.gather(store.admit(both), store.admit(ask(other, 0)), return_exceptions=True)
            assert isinstance(results[0], StoreUnavailableError)
            assert not isinstance(results[1], BaseException)

        assert await left(store, stays, goes) == [4, 4]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "TryAgainError" in caplog.text
    cluster.nodes[1].client.flushall()


async def test_slots_that_nobody_serves_are_unavailable_alone(
    cluster: Cluster, store: ClusterStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests for a slot that nobody serves are unavailable until somebody does; all others are served."""
    key, other = f"revoked:{TOKEN}", name(0, 1)  # a bucket in the slot of the token
    await store.admit(ask(other, 0))
    for node in cluster.masters:
        node.client.execute_command("CLUSTER", "DELSLOTS", slot(key))
    try:
        for _ in range(10):
            with pytest.raises(StoreUnavailableError):
                await store.admit(ask(key))
            assert (await store.admit(ask(other, 0))).admitted
        with pytest.raises(StoreUnavailableError):
            await store.revoke(TOKEN, 1)
        with pytest.raises(StoreUnavailableError):
            await store.admit(Admission((Charge(SLOW, key), Charge(SLOW, name(1)))))
        unknowing = cluster.store()
        with pytest.raises(StoreUnavailableError, match="no node of the cluster serves"):
            await unknowing.admit(ask(key))
        unknowing.tell(ask(key))
        await unknowing.aclose()
    finally:
        cluster.nodes[0].client.execute_command("CLUSTER", "ADDSLOTS", slot(key))
        cluster.assign(slot(key), 0)

    await until(lambda: _served(store, key))
    assert await left(store, name(1)) == [5]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def _served(store: ClusterStore, key: str) -> bool:
    try:
        return (await store.admit(ask(key, 0))).admitted
    except StoreUnavailableError:
        return False
