"""What a server sends back on one connection, read as it arrives and given to whoever asked, in order.

The client's own way reads a reply through five coroutines, which takes as long as the server takes to decide. So once
the client has connected, logged in and chosen the database, its connection is read by this instead.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

from redis.exceptions import (
    AskError,
    ClusterDownError,
    InvalidResponse,
    MovedError,
    NoScriptError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

if TYPE_CHECKING:
    from collections.abc import Sequence

Reply: TypeAlias = "bytes | ResponseError | list[Reply] | None"

_ERRORS: dict[str, type[ResponseError]] = {
    "ASK": AskError,
    "CLUSTERDOWN": ClusterDownError,
    "MOVED": MovedError,
    "NOSCRIPT": NoScriptError,
    "TRYAGAIN": TryAgainError,
}
"""The errors that are told apart, by their first word, without which their classes read the rest."""
_AT_ONCE = struct.pack("ii" if os.name == "posix" else "hh", 1, 0)
"""A linger of no time at all, by which closing a socket forgets what is unsent."""
_PUSH = ord(">")
"""What begins that which nobody asked for, of RESP 3."""


class _Asked:
    """Commands that were sent in one write, and those of their replies that have come."""

    __slots__ = ("count", "future", "replies")

    def __init__(self, count: int, future: asyncio.Future[list[Reply]]) -> None:
        self.count, self.future = count, future
        self.replies: list[Reply] = []


class Replies(asyncio.Protocol):
    """The replies on one connection, on which everything that was sent before has been answered.

    Args:
        transport: of the connection, which is this one's from now on.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._asked: deque[_Asked] = deque()
        self._left = b""
        self.ended = transport.is_closing()
        self._client = transport.get_protocol()
        transport.set_protocol(self)

    def ask(self, commands: Sequence[bytes]) -> asyncio.Future[list[Reply]]:
        """Send commands in one write; the future gets their replies, or why there are none.

        Raises:
            ConnectionError: the connection has ended.
        """
        if self.ended:
            raise RedisConnectionError("the connection has ended")
        future: asyncio.Future[list[Reply]] = self._loop.create_future()
        self._asked.append(_Asked(len(commands), future))
        self._transport.write(b"".join(commands))
        return future

    @property
    def under_way(self) -> list[asyncio.Future[list[Reply]]]:
        """What was asked and is not answered yet."""
        return [asked.future for asked in self._asked]

    def data_received(self, data: bytes) -> None:
        """Read the replies that are whole. One that nobody asked for, or that makes no sense, ends the connection."""
        data, at = self._left + data if self._left else data, 0
        try:
            while at < len(data) and (found := read(data, at)) is not None:
                began, (reply, at) = at, found
                if data[began] != _PUSH:
                    self._give(reply)
        except (ValueError, IndexError):
            self.drop(InvalidResponse("the server answers what is no reply"))
        self._left = data[at:]

    def _give(self, reply: Reply) -> None:
        asked = self._asked[0]
        asked.replies.append(reply)
        if len(asked.replies) == asked.count:
            self._asked.popleft()
            if not asked.future.done():
                asked.future.set_result(asked.replies)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits, and the client, which may wait for it as well."""
        self.end(exc or RedisConnectionError("the server closed the connection"))
        self._client.connection_lost(exc)

    def drop(self, error: Exception) -> None:
        """End the connection, and with it what was sent and has not arrived.

        The system would go on sending that, and it could be executed behind what is sent by the next connection.
        """
        self.end(error)
        if not self._transport.is_closing():
            with suppress(OSError, ValueError):  # it has ended just now; uvloop says so by the latter
                self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            self._transport.abort()

    def end(self, error: Exception) -> None:
        """Read no more, and tell whoever waits why."""
        self.ended = True
        while self._asked:
            future = self._asked.popleft().future
            if not future.done():
                future.set_exception(error)


def read(data: bytes, at: int) -> tuple[Reply, int] | None:
    """The reply that begins at a place, and where it ends; None if not all of it is there yet.

    Of RESP, versions 2 and 3, this knows what scripts and their errors are answered with, and arrays. All that is not
    text is left as the server spells it.

    Raises:
        ValueError: it is none.
    """
    end = data.find(b"\r\n", at)
    if end < 0:
        return None
    kind, text, after = data[at : at + 1], data[at + 1 : end], end + 2
    if kind == b"$":
        size = int(text)
        if size < 0:
            return None, after
        end = after + size
        return (data[after:end], end + 2) if end + 2 <= len(data) else None
    if kind == b"-":
        return error(text.decode("utf-8", "replace")), after
    if kind in (b"+", b":", b"_"):
        return text, after
    if kind not in (b"*", b">"):
        raise ValueError("an unknown type of reply")
    items: list[Reply] = []
    for _ in range(int(text)):
        found = read(data, after)
        if found is None:
            return None
        item, after = found
        items.append(item)
    return items, after


def error(text: str) -> ResponseError:
    """The exception of an error."""
    word, _, rest = text.partition(" ")
    kind = _ERRORS.get(word)
    return ResponseError(text) if kind is None else kind(rest)
