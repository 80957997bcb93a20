"""What each layer, and the whole guard, adds to one request: in this process, by raw ASGI, without a server.

Every round calls each app in turn, so that whatever slows the machine down slows them all down. What is told of an app
is the median, over the rounds, of its time less the bare app's time in the same round.
"""

from __future__ import annotations

import asyncio
import gc
import io
import os
import statistics
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asgi_guard import (
    AccessLogMiddleware,
    AccessMiddleware,
    AuthSettings,
    CORSMiddleware,
    CORSSettings,
    Guard,
    GuardSettings,
    HealthMiddleware,
    HostMiddleware,
    HostsSettings,
    IdentityMiddleware,
    MemoryStore,
    ProxyMiddleware,
    ProxySettings,
    RateLimitMiddleware,
    RateSettings,
    RequestIDMiddleware,
    SecurityHeadersMiddleware,
)
from asgi_guard.layer import Layer
from asgi_guard.testing import LocalIssuer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asgi_guard.asgi import ASGIApp, Message, Receive, Scope, Send

LIMITS = "100000/second burst 100000000 by ip; 100000/second burst 100000000 by {}"
GUARD = "the whole Guard"
BARE = "the app alone"


@dataclass(frozen=True, slots=True)
class Cost:
    """What one app took, in microseconds a request.

    Attributes:
        name: the layer.
        total: the median of its time.
        added: the median of what it took more than the app alone.
        low: the lower quartile of that, and
        high: the upper one.
    """

    name: str
    total: float
    added: float
    low: float
    high: float


class Idle(Layer):
    """A layer without hooks: what it takes is the price of having any layer at all, and stands in each one's figure."""

    name = "idle"


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """The least that an app can do: a small JSON answer."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"15")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"status":"ok"}'})


def apps(issuer: LocalIssuer) -> dict[str, ASGIApp]:
    """The bare app, each layer alone around it, and the whole guard around it."""
    settings = GuardSettings(
        auth=AuthSettings(issuer=issuer.url, audience=(issuer.audience,)),
        rate=RateSettings(limit=LIMITS.format("user")),
        cors=CORSSettings(allow_origins=("https://app.example.com",)),
        hosts=HostsSettings(allowed=("api.example.com",)),
        proxy=ProxySettings(trusted=("10.0.0.0/8",)),
    )
    return {
        BARE: bare,
        "(a layer that does nothing)": Idle(bare),
        "Health": HealthMiddleware(bare),
        "Proxy": ProxyMiddleware(bare, trusted="10.0.0.0/8"),
        "RequestID": RequestIDMiddleware(bare),
        "AccessLog": AccessLogMiddleware(bare),
        "SecurityHeaders": SecurityHeadersMiddleware(bare),
        "Host": HostMiddleware(bare, allowed="api.example.com"),
        "CORS": CORSMiddleware(bare, allow_origins="https://app.example.com"),
        "Identity (cached token)": IdentityMiddleware(bare, issuers=[issuer.accepted()]),
        "RateLimit (2 limits, memory)": RateLimitMiddleware(
            bare, limit=LIMITS.format("anonymous"), store=MemoryStore()
        ),
        "Access": AccessMiddleware(bare, default="optional"),
        GUARD: Guard(bare, settings, store=MemoryStore(), http_client=issuer.client),
    }


def request(token: str) -> dict[str, Any]:
    """A browser's ordinary API request, through one proxy, as servers make its scope."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/items/42",
        "raw_path": b"/items/42",
        "query_string": b"page=2",
        "root_path": "",
        "headers": [
            (b"host", b"api.example.com"),
            (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
            (b"accept", b"application/json"),
            (b"accept-encoding", b"gzip, deflate, br"),
            (b"origin", b"https://app.example.com"),
            (b"authorization", f"Bearer {token}".encode()),
            (b"x-forwarded-for", b"198.51.100.7"),
        ],
        "client": ("10.0.0.2", 50000),
        "server": ("10.0.0.9", 8000),
        "state": {},
    }


async def receive() -> Message:
    """The whole body, which is empty."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def check(app: ASGIApp, scope: Scope) -> None:
    """See to it that what will be timed is a request that is served."""
    starts: list[Message] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            starts.append(message)

    await app(dict(scope), receive, send)
    assert [start["status"] for start in starts] == [200], f"{app!r} answers {starts}"


async def send(message: Message) -> None:
    """Take a message, as a server would."""


async def timed(app: ASGIApp, scope: Scope, calls: int) -> float:
    """Microseconds a call."""
    started = time.perf_counter_ns()
    for _ in range(calls):
        await app(dict(scope), receive, send)
    return (time.perf_counter_ns() - started) / calls / 1000


@contextmanager
def discarded_output() -> Iterator[None]:
    """Let the access log write to the null device: the call is made, and nobody's terminal is measured."""
    ours = sys.stdout
    with open(os.devnull, "wb") as null, io.TextIOWrapper(null) as stream:  # noqa: PTH123 - it is no file of anyone's
        sys.stdout = stream
        try:
            yield
        finally:
            sys.stdout = ours


async def measure(seconds: float, calls: int, advance: Callable[[float], None]) -> list[Cost]:
    """Measure every app.

    Args:
        seconds: for how long; three rounds are made at the least.
        calls: requests to each app in a round.
        advance: is told the seconds that have passed since it was told last.
    """
    issuer = LocalIssuer()
    scope = request(issuer.token(lifetime=3600))
    measured = apps(issuer)
    times: dict[str, list[float]] = {name: [] for name in measured}
    with discarded_output():
        for app in measured.values():
            await check(app, scope)
            await timed(app, scope, calls)  # to warm up
        order = list(measured.items())
        gc.collect()
        gc.disable()
        try:
            started = told = time.perf_counter()
            while told - started < seconds or len(times[BARE]) < 3:
                for name, app in order:
                    times[name].append(await timed(app, scope, calls))
                order.append(order.pop(0))  # so that nobody is always first, with cold caches
                gc.collect()
                await asyncio.sleep(0)
                now = time.perf_counter()
                advance(now - told)
                told = now
        finally:
            gc.enable()
    return [_cost(name, taken, times[BARE]) for name, taken in times.items()]


def _cost(name: str, times: list[float], base: list[float]) -> Cost:
    added = [time - less for time, less in zip(times, base, strict=True)]
    low, middle, high = statistics.quantiles(added, n=4)
    return Cost(name, statistics.median(times), middle, low, high)
