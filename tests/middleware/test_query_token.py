"""A token in the address: of WebSocket handshakes only, where an operator says so, and never written down."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from asgi_guard import AuthSettings, Guard, GuardSettings
from asgi_guard.testing import ProofKey
from tests.asgi import Echo, call, http_scope, websocket_scope

if TYPE_CHECKING:
    from asgi_guard.asgi import Header
    from asgi_guard.testing import LocalIssuer

NAME = "ticket"


def guard(issuer: LocalIssuer, name: str | None = NAME, cookie: str | None = "__Host-t", **options: Any) -> Guard:
    auth = AuthSettings(
        issuer=issuer.url, audience=(issuer.audience,), unsafe_websocket_query_token=name, cookie=cookie, **options
    )
    return Guard(Echo(), GuardSettings(auth=auth), http_client=issuer.client)


async def handshake(guard: Guard, query: str, *headers: Header) -> int:
    """The status of a handshake's answer; 101 where it was accepted."""
    exchange = await call(guard, websocket_scope("/live", headers, query_string=query.encode()))
    return 101 if any(message["type"] == "websocket.accept" for message in exchange.messages) else exchange.status


@pytest.mark.parametrize("cookie", ["__Host-t", None])
async def test_a_token_is_taken_from_the_address_of_a_handshake(issuer: LocalIssuer, cookie: str | None) -> None:
    """It is verified as any other, remembered or not, wherever it stands in the query and however it is encoded."""
    front = guard(issuer, cookie=cookie)
    token = issuer.token("alice")
    for query in (f"ticket={token}", f"a=b&ticket={token}&c", f"%74icket={token.replace('.', '%2E')}"):
        assert await handshake(front, query) == 101
        assert await handshake(front, query) == 101
    assert await handshake(front, f"ticket={issuer.token('alice', aud='other')}") == 401
    assert await handshake(front, f"Ticket={token}") == 401
    assert await handshake(front, "") == 401


async def test_http_and_guards_that_are_not_told_look_at_no_query(issuer: LocalIssuer) -> None:
    """An HTTP request with the token in its address has none, and so has a handshake where no parameter is named."""
    query = f"ticket={issuer.token('alice')}"
    assert (await call(guard(issuer), http_scope("GET", "/", query_string=query.encode()))).status == 401
    assert await handshake(guard(issuer, None), query) == 401


async def test_the_query_does_not_touch_http_requests(issuer: LocalIssuer) -> None:
    """The parameter beside a header is nothing of ours in an HTTP request."""
    bearer = (b"authorization", f"Bearer {issuer.token('alice')}".encode())
    front = guard(issuer)
    for _ in range(2):
        assert (await call(front, http_scope("GET", "/", [bearer], query_string=b"ticket=x"))).status == 200


async def test_two_kinds_of_credentials_are_refused(issuer: LocalIssuer) -> None:
    """The parameter beside a header or a cookie, or twice, or malformed, is 400, though each alone would do."""
    front = guard(issuer)
    token = issuer.token("alice")
    bearer, cookie = (b"authorization", f"Bearer {token}".encode()), (b"cookie", f"__Host-t={token}".encode())
    same_site = (b"sec-fetch-site", b"same-origin")
    for _ in range(2):
        assert await handshake(front, "other=1", bearer) == 101
        assert await handshake(front, f"ticket={token}", bearer) == 400
        assert await handshake(front, f"ticket={token}", cookie, same_site) == 400
    for query in (f"ticket={token}&ticket={token}", "ticket=", "ticket", "ticket=a%20b", "ticket=%00", "x" * 16385):
        assert await handshake(front, query) == 400, query[:32]


async def test_a_bound_token_is_refused_in_the_address(issuer: LocalIssuer) -> None:
    """A token that is bound to a key is worth nothing without its proof, there as anywhere."""
    bound = issuer.token("alice", cnf=ProofKey().cnf)
    assert await handshake(guard(issuer, dpop="accept"), f"ticket={bound}") == 401


@pytest.mark.parametrize("audience", ["api", "other"])
async def test_the_token_is_not_written_down(
    issuer: LocalIssuer, audience: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Of an accepted and of a refused handshake, the log has the parameter's name, and nothing of its value."""
    token = issuer.token("alice", aud=audience)
    with caplog.at_level(logging.DEBUG):
        await handshake(guard(issuer), f"ticket={token}")
    written = capsys.readouterr().out + caplog.text
    assert "ticket=" in written
    assert not any(part in written for part in token.split("."))
