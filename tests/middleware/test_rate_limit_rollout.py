"""Limits that hold for some: in shadow, for a share of the clients, and not for those who are exempt."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard import (
    AccessLogMiddleware,
    APIKey,
    ConfigError,
    IdentityMiddleware,
    MemoryStore,
    ProxyMiddleware,
    RateLimitMiddleware,
    Route,
)
from asgi_guard.policy.exemptions import Exemptions
from asgi_guard.policy.identity import User
from asgi_guard.policy.limit_sets import binds
from asgi_guard.policy.rates import parse_limits
from tests.asgi import Echo, call, get, websocket_scope
from tests.middleware.limiting import Fickle, bearer, statuses
from tests.stores.server import full_at

if TYPE_CHECKING:
    from asgi_guard.asgi import ASGIApp
    from asgi_guard.testing import LocalIssuer


async def records(limited: ASGIApp, count: int, **members: Any) -> list[dict[str, Any]]:
    """The log's lines of so many requests."""
    lines: list[bytes] = []
    await statuses(AccessLogMiddleware(limited, write=lines.append), count, **members)
    return [json.loads(line) for line in lines]


async def test_one_limit_in_shadow() -> None:
    """A limit in shadow is charged, logged where it would refuse, and not told; the others refuse as ever."""
    store = MemoryStore()
    layer = RateLimitMiddleware(Echo(), limit="1/hour by ip as quiet shadow; 3/hour by ip as loud", store=store)
    answers = [await get(layer) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 200]
    for answer in answers:
        assert "quiet" not in str(answer.headers)
        assert answer.headers["ratelimit-policy"] == '"loud";q=3;w=3600'
    (refused,) = await records(layer, 1)
    assert refused["asgi_guard.limit"] == "loud"
    assert refused["asgi_guard.limit_shadow"] == "quiet"
    assert refused["http.response.status_code"] == 429
    assert {name.split(":")[2] for name in full_at(store)} == {"quiet", "loud"}


async def test_what_shadow_would_have_refused_is_logged() -> None:
    """A request that only a limit in shadow would refuse is served, and its line names the limit."""
    layer = RateLimitMiddleware(Echo(), limit="1/hour by ip shadow")
    first, second = await records(layer, 2)
    assert "asgi_guard.limit_shadow" not in first
    assert second["asgi_guard.limit_shadow"] == "ip"
    assert "asgi_guard.reason" not in second
    assert set((await get(layer)).headers) == {"content-type"}


@pytest.mark.parametrize("style", ["draft", "legacy", "off"])
async def test_everything_in_shadow(style: Any) -> None:
    """With everything in shadow nothing is refused, and no header tells of limits."""
    limit = "1/hour by ip; 1 at once by ip; 1/hour by header:x-a enforce 50%"
    layer = RateLimitMiddleware(Echo(), limit=limit, shadow=True, headers=style)
    for _ in range(3):
        exchange = await get(layer)
        assert (exchange.status, set(exchange.headers)) == (200, {"content-type"})


async def test_a_refusal_takes_nothing_from_what_is_in_shadow() -> None:
    """A request that a limit refuses is not charged to those in shadow."""
    store = MemoryStore()
    layer = RateLimitMiddleware(Echo(), limit="9/hour by ip as quiet shadow; 1/hour by ip as loud", store=store)
    assert await statuses(layer, 1) == [200]
    before = full_at(store)
    assert await statuses(layer, 3) == [429] * 3
    assert full_at(store) == before


@pytest.mark.parametrize(("percent", "low", "high"), [(0, 0, 0), (1, 1, 30), (25, 180, 320), (99, 960, 999)])
def test_the_share_of_clients(percent: int, low: int, high: int) -> None:
    """About so many of the clients are refused, and always the same ones."""
    (limit,) = parse_limits(f"1/hour by ip enforce {percent}%")
    clients = [f"ip:192.0.{number // 256}.{number % 256}" for number in range(1000)]
    chosen = {client for client in clients if binds(limit, client)}
    assert low <= len(chosen) <= high
    assert chosen == {client for client in reversed(clients) if binds(limit, client)}


@given(st.text(), st.integers(0, 100), st.integers(0, 100))
@example("\ud800", 50, 50)
def test_more_of_them(client: str, percent: int, more: int) -> None:
    """Who is refused at a percentage is refused at every greater one, so a rollout only ever adds clients."""
    smaller, greater = sorted((percent, more))
    (first,), (second,) = (parse_limits(f"1/hour by ip enforce {each}%") for each in (smaller, greater))
    assert binds(second, client) or not binds(first, client)


async def test_enforced_for_some() -> None:
    """Those for whom a limit is enforced are refused and told of it; the others are served, and are told nothing."""
    layer = RateLimitMiddleware(Echo(), limit="1/hour by ip enforce 50%; 9/hour by ip as loose")
    sides: dict[bool, int] = {True: 0, False: 0}
    for number in range(40):
        client = (f"192.0.2.{number}", 1)
        answers = [await get(layer, client=client) for _ in range(3)]
        seen = [answer.status for answer in answers]
        assert seen in ([200, 200, 200], [200, 429, 429])
        for name in ("ratelimit", "ratelimit-policy"):
            assert ('"ip"' in answers[0].headers[name]) is (seen[1] == 429)
        sides[seen[1] == 429] += 1
    assert min(sides.values()) > 5


@pytest.mark.parametrize(("percent", "expected"), [(0, [200, 200]), (100, [200, 429])])
async def test_none_and_all(percent: int, expected: list[int]) -> None:
    """0 % is nobody, and 100 % is everybody."""
    layer = RateLimitMiddleware(Echo(), limit=f"1/hour by ip enforce {percent}%")
    assert await statuses(layer, 2) == expected


@pytest.mark.parametrize("choice", ["allow", "deny", "local"])
async def test_shadow_without_the_store(choice: str) -> None:
    """A limit in shadow refuses nobody where the store does not answer either, whatever it says for that."""
    layer = RateLimitMiddleware(Echo(), limit=f"1/hour by ip shadow on-failure {choice}", store=Fickle(mood="away"))
    assert await statuses(layer, 3) == [200] * 3


@pytest.mark.parametrize(
    ("exempt", "address", "expected"),
    [
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.8", False),
        ("192.0.2.0/24", "::ffff:192.0.2.8", True),
        ("2001:db8::/32", "2001:db8:1::1", True),
        ("2001:db8::/32", "2001:db9::1", False),
        ("192.0.2.0/24", "not an address", False),
        ("0.0.0.0/0", None, False),
    ],
)
async def test_exempt_addresses(exempt: str, address: str | None, expected: bool) -> None:
    """Exempt addresses and networks are never refused, charged or told; without an address nobody is exempt."""
    store = MemoryStore()
    layer = RateLimitMiddleware(Echo(), limit="1/hour by ip; 1 at once by ip", store=store, exempt=[exempt])
    client = None if address is None else (address, 1)
    answers = [await get(layer, client=client) for _ in range(2)]
    assert [answer.status for answer in answers] == ([200, 200] if expected else [200, 429])
    assert ("ratelimit" in answers[0].headers) is not expected
    assert len(store) == (0 if expected else 1)


@pytest.mark.parametrize(("forwarded", "expected"), [(None, True), (b"10.0.0.2", False), (b"garbage", False)])
async def test_an_exempt_proxy_exempts_nobody_else(forwarded: bytes | None, expected: bool) -> None:
    """Where a proxy forwards for somebody it does not name, its own exemption is not theirs."""
    layer = RateLimitMiddleware(Echo(), limit="1/hour by ip", exempt=["10.0.0.1"])
    app = ProxyMiddleware(layer, trusted="10.0.0.0/8")
    headers = [] if forwarded is None else [(b"x-forwarded-for", forwarded)]
    answers = [await get(app, headers=headers, client=("10.0.0.1", 1)) for _ in range(2)]
    assert [answer.status for answer in answers] == ([200, 200] if expected else [200, 429])


async def test_exempt_identities(issuer: LocalIssuer) -> None:
    """An exempt subject or API key is never refused, wherever it comes from, and its namesake of the other kind is."""
    keys = [APIKey(name, sha256(name.encode()).hexdigest()) for name in ("alice", "robot")]
    limited = RateLimitMiddleware(Echo(), limit="1/hour by user", exempt=["user:alice", "api-key:robot"])
    layer = IdentityMiddleware(limited, issuers=[issuer.accepted()], api_keys=keys)
    assert await statuses(layer, 3, headers=[bearer(issuer.token("alice"))]) == [200] * 3
    assert await statuses(layer, 3, headers=[(b"x-api-key", b"robot")]) == [200] * 3
    assert await statuses(layer, 2, headers=[bearer(issuer.token("bob"))]) == [200, 429]
    assert await statuses(layer, 2, headers=[bearer(issuer.token("robot"))]) == [200, 429]
    assert await statuses(layer, 2, headers=[(b"x-api-key", b"alice")]) == [200, 429]


async def test_an_exempt_name_alone_exempts_nobody(issuer: LocalIssuer) -> None:
    """Who only says to be an exempt subject, with a token that is not valid, is limited as a stranger."""
    limited = RateLimitMiddleware(Echo(), limit="1/hour by ip", exempt=["user:alice"])
    layer = IdentityMiddleware(limited, issuers=[issuer.accepted()])
    assert await statuses(layer, 2, headers=[bearer(issuer.token("alice", lifetime=-600))]) == [200, 429]


async def test_exempt_websockets_and_rows() -> None:
    """Exemptions hold for handshakes, and for the limits of rows."""
    layer = RateLimitMiddleware(Echo(), routes=[Route("/a", limits="1/hour by ip")], exempt=["203.0.113.0/24"])
    assert await statuses(layer, 3, path="/a") == [200] * 3
    for _ in range(2):
        assert (await call(layer, websocket_scope("/a"))).messages[0]["type"] == "websocket.accept"


async def test_an_exempt_token_may_be_revoked(issuer: LocalIssuer) -> None:
    """Whether a token is revoked is asked for exempt identities too."""
    store = Fickle()
    limited = RateLimitMiddleware(Echo(), limit="1/hour by user", exempt=["user:alice"], store=store, revocation=True)
    layer = IdentityMiddleware(limited, issuers=[issuer.accepted()])
    answer = await get(layer, headers=[bearer(issuer.token("alice"))])
    assert (answer.status, "ratelimit" in answer.headers) == (200, False)
    (asked,) = store.asked
    assert asked.charges == ()
    assert asked.token_id is not None


@pytest.mark.parametrize("value", ["everyone", "10.0.0.0/33", "user:", "api-key:", "group:admins", "", "User:alice"])
def test_what_nobody_is(value: str) -> None:
    """What is no address, network or identity is refused at construction, by its own text."""
    with pytest.raises(ConfigError) as caught:
        RateLimitMiddleware(Echo(), exempt=["10.0.0.1", value])
    (problem,) = caught.value.problems
    assert problem.name == "exempt"
    assert repr(value) in problem.message


@pytest.mark.parametrize("name", ["urn:x:1", "auth0|12", "a:b"])
def test_names_with_colons(name: str) -> None:
    """A subject may hold colons itself."""
    exempt = Exemptions.parse([f"user:{name}"])
    assert exempt
    assert exempt.cover(None, User(name))
    assert not exempt.cover(None, User(name, kind="api-key"))
    assert not Exemptions()
