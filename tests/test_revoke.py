"""`Guard.revoke`: what an app's logout calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asgi_guard import AuthSettings, ConfigError, Guard, GuardSettings
from asgi_guard.guard import guarded
from tests.asgi import Exchange, call, http_scope
from tests.guarded import KEY, settings

if TYPE_CHECKING:
    from asgi_guard.asgi import Receive, Scope, Send
    from asgi_guard.testing import LocalIssuer
    from tests.stores.server import Server


async def logout(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that logs out whoever calls it at `/logout`."""
    if scope["path"] == "/logout":
        await scope["state"]["guard"].revoke(scope["user"])
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


async def asked(guard: Guard, path: str, headers: dict[str, str]) -> Exchange:
    lines = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    return await call(guard, http_scope("GET", path, lines, state={"guard": guard}))


async def ask(guard: Guard, path: str, **headers: str) -> int:
    return (await asked(guard, path, headers)).status


async def failure(guard: Guard, **headers: str) -> BaseException | None:
    return (await asked(guard, "/logout", headers)).error


@pytest.mark.parametrize("shared", [False, True])
async def test_a_token_that_is_revoked_is_refused_from_then_on(
    issuer: LocalIssuer, server: Server, *, shared: bool
) -> None:
    """After a logout the token is refused, with the same store by every guard, and other tokens are not."""
    store = server.store() if shared else None
    guard = Guard(logout, settings(issuer), http_client=issuer.client, store=store)
    token, other = (f"Bearer {issuer.token('alice')}" for _ in range(2))
    assert await ask(guard, "/items", authorization=token) == 204
    assert await ask(guard, "/logout", authorization=token) == 204
    assert await ask(guard, "/items", authorization=token) == 401
    assert await ask(guard, "/items", authorization=other) == 204
    if shared:
        second = Guard(logout, settings(issuer), http_client=issuer.client, store=server.store())
        assert await ask(second, "/items", authorization=token) == 401
        assert second.store is not None
        await second.store.aclose()
    assert guard.store is not None
    await guard.store.aclose()


async def test_what_cannot_be_revoked_is_said(issuer: LocalIssuer) -> None:
    """Where nobody looks revocations up, and for an API key, the call fails; nothing seems done that is not."""
    guard = Guard(logout, settings(issuer), http_client=issuer.client)
    assert "token with an id" in str(await failure(guard, x_api_key=KEY.decode()))
    auth = AuthSettings(issuer=issuer.url, audience=(issuer.audience,))
    without = Guard(logout, GuardSettings(auth=auth), http_client=issuer.client)
    assert without.store is None
    error = await failure(without, authorization=f"Bearer {issuer.token('alice')}")
    assert isinstance(error, ConfigError)
    assert "AUTH_REVOCATION" in str(error)


def test_a_guard_is_not_guarded_again(issuer: LocalIssuer) -> None:
    """An app that brings a guard along keeps it; any other gets one."""
    guard = Guard(logout, settings(issuer))
    assert guarded(guard, guard.settings) is guard
    assert guarded(logout, guard.settings).app is logout
