"""What requests that Access refuses take from others: nothing that lasts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

import pytest

from asgi_guard import (
    AccessMiddleware,
    AuthSettings,
    Guard,
    GuardSettings,
    IdentityMiddleware,
    MemoryStore,
    RateLimitMiddleware,
    RateSettings,
    Route,
)
from asgi_guard.limiting.accounts import Accounts
from asgi_guard.middleware import rate_limit
from asgi_guard.policy.bucket import Charge, Reading, Verdict
from asgi_guard.policy.deny_cache import DenyCache
from asgi_guard.policy.rates import SECOND, Limit
from tests.asgi import Echo, call, get, http_scope
from tests.middleware.limiting import Fickle, statuses, until

if TYPE_CHECKING:
    from asgi_guard.asgi import Header, Message
    from asgi_guard.stores import Store
    from asgi_guard.testing import LocalIssuer

FAR = ("198.51.100.1", 1)
HOUR = 3600 * SECOND


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


async def test_a_disputed_path_takes_nothing_from_a_route(store: Store) -> None:
    """Where only Access knows the rows, what it refuses for a path that routers dispute uses up nothing of others'."""
    access = AccessMiddleware(Echo(), routes=[Route("/admin", scopes=("x",)), Route("/*", auth="none")])
    layer = RateLimitMiddleware(access, limit="2/hour by route", store=store)
    assert await statuses(layer, 5, path="//admin") == [400] * 5
    assert await statuses(layer, 3, path="/a") == [200, 200, 429]


async def test_a_revoked_token_under_way_holds_nothing_of_its_owner(issuer: LocalIssuer) -> None:
    """A token that was found revoked is not looked up for a moment, nor charged to its owner while it is judged."""
    store, now = Fickle(), [SECOND]
    access = AccessMiddleware(Echo())
    limited = RateLimitMiddleware(
        access, limit="1/hour by user; 9/hour by ip", store=store, revocation=True, clock=lambda: now[0]
    )
    front = IdentityMiddleware(limited, issuers=[issuer.accepted()])
    stolen = issuer.token("alice")
    await store.revoke((await front.tokens.verify(stolen.encode())).token_id or "", 60)
    assert (await get(front, headers=bearer(stolen), client=FAR)).status == 401
    store.gate = asyncio.Event()
    judged = [asyncio.ensure_future(get(front, headers=bearer(stolen), client=FAR)) for _ in range(3)]
    good = asyncio.ensure_future(get(front, headers=bearer(issuer.token("alice"))))
    for _ in range(10):
        await asyncio.sleep(0)  # until all of them wait
    store.gate.set()
    assert [(await each).status for each in (*judged, good)] == [401, 401, 401, 200]
    assert [request.token_id is None for request in store.asked] == [False, True, True, True, False]
    assert [[charge.limit.name for charge in each.charges] for each in store.asked[1:4]] == [["ip"]] * 3
    now[0] += SECOND
    assert (await get(front, headers=bearer(stolen), client=FAR)).status == 429
    assert store.asked[-1].token_id is not None


@pytest.mark.parametrize(
    ("shows", "auth"),
    [
        ("nothing", "required"),
        ("an old token", "required"),
        ("an old token", "optional"),
        ("a revoked token", "required"),
        ("a revoked token", "optional"),
    ],
)
async def test_who_is_refused_holds_nothing_of_others_meanwhile(
    issuer: LocalIssuer, shows: str, auth: Literal["required", "optional"]
) -> None:
    """A request that will be refused takes no place of others, not even for as long as the store is asked."""
    store = Fickle()
    front = guard(issuer, store, "1 at once by route; 9/hour by ip", Route("/items/*", auth=auth))
    shown = {
        "nothing": [],
        "an old token": bearer(issuer.token("mallory", lifetime=-600)),
        "a revoked token": bearer(issuer.token("mallory", jti="one")),
    }[shows]
    if shows == "a revoked token":
        assert (await get(front, "/items/1", headers=shown, client=FAR)).status == 200
        await front.revoke_subject("mallory")
        assert (await get(front, "/items/1", headers=shown, client=FAR)).status == 401
    store.gate = asyncio.Event()
    store.asked.clear()
    others = [asyncio.ensure_future(get(front, "/items/1", headers=shown, client=FAR)) for _ in range(3)]
    await until(lambda: len(store.asked) == 3)
    good = asyncio.ensure_future(get(front, "/items/1", headers=bearer(issuer.token("alice"))))
    await until(lambda: len(store.asked) == 4)
    store.gate.set()
    assert [(await each).status for each in (*others, good)] == [401, 401, 401, 200]
    assert [[charge.limit.name for charge in each.charges] for each in store.asked] == [
        ["ip"], ["ip"], ["ip"], ["route-at-once", "ip"],
    ]  # fmt: skip


async def test_strangers_do_not_fill_the_memory_of_revoked_tokens(
    issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many tokens are found revoked, only so many are remembered."""
    monkeypatch.setattr(rate_limit, "MAX_REVOKED", 3)
    store = MemoryStore()
    limited = RateLimitMiddleware(AccessMiddleware(Echo()), store=store, revocation=True)
    front = IdentityMiddleware(limited, issuers=[issuer.accepted()])
    for number in range(8):
        token = issuer.token("alice", jti=f"t{number}")
        await store.revoke((await front.tokens.verify(token.encode())).token_id or "", 60)
        assert (await get(front, headers=bearer(token))).status == 401
        assert 0 < len(limited._revoked) <= 3


async def test_a_forged_request_takes_nothing_of_its_user(issuer: LocalIssuer, store: Store) -> None:
    """What another site makes a user's browser send is refused, and uses up no limit of the user."""
    auth = AuthSettings(issuer=issuer.url, audience=(issuer.audience,), cookie="__Host-token")
    chosen = GuardSettings(auth=auth, rate=RateSettings(limit="2/hour by user"))
    front = Guard(Echo(), chosen, store=store, http_client=issuer.client)
    cookie = (b"cookie", f"__Host-token={issuer.token('alice')}".encode())
    forged = http_scope("POST", headers=[cookie, (b"sec-fetch-site", b"cross-site")])
    own = http_scope("POST", headers=[cookie, (b"sec-fetch-site", b"same-origin")])
    assert [(await call(front, dict(forged))).status for _ in range(4)] == [403] * 4
    assert [(await call(front, dict(own))).status for _ in range(3)] == [200, 200, 429]


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


@pytest.mark.parametrize("revoked", [False, True])
def test_what_is_given_back(revoked: bool) -> None:
    """What others share is given back and believed empty no more; what may not have been taken (shadow) is not."""
    route, user = Limit("route", "1/hour", "route", HOUR, 1), Limit("user", "1/hour", "user", HOUR, 1)
    charges = (Charge(route, "r"), Charge(user, "u"), Charge(route, "s", binding=False), Charge(user, "f", cost=0))
    denied, store = DenyCache(SECOND), Fickle()
    empty = Verdict(False, tuple(Reading(each.limit, 0, HOUR, HOUR) for each in charges))
    denied.note(charges, empty, 1)
    assert {"r", "u"} <= denied.known.keys()
    owner = Accounts(denied, lambda: 2)
    kept = owner.give_back(store, charges, "", ("route", "user") if revoked else ("route",))
    (told,) = store.told
    assert [(charge.key, charge.cost) for charge in told.charges] == (
        [("r", -1), ("u", -1)] if revoked else [("r", -1)]
    )
    assert ("r" in denied.known, "u" in denied.known) == (False, not revoked)
    assert kept == (owner, store, () if revoked else (charges[1], charges[3]), "")


@pytest.mark.parametrize("revoked", [False, True])
async def test_what_a_refused_request_goes_on_to_hold(revoked: bool) -> None:
    """A request under way that gives back its place of a route keeps that of its own, by the same lease."""
    route, user = (Limit(key, "1 at once", key, HOUR, 1, at_once=True) for key in ("route", "user"))
    charges, store = (Charge(route, "r"), Charge(user, "u")), Fickle()
    owner = Accounts(DenyCache(SECOND), lambda: 2)
    owner.leases.hold("lease", store, charges)
    _, _, kept, lease = owner.give_back(store, charges, "lease", ("route", "user") if revoked else ("route",))
    (told,) = store.told
    assert (told.charges[0].key, told.charges[0].cost, told.lease) == ("r", 0, "lease")
    assert (kept, lease, len(owner.leases)) == (((), "", 0) if revoked else (charges[1:], "lease", 1))


@pytest.mark.parametrize("limit", ["2/hour by route", "2 at once by route"])
async def test_a_body_that_never_comes_holds_nothing_of_others(issuer: LocalIssuer, store: Store, limit: str) -> None:
    """What a refused request took is given back before its body is waited for, so that slow ones hold nobody up."""
    front = guard(issuer, store, "", Route("/reports/*", limits=limit))
    held = asyncio.Event()

    async def never() -> Message:
        held.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def nowhere(message: Message) -> None: ...

    slow = []
    for _ in range(3):
        held.clear()
        scope = http_scope("POST", "/reports/1", [(b"content-length", b"10")], client=FAR)
        slow.append(asyncio.ensure_future(front(scope, never, nowhere)))
        await held.wait()
    for _ in range(2):
        assert (await get(front, "/reports/1", bearer(issuer.token("alice")))).status == 200
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)


async def test_a_path_that_is_disputed_costs_no_signature_check(issuer: LocalIssuer, store: Store) -> None:
    """It is refused whoever asks and charged to nobody, so the token beside it is not looked at."""
    front = guard(issuer, store, "5/minute by ip", Route("/login", auth="none"))
    identity = next(layer for layer in front.layers if isinstance(layer, IdentityMiddleware))
    for path, seen in (("//login", 0), ("/items", 1)):
        answer = await get(front, path, bearer(issuer.token("alice")))
        assert (answer.status, len(identity.tokens._cache)) == (200 if seen else 400, seen)
