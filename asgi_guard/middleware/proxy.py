"""The Proxy layer: one answer to "who is calling", for limits, logs, host checks and the app alike."""

from __future__ import annotations

import logging
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

from asgi_guard.chain.exchange import FORWARDING, RELAYING, Exchange
from asgi_guard.chain.layer import Layer
from asgi_guard.configuration.arguments import typed
from asgi_guard.configuration.variables import PREFIX
from asgi_guard.errors import ConfigError, Problem, require_choice
from asgi_guard.policy.address import Networks, parse_address, parse_networks
from asgi_guard.policy.listing import listed
from asgi_guard.policy.proxies import MAX_HOPS, Client, ForwardedHeader, ProxyPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asgi_guard.asgi import ASGIApp

logger = logging.getLogger("asgi_guard")

_RELAYING = frozenset(RELAYING)
_NAMING = frozenset((*FORWARDING, b"x-client-ip", b"cf-connecting-ip", b"true-client-ip"))
"""Headers that name a client, whichever is read."""
MAX_REMEMBERED = 16_384
MAX_REMEMBERED_BYTES = 256
"""How many answers are remembered, and for headers of which size: clients choose what stands there."""


class ProxyMiddleware(Layer):
    """Corrects `scope["client"]` and `scope["scheme"]` behind proxies that are trusted; believes nobody else.

    A neighbour that forwards requests and is not trusted may be a proxy that was forgotten, and one that is may name
    its clients by another header. Behind either all clients count as one, so the first such request is told in the log.

    Args:
        app: the app within.
        trusted: addresses and networks (CIDR) of the proxies; none means that the connection's other end is the client.
        header: the one header that they write: `x-forwarded-for`, with `x-forwarded-proto` beside it, or `forwarded`.
        hops: how many proxies stand between the client and here, each of which appends to that header: for proxies
            whose addresses nobody can name, and for UNIX sockets. Whoever connects past them chooses its address
            freely; name networks beside it where you can.
        host: whether they name the host that was asked for too (`x-forwarded-host`, or `host=`), which then takes the
            place of `Host` for all layers and the app. Only where a proxy always writes it: most pass it on as sent.

    Raises:
        ConfigError: a network is malformed, there are too many hops, or nobody is believed.
    """

    name = "proxy"

    @typed
    def __init__(
        self,
        app: ASGIApp,
        *,
        trusted: str | Sequence[str] = (),
        header: ForwardedHeader = "x-forwarded-for",
        hops: int = 0,
        host: bool = False,
    ) -> None:
        super().__init__(app)
        require_choice("header", header, ForwardedHeader)
        networks = Networks()
        problems: list[Problem] = []
        try:
            networks = parse_networks(listed(trusted))
        except ValueError as error:
            more = f"; or say how many proxies there are by {PREFIX}PROXY_HOPS" if str(error).startswith("'*'") else ""
            problems.append(Problem("trusted", f"{error}{more}"))
        else:
            if host and not networks and not hops:
                problems.append(
                    Problem("host", f"nobody is believed: say who by trusted or hops ({PREFIX}PROXY_TRUSTED or _HOPS)")
                )
        if not 0 <= hops <= MAX_HOPS:
            problems.append(Problem("hops", f"{hops} is not within 0..{MAX_HOPS} proxies"))
        if problems:
            raise ConfigError(problems)
        self.policy = ProxyPolicy(networks, header, hops, host)
        self._on = bool(networks or hops)
        self._names = (header.encode(), b"x-forwarded-proto", *((b"x-forwarded-host",) if host else ()))
        self._known: dict[tuple[str | None, bytes | None, bytes | None, bytes | None], Client] = {}
        self._warned = False

    def enter(self, exchange: Exchange) -> None:
        """Find out the client, and tell the app."""
        # Whether there is anything to look for is asked by one look-up of a set: an app without a proxy pays for it.
        if not self._on:
            if not self._warned and not _RELAYING.isdisjoint(exchange.headers):
                self._look_for_proxy(exchange)
            return
        client = self._client(exchange)
        if client.address != exchange.peer:
            exchange.client = client.address
            # The port of a client behind a proxy is not known.
            exchange.scope["client"] = exchange.seen_client = (client.address, 0)
        elif not _RELAYING.isdisjoint(exchange.headers):
            if not self._warned:
                self._look_for_proxy(exchange)
            if client.doubt is None and self._names[0] not in exchange.headers and self.policy.believes(exchange.peer):
                named = not _NAMING.isdisjoint(exchange.headers)
                client = replace(client, doubt="other_header" if named else "unnamed")
        if client.scheme is not None:
            secure = client.scheme in ("https", "wss")
            plain, encrypted = ("http", "https") if exchange.kind == "http" else ("ws", "wss")
            scheme = encrypted if secure else plain
            exchange.scheme = exchange.scope["scheme"] = exchange.seen_scheme = scheme
        if client.host is not None:
            _ask_for(exchange, client.host)
        exchange.client_doubt = client.doubt

    def _look_for_proxy(self, exchange: Exchange) -> None:
        """Warn, once, of clients that count as one, since the proxy before them is not read. Strangers may pretend."""
        headers, peer, read = exchange.headers, exchange.peer or None, self._names[0]
        sent = next(name for name in RELAYING if name in headers)
        believed = self.policy.believes(peer)
        if (believed and read in headers) or _is_forwarded(exchange, headers[sent]):
            return
        address = None if peer is None else parse_address(peer)
        if peer is not None and (address is None or ip_address(address.text).is_global):
            return
        self._warned = True
        unseen = ", and whether they came by TLS is not seen"
        if believed:
            unseen = ""
            fault = f"it is to name its clients by {read.decode()}"
            advice = f"have it do so, or say by {PREFIX}PROXY_HEADER how it does"
        else:
            fault = "it is no trusted proxy"
            advice = f"if it is one of yours, name it in {PREFIX}PROXY_TRUSTED"
            if peer is None:
                advice = f"if it is a proxy of yours, say how many there are by {PREFIX}PROXY_HOPS"
                if self.policy.trusted:
                    advice += f" in the place of {PREFIX}PROXY_TRUSTED"
        where = "a UNIX socket" if peer is None else peer
        logger.warning(
            "%s sent %s, and %s: all whose requests it forwards count as one client%s; %s", where, sent.decode(), fault,
            unseen, advice,
        )  # fmt: skip

    def _client(self, exchange: Exchange) -> Client:
        """Ask the policy, or remember: parsing addresses is the dearest part of a request, and clients come again."""
        headers = exchange.headers
        forwarded, proto = headers.get(self._names[0]), headers.get(b"x-forwarded-proto")
        host = headers.get(b"x-forwarded-host") if self.policy.host else None
        if exchange.repeated or len(forwarded or b"") + len(proto or b"") + len(host or b"") > MAX_REMEMBERED_BYTES:
            return self._decide(exchange)
        key = (exchange.peer, forwarded, proto, host)
        client = self._known.get(key)
        if client is None:
            client = self._decide(exchange)
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            self._known[key] = client
        return client

    def _decide(self, exchange: Exchange) -> Client:
        return self.policy.client(exchange.peer, *map(exchange.lines, self._names))


def _is_forwarded(exchange: Exchange, value: bytes) -> bool:
    """Whether whoever stands before this layer has put the client in the peer's place already, as servers do."""
    client = exchange.scope.get("client")
    if not client or not client[0]:
        return False
    return 0 in client[1:2] or str(client[0]).encode() in value


def _ask_for(exchange: Exchange, host: bytes) -> None:
    """Put the host that the client asked for in the place of the one that the proxy did, for all further in."""
    scope = exchange.scope
    if exchange.headers.get(b"host") != host or len(exchange.lines(b"host")) != 1:
        others = [line for line in scope["headers"] if line[0] != b"host"]
        scope["headers"] = [(b"host", host), *others]
        exchange.read_headers()
