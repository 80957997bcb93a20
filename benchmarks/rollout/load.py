"""Clients that keep their connections, as browsers and proxies do, and what became of every request.

They send POST, which nobody may send again by himself. A connection that was closed before a request goes out is opened
anew, and so is one whose answer said `Connection: close`: neither is a failure.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

if TYPE_CHECKING:
    from types import TracebackType

Failure: TypeAlias = Literal["refused", "reset", "truncated", "status", "timeout"]
"""No connection; closed before any of the answer; closed within it; another status than 200; nothing for too long."""
BODY = b"x" * 256
PATIENCE = 10.0
"""Seconds that an answer, and its connection, may take."""
SLOW_EACH = 8
"""One request in so many asks for what takes a while."""
IDLE_EACH = 16
"""Before one in so many the client does nothing for a moment, so that connections stand idle too."""
IDLE_SECONDS = 0.05


class FailedError(Exception):
    """A request has no good answer. The text is the kind of failure."""

    def __init__(self, kind: Failure) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass
class Counts:
    """What became of the requests.

    Attributes:
        answered: with 200, in full.
        failed: the others, by kind.
        pids: the processes that answered since this was emptied.
    """

    answered: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    pids: set[int] = field(default_factory=set)


class Connection:
    """A kept connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def to(cls, port: int) -> Connection:
        """Connect.

        Raises:
            FailedError: nobody listens.
        """
        try:
            return cls(*await asyncio.open_connection("127.0.0.1", port))
        except OSError:
            raise FailedError("refused") from None

    @property
    def open(self) -> bool:
        """Whether it is, as far as can be known before sending."""
        return not (self._reader.at_eof() or self._reader.exception() or self._writer.is_closing())

    def close(self) -> None:
        """Close it."""
        self._writer.close()

    async def ask(self, path: str) -> bytes:
        """The body of the answer.

        Raises:
            FailedError: there is no good answer.
        """
        self._writer.write(b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b"
                           % (path.encode(), len(BODY), BODY))  # fmt: skip
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise FailedError("truncated" if error.partial else "reset") from None
        except OSError:
            raise FailedError("reset") from None
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        try:
            body = await self._reader.readexactly(int(length[1])) if length else await self._reader.read()
        except (asyncio.IncompleteReadError, OSError):
            raise FailedError("truncated") from None
        if head.split(b" ", 2)[1] != b"200":
            raise FailedError("status")
        if re.search(rb"(?i)\r\nconnection: *close", head):
            self.close()
        return body


class Load:
    """Clients in a thread of their own, while inside the context; on leaving, what is under way is waited for."""

    def __init__(self, port: int, clients: int, patience: float = PATIENCE) -> None:
        self.counts = Counts()
        self._port = port
        self._clients = clients
        self._patience = patience
        self._over = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        self._thread.join(2 * self._patience)

    async def _all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self._clients):
                group.create_task(self._client(number))

    async def _client(self, number: int) -> None:
        connection: Connection | None = None
        while not self._over:
            number += 1
            if number % IDLE_EACH == 0:
                await asyncio.sleep(IDLE_SECONDS)
            try:
                async with asyncio.timeout(self._patience):
                    if connection is None or not connection.open:
                        connection = await Connection.to(self._port)
                    body = await connection.ask("/slow" if number % SLOW_EACH == 0 else "/quick")
            except (FailedError, TimeoutError) as failure:
                self.counts.failed[failure.kind if isinstance(failure, FailedError) else "timeout"] += 1
                if connection is not None:
                    connection.close()
                connection = None
                await asyncio.sleep(0.01)
            else:
                self.counts.answered += 1
                with suppress(ValueError):
                    self.counts.pids.add(int(body))
        if connection is not None:
            connection.close()
