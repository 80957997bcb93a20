"""Chains of layers that wait, while another one looks at its own request."""

from __future__ import annotations

import asyncio
import json
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest

from asgi_guard import AccessMiddleware, HostMiddleware, IdentityMiddleware, Possession, RequestIDMiddleware, Route
from asgi_guard.chain.exchange import Exchange
from asgi_guard.chain.layer import Chain
from asgi_guard.testing import ProofKey
from tests.asgi import Echo, call, get, http_scope
from tests.chain.others import KEY, Slow, unheard
from tests.middleware.limiting import Fickle
from tests.middleware.test_dpop import Front, bound, shown

if TYPE_CHECKING:
    from asgi_guard.asgi import Message, Receive, Scope, Send
    from asgi_guard.testing import LocalIssuer


async def test_a_head_that_is_sent_while_another_chain_waits() -> None:
    """A chain that has waited judges the request that it was handed, whatever was sent around it meanwhile."""
    rows = (Route("/public", auth="none"),)
    identity, access = IdentityMiddleware(Echo(), api_keys=[KEY], routes=rows), AccessMiddleware(Echo(), routes=rows)
    inner = Chain(Echo(), [identity, Slow(Echo()), access])
    statuses: list[int] = []

    async def note(message: Message) -> None:
        statuses.append(message.get("status", 0))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.create_task(inner({**scope, "path": "/admin", "raw_path": b"/admin"}, receive, note))
        await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await task
        await send({"type": "http.response.body", "body": b""})

    assert (await get(RequestIDMiddleware(app), "/public")).status == 200
    assert statuses[0] == 401


@pytest.mark.parametrize("waits_for", ["keys", "proofs"])
async def test_a_head_that_is_sent_while_identity_waits(issuer: LocalIssuer, waits_for: str) -> None:
    """Identity that has waited checks the proof of the request that it was handed, and shows its user to that alone."""
    proofs, echo, key = Fickle(), Echo(), ProofKey()
    possession = Possession(dpop="accept", store=proofs)
    access = AccessMiddleware(echo, possession=possession)
    identity = IdentityMiddleware(access, issuers=[issuer.accepted()], possession=possession)
    if waits_for == "keys":
        issuer.slow = 0.05
    else:
        await identity.startup()
        proofs.gate = asyncio.Event()
    statuses: list[int] = []
    outer: list[Scope] = []

    async def note(message: Message) -> None:
        statuses.append(message.get("status", 0))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        outer.append(scope)
        task = asyncio.create_task(identity({**scope, "path": "/admin", "raw_path": b"/admin"}, receive, note))
        await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if proofs.gate is not None:
            proofs.gate.set()
        await task
        await send({"type": "http.response.body", "body": b""})

    shown = key.headers(issuer.token(cnf=key.cnf), "GET", "http://testserver/admin")
    lines = [(name.encode(), value.encode()) for name, value in shown.items()]
    assert (await get(RequestIDMiddleware(app), "/public", lines)).status == 200
    assert statuses[0] == 200
    assert [scope["user"].is_authenticated for scope in echo.scopes] == [True]
    assert "user" not in outer[0]


@pytest.mark.parametrize("raises", [True, False], ids=["raises", "returns"])
async def test_an_app_that_fails_while_another_chain_waits(raises: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Whose app failed is told and answered by its own request, though a chain further in is under way."""
    inner = Chain(Echo(), [Slow(Echo())])
    tasks: list[asyncio.Task[None]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        changed = {**scope, "method": "HEAD", "path": "/admin", "raw_path": b"/admin"}
        tasks.append(asyncio.create_task(inner(changed, receive, unheard)))
        await asyncio.sleep(0.01)
        if raises:
            raise LookupError("no such row")

    exchange = await get(RequestIDMiddleware(app), "/public")
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (exchange.status, json.loads(exchange.body)["status"]) == (500, 500)
    assert "'GET' '/public'" in caplog.text
    assert "/admin" not in caplog.text


@pytest.mark.parametrize(("outer", "inner", "has_body"), [("HEAD", "POST", True), ("POST", "HEAD", False)])
async def test_a_head_that_is_sent_while_a_refusal_waits(outer: str, inner: str, has_body: bool) -> None:
    """A refusal that reads the request's body first has a body by its own request's method."""
    refusing, is_read = HostMiddleware(Echo(), allowed="a.example"), asyncio.Event()
    bodies: list[bytes] = []

    async def slow() -> Message:
        await is_read.wait()
        return {"type": "http.request", "body": b"", "more_body": False}

    async def note(message: Message) -> None:
        bodies.append(message.get("body", b""))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [*scope["headers"], (b"transfer-encoding", b"chunked")]
        task = asyncio.create_task(refusing({**scope, "method": inner, "headers": headers}, slow, note))
        await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        is_read.set()
        await task
        await send({"type": "http.response.body", "body": b""})

    await call(RequestIDMiddleware(app), http_scope(outer))
    assert bool(b"".join(bodies)) is has_body


@pytest.mark.parametrize("fails", [False, True], ids=["answered", "failed"])
async def test_who_has_waited_sees_its_own_request(fails: bool) -> None:
    """A hook that has waited sees what its chain was handed, though another one looks at its own, however it ends."""
    outer = http_scope(path="/sub/a")
    exchange = Exchange(outer)
    exchange = exchange.hand_on({**outer, "path": "/b"})

    async def turning() -> None:
        exchange.turn_to(outer)
        if fails:
            raise ConnectionError

    with pytest.raises(ConnectionError) if fails else nullcontext():
        await exchange.wait(turning())
    assert exchange.path == exchange.scope["path"] == "/b"
    exchange.turn_to(outer)
    assert exchange.path == "/sub/a"


@pytest.mark.parametrize("waits_for", ["keys", "the store of proofs"])
async def test_a_user_who_is_known_once_the_app_around_is_over(waits_for: str, issuer: LocalIssuer) -> None:
    """A chain further in shows the user whom it had to wait for to its own app, though all around it have answered."""
    store, within = Fickle(), Echo()
    front = Front(issuer, store=store)
    inner = Chain(within, [front.layer])
    if waits_for == "keys":
        issuer.slow = 0.05
        shows = [(b"authorization", b"Bearer " + issuer.token().encode())]
    else:
        await front.layer.startup()
        store.gate = asyncio.Event()
        shows = shown(bound(issuer))
    tasks: list[asyncio.Task[None]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        tasks.append(asyncio.create_task(inner(dict(scope), receive, unheard)))
        await asyncio.sleep(0.01)
        await Echo()(scope, receive, send)

    assert (await get(RequestIDMiddleware(app), headers=shows)).status == 200
    if store.gate is not None:
        store.gate.set()
    await asyncio.gather(*tasks)
    assert within.scopes[0]["user"].subject == "alice"
    await front.layer.shutdown()
