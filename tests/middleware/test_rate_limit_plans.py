"""Plans: limits of identities by what their token or their API key's entry says."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from asgi_guard import APIKey, ConfigError, IdentityMiddleware, MemoryStore, RateLimitMiddleware, Route
from tests.asgi import Echo, get
from tests.middleware.limiting import Fickle, bearer, statuses

if TYPE_CHECKING:
    from asgi_guard.testing import LocalIssuer

PLANS = {"pro": "3/hour by user", "partner": "2/hour by user; 4/hour by api-key", "Free tier!": "2/hour by user"}
DEFAULT = "1/hour by user; 9/hour by ip"


def layer(issuer: LocalIssuer, *keys: tuple[str, str | None], **options: Any) -> IdentityMiddleware:
    """Limits with plans, behind identities."""
    entries = [APIKey(name, sha256(name.encode()).hexdigest(), plan=plan) for name, plan in keys]
    limited = RateLimitMiddleware(Echo(), **{"limit": DEFAULT, "plans": PLANS, "plan_claim": "plan", **options})
    return IdentityMiddleware(limited, issuers=[issuer.accepted()], api_keys=entries)


@pytest.mark.parametrize(
    ("plan", "admitted"),
    [
        ("pro", 3),
        ("partner", 2),
        ("Free tier!", 2),
        ("unknown", 1),
        (None, 1),
        ("", 1),
        (["pro"], 1),
        ({"pro": True}, 1),
        (7, 1),
        (True, 1),
        ("Pro", 1),
        ("pro ", 1),
    ],
)
async def test_by_a_claim(issuer: LocalIssuer, plan: Any, admitted: int) -> None:
    """A token has the plan that its claim names, exactly; any other value leaves it the default."""
    token = issuer.token(plan=plan)
    seen = await statuses(layer(issuer), admitted + 1, headers=[bearer(token)])
    assert seen == [200] * admitted + [429]


@pytest.mark.parametrize(("plan", "admitted"), [("pro", 3), ("partner", 4), (None, 1), ("unknown", 1)])
async def test_by_an_api_keys_entry(issuer: LocalIssuer, plan: str | None, admitted: int) -> None:
    """An API key has the plan of its entry, and of that the limit by API key if there is one."""
    seen = await statuses(layer(issuer, ("robot", plan)), admitted + 1, headers=[(b"x-api-key", b"robot")])
    assert seen == [200] * admitted + [429]


async def test_without_a_claim(issuer: LocalIssuer) -> None:
    """Where no claim is named, no token has a plan, whatever it says."""
    seen = await statuses(layer(issuer, plan_claim=None), 2, headers=[bearer(issuer.token(plan="pro"))])
    assert seen == [200, 429]


async def test_the_other_limits_stay(issuer: LocalIssuer) -> None:
    """A plan takes the place of the limits on identities only: those by address hold for it as for all."""
    guarded = layer(issuer, limit="1/hour by user; 2/hour by ip")
    headers = [bearer(issuer.token(plan="pro"))]
    answers = [await get(guarded, headers=headers) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[0].headers["ratelimit-policy"] == '"ip";q=2;w=3600, "pro-user";q=3;w=3600'


async def test_rows_that_name_limits(issuer: LocalIssuer) -> None:
    """A row that names limits has those for every plan, and one that names none has the plans'."""
    rows = [Route("/own", limits="1/hour by user"), Route("/dear", cost=2)]
    guarded = layer(issuer, routes=rows, limit="2/hour by user")
    headers = [bearer(issuer.token(plan="pro"))]
    assert await statuses(guarded, 2, path="/own", headers=headers) == [200, 429]
    assert await statuses(guarded, 2, path="/dear", headers=headers) == [200, 429]
    assert await statuses(guarded, 2, headers=headers) == [200, 429]


async def test_strangers(issuer: LocalIssuer) -> None:
    """Strangers have no plan."""
    assert await statuses(layer(issuer, limit="1/hour by anonymous"), 2) == [200, 429]


async def test_a_bucket_a_plan(issuer: LocalIssuer) -> None:
    """Whoever changes the plan has the new plan's bucket, full; the old one keeps what was taken."""
    guarded = layer(issuer)
    pro, default = ([bearer(issuer.token("alice", plan=plan))] for plan in ("pro", None))
    assert await statuses(guarded, 2, headers=default) == [200, 429]
    assert await statuses(guarded, 4, headers=pro) == [200, 200, 200, 429]
    assert await statuses(guarded, 1, headers=default) == [429]


async def test_plans_without_the_store(issuer: LocalIssuer) -> None:
    """Without the store, a plan's limits hold in this worker's share."""
    guarded = layer(issuer, store=Fickle(mood="away"), workers=3, limit="3/hour by user")
    assert await statuses(guarded, 2, headers=[bearer(issuer.token(plan="pro"))]) == [200, 429]


async def test_names_in_the_store(issuer: LocalIssuer) -> None:
    """Plans whose names differ have buckets that differ, however alike the names look in it."""
    store = MemoryStore()
    plans = {"a b": "2/hour by user", "a-b": "2/hour by user", "": "2/hour by user"}
    guarded = layer(issuer, store=store, plans=plans, limit="")
    for plan in plans:
        assert await statuses(guarded, 3, headers=[bearer(issuer.token(plan=plan))]) == [200, 200, 429]
    assert len(store) == 3


@pytest.mark.parametrize(
    ("options", "name", "text"),
    [
        ({"plans": {"pro": "lots"}}, "plans: pro", "'lots' is not a limit"),
        ({"plans": {"pro": "1/hour by ip"}}, "plans", "its limits go by user, or by api-key"),
        ({"plans": {"pro": "1/hour by user"}, "routes": [Route("/a", cost=2)]}, "routes: any method /a", "costs 2"),
        ({"limit": "1/hour by user", "plans": {"pro": "2/hour by user as user"}}, "limit", "both have the name 'user'"),
    ],
)
def test_plans_that_cannot_be(options: dict[str, Any], name: str, text: str) -> None:
    """A plan that is malformed, limits anything but identities, or could never admit a request, is refused by name."""
    with pytest.raises(ConfigError) as caught:
        RateLimitMiddleware(Echo(), **options)
    (problem,) = caught.value.problems
    assert problem.name == name
    assert text in problem.message
