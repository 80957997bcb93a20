"""The SecurityHeaders layer: its headers on every response, and none of the app's lost."""

from __future__ import annotations

import pytest

from asgi_guard import ConfigError, IdentityMiddleware, Route, SecurityHeadersMiddleware
from asgi_guard.policy.security import SecurityPolicy
from asgi_guard.testing import LocalIssuer
from tests.asgi import Echo, call, get, websocket_scope

OF_API = SecurityPolicy.of("api")


async def test_plain() -> None:
    """Over http, a response gets the preset's lines and no Strict-Transport-Security."""
    exchange = await get(SecurityHeadersMiddleware(Echo(headers=[])))
    assert tuple(exchange.starts[0]["headers"]) == OF_API.plain
    assert "strict-transport-security" not in exchange.headers


async def test_secure() -> None:
    """Over https, Strict-Transport-Security is among them."""
    exchange = await get(SecurityHeadersMiddleware(Echo(headers=[])), scheme="https")
    assert tuple(exchange.starts[0]["headers"]) == OF_API.secure
    assert "strict-transport-security" in exchange.headers


@pytest.mark.parametrize(("scheme", "lines"), [("ws", OF_API.plain), ("wss", OF_API.secure)])
async def test_websocket(scheme: str, lines: tuple[tuple[bytes, bytes], ...]) -> None:
    """An accepted WebSocket gets them too."""
    exchange = await call(SecurityHeadersMiddleware(Echo()), websocket_scope(scheme=scheme))
    assert tuple(exchange.messages[0]["headers"]) == lines


async def test_the_apps_own_win() -> None:
    """A header that the app sets stays as it is, in any spelling, and every other line of the app's stays too."""
    own = [
        (b"Content-Security-Policy", b"default-src 'self'"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"X-FRAME-OPTIONS", b"SAMEORIGIN"),
    ]
    headers = (await get(SecurityHeadersMiddleware(Echo(headers=own)))).starts[0]["headers"]
    assert headers[:4] == own
    names = [name.lower() for name, _ in headers]
    assert names.count(b"content-security-policy") == names.count(b"x-frame-options") == 1
    assert b"x-content-type-options" in names


async def test_the_servers_name_is_taken_away() -> None:
    """What tells which software answers is taken away, and nothing else is."""
    own = [(b"Server", b"x"), (b"x-a", b"1"), (b"X-Powered-By", b"y"), (b"x-a", b"2")]
    headers = (await get(SecurityHeadersMiddleware(Echo(headers=own), preset="off"))).starts[0]["headers"]
    assert headers == [(b"x-a", b"1"), (b"x-a", b"2")]


async def test_options() -> None:
    """What is said stands in the place of the preset's value, and `off` takes a header away."""
    layer = SecurityHeadersMiddleware(
        Echo(), csp="default-src 'self'", csp_report_only="script-src 'none'", hsts="max-age=60",
        referrer_policy="off", permissions_policy="off",
    )  # fmt: skip
    headers = (await get(layer, scheme="https")).headers
    assert headers["content-security-policy"] == "default-src 'self'"
    assert headers["content-security-policy-report-only"] == "script-src 'none'"
    assert headers["strict-transport-security"] == "max-age=60"
    assert not {"referrer-policy", "permissions-policy"} & set(headers)


async def test_routes() -> None:
    """A row's preset holds for its path, and the default elsewhere."""
    routes = [Route("/docs", security="docs"), Route("/x", security="off"), Route("/y")]
    layer = SecurityHeadersMiddleware(Echo(), routes=routes)
    assert "cdn.jsdelivr.net" in (await get(layer, "/docs")).headers["content-security-policy"]
    assert "content-security-policy" not in (await get(layer, "/x")).headers
    for path in ("/y", "/z"):
        assert tuple((await get(layer, path)).starts[0]["headers"][1:]) == OF_API.plain


@pytest.mark.parametrize(("own", "expected"), [([], ["no-store"]), ([(b"Cache-Control", b"max-age=5")], ["max-age=5"])])
async def test_what_one_user_may_see_is_not_stored(
    issuer: LocalIssuer, own: list[tuple[bytes, bytes]], expected: list[str]
) -> None:
    """A response to an identified user is not to be stored, unless the app says otherwise."""
    layer = SecurityHeadersMiddleware(IdentityMiddleware(Echo(headers=own), issuers=[issuer.accepted()]))
    token = issuer.token()
    exchange = await get(layer, headers=[(b"authorization", b"Bearer " + token.encode())])
    assert [v.decode() for n, v in exchange.starts[0]["headers"] if n.lower() == b"cache-control"] == expected
    assert "cache-control" not in (await get(SecurityHeadersMiddleware(Echo()))).headers


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("csp", "default-src 'self'\r\nx: y"),
        ("csp_report_only", " "),
        ("hsts", "includeSubDomains"),
        ("referrer_policy", "é"),
        ("permissions_policy", ""),
    ],
)
def test_bad_value(option: str, value: str) -> None:
    """A value that cannot stand in its header is refused at construction, by name."""
    with pytest.raises(ConfigError) as caught:
        SecurityHeadersMiddleware(Echo(), **{option: value})  # type: ignore[arg-type]  # mypy takes the value for that of every argument
    assert [problem.name for problem in caught.value.problems] == [option]
