"""Who is calling, whatever the headers say."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.policy.address import parse_address, parse_networks
from asgi_guard.policy.proxies import MAX_HOPS, Client, ForwardedHeader, ProxyPolicy

PEER = "10.0.0.1"
TRUSTED = parse_networks(["10.0.0.0/8", "2001:db8:ffff::/48"])
XFF = ProxyPolicy(TRUSTED)
FORWARDED = ProxyPolicy(TRUSTED, "forwarded")


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
    assert XFF.client(PEER, lines, []).address == address


@pytest.mark.parametrize(
    ("lines", "proto", "scheme"),
    [
        ([b"192.0.2.1"], [b"https"], "https"),
        ([b"192.0.2.1"], [b" HTTPS "], "https"),
        ([b"192.0.2.1"], [b"wss"], "wss"),
        ([b"192.0.2.1"], [b"ws"], "ws"),
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
        ([b'for="192.0.2.1:_port"'], "192.0.2.1", None),
        ([b'for="[::ffff:192.0.2.1]"'], "192.0.2.1", None),
        ([b"for=8.8.8.8, for=192.0.2.1, for=10.0.0.2, for="], PEER, None),
        ([b'for="8.8.8.8, for=192.0.2.1;proto=https'], "192.0.2.1", "https"),
        ([b"garbage", b"for=192.0.2.1"], "192.0.2.1", None),
        ([b"for=192.0.2.1,"], PEER, None),
    ],
)
def test_forwarded(lines: list[bytes], address: str, scheme: str | None) -> None:
    """RFC 7239 elements are walked from the right; unknown and obfuscated identifiers are nobody."""
    client = FORWARDED.client(PEER, lines, [b"wss"], [b"evil.example"])
    assert (client.address, client.scheme, client.host) == (address, scheme, None)


def test_too_many_hops_leave_the_scheme_to_the_nearest() -> None:
    """Where the chain is longer than is followed, scheme and host are those that the nearest proxy names."""
    hops = [b"192.0.2.1"] + [b"10.0.0.2"] * MAX_HOPS
    schemes, names = [b"http"] * MAX_HOPS + [b"https"], [b"far.example"] * MAX_HOPS + [b"near.example"]
    nearest = Client(PEER, "https", b"near.example", "too_many")
    policy = ProxyPolicy(TRUSTED, host=True)
    assert policy.client(PEER, [b",".join(hops)], [b",".join(schemes)], [b",".join(names)]) == nearest
    elements = [b"for=%b;proto=%b;host=%b" % each for each in zip(hops, schemes, names, strict=True)]
    assert ProxyPolicy(TRUSTED, "forwarded", host=True).client(PEER, elements) == nearest


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
    client = policy.client(PEER, lines, proto, proto)
    assert client.scheme in (None, "http", "https", "ws", "wss")
    if client.address != PEER:
        assert client.address is not None
        assert client.address == str(ip_address(client.address))
        assert not policy.trusts(client.address)


@given(st.lists(junk, max_size=4), addresses.filter(lambda address: parse_address(address) is not None))
@example([b'for="'], "192.0.2.1")
@example([b"10.0.0.2"], "192.0.2.1")
def test_what_stands_to_the_left_never_counts(lines: list[bytes], address: str) -> None:
    """Whatever a client sent ahead of it, the address that the proxy appended is the client."""
    if XFF.trusts(address):
        address = "192.0.2.1"
    parsed = parse_address(address)
    assert parsed is not None
    plain = parsed.text
    assert XFF.client(PEER, [*lines, address.encode()], []).address == plain
    appended = [*lines, f'for="[{address}]"'.encode()]
    assert FORWARDED.client(PEER, appended, []).address == plain


@pytest.mark.parametrize(
    ("hops", "lines", "address", "doubt"),
    [
        (1, [b"192.0.2.1"], "192.0.2.1", None),
        (1, [b"8.8.8.8, 192.0.2.1"], "192.0.2.1", None),
        (1, [b"8.8.8.8", b"192.0.2.1"], "192.0.2.1", None),
        (1, [b"192.0.2.1, 10.0.0.2"], "10.0.0.2", None),
        (2, [b"8.8.8.8, 192.0.2.1, 10.0.0.2"], "192.0.2.1", None),
        (3, [b"192.0.2.1, unknown, garbage"], "192.0.2.1", None),
        (2, [b"192.0.2.1"], PEER, "too_few"),
        (2, [b"garbage"], PEER, "too_few"),
        (1, [], PEER, None),
        (1, [b""], PEER, "unreadable"),
        (1, [b"192.0.2.1,"], PEER, "unreadable"),
        (2, [b"unknown, 10.0.0.2"], PEER, "unreadable"),
        (MAX_HOPS, [b"192.0.2.1" + b",10.0.0.2" * (MAX_HOPS - 1)], "192.0.2.1", None),
        (MAX_HOPS, [b"192.0.2.1" + b",10.0.0.2" * (MAX_HOPS - 2)], PEER, "too_few"),
    ],
)
@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded"])
def test_hops(header: ForwardedHeader, hops: int, lines: list[bytes], address: str, doubt: str | None) -> None:
    """With so many proxies, the entry that the outermost appended is the client; too short a list names nobody."""
    if header == "forwarded":
        lines = [b",".join(b"for=" + entry.strip() for entry in line.split(b",")) for line in lines]
    client = ProxyPolicy(header=header, hops=hops).client(PEER, lines, [])
    assert (client.address, client.doubt) == (address, doubt)


def test_hops_believe_the_scheme_of_their_own_hop() -> None:
    """The scheme is that of the hop that counts; of a request with too short a list, nothing is believed."""
    policy = ProxyPolicy(hops=2, host=True)
    asked = policy.client(PEER, [b"8.8.8.8, 192.0.2.1, 10.0.0.2"], [b"ws, https, http"], [b"x.example, a.example, b"])
    assert asked == Client("192.0.2.1", "https", b"a.example")
    assert policy.client(PEER, [b"192.0.2.1"], [b"https"], [b"a.example"]) == Client(PEER, doubt="too_few")
    assert policy.client(PEER, [], [b"https"], [b"a.example"]) == Client(PEER)
    named = ProxyPolicy(header="forwarded", hops=1, host=True).client(None, [b"for=192.0.2.1;proto=https;host=a.b"])
    assert named == Client("192.0.2.1", "https", b"a.b")
    few = ProxyPolicy(header="forwarded", hops=2, host=True).client(PEER, [b"for=192.0.2.1;proto=https;host=a.b"])
    assert few == Client(PEER, doubt="too_few")


@pytest.mark.parametrize("peer", [PEER, "testclient", "", None])
def test_hops_believe_whoever_connects(peer: str | None) -> None:
    """Without networks, whoever connects is the nearest proxy: a UNIX socket has no address."""
    policy = ProxyPolicy(hops=1)
    assert policy.client(peer, [b"192.0.2.1"]).address == "192.0.2.1"
    assert policy.client(peer, [b"garbage"]).address == peer


def test_hops_within_networks() -> None:
    """With networks, only a peer within them is a proxy."""
    policy = ProxyPolicy(TRUSTED, hops=1)
    assert policy.client(PEER, [b"192.0.2.1"]).address == "192.0.2.1"
    assert policy.client(PEER, [b"8.8.8.8, 10.0.0.9"]).address == "10.0.0.9"
    assert policy.client("203.0.113.9", [b"192.0.2.1"]) == Client("203.0.113.9")
    assert policy.client(None, [b"192.0.2.1"]) == Client(None)


@pytest.mark.parametrize(
    ("lines", "host", "expected"),
    [
        ([b"192.0.2.1"], [b"a.example"], b"a.example"),
        ([b"192.0.2.1"], [b" a.example:8443\t"], b"a.example:8443"),
        ([b"192.0.2.1"], [b"evil.example, a.example"], b"a.example"),
        ([b"192.0.2.1, 10.0.0.2"], [b"a.example, inner.example"], b"a.example"),
        ([b"192.0.2.1"], [b"a.example", b"b.example"], None),
        ([b"192.0.2.1"], [b"a.example:99999"], None),
        ([b"192.0.2.1"], [b"a.example/x"], None),
        ([b"192.0.2.1"], [b"user@a.example"], None),
        ([b"192.0.2.1"], [b""], None),
        ([b"192.0.2.1"], [b"a.example,"], None),
        ([b"192.0.2.1"], [], None),
        ([], [b"a.example"], b"a.example"),
    ],
)
def test_x_forwarded_host(lines: list[bytes], host: list[bytes], expected: bytes | None) -> None:
    """The host is that of the hop whose address is believed, and only if it is one."""
    assert ProxyPolicy(TRUSTED, host=True).client(PEER, lines, [], host).host == expected
    assert XFF.client(PEER, lines, [], host).host is None
    assert ProxyPolicy(TRUSTED, host=True).client("203.0.113.9", lines, [], host).host is None


@pytest.mark.parametrize(
    ("lines", "doubt"),
    [
        ([], None),
        ([b"192.0.2.1"], None),
        ([b"10.0.0.2"], "all_trusted"),
        ([b"10.0.0.1, 10.0.0.2"], "all_trusted"),
        ([b"192.0.2.1, unknown"], "unreadable"),
        ([b""], "unreadable"),
        ([b"192.0.2.1" + b", 10.0.0.2" * (MAX_HOPS - 1)], None),
        ([b"192.0.2.1" + b", 10.0.0.2" * MAX_HOPS], "too_many"),
    ],
)
def test_doubt(lines: list[bytes], doubt: str | None) -> None:
    """Where a proxy was to name a client and none can be read, it is said that the peer only stands in for it."""
    assert XFF.client(PEER, lines).doubt == doubt
    elements = [b",".join(b"for=" + entry.strip() for entry in line.split(b",")) for line in lines]
    assert FORWARDED.client(PEER, elements).doubt == doubt
