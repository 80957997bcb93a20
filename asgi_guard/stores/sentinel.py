"""The store in a Redis or Valkey server that sentinels watch over: they name the one that is the master now."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from redis.asyncio.connection import SSLConnection
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel

from asgi_guard.stores.hosts import read_hosts
from asgi_guard.stores.redis import RedisStore
from asgi_guard.stores.urls import URLError

if TYPE_CHECKING:
    from redis.asyncio import Redis

SENTINEL_TIMEOUT = 0.3
"""Seconds that one sentinel has to answer before the next is asked: a connection is opened in a second, or not."""
PATH = re.compile(r"/([^/]+)(?:/(\d*))?")
ASKED = re.compile(r"(?:<redis|Redis<).*?host=([^,]*),port=(\d+).*? - ")
"""A sentinel as the client's errors have it: with everything that there is to say of its connections."""


class _Sentinels(Sentinel):
    async def discover_master(self, service_name: str) -> Any:
        try:
            return await super().discover_master(service_name)
        except MasterNotFoundError as error:
            raise MasterNotFoundError(ASKED.sub(r"\1:\2 - ", str(error))) from None


class SentinelStore(RedisStore):
    """A `RedisStore` that asks the sentinels for the master whenever it opens a connection.

    Whatever goes wrong closes the connection: the master is gone, does not answer, or has become a replica and may not
    write. So the next call asks the sentinels, and finds the new master as soon as they agree on one; nothing that was
    sent is sent again. A charge that the old master had not copied to the new one when it failed is lost.

    The URL is `redis+sentinel://[user:password@]host[:26379],host[:26379]/SERVICE[/db][?options]`, and
    `rediss+sentinel://` where the servers and the sentinels speak TLS. User and password are those of the servers; the
    sentinels' own are the options `sentinel_username` and `sentinel_password`.
    """

    schemes = ("redis+sentinel", "rediss+sentinel")

    def _make_client(self) -> Redis:
        (*sentinels,), path, options = read_hosts(self._url, 26379)
        match = PATH.fullmatch(path)
        if match is None or ("db" in options and match[2]):
            raise URLError("behind the hosts stands the name of the service, then a database: /SERVICE or /SERVICE/0")
        if options.pop("connection_class", None) is SSLConnection:
            options["ssl"] = True
        logins = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
        asking: dict[str, Any] = {
            **{name: value for name, value in options.items() if name.startswith("ssl") or name == "retry"},
            **{name: value for name, value in logins.items() if value is not None},
            "socket_connect_timeout": SENTINEL_TIMEOUT,
            "socket_timeout": SENTINEL_TIMEOUT,
        }
        options.setdefault("db", int(match[2] or 0))
        manager = _Sentinels(sentinels, sentinel_kwargs=asking, **options)  # type: ignore[no-untyped-call]  # so in redis
        client: Redis = manager.master_for(unquote(match[1]))
        return client

    async def aclose(self) -> None:
        """Let go of the connections of this event loop, those to the sentinels too."""
        client: Any = self._client
        foreign = self._loop is not asyncio.get_running_loop()
        await super().aclose()
        if client is not None and not foreign:
            for sentinel in client.connection_pool.sentinel_manager.sentinels:
                await sentinel.aclose()
