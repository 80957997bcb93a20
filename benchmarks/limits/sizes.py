"""What one client costs in the server's memory."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.limits import peers, scripts
from benchmarks.limits.contenders import Contender, Setup, named, ours

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.limits.servers import Target

CHECKS = 10
"""Requests that the client has made when its keys are looked at: some limiters remember each of them."""
CLIENT = "client-000000"
CHUNK = 5000


@dataclass(frozen=True, slots=True)
class Size:
    """What a contender keeps of one client.

    Attributes:
        name: the contender.
        keys: how many keys.
        key: one of them.
        kind: of what type, and how the server encodes it.
        alone: bytes, as MEMORY USAGE tells.
        among_many: bytes that each of `clients` clients added to the server's `used_memory`.
        clients: how many those were.
    """

    name: str
    keys: int
    key: str
    kind: str
    alone: int
    among_many: float
    clients: int


def measure(
    target: Target, contenders: Sequence[Contender], clients: int, passed: Callable[[float], None]
) -> list[Size]:
    """Measure those that differ in what they keep.

    Args:
        target: a server of our own, which is emptied.
        contenders: all that are present.
        clients: how many clients to fill the server with.
        passed: is told which share of this part is done, each time.
    """
    assert target.own, "a server that someone gave is not emptied"
    kinds = (scripts.COPIED, *(each.name for each in (peers.FIXED, peers.MOVING, peers.SLIDING, peers.THROTTLED)))
    chosen = [ours(), *named(contenders, *kinds)]
    sizes = []
    for contender in chosen:
        _empty(target.client)
        asyncio.run(_use(contender, target.url))
        sizes.append(_size(contender.name, target.client, clients))
        passed(1 / len(chosen))
    _empty(target.client)
    return sizes


def _empty(client: Any) -> None:
    """Take everything away, and wait for it: in the background, it would go on while the next one is measured."""
    client.execute_command("FLUSHALL", "SYNC")


async def _use(contender: Contender, url: str) -> None:
    limiter = await contender.open(Setup(url, count=100, seconds=3600))
    try:
        for _ in range(CHECKS):
            await limiter.check(CLIENT)
    finally:
        await limiter.aclose()


def _size(name: str, client: Any, clients: int) -> Size:
    keys: list[bytes] = sorted(client.keys())
    alone = sum(client.memory_usage(key, samples=0) for key in keys)
    kind = f"{client.type(keys[0]).decode()}, {client.object('encoding', keys[0]).decode()}"
    before = _settled(client)
    # A copy is encoded as its original is, and a great deal faster than so many checks.
    for first in range(1, clients + 1, CHUNK):
        pipeline = client.pipeline(transaction=False)
        for index in range(first, min(first + CHUNK, clients + 1)):
            for key in keys:
                pipeline.copy(key, key.replace(CLIENT.encode(), b"client-%06d" % index))
        assert all(pipeline.execute()), f"the keys of {name} could not be copied"
    among_many = (_settled(client) - before) / clients
    return Size(name, len(keys), keys[0].decode(), kind, alone, among_many, clients)


def _settled(client: Any, patience: float = 2.0) -> int:
    """The server's `used_memory`, once it has done moving to a larger table and no longer changes."""
    until = time.monotonic() + patience
    last = -1
    while (now := int(client.info("memory")["used_memory"])) != last and time.monotonic() < until:
        last = now
        time.sleep(0.05)
    return now
