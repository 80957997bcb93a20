"""The store over TLS: whom it believes, and whom it does not."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from asgi_guard.errors import StoreUnavailableError
from asgi_guard.policy.bucket import Admission, Charge
from asgi_guard.stores import open_store
from tests.stores.processes import BUS, Process, free_ports, wait_for
from tests.stores.server import PATIENCE, SLOW, Server, ask
from tests.stores.tls import Authority, endpoint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from asgi_guard.stores import Store
    from tests.stores.tls import Streams


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server behind the endpoints."""
    with Server() as started:
        yield started


@pytest.fixture
def known(tmp_path: Path) -> Authority:
    """The authority that is believed."""
    return Authority(tmp_path, "known")


@pytest.fixture
def connect(server: Server) -> Callable[[], Awaitable[Streams]]:
    """Connects an endpoint to that server, which is empty."""
    server.client.flushall()
    server.client.config_resetstat()
    return lambda: asyncio.open_unix_connection(server.socket)


def options(**paths: Path) -> str:
    return "&".join(f"ssl_{name}={quote(str(path), safe='')}" for name, path in paths.items())


async def refused(store: Store) -> str:
    """Why every call is unavailable, with all causes."""
    causes = []
    for call in (store.admit(ask("a")), store.ping()):
        with pytest.raises(StoreUnavailableError) as caught:
            await call
        error: BaseException | None = caught.value
        while error is not None:
            causes.append(f"{type(error).__name__} {error}")
            error = error.__cause__
    await store.aclose()
    return " ".join(causes)


async def test_a_server_that_shows_the_right_certificate(
    known: Authority, server: Server, connect: Callable[[], Awaitable[Streams]]
) -> None:
    """With the authority's certificate named in the URL, the store works over TLS as it does without."""
    async with endpoint(known.issue("127.0.0.1"), connect) as port:
        store = open_store(f"rediss://127.0.0.1:{port}/1?{options(ca_certs=known.path)}", timeout=PATIENCE)
        verdicts = await asyncio.gather(*(store.admit(ask("tls")) for _ in range(7)))

        assert sum(verdict.admitted for verdict in verdicts) == 5
        assert server.client.info("keyspace")["db1"]["keys"] == 1
        assert await store.ping() > 0
        await store.aclose()


@pytest.mark.parametrize(
    ("issuer", "name", "trusts", "reason"),
    [
        pytest.param("other", "127.0.0.1", True, "certificate", id="signed by another"),
        pytest.param("known", "127.0.0.1", False, "certificate", id="no authority named"),
        pytest.param("known", "127.0.0.2", True, "IP address mismatch", id="for another address"),
        pytest.param("known", "redis.example", True, "IP address mismatch", id="for a host's name"),
    ],
)
async def test_a_server_that_shows_a_wrong_certificate(
    known: Authority,
    tmp_path: Path,
    server: Server,
    connect: Callable[[], Awaitable[Streams]],
    issuer: str,
    name: str,
    trusts: bool,
    reason: str,
) -> None:
    """A certificate by another authority, or for another host, is refused before anything is sent."""
    signing = known if issuer == "known" else Authority(tmp_path, issuer)
    async with endpoint(signing.issue(name), connect) as port:
        trusted = options(ca_certs=known.path) if trusts else ""
        why = await refused(open_store(f"rediss://:s3cr3t@127.0.0.1:{port}?{trusted}", timeout=PATIENCE))

    assert reason in why
    assert "s3cr3t" not in why
    assert server.calls("auth") == server.calls("hello") == 0


async def test_a_server_without_tls(known: Authority) -> None:
    """A server that does not speak TLS is refused, not spoken to in the clear."""
    heard = bytearray()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.read(65536))
        writer.write(b"-ERR unknown command\r\n")
        writer.close()

    plain = await asyncio.start_server(listen, "127.0.0.1", 0)
    port = plain.sockets[0].getsockname()[1]
    url = f"rediss://:s3cr3t@127.0.0.1:{port}?{options(ca_certs=known.path)}"

    await refused(open_store(url, timeout=PATIENCE))

    assert b"s3cr3t" not in heard
    plain.close()
    await plain.wait_closed()


@pytest.mark.parametrize("shown", [True, False])
async def test_a_server_that_asks_for_the_clients_certificate(
    known: Authority, connect: Callable[[], Awaitable[Streams]], shown: bool
) -> None:
    """Where the server wants to know who calls, the certificate and the key of the URL tell it."""
    certificate, key = known.issue("client.example")
    own = options(certfile=certificate, keyfile=key) if shown else ""
    async with endpoint(known.issue("127.0.0.1"), connect, clients=known.path) as port:
        store = open_store(f"rediss://127.0.0.1:{port}?{options(ca_certs=known.path)}&{own}", timeout=PATIENCE)
        if shown:
            assert (await store.admit(ask("client"))).admitted
            await store.aclose()
        else:
            await refused(store)


async def test_files_that_are_not_there(tmp_path: Path) -> None:
    """A certificate that is taken away later leaves the store unavailable, whatever listens."""
    file = tmp_path / "authority.pem"
    file.touch()
    store = open_store(f"rediss://127.0.0.1:1?{options(ca_certs=file)}", timeout=PATIENCE)
    file.unlink()

    assert "No such file" in await refused(store)


@pytest.mark.parametrize("scheme", ["rediss", "rediss+cluster"])
async def test_a_port_without_tls(scheme: str) -> None:
    """A server that waits for the end of what is a handshake to TLS is said to speak none."""
    (port,) = free_ports(1)
    with Process(port, "--save", "") as started:
        await asyncio.to_thread(wait_for, started.client.ping)
        store = open_store(f"{scheme}://127.0.0.1:{port}", timeout=0.1)
        with pytest.raises(StoreUnavailableError, match=r"\(TimeoutError\), or speaks no TLS there$"):
            await store.ping()
        await store.aclose()


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
async def test_a_port_with_tls(known: Authority, connect: Callable[[], Awaitable[Streams]], scheme: str) -> None:
    """A server that ends what is no handshake to TLS is said to speak that, maybe."""
    async with endpoint(known.issue("127.0.0.1"), connect) as port:
        store = open_store(f"{scheme}://127.0.0.1:{port}", timeout=PATIENCE)
        said = rf"\(ConnectionError\), or speaks TLS there, as in {scheme.replace('redis', 'rediss')}://$"
        with pytest.raises(StoreUnavailableError, match=said.replace("+", r"\+")):
            await store.ping()
        await store.aclose()


async def test_a_port_where_nobody_listens() -> None:
    """Where there is no connection at all, nothing is said of TLS."""
    store = open_store("redis://127.0.0.1:1", timeout=PATIENCE)
    with pytest.raises(StoreUnavailableError, match=r"\(ConnectionError\)$"):
        await store.ping()
    await store.aclose()


async def test_a_cluster_over_tls(known: Authority) -> None:
    """The nodes that a cluster names are spoken to in TLS as well, and have to show their certificates."""
    (port,) = free_ports(1)

    async with endpoint(known.issue("127.0.0.1"), partial(asyncio.open_connection, "127.0.0.1", port)) as announced:
        config = f"{1:040x} 127.0.0.1:{announced}@{port + BUS} myself,master - 0 0 1 connected 0-16383\n"
        flags = ("--cluster-enabled", "yes", "--cluster-announce-port", str(announced), "--save", "")
        with Process(port, *flags, files={"nodes.conf": config}) as node:
            await asyncio.to_thread(
                wait_for, lambda: b"cluster_state:ok" in node.client.execute_command("CLUSTER", "INFO")
            )
            url = f"rediss+cluster://127.0.0.1:{announced}"
            store = open_store(f"{url}?{options(ca_certs=known.path)}", timeout=PATIENCE)
            request = Admission(tuple(Charge(SLOW, f"{{{name}}}") for name in "abc"), "t")

            await store.ping()
            assert (await store.admit(request)).admitted
            await store.revoke("t", 60)
            assert (await store.admit(request)).revoked
            await store.aclose()
            assert "certificate" in await refused(open_store(url, timeout=PATIENCE))
