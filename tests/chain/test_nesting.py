"""Layers in layers, with other people's middleware between them, and guards within mounted apps."""

from __future__ import annotations

import asyncio
import gc
import json
from contextvars import copy_context
from typing import TYPE_CHECKING, Any
from weakref import ref

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from asgi_guard import (
    AccessLogMiddleware,
    AccessMiddleware,
    APIKey,
    AuthSettings,
    CSRFMiddleware,
    DrainMiddleware,
    Guard,
    GuardSettings,
    HostMiddleware,
    IdentityMiddleware,
    Issuer,
    LogSettings,
    MemoryStore,
    ProxyMiddleware,
    RateLimitMiddleware,
    RateSettings,
    RequestIDMiddleware,
    Route,
    SecurityHeadersMiddleware,
    csrf,
    draining,
    limits,
    propagation_headers,
    request_id,
    revoke,
)
from asgi_guard.chain.exchange import _VIEW, Exchange
from asgi_guard.policy.identity import api_key_digest
from asgi_guard.policy.routes import RouteTable
from tests.asgi import Echo, call, get, http_scope, websocket_scope
from tests.chain.others import KEY, Foreign, Slow
from tests.middleware.limiting import Fickle, counted, held

if TYPE_CHECKING:
    from asgi_guard.asgi import ASGIApp, Message, Receive, Scope, Send
    from asgi_guard.policy.bucket import Admission, Verdict
    from asgi_guard.testing import LocalIssuer
    from tests.stores.server import Server


class Mounting:
    """An app mounted under a path, as Starlette does it: the path stays, and the root path grows."""

    def __init__(self, prefix: str, app: ASGIApp) -> None:
        self.prefix = prefix
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        root = scope.get("root_path", "") + self.prefix
        await self.app({**scope, "root_path": root}, receive, send)


async def test_shared() -> None:
    """Layers with others' middleware between them share one exchange: one id, one line that knows all of it."""
    lines: list[bytes] = []
    app = Echo()
    stack = AccessLogMiddleware(
        Foreign(RequestIDMiddleware(Foreign(RequestIDMiddleware(HostMiddleware(app, allowed="a.example"))))),
        write=lines.append,
    )
    exchange = await get(stack)
    assert exchange.status == 400
    (record,) = [json.loads(line) for line in lines]
    assert record["request_id"] == exchange.headers["x-request-id"] == json.loads(exchange.body)["request_id"]
    assert record["asgi_guard.refused_by"] == "host"
    assert sum(name == b"x-request-id" for name, _ in exchange.starts[0]["headers"]) == 1


async def test_one_after_another() -> None:
    """Of guarded apps that an app calls one after another each shares the exchange, as if it were the only one."""
    lines: list[bytes] = []
    asked = RequestIDMiddleware(Echo()), HostMiddleware(Echo(), allowed="a.example")

    async def unheard(message: Message) -> None:
        pass

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for each, told in zip(asked, (unheard, send), strict=True):
            await each(dict(scope), receive, told)

    exchange = await get(AccessLogMiddleware(app, write=lines.append))
    (record,) = [json.loads(line) for line in lines]
    assert (exchange.status, record["asgi_guard.refused_by"]) == (400, "host")
    assert request_id() is None


@pytest.mark.parametrize("scope", [http_scope(path="/sub/a"), websocket_scope("/sub/a")], ids=["http", "websocket"])
async def test_guard_in_a_mounted_app(scope: dict[str, Any], capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """A guard around a mounted app and one around the whole give one id, one of each header, and one line."""
    lines: list[bytes] = []
    app = Echo()
    inner = Guard(app, GuardSettings())
    outer = Guard(Mounting("/sub", inner), GuardSettings(log=LogSettings(format="off")))
    stack = AccessLogMiddleware(outer, write=lines.append)
    exchange = await call(stack, scope)
    assert exchange.error is None
    names = [name for name, _ in exchange.messages[0]["headers"]]
    assert len(names) == len(set(names))
    (record,) = [json.loads(line) for line in lines]
    assert record["request_id"] == app.scopes[0]["state"]["request_id"]
    assert capfdbinary.readouterr().out == b""


@pytest.mark.parametrize("separate", [False, True], ids=["the same store", "a store each"])
async def test_a_request_is_charged_once_by_nested_guards(valkey: Server, separate: bool) -> None:
    """Guards around one another that share a store charge a request once for the same limit, and count it once."""
    valkey.client.flushall()
    limits = RateSettings(limit="4/hour by ip; 1 at once by ip")
    inner_limits = RateSettings(limit="4/hour by ip; 3/hour by route")
    quiet = LogSettings(format="off")
    stores = [valkey.store(prefix="inner:" if separate else "asgi-guard:"), valkey.store()]
    inner = Guard(Echo(), GuardSettings(rate=inner_limits, log=quiet), store=stores[0])
    outer = Guard(Mounting("/sub", inner), GuardSettings(rate=limits, log=quiet), store=stores[1])

    statuses = [(await get(outer, "/sub/a")).status for _ in range(4)]

    assert statuses == [200, 200, 200, 429]
    found = {key.decode() for key in valkey.client.scan_iter(_type="string")}
    shared = "inner:" if separate else "asgi-guard:"
    assert found == {
        "asgi-guard:{ip:203.0.113.9}:ip:900000000x4", f"{shared}{{ip:203.0.113.9}}:ip:900000000x4",
        f"{shared}{{route:others}}:route:1200000000x3",
    }  # fmt: skip
    assert stores[0].same_as(stores[1]) is not separate
    for store in stores:
        await store.aclose()


@pytest.mark.parametrize("shadow", [False, True])
async def test_a_guard_within_charges_what_no_other_has(shadow: bool) -> None:
    """What a guard further out has charged is not asked for again, and what comes to the inner one alone is charged."""
    store = Fickle()
    inner = RateLimitMiddleware(Echo(), limit="3/hour by ip", store=store, shadow=shadow)
    outer = RateLimitMiddleware(Mounting("/sub", inner), limit="3/hour by ip", store=store, shadow=shadow)
    assert (await get(outer, "/sub/a")).status == 200
    assert len(store.asked) == 1
    assert [(await get(inner, "/a")).status for _ in range(3)] == [200, 200, 200 if shadow else 429]
    assert [charge.cost for asked in store.asked for charge in asked.charges] == [1] * 4


@pytest.mark.parametrize("extra", [2, -2])
async def test_the_dearest_of_nested_guards_is_what_a_request_costs(extra: int) -> None:
    """However many guards stand around one another, a request pays the highest of their costs, and is under way once.

    What the app charges or gives back beyond that is settled once, too.
    """
    store = Fickle()

    async def charging(scope: Scope, receive: Receive, send: Send) -> None:
        limits.charge(scope, extra)
        await Echo()(scope, receive, send)

    app: ASGIApp = charging
    for cost in (5, 3, 1):
        routes = [Route("/a", cost=cost)]
        app = RateLimitMiddleware(app, limit="9/hour by ip; 1 at once by ip", store=store, routes=routes)
    assert (await get(app, "/a")).status == 200
    counted = [[(charge.limit.at_once, charge.cost) for charge in asked.charges] for asked in store.asked]
    assert counted == [[(False, 1), (True, 1)], [(False, 2)], [(False, 2)]]
    settled = [charge.cost for told in store.told for charge in told.charges if not charge.limit.at_once]
    assert settled == [extra]


async def test_each_of_guarded_apps_one_after_another_is_charged() -> None:
    """Guarded apps that an app calls one after another are each charged, and pay what they charge themselves."""
    store = Fickle()

    async def work(scope: Scope, receive: Receive, send: Send) -> None:
        limits.charge(scope, 2)
        await Echo()(scope, receive, send)

    within = RateLimitMiddleware(work, limit="9/hour by ip; 1 at once by ip", store=store)

    async def unheard(message: Message) -> None:
        pass

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for told in (unheard, send):
            await within(dict(scope), receive, told)

    assert (await get(RequestIDMiddleware(app))).status == 200
    assert [[charge.cost for charge in asked.charges] for asked in (*store.asked, *store.told)] == [
        [1, 1],
        [1, 1],
        [2, 2],
        [2, 2],
    ]


async def test_each_layer_ends_what_it_holds() -> None:
    """Of two layers that count requests under way, each settles its own, when the request has left it."""
    within: list[tuple[int, int]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        within.append((held(outer), held(inner)))
        await Echo()(scope, receive, send)

    inner = RateLimitMiddleware(app, limit="1 at once by ip; 9/hour by ip", store=Fickle())
    outer = RateLimitMiddleware(inner, limit="1 at once by ip", store=Fickle())
    assert [(await get(outer)).status for _ in range(3)] == [200] * 3
    assert within == [(1, 1)] * 3
    assert (held(outer), held(inner)) == (0, 0)


async def test_a_stricter_limit_within_holds(valkey: Server) -> None:
    """A guard further in whose limit of the same name is another one is not content with what the outer one charged."""
    valkey.client.flushall()
    quiet = LogSettings(format="off")
    inner = Guard(Echo(), GuardSettings(rate=RateSettings(limit="2/hour by ip"), log=quiet), store=valkey.store())
    outer = Guard(
        Mounting("/sub", inner),
        GuardSettings(rate=RateSettings(limit="100/hour by ip"), log=quiet),
        store=valkey.store(),
    )
    statuses = [(await get(outer, "/sub/a")).status for _ in range(3)]
    assert statuses[-1] == 429
    await shut(inner, outer)


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


async def test_what_an_outer_guard_had_against_a_token_that_an_inner_one_accepts(issuer: LocalIssuer) -> None:
    """The log has nothing against a token that the guard which serves it accepts, though one further out does not."""
    lines: list[bytes] = []
    inner = IdentityMiddleware(Echo(), issuers=[issuer.accepted()])
    outer = IdentityMiddleware(Foreign(inner), issuers=[Issuer("https://another.example", "api")])
    bearer = [(b"authorization", f"Bearer {issuer.token()}".encode())]
    assert (await get(AccessLogMiddleware(outer, write=lines.append), headers=bearer)).status == 200
    (record,) = [json.loads(line) for line in lines]
    assert record["user.id"] == "alice"
    assert "asgi_guard.detail" not in record


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


async def shut(*guards: Guard) -> None:
    """Let go of what guards hold."""
    for guard in guards:
        for layer in guard.layers:
            await layer.shutdown()


async def test_routes_of_an_outer_layer() -> None:
    """An outer layer's rows are judged by the path that it was handed, and an inner one's by its own."""
    inner = SecurityHeadersMiddleware(Echo(), preset="off", routes=[Route("/docs", security="off")])
    outer = SecurityHeadersMiddleware(
        Mounting("/sub", inner), preset="off", routes=[Route("/sub/docs", security="page")]
    )
    assert "content-security-policy" in (await get(outer, "/sub/docs")).headers
    assert "content-security-policy" not in (await get(outer, "/sub/other")).headers


async def test_a_rewritten_path() -> None:
    """A layer judges the path that it was handed: what was public before it was rewritten is not public after."""
    routes = [Route("/public", auth="none")]
    guarded = AccessMiddleware(Echo(), routes=routes)
    rewritten = RequestIDMiddleware(Foreign(guarded, path="/admin", raw_path=b"/admin"))
    assert (await get(rewritten, "/public")).status == 401
    assert (await get(RequestIDMiddleware(Foreign(guarded, path="/public")), "/admin", raw_path=None)).status == 200
    assert (await call(RequestIDMiddleware(Foreign(guarded, method="post")), http_scope(path="/public"))).status == 200


@pytest.mark.parametrize(
    "scope", [http_scope("GET", "/without"), websocket_scope("/without")], ids=["http", "websocket"]
)
async def test_a_path_is_logged_as_it_was_handed_in(scope: dict[str, Any]) -> None:
    """An outer layer concludes with the path that it was handed, whatever it was within, and without a head too."""
    lines: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            await Echo()(scope, receive, send)

    within = Foreign(RequestIDMiddleware(app), path="/within")
    await call(AccessLogMiddleware(within, write=lines.append), scope)
    assert json.loads(lines[0])["url.path"] == "/without"


@pytest.mark.parametrize(
    "changed", [{}, {"root_path": "/app"}, {"raw_path": b"/app%2Fx"}, {"path": "/x"}, {"method": "delete"}]
)
def test_a_changed_place_is_looked_up_anew(changed: dict[str, Any]) -> None:
    """A table that was asked before is asked again, if anything by which it finds the row has changed."""
    table = RouteTable([Route("/app/x", methods=("GET",)), Route("/x", auth="none")])
    scope = http_scope("GET", "/app/x", raw_path=b"/app/x")
    exchange = Exchange(scope)
    assert exchange.find(table) == (0, False)
    exchange.hand_on({**scope, **changed})
    fresh = Exchange({**scope, **changed})
    assert exchange.find(table) == fresh.find(table)


def test_a_client_that_is_named_no_more() -> None:
    """An empty text in the client's place names nobody, whether the server puts it there or a middleware does."""
    exchange = Exchange(http_scope())
    exchange.hand_on(http_scope(client=("", 0)))
    assert (exchange.peer, exchange.client) == ("203.0.113.9", None)
    assert Exchange(http_scope(client=("", 0))).client is None


async def test_changed_headers() -> None:
    """A layer sees the headers that it was handed, whatever an outer one saw."""
    identity = IdentityMiddleware(AccessMiddleware(Echo()), api_keys=[KEY])
    key = (b"x-api-key", b"k")
    assert (await get(RequestIDMiddleware(Foreign(identity, headers=[key])))).status == 200
    assert (await get(RequestIDMiddleware(Foreign(identity, headers=[])), headers=[key])).status == 401
    assert (await get(RequestIDMiddleware(Foreign(identity, headers=[key, key])))).status == 400


async def test_headers_changed_in_place() -> None:
    """A header that was added to the very list is seen too."""
    identity = IdentityMiddleware(AccessMiddleware(Echo()), api_keys=[KEY])

    async def adding(scope: Scope, receive: Receive, send: Send) -> None:
        scope["headers"].append((b"x-api-key", b"k"))
        await identity(scope, receive, send)

    assert (await get(RequestIDMiddleware(adding))).status == 200


@pytest.mark.parametrize("client", [("198.51.100.7", 1), None])
async def test_a_corrected_client(client: tuple[str, int] | None) -> None:
    """A client and a scheme that someone else's middleware corrects are believed further in, and logged."""
    lines: list[bytes] = []
    limited = RateLimitMiddleware(
        HostMiddleware(Echo(), allowed="testserver", https_redirect=True), limit="1/day by ip"
    )
    stack = AccessLogMiddleware(Foreign(limited, client=client, scheme="https"), write=lines.append)
    assert [(await get(stack)).status, (await get(stack, client=("192.0.2.1", 1))).status] == [200, 429]
    record = json.loads(lines[0])
    assert record.get("client.address") == (client and client[0])
    assert (record["url.scheme"], record["network.peer.address"]) == ("https", "203.0.113.9")


async def test_a_client_corrected_in_place() -> None:
    """What a server's middleware corrects in the very scope that it was handed is believed further in, too."""
    limited = RateLimitMiddleware(
        HostMiddleware(SecurityHeadersMiddleware(Echo()), allowed="testserver", https_redirect=True),
        limit="1/day by ip",
    )
    inner: Any = limited  # uvicorn types what it calls by its own names
    corrected: Any = ProxyHeadersMiddleware(inner, trusted_hosts="*")
    stack = RequestIDMiddleware(corrected)
    answers = [
        await get(stack, headers=[(b"x-forwarded-for", client), (b"x-forwarded-proto", b"https")])
        for client in (b"198.51.100.1", b"198.51.100.2", b"198.51.100.1")
    ]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert "strict-transport-security" in answers[0].headers


@pytest.mark.parametrize("limit", ["", "9/second by ip"])
async def test_rows_behind_a_mount(limit: str) -> None:
    """An app that mounts others in the scope that it was handed changes no row, whether any layer asked before it."""
    lines: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope.update(root_path="/admin", raw_path=b"/widget")
        await Echo()(scope, receive, send)

    table = (Route("/admin/widget", security="docs"), Route("/widget", security="off"), Route("/", security="off"))
    guarded = Guard(app, GuardSettings(routes=table, log=LogSettings(format="off"), rate=RateSettings(limit=limit)))
    logged = AccessLogMiddleware(guarded, routes=table, quiet="/widget", write=lines.append)
    answer = await get(logged, "/admin/widget")
    assert "cdn.jsdelivr.net" in answer.headers["content-security-policy"]
    assert json.loads(lines[0])["http.route"] == "/admin/widget"


async def test_rows_that_begin_with_the_root_path(caplog: pytest.LogCaptureFixture) -> None:
    """The first request of a mounted guard has it tell of the rows that no request can match there."""
    rows = (Route("/v1/admin", scopes=("x",)), Route("/users", scopes=("x",)))
    guard = Guard(Echo(), GuardSettings(auth=AuthSettings(api_keys=(KEY,)), routes=rows))
    for _ in range(2):
        assert (await get(Mounting("/v1", guard), "/v1/users", headers=[(b"x-api-key", b"k")])).status == 403
    told = [record.message for record in caplog.records if "root path" in record.message]
    assert told == ["no request matches the row /v1/admin, since paths are those below the root path /v1: write /admin"]


async def test_layers_that_are_mounted_together_tell_of_such_rows_once(caplog: pytest.LogCaptureFixture) -> None:
    """Layers that stand alone, and were given the same rows, do not tell of them one after another."""
    rows = [Route("/v7/admin", scopes=("x",))]
    layers = IdentityMiddleware(AccessMiddleware(Echo(), routes=rows), api_keys=[KEY], routes=rows)
    assert (await get(Mounting("/v7", layers), "/v7/users", headers=[(b"x-api-key", b"k")])).status == 200
    assert [record.message for record in caplog.records] == [
        "no request matches the row /v7/admin, since paths are those below the root path /v7: write /admin"
    ]


async def test_a_table_that_is_shared_across_a_mount() -> None:
    """Layers on both sides of a mount each find the row of the path that they see, in one table too."""
    table = RouteTable([Route("/admin", scopes=("x",))])
    inner = Mount("/api", AccessMiddleware(Echo(), routes=table))
    outer = IdentityMiddleware(Starlette(routes=[inner]), api_keys=[KEY], routes=table)
    assert (await get(outer, "/api/admin", headers=[(b"x-api-key", b"k")])).status == 403
    assert (await get(outer, "/api/other", headers=[(b"x-api-key", b"k")])).status == 200


async def test_a_request_closed_in_another_context(caplog: pytest.LogCaptureFixture) -> None:
    """A request that is given up from outside is concluded like any other, and nothing else is told."""
    lines: list[bytes] = []

    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    async def nothing(*_: object) -> Any:
        await asyncio.Event().wait()

    served = AccessLogMiddleware(waiting, write=lines.append)(http_scope(), nothing, nothing)
    copy_context().run(served.send, None)
    served.close()
    assert len(lines) == 1
    assert caplog.messages == []


@pytest.mark.parametrize("scope", [http_scope(), websocket_scope()], ids=["http", "websocket"])
async def test_a_scheme_taken_away(scope: dict[str, Any]) -> None:
    """Where the scheme is taken out of the scope, it is the plain one."""
    limited = HostMiddleware(Echo(), allowed="testserver", https_redirect=True)
    exchange = await call(RequestIDMiddleware(Foreign(limited, scheme=None)), {**scope, "scheme": "https"})
    assert exchange.status == (308 if scope["type"] == "http" else 400)


@pytest.mark.parametrize("fails", [False, True])
async def test_nothing_is_left_behind(fails: bool, caplog: pytest.LogCaptureFixture) -> None:
    """When a request is over, the reference counts alone let go of what it held."""

    class Held:
        """Something that the app keeps in its scope."""

    held: list[ref[Held]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        thing = scope["held"] = Held()
        held.append(ref(thing))
        if fails:
            raise LookupError
        await Echo()(scope, receive, send)

    stack = RequestIDMiddleware(Foreign(AccessLogMiddleware(app, write=lambda line: None)))
    caplog.set_level("CRITICAL", "asgi_guard")  # a captured record would hold the exception
    gc.collect()
    gc.disable()
    try:
        exchange = await get(stack)
        exchange.error = None
        assert held[0]() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("outer", "path", "expected"),
    [
        ({}, "/", [200, 200, 200, 200]),
        ({}, "/dear", [200, 200, 429, 429]),
        ({"shadow": True}, "/dear", [200, 429, 429, 429]),
    ],
)
async def test_what_was_charged_further_out_counts_as_far_as_it_binds(
    outer: dict[str, Any], path: str, expected: list[int]
) -> None:
    """Of a limit that two layers have a request is charged the greater cost, and a shadow stands in for no limit."""
    store = MemoryStore()
    within = RateLimitMiddleware(Echo(), limit="6/hour by ip", store=store, routes=(Route("/dear", cost=3),))
    layer = RateLimitMiddleware(within, limit="6/hour by ip", store=store, **outer)
    assert [(await get(layer, path)).status for _ in range(4)] == expected


@pytest.mark.parametrize("scope", [http_scope(), websocket_scope()], ids=["http", "websocket"])
async def test_after_the_head_the_app_sees_its_own_request(scope: dict[str, Any]) -> None:
    """What an app asks of its own chain once its response has begun is answered as before, whatever stands around."""
    tokens: list[str] = []

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        start = "http.response.start" if scope["type"] == "http" else "websocket.accept"
        await send({"type": start, "status": 200, "headers": []})
        tokens.extend((csrf.token(), csrf.token(scope)))

    layer = CSRFMiddleware(page, session_cookie="session", secret="s" * 32)
    await call(RequestIDMiddleware(layer), {**scope, "headers": [(b"cookie", b"session=abc")]})
    assert all(tokens)
    assert len(tokens) == 2


async def test_a_look_up_that_an_outer_guard_could_not_make_is_none_of_the_inner_ones(issuer: LocalIssuer) -> None:
    """A guard that looks up no revocations does not refuse for want of the look-up of one further out."""
    auth = AuthSettings(issuer=issuer.url, audience=(issuer.audience,))
    inner = Guard(Echo(), GuardSettings(auth=auth), http_client=issuer.client)
    looking = auth.model_copy(update={"revocation": True, "revocation_on_store_failure": "allow"})
    away = Fickle(mood="away")
    outer = Guard(Foreign(inner), GuardSettings(auth=looking), store=away, http_client=issuer.client)
    bearer = [(b"authorization", f"Bearer {issuer.token()}".encode())]
    assert (await get(outer, headers=bearer)).status == 200
    assert away.asked


def test_a_view_is_all_that_is_read_of_a_scope() -> None:
    """What is kept of how a chain sees its request is everything that is read of its scope, and nothing else."""
    exchange = object.__new__(Exchange)
    exchange.kind, exchange._claim = "http", None
    exchange._read(http_scope(), "")
    assert {name for name in Exchange.__slots__ if hasattr(exchange, name)} == {"kind", "_claim", *_VIEW}
