"""A real Valkey Cluster of three masters, and of replicas as a test needs them."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

from redis.crc import key_slot

from asgi_guard.stores import ClusterStore
from tests.stores.processes import BUS, Process, free_ports, wait_for
from tests.stores.server import PATIENCE, ask

if TYPE_CHECKING:
    from collections.abc import Iterator

RANGES = ((0, 5460), (5461, 10922), (10923, 16383))
PREFIX = "asgi-guard:"


class Cluster:
    """Three masters, each with a third of the slots.

    Args:
        replicas: the masters, by their numbers, that have a replica; one mention a replica.
        arguments: what each node is started with, besides.
    """

    def __init__(self, *replicas: int, arguments: tuple[str, ...] = ()) -> None:
        ports = free_ports(len(RANGES) + len(replicas))
        self._stack = ExitStack()
        self.nodes: list[Process] = []
        # What every node knows of every other: they need not be made acquainted, which would take seconds.
        for number in range(len(ports)):
            lines = [_line(number, other, ports, replicas) for other in range(len(ports))]
            config = "\n".join([*lines, f"vars currentEpoch {len(ports)} lastVoteEpoch 0", ""])
            options = {
                "cluster-enabled": "yes",
                "cluster-node-timeout": "500",
                "cluster-require-full-coverage": "no",
                "repl-diskless-sync-delay": "0",
                "save": "",
            }
            flags = [word for name, value in options.items() for word in (f"--{name}", value)]
            node = Process(ports[number], *flags, *arguments, files={"nodes.conf": config})
            self.nodes.append(self._stack.enter_context(node))
        for node in self.nodes:
            wait_for(partial(_well, node))
        for node in self.nodes[len(RANGES) :]:
            wait_for(partial(_following, node))

    @property
    def masters(self) -> list[Process]:
        """Those that are masters at the start."""
        return self.nodes[: len(RANGES)]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def store(self, *, timeout: float = PATIENCE, **options: Any) -> ClusterStore:
        return ClusterStore(self.url, timeout=timeout, prefix=PREFIX, **options)

    def empty(self) -> None:
        for node in self.masters:
            node.client.flushall()
            node.client.config_resetstat()

    def calls(self, command: str) -> list[int]:
        """How often a command was run by each master since it was emptied."""
        stats = [node.client.info("commandstats") for node in self.masters]
        return [int(stat.get(f"cmdstat_{command}", {"calls": 0})["calls"]) for stat in stats]

    def errors(self, kind: str) -> int:
        """How often a kind of error was answered since it was emptied."""
        stats = [node.client.info("errorstats") for node in self.nodes]
        return sum(int(stat.get(f"errorstat_{kind}", {"count": 0})["count"]) for stat in stats)

    @contextmanager
    def moving(self, slot: int, source: int, target: int) -> Iterator[None]:
        """While inside, a slot is on its way from one master to another; it stays with the one that has it."""
        giving, taking = self.nodes[source].client, self.nodes[target].client
        wait_for(lambda: self._owns(source, slot))
        taking.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", identity(source))
        giving.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", identity(target))
        yield
        for client in (giving, taking):
            client.execute_command("CLUSTER", "SETSLOT", slot, "STABLE")

    def _owns(self, number: int, slot: int) -> bool:
        """Whether a master has a slot. What another said before it gave the slot back may have arrived since."""
        client = self.nodes[number].client
        for first, last, owner, *_ in client.execute_command("CLUSTER", "SLOTS"):
            if first <= slot <= last and owner[2].decode() == identity(number):
                return True
        self.assign(slot, number)
        return False

    def hand_over(self, source: int, target: int, *keys: str) -> None:
        """Move keys of a slot that is on its way."""
        words = ["MIGRATE", *self.nodes[target].address, "", 0, 5000, "KEYS"]
        self.nodes[source].client.execute_command(*words, *(PREFIX + key for key in keys))

    def assign(self, slot: int, owner: int) -> None:
        """Say whose a slot is, to all masters, the owner first, whose epoch is then the newest.

        What who had it before says of it may still be on its way, and would count for more than what an owner with an
        older epoch says: the slot would be nobody's, for good.
        """
        self.nodes[owner].client.execute_command("CLUSTER", "BUMPEPOCH")
        for number in (owner, *(number for number in range(len(RANGES)) if number != owner)):
            self.nodes[number].client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", identity(owner))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self._stack.close()


def _line(number: int, other: int, ports: list[int], replicas: tuple[int, ...]) -> str:
    """What one node knows of another, in the words of its own file."""
    flags = "myself," if other == number else ""
    place = f"{identity(other)} 127.0.0.1:{ports[other]}@{ports[other] + BUS} {flags}"
    if other < len(RANGES):
        return f"{place}master - 0 0 {other + 1} connected {RANGES[other][0]}-{RANGES[other][1]}"
    master = replicas[other - len(RANGES)]
    return f"{place}slave {identity(master)} 0 0 {master + 1} connected"


def identity(number: int) -> str:
    """The name that a node has among the others."""
    return f"{number + 1:040x}"


def _well(node: Process) -> bool:
    return "cluster_state:ok" in node.client.execute_command("CLUSTER", "INFO").decode()


def _following(node: Process) -> bool:
    return bool(node.client.info("replication")["master_link_status"] == "up")


def names(master: int, prefix: str = "") -> Iterator[str]:
    """Keys whose slots are a master's at the start, with another prefix behind the store's."""
    first, last = RANGES[master]
    for number in range(1_000_000):
        name = f"k{number}"
        if first <= key_slot((PREFIX + prefix + name).encode()) <= last:
            yield name


def slot(name: str) -> int:
    return key_slot((PREFIX + name).encode())


def name(master: int, number: int = 0, prefix: str = "") -> str:
    """A key whose slot is a master's, with another prefix behind the store's."""
    return next(islice(names(master, prefix), number, None))


async def left(store: ClusterStore, *keys: str) -> list[int]:
    """What is left in buckets, each looked at by itself."""
    return [(await store.admit(ask(key, 0))).readings[0].remaining for key in keys]
