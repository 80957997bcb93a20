"""A server process of a benchmark: `python -m benchmarks.server.serve JSON`, on a socket that its parent has opened.

It ends when its standard input does: with whoever started it.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import threading
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from asgi_guard import Guard, RateLimitMiddleware
from asgi_guard.chain.layer import Chain
from asgi_guard.identity.fetching import default_client
from asgi_guard.testing import LocalIssuer
from benchmarks import subjects
from benchmarks.calls import Idle
from benchmarks.layers.around import stops
from benchmarks.peers import STACKS
from benchmarks.peers import build as build_peer
from benchmarks.server.tables import BARE, GUARD, LEAST

if TYPE_CHECKING:
    from collections.abc import Sequence

    import uvicorn

    from asgi_guard.asgi import ASGIApp, Header, Message, Receive, Scope, Send


WITHOUT_STORE = "requests without the store: "
"""Before their number, on standard error, when a server ends."""
without_store = 0
"""Requests whose store did not answer in time, in this process."""


@dataclass(frozen=True, slots=True)
class Served:
    """What a server process serves.

    Attributes:
        app: the app, by its name in `subjects.BARE`.
        stack: what is around it: `bare`, `guard`, the first few of its `layers`, nothing but the `headers` that it
            adds, or one of `peers.STACKS`, which bring FastAPI's endpoint themselves.
        store: the URL of a Redis; None for memory.
        issuer: the URL of the tokens' issuer.
        audience: the tokens' audience.
        core: the only processor core to run on; None for any.
        last: the last of the guard's layers that there are, by its name; none but one that does nothing if it is empty.
    """

    app: str
    stack: str
    store: str | None
    issuer: str
    audience: str
    core: int | None
    last: str = ""

    def to_json(self) -> str:
        """As the command line has it."""
        return json.dumps(asdict(self))


def build(served: Served, lines: Sequence[Header] = ()) -> ASGIApp:
    """The app with its stack. With a Redis, tokens are looked up among the revoked too.

    Args:
        served: what there shall be.
        lines: of headers, where they are all that is added.
    """
    if served.stack in STACKS:
        peer: ASGIApp = build_peer(served.stack, served.issuer, served.audience, served.store)
        return peer
    app = subjects.BARE[served.app]()
    if served.stack == BARE:
        return app
    if served.stack == LEAST:
        return with_headers(app, lines)
    store = served.store
    settings = subjects.settings(served.issuer, served.audience, store or "memory://", revocation=store is not None)
    guard = Guard(app, settings)
    for layer in guard.layers:
        if isinstance(layer, RateLimitMiddleware):
            _count(layer)
    if served.stack == "layers":
        return Chain(app, stops(guard.layers)[served.last] if served.last else [Idle(app)])
    return guard


def _count(layer: RateLimitMiddleware) -> None:
    """Count the requests that the layer judges without its store. It is asked so then only: others pay nothing."""
    judged: Any = layer._without_store

    def counted(*asked: Any) -> Any:
        global without_store
        without_store += 1
        return judged(*asked)

    vars(layer)["_without_store"] = counted


def with_headers(app: ASGIApp, lines: Sequence[Header]) -> ASGIApp:
    """The app, with these lines of headers more."""

    async def sending(scope: Scope, receive: Receive, send: Send) -> None:
        async def sends(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *lines]}
            await send(message)

        await app(scope, receive, sends)

    return sending


async def guards_lines(app: str) -> list[Header]:
    """The lines of headers that a guard adds to a response of this app: those of one that it has guarded."""
    issuer = LocalIssuer(algorithm="ES256")
    bare = subjects.BARE[app]()
    guard = Guard(bare, subjects.settings(issuer.url, issuer.audience), http_client=issuer.client)
    scope = subjects.request(issuer.token())
    own, guarded = [await _head(each, scope) for each in (bare, guard)]
    return [line for line in guarded if line not in own]


async def _head(app: ASGIApp, scope: Scope) -> list[Header]:
    """The lines of headers of the app's response, which is a good one."""
    starts: list[Message] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            starts.append(message)

    await app(dict(scope), subjects.receive, send)
    assert [start["status"] for start in starts] == [200], f"{app!r} answers {starts}"
    return list(starts[0]["headers"])


def main(served: Served, descriptor: int) -> None:
    """Serve until standard input ends."""
    import uvicorn

    if served.core is not None:
        os.sched_setaffinity(0, {served.core})
    ours = served.stack == GUARD
    if ours:
        asyncio.run(_warm_up(served.issuer))
    config = uvicorn.Config(
        build(served, asyncio.run(guards_lines(served.app)) if served.stack == LEAST else ()),
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
    server = uvicorn.Server(config)
    threading.Thread(target=_end_with_input, args=(server,), daemon=True).start()
    server.run([socket.socket(fileno=descriptor)])
    print(f"{WITHOUT_STORE}{without_store}", file=sys.stderr, flush=True)


async def _warm_up(issuer: str) -> None:
    """Fetch once with all the time that it takes: under a counter of instructions, the first time is a slow one."""
    async with default_client() as client:
        await client.get(f"{issuer}/.well-known/openid-configuration", timeout=60)


def _end_with_input(server: uvicorn.Server) -> None:
    while os.read(0, 1024):
        pass
    server.should_exit = True  # a signal would be lost before the server heeds it


if __name__ == "__main__":
    main(Served(**json.loads(sys.argv[1])), int(sys.argv[2]))
