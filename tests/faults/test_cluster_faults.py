"""What becomes of requests when a cluster's slots move and its nodes die, under load."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

import pytest

from asgi_guard.errors import StoreUnavailableError
from asgi_guard.policy.breaker import Breaker
from asgi_guard.policy.bucket import Admission, Charge, Verdict
from asgi_guard.stores import ClusterStore
from tests.faults.load import SLACK, Load, load, taken
from tests.stores.cluster import Cluster, identity, names, slot
from tests.stores.server import PATIENCE, SLOW, ask, limit, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.clock import Clock

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


@pytest.mark.parametrize("stuck", [True, False], ids=["stuck", "gone"])
async def test_what_ends_while_a_node_is_out(cluster: Cluster, store: ClusterStore, stuck: bool) -> None:
    """A request that ends while its node is stuck or gone is told to that one, or to the one in its place, later."""
    (key,) = keys_of(0, 1)
    counted = Admission((Charge(limit("3 at once by ip"), key),), lease="long")
    assert (await store.admit(counted)).admitted

    async def copied() -> bool:
        return int(cluster.nodes[-1].client.dbsize()) > 0

    await until(copied)
    if stuck:
        cluster.nodes[0].signal(signal.SIGSTOP)
    else:
        cluster.nodes[0].kill()
    with pytest.raises(StoreUnavailableError):
        await store.admit(ask(key))
    store.tell(counted._replace(settles=True))
    if stuck:
        cluster.nodes[0].signal(signal.SIGCONT)

    async def over() -> bool:
        with suppress(StoreUnavailableError):
            return (await store.admit(counted._replace(lease="look"))).readings[0].remaining == 2
        return False

    await until(over)


async def out(cluster: Cluster, store: ClusterStore, *masters: int) -> None:
    """Have masters refuse whatever is asked, until their breakers are open, and be well again."""
    for master in masters:
        user = ("ACL", "SETUSER", "default")
        cluster.nodes[master].client.execute_command(*user, "-eval", "-evalsha")
        for expected in ("does not answer", "is not asked"):
            with pytest.raises(StoreUnavailableError, match=expected):
                await store.admit(ask(keys_of(master, 1)[0]))
        cluster.nodes[master].client.execute_command(*user, "+eval", "+evalsha")


def several(*keys: str) -> Admission:
    return Admission(tuple(Charge(SLOW, key) for key in keys))


@pytest.fixture
async def wary(cluster: Cluster, clock: Clock) -> AsyncIterator[ClusterStore]:
    """A store that asks no node for ten seconds after a failure, by a clock that stands still."""
    made = cluster.store(breaker=Breaker(threshold=1, first_wait=10, max_wait=10))
    await made.ping()
    yield made
    await made.aclose()


async def test_several_slots_of_a_node_that_is_back(cluster: Cluster, clock: Clock, wary: ClusterStore) -> None:
    """After a node's outage a request with several slots there is its one probe, and is answered."""
    keys = keys_of(1, 5)
    assert len({slot(key) for key in keys}) == 5
    await out(cluster, wary, 1)
    clock.now += 10

    probe, other = await asyncio.gather(*(wary.admit(several(*keys)) for _ in range(2)), return_exceptions=True)

    assert isinstance(probe, Verdict)
    assert [reading.remaining for reading in probe.readings] == [4] * 5
    assert isinstance(other, StoreUnavailableError)
    assert not any(breaker.is_open for breaker in wary.breakers)
    assert [reading.remaining for reading in (await wary.admit(several(*keys))).readings] == [3] * 5


@pytest.mark.parametrize("first", [1, 2])
async def test_two_nodes_that_are_back_one_after_the_other(
    cluster: Cluster, clock: Clock, wary: ClusterStore, first: int
) -> None:
    """A request with parts on two nodes that were out is answered once both may be asked, and wastes no probe."""
    request = several(*(key for master in (1, 2) for key in keys_of(master, 2)))
    await out(cluster, wary, first)
    clock.now += 5
    await out(cluster, wary, 3 - first)
    clock.now += 5
    for _ in range(3):
        with pytest.raises(StoreUnavailableError, match="is not asked") as caught:
            await wary.admit(request)
        assert caught.value.retry_after == 5
    clock.now += 5

    assert [reading.remaining for reading in (await wary.admit(request)).readings] == [4] * 4

    assert not any(breaker.is_open for breaker in wary.breakers)


async def test_where_a_part_finds_no_room_no_node_is_asked(
    cluster: Cluster, clock: Clock, wary: ClusterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request one of whose nodes has no room for its parts asks no other node, and uses up no other's probe."""
    request = several(*keys_of(1, 1), *keys_of(2, 2))
    await out(cluster, wary, 1)
    clock.now += 10
    with monkeypatch.context() as patched:
        patched.setattr("asgi_guard.stores.batching.MAX_WAITING", 1)
        with pytest.raises(StoreUnavailableError, match="too many"):
            await wary.admit(request)

    assert [reading.remaining for reading in (await wary.admit(request)).readings] == [4] * 3


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


async def test_nobody_waits_for_a_cluster_that_did_not_answer(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that starts while no node answers keeps no request waiting once it knows; later all is well."""
    for node in cluster.nodes:
        node.signal(signal.SIGSTOP)
    store = cluster.store(timeout=600)
    try:
        monkeypatch.setattr("asgi_guard.stores.topology.ATTEMPT", 0.05)
        with pytest.raises(StoreUnavailableError):
            await store.ping()
        monkeypatch.setattr("asgi_guard.stores.topology.ATTEMPT", 600)
        async with asyncio.timeout(PATIENCE):
            for _ in range(200):
                with pytest.raises(StoreUnavailableError, match="no node of the cluster answers") as caught:
                    await store.admit(ask("a"))
                assert not caught.value.sent
                assert caught.value.retry_after > 0
                await asyncio.sleep(0.002)  # the nodes are asked again meanwhile
    finally:
        for node in cluster.nodes:
            node.signal(signal.SIGCONT)

    async def answered() -> bool:
        with suppress(StoreUnavailableError):
            return (await store.admit(ask("a"))).admitted
        return False

    await until(answered)
    await store.aclose()


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
