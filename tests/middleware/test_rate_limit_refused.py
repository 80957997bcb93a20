"""What requests that Access refuses take from others: nothing that lasts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asgi_guard import AuthSettings, Guard, GuardSettings, MemoryStore, RateSettings, Route
from tests.asgi import Echo, get
from tests.middleware.limiting import statuses

if TYPE_CHECKING:
    from asgi_guard.asgi import Header
    from asgi_guard.stores import Store
    from asgi_guard.testing import LocalIssuer

FAR = ("198.51.100.1", 1)


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> Store:
    found: Store = MemoryStore() if request.param == "memory" else request.getfixturevalue("redis_store")
    return found


def guard(issuer: LocalIssuer, store: Store, limit: str, *routes: Route) -> Guard:
    auth = AuthSettings(issuer=issuer.url, audience=(issuer.audience,), revocation=True)
    chosen = GuardSettings(auth=auth, rate=RateSettings(limit=limit), routes=routes)
    return Guard(Echo(), chosen, store=store, http_client=issuer.client)


def bearer(token: str) -> list[Header]:
    return [(b"authorization", f"Bearer {token}".encode())]


async def test_a_revoked_token_takes_nothing_from_its_owner(issuer: LocalIssuer, store: Store) -> None:
    """Whoever goes on with a token that was revoked does not use up the limit of its owner, but its own address's."""
    front = guard(issuer, store, "5/hour by user; 4/hour by ip")
    stolen, good = issuer.token("alice"), issuer.token("alice")
    assert (await get(front, headers=bearer(stolen), client=FAR)).status == 200
    assert isinstance(front.app, Echo)
    await front.revoke(front.app.scopes[0]["user"])
    assert [(await get(front, headers=bearer(stolen), client=FAR)).status for _ in range(5)] == [
        401,
        401,
        401,
        429,
        429,
    ]
    assert [(await get(front, headers=bearer(good))).status for _ in range(4)] == [200] * 4
    assert (await get(front, headers=bearer(good), client=("192.0.2.9", 1))).status == 429


async def test_nobody_who_may_not_come_in_uses_up_a_route(issuer: LocalIssuer, store: Store) -> None:
    """A limit that all clients of a route share is used up by those who are served there only."""
    front = guard(issuer, store, "", Route("/reports/*", scopes=("read",), limits="2/hour by route; 100/hour by ip"))
    assert [(await get(front, "/reports/1", client=FAR)).status for _ in range(5)] == [401] * 5
    poor, rich = bearer(issuer.token("bob")), bearer(issuer.token("bob", scopes=("read",)))
    assert [(await get(front, "/reports/1", poor)).status for _ in range(3)] == [403] * 3
    assert [(await get(front, "/reports/1", rich)).status for _ in range(3)] == [200, 200, 429]


async def test_a_refused_request_takes_what_is_its_own(issuer: LocalIssuer, store: Store) -> None:
    """An identity that may not do what it asks for uses up its own limit, as an address does its own."""
    front = guard(issuer, store, "2/hour by user", Route("/pay", scopes=("pay",)))
    headers = bearer(issuer.token("bob"))
    assert [(await get(front, "/pay", headers)).status for _ in range(3)] == [403, 403, 429]
    front = guard(issuer, store, "2/hour by anonymous as strangers")
    assert await statuses(front, 3) == [401, 401, 429]
