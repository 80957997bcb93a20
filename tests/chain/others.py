"""What stands between chains of layers, or waits, in the tests of these."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from asgi_guard import APIKey
from asgi_guard.chain.layer import Layer
from asgi_guard.policy.identity import api_key_digest

if TYPE_CHECKING:
    from asgi_guard import Guard
    from asgi_guard.asgi import ASGIApp, Message, Receive, Scope, Send
    from asgi_guard.chain.exchange import Exchange
    from asgi_guard.chain.layer import Decision

KEY = APIKey("robot", api_key_digest(b"k"))


class Foreign:
    """A middleware of someone else's, which hands on a scope of its own."""

    def __init__(self, app: ASGIApp, **members: Any) -> None:
        self.app = app
        self.members = members

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, **self.members}, receive, send)


class Slow(Layer):
    """A layer that has something to wait for, as limits in Redis have."""

    name = "slow"

    def decide(self, exchange: Exchange) -> Decision:
        return self.wait()

    async def wait(self) -> None:
        await asyncio.sleep(0.05)


class Mounting:
    """An app mounted under a path, as Starlette does it: the path stays, and the root path grows."""

    def __init__(self, prefix: str, app: ASGIApp) -> None:
        self.prefix = prefix
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        root = scope.get("root_path", "") + self.prefix
        await self.app({**scope, "root_path": root}, receive, send)


async def shut(*guards: Guard) -> None:
    """Let go of what guards hold."""
    for guard in guards:
        for layer in guard.layers:
            await layer.shutdown()


async def unheard(message: Message) -> None:
    """A `send` to which nobody listens."""
