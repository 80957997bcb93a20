"""What a limit counts: who shares a bucket with whom, and what the bucket is called."""

from __future__ import annotations

import asyncio
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
from asgi_guard.limiting import charging
from asgi_guard.middleware.rate_limit import KnownLimits
from tests.asgi import Echo, get, websocket_scope
from tests.asgi import call as ask
from tests.middleware.limiting import Micros, bearer, statuses

if TYPE_CHECKING:
    from collections.abc import Callable

    from asgi_guard import RedisStore
    from asgi_guard.asgi import Scope
    from asgi_guard.testing import LocalIssuer
    from tests.stores.server import Server

HOUR = "1/hour by"


def tenant(scope: Scope) -> str | None:
    """What stands in the query, if anything does."""
    return scope["query_string"].decode("latin-1") or None


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:DB8:0:0:0:0:0:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::1%eth0", True),
        ("not an address", "not an address", True),
        ("not an address", "another", False),
        ("10.9.8.1, 198.51.100.7", "10.9.8.2, 198.51.100.7", True),
        ("x" * 65, "x" * 65, True),
        ("x" * 65, "x" * 66, False),
    ],
)
@pytest.mark.parametrize("key", ["ip", "anonymous"])
async def test_addresses(key: str, first: str, second: str, together: bool) -> None:
    """Clients are one where their address is, or the /64 that it is of."""
    layer = RateLimitMiddleware(Echo(), limit=f"{HOUR} {key}")
    assert (await get(layer, client=(first, 1))).status == 200
    assert (await get(layer, client=(second, 2))).status == (429 if together else 200)


@pytest.mark.parametrize(("key", "status"), [("anonymous", 200), ("ip", 429)])
async def test_a_stranger_and_an_identity(issuer: LocalIssuer, key: str, status: int) -> None:
    """A limit by `anonymous` does not concern those with an identity, and one by `ip` does."""
    layer = IdentityMiddleware(RateLimitMiddleware(Echo(), limit=f"{HOUR} {key}"), issuers=[issuer.accepted()])
    assert (await get(layer)).status == 200
    assert (await get(layer, headers=[bearer(issuer.token())])).status == status


async def test_no_more_clients_are_remembered_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many clients come, what they are charged is remembered of so many, and of none with a long name."""
    monkeypatch.setattr(charging, "MAX_REMEMBERED", 4)
    layer = RateLimitMiddleware(Echo(), limit=f"{HOUR} ip")
    for each in range(10):
        assert (await get(layer, client=(f"192.0.2.{each}", 1))).status == 200
        assert 0 < len(layer._charging._recent) <= 4
    for length, kept in ((64, 1), (65, 0)):
        before = len(layer._charging._recent)
        await get(layer, client=("x" * length, 1))
        assert len(layer._charging._recent) - before == kept


@pytest.mark.parametrize("key", ["ip", "route", "header:x-tenant", "tenant"])
async def test_what_users_share(issuer: LocalIssuer, key: str) -> None:
    """A limit by anything but who it is is one for all users, however many identities a client has."""
    limits = RateLimitMiddleware(Echo(), limit=f"{HOUR} {key}", functions={"tenant": tenant})
    layer = IdentityMiddleware(limits, issuers=[issuer.accepted()])
    said = [
        await get(layer, headers=[bearer(issuer.token(user)), (b"x-tenant", b"a")], query_string=b"a")
        for user in ("alice", "bob")
    ]
    assert [exchange.status for exchange in said] == [200, 429]


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("key", ["user", "api-key"])
async def test_identities_that_nobody_finds_out(
    issuer: LocalIssuer, key: str, inside: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A limit by identity with no Identity layer around it lets nobody through, and says what is wrong."""
    within = IdentityMiddleware(Echo(), issuers=[issuer.accepted()]) if inside else Echo()
    layer = RateLimitMiddleware(within, limit=f"{HOUR} {key}")
    for _ in range(2):
        exchange = await get(layer)
        assert (exchange.status, type(exchange.error)) == (500, ConfigError)
    assert "no IdentityMiddleware stands around this layer" in caplog.text


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(("limit", "named"), [("", ["revocation"]), (f"{HOUR} user", ["limit", "revocation"])])
async def test_revocations_of_tokens_that_nobody_verified(
    issuer: LocalIssuer, limit: str, named: list[str], inside: bool
) -> None:
    """Where revoked tokens would be accepted, since Identity is not around the layer, nobody is let through."""
    app = Echo()
    within = IdentityMiddleware(AccessMiddleware(app), issuers=[issuer.accepted()]) if inside else app
    layer = RateLimitMiddleware(within, limit=limit, revocation=True)
    for _ in range(2):
        exchange = await get(layer, headers=[bearer(issuer.token(jti="one"))])
        assert exchange.status == 500
        assert isinstance(exchange.error, ConfigError)
        assert [problem.name for problem in exchange.error.problems] == named
    assert app.scopes == []


@pytest.mark.parametrize("access", ["within", "around", "nowhere"])
async def test_revocations_that_nobody_heeds(
    issuer: LocalIssuer, access: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where no Access judges what was found of a token, that is told, once."""
    limited = RateLimitMiddleware(AccessMiddleware(Echo()) if access == "within" else Echo(), revocation=True)
    within = AccessMiddleware(limited) if access == "around" else limited
    layer = IdentityMiddleware(within, issuers=[issuer.accepted()])
    assert (await get(layer)).status == (200 if access == "nowhere" else 401)
    assert await statuses(layer, 3, headers=[bearer(issuer.token(jti="one"))]) == [200] * 3
    told = [record.levelname for record in caplog.records if "revoked tokens are accepted" in record.message]
    assert told == ([] if access == "within" else ["ERROR"])


async def test_a_refusal_leaves_nothing_to_heed(issuer: LocalIssuer, caplog: pytest.LogCaptureFixture) -> None:
    """A token that is over its limit is answered before Access can judge it: that tells of no gap."""
    limited = RateLimitMiddleware(AccessMiddleware(Echo()), limit="1/hour by user", revocation=True)
    layer = IdentityMiddleware(limited, issuers=[issuer.accepted()])
    assert await statuses(layer, 2, headers=[bearer(issuer.token(jti="one"))]) == [200, 429]
    assert "revoked tokens are accepted" not in caplog.text


async def test_access_within_access_heeds_revocations(issuer: LocalIssuer, caplog: pytest.LogCaptureFixture) -> None:
    """That an outer Access has judged before a token was looked up does not matter where another one is within."""
    store = MemoryStore()
    limited = RateLimitMiddleware(AccessMiddleware(Echo()), store=store, revocation=True)
    inner = IdentityMiddleware(limited, issuers=[issuer.accepted()])
    outer = IdentityMiddleware(AccessMiddleware(inner), issuers=[issuer.accepted()])
    both = IdentityMiddleware(AccessMiddleware(limited), issuers=[issuer.accepted()])
    token = issuer.token(jti="one")
    assert [(await get(app, headers=[bearer(token)])).status for app in (outer, both)] == [200, 200]
    await store.revoke((await inner.tokens.verify(token.encode())).token_id or "", 60)
    assert [(await get(app, headers=[bearer(token)])).status for app in (outer, both)] == [401, 401]
    assert "revoked tokens are accepted" not in caplog.text


async def test_credentials_that_are_not_valid(issuer: LocalIssuer) -> None:
    """Who shows a token that is not valid is a stranger, however many such tokens there are."""
    layer = IdentityMiddleware(RateLimitMiddleware(Echo(), limit="2/hour by anonymous"), issuers=[issuer.accepted()])
    tokens = [issuer.token(f"user-{number}", lifetime=-600) for number in range(3)]
    assert [(await get(layer, headers=[bearer(token)])).status for token in tokens] == [200, 200, 429]


async def test_a_subject_and_an_api_key_of_one_name(issuer: LocalIssuer) -> None:
    """A token's subject and an API key of the same name are two clients."""
    limited = RateLimitMiddleware(Echo(), limit=f"{HOUR} user")
    keys = [APIKey("alice", sha256(b"secret").hexdigest())]
    layer = IdentityMiddleware(limited, issuers=[issuer.accepted()], api_keys=keys)
    assert await statuses(layer, 2, headers=[bearer(issuer.token("alice"))]) == [200, 429]
    assert await statuses(layer, 2, headers=[(b"x-api-key", b"secret")]) == [200, 429]


async def test_one_subject_with_many_tokens_and_addresses(issuer: LocalIssuer) -> None:
    """A user has one bucket, whichever token and address the requests come with."""
    layer = IdentityMiddleware(RateLimitMiddleware(Echo(), limit=f"{HOUR} user"), issuers=[issuer.accepted()])
    seen = [
        (await get(layer, headers=[bearer(issuer.token("alice"))], client=(f"192.0.2.{number}", 1))).status
        for number in range(3)
    ]
    assert seen == [200, 429, 429]


async def test_routes() -> None:
    """A limit by `route` counts all clients of a row together, each row by itself, and the rest of the paths as one."""
    rows = [Route("/a"), Route("/b/*"), Route("/c", limits=f"{HOUR} route")]
    layer = RateLimitMiddleware(Echo(), limit="2/hour by route", routes=rows)
    for path, other, status in [("/a", "/a", 429), ("/b/1", "/b/2", 429), ("/other", "/another", 429)]:
        found = [(await get(layer, each, client=(each, 1))).status for each in (path, other, path)]
        assert found == [200, 200, status], path
    assert await statuses(layer, 2, path="/c") == [200, 429]


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ([(b"x-tenant", b"a")], [(b"x-tenant", b"a")], True),
        ([(b"x-tenant", b"a")], [(b"x-tenant", b"b")], False),
        ([(b"x-tenant", b"a")], [(b"x-tenant", b"a"), (b"x-tenant", b"b")], False),
        ([(b"x-tenant", b"a"), (b"x-tenant", b"b")], [(b"x-tenant", b"a"), (b"x-tenant", b"b")], True),
        ([(b"x-tenant", b"a, b")], [(b"x-tenant", b"a"), (b"x-tenant", b"b")], False),
        ([(b"x-tenant", b"")], [(b"x-tenant", b"")], True),
        ([(b"x-tenant", b"")], [], False),
        ([], [], True),
        ([(b"x-tenant", b"\xff")], [(b"x-tenant", b"\xfe")], False),
        ([(b"x-tenant", b"x" * 100_000)], [(b"x-tenant", b"x" * 100_000)], True),
        ([(b"x-tenant", b"x" * 100_000)], [(b"x-tenant", b"x" * 100_001)], False),
        ([(b"x-tenant", b"203.0.113.9")], [], False),
    ],
)
async def test_headers(first: list[Any], second: list[Any], together: bool) -> None:
    """Requests share the bucket of a header's whole value; those without the header have that of their address."""
    layer = RateLimitMiddleware(Echo(), limit=f"{HOUR} header:X-Tenant")
    assert (await get(layer, headers=first)).status == 200
    assert (await get(layer, headers=second)).status == (429 if together else 200)


async def test_a_missing_header_counts_by_address() -> None:
    """Clients that do not send the header are told apart by their addresses."""
    layer = RateLimitMiddleware(Echo(), limit=f"{HOUR} header:x-tenant")
    for address in ("192.0.2.1", "192.0.2.2"):
        assert await statuses(layer, 2, client=(address, 1)) == [200, 429]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(b"a", b"a", [200, 429]), (b"a", b"b", [200, 200]), (b"", b"", [200, 200])],
)
async def test_functions(first: bytes, second: bytes, expected: list[int]) -> None:
    """A limit by a function counts what it gives, and does not apply where that is None."""
    layer = RateLimitMiddleware(Echo(), limit=f"{HOUR} tenant", functions={"tenant": tenant})
    assert [(await get(layer, query_string=query)).status for query in (first, second)] == expected


async def test_functions_over_websocket() -> None:
    """A function sees the scope of a handshake as well."""
    layer = RateLimitMiddleware(Echo(), limit=f"{HOUR} tenant", functions={"tenant": tenant})
    first, second = [await ask(layer, websocket_scope(query_string=b"a")) for _ in range(2)]
    assert first.messages[0]["type"] == "websocket.accept"
    assert second.status == 429


async def test_two_functions_that_give_the_same() -> None:
    """What two functions give are two clients, though the words are the same."""
    functions = {"tenant": tenant, "shop": tenant}
    layer = RateLimitMiddleware(
        Echo(), limit=f"{HOUR} tenant", routes=[Route("/shop", limits=f"{HOUR} shop")], functions=functions
    )
    assert await statuses(layer, 2, query_string=b"a") == [200, 429]
    assert await statuses(layer, 2, path="/shop", query_string=b"a") == [200, 429]


@pytest.mark.parametrize(
    "function",
    [lambda scope: scope["nothing"], lambda scope: 7, lambda scope: b"bytes", lambda scope: ["a", "b"]],
    ids=["raises", "number", "bytes", "list"],
)
async def test_a_function_that_fails(function: Callable[[Scope], Any], caplog: pytest.LogCaptureFixture) -> None:
    """Where a function raises, or gives anything but a text, the request is refused with 500 and charged nothing."""
    app = Echo()
    layer = RateLimitMiddleware(
        app, limit="1/hour by ip; 5/hour by it", routes=[Route("/a", limits="1/hour by ip")], functions={"it": function}
    )
    exchange = await get(layer)
    assert exchange.status == 500
    assert isinstance(exchange.error, LookupError | TypeError)
    assert not app.scopes
    assert len(layer.store) == 0  # type: ignore[arg-type]  # it is this process's memory
    (record,) = (each for each in caplog.records if each.name == "asgi_guard")
    assert record.exc_info
    if isinstance(exchange.error, TypeError):
        assert "the limit function 'it' gave a" in str(exchange.error)
    else:
        assert record.getMessage().startswith("the limit function 'it' raised: 'GET' '/', request id ")


class Later:
    """Is no coroutine function, and has to be awaited all the same."""

    async def __call__(self, scope: Scope) -> str:
        return str(scope["type"])


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ({"ip": tenant}, "'ip' is one of the grammar's own words"),
        ({"api-key": tenant}, "'api-key' is one of"),
        ({"Header:x": tenant}, "'Header:x'"),
        ({"two words": tenant}, "'two words'"),
        ({"a;b": tenant}, "'a;b'"),
        ({"": tenant}, "''"),
        ({"tenant": "x-tenant"}, "'tenant' is no function"),
        ({"tenant": lambda: "a"}, "'tenant' does not take the scope, as its one argument"),
        ({"tenant": lambda scope, key: "a"}, "'tenant' does not take the scope, as its one argument"),
        ({"tenant": Later()}, "'tenant' is a coroutine function"),
        ({5: tenant}, "5 is no name of a function"),
        ([tenant], "it is of the type list: give a dict of functions by their names"),
    ],
)
def test_functions_that_could_never_be_asked(functions: Any, message: str) -> None:
    """A function of a name that no limit can go by, or that is none, is refused at construction."""
    with pytest.raises(ConfigError) as caught:
        RateLimitMiddleware(Echo(), functions=functions)
    (problem,) = caught.value.problems
    assert problem.name == "functions"
    assert message in problem.message


def test_a_function_that_would_have_to_be_awaited() -> None:
    """A coroutine function is refused at construction: what it gives is no text."""
    with pytest.raises(ConfigError, match="'later' is a coroutine function"):
        RateLimitMiddleware(Echo(), functions={"later": asyncio.sleep})  # type: ignore[dict-item]  # as a user may


HOSTILE = [b"", b"\xff\xfe", b"x" * 70_000, b"}{:*", b"a\0b", b"\r\nFLUSHALL\r\n", "\u2028".encode()]


async def test_what_keys_are_called(issuer: LocalIssuer, server: Server, redis_store: RedisStore) -> None:
    """Whatever clients send, every name in the store is short and holds nothing that was sent but the address."""
    limit = "; ".join(
        f"1000/hour by {key}" for key in ("ip", "anonymous", "user", "api-key", "route", "header:x-tenant", "tenant")
    )
    limited = RateLimitMiddleware(
        Echo(), limit=limit + "; 9 at once by header:x-tenant", store=redis_store, functions={"tenant": tenant},
        revocation=True, routes=[Route("/" + "long" * 60 + "/*")],
    )  # fmt: skip
    keys = [APIKey("the-robots-name", sha256(b"the-robots-key").hexdigest())]
    layer = IdentityMiddleware(limited, issuers=[issuer.accepted()], api_keys=keys)
    subject, token_id = "alice@example.com" * 20, "the-token-id" * 20
    token = issuer.token(subject, jti=token_id)
    await redis_store.revoke((await layer.tokens.verify(token.encode())).token_id or "", 60)
    for value in HOSTILE:
        for credentials in ((), [bearer(token)], [(b"x-api-key", b"the-robots-key")]):
            members: dict[str, Any] = {
                "headers": [*credentials, (b"x-tenant", value)],
                "query_string": value,
                "client": (value.decode("latin-1") or "192.0.2.1", 1),
            }
            assert (await get(layer, "/" + "long" * 60 + "/x", **members)).status == 200
    names: list[bytes] = server.client.keys("*")
    assert len(names) > len(HOSTILE)
    assert max(map(len, names)) <= 200
    for name in names:
        assert name.startswith(b"asgi-guard:")
        assert not any(secret in name for secret in (b"alice", b"the-robots", b"the-token", token.encode()[:20]))


async def test_who_is_not_known_yet() -> None:
    """What stands before Identity asks limits only that hold whoever the client turns out to be."""
    clock = Micros()
    layer = RateLimitMiddleware(Echo(), limit="1/hour by anonymous", clock=clock)
    known = KnownLimits(Echo(), layer)
    assert await statuses(layer, 2) == [200, 429]
    assert await statuses(known, 1) == [200]


async def test_a_slash_slips_from_no_limit_of_a_layer_alone() -> None:
    """A row's limit holds with a slash more or less, too, where nobody is asked who they are, by a layer alone."""
    rows = [Route("/login", auth="none", limits="2/hour by ip")]
    layer = RateLimitMiddleware(Echo(), limit="9/hour by ip", routes=rows)
    assert [(await get(layer, path)).status for path in ("/login", "/login/", "/login/")] == [200, 200, 429]
