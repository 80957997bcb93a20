"""A server that wants a password: what is said to change in the URL, and nothing of what is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from asgi_guard.errors import StoreUnavailableError
from asgi_guard.stores import open_store, sentinel
from tests.stores.processes import Process, free_ports, wait_for
from tests.stores.server import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "s3cr3t"
WANTED = r"\(AuthenticationError\): the server wants a password, as in "
ALONE = r"\(AuthenticationError\): a password alone stands behind a colon, as in "


class Server(NamedTuple):
    """Where a server listens that wants a password."""

    port: int
    socket: Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a password, on a port and on a socket."""
    (port,), socket = free_ports(1), tmp_path_factory.mktemp("store") / "s"
    flags = ("--save", "", "--requirepass", SECRET, "--unixsocket", str(socket))
    with Process(port, *flags, password=SECRET) as started:
        wait_for(started.client.ping)
        yield Server(port, socket)


@pytest.mark.parametrize(
    ("before", "behind", "said"),
    [
        ("redis://", "", f"{WANTED}redis://:PASSWORD@host$"),
        ("redis://:@", "", f"{WANTED}redis://:PASSWORD@host$"),
        (f"redis://{SECRET}@", "", f"{ALONE}redis://:PASSWORD@host$"),
        (f"redis://{SECRET}:@", "", f"{ALONE}redis://:PASSWORD@host$"),
        ("redis://", f"?username={SECRET}", f"{ALONE}redis://:PASSWORD@host$"),
        (f"redis://:{SECRET}-other@", "", r"\(AuthenticationError\)$"),
        ("redis://", f"?password={SECRET}-other", r"\(AuthenticationError\)$"),
        ("redis+cluster://", "", rf"{WANTED}redis\+cluster://:PASSWORD@host$"),
        (f"redis+cluster://{SECRET}@", "", rf"{ALONE}redis\+cluster://:PASSWORD@host$"),
        (
            "redis+sentinel://",
            "/service",
            r"\(MasterNotFoundError\): the sentinels want .* \?sentinel_password=PASSWORD$",
        ),
        ("redis+sentinel://", f"/service?sentinel_password={SECRET}-other", r"\(MasterNotFoundError\)$"),
    ],
)
async def test_a_password_is_wanted(
    server: Server, before: str, behind: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A URL without the server's password, or with it in the place of the user, is told where it belongs."""
    monkeypatch.setattr(sentinel, "SENTINEL_TIMEOUT", PATIENCE)  # on a busy machine, no answer would be another fault
    store = open_store(f"{before}127.0.0.1:{server.port}{behind}", timeout=PATIENCE)
    for call in (store.ping(), store.revoke("t", 60)):
        with pytest.raises(StoreUnavailableError, match=said) as caught:
            await call
        assert SECRET not in str(caught.value)
    await store.aclose()


async def test_a_socket_of_a_server_with_a_password(server: Server) -> None:
    """The URL of a socket has the password in front of the path."""
    store = open_store(f"unix://{server.socket}", timeout=PATIENCE)
    with pytest.raises(StoreUnavailableError, match=r"the server wants a password, as in unix://:PASSWORD@/path$"):
        await store.ping()
    await store.aclose()
    told = open_store(f"unix://:{SECRET}@{server.socket}", timeout=PATIENCE)
    assert await told.ping() > 0
    await told.aclose()
