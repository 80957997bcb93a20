"""The lifespan protocol, for apps that have one and for apps that do not (ASGI lifespan specification 2.0).

The layers start before the app and stop after it. An app that raises before it asks for anything, or returns before it
has answered start-up, has no lifespan; the guard then completes the protocol in its place, so that its own resources
are closed properly all the same. One that raises after it was asked to start, or that is of a framework with a
lifespan, may have failed: what comes of that is the server's to decide, as it does without the guard. One that could
not even be built has failed: no server starts with it.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from typing import TYPE_CHECKING

from asgi_guard.apps.raising import could_not_be_built, has_lifespan, refuses_lifespan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asgi_guard.asgi import ASGIApp, Message, Receive, Scope, Send
    from asgi_guard.chain.layer import Layer

logger = logging.getLogger("asgi_guard")


class Lifespan:
    """One run of the lifespan protocol.

    Args:
        app: the app within.
        layers: to be started before it, in order, and stopped after it, in reverse.
        receive: the server's.
        send: the server's.
    """

    def __init__(self, app: ASGIApp, layers: Sequence[Layer], receive: Receive, send: Send) -> None:
        self._app = app
        self._layers = layers
        self._server_receive = receive
        self._server_send = send
        self._running: list[Layer] = []
        self._failure: Exception | None = None
        self._starting: Message | None = None
        self._unread: Message | None = None
        self._stopping = False
        self._started = False
        self._over = False

    async def run(self, scope: Scope) -> None:
        """Serve the scope until the server shuts down."""
        try:
            await self._run_app(scope)
            if not self._over:
                await self._complete()
        except BaseException as error:
            if not isinstance(error, Exception) and not self._over:
                await self._stop()  # the server has given the scope up, and asks nothing more
            raise

    async def _run_app(self, scope: Scope) -> None:
        """Hand the scope to the app; one that raises since it has no lifespan has ended early."""
        within = "app" in scope  # a framework stands outside, whose own lifespan is further in
        try:
            await self._app(scope, self._receive, self._send)
        except Exception as error:
            if self._over:
                raise
            if self._started:
                await self._stop()
                raise
            if could_not_be_built(error):
                said = f"asgi-guard: the app could not be built, and would not be served: {traceback.format_exc()}"
                await self._send({"type": "lifespan.startup.failed", "message": said})
                raise
            if self._starting is not None or within or has_lifespan(error):
                logger.warning("the app raised in its start-up; some servers go on without lifespan", exc_info=True)
                await self._stop()
                for layer in self._layers:
                    layer.without_lifespan()
                raise
            level = logging.INFO if refuses_lifespan(error) else logging.WARNING
            said = "the app raised on the lifespan scope, so it is taken to have no lifespan"
            logger.log(level, said, exc_info=True)

    async def _receive(self) -> Message:
        if self._failure is not None:
            raise self._failure  # nothing comes any more, whoever asks again
        if self._unread is not None:
            message, self._unread = self._unread, None
            return message
        message = await self._server_receive()
        if message["type"] == "lifespan.startup":
            self._starting = message
            try:
                _require_asyncio()
                for layer in self._layers:
                    self._running.append(layer)  # first, since one that fails halfway has something to close too
                    await layer.startup()
            except Exception as error:
                self._over, self._failure = True, error
                await self._stop()
                await self._server_send({"type": "lifespan.startup.failed", "message": f"asgi-guard: {error}"})
                raise
        elif message["type"] == "lifespan.shutdown":
            self._stopping = True
        return message

    async def _send(self, message: Message) -> None:
        if self._failure is not None:
            return  # the server was told already
        kind = message["type"]
        if kind == "lifespan.startup.complete":
            if self._starting is None:  # an app may say so before it is asked: the layers start first all the same
                self._unread = await self._receive()
            self._note_started()
        elif kind in ("lifespan.shutdown.complete", "lifespan.shutdown.failed", "lifespan.startup.failed"):
            self._over = True
            await self._stop()
        await self._server_send(message)

    async def _complete(self) -> None:
        """Go on in the place of an app that has no lifespan, or that left its own early."""
        if not self._started:
            await self._send({"type": "lifespan.startup.complete"})
        while not self._stopping:
            await self._receive()
        await self._send({"type": "lifespan.shutdown.complete"})

    def _note_started(self) -> None:
        self._started = True
        for layer in self._layers:
            layer.started()

    async def _stop(self) -> None:
        for layer in reversed(self._running):
            try:
                await layer.shutdown()
            except Exception:
                logger.exception("the layer %s failed to shut down", layer.name)


class Startups:
    """Counts the servers that have started something in one process, which is over only when the last of them stops."""

    def __init__(self) -> None:
        self._loops: list[asyncio.AbstractEventLoop] = []

    def add(self) -> bool:
        """Note that one more has started: whether it is the only one."""
        # A loop that is closed was given up by its server without a stop.
        self._loops = [loop for loop in self._loops if not loop.is_closed()]
        self._loops.append(asyncio.get_running_loop())
        return len(self._loops) == 1

    def remove(self) -> bool:
        """Note that one has stopped: whether none is left."""
        loop = asyncio.get_running_loop()
        if loop in self._loops:
            self._loops.remove(loop)
        return all(each.is_closed() for each in self._loops)


def _require_asyncio() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "it needs an event loop of asyncio (uvloop's is one), which this server does not run: "
            "hypercorn takes -k asyncio"
        ) from None
