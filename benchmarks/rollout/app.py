"""The app that is updated: it tells its process, at once, or after a while below `/slow`."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asgi_guard.asgi import Receive, Scope, Send

SLOW_SECONDS = 0.3


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer every request with 200, and so every probe until the process is gone."""
    if scope["type"] == "lifespan":
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    if scope["path"] == "/slow":
        await asyncio.sleep(SLOW_SECONDS)
    body = b"%d" % os.getpid()
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
