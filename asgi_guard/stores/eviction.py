"""Servers that forget what is kept once they are full, as they are told to by `maxmemory` and `maxmemory-policy`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from redis.exceptions import RedisError

from asgi_guard.stores.batching import CONNECT_TIMEOUT

if TYPE_CHECKING:
    from asgi_guard.stores.base import Store

KEEPS = "noeviction"
"""The policy of a server that refuses what it has no room for, instead of forgetting."""


@runtime_checkable
class Evicting(Protocol):
    """A store whose servers may forget."""

    async def evicts(self) -> str | None:
        """The policy by which a server forgets keys that have not expired; None where none does, or none tells."""


async def policy_of(client: Any) -> str | None:
    """The policy by which one server forgets keys; None where it forgets none, may not tell, or does not answer."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            memory = await client.info("memory")
    except (RedisError, OSError, TimeoutError):
        return None
    policy = memory.get("maxmemory_policy", KEEPS)
    return None if policy == KEEPS or not memory.get("maxmemory") else str(policy)


async def caution(store: Store, lost: str) -> str | None:
    """What to warn of where a store may forget what it is to keep; None where it does not, as far as it tells.

    Args:
        store: the store.
        lost: what follows where it forgets.
    """
    policy = await store.evicts() if isinstance(store, Evicting) else None
    if policy is None:
        return None
    return (
        f"the store forgets keys once it is full, by the server's maxmemory-policy {policy}, and clients of many "
        f"addresses can fill it: {lost}; set the policy to {KEEPS}"
    )
