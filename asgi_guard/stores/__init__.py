"""Where buckets and revocations are kept: one small protocol, in this process's memory or in Redis of any shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_guard.errors import wrong_type
from asgi_guard.stores.base import Store
from asgi_guard.stores.cluster import ClusterStore
from asgi_guard.stores.memory import MemoryStore
from asgi_guard.stores.redis import RedisStore, own_clock
from asgi_guard.stores.sentinel import SentinelStore
from asgi_guard.stores.urls import reading_url

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ClusterStore", "MemoryStore", "RedisStore", "SentinelStore", "Store", "no_store", "open_store", "own_clock"]

_KINDS: tuple[type[RedisStore | ClusterStore], ...] = (RedisStore, SentinelStore, ClusterStore)
SHARED = {scheme: kind for kind in _KINDS for scheme in kind.schemes}
SCHEMES = ("memory", *SHARED)


def no_store(store: object) -> str | None:
    """Why something given for a store is none; None if it is one, or is not given."""
    if isinstance(store, type):
        return f"it is the class {store.__name__}: give one that is made, as in {store.__name__}(...)"
    if store is None or isinstance(store, Store):
        return None
    return wrong_type(store, "RedisStore(url)")


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
        url: one of

            memory://
            redis://[user:password@]host[:6379][/db][?options]
            unix://[user:password@]/path[?options]
            redis+sentinel://[user:password@]host[:26379],host[:26379],.../SERVICE[/db][?options]
            redis+cluster://[user:password@]host[:6379],host[:6379],...[?options]

            Each with `rediss` for TLS instead of `redis`. Certificates and host names are verified; the options
            `ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile` are paths. `sentinel_username` and `sentinel_password` are
            those of the sentinels. Further options are those of redis-py's connections.
        prefix: put before every key in Redis.
        timeout: seconds until an answer of Redis counts as none.
        max_keys: how many buckets, and how many revocations, the memory holds.
        clock: microseconds since the Unix epoch, where scripts may not ask the server's clock; see `own_clock`.

    Raises:
        ConfigError: the URL is none of these. The text does not repeat it, for it may hold a password.
    """
    with reading_url(url, SCHEMES, "the scheme"):
        scheme = url.partition("://")[0]
    if scheme == "memory":
        return MemoryStore(max_keys=max_keys)
    return SHARED[scheme](url, prefix=prefix, timeout=timeout, clock=clock)
