"""Many sites in one process: a uvicorn on loopback that hands each request to the app of its host name."""

from __future__ import annotations

import socket
import threading
import time
from base64 import b64encode
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asgi_guard.asgi import ASGIApp, Message, Receive, Scope, Send

PATIENCE = 30.0
PAGE = b"<!doctype html><title>a page</title><link rel=icon href=data:,>"


@dataclass
class Exchanged:
    """What a browser sent, before any guard saw it, and what it was answered.

    Attributes:
        method: the method; `WEBSOCKET` for a handshake.
        path: the path.
        query: the query.
        headers: the headers that the browser sent.
        status: of the answer; 101 for an accepted handshake, 0 until there is one.
        answered: the headers of the answer.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str]
    status: int = 0
    answered: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Site:
    """An origin: a name with the app that answers there, and all that was sent to it."""

    origin: str
    app: ASGIApp
    seen: list[Exchanged] = field(default_factory=list)

    @property
    def websocket(self) -> str:
        return "ws" + self.origin.removeprefix("http")

    def asked(self, path: str) -> list[Exchanged]:
        """What was sent to one path, oldest first."""
        return [each for each in self.seen if each.path == path]


class Sites:
    """Sites by name, on one port of 127.0.0.1. A name without an app of its own is a page that holds nothing."""

    def __init__(self, scheme: str, port: int) -> None:
        self.scheme = scheme
        self.port = port
        self._sites: dict[str, Site] = {}

    def at(self, name: str, app: ASGIApp | None = None) -> Site:
        """The site of a name; the browser resolves `*.localhost` and `*.test` to loopback."""
        if app is not None or name not in self._sites:
            self._sites[name] = Site(f"{self.scheme}://{name}:{self.port}", app or empty_page)
        return self._sites[name]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        site = self.at(headers["host"].partition(":")[0])
        query = scope["query_string"].decode()
        exchanged = Exchanged(scope.get("method", "WEBSOCKET"), scope["path"], query, headers)
        site.seen.append(exchanged)

        async def note(message: Message) -> None:
            if message["type"].endswith(("response.start", ".accept")):
                exchanged.status = message.get("status", 101)
                lines = message.get("headers", ())
                exchanged.answered = [(name.decode().lower(), value.decode("latin-1")) for name, value in lines]
            await send(message)

        await site.app(scope, receive, note)


async def empty_page(scope: Scope, receive: Receive, send: Send) -> None:
    """A page for scripts to run in. At `/sandbox` its origin is opaque: `null`."""
    headers = [(b"content-type", b"text/html; charset=utf-8")]
    if scope["path"] == "/sandbox":
        headers.append((b"content-security-policy", b"sandbox allow-scripts"))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": PAGE})


@contextmanager
def serving(certificate: Certificate | None = None) -> Iterator[Sites]:
    """Serve sites from a thread until the context is left, over https where there is a certificate."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    sites = Sites("http" if certificate is None else "https", listening.getsockname()[1])
    files = {} if certificate is None else {"ssl_certfile": certificate.cert, "ssl_keyfile": certificate.key}
    own = {"server_header": False, "date_header": False}  # so that an answer has no header but what is noted
    options: dict[str, Any] = {"lifespan": "off", "log_level": "critical", **own, **files}
    # httptools knows a list of methods and refuses others; h11 hands on what a browser sends.
    server = uvicorn.Server(uvicorn.Config(sites, http="h11", **options))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + PATIENCE
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        assert time.monotonic() < deadline, "the server did not start in time"
        time.sleep(0.01)
    try:
        yield sites
    finally:
        # The browser has gone: its connections end by themselves, and with them everything that waits for it.
        deadline = time.monotonic() + PATIENCE
        while server.server_state.connections and time.monotonic() < deadline:
            time.sleep(0.01)
        server.should_exit = True
        thread.join(PATIENCE)
        listening.close()
        assert not thread.is_alive(), "the server did not end"


@dataclass(frozen=True)
class Certificate:
    """A certificate in files.

    Attributes:
        cert: the file of the certificate.
        key: the file of its key.
        pin: the hash of its public key, by which a browser is told to take it as it is.
    """

    cert: str
    key: str
    pin: str

    @classmethod
    def made(cls, folder: Path) -> Certificate:
        """A new one for `*.test`, signed by itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sites of a test")])
        now = datetime.now(UTC)
        names = x509.SubjectAlternativeName([x509.DNSName("*.test"), x509.DNSName("*.shop.test")])
        signed = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(names, critical=False)
            .sign(key, hashes.SHA256())
        )
        pem, der = serialization.Encoding.PEM, serialization.Encoding.DER
        (folder / "cert.pem").write_bytes(signed.public_bytes(pem))
        (folder / "key.pem").write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        public = key.public_key().public_bytes(der, serialization.PublicFormat.SubjectPublicKeyInfo)
        return cls(str(folder / "cert.pem"), str(folder / "key.pem"), b64encode(sha256(public).digest()).decode())
