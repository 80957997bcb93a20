"""Who is calling: the client's address and scheme, through proxies that the operator trusts.

The order of decisions:

1. The peer (the other end of the connection) is not in the trusted networks, or none is configured: it is the client.
2. The configured header's lines are joined in order and walked from the right; entries in the trusted networks are
   skipped; the first that is not is the client.
3. If that entry is not an address, or every entry is trusted, or there is none, the client is the *peer*: a header that
   cannot be believed is not believed in part.

Exactly one header is read, `X-Forwarded-For` or `Forwarded` (RFC 7239), never both: a proxy rewrites the one it knows
and passes the other on as the client sent it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network
ForwardedHeader: TypeAlias = Literal["x-forwarded-for", "forwarded"]

UNKNOWN = "unknown"
"""The address of a client whose server names none (a UNIX socket): all of them share it, and so share limits."""

MAX_ADDRESS = 128
"""Characters of the longest text that is looked at as an address; it bounds what the caches below can hold."""

_PAIR = re.compile(
    r"[ \t]*(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+)="
    r'(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<token>[^\s,;"]+))[ \t]*(?P<separator>[,;]|\Z)',
    re.DOTALL,
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Client:
    """Who is calling.

    Attributes:
        address: the address as text, or None where the server names none.
        scheme: `http`, `https`, `ws` or `wss` as a trusted proxy says, or None where none says.
    """

    address: str | None
    scheme: str | None = None


def parse_networks(values: Iterable[str]) -> tuple[Network, ...]:
    """Parse CIDRs and single addresses.

    Raises:
        ValueError: one of them is neither; the text names it.
    """
    networks: list[Network] = []
    for value in values:
        try:
            networks.append(ip_network(value, strict=False))
        except ValueError:
            raise ValueError(f"{value!r} is not an address or a network such as 10.0.0.0/8") from None
    return tuple(networks)


def parse_address(text: str) -> Address | None:
    """Parse one forwarded address: port, brackets and zone are stripped and IPv4-mapped IPv6 becomes IPv4.

    Returns None for what is no address, and for the unspecified ones (`0.0.0.0`, `::`), which nobody calls from.
    """
    return _parse_address(text) if len(text) <= MAX_ADDRESS else None


@lru_cache(maxsize=4096)
def _parse_address(text: str) -> Address | None:
    text = text.strip(" \t")
    if text.startswith("["):
        text, bracket, port = text[1:].partition("]")
        if not bracket or (port and not _is_port(port)):
            return None
    elif text.count(":") == 1:
        text, _, port = text.partition(":")
        if not _is_port(":" + port):
            return None
    if ":" in text:
        text = text.partition("%")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return None if address.is_unspecified else address


def _is_port(text: str) -> bool:
    digits = text[1:]
    return text[0] == ":" and digits.isascii() and digits.isdigit() and len(digits) <= 5


def is_loopback(host: str) -> bool:
    """Tell whether a host of a URL is this machine: nobody on the network can stand in for it."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


@lru_cache(maxsize=4096)
def limit_key(address: str, ipv6_prefix: int) -> str:
    """The address as limits see it: IPv4 whole, IPv6 by its network, since one subscriber owns a whole /64."""
    if ":" not in address:
        return address
    parsed = parse_address(address)
    if not isinstance(parsed, IPv6Address):
        return address if parsed is None else str(parsed)
    return str(ip_network((parsed, ipv6_prefix), strict=False))


@dataclass(frozen=True, slots=True)
class ProxyPolicy:
    """Which proxies are believed, and in which header.

    Attributes:
        trusted: the networks of the proxies; none means that nobody is believed.
        header: the one header family that they write.
    """

    trusted: tuple[Network, ...] = ()
    header: ForwardedHeader = "x-forwarded-for"

    def trusts(self, address: str) -> bool:
        """Tell whether this is the address of a trusted proxy."""
        parsed = parse_address(address)
        return parsed is not None and self._trusts(parsed)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self.trusted)

    def client(self, peer: str | None, forwarded: Sequence[bytes], proto: Sequence[bytes]) -> Client:
        """Decide who is calling; the module's docstring gives the order.

        Args:
            peer: the connection's other end.
            forwarded: the lines of the configured header.
            proto: the lines of `X-Forwarded-Proto`; unused with `Forwarded`, which names the scheme itself.
        """
        if peer is None or not self.trusted or not self.trusts(peer):
            return Client(peer)
        if self.header == "forwarded":
            return self._from_forwarded(peer, forwarded)
        entries = b",".join(forwarded).decode("latin-1").split(",")
        index, address = self._first_untrusted(entries)
        scheme = None
        if len(proto) == 1:
            # One value is the nearest proxy's; a list has one a hop, in the same order as the addresses.
            schemes = proto[0].decode("latin-1").split(",")
            scheme = schemes[index] if len(schemes) == len(entries) else schemes[-1]
        return Client(address or peer, _scheme(scheme))

    def _from_forwarded(self, peer: str, lines: Sequence[bytes]) -> Client:
        elements = parse_forwarded(b",".join(lines).decode("latin-1"))
        if elements is None:
            return Client(peer)
        index, address = self._first_untrusted([element.get("for", "") for element in elements])
        return Client(address or peer, _scheme(elements[index].get("proto")) if elements else None)

    def _first_untrusted(self, entries: Sequence[str]) -> tuple[int, str | None]:
        """Walk from the right; an entry that is no address ends the walk with nobody."""
        for index in range(len(entries) - 1, -1, -1):
            address = parse_address(entries[index])
            if address is None:
                return len(entries) - 1, None
            if not self._trusts(address):
                return index, str(address)
        return len(entries) - 1, None


def _scheme(value: str | None) -> str | None:
    scheme = value.strip().lower() if value else None
    return scheme if scheme in ("http", "https", "ws", "wss") else None


def parse_forwarded(text: str) -> list[dict[str, str]] | None:
    """Parse `Forwarded` (RFC 7239 section 4): elements of `name=value` pairs, values tokens or quoted strings.

    Addresses are taken unquoted as well, as some proxies write them. Returns None if any part is malformed, for then no
    part can be believed.
    """
    elements: list[dict[str, str]] = []
    pairs: dict[str, str] = {}
    text = text.strip(" \t")
    at = 0
    while at < len(text):
        match = _PAIR.match(text, at)
        if match is None or (name := match["name"].lower()) in pairs:
            return None
        quoted = match["quoted"]
        pairs[name] = match["token"] if quoted is None else _ESCAPED.sub(r"\1", quoted)
        at = match.end()
        if match["separator"] and at == len(text):
            return None
        if match["separator"] != ";":
            elements.append(pairs)
            pairs = {}
    return elements
