"""What is particular to a cluster: several slots in one request, slots that move, and commands that go elsewhere."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from redis.crc import key_slot

from asgi_guard.errors import StoreUnavailableError
from asgi_guard.policy.bucket import Admission, Charge
from asgi_guard.policy.revocation import Marks
from asgi_guard.stores import ClusterStore, RedisStore, operate
from asgi_guard.stores.base import Watch, Watched
from tests.stores.cluster import PREFIX, RANGES, Cluster, left, name
from tests.stores.server import PATIENCE, SLOW, ask, limit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SOME = limit("2 at once by ip")
DEEP = limit("1/15m burst 30000 by ip")


@pytest.fixture
async def store(cluster: Cluster) -> AsyncIterator[ClusterStore]:
    made = cluster.store()
    yield made
    await made.aclose()


async def test_one_call_a_slot(cluster: Cluster, store: ClusterStore) -> None:
    """All limits of one client are asked in one call; keys of several slots in one call each, at their own nodes."""
    await store.admit(Admission(tuple(Charge(SLOW, name(master)) for master in range(3))))  # the script is known
    cluster.empty()

    await store.admit(Admission(tuple(Charge(SLOW, f"{{a}}:{number}") for number in range(5))))
    assert sum(cluster.calls("evalsha")) == 1

    cluster.empty()
    verdict = await store.admit(Admission(tuple(Charge(SLOW, name(master), master) for master in range(3))))
    assert [reading.remaining for reading in verdict.readings] == [5, 4, 3]
    assert cluster.calls("evalsha") == [1, 1, 1]


async def test_where_a_slot_is_not_served_nothing_is_taken(
    cluster: Cluster, store: ClusterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request one of whose slots nobody serves asks none of the others: nobody could give back what they took."""
    admission = Admission((Charge(SLOW, name(0)), Charge(SLOW, name(1))))
    await store.admit(Admission((Charge(SLOW, name(2)),)))  # the nodes are known
    topology = store._connected().topology
    where, gone = topology.node_of, key_slot((PREFIX + name(1)).encode())
    cluster.empty()
    with monkeypatch.context() as patched:
        patched.setattr(topology, "node_of", lambda slot: None if slot == gone else where(slot))
        with pytest.raises(StoreUnavailableError, match="no node of the cluster"):
            await store.admit(admission)
    verdict = await store.admit(admission)
    assert [reading.remaining for reading in verdict.readings] == [SLOW.burst - 1] * 2


async def test_those_who_wait_for_a_slot_go_together(cluster: Cluster, store: ClusterStore) -> None:
    """Of many that ask of one slot at once, all that wait are asked in two calls, the second behind the first."""
    await store.admit(ask("a", rule=DEEP))
    cluster.empty()

    verdicts = await asyncio.gather(*(store.admit(ask("a", rule=DEEP)) for _ in range(40)))

    assert sorted(verdict.readings[0].remaining for verdict in verdicts) == [*range(DEEP.burst - 40, DEEP.burst)]
    assert sum(cluster.calls("evalsha")) == 2


async def test_calls_are_told(cluster: Cluster, store: ClusterStore) -> None:
    """Who watches is told of every call of every node, what it took, and how many questions went in it."""
    calls: list[tuple[float, int]] = []
    store.watch(Watch(lambda took, size: calls.append((took, size))))
    assert isinstance(store, Watched)
    await store.admit(Admission(tuple(Charge(SLOW, name(master)) for master in range(3))))
    assert [size for _, size in calls] == [1, 1, 1]
    assert all(0 <= took < PATIENCE for took, _ in calls)
    assert [breaker.is_open for breaker in store.breakers] == [False] * 3


async def test_each_of_many_slots_gets_its_own_answer(store: ClusterStore) -> None:
    """However many slots are asked in one write, every request gets its own verdict, and no refusal spreads."""
    verdicts = await asyncio.gather(*(store.admit(ask(f"k{number}", number % 7)) for number in range(300)))

    for number, verdict in enumerate(verdicts):
        assert verdict.admitted == (number % 7 <= 5)
        assert verdict.readings[0].remaining == (5 - number % 7 if verdict.admitted else 5)


async def test_scripts_are_known_again_after_a_flush(cluster: Cluster, store: ClusterStore) -> None:
    """Nodes that have forgotten the script get it again, each once, and no request fails."""
    await asyncio.gather(*(store.admit(ask(f"k{number}")) for number in range(50)))
    cluster.empty()
    for node in cluster.masters:
        node.client.script_flush()

    await store.admit(Admission(tuple(Charge(SLOW, name(master)) for master in range(3))))
    assert cluster.calls("eval") == [1, 1, 1]
    await store.admit(Admission(tuple(Charge(SLOW, name(master)) for master in range(3))))

    assert cluster.calls("eval") == [1, 1, 1]
    assert await left(store, *map(name, range(3))) == [3, 3, 3]


@pytest.mark.parametrize("refusing", range(3))
async def test_what_other_slots_took_is_given_back(store: ClusterStore, refusing: int) -> None:
    """Where one slot refuses, the verdict reads as if no other had been charged, and soon none is."""
    await store.admit(ask(name(refusing), 5))
    charges = tuple(Charge(SLOW, name(master), 2) for master in range(3))

    verdict = await store.admit(Admission(charges))

    expected = [0 if master == refusing else 5 for master in range(3)]
    assert not verdict.admitted
    assert [reading.remaining for reading in verdict.readings] == expected
    assert [reading.reset == 0 for reading in verdict.readings] == [master != refusing for master in range(3)]
    # What is asked after it is decided after it.
    assert await left(store, *map(name, range(3))) == expected


async def test_leases_of_other_slots_are_let_go(cluster: Cluster, store: ClusterStore) -> None:
    """A request that one slot refuses is under way in no other, and who was under way before still is."""
    assert (await store.admit(Admission((Charge(SOME, name(0)),), lease="first"))).admitted
    await store.admit(ask(name(1), 5))

    refused = await store.admit(Admission((Charge(SOME, name(0)), Charge(SLOW, name(1))), lease="second"))

    assert (refused.admitted, [reading.remaining for reading in refused.readings]) == (False, [1, 0])
    await left(store, name(0, 1))
    assert cluster.nodes[0].client.zrange(PREFIX + name(0), 0, -1) == [b"first"]
    store.tell(Admission((Charge(SOME, name(0)),), lease="first", settles=True))
    await left(store, name(0, 1))
    assert not cluster.nodes[0].client.exists(PREFIX + name(0))


async def test_a_limit_in_shadow_is_not_given_back_what_it_did_not_give(store: ClusterStore) -> None:
    """A limit in shadow that did not allow a request that another slot refused gets nothing back."""
    await store.admit(ask(name(0), 5))
    await store.admit(ask(name(1), 5))

    refused = await store.admit(Admission((Charge(SLOW, name(0), 1, binding=False), Charge(SLOW, name(1)))))

    assert not refused.admitted
    assert await left(store, name(0), name(1)) == [0, 0]


async def test_told_before_anything_is_known(cluster: Cluster) -> None:
    """What is told first of all is decided too, after what was asked before it."""
    store = cluster.store()
    request = Admission((Charge(SOME, name(0)),), lease="one")
    store.tell(Admission(()))
    asked = asyncio.create_task(store.admit(request))
    await asyncio.sleep(0)
    store.tell(request._replace(settles=True))
    store.tell(ask(name(1), 3))

    assert (await asked).admitted

    assert await left(store, name(0, 1), name(1)) == [5, 2]
    assert not cluster.nodes[0].client.exists(PREFIX + name(0))
    await store.aclose()


async def test_a_caller_that_leaves_early_takes_its_question_along(cluster: Cluster) -> None:
    """A request that is cancelled before anything is known is charged in no slot, one later once in each at most."""
    store = cluster.store()
    charges = tuple(Charge(SLOW, name(master)) for master in range(3))
    tasks = [asyncio.create_task(store.admit(Admission(charges))) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[0].cancel()

    assert (await tasks[1]).admitted
    tasks.append(asyncio.create_task(store.admit(Admission(charges))))
    await asyncio.sleep(0)
    tasks[3].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert [isinstance(result, asyncio.CancelledError) for result in results] == [True, False, False, True]
    assert set(await left(store, *map(name, range(3)))) <= {2, 3}
    await store.aclose()


async def test_a_session_and_a_subject_are_looked_up_on_their_nodes(cluster: Cluster) -> None:
    """Wherever the names of a token, its session and its subject are, one request is told of all three."""
    store = cluster.store()
    for number in range(20):
        charges = tuple(Charge(SLOW, f"{name(master)}{number}") for master in range(3))
        await store.revoke(f"s{number}", 60)
        await store.revoke(f"u{number}", 60, 1_000)
        revoked = [
            (await store.admit(Admission(charges, f"t{number}", marks=marks))).revoked
            for marks in (Marks(f"s{number}", "u", 5), Marks("s", f"u{number}", 1_000), Marks("s", f"u{number}", 1_001))
        ]
        assert revoked == [True, True, False]
    await store.aclose()


async def test_a_node_of_a_cluster_is_no_store(cluster: Cluster) -> None:
    """Whoever names a node as if it were a server by itself is told so by the first sign of life."""
    port = cluster.masters[0].client.config_get("port")["port"]
    store = RedisStore(f"redis://127.0.0.1:{port}", timeout=PATIENCE)
    with pytest.raises(StoreUnavailableError) as caught:
        await store.ping()
    assert "slot" in str(caught.value.__cause__)
    await store.aclose()


@pytest.mark.parametrize("lacks", ["-eval", "-evalsha"])
@pytest.mark.parametrize("prefix", [PREFIX, "{guard}"])
async def test_a_sign_of_life_is_what_requests_ask(cluster: Cluster, prefix: str, lacks: str) -> None:
    """Every node that requests would ask is asked by the script, on keys of the prefix, and that leaves nothing."""
    for node in cluster.masters:
        node.client.execute_command("ACL", "SETUSER", "ping", "reset", "on", "nopass", f"~{prefix}*", "+@all", lacks)
    cluster.empty()
    before = cluster.calls("evalsha")
    store = ClusterStore(cluster.url, prefix=prefix, timeout=PATIENCE)
    await store.ping()
    asked = [count - earlier for count, earlier in zip(cluster.calls("evalsha"), before, strict=True)]
    assert sorted(asked) == ([1, 1, 1] if prefix == PREFIX else [0, 0, 1])
    await asyncio.sleep(0.01)
    assert [node.client.keys() for node in cluster.masters] == [[], [], []]
    await store.aclose()
    few = ClusterStore(cluster.url.replace("//", "//ping:x@"), prefix=prefix, timeout=PATIENCE)
    with pytest.raises(StoreUnavailableError) as caught:
        await few.ping()
    assert "permissions" in str(caught.value.__cause__)
    await few.aclose()


async def test_a_sign_of_life_counts_what_limits_count(cluster: Cluster) -> None:
    """Where limits count requests at once, every node is asked to count one, and that leaves nothing."""
    for node in cluster.masters:
        user = ("ACL", "SETUSER", "counts", "reset", "on", "nopass", f"~{PREFIX}*", "+@all")
        node.client.execute_command(*user, "-zadd")
    cluster.empty()
    store = cluster.store()
    store.expect_at_once()
    await store.ping()
    assert cluster.calls("zadd") == cluster.calls("zrem") == [1, 1, 1]
    await asyncio.sleep(0.01)
    assert [node.client.keys() for node in cluster.masters] == [[], [], []]
    await store.aclose()
    few = ClusterStore(cluster.url.replace("//", "//counts:x@"), prefix=PREFIX, timeout=PATIENCE)
    await few.ping()
    few.expect_at_once()
    with pytest.raises(StoreUnavailableError) as caught:
        await few.ping()
    assert "'zadd'" in str(caught.value.__cause__)
    await few.aclose()


NEEDED = "+evalsha +eval +mget +psetex +pttl +time +ping +client|setname +cluster|slots +asking"


async def test_the_least_permissions(cluster: Cluster) -> None:
    """A user who may run these commands on keys of the prefix only can do all that a store does."""
    for node in cluster.masters:
        node.client.execute_command("ACL", "SETUSER", "guard", "on", ">p@ss/word", f"~{PREFIX}*", *NEEDED.split())
    store = ClusterStore(cluster.url.replace("//", "//guard:p%40ss%2Fword@"), timeout=PATIENCE)

    await store.ping()
    await store.revoke("t", 60)
    verdict = await store.admit(Admission(tuple(Charge(SLOW, name(master)) for master in range(3)), "t"))

    assert (verdict.admitted, verdict.revoked) == (True, True)
    await store.aclose()


async def test_keys_that_are_not_permitted_concern_nobody_else(cluster: Cluster) -> None:
    """Where a user may not touch some keys, requests for those fail, and those asked beside them do not."""
    allowed, denied = (f"{{{name(0, number)}}}" for number in range(2))
    for node in cluster.masters:
        node.client.execute_command("ACL", "SETUSER", "some", "on", "nopass", f"~{PREFIX}{allowed}*", "+@all")
    store = ClusterStore(cluster.url.replace("//", "//some:x@"), timeout=PATIENCE)

    results = await asyncio.gather(
        *(store.admit(ask(key)) for key in (denied, allowed, denied)), return_exceptions=True
    )

    assert [isinstance(result, StoreUnavailableError) for result in results] == [True, False, True]
    with pytest.raises(StoreUnavailableError):
        await store.admit(ask(denied))
    assert await left(store, allowed) == [4]
    await store.aclose()


async def test_a_prefix_with_a_tag_is_one_slot(cluster: Cluster) -> None:
    """With a hash tag in the prefix, whatever a request asks is one call."""
    store = ClusterStore(cluster.url, prefix="{guard}", timeout=PATIENCE)
    await store.admit(ask("a"))  # the script is known
    cluster.empty()

    verdict = await store.admit(Admission(tuple(Charge(SLOW, name(master)) for master in range(3)), "t"))

    assert verdict.admitted
    assert sum(cluster.calls("evalsha")) == 1
    await store.aclose()


async def test_by_ones_own_clock(cluster: Cluster) -> None:
    """With a clock of its own, a store asks no node for the time."""
    store = cluster.store(clock=lambda: 10**15)

    await store.admit(ask(name(0), 2))

    assert int(cluster.nodes[0].client.get(PREFIX + name(0))) == 10**15 + 2 * SLOW.interval
    assert cluster.calls("time") == [0, 0, 0]
    await store.aclose()


# Version 7.4 of the client warns of how it calls itself.
@pytest.mark.filterwarnings("ignore:Call to '__init__' function with deprecated usage:DeprecationWarning")
async def test_an_operator_looks_into_all_nodes(cluster: Cluster, store: ClusterStore) -> None:
    """The client for operators sees what requests have left in every node, and may forget it."""
    keys = [f"{{{name(master)}}}:rate:1x1" for master in range(3)]
    for key in keys:
        await store.admit(ask(key))

    found = [each.client async for each in operate.scan(store.client(), PREFIX, 60)]

    assert sorted(found) == sorted(name(master) for master in range(3))
    assert [each.client for each in await operate.look(store.client(), PREFIX, keys)] == [*map(name, range(3))]
    way = Charge(limit("2 at once by ip"), f"{{{name(1)}}}:way:1x2")
    assert (await store.admit(Admission((way,), lease="long"))).admitted
    seen = await operate.look(store.client(), PREFIX, [*keys, way.key])
    assert [each.under_way for each in seen] == [0, 0, 0, 1]
    assert await operate.reset(store.client(), PREFIX, keys) == 3
    assert await left(store, *keys) == [5, 5, 5]


def test_the_ranges_are_all_slots() -> None:
    """The cluster of these tests covers every slot, so that a missing one is a finding."""
    assert sum(last + 1 - first for first, last in RANGES) == 16384
