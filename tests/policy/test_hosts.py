"""Which hosts are answered for, and where plain http goes."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.errors import ConfigError
from asgi_guard.policy.hosts import MAX_HOST, HostPolicy, https_location, is_host

ANY = HostPolicy()
SOME = HostPolicy.of(["api.example.com", "*.Example.ORG.", "[::1]", "localhost"])
SECURE = HostPolicy.of(["api.example.com"], https_redirect=True)


@pytest.mark.parametrize(
    "host",
    [
        b"api.example.com",
        b"API.Example.COM",
        b"api.example.com.",
        b"api.example.com:8000",
        b"api.example.com:65535",
        b"api.example.com:1",
        b"a.example.org",
        b"b.a.example.org.:443",
        b"[::1]",
        b"[::1]:8000",
        b"localhost",
    ],
)
def test_allowed(host: bytes) -> None:
    """A host is known by its name, without case, port, and the dot of the root."""
    assert SOME.decide([host], "http") == "pass"
    assert ANY.decide([host], "http") == "pass"


@pytest.mark.parametrize(
    "host",
    [
        b"example.com",
        b"evil.example.com",
        b"xapi.example.com",
        b"api.example.com.evil.example",
        b"example.org",
        b"evilexample.org",
        b"a.example.org.evil.example",
        b"[::2]",
        b"127.0.0.1",
    ],
)
def test_not_allowed(host: bytes) -> None:
    """A host that was not named is refused; a star stands for every name below, and not for the name itself."""
    assert SOME.decide([host], "http") == "refuse"
    assert ANY.decide([host], "http") == "pass"


@pytest.mark.parametrize("names", [["*.example.com"], ["*.example.com", "*.example.org"], ["api.example.com"]])
def test_names_and_stars_alone(names: list[str]) -> None:
    """Where there are only stars, or only whole names, whatever they do not stand for is refused as well."""
    policy = HostPolicy.of(names)
    assert policy.decide([b"api.example.com"], "http") == "pass"
    for host in (b"example.com", b"evil.test", b"api.example.com.evil.test", b"*.example.com"):
        assert policy.decide([host], "http") == "refuse"


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        [b""],
        [b"api.example.com", b"api.example.com"],
        [b"api.example.com:"],
        [b"api.example.com:65536"],
        [b"api.example.com:99999"],
        [b"api.example.com:080000"],
        [b"api.example.com:0"],
        [b"api.example.com:00000"],
        [b"api.example.com:-1"],
        [b"api.example.com:http"],
        [b"api.example.com:80:80"],
        [b"user@api.example.com"],
        [b"api.example.com/"],
        [b"api.example.com?x"],
        [b"api.example.com#x"],
        [b"api.example.com, api.example.com"],
        [b" api.example.com"],
        [b"api.example.com\n"],
        [b"api.example.com\0"],
        [b"api_example.com_"],
        [b"-api.example.com"],
        [b".example.org"],
        [b"..example.org"],
        [b"a..example.org"],
        [b"api.example.com.."],
        [b"\xc3\xa4.example.org"],
        [b"%61.example.org"],
        [b"[::1"],
        [b"::1"],
        [b"[::1]x"],
        [b"[]"],
        [b"[fe80::1%eth0]"],
        [b"a" * 300 + b".example.org"],
    ],
)
@pytest.mark.parametrize("policy", [ANY, SOME, SECURE], ids=["any", "some", "secure"])
def test_what_is_no_host(policy: HostPolicy, hosts: list[bytes]) -> None:
    """None, several, or what is not name and port is refused, whatever is allowed."""
    assert policy.decide(hosts, "https") == "refuse"


@pytest.mark.parametrize(
    ("scheme", "verdict"),
    [("http", "redirect"), ("https", "pass"), ("ws", "insecure"), ("wss", "pass"), ("", "redirect")],
)
def test_https(scheme: str, verdict: str) -> None:
    """Plain http is redirected, and a plain WebSocket, which follows no redirect, is refused."""
    assert SECURE.decide([b"api.example.com"], scheme) == verdict
    assert SECURE.decide([b"evil.example"], scheme) == "refuse"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "*",
        "*.",
        "https://a.example",
        "a.example:80",
        "a.example/",
        "a..*.example",
        "a b",
        "*.*.example",
        "ä.de",
    ],
)
def test_malformed_names(name: str) -> None:
    """What is no host name is an error at construction."""
    with pytest.raises(ValueError, match="not host names"):
        HostPolicy.of(["a.example", name])


@pytest.mark.parametrize("path", ["healthz", "", "/*", "/well-known/*", "//healthz", "/a/../b"])
def test_malformed_paths(path: str) -> None:
    """What no request has for its whole path is an error at construction."""
    with pytest.raises(ValueError, match="not whole paths"):
        HostPolicy.of(["a.example"], exempt=["/healthz", path])


@pytest.mark.parametrize("hosts", [[], [b"10.0.0.7:8000"], [b"evil.example"], [b"a", b"b"], [b"a.example:99999"]])
@pytest.mark.parametrize("scheme", ["http", "ws", "https"])
def test_exempt(hosts: list[bytes], scheme: str) -> None:
    """An exempt path is served whatever the host and the scheme, and no other path is."""
    policy = HostPolicy.of(["api.example.com"], https_redirect=True, exempt=["/healthz"])
    assert policy.decide(hosts, scheme, "/healthz") == "pass"
    for path in ("/healthz/", "/healthz/x", "/", "", "/Healthz", "//healthz"):
        assert policy.decide(hosts, scheme, path) == "refuse"


def test_all_that_is_wrong_is_told_together() -> None:
    """Each option at fault is named; no host at all is no fault, and allows any."""
    assert HostPolicy.of([]) == ANY
    with pytest.raises(ConfigError) as caught:
        HostPolicy.of([], https_redirect=True, exempt=["x"])
    assert [fault.name for fault in caught.value.problems] == ["allowed", "exempt"]


def test_a_redirect_needs_hosts() -> None:
    """A redirect to whatever host a client names is refused at construction."""
    with pytest.raises(ValueError, match="needs the allowed hosts"):
        HostPolicy.of([], https_redirect=True)


@pytest.mark.parametrize(
    ("host", "path", "query", "location"),
    [
        (b"a.example", "/", b"", b"https://a.example/"),
        (b"a.example:8000", "/x", b"y=1&z=2", b"https://a.example/x?y=1&z=2"),
        (b"[::1]:80", "/", b"", b"https://[::1]/"),
        (b"a.example", "", b"", b"https://a.example/"),
        (b"a.example", "//evil.example/x", b"", b"https://a.example/evil.example/x"),
        (b"a.example", "/\\evil.example", b"", b"https://a.example/%5Cevil.example"),
        (b"a.example", "/a\r\nset-cookie: x", b"", b"https://a.example/a%0D%0Aset-cookie:%20x"),
        (b"a.example", "/a?b#c", b"", b"https://a.example/a%3Fb%23c"),
        (b"a.example", "/100%", b"", b"https://a.example/100%25"),
        (b"a.example", "/ä", b"", b"https://a.example/%C3%A4"),
        (b"a.example", "/\udcff", b"", b"https://a.example/%3F"),
        (b"a.example", "/", b"q=%20a%2Fb+c", b"https://a.example/?q=%20a%2Fb+c"),
        (b"a.example", "/", b"q=a b\r\n\xff#x", b"https://a.example/?q=a%20b%0D%0A%FF%23x"),
    ],
)
def test_location(host: bytes, path: str, query: bytes, location: bytes) -> None:
    """A redirect keeps path and query, leaves the plain port out, and encodes whatever could mean something else."""
    assert https_location(host, path, query) == location


@pytest.mark.parametrize(
    ("path", "raw_path", "location"),
    [
        ("/files/a/b", b"/files/a%2Fb", b"/files/a%2Fb"),
        ("/\ufffd", b"/%E9", b"/%E9"),
        ("/a b", b"/a%20b", b"/a%20b"),
        ("/a;b=1", b"/a;b=1", b"/a;b=1"),
        ("/", b"/", b"/"),
        ("//evil.example", b"//evil.example", b"/evil.example"),
        ("/a b", b"/a b", b"/a%20b"),
        ("/a\r\nb", b"/a\r\nb", b"/a%0D%0Ab"),
        ("/a#b", b"/a#b", b"/a%23b"),
        ("/a?b", b"/a?b", b"/a%3Fb"),
        ("/ä", "/ä".encode(), b"/%C3%A4"),
        ("x", b"x", b"/x"),
        ("/x", b"", b"/x"),
    ],
)
def test_location_as_sent(path: str, raw_path: bytes, location: bytes) -> None:
    """A path that needs no encoding is told as it was sent, so that the same resource is asked for."""
    assert https_location(b"a.example", path, b"", raw_path) == b"https://a.example" + location


@pytest.mark.parametrize(
    ("root_path", "path", "location"),
    [
        ("/api", "/items", b"/api/items"),  # a proxy has taken the root path away, or the server keeps it apart
        ("/api", "/api/items", b"/api/items"),
        ("/api", "/api", b"/api"),
        ("/api", "/apis", b"/api/apis"),
        ("/api", "//evil.example", b"/api/evil.example"),
        ("/", "/items", b"/items"),
        ("api/", "/items", b"/api/items"),
        ("//evil.example", "/", b"/evil.example/"),
        ("/a b\r\n", "/items", b"/a%20b%0D%0A/items"),
    ],
)
def test_location_below_a_root_path(root_path: str, path: str, location: bytes) -> None:
    """A redirect goes to the address that the client has to ask for, with the root path before it."""
    for raw_path in (None, path.encode()):
        assert https_location(b"a.example", path, b"", raw_path, root_path) == b"https://a.example" + location


def test_location_of_a_path_that_was_shortened_here() -> None:
    """Where a dispatcher has taken the root path from the path, and not from what was sent, it is named once."""
    for path, raw_path in (("/items", b"/api/items"), ("/a b", b"/%61pi/a%20b")):
        assert https_location(b"a.example", path, b"", raw_path, "/api") == b"https://a.example" + raw_path


def test_the_longest_host() -> None:
    """A name of 254 characters, with its last dot, and any port make a host; one character more makes none."""
    name = b"a" * 253 + b"."
    assert is_host(name)
    assert is_host(name + b":65535")
    assert len(name + b":65535") == MAX_HOST
    assert not is_host(b"a" + name)
    assert not is_host(b"a" + name + b":65535")
    assert not is_host(b"a." * 30_000)


@given(
    st.binary(max_size=30),
    st.text(st.characters(), max_size=30),
    st.binary(max_size=30),
    st.none() | st.binary(max_size=30) | st.binary(max_size=30).map(b"/".__add__),
    st.text(st.characters(), max_size=30),
)
@example(b"api.example.com", "\ud800", b"", None, "\ud800")
@example(b"API.example.com.:81", "/@evil.example", b"@evil", b"/@evil.example", "@evil.example")
def test_a_redirect_stays_on_the_host(
    host: bytes, path: str, query: bytes, raw_path: bytes | None, root_path: str
) -> None:
    """Whatever a client sends, a redirect goes to the allowed host alone, in one line of plain ASCII."""
    if SECURE.decide([host], "http") != "redirect":
        host = b"api.example.com"
    location = https_location(host, path, query, raw_path, root_path)
    assert re.fullmatch(rb"[!-~]+", location)
    parts = urlsplit(location.decode())
    assert parts.scheme == "https"
    assert parts.netloc.lower().rstrip(".") == "api.example.com"


@given(st.lists(st.binary(max_size=40), max_size=2), st.text(max_size=5))
def test_any_bytes_get_a_verdict(hosts: list[bytes], scheme: str) -> None:
    """No bytes raise, and only one host that was named passes."""
    verdict = SECURE.decide(hosts, scheme)
    named = len(hosts) == 1 and hosts[0].lower().partition(b":")[0].rstrip(b".") == b"api.example.com"
    assert verdict == "refuse" or named
