"""Replies are read from whatever arrives, in whatever pieces, and each reaches whoever asked, or none does."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis.exceptions import AskError, InvalidResponse, MovedError, NoScriptError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from asgi_guard.stores.replies import Replies, error, read
from tests.stores.server import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asgi_guard.stores.replies import Reply

WHOLE = [
    (b"$5\r\nhello\r\n", b"hello"),
    (b"$0\r\n\r\n", b""),
    (b"$4\r\na\r\nb\r\n", b"a\r\nb"),
    (b"$-1\r\n", None),
    (b"_\r\n", b""),
    (b"+OK\r\n", b"OK"),
    (b":17\r\n", b"17"),
    (b"*0\r\n", []),
    (b"*2\r\n:1\r\n*1\r\n$1\r\nx\r\n", [b"1", [b"x"]]),
]
NONSENSE = [
    b"\r\n", b"?\r\n", b"HTTP/1.1 400 Bad Request\r\n", b"$x\r\n", b"*\r\n", b"*1\r\n!\r\n", b"$\r\n", b"%1\r\n",
]  # fmt: skip


@pytest.mark.parametrize(("data", "reply"), WHOLE)
def test_a_reply_is_read_when_all_of_it_is_there(data: bytes, reply: object) -> None:
    """A whole reply is read to its end and no further, and no beginning of it is one."""
    assert read(data + b"+rest", 0) == (reply, len(data))
    assert read(b"+OK\r\n" + data, 5) == (reply, 5 + len(data))
    assert [read(data[:end], 0) for end in range(len(data))] == [None] * len(data)


@pytest.mark.parametrize("data", NONSENSE)
def test_what_is_no_reply_is_an_error(data: bytes) -> None:
    """What does not follow the protocol is an error, not a reply and nothing to wait for."""
    with pytest.raises(ValueError, match=r"unknown type|invalid literal"):
        read(data, 0)


@given(st.binary(max_size=60))
@example(b"*1000000000\r\n")
@example(b"*1\r\n" * 15)
@example(b"$9999999999\r\n")
def test_reading_ends_on_whatever_bytes(data: bytes) -> None:
    """Any bytes are a reply, the beginning of one, or an error of one type, and nothing is read beyond them."""
    try:
        found = read(data, 0)
    except ValueError:
        return
    assert found is None or found[1] <= len(data)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("NOSCRIPT No matching script.", NoScriptError),
        ("MOVED 3999 127.0.0.1:6381", MovedError),
        ("ASK 3999 127.0.0.1:6381", AskError),
        ("NOPERM no permissions", ResponseError),
        ("", ResponseError),
    ],
)
def test_errors_are_the_clients_own(text: str, kind: type[ResponseError]) -> None:
    """An error has the type that the client has for its first word."""
    made = error(text)

    assert type(made) is kind
    if isinstance(made, MovedError):
        assert (made.slot_id, made.host, made.port) == (3999, "127.0.0.1", 6381)


@dataclass
class End:
    """The server's end of a connection.

    Attributes:
        replies: what reads ours.
        former: the reader that read it before.
    """

    replies: Replies
    former: asyncio.StreamReader
    socket: socket.socket

    def says(self, data: bytes) -> None:
        self.socket.sendall(data)


@asynccontextmanager
async def connected() -> AsyncIterator[End]:
    """A connection whose other end a test speaks for."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(PATIENCE)
    reader, writer = await asyncio.open_connection(sock=ours)
    try:
        yield End(Replies(cast("asyncio.Transport", writer.transport)), reader, theirs)
    finally:
        theirs.close()
        writer.close()
        async with asyncio.timeout(PATIENCE):
            await writer.wait_closed()  # which hangs unless the former protocol is told


async def told(future: asyncio.Future[list[Reply]]) -> list[Reply] | RedisError | OSError:
    """What a future gets, within bounds."""
    async with asyncio.timeout(PATIENCE):
        try:
            return await future
        except (RedisError, OSError) as failure:
            return failure


@given(st.lists(st.integers(1, 3), min_size=1, max_size=5), st.lists(st.integers(1, 40), max_size=8))
@example([1], [1] * 8)
@example([3, 1, 2], [7, 1, 1, 30])
def test_each_reply_reaches_who_asked(counts: list[int], sizes: list[int]) -> None:
    """Whatever pieces the replies arrive in, who sent so many commands gets so many replies, his own, in order."""

    async def scene() -> None:
        async with connected() as end:
            asked = [end.replies.ask([b"%d;" % number] * count) for number, count in enumerate(counts)]
            expected = [[b"%d.%d" % (number, at) for at in range(count)] for number, count in enumerate(counts)]
            data = b"".join(b"$%d\r\n%b\r\n" % (len(text), text) for texts in expected for text in texts)
            for size in [*sizes, len(data)]:
                end.says(data[:size])
                data = data[size:]
                await asyncio.sleep(0)
            assert [await told(future) for future in asked] == expected
            assert not end.replies.ended

    asyncio.run(scene())


async def test_commands_go_out_in_one_write() -> None:
    """The commands of one call arrive together, as they are."""
    async with connected() as end:
        end.replies.ask([b"a", b"b"])

        assert end.socket.recv(10) == b"ab"


async def test_who_no_longer_waits_takes_nobodys_reply() -> None:
    """A reply to whoever no longer waits is read, and the next one gets his own."""
    async with connected() as end:
        gone, waits = end.replies.ask([b"a"]), end.replies.ask([b"b"])
        gone.cancel()
        end.says(b"+a\r\n+b\r\n")

        assert await told(waits) == [b"b"]


async def test_an_error_is_a_reply() -> None:
    """An error of the server's is given as a reply: it ends neither the call nor the connection."""
    async with connected() as end:
        future = end.replies.ask([b"a", b"b"])
        end.says(b"-NOSCRIPT unknown\r\n+b\r\n")

        first, second = await future

        assert (type(first), second) == (NoScriptError, b"b")


async def test_what_is_pushed_is_nobodys_reply() -> None:
    """What a server pushes between replies (RESP 3) is passed over."""
    async with connected() as end:
        future = end.replies.ask([b"a"])
        end.says(b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n+a\r\n")

        assert await told(future) == [b"a"]


@pytest.mark.parametrize("data", [b"+unasked\r\n", *(b"+first\r\n" + data for data in NONSENSE)])
async def test_nonsense_ends_the_connection(data: bytes) -> None:
    """After a reply that nobody asked for, or that is none, nothing on the connection can be trusted: it ends."""
    async with connected() as end:
        asked = [] if data == b"+unasked\r\n" else [end.replies.ask([b"a"]), end.replies.ask([b"b"])]
        end.says(data)

        async with asyncio.timeout(PATIENCE):
            assert await end.former.read() == b""  # the client is told
        assert end.replies.ended
        assert [await told(future) for future in asked[:1]] == [[b"first"]] * len(asked[:1])
        assert [type(await told(future)) for future in asked[1:]] == [InvalidResponse] * len(asked[1:])
        with pytest.raises(RedisConnectionError, match="has ended"):
            end.replies.ask([b"c"])


@pytest.mark.parametrize("data", [b"", b"$5\r\nhel"])
async def test_a_closed_connection_is_told_to_who_waits(data: bytes) -> None:
    """When the server closes, whoever waits is told at once, and so is the client that had the connection."""
    async with connected() as end:
        asked = [end.replies.ask([b"a"]), end.replies.ask([b"b"])]
        assert end.socket.recv(10) == b"ab"
        end.says(data)
        end.socket.close()

        assert [type(await told(future)) for future in asked] == [RedisConnectionError] * 2
        assert end.replies.ended
        async with asyncio.timeout(PATIENCE):
            assert await end.former.read() == b""


async def test_ending_tells_who_waits() -> None:
    """When we end it, whoever waits is told why, and what comes later reaches nobody."""
    async with connected() as end:
        future = end.replies.ask([b"a"])
        end.replies.end(RedisConnectionError("dropped"))
        end.says(b"+a\r\n")
        await asyncio.sleep(0)

        assert str(await told(future)) == "dropped"


async def test_a_connection_that_has_ended_already() -> None:
    """A connection that was closed before it was taken over answers nobody, and says so."""
    ours, theirs = socket.socketpair()
    with theirs:
        _, writer = await asyncio.open_connection(sock=ours)
        writer.close()

        assert Replies(cast("asyncio.Transport", writer.transport)).ended
