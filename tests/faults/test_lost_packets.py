"""What becomes of a question whose packet is lost on the way: until it arrives, the system sends it again and again."""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import pytest

from asgi_guard import RateLimitMiddleware
from asgi_guard.stores import RedisStore
from tests.asgi import Echo, get
from tests.stores.server import PATIENCE, Server, until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="packets are lost by a filter of Linux")

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
# By the packet's length: what holds more than a header of TCP is lost, and the end of a connection arrives.
WORDS = [(0x80, 0, 0, 0), (0x25, 0, 1, 60), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF)]
FILTER = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *word) for word in WORDS))

TIMEOUT = 0.4
OTHER = ("203.0.113.10", 50000)


class Network:
    """The way to a server, on which packets to it can be lost."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._sockets: list[socket.socket] = []
        self.connections: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._come, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connection in self.connections:
            connection.cancel()
        await asyncio.gather(*self.connections, return_exceptions=True)

    async def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._sockets.append(writer.get_extra_info("socket"))
        self.connections.append(asyncio.create_task(self._join(reader, writer)))

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hand everything on, until the client's side has ended."""
        answers, questions = await asyncio.open_unix_connection(self._path)
        back = asyncio.create_task(_hand_on(answers, writer))
        try:
            await _hand_on(reader, questions)
        finally:
            back.cancel()
            writer.close()
            questions.close()

    def lose(self) -> None:
        """Lose what comes on the connections that there are."""
        for each in self._sockets:
            each.setsockopt(
                socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(WORDS), ctypes.addressof(FILTER))
            )

    def lose_no_more(self) -> None:
        """Let pass what comes, and what is sent once more."""
        for each in self._sockets:
            with suppress(OSError, ValueError):  # it is closed, or loses nothing; uvloop says so by the latter
                each.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


async def _hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of the test's own."""
    with Server() as started:
        yield started


async def test_a_question_that_would_arrive_after_its_request_is_over(server: Server) -> None:
    """What was lost, and given up, does not arrive later, behind the word that its request is under way no more."""
    await lose_two(server)


def test_under_uvloop(server: Server) -> None:
    """Under uvloop, too, whose transports are its own."""
    uvloop = pytest.importorskip("uvloop")
    uvloop.run(lose_two(server))


async def lose_two(server: Server) -> None:
    """Lose the questions of two requests, and let pass what is sent of them afterwards."""
    async with Network(str(server.socket)) as network, asyncio.timeout(PATIENCE):
        store = RedisStore(f"redis://127.0.0.1:{network.port}", timeout=TIMEOUT)
        layer = RateLimitMiddleware(Echo(), limit="1 at once by ip on-failure deny", store=store)
        assert (await get(layer)).status == 200
        await ended(server, 1)
        network.lose()
        first = asyncio.create_task(get(layer))
        await asyncio.sleep(TIMEOUT / 2)
        # It fails with the connection, and so early that the word of its end has to take another one.
        second = asyncio.create_task(get(layer, client=OTHER))
        assert [(await first).status, (await second).status] == [503, 503]
        await ended(server, 3)
        network.lose_no_more()
        await network.connections[0]
        assert [(await get(layer)).status, (await get(layer, client=OTHER)).status] == [200, 200]
        await store.aclose()


async def ended(server: Server, number: int) -> None:
    """Wait until the server was told of the end of so many requests."""

    async def told() -> bool:
        return server.calls("zrem") >= number

    await until(told)
