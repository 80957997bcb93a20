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
)
from asgi_guard.testing import LocalIssuer
from tests.asgi import Echo, call, get, websocket_scope
from tests.middleware.limiting import Fickle, Micros, bearer, statuses

if TYPE_CHECKING:
    from asgi_guard.asgi import Receive, Scope, Send


async def test_refusal() -> None:
    """Who takes more than there is gets 429, with the wait and the limit, and the app is not reached."""
    clock, app = Micros(), Echo()
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
    expected = {"x-ratelimit-limit": "5", "x-ratelimit-remaining": "4", "x-ratelimit-reset": "12"}
    assert legacy.headers == {"content-type": "text/plain", **expected}
    silent = await get(RateLimitMiddleware(Echo(), limit="5/minute by ip", headers="off"))
    assert set(silent.headers) == {"content-type"}


async def test_the_apps_own_headers() -> None:
    """An app that tells limits of its own is left alone."""
    own = [(b"RateLimit", b"mine")]
    exchange = await get(RateLimitMiddleware(Echo(headers=own), limit="5/minute by ip"))
    assert exchange.starts[0]["headers"] == own


@pytest.mark.parametrize(
    ("clients", "said"),
    [
        ((None, None), "no client address"),
        ((("1.2.3.4, 10.0.0.1", 0), ("5.6.7.8, 10.0.0.1", 0)), "a whole X-Forwarded-For"),
    ],
)
async def test_unknown_address(clients: tuple[Any, ...], said: str, caplog: pytest.LogCaptureFixture) -> None:
    """Clients whose address the server does not name alone share one bucket, which is said once."""
    layer = RateLimitMiddleware(Echo(), limit="1/hour by ip; 9/hour by header:x-a")
    assert [(await get(layer, client=client)).status for client in clients] == [200, 429]
    assert caplog.text.count(said) == caplog.text.count("share one bucket") == 1


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


async def test_revocation(issuer: LocalIssuer) -> None:
    """A token among the revoked is refused, without any limit being set; others are not."""
    store = MemoryStore()
    limited = RateLimitMiddleware(AccessMiddleware(Echo()), store=store, revocation=True)
    layer = IdentityMiddleware(limited, issuers=[issuer.accepted()])
    revoked, other = issuer.token(jti="one"), issuer.token(jti="two")
    user = await layer.tokens.verify(revoked.encode())
    await store.revoke(user.token_id or "", 60)
    exchange = await get(layer, headers=[bearer(revoked)])
    assert exchange.status == 401
    assert b"token_revoked" in exchange.body
    assert (await get(layer, headers=[bearer(other)])).status == 200
    assert (await get(layer, headers=[bearer(issuer.token(jti=None))])).status == 200


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"limit": "1/hour by ip"}, "limits meet 'local'"),
        ({"limit": "1/hour by ip on-failure deny; 1/hour by route"}, "limits meet 'deny', 'local'"),
        ({"revocation": True}, "no token can be looked up among the revoked"),
        (
            {"limit": "1/hour by ip", "on_store_failure": "allow", "revocation": True},
            "limits meet 'allow' and no token can be looked up among the revoked",
        ),
    ],
)
async def test_lifespan(options: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture) -> None:
    """Start-up tries the store, and says what holds if it does not answer."""
    layer = RateLimitMiddleware(Echo(), store=Fickle(mood="away"), **options)
    await layer.startup()
    await layer.shutdown()
    assert caplog.text.rstrip().endswith(f"; until it does, {said}")


async def test_a_store_that_is_back_after_start_up(caplog: pytest.LogCaptureFixture) -> None:
    """Of a store that does not answer at start-up, the log says once that it does, by the first answer."""
    store = Fickle(mood="away")
    layer = RateLimitMiddleware(Echo(), limit="9/hour by ip", store=store)
    await layer.startup()
    assert await statuses(layer, 2) == [200, 200]
    store.mood = "well"
    assert await statuses(layer, 2) == [200, 200]
    said = [record.getMessage() for record in caplog.records]
    assert said == ["away; until it does, limits meet 'local'", "the store answers again"]
    await layer.shutdown()


async def test_a_store_that_answers(caplog: pytest.LogCaptureFixture) -> None:
    """Where the store answers at start-up, nothing is said."""
    layer = RateLimitMiddleware(Echo(), limit="1/hour by ip", store=Fickle())
    await layer.startup()
    await layer.shutdown()
    assert caplog.text == ""


ROWS = [Route("/open/*", auth="none", limits=""), Route("/open/x/*", limits="1/hour by ip")]


@pytest.mark.parametrize("path", ["/open//x", "/open/x/../y", "/open\\x/y"])
async def test_a_path_of_several_rows(path: str) -> None:
    """A path that could be another row's is refused with 400 before anything is charged or asked."""
    app, store = Echo(), Fickle()
    layer = RateLimitMiddleware(app, limit="1/hour by ip", store=store, routes=ROWS)
    exchange = await get(layer, path)
    assert exchange.status == 400
    assert b"path_ambiguous" in exchange.body
    assert (store.asked, app.scopes) == ([], [])
    # And before it is known who is over the limit.
    assert await statuses(layer, 2, path="/y") == [200, 429]
    assert (await get(layer, path)).status == 400


async def test_the_same_layer_twice() -> None:
    """Two layers around each other, each with a store of its own, charge each of them once."""
    inner = RateLimitMiddleware(Echo(), limit="3/hour by ip")
    outer = RateLimitMiddleware(inner, limit="2/hour by ip as outer")
    answers = [await get(outer) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert sum(name == b"ratelimit" for name, _ in answers[0].starts[0]["headers"]) == 1
    assert (await get(inner)).headers["ratelimit"].startswith('"ip";r=0')


async def test_an_app_that_fails() -> None:
    """The 500 for an app that fails tells where the client stands, and the request was charged."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("the app fails")

    layer = RateLimitMiddleware(app, limit="1/hour by ip")
    exchange = await get(layer)
    assert (exchange.status, exchange.headers["ratelimit"][:8]) == (500, '"ip";r=0')
    assert (await get(layer)).status == 429


@pytest.mark.parametrize(
    "limit", ["1/second by ip", "1/15m by ip", "7/minute by ip; 1/day by ip as daily", "1/day by ip"]
)
async def test_never_too_early(limit: str) -> None:
    """Who comes back when a refusal says is admitted, and neither header says an earlier time than the other."""
    for _ in range(20):
        clock = Micros()
        layer = RateLimitMiddleware(Echo(), limit=limit, store=MemoryStore(clock=clock))
        while (exchange := await get(layer)).status == 200:
            clock.now += 12_345
        wait = int(exchange.headers["retry-after"])
        told = [int(each.partition(";t=")[2]) for each in exchange.headers["ratelimit"].split(", ")]
        assert wait >= max(told) >= 1
        assert wait <= max(told) + max(told) // 10 + 1
        clock.pass_seconds(wait)
        assert (await get(layer)).status == 200


async def test_a_row_that_costs_nothing() -> None:
    """A row of cost 0 takes nothing, and is told where the client stands."""
    layer = RateLimitMiddleware(Echo(), limit="1/hour by ip", routes=[Route("/free", cost=0)])
    assert await statuses(layer, 2, path="/free") == [200, 200]
    assert (await get(layer, "/free")).headers["ratelimit"] == '"ip";r=1;t=0'
    assert await statuses(layer, 2) == [200, 429]


async def test_no_limits_for_a_row() -> None:
    """Where no limit applies the layer asks nothing, and adds nothing."""
    store = Fickle()
    layer = RateLimitMiddleware(Echo(), store=store, routes=[Route("/login", limits="1/hour by ip")])
    exchange = await get(layer)
    assert (exchange.status, set(exchange.headers), store.asked) == (200, {"content-type"}, [])


def test_no_limits_at_all() -> None:
    """A layer that would charge nobody is an error."""
    with pytest.raises(ConfigError, match="no limit is set"):
        RateLimitMiddleware(Echo(), routes=[Route("/login", limits="")])


def test_all_problems_at_once() -> None:
    """Everything that is wrong with the options is told together."""
    with pytest.raises(ConfigError) as caught:
        RateLimitMiddleware(
            Echo(), limit="lots", exempt=["everyone"], messages="some", functions={"ip": str}, workers=0,
            ipv6_prefix=129, deny_cache=-1, plans={"pro": "few"}, routes=[Route("/a", limits="many")],
        )  # fmt: skip
    assert {problem.name.partition(":")[0] for problem in caught.value.problems} == {
        "limit", "exempt", "messages", "functions", "workers", "ipv6_prefix", "deny_cache", "plans", "routes",
    }  # fmt: skip


@pytest.mark.parametrize(
    "options", [{"workers": -1}, {"ipv6_prefix": -1}, {"deny_cache": float("nan")}, {"deny_cache": float("inf")}]
)
def test_numbers_that_mean_nothing(options: dict[str, Any]) -> None:
    """A number out of its range is refused at construction, by name."""
    with pytest.raises(ConfigError) as caught:
        RateLimitMiddleware(Echo(), limit="1/hour by ip", **options)
    assert [problem.name for problem in caught.value.problems] == list(options)


@pytest.mark.parametrize(
    ("options", "name", "text"),
    [
        ({"headers": "loud"}, "headers", "'loud' is none of 'draft', 'legacy', 'off'"),
        ({"on_store_failure": "hope"}, "on_store_failure", "'hope' is none of"),
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
