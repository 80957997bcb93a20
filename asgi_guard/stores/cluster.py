"""The store in a Redis or Valkey Cluster: each node is asked for all that wait for it, in one write."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, ClassVar

from redis.crc import key_slot

from asgi_guard.configuration.arguments import typed
from asgi_guard.errors import StoreUnavailableError
from asgi_guard.policy.breaker import Breaker
from asgi_guard.policy.bucket import Admission, Verdict
from asgi_guard.policy.revocation import EVER
from asgi_guard.stores.eviction import policy_of
from asgi_guard.stores.hosts import read_hosts
from asgi_guard.stores.nodes import NodePlan, Nodes
from asgi_guard.stores.parts import is_revoked, merge, slot_of, split, taken
from asgi_guard.stores.server_link import probe, revoking, signs_of_life
from asgi_guard.stores.topology import ATTEMPT
from asgi_guard.stores.urls import URLError, advised, reading_url, try_client, unverified
from asgi_guard.stores.wire import look_up, revocation_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from redis.asyncio import RedisCluster

    from asgi_guard.stores.base import Watch
    from asgi_guard.stores.hosts import Address
    from asgi_guard.stores.parts import Part
    from asgi_guard.stores.wire import Question

PROBES = 256
"""Names that are tried to find one for each node: enough for as many as share the slots fairly."""


class ClusterStore:
    """Buckets, revocations and requests under way in a Redis or Valkey Cluster.

    All requests that wait for a node are asked in one write, one call of the script a slot, with deadlines and a
    breaker for each node: one that is gone stops none of the others. All keys of one client are in one slot.

    What one request asks of one slot is decided at once, all or nothing. Where its keys are in several slots (limits by
    address and by user, the look-up of a token), all are asked in parallel; if one refuses, or does not answer, what
    the others took is given back as soon as that is known. In between, it was taken: another request may be refused
    for it. If a node fails just then, it stays taken.

    A node that says that a slot is elsewhere has executed nothing, so the right one is asked, once, within the same
    deadline. Anything else that is no answer counts as none, and nothing that may have been executed is sent again.
    While a slot moves from one node to another, requests that need several of its keys may find it unavailable.

    Args:
        url: `redis+cluster://[user:password@]host[:6379],host[:6379][?options]`, and `rediss+cluster://` for TLS: some
            of the nodes, which tell of the others. It is kept out of errors, logs and reprs.
        prefix: put before every key. With a hash tag in it, all keys are in one slot, and so on one node.
        timeout: seconds until an answer counts as none.
        breaker: when to stop asking a node, and when to try again; each node has its own like it.
        clock: microseconds since the Unix epoch, where scripts may not ask the servers' clocks.

    Raises:
        ConfigError: an argument is of the wrong type, or the URL cannot be read.
    """

    shared = True
    schemes: ClassVar[tuple[str, ...]] = ("redis+cluster", "rediss+cluster")
    """What URLs of this store begin with."""

    @typed
    def __init__(
        self,
        url: str,
        *,
        prefix: str = "asgi-guard:",
        timeout: float = 0.05,
        breaker: Breaker | None = None,
        clock: Callable[[], int] | None = None,
    ) -> None:
        self._url = url
        self.prefix = prefix
        self._timeout = timeout
        self._nodes: Nodes | None = None
        self._at_once = False
        self._loop: asyncio.AbstractEventLoop | None = None
        with reading_url(url, self.schemes, "hosts, ports and options"):
            seeds, options = _read(url)
            self._plan = NodePlan(seeds, options, timeout, clock, breaker or Breaker(), {})
            try_client(self._plan.client(seeds[0]), url)

    def watch(self, watch: Watch) -> None:
        """Tell of each call of a node from now on. Before the first one."""
        self._plan = self._plan._replace(watch=watch)

    def expect_at_once(self) -> None:
        """Have `ping` count a request among those under way too, and end it: limits count those."""
        self._at_once = True

    @property
    def breakers(self) -> Sequence[Breaker]:
        """The breakers of the nodes that were asked."""
        return tuple(self._plan.breakers.values())

    @property
    def is_away(self) -> bool:
        """Whether no node tells who serves what, or one of them is not asked for a while."""
        unknown = self._nodes is not None and self._nodes.topology.is_away
        return unknown or any(breaker.is_open for breaker in self.breakers)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(prefix={self.prefix!r}, timeout={self._timeout})"

    @property
    def unverified(self) -> str | None:
        """The option by which its URL has any certificate accepted, or one of any host; None where it has neither."""
        return unverified(self._url)

    def same_as(self, other: object) -> bool:
        """Whether the other was given the same URL and prefix."""
        return isinstance(other, ClusterStore) and (other._url, other.prefix) == (self._url, self.prefix)

    def _connected(self) -> Nodes:
        """The nodes of this event loop: connections belong to the loop they were opened in."""
        loop = asyncio.get_running_loop()
        if self._nodes is None or self._loop is not loop:
            self._nodes, self._loop = Nodes(self._plan), loop
        return self._nodes

    async def admit(self, request: Admission) -> Verdict:
        """Decide all that a request asks: one call a slot that its keys are in, with those that wait beside it."""
        parts = split(request, self.prefix)
        if not parts:
            return Verdict(admitted=True)
        nodes = self._connected()
        deadline = time.monotonic() + self._timeout
        late = not nodes.topology.known
        if late:
            await nodes.topology.ready(self._timeout)
        try:
            asked = nodes.put(parts)
        except StoreUnavailableError as error:
            if request.token_id is not None or request.marks is not None:
                looked_up = (nodes.look_up(part, deadline) for part in parts)
                error.revoked = is_revoked(await asyncio.gather(*looked_up))
            raise
        if late or len(parts) > 1:
            # Of what was put at once, the lines keep the deadline.
            await _done(asked, deadline if late else None)
        if len(parts) == 1:
            return await nodes.answer(parts[0], asked[0], deadline)
        answered: list[tuple[Part, Verdict]] = []
        failures: list[StoreUnavailableError] = []
        known: list[bool | None] = []  # of the token's revocation
        for part, future in zip(parts, asked, strict=True):
            try:
                answered.append((part, await nodes.answer(part, future, deadline)))
            except StoreUnavailableError as error:
                failures.append(error)
                known.append(error.revoked if look_up(part.question) else False)
        if failures or not all(verdict.admitted for _, verdict in answered):
            back = tuple(charge for part, verdict in answered for charge in taken(part, verdict))
            if back:
                self.tell(Admission(back, lease=request.lease, settles=True))
        if failures:
            failure = max(failures, key=lambda each: each.sent)
            failure.revoked = is_revoked([*known, *(verdict.revoked for _, verdict in answered)])
            raise failure
        return merge(answered)

    def tell(self, request: Admission) -> None:
        """Have a request decided or settled without waiting for it, each slot's part by itself."""
        self._connected().tell(split(request, self.prefix))

    async def revoke(self, name: str, ttl: float, instant: int = EVER) -> None:
        """Put a token, a session or a subject among the revoked, for `ttl` seconds at least."""
        nodes = await self._found()
        key = revocation_key(name, self.prefix)
        await nodes.command(key_slot(key), revoking(key, ttl, instant))

    async def ping(self) -> float:
        """Ask every node as requests ask, by the script, but charging nobody; seconds until all answered or failed.

        It asks even those whose breaker is open.

        Raises:
            StoreUnavailableError: none answered as soon as requests need it. As long as one does, requests to that one
                are served.
        """
        started = time.perf_counter()
        nodes = await self._found()
        now = 0 if self._plan.clock is None else self._plan.clock()
        asked = (nodes.command(slot_of(signs[0]), *probe(signs, now)) for signs in self._probes(nodes))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        failures = [answer for answer in answers if answer is not None]
        if len(failures) == len(answers):
            raise failures[0]
        return time.perf_counter() - started

    def _probes(self, nodes: Nodes) -> Iterable[list[Question]]:
        """What a sign of life asks: of each node something. With a hash tag in the prefix, there is but one to ask."""
        found: dict[Address | None, list[Question]] = {}
        slots = set()
        for number in range(PROBES):
            signs = signs_of_life(self.prefix, f"{{ping-{number}}}:ping", at_once=self._at_once)
            slot = slot_of(signs[0])
            found.setdefault(nodes.topology.node_of(slot), signs)
            slots.add(slot)
            if len(found) == len(nodes.topology.masters) or len(slots) <= number:
                break
        return found.values()

    async def evicts(self) -> str | None:
        """The policy by which a node forgets keys that have not expired; None where none does, or none tells."""
        try:
            nodes = await self._found()
        except StoreUnavailableError:
            return None
        asked = (policy_of(nodes.node(address).client) for address in nodes.topology.masters)
        return next((policy for policy in await asyncio.gather(*asked) if policy is not None), None)

    def client(self) -> RedisCluster:
        """A client of this event loop, for commands that are none of a request's."""
        nodes = self._connected()
        if nodes.client is None:
            nodes.client = self._plan.cluster_client()
        return nodes.client

    async def aclose(self) -> None:
        """Let go of the connections of this event loop, once what is under way is answered."""
        nodes, self._nodes = self._nodes, None
        if nodes is not None and self._loop is asyncio.get_running_loop():
            await nodes.aclose()

    async def _found(self) -> Nodes:
        """The nodes, once any is known: for commands that are none of a request's, so they wait longer."""
        nodes = self._connected()
        try:
            await nodes.topology.ready(max(2 * ATTEMPT, self._timeout), patient=True)
        except StoreUnavailableError as error:
            raise advised(error, self._url) from error.__cause__
        return nodes


def _read(url: str) -> tuple[tuple[Address, ...], dict[str, Any]]:
    seeds, path, options = read_hosts(url, 6379)
    if path.strip("/0") or options.pop("db", 0) != 0:
        raise URLError("a cluster has one database, so none is named")
    return seeds, options


async def _done(asked: Sequence[asyncio.Future[Verdict]], deadline: float | None) -> None:
    """Wait until all are answered. Those that are not in time fail, and are never sent if they were not yet."""
    try:
        await asyncio.wait(asked, timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
    except asyncio.CancelledError:
        for future in asked:
            future.cancel()
        raise
    finally:
        for future in asked:
            if not future.done():
                future.set_exception(StoreUnavailableError("the store does not answer (TimeoutError)"))
            if not future.cancelled():
                future.exception()  # whoever waits is told all the same; if nobody does any more, nobody complains
