"""Tokens that are bound to a client certificate: with every request, that certificate, from whoever may tell it."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from asgi_guard import AccessMiddleware, AuthSettings, Guard, GuardSettings, IdentityMiddleware, ProxySettings
from asgi_guard.errors import TokenError
from asgi_guard.identity.possession import Possession
from asgi_guard.policy.certificate import CertificateSource, thumbprint
from asgi_guard.policy.identity import User
from tests.asgi import Echo, call, get, websocket_scope
from tests.certificates import certificate
from tests.middleware.limiting import bearer
from tests.middleware.test_dpop import KEY, shown

if TYPE_CHECKING:
    from asgi_guard.asgi import Header
    from asgi_guard.testing import LocalIssuer

DER = certificate("client").public_bytes(Encoding.DER)
PEM = certificate("client").public_bytes(Encoding.PEM).decode()
OTHER = certificate("other").public_bytes(Encoding.PEM).decode()
CNF = {"x5t#S256": thumbprint(DER)}
PROXY, STRANGER = ("203.0.113.9", 1), ("198.51.100.7", 1)

HEADERS: dict[CertificateSource, bytes] = {
    "x-forwarded-client-cert": f"By=spiffe://mesh/shop;Hash={sha256(DER).hexdigest()}".encode(),
    "client-cert": b":" + b64encode(DER) + b":",
    "x-client-cert": quote(PEM).encode(),
}


def tls(*chain: str, **members: Any) -> dict[str, Any]:
    """What a server says of a connection."""
    return {"extensions": {"tls": {"server_cert": None, "client_cert_chain": list(chain), **members}}}


WRONG: list[dict[str, Any]] = [
    tls(), tls(OTHER), tls(OTHER, PEM), tls(PEM, client_cert_error="expired"), {}, {"extensions": {}},
]  # fmt: skip


def guarded(issuer: LocalIssuer, source: CertificateSource, trusted: str = "203.0.113.0/24", **auth: Any) -> Guard:
    """A guard behind a proxy that tells of certificates."""
    section = AuthSettings(issuer=issuer.url, audience=(issuer.audience,), client_cert=source, **auth)
    proxies = ProxySettings(trusted=(trusted,) if trusted else ())
    return Guard(Echo(), GuardSettings(auth=section, proxy=proxies), http_client=issuer.client)


async def status(app: Any, *headers: Header, **members: Any) -> int:
    exchange = await get(app, "/", headers, **members)
    assert exchange.error is None
    if exchange.status == 401:
        assert 'error="invalid_token"' in exchange.headers["www-authenticate"]
        assert CNF["x5t#S256"].encode() not in exchange.body
    return exchange.status


async def test_the_certificate_of_the_connection(issuer: LocalIssuer) -> None:
    """A token that is bound to a certificate is good on connections with that certificate, each time anew."""
    app, token = guarded(issuer, "tls"), bearer(issuer.token(cnf=CNF))
    for _ in range(2):  # verified, then remembered
        assert await status(app, token, **tls(PEM)) == 200
        assert await status(app, token, **tls(PEM, OTHER)) == 200
        for other in WRONG:
            assert await status(app, token, **other) == 401


async def test_a_bound_token_is_counted_once(issuer: LocalIssuer) -> None:
    """The cache counts what became of a token, however often it looked for it."""
    app, token = guarded(issuer, "tls"), bearer(issuer.token(cnf=CNF))
    (identity,) = [layer for layer in app.layers if isinstance(layer, IdentityMiddleware)]
    tokens = identity.tokens
    for _ in range(3):
        assert await status(app, token, **tls(PEM)) == 200
    assert (tokens.hits, tokens.misses) == (2, 1)


async def test_other_tokens_need_no_certificate(issuer: LocalIssuer) -> None:
    """A token that is bound to nothing is good on any connection."""
    app = guarded(issuer, "tls")
    assert [await status(app, bearer(issuer.token()), **each) for each in ({}, tls(), tls(OTHER))] == [200] * 3


@pytest.mark.parametrize("cnf", [{"x5t#S256": ""}, {"x5t#S256": None}, {"x5t": "A" * 43}, {**CNF, "jwk": {}}, {}, CNF])
async def test_what_nobody_checks_is_refused(issuer: LocalIssuer, cnf: object) -> None:
    """A binding that says no thumbprint, or that this guard was not told to check, makes a token worthless."""
    source: CertificateSource = "off" if cnf == CNF else "tls"
    for _ in range(2):
        assert await status(guarded(issuer, source), bearer(issuer.token(cnf=cnf)), **tls(PEM)) == 401


@pytest.mark.parametrize("source", HEADERS)
async def test_the_certificate_that_a_proxy_tells(issuer: LocalIssuer, source: CertificateSource) -> None:
    """Behind a trusted proxy, the certificate is the one in the header that was chosen, and in no other."""
    app, token = guarded(issuer, source), bearer(issuer.token(cnf=CNF))
    for _ in range(2):
        for name, value in HEADERS.items():
            assert await status(app, token, (name.encode(), value), client=PROXY) == (200 if name == source else 401)
        assert await status(app, token, client=PROXY) == 401
        assert await status(app, token, client=PROXY, **tls(PEM)) == 401  # which is the proxy's own


@pytest.mark.parametrize("source", HEADERS)
async def test_clients_cannot_forge_it(issuer: LocalIssuer, source: CertificateSource) -> None:
    """The header of whoever is no trusted proxy counts for nothing, whatever address it says to forward for."""
    token = bearer(issuer.token(cnf=CNF))
    forged = (source.encode(), HEADERS[source])
    beside = [(b"x-forwarded-for", b"203.0.113.9"), (b"forwarded", b"for=203.0.113.9")]
    app = guarded(issuer, source)
    assert await status(app, token, forged, client=PROXY) == 200  # now it is remembered
    for peer in (STRANGER, None, ("", 0), ("unix:", 0), ("203.0.114.9", 1)):
        for more in ([], beside, beside[:1]):
            assert await status(app, token, forged, *more, client=peer) == 401
    # Nor can a client that the proxy forwards for add a second one; that it is no proxy itself does no harm.
    assert await status(app, token, forged, (b"x-forwarded-for", b"198.51.100.7"), client=PROXY) == 200
    assert await status(app, token, forged, forged, client=PROXY) == 401
    assert await status(app, token, forged, beside[0], client=PROXY) == 200


@pytest.mark.parametrize(
    ("proxy", "peer", "expected"),
    [
        (ProxySettings(hops=1), None, 200),
        (ProxySettings(hops=1), PROXY, 401),
        (ProxySettings(hops=1), STRANGER, 401),
        (ProxySettings(hops=1), ("", 0), 401),
        (ProxySettings(hops=1, trusted=("203.0.113.0/24",)), None, 401),
        (ProxySettings(hops=1, trusted=("203.0.113.0/24",)), PROXY, 200),
        (ProxySettings(trusted=("203.0.113.0/24",)), None, 401),
    ],
)
async def test_a_proxy_by_a_socket(
    issuer: LocalIssuer, proxy: ProxySettings, peer: tuple[str, int] | None, expected: int
) -> None:
    """Whoever connects by a UNIX socket is the proxy where hops alone are counted; they make no address a proxy's."""
    section = AuthSettings(issuer=issuer.url, audience=(issuer.audience,), client_cert="x-client-cert")
    guard = Guard(Echo(), GuardSettings(auth=section, proxy=proxy), http_client=issuer.client)
    told = (b"x-client-cert", HEADERS["x-client-cert"])
    forwarded = (b"x-forwarded-for", b"198.51.100.7")
    token = bearer(issuer.token(cnf=CNF))
    assert await status(guard, token, told, client=peer) == expected
    assert await status(guard, token, told, forwarded, client=peer) == expected


@pytest.mark.parametrize("source", HEADERS)
async def test_without_proxies_nobody_is_believed(issuer: LocalIssuer, source: CertificateSource) -> None:
    """A layer that was told of no proxies believes none."""
    possession = Possession(client_cert=source)
    layer = IdentityMiddleware(AccessMiddleware(Echo()), issuers=[issuer.accepted()], possession=possession)
    token = bearer(issuer.token(cnf=CNF))
    for peer in (PROXY, None):
        assert await status(layer, token, (source.encode(), HEADERS[source]), client=peer) == 401


def test_what_a_token_needs_besides() -> None:
    """People who ask are told of each proof that a bound token needs, and of a token that none makes good."""
    key, leaf = {"jkt": "A" * 43}, CNF
    possession = Possession(dpop="require", client_cert="tls")
    assert possession.nonce() is None
    for cnf, words in ((key, ["DPoP"]), ({**key, **leaf}, ["DPoP", "certificate"])):
        needed = possession.needs(User("alice", claims={"cnf": cnf}))
        assert [word in proof for word, proof in zip(words, needed, strict=True)] == [True] * len(words)
    for user in (User("alice"), User("alice", claims={"cnf": leaf})):
        with pytest.raises(TokenError, match="is bound to no key"):
            possession.needs(user)
    (proof,) = Possession(client_cert="tls").needs(User("alice", claims={"cnf": leaf}))
    assert "certificate" in proof
    assert Possession().needs(User("alice")) == ()


async def test_a_token_in_a_cookie(issuer: LocalIssuer) -> None:
    """A bound token in a cookie needs the certificate as well."""
    app = guarded(issuer, "tls", cookie="session")
    cookie = (b"cookie", f"session={issuer.token(cnf=CNF)}".encode())
    assert await status(app, cookie, **tls(PEM)) == 200
    assert await status(app, cookie, **tls(OTHER)) == 401


async def test_handshakes(issuer: LocalIssuer) -> None:
    """A WebSocket is opened with the certificate of its connection, and with no other."""
    app, token = guarded(issuer, "tls"), bearer(issuer.token(cnf=CNF))
    for chain, accepted in ((PEM, True), (OTHER, False)):
        extensions = {"extensions": {"websocket.http.response": {}, **tls(chain)["extensions"]}}
        exchange = await call(app, websocket_scope("/", [token], **extensions))
        assert (exchange.messages[0]["type"] == "websocket.accept") is accepted


async def test_bound_to_both(issuer: LocalIssuer) -> None:
    """A token that is bound to a key and to a certificate needs both, and is no bearer token."""
    app, token = guarded(issuer, "tls", dpop="accept"), issuer.token(cnf={**CNF, **KEY.cnf})
    assert await status(app, *shown(token), **tls(PEM)) == 200
    assert await status(app, *shown(token), **tls(OTHER)) == 401
    assert await status(app, bearer(token), **tls(PEM)) == 401


async def test_a_certificate_is_no_proof(issuer: LocalIssuer) -> None:
    """Where proofs are required, or the scheme asks for one, a certificate does not stand in for it."""
    token = issuer.token(cnf=CNF)
    assert await status(guarded(issuer, "tls", dpop="require"), bearer(token), **tls(PEM)) == 401
    assert await status(guarded(issuer, "tls", dpop="accept"), *shown(token), **tls(PEM)) == 401
    assert await status(guarded(issuer, "tls", dpop="accept"), bearer(token), **tls(PEM)) == 200
