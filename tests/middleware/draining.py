"""What the tests of draining share: the layer around the probes, and a server that ends with SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from asgi_guard import DrainMiddleware, HealthMiddleware
from tests.asgi import Echo, get

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from asgi_guard.asgi import ASGIApp


def made(**options: Any) -> DrainMiddleware:
    """The layer around the probes."""
    return DrainMiddleware(HealthMiddleware(Echo()), **options)


async def readiness(app: ASGIApp) -> int:
    """The status of readiness, once what was begun is known."""
    for _ in range(3):
        await asyncio.sleep(0)
    return (await get(app, "/health/ready")).status


class Server:
    """A server's SIGTERM handler."""

    servers: list[Any] | None = None

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.should_exit = False
        self.signals = 0

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.should_exit = True
        self.signals += 1
        self.stopped.set()

    @classmethod
    @contextmanager
    def in_place(cls) -> Iterator[Server]:
        """A server whose handler is the one of SIGTERM meanwhile."""
        before = signal.getsignal(signal.SIGTERM)
        server = cls()
        signal.signal(signal.SIGTERM, server.handle)
        yield server
        signal.signal(signal.SIGTERM, before)
