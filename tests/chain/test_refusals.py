"""The whole guard's refusals: each a problem document with the guard's headers, and a line in the log."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from asgi_guard import LogSettings, RateLimitMiddleware
from asgi_guard.policy.answer import Reason
from asgi_guard.policy.vocabulary import REASONS
from asgi_guard.testing import LocalIssuer
from tests.asgi import Echo, call, http_scope, websocket_scope
from tests.guarded import KEY, PAGE, Recorded, settings

if TYPE_CHECKING:
    from asgi_guard.asgi import Header

ORIGIN = (b"origin", PAGE.encode())


def bearer(token: str) -> Header:
    return b"authorization", f"Bearer {token}".encode()


def outage(issuer: LocalIssuer) -> list[Header]:
    issuer.outage = True
    return [bearer(issuer.token())]


REFUSALS: list[Any] = [
    # what is asked, the status, the reason, the layer, and what else stands in the headers
    ({"headers": [(b"host", b"evil.example")]}, 400, Reason.HOST_NOT_ALLOWED, "host", None),
    ({"headers": [(b"authorization", b"Bearer")]}, 400, Reason.CREDENTIALS_MALFORMED, "access", "www-authenticate"),
    ({}, 401, Reason.CREDENTIALS_MISSING, "access", "www-authenticate"),
    ({"headers": [(b"authorization", b"Bearer a.b.c")]}, 401, Reason.CREDENTIALS_INVALID, "access", "www-authenticate"),
    ({"path": "/pay/1", "headers": [(b"x-api-key", KEY)]}, 403, Reason.SCOPE_MISSING, "access", "www-authenticate"),
    ({"method": "POST", "headers": "cookie"}, 403, Reason.CROSS_SITE, "access", None),
    ({"method": "POST", "path": "/login"}, 429, Reason.RATE_LIMITED, "rate_limit", "retry-after"),
    ({"headers": outage}, 503, Reason.KEYS_UNAVAILABLE, "access", "retry-after"),
    ({"headers": "revoked"}, 401, Reason.TOKEN_REVOKED, "access", "www-authenticate"),
]


async def prepare(guard: Recorded, issuer: LocalIssuer, asked: dict[str, Any]) -> dict[str, Any]:
    """Whatever has to happen before a refusal, and the request's scope."""
    headers = asked.get("headers", [])
    if callable(headers):
        headers = headers(issuer)
    elif headers == "cookie":
        headers = [(b"cookie", f"session={issuer.token()}".encode()), (b"sec-fetch-site", b"cross-site")]
    elif headers == "revoked":
        token = issuer.token()
        identity: Any = next(layer for layer in guard.guard.layers if layer.name == "identity")
        limits: Any = next(layer for layer in guard.guard.layers if isinstance(layer, RateLimitMiddleware))
        await limits.store.revoke((await identity.tokens.verify(token.encode())).token_id, 60)
        headers = [bearer(token)]
    if asked.get("path") == "/login":
        for _ in range(2):
            await call(guard.guard, http_scope("POST", "/login"))
    guard.lines.clear()
    scope = http_scope(asked.get("method", "GET"), asked.get("path", "/"))
    if any(name == b"host" for name, _ in headers):
        scope["headers"] = []
    return {**scope, "headers": [*scope["headers"], *headers]}


@pytest.mark.parametrize(("asked", "status", "reason", "layer", "header"), REFUSALS)
async def test_refusals(
    issuer: LocalIssuer, asked: dict[str, Any], status: int, reason: Reason, layer: str, header: str | None
) -> None:
    """Every refusal is a problem document with the guard's headers, one line in the log, and nothing for the app."""
    app = Echo()
    guard = Recorded(app, issuer)
    scope = await prepare(guard, issuer, asked)
    origin = (b"origin", b"https://evil.example") if reason is Reason.CROSS_SITE else ORIGIN
    scope["headers"].append(origin)
    before = len(app.scopes)
    exchange = await call(guard.guard, scope)
    assert exchange.error is None
    assert len(app.scopes) == before
    assert exchange.status == status
    headers, body, record = exchange.headers, json.loads(exchange.body), guard.record
    assert headers["content-type"] == "application/problem+json"
    assert headers["content-length"] == str(len(exchange.body))
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers.get("access-control-allow-origin") == (None if reason is Reason.CROSS_SITE else PAGE)
    assert header is None or header in headers
    assert (body["status"], body["reason"], body["request_id"]) == (status, reason, headers["x-request-id"])
    assert (record["asgi_guard.reason"], record["asgi_guard.refused_by"]) == (reason, layer)
    assert REASONS[reason].status == status
    assert layer in REASONS[reason].layers
    assert (record["request_id"], record["http.response.status_code"]) == (headers["x-request-id"], status)
    assert ("error.type" in record, record["http.response.body.size"]) == (False, len(exchange.body))


@pytest.mark.parametrize(("slow_ms", "slow"), [(0.000001, True), (3_600_000, False)])
async def test_a_refusal_may_be_slow(issuer: LocalIssuer, slow_ms: float, slow: bool) -> None:
    """A refusal, for which a client may have waited while the guard asked others, is judged as answers are."""
    guard = Recorded(Echo(), issuer, settings(issuer, log=LogSettings(slow_ms=slow_ms)))
    await call(guard.guard, http_scope())
    record = guard.record
    assert (record["http.response.status_code"], record.get("asgi_guard.slow", False)) == (401, slow)


async def test_refused_preflight(issuer: LocalIssuer) -> None:
    """A refused preflight is a problem too, without any header that tells of the CORS configuration."""
    guard = Recorded(Echo(), issuer)
    headers = [(b"origin", b"https://evil.example"), (b"access-control-request-method", b"PUT")]
    exchange = await call(guard.guard, http_scope("OPTIONS", "/", headers))
    assert exchange.status == 403
    assert exchange.headers["content-type"] == "application/problem+json"
    assert exchange.headers["x-request-id"] == guard.record["request_id"]
    assert exchange.headers["x-content-type-options"] == "nosniff"
    assert not [name for name in exchange.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    ("headers", "status", "reason", "code"),
    [
        ([(b"host", b"evil.example")], 400, Reason.HOST_NOT_ALLOWED, 1008),
        ([(b"origin", b"https://evil.example")], 403, Reason.ORIGIN_NOT_ALLOWED, 1008),
        ([], 401, Reason.CREDENTIALS_MISSING, 1008),
        (outage, 503, Reason.KEYS_UNAVAILABLE, 1013),
    ],
)
async def test_refused_handshakes(issuer: LocalIssuer, headers: Any, status: int, reason: Reason, code: int) -> None:
    """A refused handshake is denied where the server offers it, else closed before it is accepted, and logged.

    The code tells a policy that was broken (1008) from what is over by and by (1013, try again later).
    """
    app = Echo()
    guard = Recorded(app, issuer)
    scope = websocket_scope("/ws")
    headers = headers(issuer) if callable(headers) else headers
    scope["headers"] = [*([] if headers and headers[0][0] == b"host" else scope["headers"]), *headers]
    denied = await call(guard.guard, scope)
    assert denied.status == status
    assert [message["type"] for message in denied.messages] == [
        "websocket.http.response.start", "websocket.http.response.body"
    ]  # fmt: skip
    assert denied.headers["x-request-id"] == guard.record["request_id"]
    bare: list[Any] = [{}, None]
    for extensions in bare:
        closed = await call(guard.guard, {**scope, "extensions": extensions})
        assert closed.messages == [{"type": "websocket.close", "code": code, "reason": reason}]
        assert guard.record["asgi_guard.reason"] == reason
    assert app.scopes == []
