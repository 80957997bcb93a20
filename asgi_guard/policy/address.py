"""Addresses and networks, in the forms in which headers, servers and operators write them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Network: TypeAlias = IPv4Network | IPv6Network

UNKNOWN = "unknown"
"""The address of a client whose server names none (a UNIX socket): all of them share it, and so share limits."""

LOCAL = ("127.0.0.0/8", "::1/128")
"""This machine's own networks."""
MAX_ADDRESS = 128
"""Characters of the longest text that is looked at as an address; it bounds what the caches below can hold."""

_PORT = re.compile(r"[0-9]{1,5}|_[0-9A-Za-z._-]+")
"""A port behind an address: its number, or an obfuscated one (RFC 7239 section 6)."""

_OCTETS = {str(octet): octet for octet in range(256)}
"""Written as they have to be, without leading zeros: a look-up takes a third of what `ipaddress` takes to read four."""


@dataclass(slots=True)
class Address:
    """An address that was read. Nobody changes one, since it is remembered.

    Every request of a new client has one made, looked for in networks, and written: `ipaddress` takes thrice as long.

    Attributes:
        version: 4, for IPv4 in IPv6 too, or 6.
        number: its bits.
        text: the one way in which it is written.
    """

    version: Literal[4, 6]
    number: int
    text: str


class Networks:
    """Networks, to be asked whether they hold an address: `parse_networks(["10.0.0.0/8"])`."""

    __slots__ = ("_networks", "_spans")

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._networks = tuple(networks)
        # By their masks, of which there are few however many networks there are.
        firsts: dict[tuple[int, int], set[int]] = {}
        for network in self._networks:
            firsts.setdefault((network.version, int(network.netmask)), set()).add(int(network.network_address))
        self._spans = tuple((version, mask, frozenset(first)) for (version, mask), first in firsts.items())

    def __iter__(self) -> Iterator[Network]:
        return iter(self._networks)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, address: Address) -> bool:
        for version, mask, firsts in self._spans:
            if address.number & mask in firsts and address.version == version:
                return True
        return False

    def hold(self, text: str | None) -> bool:
        """Whether an address is in one of them; what is none is in no network."""
        address = None if text is None else parse_address(text)
        return address is not None and address in self


def parse_networks(values: Iterable[str]) -> Networks:
    """Parse CIDRs and single addresses. Networks of IPv4 in IPv6 are IPv4, as the addresses are.

    Raises:
        ValueError: one of them is neither, or an address within a network, of which either may be meant; the text names
            it.
    """
    networks: list[Network] = []
    for value in values:
        try:
            interface = ip_interface(value)
        except ValueError:
            raise ValueError(f"{value!r} is not an address or a network such as 10.0.0.0/8") from None
        network: Network = interface.network
        if int(interface.ip) != int(network.network_address):
            single = value.partition("/")[0]
            raise ValueError(
                f"{value!r} is an address in a network: write {single} for the one, {network} for the other"
            )
        mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
        if mapped is not None and network.prefixlen >= 96:
            network = ip_network((mapped, network.prefixlen - 96))
        networks.append(network)
    return Networks(networks)


def parse_address(text: str) -> Address | None:
    """Parse one address that a server or a header names: port, brackets and zone are stripped.

    IPv4 in IPv6 becomes IPv4. None for what is no address, and for the unspecified ones (`0.0.0.0`, `::`), which nobody
    calls from. Addresses are remembered; see `read_address`.
    """
    return _remembered(text) if len(text) <= MAX_ADDRESS else None


def read_address(text: str) -> Address | None:
    """The same, for what is not looked at again: to remember it takes half as long as to parse it."""
    if len(text) > MAX_ADDRESS:
        return None
    text = text.strip(" \t")
    if ":" in text or text.startswith("["):
        text = _without_port(text)
    try:
        if ":" in text:
            return _of_ipv6(IPv6Address(text.partition("%")[0]))
        one, two, three, four = text.split(".")
        number = _OCTETS[one] << 24 | _OCTETS[two] << 16 | _OCTETS[three] << 8 | _OCTETS[four]
    except (ValueError, KeyError):
        return None
    return Address(4, number, text) if number else None


_remembered = lru_cache(maxsize=4096)(read_address)


def _without_port(text: str) -> str:
    """The address alone, without brackets and port; empty where these are malformed."""
    if text.startswith("["):
        text, bracket, port = text[1:].partition("]")
        return text if bracket and (not port or (port[0] == ":" and _PORT.fullmatch(port, 1))) else ""
    if text.count(":") > 1:
        return text
    text, _, port = text.partition(":")
    return text if _PORT.fullmatch(port) else ""


def _of_ipv6(address: IPv6Address) -> Address | None:
    if address.is_unspecified:
        return None
    mapped = address.ipv4_mapped
    if mapped is None:
        return Address(6, int(address), str(address))
    return None if mapped.is_unspecified else Address(4, int(mapped), str(mapped))


_LOOPBACK = parse_networks(LOCAL)


def is_loopback(host: str) -> bool:
    """Tell whether a host of a URL is this machine: nobody on the network can stand in for it. IPv6 has no brackets."""
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    # Not `is_loopback`: whether that holds of IPv4 in IPv6 depends on the version of Python.
    return any(address in network for network in _LOOPBACK)


@lru_cache(maxsize=4096)
def limit_key(address: str, ipv6_prefix: int) -> str:
    """The address as limits see it: IPv4 whole, IPv6 by its network, since one subscriber owns a whole /64."""
    if ":" not in address:
        return address
    parsed = parse_address(address)
    if parsed is None:
        return address
    return parsed.text if parsed.version == 4 else str(IPv6Network((parsed.number, ipv6_prefix), strict=False))
