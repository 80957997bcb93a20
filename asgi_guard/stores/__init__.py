"""Where buckets and revocations are kept: one small protocol, in this process's memory or in Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_guard.stores.base import Store
from asgi_guard.stores.memory import MemoryStore
from asgi_guard.stores.redis import RedisStore, own_clock

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MemoryStore", "RedisStore", "Store", "open_store", "own_clock"]

SCHEMES = ("memory", "redis", "rediss", "unix")


def open_store(
    url: str,
    *,
    prefix: str = "asgi-guard:",
    timeout: float = 0.05,
    max_keys: int = 100_000,
    clock: Callable[[], int] | None = None,
) -> Store:
    """Make the store that a URL names. Nothing is connected before it is used.

    Args:
        url: `memory://`, `redis://[user:password@]host[:port][/db]`, `rediss://` for TLS, or `unix://path`.
        prefix: put before every key in Redis.
        timeout: seconds until an answer of Redis counts as none.
        max_keys: how many buckets, and how many revocations, the memory holds.
        clock: microseconds since the Unix epoch, where scripts may not ask the server's clock; see `own_clock`.

    Raises:
        ValueError: the URL is none of these. The text does not repeat it, for it may hold a password.
    """
    scheme, separator, _ = url.partition("://")
    if not separator:
        scheme = ""  # a bare text could be a password
    if scheme == "memory":
        return MemoryStore(max_keys=max_keys)
    if scheme in SCHEMES:
        return RedisStore(url, prefix=prefix, timeout=timeout, clock=clock)
    raise ValueError(f"the scheme {scheme[:16]!r} is none of {', '.join(f'{known}://' for known in SCHEMES)}")
