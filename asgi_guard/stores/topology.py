"""Which node of a cluster serves which slot, as far as is known."""

from __future__ import annotations

import asyncio
from random import sample
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.crc import REDIS_CLUSTER_HASH_SLOTS
from redis.exceptions import RedisError

from asgi_guard.errors import StoreUnavailableError
from asgi_guard.stores.base import UNWATCHED
from asgi_guard.stores.outages import Outages

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asgi_guard.stores.hosts import Address

PAUSE = 0.25
"""Seconds between the beginnings of two refreshes, however many reasons there are for one."""
ATTEMPT = 1.0
"""Seconds that one node has to tell what it knows before the next is asked."""


class Map(NamedTuple):
    """What one node knows.

    Attributes:
        slots: of each slot, the node that serves it.
        nodes: all nodes that are named, replicas too.
        covered: how many slots are served.
    """

    slots: list[Address | None]
    nodes: frozenset[Address]
    covered: int


def read_map(answer: Sequence[Any], asked: Address) -> Map:
    """Read an answer to `CLUSTER SLOTS`: `[[first, last, [host, port, ...], [host of a replica, port, ...]], ...]`.

    Args:
        answer: the answer.
        asked: who gave it, and is meant where a node's host is left out.

    Raises:
        ValueError: it names no node that serves a slot.
    """
    slots: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
    nodes: set[Address] = set()
    for first, last, *serving in answer:
        addresses = [(_text(host) or asked[0], int(port)) for host, port, *_ in serving]
        if addresses and addresses[0][0] != "?":  # a name that this node does not know
            slots[first : last + 1] = [addresses[0]] * (last + 1 - first)
            nodes.update(address for address in addresses if address[0] != "?")
    if not nodes:
        raise ValueError("it names nobody who serves a slot")
    return Map(slots, frozenset(nodes), sum(address is not None for address in slots))


def _text(host: bytes | str | None) -> str:
    return host.decode() if isinstance(host, bytes) else host or ""


class Topology:
    """Which node serves which slot, in one event loop. It is asked anew when there is a reason to, and not too often.

    Args:
        seeds: where to ask as long as no node is known, and if no known node answers.
        ask: gives the answer of a node to `CLUSTER SLOTS`.
        changed: called with the nodes that there are, whenever that is known anew.
        failed: called when it was asked anew, and nobody answered.
    """

    def __init__(
        self,
        seeds: Sequence[Address],
        ask: Callable[[Address], Awaitable[Any]],
        changed: Callable[[frozenset[Address]], None],
        failed: Callable[[], object] = UNWATCHED.failed,
    ) -> None:
        self._seeds = seeds
        self._ask = ask
        self._changed = changed
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        begun, over = "no node of the cluster tells who serves what", "the cluster's nodes answer again"
        self._outages = Outages(self._loop, begun, over)
        self._map = Map([None] * REDIS_CLUSTER_HASH_SLOTS, frozenset(), 0)
        self._suspects: set[Address] = set()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0.0  # when the next refresh may begin
        self._failure: Exception | None = None  # of the last refresh

    @property
    def known(self) -> bool:
        """Whether any node is known."""
        return self._map.covered > 0

    @property
    def masters(self) -> list[Address]:
        """The nodes that serve slots."""
        return [address for address in dict.fromkeys(self._map.slots) if address is not None]

    def node_of(self, slot: int) -> Address | None:
        """The node that serves a slot."""
        return self._map.slots[slot]

    def moved(self, slot: int, address: Address) -> None:
        """Note what a node said of one slot, and ask for all."""
        self._map.slots[slot] = address
        self.refresh()

    def refresh(self, suspect: Address | None = None) -> None:
        """Have it asked anew soon. A node that is suspect is asked last."""
        if suspect is not None:
            self._suspects.add(suspect)
        if self._task is None and self._timer is None:
            wait = self._next - self._loop.time()
            if wait > 0:
                self._timer = self._loop.call_later(wait, self._start)
            else:
                self._start()

    async def ready(self, seconds: float, *, patient: bool = False) -> None:
        """Wait until a node is known. Where none answered when they were asked last, nobody waits for the next answer.

        Args:
            seconds: to wait at most.
            patient: whether to ask, and to wait, even where that has just failed.

        Raises:
            StoreUnavailableError: none is.
        """
        if self.known:
            return
        if patient and self._task is None:
            self._next = 0.0
            self._stop_waiting()
        self.refresh()
        if self._task is not None and (patient or self._failure is None):
            await asyncio.wait({self._task}, timeout=seconds)
        if not self.known:
            wait = max(PAUSE / 2, self._next - self._loop.time())
            kind = type(self._failure or TimeoutError()).__name__
            said = f"no node of the cluster answers ({kind})"
            raise StoreUnavailableError(said, wait, sent=False) from self._failure

    @property
    def is_away(self) -> bool:
        """Whether no node answered when they were asked last, which the log is told of."""
        return self._failure is not None

    async def aclose(self) -> None:
        """Ask no more."""
        self._stop_waiting()
        self._outages.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self) -> None:
        self._timer = None
        self._next = self._loop.time() + PAUSE
        self._task = self._loop.create_task(self._run())

    async def _run(self) -> None:
        """Ask one node after the other, until one knows of every slot; else who knows most is believed."""
        best: Map | None = None
        failure: Exception | None = None
        nodes = sorted(self._map.nodes)
        order = [*sample(nodes, len(nodes)), *(seed for seed in self._seeds if seed not in self._map.nodes)]
        try:
            for address in sorted(order, key=self._suspects.__contains__):
                try:
                    async with asyncio.timeout(ATTEMPT):
                        found = read_map(await self._ask(address), address)
                except (RedisError, OSError, TimeoutError, ValueError, TypeError) as error:
                    self._suspects.add(address)
                    failure = error
                    continue
                if best is None or found.covered > best.covered:
                    best = found
                if best.covered == REDIS_CLUSTER_HASH_SLOTS:
                    break
            self._believe(best, failure)
        finally:
            self._task = None

    def _believe(self, found: Map | None, failure: Exception | None) -> None:
        if found is not None:
            self._map = found
            self._suspects.clear()
            self._changed(found.nodes)
            if self._failure is not None:
                self._outages.ends()
        else:
            self._failed()
            if self._failure is None:
                self._outages.begins(failure)
        self._failure = failure if found is None else None
