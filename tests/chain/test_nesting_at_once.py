"""Guarded apps that an app calls at once, within one request: each judges for itself, and knows the request."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from asgi_guard import (
    AccessLogMiddleware,
    AccessMiddleware,
    APIKey,
    AuthSettings,
    DrainMiddleware,
    Guard,
    GuardSettings,
    IdentityMiddleware,
    LogSettings,
    MemoryStore,
    ProxyMiddleware,
    RateLimitMiddleware,
    RateSettings,
    RequestIDMiddleware,
    draining,
    propagation_headers,
    revoke,
)
from asgi_guard.policy.identity import api_key_digest
from tests.asgi import Echo, call, get
from tests.chain.others import KEY, Slow, shut
from tests.middleware.limiting import Fickle, counted

if TYPE_CHECKING:
    from asgi_guard.asgi import ASGIApp, Receive, Scope, Send
    from asgi_guard.policy.bucket import Admission, Verdict
    from asgi_guard.testing import LocalIssuer
    from tests.stores.server import Server


class Fan:
    """An app that calls others within one request, all at once, and answers when they are done."""

    def __init__(self, *apps: ASGIApp) -> None:
        self.apps = apps
        self.statuses: list[int] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def ask(app: ASGIApp) -> int:
            return (await call(app, dict(scope))).status

        self.statuses = list(await asyncio.gather(*map(ask, self.apps)))
        await Echo()(scope, receive, send)


def keyed(app: ASGIApp, header: str, key: APIKey, server: Server, limit: str) -> Guard:
    """A guard with a key of its own, which waits for a store."""
    auth = AuthSettings(api_keys=(key,), api_key_header=header)
    settings = GuardSettings(auth=auth, rate=RateSettings(limit=limit), log=LogSettings(format="off"))
    return Guard(app, settings, store=server.store(prefix=f"{header}:"))


async def test_guards_that_are_called_at_once(server: Server) -> None:
    """Guarded apps that an app calls at once judge each for itself: what one accepts lets nobody in at the other."""
    names, echoes = ("x-one", "x-two"), (Echo(), Echo())
    keys = [APIKey(name, api_key_digest(name.encode())) for name in names]
    limit = "9/hour by ip; 1 at once by ip"
    one, two = (
        keyed(RequestIDMiddleware(echo), name, key, server, limit)
        for echo, name, key in zip(echoes, names, keys, strict=True)
    )
    fan = Fan(one, two)
    outer = RequestIDMiddleware(fan)
    sent = [(name.encode(), name.encode()) for name in names]

    for headers, statuses in ((sent[:1], [200, 401]), (sent[1:], [401, 200]), (sent, [200, 200]), ((), [401, 401])):
        assert (await get(outer, "/", headers)).status == 200
        assert fan.statuses == statuses

    assert [[scope["user"].subject for scope in echo.scopes] for echo in echoes] == [["x-one"] * 2, ["x-two"] * 2]
    ids = [[scope["state"]["request_id"] for scope in echo.scopes] for echo in echoes]
    assert ids[0][1] == ids[1][1]
    await shut(one, two)


async def test_guards_that_are_called_at_once_know_the_callers_trace() -> None:
    """Of guarded apps that an app calls at once, each writes the caller's trace to the log, and shows it to the app."""
    lines: list[bytes] = []
    echoes = Echo(), Echo()
    one, two = (AccessLogMiddleware(RequestIDMiddleware(Slow(echo)), write=lines.append) for echo in echoes)
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    parent = f"00-{trace_id}-00f067aa0ba902b7-01".encode()
    assert (await get(RequestIDMiddleware(Fan(one, two)), headers=[(b"traceparent", parent)])).status == 200
    assert [json.loads(line)["trace_id"] for line in lines] == [trace_id] * 2
    assert [echo.scopes[0]["state"]["trace"].trace_id for echo in echoes] == [trace_id] * 2


async def test_layers_that_are_called_at_once_know_whom_they_have_found() -> None:
    """Of layers within each other that an app calls at once, each inner one goes on with what its outer one found."""
    apps = [IdentityMiddleware(Slow(AccessMiddleware(Echo())), api_keys=[KEY]) for _ in range(2)]
    fan = Fan(*apps)
    assert (await get(RequestIDMiddleware(RequestIDMiddleware(fan)), headers=[(b"x-api-key", b"k")])).status == 200
    assert fan.statuses == [200, 200]


async def test_guards_that_are_called_at_once_hand_the_id_on() -> None:
    """Of guarded apps that an app calls at once, each hands the request's id on by the header that it came in."""
    told = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        told.append(propagation_headers())
        await Echo()(scope, receive, send)

    outer = RequestIDMiddleware(Fan(Slow(app), Slow(app)), header="x-call")
    assert (await get(outer, headers=[(b"x-call", b"one")])).status == 200
    assert told == [{"x-call": "one"}] * 2


@pytest.mark.parametrize(
    ("forwarded", "client", "doubt"),
    [(b"198.51.100.7", "198.51.100.7", None), (b"?", "203.0.113.9", "unreadable")],
)
async def test_guards_that_are_called_at_once_know_the_client(forwarded: bytes, client: str, doubt: str | None) -> None:
    """Of guarded apps that an app calls at once, each knows the client, what doubt there is of it, and the proxy."""
    lines: list[bytes] = []
    one, two = (AccessLogMiddleware(Slow(Echo()), write=lines.append) for _ in range(2))
    outer = ProxyMiddleware(Fan(one, two), trusted="203.0.113.9")
    assert (await get(outer, headers=[(b"x-forwarded-for", forwarded)])).status == 200
    for record in map(json.loads, lines):
        assert (record["client.address"], record["network.peer.address"]) == (client, "203.0.113.9")
        assert record.get("asgi_guard.client_doubt") == doubt
    assert len(lines) == 2


async def test_guards_that_are_called_at_once_know_of_the_drain() -> None:
    """Of guarded apps that an app calls at once, each is told when the process drains."""
    events = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        events.append(draining())
        await Echo()(scope, receive, send)

    drain = DrainMiddleware(Fan(Slow(app), Slow(app)))
    await drain.startup()
    try:
        assert (await get(drain)).status == 200
        assert events == [drain.draining.event] * 2
    finally:
        await drain.shutdown()


async def test_a_logout_at_one_of_guards_that_are_called_at_once(issuer: LocalIssuer) -> None:
    """A token that is revoked in one of guarded apps that are called at once is revoked where the caller looks too."""

    async def logout(scope: Scope, receive: Receive, send: Send) -> None:
        await revoke(scope)
        await Echo()(scope, receive, send)

    auth = AuthSettings(issuer=issuer.url, audience=(issuer.audience,), revocation=True)
    settings = GuardSettings(auth=auth, log=LogSettings(format="off"))
    first, second = (Guard(app, settings, http_client=issuer.client) for app in (Slow(Echo()), logout))
    fan = Fan(first, second)
    outer = Guard(fan, settings, http_client=issuer.client)
    bearer = [(b"authorization", f"Bearer {issuer.token()}".encode())]
    assert (await get(outer, headers=bearer)).status == 200
    assert fan.statuses == [200, 200]
    assert [(await get(guard, headers=bearer)).status for guard in (outer, second, first)] == [401, 401, 200]
    await shut(first, second, outer)


class Late(Fickle):
    """A store that answers after so many turns of the event loop."""

    turns = 0

    async def admit(self, request: Admission) -> Verdict:
        for _ in range(self.turns):
            await asyncio.sleep(0)
        return await super().admit(request)


async def test_a_refusal_beside_another_guard() -> None:
    """Of guarded apps that are called at once, one that refuses takes nothing back that another was charged."""
    counting = MemoryStore()
    stores = Late(), Late(counting)
    stores[0].turns, stores[1].turns = 3, 9
    one = RateLimitMiddleware(Echo(), limit="1/hour by ip", store=stores[0], deny_cache=0)
    two = RateLimitMiddleware(Echo(), limit="1 at once by ip", store=stores[1])
    fan = Fan(one, two)
    for statuses in ([200, 200], [429, 200], [429, 200]):
        assert (await get(RequestIDMiddleware(fan))).status == 200
        assert fan.statuses == statuses
        assert counted(counting) == 0
