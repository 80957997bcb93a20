"""The store behind sentinels, as long as all is well or nearly so."""

from __future__ import annotations

import signal
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio.connection import SSLConnection
from redis.asyncio.sentinel import SentinelManagedSSLConnection

from asgi_guard.errors import StoreUnavailableError
from asgi_guard.stores import RedisStore, SentinelStore, operate
from tests.stores.sentinels import SERVICE, Watched
from tests.stores.server import PATIENCE, ask

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    with Watched("s3cr3t", "other-s3cr3t") as found:
        yield found


@pytest.fixture
def url(watched: Watched) -> str:
    watched.servers[0].client.flushall()
    return f"redis+sentinel://:s3cr3t@{watched.hosts}/{SERVICE}/2?sentinel_password=other-s3cr3t"


async def test_the_master_is_found(watched: Watched, url: str) -> None:
    """The sentinels name the master, which is asked like a server by itself, in the database of the URL."""
    store = SentinelStore(url, timeout=PATIENCE)

    await store.revoke("t", 60)
    verdict = await store.admit(ask("{a}:rate:1x1", token_id="t"))
    store.tell(ask("{a}:rate:1x1", 2))

    assert (verdict.admitted, verdict.revoked) == (True, True)
    assert (await store.admit(ask("{a}:rate:1x1", 0))).readings[0].remaining == 2
    assert watched.servers[0].client.info("keyspace")["db2"]["keys"] == 2
    assert [found.client async for found in operate.scan(store.client(), "asgi-guard:", 60)] == ["a"]
    assert await store.ping() > 0
    await store.aclose()
    await store.aclose()
    assert (await store.admit(ask("{a}:rate:1x1", 0))).readings[0].remaining == 2
    await store.aclose()


async def test_a_sentinel_is_no_store(watched: Watched) -> None:
    """Whoever names a sentinel as if it were the server is told so by the first sign of life."""
    store = RedisStore(f"redis://:other-s3cr3t@{watched.hosts.split(',')[0]}", timeout=PATIENCE)
    with pytest.raises(StoreUnavailableError) as caught:
        await store.ping()
    assert "unknown command" in str(caught.value.__cause__)
    await store.aclose()


@pytest.mark.parametrize("stuck", [True, False], ids=["stuck", "gone"])
async def test_one_sentinel_that_does_not_answer_is_passed_over(watched: Watched, url: str, stuck: bool) -> None:
    """As long as one of the sentinels answers, the master is found."""
    first = watched.sentinels[0]
    if stuck:
        first.signal(signal.SIGSTOP)
    else:
        first.kill()
    store = SentinelStore(url, timeout=PATIENCE)
    try:
        assert (await store.admit(ask("a"))).admitted
    finally:
        if stuck:
            first.signal(signal.SIGCONT)
        else:
            first.start()
    await store.aclose()


@pytest.mark.parametrize(
    ("change", "to"),
    [(SERVICE, "other"), ("other-s3cr3t", "wrong-s3cr3t"), (":s3cr3t", ":wrong-s3cr3t"), ("?sentinel_password", "?db")],
    ids=["service", "sentinels' password", "servers' password", "none"],
)
async def test_who_is_not_let_in_is_told_no_password(
    url: str, change: str, to: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the service is not known or a password is wrong, the store is unavailable, and no password is told."""
    wrong = url.replace(change, to) if to != "?db" else url.partition("?")[0]
    store = SentinelStore(wrong, timeout=PATIENCE)

    for _ in range(3):
        with pytest.raises(StoreUnavailableError) as caught:
            await store.admit(ask("a"))
        assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))

    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "s3cr3t" not in caplog.text
    await store.aclose()


async def test_a_master_that_may_not_write_is_dropped(watched: Watched, url: str) -> None:
    """The answer of a master that has become a replica is none, and for the next call the sentinels are asked anew."""
    master, replica = watched.servers
    store = SentinelStore(url, timeout=PATIENCE)
    await store.admit(ask("a"))
    clients = {client["id"] for client in master.client.client_list()}
    # It refuses to write as a replica does, without any sentinel taking it for one.
    master.client.config_set("min-replicas-to-write", "2")
    try:
        with pytest.raises(StoreUnavailableError):
            await store.admit(ask("a"))
    finally:
        master.client.config_set("min-replicas-to-write", "0")

    assert (await store.admit(ask("a", 0))).readings[0].remaining == 4
    assert {client["id"] for client in master.client.client_list()} != clients
    assert replica.client.info("replication")["role"] == "slave"
    await store.aclose()


def test_tls_is_for_servers_and_sentinels() -> None:
    """With `rediss+sentinel`, servers and sentinels alike are spoken to in TLS, with the same certificates."""
    url = f"rediss+sentinel://user:p@a,b:1/service?ssl_ca_certs={__file__}&sentinel_username=s"
    pool: Any = SentinelStore(url)._make_client().connection_pool

    assert issubclass(pool.connection_class, SentinelManagedSSLConnection)
    assert pool.make_connection().ssl_context.ca_certs == __file__
    for sentinel, address in zip(pool.sentinel_manager.sentinels, [("a", 26379), ("b", 1)], strict=True):
        asked = sentinel.connection_pool
        assert issubclass(asked.connection_class, SSLConnection)
        made = asked.make_connection()
        assert (made.host, made.port, made.ssl_context.ca_certs) == (*address, __file__)
        assert (made.username, made.password) == ("s", None)
