"""What one guard found out is not believed by another further in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asgi_guard import (
    AccessLogMiddleware,
    APIKey,
    AuthSettings,
    Guard,
    GuardSettings,
    IdentityMiddleware,
    RateLimitMiddleware,
    RedisStore,
)
from asgi_guard.chain.layer import Chain
from asgi_guard.middleware import AccessMiddleware
from asgi_guard.policy.identity import api_key_digest
from tests.asgi import Echo, get, http_scope
from tests.asgi import call as ask

if TYPE_CHECKING:
    from asgi_guard.asgi import ASGIApp
    from asgi_guard.testing import LocalIssuer

OUTER, INNER = (b"x-api-key", b"outer secret"), (b"x-admin-key", b"inner secret")


def guard(app: ASGIApp, header: bytes, key: bytes) -> Guard:
    keys = (APIKey("someone", api_key_digest(key)),)
    return Guard(app, GuardSettings(auth=AuthSettings(api_keys=keys, api_key_header=header.decode())))


async def test_an_inner_guard_sees_for_itself() -> None:
    """Credentials that an outer guard accepts open nothing behind an inner one that has its own."""
    echo = Echo()
    inner = guard(echo, *INNER)

    async def mount(scope, receive, send):  # type: ignore[no-untyped-def]  # any foreign middleware
        await inner(scope, receive, send)

    outer = guard(mount, *OUTER)
    assert (await get(outer, "/", [OUTER])).status == 401
    assert not echo.scopes
    assert (await get(outer, "/", [OUTER, INNER])).status == 200
    assert echo.scopes[0]["user"].subject == "someone"


async def test_a_token_that_cannot_be_revoked_is_refused_where_revocation_is_on(issuer: LocalIssuer) -> None:
    """With revocation on, a token without an id is not accepted."""
    for needed, status in ((True, 401), (False, 200)):
        layers = [IdentityMiddleware(Echo(), issuers=[issuer.accepted(require_jti=needed)]), AccessMiddleware(Echo())]
        token = issuer.token(jti=None)
        answer = await get(Chain(Echo(), layers), "/", [(b"authorization", f"Bearer {token}".encode())])
        assert answer.status == status


@pytest.mark.parametrize("choice", ["allow", "deny", "local"])
async def test_shadow_refuses_nothing(choice: str) -> None:
    """In shadow mode, a store that does not answer refuses nobody either, whatever was chosen for that."""
    store = RedisStore("unix:///nowhere/at.all")
    app = RateLimitMiddleware(
        Echo(),
        limit="1/hour by ip",
        store=store,
        shadow=True,
        on_store_failure=choice,  # type: ignore[arg-type]  # of a list
    )
    assert [(await get(app)).status for _ in range(3)] == [200] * 3
    await store.aclose()


@pytest.mark.parametrize(("method", "lines"), [("GET", 0), ("HEAD", 0), ("POST", 1)])
async def test_only_probes_are_quiet(method: str, lines: int) -> None:
    """A request to a probe's path that is no probe leaves its line."""
    written: list[bytes] = []
    app = AccessLogMiddleware(Echo(), quiet=["/health/live"], write=written.append)
    await ask(app, http_scope(method, "/health/live"))
    assert len(written) == lines
