"""Who is calling, whatever the headers say."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.policy.address import (
    MAX_ADDRESS,
    Address,
    Networks,
    is_loopback,
    limit_key,
    parse_address,
    parse_networks,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        (" \t192.0.2.1 ", "192.0.2.1"),
        ("192.0.2.1:8080", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]:443", "fe80::1"),
        ("192.0.2.1:_a-port.1", "192.0.2.1"),
        ("[2001:db8::1]:_port", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:c000:201]:80", "192.0.2.1"),
        ("::1", "::1"),
    ],
)
def test_parse_address(text: str, address: str) -> None:
    """Port, brackets and zone are stripped, and IPv4 in IPv6 is IPv4."""
    parsed = parse_address(text)
    assert parsed is not None
    assert (parsed.text, parsed.number) == (address, int(ip_address(address)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "unknown",
        "_hidden",
        "_SEVKISEK:8080",
        "0.0.0.0",  # noqa: S104 - an address that a header claims, not one that is bound
        "0.0.0.0:80",
        "::",
        "[::]:80",
        "::ffff:0.0.0.0",
        "192.0.2.256",
        "192.0.2",
        "192.0.2.01",
        "0xc0.0.2.1",
        "3221225985",
        "192.0.2.1:",
        "192.0.2.1:http",
        "192.0.2.1:_",
        "192.0.2.1:_a b",
        "192.0.2.1:123456",
        "192.0.2.1:-1",
        "192.0.2.1:\N{SUPERSCRIPT TWO}",
        "192.0.2.1%eth0",
        "192.0.2.1/32",
        "\N{NO-BREAK SPACE}192.0.2.1",
        "[2001:db8::1",
        "2001:db8::1]",
        "[2001:db8::1]443",
        "[2001:db8::1]:",
        "[2001:db8::1]:443x",
        "[2001:db8::1]:123456",
        "[]",
        "2001:db8::1::2",
        "'192.0.2.1'",
        "192.0.2.1 10.0.0.2",
        "192.0.2.1\0",
        "fe80::1%" + "x" * MAX_ADDRESS,
    ],
)
def test_what_is_no_address(text: str) -> None:
    """Whatever is no address, or one that nobody calls from, is None."""
    assert parse_address(text) is None


@pytest.mark.parametrize(
    ("address", "prefix", "key"),
    [
        ("192.0.2.1", 64, "192.0.2.1"),
        ("unknown", 64, "unknown"),
        ("2001:db8:0:1:a:b:c:d", 64, "2001:db8:0:1::/64"),
        ("2001:db8:0:1:ffff::", 64, "2001:db8:0:1::/64"),
        ("2001:db8:0:2::", 64, "2001:db8:0:2::/64"),
        ("2001:db8:0:1ff::1", 56, "2001:db8:0:100::/56"),
        ("2001:db8::1", 128, "2001:db8::1/128"),
        ("fe80::1%eth0", 64, "fe80::/64"),
        ("::ffff:192.0.2.1", 64, "192.0.2.1"),
        ("::", 64, "::"),
        ("unix:/run/app.sock", 64, "unix:/run/app.sock"),
    ],
)
def test_limit_key(address: str, prefix: int, key: str) -> None:
    """Limits see IPv4 whole, IPv6 by its network, and what is neither as it is."""
    assert limit_key(address, prefix) == key


@pytest.mark.parametrize("text", ["10.0.0.0/33", "proxy.example.com", "", "10.0.0.0/8 ", "*"])
def test_a_malformed_network_is_named(text: str) -> None:
    """What is neither an address nor a network is an error that quotes it."""
    with pytest.raises(ValueError, match="is not an address or a network") as caught:
        parse_networks(["10.0.0.0/8", text])
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("10.1.2.3/8", "10.1.2.3 for the one, 10.0.0.0/8 for the other"),
        ("2001:db8::1/64", "2001:db8::1 for the one, 2001:db8::/64 for the other"),
        # How this is written depends on Python's version.
        ("::ffff:10.0.0.1/104", f"::ffff:10.0.0.1 for the one, {IPv6Address('::ffff:10.0.0.0')}/104 for the other"),
    ],
)
def test_an_address_in_a_network(text: str, advice: str) -> None:
    """Bits beyond the prefix are an error: whoever wrote them meant one address, or did not look."""
    with pytest.raises(ValueError, match=re.escape(f"write {advice}")):
        parse_networks([text])


def test_networks() -> None:
    """A single address is a network of one, and IPv4 in IPv6 is IPv4."""
    written = ["10.0.0.0/8", "10.1.2.3/32", "192.0.2.1", "::1", "::ffff:10.0.0.0/104", "::ffff:192.0.2.1"]
    read = ["10.0.0.0/8", "10.1.2.3/32", "192.0.2.1/32", "::1/128", "10.0.0.0/8", "192.0.2.1/32"]
    assert [str(network) for network in parse_networks([*written, "::ffff:0:0/96", "::/0"])] == [
        *read, "0.0.0.0/0", "::/0",
    ]  # fmt: skip


def test_a_link_local_network() -> None:
    """An address with a zone is a network of one, too."""
    (network,) = parse_networks(["fe80::1%eth0"])
    assert network.prefixlen == 128


@pytest.mark.parametrize(
    ("host", "is_this_machine"),
    [
        ("localhost", True), ("app.localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True),
        ("localhost.example", False), ("notlocalhost", False), ("127.999.1.1", False), ("127.0.0.01", False),
        ("127.1", False), ("128.0.0.1", False), ("::2", False), ("::ffff:127.0.0.1", False), ("", False),
    ],
)  # fmt: skip
def test_which_hosts_are_this_machine(host: str, is_this_machine: bool) -> None:
    """A host is this machine by the name localhost, or by an address of its networks, under any version of Python."""
    assert is_loopback(host) is is_this_machine


octets = st.integers(0, 300).map(str) | st.text("0123456789 +-_xa\u0661", max_size=4)


@given(text=st.lists(octets, min_size=3, max_size=5).map(".".join) | st.ip_addresses().map(str))
@example(text="1.2.3.4")
@example(text="255.255.255.255")
@example(text="1.2.3.04")
@example(text="1.2.3.\u0664")
def test_addresses_are_those_of_the_library(text: str) -> None:
    """What is read as an address, and as which, is what `ipaddress` says; the unspecified ones aside."""
    stripped = text.strip(" ")
    try:
        wanted = ip_address(stripped)
    except ValueError:
        assert parse_address(text) is None
        return
    mapped = wanted if isinstance(wanted, IPv4Address) else wanted.ipv4_mapped or wanted
    expected = None if mapped.is_unspecified else Address(mapped.version, int(mapped), str(mapped))
    assert parse_address(text) == expected


@given(st.lists(st.ip_addresses(network="10.0.0.0/28") | st.ip_addresses(network="::/120"), max_size=4), st.data())
def test_networks_hold_what_the_library_says(firsts: list[IPv4Address | IPv6Address], data: st.DataObject) -> None:
    """An address is in a network, of either version and any length, exactly where `ipaddress` says so."""
    networks = [ip_network((first, data.draw(st.integers(0, first.max_prefixlen))), strict=False) for first in firsts]
    for address in (ip_address("10.0.0.3"), ip_address("11.0.0.3"), ip_address("::a00:3"), ip_address("::3")):
        assert Networks(networks).hold(str(address)) is any(address in network for network in networks)
    assert not Networks(networks).hold(None)
