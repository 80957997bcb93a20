"""An issuer of opaque tokens that can be asked about them, served on a real socket, with switches."""

from __future__ import annotations

import json
import threading
import time
from base64 import b64decode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, unquote_plus

if TYPE_CHECKING:
    from types import TracebackType

CLIENT = ("my api", "s3cr3t:/+ü")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are what these tests are about."""


class OpaqueIssuer:
    """An issuer of opaque tokens.

    Attributes:
        tokens: what it says of each token it knows.
        outage: whether it answers everything with 503.
        slow: seconds that it takes to answer.
        raw: a body that it answers instead, and
        encoding: how it says that this is encoded.
        asked: how often it was asked about each token.
    """

    def __init__(self) -> None:
        self.tokens: dict[str, dict[str, Any]] = {}
        self.outage = False
        self.slow = 0.0
        self.raw: bytes | None = None
        self.encoding: str | None = None
        self.asked: dict[str, int] = {}
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
                status, body = issuer.answer(form["token"][0], self.headers["authorization"])
                self.send_response(status)
                self.send_header("location", "/elsewhere")
                if issuer.encoding is not None:
                    self.send_header("content-encoding", issuer.encoding)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
                """Say nothing."""

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.url = f"{self.origin}/introspect"
        self.status = 200

    def token(self, name: str = "opaque-token", **members: Any) -> str:
        """Issue a token."""
        self.tokens[name] = {"active": True, "sub": "alice", "aud": "api", "exp": time.time() + 300, **members}
        return name

    def answer(self, token: str, authorization: str | None) -> tuple[int, bytes]:
        self.asked[token] = self.asked.get(token, 0) + 1
        time.sleep(self.slow)
        user, _, password = b64decode((authorization or "").removeprefix("Basic ")).decode("ascii").partition(":")
        if (unquote_plus(user), unquote_plus(password)) != CLIENT:
            return 401, b"{}"
        if self.outage:
            return 503, b"{}"
        if self.raw is not None:
            return self.status, self.raw
        return self.status, json.dumps(self.tokens.get(token, {"active": False})).encode()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
