"""The Proxy layer: one answer to "who is calling", for limits, logs, host checks and the app alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_guard.errors import ConfigError, Problem
from asgi_guard.layer import Layer
from asgi_guard.policy.address import ForwardedHeader, ProxyPolicy, parse_networks
from asgi_guard.policy.listing import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asgi_guard.asgi import ASGIApp
    from asgi_guard.exchange import Exchange


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
        try:
            self.policy = ProxyPolicy(parse_networks(listed(trusted)), header)
        except ValueError as error:
            raise ConfigError([Problem("trusted", str(error))]) from None
        self._header = header.encode()

    def enter(self, exchange: Exchange) -> None:
        """Find out the client, and tell the app."""
        policy = self.policy
        if not policy.trusted:
            return
        client = policy.client(exchange.peer, exchange.lines(self._header), exchange.lines(b"x-forwarded-proto"))
        if client.address != exchange.peer:
            exchange.client = client.address
            exchange.scope["client"] = (client.address, 0)  # as the port of a client behind a proxy is not known
        if client.scheme is not None:
            secure = client.scheme in ("https", "wss")
            plain, encrypted = ("http", "https") if exchange.kind == "http" else ("ws", "wss")
            exchange.scheme = exchange.scope["scheme"] = encrypted if secure else plain
