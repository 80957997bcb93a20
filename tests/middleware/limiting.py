"""What the tests of limits share: a clock, a store with switches, and clients."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from asgi_guard import MemoryStore, RateLimitMiddleware, StoreUnavailableError
from tests.asgi import Exchange, call, get

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asgi_guard.asgi import ASGIApp, Header, Message, Receive, Scope, Send
    from asgi_guard.policy.bucket import Admission, Verdict
from asgi_guard.policy.revocation import EVER
from asgi_guard.stores import Store

Mood: TypeAlias = Literal["well", "away", "deaf"]
PATIENCE = 20.0
"""Seconds after which a wait counts as a hang."""


class Micros:
    """Microseconds, as they are told."""

    def __init__(self) -> None:
        self.now = 1_000_000_000

    def __call__(self) -> int:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += int(seconds * 1_000_000)


class Fickle:
    """A shared store with a real one behind it, which can be away, or lose its answers, or keep who asks waiting.

    Attributes:
        mood: `well`; `away`, where nothing arrives; `deaf`, where what is asked is done and the answer is lost.
        gate: who asks waits until it is set.
        asked: what was asked, in order.
        told: what arrived of what was told.
    """

    shared = True

    def __init__(self, inner: Store | None = None, mood: Mood = "well") -> None:
        self.inner: Store = inner if inner is not None else MemoryStore()
        self.mood: Mood = mood
        self.gate: asyncio.Event | None = None
        self.asked: list[Admission] = []
        self.told: list[Admission] = []

    @property
    def renewed(self) -> int:
        """How many leases were renewed."""
        return sum(not request.settles for request in self.told)

    async def admit(self, request: Admission) -> Verdict:
        self.asked.append(request)
        if self.mood == "away":
            raise StoreUnavailableError("away", 2.5)
        if self.gate is not None:
            await self.gate.wait()
        verdict = await self.inner.admit(request)
        if self.mood == "deaf":
            raise StoreUnavailableError("deaf")
        return verdict

    def tell(self, request: Admission) -> None:
        if self.mood != "away":
            self.told.append(request)
            self.inner.tell(request)

    async def revoke(self, name: str, ttl: float, instant: int = EVER) -> None:
        await self.inner.revoke(name, ttl, instant)

    async def ping(self) -> float:
        if self.mood == "away":
            raise StoreUnavailableError("away")
        return await self.inner.ping()

    async def aclose(self) -> None:
        await self.inner.aclose()


class Waiting:
    """An app that answers when it is told to.

    Attributes:
        go: it answers once this is set.
        here: how many requests are in it.
    """

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.here = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.here += 1
        try:
            await self.go.wait()
        finally:
            self.here -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async def reached(self, count: int) -> None:
        """Wait until so many requests are in it."""
        await until(lambda: self.here == count)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what other tasks of this loop bring about."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0)


class Session:
    """A WebSocket client that takes turns with the app.

    Attributes:
        sent: what the app sent.
    """

    def __init__(self, app: ASGIApp, scope: Scope) -> None:
        self.sent: list[Message] = []
        self._incoming: asyncio.Queue[Message] = asyncio.Queue()
        self._incoming.put_nowait({"type": "websocket.connect"})
        self._task = asyncio.ensure_future(self._run(app, scope))

    async def _run(self, app: ASGIApp, scope: Scope) -> None:
        async def send(message: Message) -> None:
            self.sent.append(message)

        await app(scope, self._incoming.get, send)

    def say(self, *texts: str) -> None:
        for text in texts:
            self._incoming.put_nowait({"type": "websocket.receive", "text": text})

    def leave(self) -> None:
        self._incoming.put_nowait({"type": "websocket.disconnect", "code": 1001})

    @property
    def texts(self) -> list[str]:
        return [message["text"] for message in self.sent if message["type"] == "websocket.send"]

    @property
    def closes(self) -> list[tuple[int, str]]:
        return [(each["code"], each.get("reason", "")) for each in self.sent if each["type"] == "websocket.close"]

    async def heard(self, count: int) -> None:
        """Wait until the app has sent so many texts, or has ended."""
        await until(lambda: len(self.texts) >= count or self._task.done())

    async def over(self) -> None:
        """Wait for the app's end; what it raised is raised."""
        async with asyncio.timeout(PATIENCE):
            await self._task

    async def cancel(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})


def held(layer: RateLimitMiddleware) -> int:
    """How many leases a layer renews."""
    return len(layer._accounts.leases)


def counted(store: MemoryStore) -> int:
    """How many requests a store counts as under way."""
    return sum(map(len, store._under_way.values()))


def bearer(token: str) -> Header:
    return b"authorization", f"Bearer {token}".encode()


async def statuses(app: ASGIApp, count: int, **members: Any) -> list[int]:
    return [(await get(app, **members)).status for _ in range(count)]


def begin(app: ASGIApp, scope: Scope) -> asyncio.Task[Exchange]:
    """Begin a request."""
    return asyncio.ensure_future(call(app, scope))


async def cancelled(task: asyncio.Task[Any]) -> bool:
    """Cancel a request, as a server does that will not wait any longer; whether it took notice."""
    task.cancel()
    await asyncio.wait({task})
    return task.cancelled()


async def both(*requests: Awaitable[Exchange]) -> list[int]:
    """The statuses of requests that are made together."""
    return [exchange.status for exchange in await asyncio.gather(*requests)]
