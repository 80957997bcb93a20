"""What is known of a cluster's nodes, and how often they are asked for it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from asgi_guard.errors import StoreUnavailableError
from asgi_guard.stores.topology import Topology, read_map

if TYPE_CHECKING:
    from asgi_guard.stores.hosts import Address

SLOTS = 16384
A, B, C = ("a", 1), ("b", 2), ("c", 3)


class Nodes:
    """What nodes answer, and who was asked."""

    def __init__(self, answers: dict[Address, Any]) -> None:
        self.answers = answers
        self.asked: list[Address] = []
        self.changes: list[frozenset[Address]] = []

    async def ask(self, address: Address) -> Any:
        self.asked.append(address)
        await asyncio.sleep(0)
        answer = self.answers[address]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def topology(self, *seeds: Address) -> Topology:
        return Topology(seeds or tuple(self.answers), self.ask, self.changes.append)


def slots(*ranges: tuple[int, int, Address]) -> list[Any]:
    return [[first, last, [host.encode(), port, b"id"]] for first, last, (host, port) in ranges]


ALL = slots((0, 9999, A), (10000, SLOTS - 1, B))
GONE = RedisConnectionError("gone")


def test_an_answer_is_read() -> None:
    """Of each range, the first node serves it, and those that follow are its replicas."""
    answer = [[0, 2, [b"a", 1, b"id", []], [b"b", 2, b"id"]], [3, 3, ["c", 3, "id"]]]

    found = read_map(answer, ("asked", 9))

    assert found.slots[:5] == [A, A, A, C, None]
    assert (set(found.nodes), found.covered) == ({A, B, C}, 4)
    assert len(found.slots) == SLOTS


@pytest.mark.parametrize("host", [None, b"", ""])
def test_a_host_that_is_left_out_is_the_one_that_was_asked(host: bytes | str | None) -> None:
    """A node that does not say where it is, is where it was asked."""
    assert read_map([[0, 0, [host, 1, b"id"]]], ("asked", 9)).slots[0] == ("asked", 1)


def test_a_host_that_is_not_known_serves_nothing() -> None:
    """A node whose name the others do not know is passed over."""
    unknown = [b"?", 1, b"id"]

    found = read_map([[0, 0, unknown, [b"b", 2, b"id"]], [1, 1, [b"a", 1, b"id"], unknown]], B)

    assert (found.slots[:2], set(found.nodes), found.covered) == ([None, A], {A}, 1)


@pytest.mark.parametrize("answer", [[], [[0, 0, [b"?", 1, b"id"]]], [[0]], [[0, 1, [b"a"]]], [[0, 1, [b"a", b"x"]]], 7])
def test_an_answer_that_names_no_node_is_none(answer: Any) -> None:
    """A node that knows nobody, or says what makes no sense, is not believed."""
    with pytest.raises((ValueError, TypeError)):
        read_map(answer, A)


async def test_the_next_is_asked_where_one_does_not_answer() -> None:
    """As long as one of the seeds knows, the topology is known, and the nodes that there are, are told."""
    nodes = Nodes({A: GONE, B: [], C: ALL})
    topology = nodes.topology()

    await topology.ready(10)

    assert nodes.asked == [A, B, C]
    assert (topology.node_of(0), topology.node_of(SLOTS - 1), topology.masters) == (A, B, [A, B])
    assert nodes.changes == [frozenset({A, B})]
    await topology.aclose()


async def test_who_knows_most_is_believed() -> None:
    """Where nobody knows of every slot, the answer that names the most of them holds."""
    nodes = Nodes({A: slots((0, 9, A)), B: slots((0, 99, B)), C: slots((0, 9, C))})
    topology = nodes.topology()

    await topology.ready(10)

    assert (topology.node_of(0), topology.node_of(100), topology.masters) == (B, None, [B])
    await topology.aclose()


async def test_many_reasons_are_one_refresh() -> None:
    """However many find the topology wrong, it is asked for once, then not again for a while."""
    nodes = Nodes({A: ALL})
    topology = nodes.topology()

    await asyncio.gather(*(topology.ready(10) for _ in range(50)))
    for _ in range(50):
        topology.refresh(B)
        topology.moved(3, C)
        await asyncio.sleep(0)

    assert nodes.asked == [A]
    assert (topology.node_of(3), topology.node_of(4)) == (C, A)
    await topology.aclose()


async def test_a_refresh_that_has_to_wait_comes_in_time() -> None:
    """A reason that comes too early for another refresh is not forgotten."""
    nodes = Nodes({A: ALL})
    topology = nodes.topology()
    await topology.ready(10)
    nodes.answers = {A: slots((0, SLOTS - 1, C)), B: GONE}

    topology.refresh(A)
    async with asyncio.timeout(10):
        while topology.node_of(0) != C:  # noqa: ASYNC110 - the timer's task tells nobody
            await asyncio.sleep(0.01)

    assert nodes.asked == [A, B, A]  # who is suspect comes last
    await topology.aclose()


async def test_failing_is_told_once_and_costs_nobody_a_wait(caplog: pytest.LogCaptureFixture) -> None:
    """Where no node answers, callers fail at once until it is time to ask again, and the log says it once."""
    nodes = Nodes({A: GONE})
    topology = nodes.topology()

    for _ in range(20):
        with pytest.raises(StoreUnavailableError, match="no node"):
            await topology.ready(10)
    assert nodes.asked == [A]
    for _ in range(3):
        with pytest.raises(StoreUnavailableError):
            await topology.ready(10, patient=True)
    assert nodes.asked == [A] * 4
    nodes.answers[A] = ALL
    await topology.ready(10, patient=True)
    await topology.ready(10)

    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    await topology.aclose()


async def test_nodes_that_come_and_go_are_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """However often no node answers and one does again, the log is told once a minute; all failures are counted."""
    nodes = Nodes({A: GONE})
    failed: list[None] = []
    topology = Topology([A], nodes.ask, nodes.changes.append, lambda: failed.append(None))
    for answer in (GONE, slots((0, SLOTS - 1, A))) * 3:
        nodes.answers[A] = answer
        topology._map = topology._map._replace(covered=0)  # of which none is known any more
        before = len(nodes.asked)
        with suppress(StoreUnavailableError):
            await topology.ready(10, patient=True)
        assert len(nodes.asked) == before + 1
    assert len(failed) == 3
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    await topology.aclose()


async def test_who_waits_when_it_closes_is_told() -> None:
    """Closing while the nodes are asked ends the wait of those who wanted to know, as unavailable."""
    started = asyncio.Event()

    async def never(_: Address) -> None:
        started.set()
        await asyncio.get_running_loop().create_future()

    topology = Topology([A], never, Nodes({}).changes.append)
    waiting = asyncio.create_task(topology.ready(10))
    await started.wait()

    await topology.aclose()

    with pytest.raises(StoreUnavailableError):
        await waiting
