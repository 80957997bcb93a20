"""The RateLimit layer: which buckets a request takes from, and what happens when the store does not answer."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from asgi_guard import (
    AccessMiddleware,
    APIKey,
    ConfigError,
    IdentityMiddleware,
    MemoryStore,
    RateLimitMiddleware,
    Route,
    StoreUnavailableError,
)
from asgi_guard.testing import LocalIssuer
from tests.asgi import Echo, call, get, websocket_scope

if TYPE_CHECKING:
    from asgi_guard.asgi import ASGIApp, Header
    from asgi_guard.policy.bucket import Admission, Verdict


class Clock:
    """Microseconds, as they are told."""

    def __init__(self) -> None:
        self.now = 1_000_000_000

    def __call__(self) -> int:
        return self.now


class Away:
    """A store that does not answer."""

    shared = True

    async def admit(self, request: Admission) -> Verdict:
        raise StoreUnavailableError("away", 2.5)

    async def revoke(self, token_id: str, ttl: float) -> None:
        raise StoreUnavailableError("away")

    async def ping(self) -> float:
        raise StoreUnavailableError("away")

    async def aclose(self) -> None:
        """There is nothing to close."""


def bearer(token: str) -> Header:
    return b"authorization", f"Bearer {token}".encode()


async def statuses(app: ASGIApp, count: int, **members: Any) -> list[int]:
    return [(await get(app, **members)).status for _ in range(count)]


async def test_refusal() -> None:
    """Who takes more than there is gets 429, with the wait and the limit, and the app is not reached."""
    clock, app = Clock(), Echo()
    layer = RateLimitMiddleware(app, limit="2/minute by ip", store=MemoryStore(clock=clock))
    assert await statuses(layer, 2) == [200, 200]
    exchange = await get(layer)
    assert exchange.status == 429
    assert exchange.headers["content-type"] == "application/problem+json"
    assert 30 <= int(exchange.headers["retry-after"]) <= 33
    assert json.loads(exchange.body)["violated-policies"] == ["ip"]
    assert len(app.scopes) == 2
    clock.now += 30_000_000
    assert await statuses(layer, 2) == [200, 429]


async def test_headers() -> None:
    """Responses tell where the client stands, by the draft's headers, the older ones, or not at all."""
    draft = await get(RateLimitMiddleware(Echo(), limit="5/minute by ip"))
    assert draft.headers["ratelimit"] == '"ip";r=4;t=12'
    assert draft.headers["ratelimit-policy"] == '"ip";q=5;w=60'
    legacy = await get(RateLimitMiddleware(Echo(), limit="5/minute by ip", headers="legacy"))
    assert legacy.headers["x-ratelimit-remaining"] == "4"
    silent = await get(RateLimitMiddleware(Echo(), limit="5/minute by ip", headers="off"))
    assert set(silent.headers) == {"content-type"}


async def test_the_apps_own_headers() -> None:
    """An app that tells limits of its own is left alone."""
    own = [(b"RateLimit", b"mine")]
    exchange = await get(RateLimitMiddleware(Echo(headers=own), limit="5/minute by ip"))
    assert exchange.starts[0]["headers"] == own


async def test_addresses() -> None:
    """Clients are told apart by address, IPv6 ones by their network."""
    layer = RateLimitMiddleware(Echo(), limit="1/hour by ip", ipv6_prefix=56)
    for address, status in [
        ("192.0.2.1", 200),
        ("192.0.2.1", 429),
        ("192.0.2.2", 200),
        ("::ffff:192.0.2.2", 429),
        ("2001:db8::1", 200),
        ("2001:db8:0:ff::2", 429),
        ("2001:db8:0:100::1", 200),
    ]:
        assert (await get(layer, client=(address, 1))).status == status, address


async def test_unknown_address(caplog: pytest.LogCaptureFixture) -> None:
    """Clients whose address the server does not name share one bucket, which is said once."""
    layer = RateLimitMiddleware(Echo(), limit="1/hour by ip")
    assert await statuses(layer, 2, client=None) == [200, 429]
    assert caplog.text.count("no client address") == 1


async def test_identities(issuer: LocalIssuer) -> None:
    """Strangers are counted by address, tokens by subject, and API keys by name."""
    keys = [APIKey(name, sha256(name.encode()).hexdigest()) for name in ("a", "b")]
    limited = RateLimitMiddleware(Echo(), limit="1/hour by anonymous; 2/hour by user; 3/hour by api-key")
    layer = IdentityMiddleware(limited, issuers=[issuer.accepted()], api_keys=keys)
    assert await statuses(layer, 2) == [200, 429]
    for subject in ("alice", "bob"):
        assert [(await get(layer, headers=[bearer(issuer.token(subject))])).status for _ in range(3)] == [200, 200, 429]
    for name in (b"a", b"b"):
        assert await statuses(layer, 4, headers=[(b"x-api-key", name)]) == [200, 200, 200, 429]


async def test_user_holds_for_keys_too() -> None:
    """Without a limit by API key, the one by user holds for keys."""
    limited = RateLimitMiddleware(Echo(), limit="1/hour by user")
    layer = IdentityMiddleware(limited, api_keys=[APIKey("a", sha256(b"a").hexdigest())])
    assert await statuses(layer, 2, headers=[(b"x-api-key", b"a")]) == [200, 429]
    assert await statuses(layer, 2) == [200, 200]


async def test_routes() -> None:
    """A row's limits are its own and two rows share none, a cost is taken, and other paths have the default."""
    routes = [Route("/a", limits="1/hour by ip"), Route("/A", limits="1/hour by ip"), Route("/dear", cost=2),
              Route("/free", limits="")]  # fmt: skip
    layer = RateLimitMiddleware(Echo(), limit="3/hour by ip", routes=routes)
    assert await statuses(layer, 2, path="/a") == [200, 429]
    assert await statuses(layer, 2, path="/A") == [200, 429]
    assert await statuses(layer, 2, path="/dear") == [200, 429]
    assert await statuses(layer, 2, path="/other") == [200, 429]
    assert await statuses(layer, 3, path="/free") == [200, 200, 200]


async def test_all_or_nothing(issuer: LocalIssuer) -> None:
    """A request that one limit refuses takes nothing from the others."""
    layer = IdentityMiddleware(
        RateLimitMiddleware(Echo(), limit="2/hour by user; 3/hour by ip"), issuers=[issuer.accepted()]
    )
    first, second = ([bearer(issuer.token(subject))] for subject in ("alice", "bob"))
    assert await statuses(layer, 3, headers=first) == [200, 200, 429]
    refused = await get(layer, headers=first)
    assert refused.headers["ratelimit"].startswith('"user";r=0')
    assert '"ip"' not in refused.headers["ratelimit"]
    assert await statuses(layer, 2, headers=second) == [200, 429]


async def test_shadow() -> None:
    """In shadow nothing is refused."""
    layer = RateLimitMiddleware(Echo(), limit="1/hour by ip", shadow=True)
    assert await statuses(layer, 3) == [200, 200, 200]


@pytest.mark.parametrize(
    ("extensions", "first"),
    [({"websocket.http.response": {}}, "websocket.http.response.start"), ({}, "websocket.close")],
)
async def test_websocket(extensions: dict[str, Any], first: str) -> None:
    """A handshake over the limit is denied, or closed with 1013 (try again later) before it is accepted."""
    layer = RateLimitMiddleware(Echo(), limit="1/hour by ip")
    accepted = await call(layer, websocket_scope(extensions=extensions))
    assert accepted.messages[0]["type"] == "websocket.accept"
    assert b"ratelimit" in dict(accepted.messages[0]["headers"])
    refused = await call(layer, websocket_scope(extensions=extensions))
    assert refused.messages[0]["type"] == first
    assert refused.messages[0].get("status", 429) == 429
    assert refused.messages[0].get("code", 1013) == 1013


@pytest.mark.parametrize(
    ("choice", "expected"), [("allow", [200] * 3), ("deny", [503] * 3), ("local", [200, 429, 429])]
)
async def test_store_away(choice: Any, expected: list[int]) -> None:
    """When the store does not answer, the operator's choice holds: no limits, 503, or this worker's share of them."""
    layer = RateLimitMiddleware(Echo(), limit="4/hour by ip", store=Away(), on_store_failure=choice, workers=4)
    assert await statuses(layer, 3) == expected


async def test_store_away_says_when() -> None:
    """A 503 for the store's sake says when to come back."""
    exchange = await get(RateLimitMiddleware(Echo(), limit="4/hour by ip", store=Away(), on_store_failure="deny"))
    assert exchange.headers["retry-after"] == "3"
    assert b"store_unavailable" in exchange.body


async def test_a_share_smaller_than_the_cost() -> None:
    """A request that costs more than this worker's share of the limit is still admitted, one at a time."""
    layer = RateLimitMiddleware(
        Echo(), limit="4/hour by ip", store=Away(), workers=4, routes=[Route("/dear", cost=3)]
    )  # fmt: skip
    assert await statuses(layer, 2, path="/dear") == [200, 429]


async def test_revocation(issuer: LocalIssuer) -> None:
    """A token among the revoked is refused, without any limit being set; others are not."""
    store = MemoryStore()
    limited = RateLimitMiddleware(AccessMiddleware(Echo()), store=store, revocation=True)
    layer = IdentityMiddleware(limited, issuers=[issuer.accepted()])
    revoked, other = issuer.token(jti="one"), issuer.token(jti="two")
    user = await layer.verify(revoked.encode())
    await store.revoke(user.token_id or "", 60)
    exchange = await get(layer, headers=[bearer(revoked)])
    assert exchange.status == 401
    assert b"token_revoked" in exchange.body
    assert (await get(layer, headers=[bearer(other)])).status == 200
    assert (await get(layer, headers=[bearer(issuer.token(jti=None))])).status == 200


@pytest.mark.parametrize(("deny", "status"), [(True, 503), (False, 200)])
@pytest.mark.parametrize("limit", ["", "100/second by ip"])
async def test_revocation_that_cannot_be_looked_up(issuer: LocalIssuer, limit: str, deny: bool, status: int) -> None:
    """A token that cannot be looked up meets what the operator said, whatever limits are there."""
    access = AccessMiddleware(Echo(), deny_unknown_revocation=deny)
    limited = RateLimitMiddleware(access, limit=limit, store=Away(), revocation=True)
    layer = IdentityMiddleware(limited, issuers=[issuer.accepted()])
    assert (await get(layer, headers=[bearer(issuer.token())])).status == status


async def test_lifespan(caplog: pytest.LogCaptureFixture) -> None:
    """Start-up tries the store, and says what holds if it does not answer."""
    layer = RateLimitMiddleware(Echo(), limit="1/hour by ip", store=Away())
    await layer.startup()
    await layer.shutdown()
    assert "requests meet 'local'" in caplog.text


@pytest.mark.parametrize(
    ("options", "name", "text"),
    [
        ({"limit": "lots"}, "limit", "lots"),
        ({"limit": "5/second by nobody"}, "limit", "nobody"),
        ({"limit": "5/second by ip", "routes": [Route("/a", cost=6)]}, "routes: any method /a", "costs 6"),
        ({"routes": [Route("/a", limits="x")]}, "routes: any method /a", "x"),
    ],
)
def test_bad_options(options: dict[str, Any], name: str, text: str) -> None:
    """A rate that is malformed, or that could never admit a request, is refused at construction, by name."""
    with pytest.raises(ConfigError) as caught:
        RateLimitMiddleware(Echo(), **options)
    (problem,) = caught.value.problems
    assert problem.name == name
    assert text in problem.message
