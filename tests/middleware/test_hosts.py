"""The Host layer: its own names only, and https."""

from __future__ import annotations

import pytest

from asgi_guard import ConfigError, HostMiddleware
from asgi_guard.middleware import hosts
from tests.asgi import Echo, call, http_scope, websocket_scope


def scope_of(*names: bytes, **members: object) -> dict[str, object]:
    return http_scope() | {"headers": [(b"host", name) for name in names], **members}


@pytest.mark.parametrize("host", [b"api.example.com", b"API.example.com:8443", b"api.example.com.", b"x.example.org"])
async def test_allowed(host: bytes) -> None:
    """A host that is named, or lies below a named one, reaches the app."""
    app = Echo()
    exchange = await call(HostMiddleware(app, allowed="api.example.com, *.example.org"), scope_of(host))
    assert exchange.status == 200
    assert len(app.scopes) == 1


@pytest.mark.parametrize(
    "names",
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
async def test_refused(names: list[bytes]) -> None:
    """Any other host, none, or several are refused, and the app is not reached."""
    app = Echo()
    exchange = await call(HostMiddleware(app, allowed=["api.example.com", "*.example.org"]), scope_of(*names))
    assert exchange.status == 400
    assert exchange.headers["content-type"] == "application/problem+json"
    assert b'"reason":"host_not_allowed"' in exchange.body
    assert app.scopes == []


async def test_redirect() -> None:
    """Plain http is sent to https of the same host, path and query, without the plain port."""
    layer = HostMiddleware(Echo(), allowed="api.example.com", https_redirect=True)
    scope = scope_of(b"api.example.com:8000", path="/a b\r\nx: y", raw_path=None, query_string=b"q=1&r=%20")
    exchange = await call(layer, scope)
    assert exchange.status == 308
    assert exchange.headers == {
        "location": "https://api.example.com/a%20b%0D%0Ax:%20y?q=1&r=%20",
        "cache-control": "no-store",  # else a cache whose keys have no scheme would answer https with it, too
        "content-length": "0",
    }


async def test_redirect_below_a_root_path() -> None:
    """A root path that a proxy has taken away stands in the redirect, and not twice where it was left."""
    layer = HostMiddleware(Echo(), allowed="api.example.com", https_redirect=True)
    for path in ("/items", "/api/items"):
        scope = scope_of(b"api.example.com", path=path, raw_path=path.encode(), root_path="/api")
        assert (await call(layer, scope)).headers["location"] == "https://api.example.com/api/items"


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


@pytest.mark.parametrize(
    ("members", "status"),
    [
        ({"path": "/healthz"}, 200),
        ({"path": "/mounted/healthz", "root_path": "/mounted"}, 200),
        ({"path": "/healthz", "root_path": "/mounted"}, 200),
        ({"path": "/healthz/x"}, 400),
        ({"path": "/", "raw_path": b"/healthz"}, 400),
        ({"path": "/items", "headers": [(b"host", b"x/healthz")]}, 400),
    ],
)
async def test_exempt(members: dict[str, object], status: int) -> None:
    """A probe's path is served whatever the host, and told by the scope's path: a host cannot pretend to one."""
    layer = HostMiddleware(Echo(), allowed="api.example.com", https_redirect=True, exempt="/healthz")
    assert (await call(layer, scope_of(b"10.0.0.7:8000", **members))).status == status
    assert (await call(layer, scope_of(b"10.0.0.7:8000"))).status == 400


async def test_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts that passed are remembered within bounds, for their scheme, and refused ones stay refused."""
    monkeypatch.setattr(hosts, "MAX_REMEMBERED", 3)
    layer = HostMiddleware(Echo(), allowed="*.example.org", https_redirect=True, exempt="/healthz")
    for number in [*range(8), *range(8)]:
        name = b"h%d.example.org" % number
        assert (await call(layer, scope_of(name, scheme="https"))).status == 200
        assert (await call(layer, scope_of(name))).status == 308
        assert (await call(layer, scope_of(b"evil.example", path="/healthz", scheme="https"))).status == 200
        assert (await call(layer, scope_of(b"evil.example", scheme="https"))).status == 400
        assert (await call(layer, scope_of(name, name, scheme="https"))).status == 400


@pytest.mark.parametrize("exempt", ["healthz", '["/healthz"'])
def test_bad_exemption(exempt: str) -> None:
    """What is no path is refused at construction, by name."""
    with pytest.raises(ConfigError, match="exempt"):
        HostMiddleware(Echo(), allowed="a.example", exempt=exempt)


async def test_the_body_goes_along() -> None:
    """A redirect keeps the method, unsafe ones too: 308, and never 301, after which browsers GET."""
    layer = HostMiddleware(Echo(), allowed="api.example.com", https_redirect=True)
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
        assert (await call(layer, scope_of(b"api.example.com", method=method))).status == 308
