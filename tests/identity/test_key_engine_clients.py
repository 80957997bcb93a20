"""The client of a key fetch is the user's to choose: a CA of their own, headers, a proxy."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from asgi_guard import AccessMiddleware, IdentityMiddleware, Issuer
from asgi_guard.errors import KeysUnavailableError
from asgi_guard.identity.jwks import KeyEngine
from asgi_guard.testing import DISCOVERY, JWKS, LocalIssuer
from tests.asgi import Echo, get
from tests.site import running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RS256 = frozenset({"RS256"})


class Front(ThreadingHTTPServer):
    """A server in front of a local issuer, which remembers what it was asked for and with which headers."""

    daemon_threads = True

    def __init__(self, issuer: LocalIssuer) -> None:
        super().__init__(("127.0.0.1", 0), _Front)
        self.issuer = issuer
        self.asked: list[tuple[str, dict[str, str]]] = []


class _Front(BaseHTTPRequestHandler):
    server: Front

    def do_GET(self) -> None:
        self.server.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        path = self.path.removeprefix(self.server.issuer.url)
        status, headers, body = self.server.issuer.answer(path)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Say nothing."""


@contextmanager
def fronting(issuer: LocalIssuer, tls: ssl.SSLContext | None = None) -> Iterator[Front]:
    with Front(issuer) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        with running(server):
            yield server


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for this machine that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "asgi-guard tests")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    public, private = folder / "certificate.pem", folder / "key.pem"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return public, private


@pytest.fixture
def front(issuer: LocalIssuer, certificate: tuple[Path, Path]) -> Iterator[Front]:
    """The issuer over TLS, under a certificate that nobody knows."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate)
    with fronting(issuer, tls) as server:
        issuer.url = f"https://127.0.0.1:{server.server_address[1]}"
        yield server


async def test_a_ca_of_ones_own(front: Front, certificate: tuple[Path, Path]) -> None:
    """An issuer under one's own CA is believed by a client that was given the CA, from discovery to the request."""
    known = ssl.create_default_context(cafile=str(certificate[0]))
    accepted = Issuer(front.issuer.url, "api", client=lambda: httpx.AsyncClient(verify=known))
    layer = IdentityMiddleware(AccessMiddleware(Echo()), issuers=[accepted])
    header = (b"authorization", f"Bearer {front.issuer.token()}".encode())
    assert (await get(layer, headers=[header])).status == 200
    assert [path for path, _ in front.asked] == [DISCOVERY, JWKS]


async def test_a_ca_that_nobody_knows(front: Front) -> None:
    """Without it, the certificate is not believed, nothing is asked for, and the keys are unavailable."""
    engine = KeyEngine(front.issuer.url, algorithms=RS256)
    with pytest.raises(KeysUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        await engine.obtain(None, "RS256")
    assert front.asked == []


async def test_a_certificate_of_another_name(front: Front, certificate: tuple[Path, Path]) -> None:
    """A certificate of a known CA for another host is not believed either."""
    url = front.issuer.url = front.issuer.url.replace("127.0.0.1", "localhost")
    known = ssl.create_default_context(cafile=str(certificate[0]))
    engine = KeyEngine(url, algorithms=RS256, client=lambda: httpx.AsyncClient(verify=known))
    with pytest.raises(KeysUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        await engine.obtain(None, "RS256")
    assert front.asked == []


async def test_headers_of_ones_own(issuer: LocalIssuer) -> None:
    """A client's own headers are sent with every request of a fetch; compression is not asked for all the same."""
    with fronting(issuer) as server:
        issuer.url = f"http://127.0.0.1:{server.server_address[1]}"
        own = {"user-agent": "our-api/1", "x-tenant": "a", "accept-encoding": "gzip"}
        engine = KeyEngine(issuer.url, algorithms=RS256, client=lambda: httpx.AsyncClient(headers=own))
        assert await engine.obtain(None, "RS256") is not None
    for _, sent in server.asked:
        assert (sent["user-agent"], sent["x-tenant"], sent["accept-encoding"]) == ("our-api/1", "a", "identity")
    assert len(server.asked) == 2


async def test_the_headers_that_are_sent_otherwise(issuer: LocalIssuer) -> None:
    """The client that is used unless another is given says who it is: some issuers refuse a library's own name."""
    with fronting(issuer) as server:
        issuer.url = f"http://127.0.0.1:{server.server_address[1]}"
        await KeyEngine(issuer.url, algorithms=RS256).obtain(None, "RS256")
    assert {sent["user-agent"] for _, sent in server.asked} == {"asgi-guard"}


async def test_a_proxy(issuer: LocalIssuer) -> None:
    """A client with a proxy asks the proxy, for an issuer that is not to be reached otherwise."""
    issuer.url = "http://issuer.localhost:1"
    with fronting(issuer) as server:
        proxy = f"http://127.0.0.1:{server.server_address[1]}"
        engine = KeyEngine(issuer.url, algorithms=RS256, client=lambda: httpx.AsyncClient(proxy=proxy))
        assert await engine.obtain(None, "RS256") is not None
    assert [path for path, _ in server.asked] == [issuer.url + DISCOVERY, issuer.url + JWKS]


async def test_a_client_that_is_shared(issuer: LocalIssuer) -> None:
    """A client that was used before, or is in use, is refused with what to do; one that is in use stays open."""
    used = issuer.client()
    first, second = (KeyEngine(issuer.url, algorithms=RS256, client=lambda: used) for _ in range(2))
    assert await first.obtain(None, "RS256") is not None
    with pytest.raises(KeysUnavailableError, match="the client is closed: each call of http_client has to make a new"):
        await second.obtain(None, "RS256")
    async with issuer.client() as held:
        third = KeyEngine(issuer.url, algorithms=RS256, client=lambda: held)
        with pytest.raises(KeysUnavailableError, match=r"more than once\. each call of http_client has to make a new"):
            await third.obtain(None, "RS256")
        assert not held.is_closed


async def test_a_new_client_for_every_fetch(issuer: LocalIssuer) -> None:
    """A client is made for one fetch and closed after it, whether the fetch succeeds or fails."""
    made: list[httpx.AsyncClient] = []

    def client() -> httpx.AsyncClient:
        made.append(issuer.client())
        return made[-1]

    engine = KeyEngine(issuer.url, algorithms=RS256, client=client)
    await engine.refresh()
    issuer.outage = True
    await engine.refresh()
    assert len(made) == 2
    assert all(each.is_closed for each in made)
