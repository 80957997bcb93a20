"""Raw ASGI, without a client in between: clients normalise away the very bytes that matter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asgi_guard.asgi import ASGIApp, Header, Message, Receive, Scope, Send


@dataclass
class Exchange:
    """What an app sent, and what came of it."""

    messages: list[Message] = field(default_factory=list)
    error: BaseException | None = None

    @property
    def starts(self) -> list[Message]:
        return [m for m in self.messages if m["type"] in ("http.response.start", "websocket.http.response.start")]

    @property
    def status(self) -> int:
        (start,) = self.starts
        return int(start["status"])

    @property
    def headers(self) -> dict[str, str]:
        """The response's headers; repeated ones joined with a comma."""
        joined: dict[str, str] = {}
        for name, value in self.starts[0]["headers"]:
            key, text = name.decode().lower(), value.decode("latin-1")
            joined[key] = f"{joined[key]}, {text}" if key in joined else text
        return joined

    @property
    def body(self) -> bytes:
        return b"".join(m.get("body", b"") for m in self.messages if m["type"].endswith("response.body"))


def http_scope(method: str = "GET", path: str = "/", headers: Iterable[Header] = (), **members: Any) -> dict[str, Any]:
    """An HTTP scope as servers make it; `members` replaces or adds."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "surrogatepass"),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"testserver"), *headers],
        "client": ("203.0.113.9", 50000),
        "server": ("127.0.0.1", 8000),
        **members,
    }


def websocket_scope(path: str = "/", headers: Iterable[Header] = (), **members: Any) -> dict[str, Any]:
    """A WebSocket scope; by default the server offers denial responses."""
    scope = http_scope("GET", path, headers, type="websocket", scheme="ws", subprotocols=[])
    del scope["method"]
    return {**scope, "extensions": {"websocket.http.response": {}}, **members}


async def call(app: ASGIApp, scope: Scope, *received: Message) -> Exchange:
    """Call an app once; what it raises is kept in the exchange's `error`."""
    exchange = Exchange()
    incoming = list(received)
    if not incoming:
        incoming = [{"type": "http.request", "body": b"", "more_body": False}]
        if scope["type"] == "websocket":
            incoming = [{"type": "websocket.connect"}]

    async def receive() -> Message:
        if incoming:
            return incoming.pop(0)
        kind = "websocket.disconnect" if scope["type"] == "websocket" else "http.disconnect"
        return {"type": kind}

    async def send(message: Message) -> None:
        exchange.messages.append(message)

    try:
        await app(scope, receive, send)
    except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
        exchange.error = error
    return exchange


async def get(app: ASGIApp, path: str = "/", headers: Iterable[Header] = (), **members: Any) -> Exchange:
    """GET a path."""
    return await call(app, http_scope("GET", path, headers, **members))


class Echo:
    """An app that says ok and remembers the scopes it was called with."""

    def __init__(self, status: int = 200, headers: Iterable[Header] = ((b"content-type", b"text/plain"),)) -> None:
        self.scopes: list[Scope] = []
        self._status = status
        self._headers = list(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": "ok"})
            await send({"type": "websocket.close", "code": 1000})
            return
        await send({"type": "http.response.start", "status": self._status, "headers": self._headers})
        await send({"type": "http.response.body", "body": b"ok"})
