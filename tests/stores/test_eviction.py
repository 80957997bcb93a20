"""Servers that forget keys once they are full are told of, where that lets in what was refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from asgi_guard.identity.possession import Possession
from asgi_guard.middleware import RateLimitMiddleware
from asgi_guard.stores import ClusterStore, MemoryStore, RedisStore
from asgi_guard.stores.eviction import caution
from tests.asgi import Echo
from tests.stores.server import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stores.cluster import Cluster
    from tests.stores.server import Server

ENOUGH = 1 << 30


@pytest.fixture
def limited(server: Server) -> Iterator[Server]:
    """A server that has room for so much, and as it was afterwards."""
    server.client.config_set("maxmemory", ENOUGH)
    yield server
    server.client.config_set("maxmemory", 0)
    server.client.config_set("maxmemory-policy", "noeviction")


def forgets(client: Any, policy: str) -> None:
    client.config_set("maxmemory-policy", policy)


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random", "volatile-lru", "volatile-ttl"])
async def test_a_server_that_forgets(limited: Server, policy: str, caplog: pytest.LogCaptureFixture) -> None:
    """Where revocations or proofs are kept, every policy that forgets is warned of at start, and what follows."""
    forgets(limited.client, policy)
    revoking = RateLimitMiddleware(Echo(), store=limited.store(), revocation=True)
    await revoking.startup()
    assert f"maxmemory-policy {policy}, " in caplog.text
    assert "a revoked token is then accepted again; set the policy to noeviction" in caplog.text
    caplog.clear()
    proving = Possession(dpop="accept", store=limited.store())
    await proving.startup()
    assert "a proof that was seen is then taken again" in caplog.text
    caplog.clear()
    limiting = RateLimitMiddleware(Echo(), limit="1/second by ip", store=limited.store())
    await limiting.startup()
    await Possession(store=limited.store()).startup()
    assert caplog.text == ""
    for each in (revoking, limiting):
        await each.shutdown()
    await proving.aclose()


async def test_a_server_that_refuses_what_it_has_no_room_for(limited: Server) -> None:
    """Nobody is warned of a server that forgets nothing: by its policy, or since it takes what there is."""
    store = limited.store()
    assert await caution(store, "lost") is None
    forgets(limited.client, "allkeys-lru")
    assert "lost" in (await caution(store, "lost") or "")
    limited.client.config_set("maxmemory", 0)
    assert await caution(store, "lost") is None
    await store.aclose()
    assert await caution(MemoryStore(), "lost") is None


async def test_a_server_that_does_not_tell(limited: Server, caplog: pytest.LogCaptureFixture) -> None:
    """A user who may not ask, and a server that does not answer, are no reason to warn, or to fail."""
    forgets(limited.client, "allkeys-lru")
    limited.client.execute_command("ACL", "SETUSER", "few", "reset", "on", ">x", "~*", "+@all", "-info")
    store = RedisStore(f"{limited.url}?username=few&password=x", timeout=PATIENCE)
    await RateLimitMiddleware(Echo(), store=store, revocation=True).startup()
    for gone in (RedisStore("unix:///nowhere/at/all"), ClusterStore("redis+cluster://127.0.0.1:1")):
        assert await caution(gone, "lost") is None
        await gone.aclose()
    assert [record.message for record in caplog.records if "maxmemory" in record.message] == []
    await store.aclose()
    limited.client.execute_command("ACL", "DELUSER", "few")


async def test_one_node_that_forgets(cluster: Cluster) -> None:
    """A cluster forgets where one of its nodes does."""
    store = cluster.store()
    assert await caution(store, "lost") is None
    client = cluster.masters[1].client
    client.config_set("maxmemory", ENOUGH)
    forgets(client, "volatile-lru")
    try:
        assert "volatile-lru" in (await caution(store, "lost") or "")
    finally:
        client.config_set("maxmemory", 0)
        forgets(client, "noeviction")
    await store.aclose()
