"""What holds while the store does not answer: for each limit what it says, and for revocations what was chosen."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from asgi_guard import (
    AccessLogMiddleware,
    AccessMiddleware,
    APIKey,
    IdentityMiddleware,
    RateLimitMiddleware,
    RedisStore,
    Route,
    StoreUnavailableError,
)
from asgi_guard.policy.identity import api_key_digest
from asgi_guard.policy.rates import SECOND
from tests.asgi import Echo, call, get, websocket_scope
from tests.middleware.limiting import Fickle, bearer, held, statuses

if TYPE_CHECKING:
    from asgi_guard.policy.bucket import Admission, Verdict
    from asgi_guard.testing import LocalIssuer


@pytest.mark.parametrize(
    ("choice", "expected"), [("allow", [200] * 3), ("deny", [503] * 3), ("local", [200, 429, 429])]
)
async def test_store_away(choice: Any, expected: list[int]) -> None:
    """When the store does not answer, the operator's choice holds: no limits, 503, or this worker's share of them."""
    layer = RateLimitMiddleware(
        Echo(), limit="4/hour by ip", store=Fickle(mood="away"), on_store_failure=choice, workers=4
    )
    assert await statuses(layer, 3) == expected


async def test_store_away_says_when() -> None:
    """A 503 for the store's sake says when to come back."""
    exchange = await get(
        RateLimitMiddleware(Echo(), limit="4/hour by ip", store=Fickle(mood="away"), on_store_failure="deny")
    )
    assert exchange.headers["retry-after"] == "3"
    assert b"store_unavailable" in exchange.body


async def test_single_failures_are_told_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of requests that the store did not decide the log tells the first, and the next one when the quiet is over."""
    store = Fickle()
    layer = RateLimitMiddleware(Echo(), limit="100/hour by ip", store=store, on_store_failure="allow")
    for mood in ("away", "well", "deaf") * 2:
        store.mood = mood
        await statuses(layer, 2)
    said = [record.getMessage() for record in caplog.records]
    told = "the store did not decide a request: {}; where that happens, limits meet 'allow'"
    assert said == [told.format("away")]
    monkeypatch.setattr(layer._undecided, "_quiet_until", 0.0)
    await statuses(layer, 2)
    assert [record.getMessage() for record in caplog.records] == [told.format("away"), told.format("deaf")]


async def test_a_share_smaller_than_the_cost() -> None:
    """A request that costs more than this worker's share of the limit is admitted, one at a time, and pays all of it.

    Nothing is forgotten of that by cheaper requests, which have the same bucket.
    """
    layer = RateLimitMiddleware(
        Echo(), limit="4/hour by ip", store=Fickle(mood="away"), workers=4, routes=[Route("/dear", cost=3)],
    )  # fmt: skip
    layer._local._clock = lambda: now
    now = 10**9
    assert await statuses(layer, 2, path="/dear") == [200, 429]
    hour = 3600 * SECOND
    for units, path, expected in (
        (0, "/", 429),
        (1, "/dear", 429),
        (0, "/", 200),
        (2, "/dear", 429),
        (1, "/dear", 200),
    ):
        now += units * hour
        assert await statuses(layer, 1, path=path) == [expected]
    refused = await get(layer, path="/dear")
    assert 3 * 3600 <= int(refused.headers["retry-after"]) <= 3 * 3600 * 1.1 + 1


@pytest.mark.parametrize(("deny", "status"), [(True, 503), (False, 200)])
@pytest.mark.parametrize("limit", ["", "100/second by ip"])
@pytest.mark.parametrize("claims", [{}, {"jti": None}], ids=["named", "nameless"])
async def test_revocation_that_cannot_be_looked_up(
    issuer: LocalIssuer, claims: dict[str, Any], limit: str, deny: bool, status: int
) -> None:
    """A token that cannot be looked up meets what the operator said, whatever limits are there."""
    access = AccessMiddleware(Echo(), deny_unknown_revocation=deny)
    limited = RateLimitMiddleware(access, limit=limit, store=Fickle(mood="away"), revocation=True)
    layer = IdentityMiddleware(limited, issuers=[issuer.accepted()])
    assert (await get(layer, headers=[bearer(issuer.token(**claims))])).status == status


async def test_a_key_that_cannot_be_revoked() -> None:
    """An API key, which nobody looks up among the revoked, meets no more than what its limits say."""
    access = AccessMiddleware(Echo(), deny_unknown_revocation=True)
    limited = RateLimitMiddleware(access, limit="1/hour by api-key", store=Fickle(mood="away"), revocation=True)
    layer = IdentityMiddleware(limited, api_keys=[APIKey("robot", api_key_digest(b"k"))])
    assert await statuses(layer, 2, headers=[(b"x-api-key", b"k")]) == [200, 429]


async def test_before_and_after() -> None:
    """While the store is away this process's buckets hold, and once it is back, what the store knew."""
    store = Fickle()
    layer = RateLimitMiddleware(Echo(), limit="2/hour by ip", store=store, deny_cache=0)
    assert await statuses(layer, 1) == [200]
    store.mood = "away"
    assert await statuses(layer, 3) == [200, 200, 429]
    store.mood = "well"
    assert await statuses(layer, 2) == [200, 429]


ALLOW, LOCAL, DENY = (f"2/hour by {key} on-failure {choice}" for key, choice in
                      (("ip", "allow"), ("route", "local"), ("header:x-tenant", "deny")))  # fmt: skip


@pytest.mark.parametrize(
    ("limits", "expected", "told"),
    [
        ((ALLOW,), [200, 200, 200], ""),
        ((LOCAL,), [200, 200, 429], "route"),
        ((DENY,), [503, 503, 503], ""),
        ((ALLOW, LOCAL), [200, 200, 429], "route"),
        ((ALLOW, DENY), [503, 503, 503], ""),
        ((LOCAL, DENY), [503, 503, 503], ""),
        ((ALLOW, LOCAL, DENY), [503, 503, 503], ""),
        ((ALLOW, LOCAL, f"{DENY} shadow"), [200, 200, 429], "route"),
        ((f"{LOCAL} shadow", f"{DENY} enforce 0%"), [200, 200, 200], ""),
        ((f"{LOCAL} enforce 100%", f"{ALLOW} shadow"), [200, 200, 429], "route"),
        (("2/hour by ip",), [503, 503, 503], ""),
        (("2/hour by ip", LOCAL), [503, 503, 503], ""),
    ],
)
async def test_each_limit_as_it_says(limits: tuple[str, ...], expected: list[int], told: str) -> None:
    """Each limit of a request does as it says, or else as is said for all; limits in shadow have no say."""
    layer = RateLimitMiddleware(Echo(), limit="; ".join(limits), store=Fickle(mood="away"), on_store_failure="deny")
    answers = [await get(layer) for _ in range(3)]
    assert [answer.status for answer in answers] == expected
    assert answers[0].headers.get("ratelimit", "").partition(";")[0].strip('"') == told


async def test_a_refusal_charges_nothing_in_this_process() -> None:
    """Where one limit denies for want of the store, none is charged in this process either."""
    layer = RateLimitMiddleware(
        Echo(), limit="2/hour by ip", store=Fickle(mood="away"),
        routes=[Route("/strict", limits="2/hour by ip as ip-of-all; 2/hour by ip on-failure deny")],
    )  # fmt: skip
    assert await statuses(layer, 3, path="/strict") == [503] * 3
    assert len(layer._local) == 0


@pytest.mark.parametrize(
    ("limit", "workers", "admitted"),
    [("8/hour by ip", 1, 8), ("8/hour by ip", 4, 2), ("8/hour by ip", 3, 2), ("3/hour by ip", 8, 1)],
)
async def test_shares(limit: str, workers: int, admitted: int) -> None:
    """Each of several workers admits its share: together no more than the limit, but each of them one at least."""
    layer = RateLimitMiddleware(Echo(), limit=limit, store=Fickle(mood="away"), workers=workers)
    answers = [await get(layer) for _ in range(admitted + 1)]
    assert [answer.status for answer in answers] == [200] * admitted + [429]
    hour = 3600 * workers // int(limit.partition("/")[0])
    wait = int(answers[-1].headers["retry-after"])
    assert hour - 1 <= wait <= hour + hour // 10 + 1


async def test_what_is_logged() -> None:
    """A 503 for the store's sake is logged as such."""
    lines: list[bytes] = []
    limited = RateLimitMiddleware(Echo(), limit="1/hour by ip", store=Fickle(mood="away"), on_store_failure="deny")
    await get(AccessLogMiddleware(limited, write=lines.append))
    record = json.loads(lines[0])
    assert (record["asgi_guard.refused_by"], record["asgi_guard.reason"]) == ("rate_limit", "store_unavailable")


async def test_websockets() -> None:
    """Handshakes meet the same."""
    layer = RateLimitMiddleware(Echo(), limit="1/hour by ip", store=Fickle(mood="away"), on_store_failure="deny")
    assert (await call(layer, websocket_scope())).status == 503
    bare = await call(layer, websocket_scope(extensions={}))
    assert bare.messages == [{"type": "websocket.close", "code": 1013, "reason": "store_unavailable"}]


async def test_revocation_and_limits_that_are_allowed(issuer: LocalIssuer) -> None:
    """A limit that allows without the store does not let a token through that has to be looked up."""
    access = AccessMiddleware(Echo())
    limited = RateLimitMiddleware(
        access, limit="1/hour by user on-failure allow", store=Fickle(mood="away"), revocation=True
    )
    layer = IdentityMiddleware(limited, issuers=[issuer.accepted()])
    exchange = await get(layer, headers=[bearer(issuer.token())])
    assert (exchange.status, exchange.headers["retry-after"]) == (503, "3")
    stranger = await get(layer)
    assert stranger.status == 401


async def test_nothing_is_owed_to_a_store_that_was_not_asked() -> None:
    """What ends is told to buckets of this process alone, where the store is known not to have been reached."""

    class Gone(Fickle):
        async def admit(self, request: Admission) -> Verdict:
            raise StoreUnavailableError("gone", sent=False)

    store = Gone()
    layer = RateLimitMiddleware(Echo(), limit="1 at once by ip; 9/hour by ip", store=store)
    assert await statuses(layer, 3) == [200] * 3
    assert (store.told, held(layer)) == ([], 0)


async def test_no_server() -> None:
    """With a real client and no server, the first request meets what the limits say, and so do the next."""
    store = RedisStore("unix:///nowhere/at.all")
    layer = RateLimitMiddleware(Echo(), limit="2/hour by ip", store=store)
    assert await statuses(layer, 4) == [200, 200, 429, 429]
    await store.aclose()


async def test_a_defect_of_the_store() -> None:
    """A store that fails in any other way lets nobody through."""

    class Broken(Fickle):
        async def admit(self, request: Any) -> Any:
            raise LookupError("a defect")

    app = Echo()
    layer = RateLimitMiddleware(app, limit="1/hour by ip; 1 at once by ip", store=Broken())
    exchange = await get(layer)
    assert (exchange.status, type(exchange.error), app.scopes) == (500, LookupError, [])
    assert len(layer._accounts.leases) == 0
