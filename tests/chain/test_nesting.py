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
    AuthSettings,
    CSRFMiddleware,
    Guard,
    GuardSettings,
    HostMiddleware,
    IdentityMiddleware,
    Issuer,
    LogSettings,
    RateLimitMiddleware,
    RateSettings,
    RequestIDMiddleware,
    Route,
    SecurityHeadersMiddleware,
    csrf,
    request_id,
)
from asgi_guard.chain.exchange import _VIEW, Exchange
from asgi_guard.policy.routes import RouteTable
from tests.asgi import Echo, call, get, http_scope, websocket_scope
from tests.chain.others import KEY, Foreign, Mounting, unheard
from tests.middleware.limiting import Fickle

if TYPE_CHECKING:
    from asgi_guard.asgi import Receive, Scope, Send
    from asgi_guard.testing import LocalIssuer


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
