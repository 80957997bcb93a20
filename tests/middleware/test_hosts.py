"""The Host layer: its own names only, and https."""

from __future__ import annotations

import pytest

from asgi_guard import ConfigError, HostMiddleware
from tests.asgi import Echo, call, http_scope, websocket_scope


def scope_of(*hosts: bytes, **members: object) -> dict[str, object]:
    return http_scope() | {"headers": [(b"host", host) for host in hosts], **members}


@pytest.mark.parametrize("host", [b"api.example.com", b"API.example.com:8443", b"api.example.com.", b"x.example.org"])
async def test_allowed(host: bytes) -> None:
    """A host that is named, or lies below a named one, reaches the app."""
    app = Echo()
    exchange = await call(HostMiddleware(app, allowed="api.example.com, *.example.org"), scope_of(host))
    assert exchange.status == 200
    assert len(app.scopes) == 1


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        [b""],
        [b"evil.example"],
        [b"example.org"],
        [b"api.example.com:99999"],
        [b"api.example.com", b"api.example.com"],
        [b"api.example.com\xff"],
        [b"api.example.com@evil.example"],
    ],
)
async def test_refused(hosts: list[bytes]) -> None:
    """Any other host, none, or several are refused, and the app is not reached."""
    app = Echo()
    exchange = await call(HostMiddleware(app, allowed=["api.example.com", "*.example.org"]), scope_of(*hosts))
    assert exchange.status == 400
    assert exchange.headers["content-type"] == "application/problem+json"
    assert b'"reason":"host_not_allowed"' in exchange.body
    assert app.scopes == []


async def test_redirect() -> None:
    """Plain http is sent to https of the same host, path and query, without the plain port."""
    layer = HostMiddleware(Echo(), allowed="api.example.com", https_redirect=True)
    scope = scope_of(b"api.example.com:8000", path="/a b\r\nx: y", query_string=b"q=1&r=%20")
    exchange = await call(layer, scope)
    assert exchange.status == 308
    assert exchange.headers == {
        "location": "https://api.example.com/a%20b%0D%0Ax:%20y?q=1&r=%20",
        "content-length": "0",
    }


async def test_secure_is_not_redirected() -> None:
    """A request over https reaches the app."""
    layer = HostMiddleware(Echo(), allowed="api.example.com", https_redirect=True)
    assert (await call(layer, scope_of(b"api.example.com", scheme="https"))).status == 200


async def test_no_redirect_elsewhere() -> None:
    """A host that is not allowed is refused rather than redirected."""
    layer = HostMiddleware(Echo(), allowed="api.example.com", https_redirect=True)
    assert (await call(layer, scope_of(b"evil.example"))).status == 400


def socket_of(host: bytes, **members: object) -> dict[str, object]:
    return websocket_scope() | {"headers": [(b"host", host)], **members}


async def test_plain_websocket() -> None:
    """A plain WebSocket, which cannot follow a redirect, is refused with a denial response."""
    layer = HostMiddleware(Echo(), allowed="api.example.com", https_redirect=True)
    exchange = await call(layer, socket_of(b"api.example.com"))
    assert exchange.status == 400
    assert exchange.messages[0]["type"] == "websocket.http.response.start"
    assert b"https_required" in exchange.body
    assert (await call(layer, socket_of(b"api.example.com", scheme="wss"))).messages[0]["type"] == "websocket.accept"


@pytest.mark.parametrize("extensions", [{}, None, {"tls": {}}])
async def test_bare_websocket(extensions: dict[str, object] | None) -> None:
    """Where the server offers no denial response, a refused handshake is closed before it is accepted."""
    app = Echo()
    exchange = await call(HostMiddleware(app, allowed="a.example"), socket_of(b"b.example", extensions=extensions))
    assert exchange.messages == [{"type": "websocket.close", "code": 1008, "reason": "host_not_allowed"}]
    assert app.scopes == []


@pytest.mark.parametrize("allowed", ["https://a.example", "a.example:80", "*", "a b", "[", '["a.example"'])
def test_bad_name(allowed: str) -> None:
    """What is no host's name is refused at construction."""
    with pytest.raises(ConfigError, match="allowed"):
        HostMiddleware(Echo(), allowed=allowed)


def test_open_redirect() -> None:
    """A redirect to whatever host a client names is refused at construction."""
    with pytest.raises(ConfigError, match="redirect"):
        HostMiddleware(Echo(), https_redirect=True)
