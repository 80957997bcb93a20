"""Limits of one name that are not the same: workers of a rollout that changes one, and services that share a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asgi_guard import MemoryStore, RateLimitMiddleware
from tests.asgi import Echo, http_scope
from tests.middleware.limiting import Waiting, begin, statuses

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asgi_guard.stores import Store
    from tests.stores.server import Server


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """A store, of each kind that decides for itself."""
    if request.param == "memory":
        yield MemoryStore()
        return
    server: Server = request.getfixturevalue("server")
    shared = server.store()
    yield shared
    await shared.aclose()


def layers(store: Store, *limits: str) -> list[RateLimitMiddleware]:
    return [RateLimitMiddleware(Echo(), limit=limit, store=store, deny_cache=0) for limit in limits]


@pytest.mark.parametrize(
    ("slow", "quick"),
    [
        ("9/hour by ip", "1/second by ip"),
        ("9/hour by ip", "9/second burst 1 by ip"),
        ("9/hour by ip", "1000/second burst 3000 by ip"),
        ("9/hour by ip as one", "10/hour by ip as one"),
    ],
)
async def test_a_quicker_limit_fills_no_bucket_of_a_slower_one(store: Store, slow: str, quick: str) -> None:
    """Whatever a quicker limit of the same name admits or refuses in between, the slower one admits its burst only."""
    first, second = layers(store, slow, quick)
    seen = []
    for _ in range(20):
        seen += await statuses(first, 1)
        await statuses(second, 2)
    assert seen == [200] * 9 + [429] * 11


@pytest.mark.parametrize(
    ("used", "other"),
    [
        ("1/hour by ip", "1/20s by ip"),
        ("1/20s by ip", "1/hour by ip"),
        ("5/hour by ip", "5/hour burst 1 by ip"),
        ("1/hour by route", "2/hour burst 1 by route"),
    ],
)
async def test_nobody_is_refused_for_another_limit(store: Store, used: str, other: str) -> None:
    """A limit that was changed begins with full buckets: nobody is refused for what another one of its name counted."""
    first, second = layers(store, used, other)
    await statuses(first, 7)
    assert await statuses(second, 2) == [200, 429]


async def test_a_limit_is_put_before_another(store: Store) -> None:
    """Limits that are numbered anew by one that was put before them are not taken for one another."""
    old, new = layers(store, "50/second by ip; 9/hour by ip", "50/second by ip; 40/second by ip; 9/hour by ip")
    admitted = 0
    for _ in range(20):
        for layer in (old, new):
            admitted += (await statuses(layer, 1)).count(200)
    assert admitted == 2 * 9


async def test_what_does_not_change_the_rate(store: Store) -> None:
    """A limit that is written otherwise, or meets a failure otherwise, has the buckets that it had."""
    first, second = layers(store, "60/minute burst 2 by ip", "1/second burst 2 by ip on-failure deny")
    assert await statuses(first, 2) == [200, 200]
    assert await statuses(second, 1) == [429]


async def test_requests_at_once_of_another_limit(store: Store) -> None:
    """Requests under way count for the limit that admitted them: no other one of its name refuses for them."""
    first, second = layers(store, "3 at once by ip", "1 at once by ip")
    waiting = first.app = Waiting()
    tasks = [begin(first, http_scope()) for _ in range(3)]
    await waiting.reached(3)
    assert await statuses(second, 2) == [200, 200]
    assert await statuses(first, 1) == [429]
    waiting.go.set()
    assert [(await task).status for task in tasks] == [200] * 3
