"""Each layer by itself, the ordinary ASGI way: around any callable, and as `add_middleware` of Starlette takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from asgi_guard import Introspection, Issuer
from asgi_guard.errors import ConfigError
from asgi_guard.middleware import (
    AccessLogMiddleware,
    AccessMiddleware,
    CORSMiddleware,
    CSRFMiddleware,
    DrainMiddleware,
    HealthMiddleware,
    HostMiddleware,
    IdentityMiddleware,
    ProxyMiddleware,
    RateLimitMiddleware,
    RequestIDMiddleware,
    SecurityHeadersMiddleware,
)
from asgi_guard.policy.identity import APIKey
from asgi_guard.testing import LocalIssuer
from tests.asgi import Echo, Exchange, call, get, websocket_scope

if TYPE_CHECKING:
    from asgi_guard.asgi import ASGIApp
    from asgi_guard.chain.layer import Layer

Make: TypeAlias = Callable[[], dict[str, Any]]

LAYERS: list[tuple[type[Layer], Make]] = [
    (DrainMiddleware, dict),
    (HealthMiddleware, dict),
    (ProxyMiddleware, lambda: {"trusted": "203.0.113.0/24"}),
    (RequestIDMiddleware, dict),
    (AccessLogMiddleware, lambda: {"write": lambda line: None}),
    (SecurityHeadersMiddleware, dict),
    (HostMiddleware, lambda: {"allowed": "testserver"}),
    (CORSMiddleware, lambda: {"allow_origins": "https://app.example"}),
    (CSRFMiddleware, lambda: {"trusted_origins": "https://app.example"}),
    (IdentityMiddleware, lambda: {"issuers": [LocalIssuer(algorithm="EdDSA").accepted()]}),
    (RateLimitMiddleware, lambda: {"limit": "100/second by ip"}),
    (AccessMiddleware, lambda: {"default": "optional"}),
]
each_layer = pytest.mark.parametrize(("kind", "make"), LAYERS, ids=[kind.name for kind, _ in LAYERS])

ORIGIN = (b"origin", b"https://app.example")
FORWARDED = ((b"x-forwarded-for", b"198.51.100.7"), (b"x-forwarded-proto", b"https"))


def starlette(kind: Any, options: dict[str, Any]) -> Starlette:
    async def endpoint(request: Request) -> Response:
        facts = {
            "client": request.client and request.client.host,
            "scheme": request.url.scheme,
            "request_id": getattr(request.state, "request_id", None),
            "user": "user" in request.scope and request.user.is_authenticated,
        }
        return JSONResponse(facts)

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("ok")
        await websocket.close()

    app = Starlette(routes=[Route("/", endpoint), WebSocketRoute("/", socket)])
    app.add_middleware(kind, **options)
    return app


@each_layer
async def test_http(kind: type[Layer], make: Make) -> None:
    """A layer alone lets an ordinary request through to the app, once, and the response back."""
    app = Echo()
    exchange = await get(kind(app, **make()), headers=[ORIGIN])
    assert exchange.error is None
    assert (exchange.status, exchange.body) == (200, b"ok")
    assert len(app.scopes) == 1


@each_layer
async def test_websocket(kind: type[Layer], make: Make) -> None:
    """A layer alone lets an ordinary WebSocket session through."""
    app = Echo()
    exchange = await call(kind(app, **make()), websocket_scope(headers=[ORIGIN]))
    assert exchange.error is None
    assert [m["type"] for m in exchange.messages] == ["websocket.accept", "websocket.send", "websocket.close"]


@each_layer
async def test_starlette(kind: type[Layer], make: Make) -> None:
    """`add_middleware` of Starlette takes each layer, over HTTP and WebSocket."""
    app = starlette(kind, make())
    exchange = await get(app, headers=[ORIGIN])
    assert (exchange.error, exchange.status) == (None, 200)
    session = await call(app, websocket_scope(headers=[ORIGIN]))
    assert session.error is None
    assert session.messages[0]["type"] == "websocket.accept"


@each_layer
async def test_the_scope_of_others_is_left_alone(kind: type[Layer], make: Make) -> None:
    """What a layer changes, it changes in a copy: the caller's scope stays as it was."""
    scope = websocket_scope(headers=[ORIGIN, *FORWARDED], state={"kept": 1})
    before = {name: list(value) if isinstance(value, list) else value for name, value in scope.items()}
    await call(kind(Echo(), **make()), scope)
    assert scope == before
    assert scope["state"] == {"kept": 1}


async def probe(app: ASGIApp) -> Exchange:
    return await get(app, "/health/live")


async def forwarded(app: ASGIApp) -> Exchange:
    return await get(app, headers=FORWARDED)


async def cross_origin(app: ASGIApp) -> Exchange:
    return await get(app, headers=[ORIGIN])


async def foreign_host(app: ASGIApp) -> Exchange:
    return await get(app, headers=[(b"host", b"other.example")])


EFFECTS: list[tuple[type[Layer], dict[str, Any], Callable[[ASGIApp], Any], int, bytes | str]] = [
    (HealthMiddleware, {}, probe, 200, b'"live"'),
    (ProxyMiddleware, {"trusted": "203.0.113.9"}, forwarded, 200, b'"client":"198.51.100.7","scheme":"https"'),
    (RequestIDMiddleware, {"header": "x-trace"}, get, 200, "x-trace"),
    (SecurityHeadersMiddleware, {"preset": "page"}, get, 200, "content-security-policy"),
    (HostMiddleware, {"allowed": "testserver"}, foreign_host, 400, b"host_not_allowed"),
    (CORSMiddleware, {"allow_origins": "https://app.example"}, cross_origin, 200, "access-control-allow-origin"),
    (IdentityMiddleware, {"api_keys": [APIKey("ci", "0" * 64)]}, get, 200, b'"user":false'),
    (RateLimitMiddleware, {"limit": "5/hour by ip"}, get, 200, "ratelimit"),
    (AccessMiddleware, {}, get, 401, "www-authenticate"),
]


@pytest.mark.parametrize(
    ("kind", "options", "ask", "status", "effect"), EFFECTS, ids=[kind.name for kind, *_ in EFFECTS]
)
async def test_effect(
    kind: type[Layer], options: dict[str, Any], ask: Callable[[ASGIApp], Any], status: int, effect: bytes | str
) -> None:
    """A layer that Starlette stacks does what it does elsewhere."""
    exchange = await ask(starlette(kind, options))
    assert exchange.status == status
    assert effect in (exchange.body if isinstance(effect, bytes) else exchange.headers)


async def test_access_log_in_starlette() -> None:
    """The access log that Starlette stacks writes one line for each exchange."""
    lines: list[bytes] = []
    await get(starlette(AccessLogMiddleware, {"write": lines.append}))
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"store": "redis://127.0.0.1"}, "store: it is of the type str: give RedisStore\\(url\\)"),
        ({"routes": [{"path": "/"}]}, "routes: it is of the type dict: give Route"),
    ],
)
def test_what_is_given_in_the_place_of_something_else(options: dict[str, Any], says: str) -> None:
    """An address in the place of a store, or a dict in that of a row, is refused with what to write."""
    with pytest.raises(ConfigError, match=says):
        RateLimitMiddleware(Echo(), limit="1/second by ip", **options)


@pytest.mark.parametrize(
    ("made", "option"),
    [
        (lambda: AccessLogMiddleware(Echo(), quiet="[x"), "quiet"),
        (lambda: SecurityHeadersMiddleware(Echo(), reporting_endpoints="[x"), "reporting_endpoints"),
        (lambda: CORSMiddleware(Echo(), allow_origins="[x"), "allow_origins"),
        (lambda: HostMiddleware(Echo(), allowed="[x"), "allowed"),
        (lambda: ProxyMiddleware(Echo(), trusted="[x"), "trusted"),
        (lambda: Introspection("https://id.example/i", "api", "s", audience="[x"), "audience"),
        (lambda: Issuer("https://id.example", "[x"), "audience"),
    ],
)
def test_a_list_that_is_none(made: Callable[[], object], option: str) -> None:
    """What begins like a list in JSON and is none is told by the option's name, when the layer is made."""
    with pytest.raises(ConfigError) as caught:
        made()
    assert option in [problem.name for problem in caught.value.problems]


@pytest.mark.parametrize("option", ["cookie", "api_key_header"])
@pytest.mark.parametrize("name", ["", "a b", "a=b", "\N{LATIN SMALL LETTER U WITH DIAERESIS}"])
def test_a_name_under_which_nothing_can_come(option: str, name: str) -> None:
    """No cookie and no header of such a name can be sent, so credentials would never be seen: it is refused."""
    named: dict[str, Any] = {option: name}
    with pytest.raises(ConfigError, match=f"^{option}: {name!r} is no name of a ") as caught:
        IdentityMiddleware(Echo(), api_keys=[APIKey("ci", "0" * 64)], **named)
    assert [problem.name for problem in caught.value.problems] == [option]


@pytest.mark.parametrize(
    ("layer", "option", "value"),
    [
        (AccessLogMiddleware, "format", "xml"),
        (SecurityHeadersMiddleware, "preset", "strict"),
        (RequestIDMiddleware, "generator", "uuid1"),
        (ProxyMiddleware, "header", "x-real-ip"),
        (RateLimitMiddleware, "on_store_failure", "ignore"),
        (RateLimitMiddleware, "headers", "x"),
        (IdentityMiddleware, "default", "maybe"),
        (AccessMiddleware, "default", "maybe"),
    ],
)
def test_a_value_that_no_type_checker_saw(layer: Any, option: str, value: str) -> None:
    """An option with a value that it cannot have is an error at construction, with those that it can have."""
    with pytest.raises(ConfigError, match=f"^{option}: '{value}' is none of '") as caught:
        layer(Echo(), **{option: value})
    assert [problem.name for problem in caught.value.problems] == [option]
