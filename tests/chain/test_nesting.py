"""Layers in layers, with other people's middleware between them, and guards within mounted apps."""

from __future__ import annotations

import asyncio
import gc
import json
from contextlib import nullcontext
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
    Guard,
    GuardSettings,
    HostMiddleware,
    IdentityMiddleware,
    LogSettings,
    MemoryStore,
    Possession,
    RateLimitMiddleware,
    RateSettings,
    RequestIDMiddleware,
    Route,
    SecurityHeadersMiddleware,
    csp,
)
from asgi_guard.chain.exchange import Exchange
from asgi_guard.chain.layer import Chain, Layer
from asgi_guard.policy.identity import api_key_digest
from asgi_guard.policy.routes import RouteTable
from asgi_guard.testing import ProofKey
from tests.asgi import Echo, call, get, http_scope, websocket_scope
from tests.middleware.limiting import Fickle, counted, held

if TYPE_CHECKING:
    from asgi_guard.asgi import ASGIApp, Message, Receive, Scope, Send
    from asgi_guard.chain.layer import Decision
    from asgi_guard.policy.bucket import Admission, Verdict
    from asgi_guard.policy.security import Preset
    from asgi_guard.testing import LocalIssuer
    from tests.stores.server import Server

KEY = APIKey("robot", api_key_digest(b"k"))


class Foreign:
    """A middleware of someone else's, which hands on a scope of its own."""

    def __init__(self, app: ASGIApp, **members: Any) -> None:
        self.app = app
        self.members = members

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, **self.members}, receive, send)


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


class Slow(Layer):
    """A layer that has something to wait for, as limits in Redis have."""

    name = "slow"

    def decide(self, exchange: Exchange) -> Decision:
        return self.wait()

    async def wait(self) -> None:
        await asyncio.sleep(0.05)


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

    async def unheard(_: Message) -> None:
        """Nobody waits for what the chain further in says."""

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
