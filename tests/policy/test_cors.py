"""Which origins may read what, as the Fetch standard has it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.asgi import Header
from asgi_guard.policy.cors import MAX_REQUESTED_BYTES, MAX_REQUESTED_HEADERS, CORSOptions, CORSPolicy

APP = b"https://app.example.com"
VARY = (b"vary", b"access-control-request-headers, access-control-request-method, origin")


def policy(*origins: str, **options: Any) -> CORSPolicy:
    return CORSPolicy.of(CORSOptions(allow_origins=origins or (APP.decode(),), **options))


@pytest.mark.parametrize(
    ("pattern", "origin", "allowed"),
    [
        ("https://app.example.com", "https://app.example.com", True),
        ("https://app.example.com", "http://app.example.com", False),
        ("https://app.example.com", "https://app.example.com:8443", False),
        ("https://app.example.com", "https://app.example.com/", False),
        ("https://app.example.com", "https://app.example", False),
        ("https://app.example.com", "https://APP.example.com", False),
        ("https://app.example.com", "https://xapp.example.com", False),
        ("https://app.example.com", "https://app.example.com.evil.example", False),
        ("https://app.example.com", "null", False),
        ("https://app.example.com", "", False),
        ("https://*.example.com", "https://a.example.com", True),
        ("https://*.example.com", "https://b.a.example.com", True),
        ("https://*.example.com", "https://*.example.com", False),
        ("https://*.example.com", "https://example.com", False),
        ("https://*.example.com", "https://.example.com", False),
        ("https://*.example.com", "https://a..example.com", False),
        ("https://*.example.com", "https://-a.example.com", False),
        ("https://*.example.com", "https://evilexample.com", False),
        ("https://*.example.com", "https://evil.example/.example.com", False),
        ("https://*.example.com", "https://evil.example?.example.com", False),
        ("https://*.example.com", "https://evil.example#.example.com", False),
        ("https://*.example.com", "https://evil@a.example.com", False),
        ("https://*.example.com", "https://evil.example\\.example.com", False),
        ("https://*.example.com", "https://a.example.com\n", False),
        ("https://*.example.com", "https://a.example.com:8443", False),
        ("https://*.example.com", "https://a.example.com:", False),
        ("https://*.example.com", "http://a.example.com", False),
        ("https://*.example.com", "a.example.com", False),
        ("https://*.example.com", "https://" + "a" * 600 + ".example.com", False),
        ("https://*.example.com:8443", "https://a.example.com:8443", True),
        ("https://*.example.com:8443", "https://a.example.com", False),
        ("https://*.example.com:8443", "https://a.example.com:84430", False),
        ("https://*.example.com:*", "https://a.example.com", True),
        ("https://*.example.com:*", "https://a.example.com:1", True),
        ("https://*.example.com:*", "https://a.example.com:*", False),
        ("https://*.example.com:*", "https://a.example.com:1x", False),
        ("https://*.example.com:*", "https://a.example.com:\xb2", False),
        ("https://*.example.com:*", "https://a.example.com:80:80", False),
        ("http://localhost:*", "http://localhost", True),
        ("http://localhost:*", "http://localhost:5173", True),
        ("http://localhost:*", "http://localhost.evil.example:5173", False),
        ("http://[::1]:*", "http://[::1]:5173", True),
        ("http://[::1]:*", "http://[::1]", True),
        ("http://[::1]:*", "http://[::2]:5173", False),
        ("http://[::1]:*", "http://[::1]5173", False),
        ("http://[::1]:8000", "http://[::1]:8000", True),
        ("*", "https://any.example", True),
        ("*", "null", True),
    ],
)
def test_origins(pattern: str, origin: str, allowed: bool) -> None:
    """An origin is allowed if it is one that was named, by exact text or by a star for whole labels or for the port."""
    made = policy(pattern)
    assert made.allows_origin(origin.encode("latin-1")) is allowed
    assert made.names_origin(origin.encode("latin-1")) is (allowed and pattern != "*")
    assert (made.actual(origin.encode("latin-1")) is not None) is allowed


def test_several_wildcards() -> None:
    """An origin is allowed if any of several wildcards stands for it."""
    made = policy("https://*.example.com", "https://app.example.com:*", "https://*.example.org:*")
    for origin in ("https://a.example.com", "https://app.example.com:8443", "https://a.example.org:8443"):
        assert made.allows_origin(origin.encode())
    for origin in ("https://a.example.com:8443", "https://example.org", "https://a.example.net"):
        assert not made.allows_origin(origin.encode())


def test_a_name_without_a_dot_widens_no_other() -> None:
    """Beside this machine's own name with any port, a wildcard still does not stand for the domain above it."""
    made = policy("http://localhost:*", "https://*.example.com")
    for origin in ("http://localhost:3000", "https://a.example.com"):
        assert made.allows_origin(origin.encode())
    for origin in ("https://example.com", "http://a.localhost:3000"):
        assert not made.allows_origin(origin.encode())


@pytest.mark.parametrize(("on", "asked"), [(True, True), (True, False), (False, True)])
def test_private_networks(on: bool, asked: bool) -> None:
    """A way into a private network is told of where it was turned on, and only if it was asked for."""
    answer = policy(unsafe_private_network=on).preflight(APP, b"GET", [], private_network=asked)
    assert answer is not None
    assert ((b"access-control-allow-private-network", b"true") in answer) is (on and asked)


pieces = st.lists(
    st.sampled_from(
        ["https://", "http://", "a", ".", "example.com", ".example.com", ":", "443", "*", "@", "/", "[", "]"]
    ),
    max_size=7,
).map("".join)


wildcards = st.sampled_from(
    [
        "https://*.example.com",
        "https://*.a.example.com",
        "https://*.example.com:8443",
        "https://*.com:*",
        "http://*.example.com:*",
        "https://a.example.com:*",
        "http://example.com:*",
    ]
)
named = st.builds(
    "{}://{}example.com{}".format,
    st.sampled_from(["https", "http"]),
    st.sampled_from(["", "a.", "b.", "b.a.", "x.b.a.", ".", "a..", "*."]),
    st.sampled_from(["", ":8443", ":443", ":*", ":"]),
)


@given(st.lists(wildcards, min_size=1, unique=True), st.one_of(named, pieces))
@example(["https://*.example.com", "https://*.a.example.com"], "https://x.b.a.example.com")
@example(["https://*.example.com", "https://*.com:*"], "https://b.a.example.com:8443")
def test_several_wildcards_are_each_of_them(patterns: list[str], origin: str) -> None:
    """Several wildcards let in what one of them does by itself, and nothing else."""
    options = {"unsafe_public_suffixes": True}
    alone = [policy(each, **options).allows_origin(origin.encode()) for each in patterns]
    assert policy(*patterns, **options).allows_origin(origin.encode()) is any(alone)


@given(st.one_of(pieces, st.text(max_size=20)))
@example("https://a.example.com:443")
@example("https://a.example.com:*")
def test_whatever_a_pattern_allows_is_below_its_domain(origin: str) -> None:
    """An origin that a wildcard lets in is, read as a URL, a name below the domain and nothing besides."""
    raw = origin.encode("utf-8", "replace")
    if policy("https://*.example.com:*").allows_origin(raw):
        parts = urlsplit(origin)
        assert parts.scheme == "https"
        assert parts.hostname is not None
        assert parts.hostname.endswith(".example.com")
        assert parts.hostname.removesuffix(".example.com").strip(".")
        assert (parts.path, parts.query, parts.fragment, parts.username) == ("", "", "", None)


@pytest.mark.parametrize(
    ("options", "origin", "headers"),
    [
        ({}, APP, [(b"access-control-allow-origin", APP)]),
        ({"allow_credentials": True}, APP, [
            (b"access-control-allow-origin", APP), (b"access-control-allow-credentials", b"true"),
        ]),
        ({"expose_headers": ["X-Id", "x-id", "Content-Type", "etag"]}, APP, [
            (b"access-control-allow-origin", APP), (b"access-control-expose-headers", b"x-id, etag"),
        ]),
        ({"expose_headers": ["Content-Type"], "max_age": 5, "allow_methods": ["PUT"]}, APP, [
            (b"access-control-allow-origin", APP),
        ]),
        ({"allow_origins": ["*"], "expose_headers": ["*"]}, b"https://x.example", [
            (b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", b"*"),
        ]),
        ({"allow_credentials": True}, b"https://evil.example", None),
    ],
)  # fmt: skip
def test_actual(options: dict[str, Any], origin: bytes, headers: list[Header] | None) -> None:
    """An allowed response says who may read what of it, and one that is not allowed says nothing."""
    found = CORSPolicy.of(CORSOptions(**{"allow_origins": [APP.decode()], **options})).actual(origin)
    assert found == (None if headers is None else tuple(headers))


@pytest.mark.parametrize(
    ("options", "method", "allowed", "named"),
    [
        ({}, b"GET", True, False),
        ({}, b"HEAD", True, False),
        ({}, b"POST", True, False),
        ({}, b"PUT", False, False),
        ({}, b"get", False, False),
        ({"allow_methods": ["PUT"]}, b"PUT", True, True),
        ({"allow_methods": ["put"]}, b"PUT", True, True),
        ({"allow_methods": ["PUT"]}, b"put", False, False),
        ({"allow_methods": ["PUT"]}, b"DELETE", False, False),
        ({"allow_methods": ["PATCH"]}, b"PATCH", True, True),
        ({"allow_methods": ["PATCH"]}, b"patch", False, False),
        ({"allow_methods": ["patch"]}, b"patch", True, True),
        ({"allow_methods": ["*"]}, b"BREW", True, True),
        ({"allow_methods": ["*"], "allow_credentials": True}, b"DELETE", True, True),
        ({"allow_methods": ["*"]}, b"TRACE", False, False),
        ({"allow_methods": ["*"]}, b"connect", False, False),
        ({"allow_methods": ["*"]}, b"", False, False),
        ({"allow_methods": ["*"]}, b"A B", False, False),
        ({"allow_methods": ["*"]}, b"A\r\nx: y", False, False),
        ({"allow_methods": ["*"]}, b"PUT, DELETE", False, False),
        ({"allow_methods": ["*"]}, b"\xc3\xa4", False, False),
    ],
)
def test_preflight_methods(options: dict[str, Any], method: bytes, allowed: bool, named: bool) -> None:
    """A method is allowed if it is safelisted or named, and only the one that was asked for is told."""
    answer = policy(**options).preflight(APP, method, [])
    assert (answer is not None) is allowed
    if answer is not None:
        assert [value for name, value in answer if name == b"access-control-allow-methods"] == [method] * named


@pytest.mark.parametrize(
    ("options", "lines", "told"),
    [
        ({}, [], None),
        ({}, [b""], None),
        ({}, [b" ,\t, "], None),
        ({}, [b"x-a"], False),
        ({"allow_headers": ["X-A", "X-B"]}, [b"x-a"], b"x-a"),
        ({"allow_headers": ["X-A", "X-B"]}, [b"X-B , x-a"], b"X-B,x-a"),
        ({"allow_headers": ["X-A", "X-B"]}, [b"x-a", b"x-b"], b"x-a,x-b"),
        ({"allow_headers": ["X-A", "X-B"]}, [b"x-a,x-c"], False),
        ({"allow_headers": ["X-A"]}, [b"x-a x-a"], False),
        ({"allow_headers": ["X-A"]}, [b"x-a\xa0"], False),
        ({"allow_headers": ["X-A"]}, [b"," * 16 + b"x-a"], b"x-a"),
        ({"allow_headers": ["X-A"]}, [b"," * 17 + b"x-a"], False),
        ({"allow_headers": ["*"]}, [b"anything"], b"anything"),
        ({"allow_headers": ["*"]}, [b"," * 17 + b"x-a"], b"x-a"),
        ({"allow_headers": ["*"]}, [b"any thing"], False),
        ({"allow_headers": ["*"]}, [b"a\r\nset-cookie: b"], False),
        ({"allow_headers": ["*"]}, [b"Authorization"], False),
        ({"allow_headers": ["*", "Authorization"]}, [b"x-a,authorization"], b"x-a,authorization"),
        ({"allow_headers": ["*"], "allow_credentials": True}, [b"Authorization"], b"Authorization"),
        ({"allow_headers": ["authorization"]}, [b"Authorization"], b"Authorization"),
        ({"allow_headers": ["*"]}, [b",".join([b"x"] * MAX_REQUESTED_HEADERS)], b",".join([b"x"] * 64)),
        ({"allow_headers": ["*"]}, [b",".join([b"x"] * (MAX_REQUESTED_HEADERS + 1))], False),
        ({"allow_headers": ["*"]}, [b"x" * MAX_REQUESTED_BYTES], b"x" * MAX_REQUESTED_BYTES),
        ({"allow_headers": ["*"]}, [b"x" * MAX_REQUESTED_BYTES, b"y"], False),
        ({"allow_headers": ["*"]}, [b"," * 65_536], False),
    ],
)
def test_preflight_headers(options: dict[str, Any], lines: list[bytes], told: bytes | bool | None) -> None:
    """Headers are allowed if all are named, over all lines, within bounds; only those asked for are told."""
    answer = policy(**options).preflight(APP, b"GET", lines)
    assert (answer is None) is (told is False)
    if answer is not None:
        found = [value for name, value in answer if name == b"access-control-allow-headers"]
        assert found == ([] if told is None else [told])


def test_preflight_answer() -> None:
    """An answer to a preflight has the origin, credentials and age, what was asked for, and what it depends on."""
    made = policy(allow_methods=["PUT"], allow_headers=["X-A"], allow_credentials=True, max_age=600)
    assert made.preflight(APP, b"PUT", [b"x-a"]) == (
        (b"access-control-allow-origin", APP),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-max-age", b"600"),
        (b"access-control-allow-methods", b"PUT"),
        (b"access-control-allow-headers", b"x-a"),
        VARY,
    )
    assert made.preflight(b"https://evil.example", b"GET", []) is None
    assert policy("*").preflight(b"null", b"GET", []) == ((b"access-control-allow-origin", b"*"), VARY)


@pytest.mark.parametrize(("seconds", "told"), [(None, []), (-1, [b"0"]), (0, [b"0"]), (86400, [b"86400"])])
def test_max_age(seconds: int | None, told: list[bytes]) -> None:
    """A preflight's answer says how long it may be remembered, if anything was said."""
    answer = policy(max_age=seconds).preflight(APP, b"GET", [])
    assert answer is not None
    assert [value for name, value in answer if name == b"access-control-max-age"] == told


@given(
    st.sampled_from([APP, b"https://a.example.org:1", b"null", b"https://evil.example"]),
    st.one_of(st.sampled_from([b"GET", b"PUT", b"TRACE"]), st.binary(max_size=10)),
    st.lists(st.one_of(st.sampled_from([b"x-a", b"X-B, x-a", b"authorization"]), st.binary(max_size=20)), max_size=3),
    st.booleans(),
    st.sampled_from([[], ["*"], ["PUT"]]),
    st.sampled_from([[], ["*"], ["X-A", "X-B"]]),
)
def test_any_preflight(
    origin: bytes, method: bytes, lines: list[bytes], credentials: bool, methods: list[str], headers: list[str]
) -> None:
    """No preflight raises, none is answered to a stranger, and no answer holds more than was asked for, in one line."""
    made = policy(
        APP.decode(), "https://*.example.org:*", allow_methods=methods, allow_headers=headers,
        allow_credentials=credentials,
    )  # fmt: skip
    answer = made.preflight(origin, method, lines)
    if origin in (b"null", b"https://evil.example"):
        assert answer is None
    if answer is not None:
        told = dict(answer)
        assert told[b"access-control-allow-origin"] == origin
        assert told.get(b"access-control-allow-methods", method) == method
        asked = {item.strip(b" \t") for line in lines for item in line.split(b",")}
        assert set(told.get(b"access-control-allow-headers", b"").split(b",")) - {b""} == asked - {b""}
        for _, value in answer:
            assert all(32 <= byte < 127 for byte in value)
