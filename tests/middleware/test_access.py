"""The Access layer: who may, and how the others are told."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from asgi_guard import AccessMiddleware, APIKey, IdentityMiddleware, Route, User
from asgi_guard.chain.exchange import Exchange as Request
from asgi_guard.policy.access import AccessRule, Failure, Revocation
from asgi_guard.testing import LocalIssuer
from tests.asgi import Echo, Exchange, call, get, http_scope, websocket_scope

if TYPE_CHECKING:
    from asgi_guard.asgi import ASGIApp, Header
    from asgi_guard.policy.routes import AuthMode

ROUTES = [
    Route("/public", auth="none"),
    Route("/maybe", auth="optional"),
    Route("/pay", scopes=("payments:write", "payments:read")),
    Route("/report", any_scopes=("reports", "audits")),
]


def stack(issuer: LocalIssuer, app: ASGIApp, **options: Any) -> IdentityMiddleware:
    access = AccessMiddleware(app, routes=ROUTES, **options)
    return IdentityMiddleware(access, issuers=[issuer.accepted()], routes=ROUTES, cookie="session")


def bearer(token: str) -> Header:
    return b"authorization", f"Bearer {token}".encode()


@pytest.mark.parametrize(
    ("path", "scopes", "status", "challenge"),
    [
        ("/", None, 401, "Bearer"),
        ("/", "", 200, None),
        ("/public", None, 200, None),
        ("/public", "", 200, None),
        ("/maybe", None, 200, None),
        ("/public/", None, 401, "Bearer"),
        ("/pay", None, 401, "Bearer"),
        ("/pay", "payments:read", 403, 'Bearer error="insufficient_scope", scope="payments:write payments:read"'),
        ("/pay", "payments:read payments:write more", 200, None),
        ("/report", "", 403, 'Bearer error="insufficient_scope", scope="reports"'),
        ("/report", "audits", 200, None),
    ],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_rules(
    issuer: LocalIssuer, kind: str, path: str, scopes: str | None, status: int, challenge: str | None
) -> None:
    """A request reaches the app if its row's rule lets it, and is else told what is missing."""
    app = Echo()
    headers = [] if scopes is None else [bearer(issuer.token(scopes=scopes.split()))]
    scope = http_scope("GET", path, headers) if kind == "http" else websocket_scope(path, headers)
    exchange = await call(stack(issuer, app), scope)
    assert exchange.error is None
    assert len(app.scopes) == (status == 200)
    if status != 200:
        assert exchange.status == status
        assert exchange.headers["www-authenticate"] == challenge
        assert exchange.headers["content-type"] == "application/problem+json"
        assert json.loads(exchange.body)["status"] == status


@pytest.mark.parametrize("user", [None, User("bob"), User("alice", ("payments:read", "payments:write", "audits"))])
@pytest.mark.parametrize("failure", [None, *Failure])
@pytest.mark.parametrize("revocation", Revocation)
@pytest.mark.parametrize("ambient", [False, True])
def test_the_policy_decides(user: User | None, failure: Failure | None, revocation: Revocation, ambient: bool) -> None:
    """What the layer lets through without asking the policy, the policy lets through; the rest is as it says."""
    layer = AccessMiddleware(Echo(), routes=ROUTES)
    for path in ("/", "/public", "/maybe", "/pay", "/report"):
        exchange = Request(http_scope("POST", path, [(b"sec-fetch-site", b"cross-site")]))
        exchange.user, exchange.failure, exchange.revocation, exchange.ambient = user, failure, revocation, ambient
        row = next((route for route in ROUTES if route.path == path), Route(path))
        rule = AccessRule(row.auth or "required", row.scopes, row.any_scopes)
        said = layer.policy.decide(rule, user, failure, revocation=revocation, cross_site=ambient, retry_after=1.0)
        assert layer.decide(exchange) == said


@pytest.mark.parametrize("path", ["/", "/maybe"])
async def test_invalid(issuer: LocalIssuer, path: str) -> None:
    """Credentials that are wrong are refused even where none are needed, in words that tell nothing of why."""
    app = Echo()
    exchange = await get(stack(issuer, app), path, headers=[bearer(issuer.token(lifetime=-3600))])
    assert exchange.status == 401
    assert exchange.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert app.scopes == []
    assert b"expire" not in exchange.body


async def test_without_identity() -> None:
    """Without the Identity layer everyone is a stranger, and is refused where an identity is required."""
    app = Echo()
    assert (await get(AccessMiddleware(app))).status == 401
    assert (await get(AccessMiddleware(app, default="none"))).status == 200
    assert (await get(AccessMiddleware(app, default="optional"))).status == 200
    assert len(app.scopes) == 2


async def test_where_nobody_is_refused_nothing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A layer without Identity around it that lets everyone through gives no cause to warn."""
    assert (await get(AccessMiddleware(Echo(), default="optional"))).status == 200
    assert caplog.records == []


@pytest.mark.parametrize("path", ["/public/../pay", "//pay", "/pay\n"])
async def test_a_path_of_two_rows_is_refused_by_this_layer_alone(issuer: LocalIssuer, path: str) -> None:
    """A path that routers could read as that of another row is refused, though no layer of limits stands around."""
    app = Echo()
    exchange = await get(stack(issuer, app), path, headers=[bearer(issuer.token())])
    assert exchange.status == 400
    assert json.loads(exchange.body)["reason"] == "path_ambiguous"
    assert app.scopes == []


async def test_an_order_that_refuses_everyone_is_told(issuer: LocalIssuer, caplog: pytest.LogCaptureFixture) -> None:
    """That the Identity layer stands inside, where it is of no use, is told with the first refusal, and once."""
    misplaced = AccessMiddleware(IdentityMiddleware(Echo(), issuers=[issuer.accepted()]))
    for _ in range(2):
        assert (await get(misplaced, headers=[bearer(issuer.token())])).status == 401
    (record,) = caplog.records
    assert "no IdentityMiddleware stands around AccessMiddleware" in record.getMessage()
    caplog.clear()
    assert (await get(stack(issuer, Echo()))).status == 401
    assert caplog.records == []


async def test_a_user_in_the_scope_is_not_believed() -> None:
    """An identity that something else put into the scope opens nothing."""
    key = APIKey("robot", "a" * 64)
    assert (await get(AccessMiddleware(Echo()), user=key.user())).status == 401


async def test_challenge() -> None:
    """The challenge names the scheme that is configured."""
    key = APIKey("robot", sha256(b"right").hexdigest())
    layer = IdentityMiddleware(AccessMiddleware(Echo(), challenge="ApiKey"), api_keys=[key])
    assert (await get(layer)).headers["www-authenticate"] == "ApiKey"
    wrong = await get(layer, headers=[(b"x-api-key", b"wrong")])
    assert wrong.headers["www-authenticate"] == 'ApiKey error="invalid_token"'
    assert (await get(layer, headers=[(b"x-api-key", b"right")])).status == 200


async def test_bare_websocket() -> None:
    """Where the server offers no denial response, a refused handshake is closed before it is accepted."""
    exchange = await call(AccessMiddleware(Echo()), websocket_scope(extensions=None))
    assert exchange.messages == [{"type": "websocket.close", "code": 1008, "reason": "credentials_missing"}]


TRUSTED = b"https://app.example"
CROSS = [
    ("POST", [], True),
    ("POST", [(b"sec-fetch-site", b"same-origin")], True),
    ("POST", [(b"sec-fetch-site", b"cross-site")], False),
    ("POST", [(b"sec-fetch-site", b"cross-site"), (b"origin", TRUSTED)], True),
    ("POST", [(b"origin", b"https://evil.example")], False),
    ("POST", [(b"origin", b"http://testserver")], True),
    ("POST", [(b"origin", b"null")], False),
    ("post", [(b"origin", b"https://evil.example")], False),
    ("GET", [(b"origin", b"https://evil.example")], True),
]


async def send_cookie(issuer: LocalIssuer, scope: dict[str, Any]) -> Exchange:
    scope["headers"].append((b"cookie", f"session={issuer.token()}".encode()))
    return await call(stack(issuer, Echo(), trusts_origin=lambda origin: origin == TRUSTED), scope)


@pytest.mark.parametrize(("method", "headers", "allowed"), CROSS)
async def test_cross_site(issuer: LocalIssuer, method: str, headers: list[Header], allowed: bool) -> None:
    """What another site makes a browser do with its user's cookie is refused."""
    exchange = await send_cookie(issuer, http_scope(method, "/", headers))
    assert exchange.status == (200 if allowed else 403)
    assert (b"cross_site" in exchange.body) is not allowed


async def test_pages_of_plain_http(issuer: LocalIssuer) -> None:
    """Over TLS, a page of plain http does not act with a user's cookie, though its host is the server's own."""
    headers = [(b"origin", b"http://testserver")]
    assert (await send_cookie(issuer, http_scope("POST", "/", headers, scheme="https"))).status == 403
    assert (await send_cookie(issuer, websocket_scope(headers=headers, scheme="wss"))).status == 403
    assert (await send_cookie(issuer, http_scope("POST", "/", [(b"origin", b"https://testserver")]))).status == 200


async def test_cross_site_websocket(issuer: LocalIssuer) -> None:
    """A WebSocket that another site opens with a user's cookie is refused, and one of a trusted origin is not."""
    refused = await send_cookie(issuer, websocket_scope(headers=[(b"origin", b"https://evil.example")]))
    assert refused.status == 403
    accepted = await send_cookie(issuer, websocket_scope(headers=[(b"origin", TRUSTED)]))
    assert accepted.messages[0]["type"] == "websocket.accept"


async def test_nobody_is_trusted_unless_said(issuer: LocalIssuer) -> None:
    """Without trusted origins, the server's own alone may use a cookie."""
    cookie = (b"cookie", f"session={issuer.token()}".encode())
    scope = http_scope("POST", "/", [cookie, (b"origin", TRUSTED)])
    assert (await call(stack(issuer, Echo()), scope)).status == 403


@pytest.mark.parametrize(("path", "scopes"), [("/", ()), ("/pay", ("payments:write", "payments:read"))])
async def test_a_token_is_nobody_elses_to_send(issuer: LocalIssuer, path: str, scopes: tuple[str, ...]) -> None:
    """A token in the header cannot be sent by another site, so it is served wherever its page is from."""
    sent = bearer(issuer.token(scopes=scopes))
    headers = [sent, (b"sec-fetch-site", b"cross-site"), (b"origin", b"https://evil.example")]
    assert (await call(stack(issuer, Echo()), http_scope("POST", path, headers))).status == 200


@pytest.mark.parametrize(
    ("default", "stranger", "forger"), [("required", 401, 401), ("optional", 200, 401), ("none", 200, 200)]
)
async def test_a_row_that_does_not_say_takes_the_default(
    issuer: LocalIssuer, default: AuthMode, stranger: int, forger: int
) -> None:
    """A row without `auth` is as paths without a row: who may come, and whether credentials are looked at at all."""
    rows = [Route("/row", cost=2)]
    access = AccessMiddleware(Echo(), routes=rows, default=default)
    layer = IdentityMiddleware(access, issuers=[issuer.accepted()], routes=rows, default=default)
    for path in ("/row", "/other"):
        assert (await get(layer, path)).status == stranger
        assert (await get(layer, path, headers=[bearer("x.y.z")])).status == forger
