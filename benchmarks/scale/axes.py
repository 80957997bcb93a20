"""Of what there may be more: limit keys, limits, rows of the route table, origins, requests at once.

Each axis gives, for a size, an app and how to make a request that is as good as any other at that size.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asgi_guard import Guard, MemoryStore, RateLimitMiddleware
from asgi_guard.policy.routes import Route
from benchmarks import subjects
from benchmarks.calls import send
from benchmarks.limits.memory import address
from benchmarks.subjects import request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asgi_guard import GuardSettings
    from asgi_guard.asgi import ASGIApp, Receive, Scope, Send
    from asgi_guard.testing import LocalIssuer

    Make = Callable[[], Scope]
    Build = Callable[[int, LocalIssuer, str], Awaitable[tuple[ASGIApp, Make]]]

CALLS = 100
ASKED = 0.05
"""The slope, log-log, that is asked where the cost shall not depend on the size: over the sizes of a full run."""
KEPT = "12/hour burst 100000 by ip"
"""A limit whose buckets are not full again, and so not dropped, while this runs."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Something of which there may be more.

    Attributes:
        name: what it is.
        sizes: how much of it, in a full run, and
        quick: in a quick one.
        build: makes the app.
        flat: whether the cost shall not grow with it.
        together: whether the size is how many requests are under way at once.
    """

    name: str
    sizes: tuple[int, ...]
    quick: tuple[int, ...]
    build: Build
    flat: bool = True
    together: bool = False


def _settings(issuer: LocalIssuer) -> GuardSettings:
    return subjects.settings(issuer.url, issuer.audience)


def _guard(issuer: LocalIssuer, settings: GuardSettings, app: ASGIApp = subjects.raw, **options: Any) -> Guard:
    return Guard(app, settings, http_client=issuer.client, **options)


def _changed(scope: Scope, **headers: str) -> Scope:
    """The request with other values of these headers."""
    new = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return {**scope, "headers": [(name, new.get(name, value)) for name, value in scope["headers"]]}


async def _keys(size: int, issuer: LocalIssuer, token: str) -> tuple[ASGIApp, Make]:
    """A store that holds so many addresses, each of which may ask next."""
    store = MemoryStore(max_keys=size + 10)
    filling = RateLimitMiddleware(subjects.raw, limit=KEPT, store=store)
    scope, chosen = request(token), random.Random(size)  # noqa: S311 - nothing is to be kept secret
    for number in range(size):
        await filling({**scope, "client": (address(number), 1)}, subjects.receive, send)
    assert len(store) == size
    settings = _settings(issuer)
    rate = settings.rate.model_copy(update={"limit": f"{KEPT}; {subjects.LIMITS.format('user').partition('; ')[2]}"})
    guard = _guard(issuer, settings.model_copy(update={"rate": rate}), store=store)
    return guard, lambda: _changed(scope, x_forwarded_for=address(chosen.randrange(size)))


async def _limits(size: int, issuer: LocalIssuer, token: str) -> tuple[ASGIApp, Make]:
    """So many limits that every request has to keep."""
    settings, scope = _settings(issuer), request(token)
    texts = [f"{subjects.RATE - number}/second burst {subjects.BURST} by ip" for number in range(size)]
    rate = settings.rate.model_copy(update={"limit": "; ".join(texts)})
    return _guard(issuer, settings.model_copy(update={"rate": rate}), store=MemoryStore()), lambda: scope


def _table(issuer: LocalIssuer, token: str, paths: list[str], asked: Callable[[int], str]) -> tuple[ASGIApp, Make]:
    scope, chosen = request(token), random.Random(len(paths))  # noqa: S311 - nothing is to be kept secret
    routes = tuple(Route(path, cost=2) for path in paths)
    settings = _settings(issuer).model_copy(update={"routes": routes})

    def make() -> Scope:
        path = asked(chosen.randrange(len(paths)))
        return {**scope, "path": path, "raw_path": path.encode()}

    return _guard(issuer, settings, store=MemoryStore()), make


async def _routes(size: int, issuer: LocalIssuer, token: str) -> tuple[ASGIApp, Make]:
    """A route table of so many exact paths, each of which may be asked for next."""
    return _table(issuer, token, [f"/items/{number}" for number in range(size)], lambda number: f"/items/{number}")


async def _patterns(size: int, issuer: LocalIssuer, token: str) -> tuple[ASGIApp, Make]:
    """A route table of so many patterns."""
    paths = [f"/tenants/{number}/*" for number in range(size)]
    return _table(issuer, token, paths, lambda number: f"/tenants/{number}/items")


async def _origins(size: int, issuer: LocalIssuer, token: str) -> tuple[ASGIApp, Make]:
    """So many origins that may call, any of which does next."""
    settings, scope = _settings(issuer), request(token)
    origins = tuple(f"https://app-{number}.example.com" for number in range(size))
    cors = settings.cors.model_copy(update={"allow_origins": origins})
    chosen = random.Random(size)  # noqa: S311 - nothing is to be kept secret
    guard = _guard(issuer, settings.model_copy(update={"cors": cors}), store=MemoryStore())
    return guard, lambda: _changed(scope, origin=chosen.choice(origins))


async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
    """An app whose requests give way to each other, as those do that ask a database."""
    await asyncio.sleep(0)
    await subjects.raw(scope, receive, send)


async def _together(size: int, issuer: LocalIssuer, token: str) -> tuple[ASGIApp, Make]:
    """Requests that are under way at the same time."""
    scope = request(token)
    return _guard(issuer, _settings(issuer), waiting, store=MemoryStore()), lambda: scope


AXES = (
    Axis("limit keys", (10, 100, 1000, 10_000, 100_000, 1_000_000), (10, 1000, 30_000), _keys),
    Axis("routes of exact paths", (1, 10, 100, 1000), (1, 1000), _routes),
    Axis("origins", (1, 10, 100, 1000, 10_000), (1, 10_000), _origins),
    Axis("requests at once", (1, 10, 100, 1000), (1, 100), _together, flat=False, together=True),
    Axis("limits on a request", (1, 2, 4, 8, 16), (1, 4, 16), _limits, flat=False),
    Axis("routes of patterns", (1, 10, 100, 1000), (1, 100), _patterns, flat=False),
)


def one_by_one(app: ASGIApp, make: Make) -> Callable[[], Awaitable[float]]:
    """A turn of requests one after the other, made beforehand: microseconds for one."""

    async def turn() -> float:
        scopes = [dict(make()) for _ in range(CALLS)]
        started = time.process_time_ns()
        for scope in scopes:
            await app(scope, subjects.receive, send)
        return (time.process_time_ns() - started) / CALLS / 1000

    return turn


def at_once(app: ASGIApp, make: Make, size: int) -> Callable[[], Awaitable[float]]:
    """A turn of so many requests at a time."""

    async def turn() -> float:
        spent = done = 0
        while done < CALLS:
            scopes = [dict(make()) for _ in range(size)]
            started = time.process_time_ns()
            await asyncio.gather(*(app(scope, subjects.receive, send) for scope in scopes))
            spent += time.process_time_ns() - started
            done += size
        return spent / done / 1000

    return turn
