"""Pages that call guarded apps for parts of themselves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from asgi_guard import AccessMiddleware, IdentityMiddleware, RequestIDMiddleware, Route, SecurityHeadersMiddleware, csp
from asgi_guard.chain.layer import Chain
from tests.asgi import Echo, get
from tests.chain.others import KEY, Foreign, Slow

if TYPE_CHECKING:
    from asgi_guard.asgi import ASGIApp, Message, Receive, Scope, Send
    from asgi_guard.policy.security import Preset


class Around:
    """A page that calls another app for a part of itself, under a path of its own, and drops what else it says."""

    def __init__(self, part: ASGIApp, *, forwards: bool = False, fails: bool = False) -> None:
        self.part = part
        self.forwards = forwards
        self.fails = fails
        self.nonce = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def drop(message: Message) -> None:
            """Nobody hears of it."""

        handed = {**scope, "path": "/part", "raw_path": b"/part"}
        await self.part(handed, receive, send if self.forwards else drop)
        if self.fails:
            raise LookupError
        self.nonce = csp.nonce(scope)
        if not self.forwards:
            await Echo(headers=[])(scope, receive, send)


@pytest.mark.parametrize("preset", ["page", "api", "off"])
async def test_a_page_around_a_fragment(preset: Preset) -> None:
    """A guarded app that was called for a part of a page takes no nonce from the page, nor gives it one."""
    part = SecurityHeadersMiddleware(RequestIDMiddleware(Echo()), preset=preset)
    page = Around(SecurityHeadersMiddleware(part, preset="page"))
    exchange = await get(SecurityHeadersMiddleware(page, preset="page"))
    assert exchange.error is None
    assert len(page.nonce) >= 22
    assert f"script-src 'self' 'nonce-{page.nonce}'" in exchange.headers["content-security-policy"]


@pytest.mark.parametrize("preset", ["page", "api", "off"])
async def test_a_nonce_after_a_fragment_that_is_the_page(preset: Preset) -> None:
    """Where the guarded app within has given the response itself, it is too late for a nonce, as anywhere."""
    page = Around(SecurityHeadersMiddleware(Echo(), preset="page"), forwards=True)
    exchange = await get(SecurityHeadersMiddleware(page, preset=preset))
    assert isinstance(exchange.error, RuntimeError)
    assert "before the first byte" in str(exchange.error)


async def test_a_nonce_after_the_head_and_a_fragment() -> None:
    """A page whose head is sent has no nonce any more, whatever guarded apps it calls then for parts of itself."""
    part = Around(SecurityHeadersMiddleware(Echo(), preset="page"))

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await part(scope, receive, send)

    exchange = await get(SecurityHeadersMiddleware(page, preset="page"))
    assert isinstance(exchange.error, RuntimeError)
    assert "before the first byte" in str(exchange.error)


async def test_an_app_that_is_over_before_a_chain_further_in() -> None:
    """A guarded app that goes on in a task decides by its own request, though the one that called it has answered."""
    rows = (Route("/public", auth="none"),)
    identity, access = IdentityMiddleware(Echo(), api_keys=[KEY], routes=rows), AccessMiddleware(Echo(), routes=rows)
    inner = Chain(Echo(), [identity, Slow(Echo()), access])
    statuses: list[int] = []
    tasks: list[asyncio.Task[None]] = []

    async def note(message: Message) -> None:
        statuses.append(message.get("status", 0))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        changed = {**scope, "path": "/admin", "raw_path": b"/admin"}
        tasks.append(asyncio.create_task(inner(changed, receive, note)))
        await asyncio.sleep(0.01)
        await Echo()(scope, receive, send)

    assert (await get(RequestIDMiddleware(app), "/public")).status == 200
    await asyncio.gather(*tasks)
    assert statuses[0] == 401


@pytest.mark.parametrize("part", [Echo(), Foreign(RequestIDMiddleware(Echo()), path="/deeper")])
async def test_an_error_after_a_fragment(part: ASGIApp, caplog: pytest.LogCaptureFixture) -> None:
    """An error is told by the path of the app that raises, whatever it has called before under another path."""
    rows = [Route("/", security="docs"), Route("/part", security="page")]
    page = Around(RequestIDMiddleware(part), fails=True)
    exchange = await get(SecurityHeadersMiddleware(page, routes=rows))
    assert exchange.status == 500
    assert "cdn.jsdelivr.net" in exchange.headers["content-security-policy"]
    assert [record.args[2] for record in caplog.records if isinstance(record.args, tuple)] == ["/"]
