"""A server process of a benchmark: `python -m benchmarks.server.serve JSON`, on a socket that its parent has opened.

It ends when its standard input does: with whoever started it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import threading
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import uvicorn

from asgi_guard import Guard
from asgi_guard.fetching import default_client
from asgi_guard.layer import Chain
from benchmarks import subjects
from benchmarks.calls import Idle
from benchmarks.peers import STACKS
from benchmarks.peers import build as build_peer
from benchmarks.server.tables import BARE, GUARD, LEAST

if TYPE_CHECKING:
    from asgi_guard.asgi import ASGIApp, Message, Receive, Scope, Send


HEADERS = [(b"x-header-%02d" % number, b"a value as long as those of security are") for number in range(14)]
"""As many as the guard adds, and as long."""


@dataclass(frozen=True, slots=True)
class Served:
    """What a server process serves.

    Attributes:
        app: the app, by its name in `subjects.BARE`.
        stack: what is around it: `bare`, `guard`, the first few of its `layers`, what adds nothing but `headers`, or
            one of `peers.STACKS`, which bring FastAPI's endpoint themselves.
        store: the URL of a Redis; None for memory.
        issuer: the URL of the tokens' issuer.
        audience: the tokens' audience.
        core: the only processor core to run on; None for any.
        layers: how many of the guard's layers there are.
    """

    app: str
    stack: str
    store: str | None
    issuer: str
    audience: str
    core: int | None
    layers: int = 0

    def to_json(self) -> str:
        """As the command line has it."""
        return json.dumps(asdict(self))


def build(served: Served) -> ASGIApp:
    """The app with its stack. With a Redis, tokens are looked up among the revoked too."""
    if served.stack in STACKS:
        peer: ASGIApp = build_peer(served.stack, served.issuer, served.audience, served.store)
        return peer
    app = subjects.BARE[served.app]()
    if served.stack == BARE:
        return app
    if served.stack == LEAST:
        return with_headers(app)
    store = served.store
    settings = subjects.settings(served.issuer, served.audience, store or "memory://", revocation=store is not None)
    guard = Guard(app, settings)
    if served.stack == "layers":
        return Chain(app, guard.layers[: served.layers] or [Idle(app)])
    return guard


def with_headers(app: ASGIApp) -> ASGIApp:
    """The app, with as many headers as the guard adds, and as long ones."""

    async def sending(scope: Scope, receive: Receive, send: Send) -> None:
        async def sends(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *HEADERS]}
            await send(message)

        await app(scope, receive, sends)

    return sending


def main(served: Served, descriptor: int) -> None:
    """Serve until standard input ends."""
    if served.core is not None:
        os.sched_setaffinity(0, {served.core})
    ours = served.stack == GUARD
    if ours:
        asyncio.run(_warm_up(served.issuer))
    config = uvicorn.Config(
        build(served),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="error",
        # The guard finds out the client's address by itself; for the others the server does it.
        proxy_headers=served.stack in STACKS,
        forwarded_allow_ips="127.0.0.1",
        lifespan="on" if ours else "auto",
        timeout_graceful_shutdown=1,
    )
    threading.Thread(target=_end_with_input, daemon=True).start()
    uvicorn.Server(config).run([socket.socket(fileno=descriptor)])


async def _warm_up(issuer: str) -> None:
    """Fetch once with all the time that it takes: under a counter of instructions, the first time is a slow one."""
    async with default_client() as client:
        await client.get(f"{issuer}/.well-known/openid-configuration", timeout=60)


def _end_with_input() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(Served(**json.loads(sys.argv[1])), int(sys.argv[2]))
