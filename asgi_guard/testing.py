"""A local OIDC issuer, for your tests and for development: discovery, a JWK set, signed tokens, and faults at will.

    issuer = LocalIssuer()                                   # in this process: no socket
    app = IdentityMiddleware(app, issuers=[issuer.accepted()])
    headers = {"authorization": f"Bearer {issuer.token('alice', scopes=['items:read'])}"}

    with LocalIssuer().serve() as issuer: ...                # or as a server, at issuer.url

    client = ProofKey()                                      # a token that is bound to a key, and its proofs (DPoP)
    token = issuer.token("alice", cnf=client.cnf)
    headers = client.headers(token, "GET", "http://testserver/items")

It is never to be used in production: whoever has its key is everyone.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from base64 import urlsafe_b64encode
from contextlib import contextmanager, suppress
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias
from uuid import uuid4

import httpx
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from asgi_guard.errors import require_choice
from asgi_guard.identity.issuer import Issuer
from asgi_guard.policy.dpop import BINDING, thumbprint
from asgi_guard.policy.keyring import KeyTimes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

Algorithm: TypeAlias = Literal["RS256", "ES256", "EdDSA"]
PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

DISCOVERY = "/.well-known/openid-configuration"
JWKS = "/jwks.json"
_CLAIMS = {"audience": "aud", "issuer": "iss"}
"""Claims by the words for them, which are none of their names."""


class SigningKey:
    """A private key with its id and algorithm.

    Args:
        algorithm: what it signs with.
        private: the key; a new one unless given.

    Attributes:
        kid: the id that tokens and the JWK set carry: a hash of the public key.
    """

    def __init__(self, algorithm: Algorithm = "RS256", private: PrivateKey | None = None) -> None:
        self.algorithm = algorithm
        self.private = private if private is not None else _generate(algorithm)
        public = self.private.public_key()
        encoded = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.kid = sha256(encoded).hexdigest()[:16]
        # PyJWT writes JWKs by algorithm object, each typed for its own kind of key.
        algorithm_object: Any = jwt.get_algorithm_by_name(algorithm)
        jwk: dict[str, Any] = algorithm_object.to_jwk(public, as_dict=True)
        self.jwk = {**jwk, "kid": self.kid, "alg": algorithm, "use": "sig"}


def _generate(algorithm: Algorithm) -> PrivateKey:
    require_choice("algorithm", algorithm, Algorithm)
    if algorithm == "RS256":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    return ed25519.Ed25519PrivateKey.generate()


class ProofKey(SigningKey):
    """A client's own key, of which it sends a proof with every request (DPoP, RFC 9449).

    Args:
        algorithm: what it signs with.
        private: the key; a new one unless given.

    Attributes:
        cnf: the claim that binds a token to this key.
    """

    def __init__(self, algorithm: Algorithm = "ES256", private: PrivateKey | None = None) -> None:
        super().__init__(algorithm, private)
        self.jwk = {name: value for name, value in self.jwk.items() if name not in ("kid", "alg", "use", "key_ops")}
        self.cnf = {BINDING: thumbprint(self.jwk)}

    def proof(self, token: str, method: str, url: str, *, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """Sign a proof for one request.

        Args:
            token: the access token that is sent along.
            method: the request's method.
            url: its URL.
            headers: header members to add or replace.
            claims: claims to add or replace; None leaves one out. A server's nonce is one: `nonce`.
        """
        ath = urlsafe_b64encode(sha256(token.encode()).digest()).rstrip(b"=").decode()
        payload = {"jti": uuid4().hex, "htm": method, "htu": url, "iat": int(time.time()), "ath": ath, **claims}
        payload = {name: value for name, value in payload.items() if value is not None}
        members = {"typ": "dpop+jwt", "jwk": self.jwk, **(headers or {})}
        return jwt.encode(payload, self.private, self.algorithm, headers=members)

    def headers(self, token: str, method: str, url: str, **claims: Any) -> dict[str, str]:
        """The headers of a request: the token and its proof. The arguments are those of `proof`."""
        return {"authorization": f"DPoP {token}", "dpop": self.proof(token, method, url, **claims)}


class LocalIssuer:
    """An OIDC issuer with switches.

    Args:
        url: its identifier, `iss`; `serve` replaces it by the address it serves at.
        audience: the `aud` of its tokens.
        algorithm: what it signs with: `RS256`, `ES256` or `EdDSA`.
        key: its first signing key; a new one unless given.

    Attributes:
        outage: whether it answers everything with 503.
        slow: seconds that it takes to answer.
        cache_control: the `Cache-Control` of its JWK set; none if empty.
        fetches: how often each path was asked for.
        unchanged: how often it answered 304, that the JWK set is still the one whose entity tag was sent.
        published: the keys in its JWK set; the last one signs.

    Raises:
        ConfigError: there is no such algorithm.
    """

    def __init__(
        self,
        url: str = "https://issuer.test",
        *,
        audience: str = "api",
        algorithm: Algorithm = "RS256",
        key: SigningKey | None = None,
    ) -> None:
        self.url = url
        self.audience = audience
        self.published = [key if key is not None else SigningKey(algorithm)]
        self.outage = False
        self.slow = 0.0
        self.cache_control = ""
        self.fetches: dict[str, int] = {}
        self.unchanged = 0

    @classmethod
    def load(cls, path: Path, **options: Any) -> Self:
        """The issuer whose RS256 key is in a PEM file. Where there is none, one is made, readable by its owner only."""
        try:
            private = serialization.load_pem_private_key(path.read_bytes(), None)
        except FileNotFoundError:
            key = SigningKey("RS256")
            path.parent.mkdir(parents=True, exist_ok=True)
            encoded = key.private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(encoded)
        else:
            if not isinstance(private, rsa.RSAPrivateKey):
                raise ValueError(f"{path} does not hold an RSA key")  # noqa: TRY004 - bad data
            key = SigningKey("RS256", private)
        return cls(key=key, **options)

    def rotate(self, algorithm: Algorithm | None = None, *, keep: bool = False) -> SigningKey:
        """Sign with a new key from now on.

        Args:
            algorithm: the new key's; that of the old one unless said.
            keep: whether the older keys stay in the JWK set, as in an orderly rotation, or are gone at once.
        """
        key = SigningKey(algorithm or self.published[-1].algorithm)
        self.published = [*self.published, key] if keep else [key]
        return key

    def token(
        self,
        subject: str = "alice",
        *,
        scopes: str | Sequence[str] = (),
        lifetime: float = 300,
        headers: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """Sign a token.

        Args:
            subject: its `sub`.
            scopes: its `scope`, as one text or several.
            lifetime: seconds until its `exp`. 0, or a negative number, makes a token that is refused as one that has
                ended: its `exp` lies back by the leeway that issuers have unless told otherwise (30 s), too. For one
                that ends within the leeway say `exp`.
            headers: header members to add or replace; None leaves one out.
            claims: claims to add or replace, by their own names (`aud`, `iss`); None leaves one out.

        Raises:
            TypeError: a claim is called `audience` or `issuer`, where `aud` or `iss` is meant.
        """
        for word, claim in _CLAIMS.items():
            if word in claims:
                raise TypeError(f"the {word} of a token is its claim {claim}: say {claim}=")
        now = int(time.time())
        leeway = 0 if lifetime > 0 else int(Issuer.leeway)
        payload = {
            "iss": self.url,
            "sub": subject,
            "aud": self.audience,
            "iat": now,
            "exp": now + int(lifetime) - leeway,
            "jti": uuid4().hex,
            "scope": scopes if isinstance(scopes, str) else " ".join(scopes),
            **claims,
        }
        payload = {name: value for name, value in payload.items() if value is not None}
        key = self.published[-1]
        members = {"kid": key.kid, **(headers or {})}
        members = {name: value for name, value in members.items() if value is not None}
        return jwt.encode(payload, key.private, key.algorithm, headers=members)

    def respond(self, path: str) -> tuple[int, dict[str, Any]]:
        """What it answers to a GET: a status and a document."""
        self.fetches[path] = self.fetches.get(path, 0) + 1
        if self.outage:
            return 503, {"error": "outage"}
        if path == self._path + DISCOVERY:
            return 200, {"issuer": self.url, "jwks_uri": self.url.rstrip("/") + JWKS}
        if path == self._path + JWKS:
            return 200, {"keys": [key.jwk for key in self.published]}
        return 404, {"error": "not found"}

    @property
    def _path(self) -> str:
        """Where its documents are: below the path that its URL has (OpenID Connect Discovery 1.0 section 4)."""
        return httpx.URL(self.url).path.rstrip("/")

    def answer(self, path: str, if_none_match: str | None = None) -> tuple[int, dict[str, str], bytes]:
        """What it answers to a GET, as it goes over the wire: a status, headers and a body.

        Args:
            path: what is asked for.
            if_none_match: the entity tag of what the client has.
        """
        status, document = self.respond(path)
        body = json.dumps(document).encode()
        headers = {"content-type": "application/json"}
        if status == 200 and path == self._path + JWKS:
            headers["etag"] = f'"{sha256(body).hexdigest()[:16]}"'
            if self.cache_control:
                headers["cache-control"] = self.cache_control
            if if_none_match == headers["etag"]:
                self.unchanged += 1
                status, body = 304, b""
        if status != 304:
            headers["content-length"] = str(len(body))
        return status, headers, body

    def client(self) -> httpx.AsyncClient:
        """An HTTP client that reaches this issuer without a socket."""
        return httpx.AsyncClient(transport=_InProcess(self))

    def accepted(self, *, times: KeyTimes | None = None, **options: Any) -> Issuer:
        """This issuer as `IdentityMiddleware` takes it, reached without a socket.

        Args:
            times: how its keys age.
            options: further arguments of `Issuer`.
        """
        return Issuer(self.url, self.audience, client=self.client, times=times or KeyTimes(), **options)

    @contextmanager
    def serve(self, host: str = "127.0.0.1", port: int = 0) -> Iterator[Self]:
        """Serve over HTTP from a thread, at `url`, until the context is left. Port 0 takes a free one."""
        server = ThreadingHTTPServer((host, port), _handler(self))
        server.daemon_threads = True
        self.url = f"http://{host}:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _InProcess(httpx.AsyncBaseTransport):
    def __init__(self, issuer: LocalIssuer) -> None:
        self._issuer = issuer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._issuer.slow:
            await asyncio.sleep(self._issuer.slow)
        status, headers, body = self._issuer.answer(request.url.path, request.headers.get("if-none-match"))
        return httpx.Response(status, headers=headers, content=body)


def _handler(issuer: LocalIssuer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if issuer.slow:
                time.sleep(issuer.slow)
            status, headers, body = issuer.answer(self.path, self.headers.get("if-none-match"))
            with suppress(ConnectionError):  # a client that did not wait so long is what `slow` is for
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            """Say nothing: what is of interest is counted in `fetches`."""

    return Handler
