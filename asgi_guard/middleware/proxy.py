"""The Proxy layer: one answer to "who is calling", for limits, logs, host checks and the app alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_guard.errors import ConfigError, Problem, require_choice
from asgi_guard.layer import Layer
from asgi_guard.policy.address import Client, ForwardedHeader, ProxyPolicy, parse_networks
from asgi_guard.policy.listing import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asgi_guard.asgi import ASGIApp
    from asgi_guard.exchange import Exchange

MAX_REMEMBERED = 4096
MAX_REMEMBERED_BYTES = 256
"""How many answers are remembered, and for headers of which size: clients choose what stands there."""


class ProxyMiddleware(Layer):
    """Corrects `scope["client"]` and `scope["scheme"]` behind proxies that are trusted; believes nobody else.

    Args:
        app: the app within.
        trusted: addresses and networks (CIDR) of the proxies; none means that the connection's other end is the client.
        header: the one header that they write: `x-forwarded-for`, with `x-forwarded-proto` beside it, or `forwarded`.

    Raises:
        ConfigError: a network is malformed.
    """

    name = "proxy"

    def __init__(
        self, app: ASGIApp, *, trusted: str | Sequence[str] = (), header: ForwardedHeader = "x-forwarded-for"
    ) -> None:
        super().__init__(app)
        require_choice("header", header, ForwardedHeader)
        try:
            self.policy = ProxyPolicy(parse_networks(listed(trusted)), header)
        except ValueError as error:
            raise ConfigError([Problem("trusted", str(error))]) from None
        self._header = header.encode()
        self._known: dict[tuple[str | None, bytes | None, bytes | None], Client] = {}

    def enter(self, exchange: Exchange) -> None:
        """Find out the client, and tell the app."""
        if not self.policy.trusted:
            return
        client = self._client(exchange)
        if client.address != exchange.peer:
            exchange.client = client.address
            exchange.scope["client"] = (client.address, 0)  # as the port of a client behind a proxy is not known
        if client.scheme is not None:
            secure = client.scheme in ("https", "wss")
            plain, encrypted = ("http", "https") if exchange.kind == "http" else ("ws", "wss")
            exchange.scheme = exchange.scope["scheme"] = encrypted if secure else plain

    def _client(self, exchange: Exchange) -> Client:
        """Ask the policy, or remember: parsing addresses is the dearest part of a request, and clients come again."""
        headers, proto = exchange.headers, b"x-forwarded-proto"
        key = (exchange.peer, headers.get(self._header), headers.get(proto))
        if exchange.repeated or len(key[1] or b"") + len(key[2] or b"") > MAX_REMEMBERED_BYTES:
            return self.policy.client(exchange.peer, exchange.lines(self._header), exchange.lines(proto))
        client = self._known.get(key)
        if client is None:
            client = self.policy.client(exchange.peer, exchange.lines(self._header), exchange.lines(proto))
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            self._known[key] = client
        return client
