"""The nodes of a cluster: a line to each, and the way to the right one."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.asyncio import ConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import SSLConnection
from redis.exceptions import (
    AskError,
    MovedError,
    RedisError,
)

from asgi_guard.errors import StoreUnavailableError
from asgi_guard.policy.breaker import Breaker
from asgi_guard.stores.base import UNWATCHED, Watch
from asgi_guard.stores.batching import MAX_WAITING, Line
from asgi_guard.stores.node_link import SLOT_ERRORS, Asking, NodeLink, Told
from asgi_guard.stores.owed import Account, Owed
from asgi_guard.stores.parts import slot_of
from asgi_guard.stores.server_link import beside, in_one_write
from asgi_guard.stores.topology import Topology
from asgi_guard.stores.wire import Question, look_up

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from asgi_guard.policy.bucket import Verdict
    from asgi_guard.stores.hosts import Address
    from asgi_guard.stores.parts import Part

logger = logging.getLogger("asgi_guard")

QUIET = 10.0
"""Seconds between two log lines about slots that are not served."""


class NodePlan(NamedTuple):
    """What nodes are made with.

    Attributes:
        seeds: some of them.
        options: of a connection, but for host and port.
        timeout: seconds that a request waits at most.
        clock: microseconds since the Unix epoch; None asks the servers'.
        breaker: what the breaker of each node is like.
        breakers: those that there are.
        watch: is told how calls go.
    """

    seeds: tuple[Address, ...]
    options: dict[str, Any]
    timeout: float
    clock: Callable[[], int] | None
    breaker: Breaker
    breakers: dict[Address, Breaker]
    watch: Watch = UNWATCHED

    def client(self, address: Address) -> Redis:
        """The client of a node, not connected yet."""
        host, port = address
        return Redis.from_pool(ConnectionPool(host=host, port=port, **self.options))

    def cluster_client(self) -> RedisCluster:
        """A client of all nodes, not connected yet."""
        options = dict(self.options)
        options["ssl"] = options.pop("connection_class", None) is SSLConnection
        return RedisCluster(startup_nodes=[ClusterNode(host, port) for host, port in self.seeds], **options)


class Node(NamedTuple):
    """One server: its connections, and those who wait for it."""

    client: Redis
    line: Line

    async def aclose(self) -> list[Account]:
        """Let the connections go, once what is under way is answered; the accounts that it could not be told."""
        owed = await self.line.leave()
        with suppress(RedisError, OSError):
            await self.client.aclose()
        return owed


class Nodes:
    """The nodes, in one event loop."""

    def __init__(self, plan: NodePlan) -> None:
        self._plan = plan
        self._nodes: dict[Address, Node] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._quiet_until = 0.0
        self._owed = Owed()  # to nodes that are not known
        self.client: RedisCluster | None = None  # made when it is wanted
        self.topology = Topology(plan.seeds, self._slots, self._keep, plan.watch.failed)

    async def _slots(self, address: Address) -> Any:
        return await self.node(address).client.execute_command("CLUSTER", "SLOTS")  # type: ignore[no-untyped-call]  # so in redis

    def node(self, address: Address) -> Node:
        """The node at an address."""
        node = self._nodes.get(address)
        if node is None:
            plan, client = self._plan, self._plan.client(address)
            breaker = plan.breakers.setdefault(address, replace(plan.breaker))
            link = NodeLink(client, plan.clock, address, self.redirected)
            line = Line(link, breaker, plan.timeout, f"the store's node {address[0]}:{address[1]}", plan.watch)
            node = self._nodes[address] = Node(client, line)
        return node

    def _serving(self, slot: int) -> Address:
        address = self.topology.node_of(slot)
        if address is None:
            self.topology.refresh()
            raise StoreUnavailableError("no node of the cluster serves this", sent=False)
        return address

    def _keep(self, addresses: frozenset[Address]) -> None:
        """Let the other nodes go, and tell what nobody could be told while a slot was served by none."""
        for address in self._nodes.keys() - addresses:
            self._plan.breakers.pop(address, None)
            self._spawn(self._retire(self._nodes.pop(address)))
        for account in self._owed.take_all():
            self._owe(account)

    async def _retire(self, node: Node) -> None:
        """Let a node go, and tell those who serve its slots now what it could not be told."""
        for account in await node.aclose():
            self._owe(account)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def put(self, parts: Sequence[Part]) -> list[asyncio.Future[Verdict]]:
        """Ask all parts, or none.

        Raises:
            StoreUnavailableError: a node that one of them needs is not asked.
        """
        lines = [self.node(self._serving(part.slot)).line for part in parts]
        # All are looked at before any is asked: a probe that another node's refusal took back would be used up.
        for part, line in zip(parts, lines, strict=True):
            try:
                line.check(part.question, lines.count(line))
            except StoreUnavailableError:
                self.topology.refresh(self.topology.node_of(part.slot))
                raise
        return [
            line.ask(part.question, along=line in lines[:place])
            for place, (part, line) in enumerate(zip(parts, lines, strict=True))
        ]

    async def look_up(self, part: Part, deadline: float) -> bool | None:
        """What a slot tells of whether a token is revoked, for a request that is not asked; None for nothing."""
        only = look_up(part.question)
        if only is None:
            return False
        part = part._replace(question=only)
        try:
            (asked,) = self.put((part,))
            return (await self.answer(part, asked, deadline)).revoked
        except StoreUnavailableError:
            return None

    async def answer(self, part: Part, future: asyncio.Future[Verdict], deadline: float) -> Verdict:
        """The answer to a part, if need be from the node that the one that was asked names instead.

        Raises:
            StoreUnavailableError: there is none.
        """
        try:
            return await future
        except AskError as error:
            redirect = error
        except StoreUnavailableError:
            self.topology.refresh(self.topology.node_of(part.slot))
            raise
        except RedisError as error:
            raise self._without(error) from error
        again = part.question if isinstance(redirect, MovedError) else Asking(*part.question)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await self.node(_named(redirect)).line.ask(again)
        except (RedisError, TimeoutError) as error:
            raise self._without(error) from error

    def _without(self, error: Exception) -> StoreUnavailableError:
        """The error for a part whose slot is not served, and what else follows from that."""
        self.topology.refresh()
        self._plan.watch.failed()
        kind = type(error).__name__
        if (now := time.monotonic()) >= self._quiet_until:
            self._quiet_until = now + QUIET
            logger.warning("a part of the cluster is not served: %s: %a", kind, str(error)[:256])
        return StoreUnavailableError(f"the store does not answer ({kind})")

    def redirected(self, error: AskError, questions: Sequence[Question]) -> None:
        """Note where a slot is, and tell the node there what was told. Who waits asks there himself."""
        if isinstance(error, MovedError):
            self.topology.moved(error.slot_id, _named(error))
        for question in questions:
            if isinstance(question, Told):
                # This one is not sent on a second time.
                kind = Question if isinstance(error, MovedError) else Asking
                self.node(_named(error)).line.tell(kind(*question))

    def tell(self, parts: Sequence[Part]) -> None:
        """Ask without waiting for the answers."""
        if self.topology.known:
            for part in parts:
                self._tell(Told(*part.question))
        elif parts and len(self._tasks) < MAX_WAITING:
            self._spawn(self._tell_later(parts))

    def _tell(self, question: Question) -> None:
        try:
            line = self.node(self._serving(slot_of(question))).line
        except StoreUnavailableError:
            if question.request.settles:
                self._owed.add(Account(time.monotonic(), question))
        else:
            line.tell(question)

    def _owe(self, account: Account) -> None:
        """Tell an account that comes late, or keep it on while its slot is served by none."""
        try:
            line = self.node(self._serving(slot_of(account.question))).line
        except StoreUnavailableError:
            self._owed.add(account)
        else:
            line.owe(account)

    async def _tell_later(self, parts: Sequence[Part]) -> None:
        with suppress(StoreUnavailableError):
            await self.topology.ready(self._plan.timeout)
            self.tell(parts)

    async def command(self, slot: int, *commands: Sequence[bytes | str | int]) -> StoreUnavailableError | None:
        """Run commands that are none of a request's at the node that serves a slot; what `Line.run` gives.

        Args:
            slot: the slot, of the last of them; the others concern none.
            commands: what is run, in one round trip.

        Raises:
            StoreUnavailableError: it was not answered.
        """
        address = self._serving(slot)
        try:
            return await self.command_at(address, *commands)
        except AskError as error:
            error.host = error.host or address[0]
            self.redirected(error, ())
            try:
                return await self.command_at(_named(error), *commands, asking=not isinstance(error, MovedError))
            except AskError as again:
                raise self._without(again) from again

    async def command_at(
        self, address: Address, *commands: Sequence[bytes | str | int], asking: bool = False
    ) -> StoreUnavailableError | None:
        """Run commands that are none of a request's at one node, with time to connect; what `Line.run` gives.

        Raises:
            StoreUnavailableError: it was not answered.
            AskError: another node serves it. Whoever is asking has been sent on already, and is not sent on again.
        """
        node = self.node(address)
        if asking:
            commands = (*commands[:-1], ("ASKING",), commands[-1])
        try:
            async with beside(node.client) as client:
                return await node.line.run(in_one_write(client, commands))
        except (RedisError, OSError, TimeoutError) as error:
            if isinstance(error, AskError) and not asking:
                raise
            if not isinstance(error, SLOT_ERRORS):
                node.line.fails(error)
            self.topology.refresh(address)
            raise node.line.unavailable(error) from error

    async def aclose(self) -> None:
        """Let all go, once what is under way is answered."""
        await self.topology.aclose()
        await asyncio.gather(*(node.aclose() for node in self._nodes.values()), *self._tasks)
        if self.client is not None:
            await self.client.aclose()


def _named(error: AskError) -> Address:
    """The node that another names."""
    return error.host, error.port
