"""Who is calling, whatever the headers say."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.policy.address import (
    MAX_ADDRESS,
    Client,
    ForwardedHeader,
    ProxyPolicy,
    limit_key,
    parse_address,
    parse_forwarded,
    parse_networks,
)

PEER = "10.0.0.1"
TRUSTED = parse_networks(["10.0.0.0/8", "2001:db8:ffff::/48"])
XFF = ProxyPolicy(TRUSTED)
FORWARDED = ProxyPolicy(TRUSTED, "forwarded")


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
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:c000:201]:80", "192.0.2.1"),
        ("::1", "::1"),
    ],
)
def test_parse_address(text: str, address: str) -> None:
    """Port, brackets and zone are stripped, and IPv4 in IPv6 is IPv4."""
    assert str(parse_address(text)) == address


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


def test_networks() -> None:
    """A single address is a network of one, and bits beyond the prefix are passed over."""
    assert [str(network) for network in parse_networks(["10.1.2.3/8", "192.0.2.1", "::1"])] == [
        "10.0.0.0/8",
        "192.0.2.1/32",
        "::1/128",
    ]


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("2001:db8:ffff::1%eth0", True),
        ("11.0.0.1", False),
        ("2001:db8::1", False),
        ("testclient", False),
        ("", False),
    ],
)
def test_trusts(peer: str, trusted: bool) -> None:
    """A proxy is trusted by its network, however its address is written."""
    assert XFF.trusts(peer) is trusted


@pytest.mark.parametrize("peer", [None, "203.0.113.9", "::ffff:203.0.113.9", "testclient", "11.0.0.1"])
@pytest.mark.parametrize("policy", [XFF, FORWARDED, ProxyPolicy()])
def test_strangers_are_not_believed(peer: str | None, policy: ProxyPolicy) -> None:
    """A peer that is no trusted proxy is the client, whatever it says."""
    assert policy.client(peer, [b"192.0.2.1", b"for=192.0.2.1;proto=https"], [b"https"]) == Client(peer)


def test_nobody_is_trusted_by_default() -> None:
    """Without trusted networks not even this machine is believed."""
    for peer in ("127.0.0.1", "::1", PEER):
        assert ProxyPolicy().client(peer, [b"192.0.2.1"], [b"https"]) == Client(peer)


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        ([], PEER),
        ([b""], PEER),
        ([b"192.0.2.1"], "192.0.2.1"),
        ([b"8.8.8.8, 192.0.2.1"], "192.0.2.1"),
        ([b"127.0.0.1, 10.0.0.9, 192.0.2.1, 10.0.0.2"], "192.0.2.1"),
        ([b"8.8.8.8", b"192.0.2.1", b"10.0.0.2"], "192.0.2.1"),
        ([b"8.8.8.8", b"10.0.0.2"], "8.8.8.8"),
        ([b"192.0.2.1:50123, ::ffff:10.0.0.2"], "192.0.2.1"),
        ([b"[2001:db8::1]:443,2001:db8:ffff::2"], "2001:db8::1"),
        ([b"::ffff:192.0.2.1"], "192.0.2.1"),
        ([b"10.0.0.3, 10.0.0.2"], PEER),
        ([b"192.0.2.1, unknown"], PEER),
        ([b"192.0.2.1, _hidden, 10.0.0.2"], PEER),
        ([b"192.0.2.1, 0.0.0.0"], PEER),
        ([b"192.0.2.1,"], PEER),
        ([b"192.0.2.1", b""], PEER),
        ([b"192.0.2.1, 10.0.0.2, "], PEER),
        ([b"garbage, 192.0.2.1"], "192.0.2.1"),
        ([b"\xff\xfe"], PEER),
        ([b'"192.0.2.1"'], PEER),
        ([b"192.0.2.1;10.0.0.2"], PEER),
    ],
)
def test_x_forwarded_for(lines: list[bytes], address: str) -> None:
    """The first untrusted entry from the right is the client, and the peer is if that entry is no address."""
    assert XFF.client(PEER, lines, []) == Client(address)


@pytest.mark.parametrize(
    ("lines", "proto", "scheme"),
    [
        ([b"192.0.2.1"], [b"https"], "https"),
        ([b"192.0.2.1"], [b" HTTPS "], "https"),
        ([b"192.0.2.1"], [b"wss"], "wss"),
        ([b"192.0.2.1"], [b"gopher"], None),
        ([b"192.0.2.1"], [b""], None),
        ([b"192.0.2.1"], [], None),
        ([b"192.0.2.1"], [b"https", b"http"], None),
        ([], [b"https"], "https"),
        ([b"192.0.2.1, 10.0.0.2"], [b"https"], "https"),
        ([b"192.0.2.1, 10.0.0.2"], [b"https, http"], "https"),
        ([b"8.8.8.8, 192.0.2.1, 10.0.0.2"], [b"https, http, https"], "http"),
        ([b"8.8.8.8, 192.0.2.1"], [b"https, http"], "http"),
        ([b"192.0.2.1"], [b"https, http"], "http"),
    ],
)
def test_x_forwarded_proto(lines: list[bytes], proto: list[bytes], scheme: str | None) -> None:
    """The scheme is that of the hop whose address is believed, or the nearest proxy's where the lists differ."""
    assert XFF.client(PEER, lines, proto).scheme == scheme


@pytest.mark.parametrize(
    ("lines", "address", "scheme"),
    [
        ([], PEER, None),
        ([b""], PEER, None),
        ([b"for=192.0.2.1"], "192.0.2.1", None),
        ([b"For=192.0.2.1;Proto=HTTPS;by=10.0.0.1;host=example.com"], "192.0.2.1", "https"),
        ([b'for="192.0.2.1:8080"'], "192.0.2.1", None),
        ([b'for="[2001:db8::1]:443";proto=https'], "2001:db8::1", "https"),
        ([b"for=[2001:db8::1]"], "2001:db8::1", None),
        ([b'for="1\\92.0.2.1"'], "192.0.2.1", None),
        ([b"for=192.0.2.1;x-hop_1=a!b"], "192.0.2.1", None),
        ([b"for=8.8.8.8;proto=https, for=192.0.2.1;proto=http, for=10.0.0.2;proto=https"], "192.0.2.1", "http"),
        ([b"for=8.8.8.8", b"for=192.0.2.1 ; proto=https"], "192.0.2.1", "https"),
        ([b"for=10.0.0.3;proto=http, for=10.0.0.2;proto=https"], PEER, "https"),
        ([b"for=192.0.2.1, for=unknown"], PEER, None),
        ([b"for=192.0.2.1, for=_hidden;proto=https"], PEER, "https"),
        ([b'for=192.0.2.1, for="_hidden:80"'], PEER, None),
        ([b"for=192.0.2.1, proto=https"], PEER, "https"),
        ([b'for=""'], PEER, None),
    ],
)
def test_forwarded(lines: list[bytes], address: str, scheme: str | None) -> None:
    """RFC 7239 elements are walked from the right; unknown and obfuscated identifiers are nobody."""
    assert FORWARDED.client(PEER, lines, [b"wss"]) == Client(address, scheme)


@pytest.mark.parametrize(
    "text",
    [
        "192.0.2.1",
        "for",
        "for=",
        "=192.0.2.1",
        "for=192.0.2.1,",
        "for=192.0.2.1;",
        ",for=192.0.2.1",
        "for=192.0.2.1,,for=192.0.2.2",
        "for=192.0.2.1;for=192.0.2.2",
        "for=192.0.2.1;FOR=192.0.2.2",
        'for="192.0.2.1',
        'for=192.0.2.1"',
        'for="192.0.2.1"x',
        'for="192.0.2.1\\"',
        "for = 192.0.2.1",
        "for=192.0.2.1 192.0.2.2",
        "f\xf6r=192.0.2.1",
        'for="1.1.1.1, for=192.0.2.1',
    ],
)
def test_malformed_forwarded(text: str) -> None:
    """A header with any malformed part is believed in no part."""
    assert parse_forwarded(text) is None
    assert FORWARDED.client(PEER, [text.encode("latin-1")], [b"https"]) == Client(PEER)


def test_forwarded_is_parsed_whole() -> None:
    """Quoted separators belong to the value, and escapes stand for the character behind them."""
    text = ' for="a,b;c\\"d" ; host="\\\\" , for=x '
    assert parse_forwarded(text) == [{"for": 'a,b;c"d', "host": "\\"}, {"for": "x"}]


names = st.text("abcxyz-", min_size=1, max_size=5)
values = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=8)


@given(st.lists(st.dictionaries(names, values, min_size=1, max_size=3), max_size=4))
def test_forwarded_round_trip(elements: list[dict[str, str]]) -> None:
    """Whatever is written as RFC 7239 asks is read as it was."""
    text = ", ".join(
        ";".join(
            '{}="{}"'.format(name, value.replace("\\", "\\\\").replace('"', '\\"')) for name, value in pairs.items()
        )
        for pairs in elements
    )
    assert parse_forwarded(text) == elements


addresses = st.ip_addresses().map(str)
entries = st.one_of(
    addresses,
    st.sampled_from(["10.0.0.7", "10.9.9.9:80", "[2001:db8:ffff::7]:1", "unknown", "_x", "", "::", "for=1.2.3.4"]),
    st.text(max_size=20),
)
junk = st.one_of(
    st.binary(max_size=80),
    st.lists(entries, max_size=5).map(lambda found: ", ".join(found).encode("utf-8", "replace")),
    st.lists(entries, max_size=5).map(
        lambda found: ", ".join(f'for="{entry}";proto=https' for entry in found).encode("utf-8", "replace")
    ),
)


@given(st.sampled_from(["x-forwarded-for", "forwarded"]), st.lists(junk, max_size=4), st.lists(junk, max_size=2))
@example("forwarded", [b"a=b," * 16_000 + b"for=192.0.2.1"], [])
@example("x-forwarded-for", [b"," * 65_535], [b"," * 65_535])
def test_any_bytes_lead_to_an_address(header: ForwardedHeader, lines: list[bytes], proto: list[bytes]) -> None:
    """No bytes of any header raise, and the result is the peer or a plain address that is not trusted."""
    policy = ProxyPolicy(TRUSTED, header)
    client = policy.client(PEER, lines, proto)
    assert client.scheme in (None, "http", "https", "ws", "wss")
    if client.address != PEER:
        assert client.address is not None
        assert client.address == str(ip_address(client.address))
        assert not policy.trusts(client.address)


@given(st.lists(junk, max_size=4), addresses.filter(lambda address: parse_address(address) is not None))
@example([b'for="'], "192.0.2.1")
@example([b"10.0.0.2"], "192.0.2.1")
def test_what_stands_to_the_left_never_counts(lines: list[bytes], address: str) -> None:
    """Whatever a client sent ahead of it, the address that the proxy appended is the client, or else the peer is."""
    if XFF.trusts(address):
        address = "192.0.2.1"
    plain = str(parse_address(address))
    assert XFF.client(PEER, [*lines, address.encode()], []).address == plain
    appended = [*lines, f'for="[{address}]"'.encode()]
    assert FORWARDED.client(PEER, appended, []).address in (PEER, plain)
