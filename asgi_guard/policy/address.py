"""Addresses and networks, in the forms in which headers, servers and operators write them."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

Address: TypeAlias = IPv4Address | IPv6Address
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


def parse_networks(values: Iterable[str]) -> tuple[Network, ...]:
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
        if not bracket or (port and not (port[0] == ":" and _PORT.fullmatch(port, 1))):
            return None
    elif text.count(":") == 1:
        text, _, port = text.partition(":")
        if not _PORT.fullmatch(port):
            return None
    try:
        if ":" not in text:
            one, two, three, four = text.split(".")
            number = _OCTETS[one] << 24 | _OCTETS[two] << 16 | _OCTETS[three] << 8 | _OCTETS[four]
            return IPv4Address(number) if number else None
        address = IPv6Address(text.partition("%")[0])
    except (ValueError, KeyError):
        return None
    found = address.ipv4_mapped or address
    return None if found.is_unspecified else found


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


@lru_cache(maxsize=4096)
def within(address: str | None, networks: tuple[Network, ...]) -> bool:
    """Tell whether an address is in one of the networks; what is none is in no network."""
    parsed = None if address is None else parse_address(address)
    return parsed is not None and any(parsed in network for network in networks)
