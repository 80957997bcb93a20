"""What a CORS configuration may not say, all of it told at once."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_guard.errors import ConfigError
from asgi_guard.policy.cors import CORSOptions, CORSPolicy

APP = "https://app.example.com"


def fields(**options: Any) -> list[str]:
    """The options at fault."""
    with pytest.raises(ConfigError) as caught:
        CORSPolicy.of(CORSOptions(**{"allow_origins": [APP], **options}))
    return [fault.name for fault in caught.value.problems]


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "NULL",
        "",
        "app.example.com",
        "//app.example.com",
        "https:app.example.com",
        "https://",
        "https://app.example.com/",
        "https://app.example.com/path",
        "https://app.example.com?x",
        "https://app.example.com#x",
        "https://user@app.example.com",
        "https://app.example.com ",
        " https://app.example.com",
        "https://app.example.com:",
        "https://app.example.com:443",
        "http://app.example.com:80",
        "https://app.example.com:0443",
        "https://app.example.com:65536",
        "https://app.example.com:x",
        "https://app.example.com:80:80",
        "HTTPS://app.example.com",
        "https://APP.example.com",
        "https://äpp.example.com",
        "https://app..example.com",
        "https://-app.example.com",
        "https://" + "a." * 130 + "example",
        "ftp://app.example.com",
        "*://app.example.com",
        "https://*",
        "https://*.com",
        "https://*.*.example.com",
        "https://app.*.example.com",
        "https://app*.example.com",
        "https://*.127.0.0.1",
        "https://*.[::1]",
        "https://[::1",
        "https://[]",
        "https://[0:0::1]",
        "https://[::1%eth0]",
        "https://[::G]",
        "https://[::1]8080",
    ],
)
def test_malformed_origins(origin: str) -> None:
    """What no browser sends as an origin, or what lets in too many, is an error at construction."""
    assert fields(allow_origins=["https://app.example.com", origin]) == ["allow_origins"]


@pytest.mark.parametrize(
    ("origin", "credentials", "faulty"),
    [
        ("http://app.example.com", False, False),
        ("http://app.example.com", True, True),
        ("http://*.example.com", True, True),
        ("http://localhost:3000", True, False),
        ("http://localhost:*", True, False),
        ("http://app.localhost", True, False),
        ("http://127.0.0.1:3000", True, False),
        ("http://127.1.2.3", True, False),
        ("http://127.999.1.1", True, True),
        ("http://127.0.0.01", True, True),
        ("http://127.evil.example", True, True),
        ("http://127.0.0.1.evil.example", True, True),
        ("http://[::1]:3000", True, False),
        ("http://[::2]", True, True),
        ("http://localhost.example.com", True, True),
        ("https://app.example.com", True, False),
        ("*", True, True),
    ],
)
def test_credentials_need_https(origin: str, credentials: bool, faulty: bool) -> None:
    """Credentials are for origins that nobody on the network can imitate: https, or this machine."""
    if faulty:
        assert fields(allow_origins=[origin], allow_credentials=credentials) == ["allow_origins"]
    else:
        assert (
            CORSPolicy.of(CORSOptions(allow_origins=[origin], allow_credentials=credentials)).credentials is credentials
        )


@pytest.mark.parametrize(
    "options",
    [
        {"allow_origins": []},
        {"allow_origins": ["*", "https://app.example.com"]},
        {"allow_methods": [""]},
        {"allow_methods": ["A B"]},
        {"allow_methods": ["ä"]},
        {"allow_methods": ["CONNECT"]},
        {"allow_methods": ["trace"]},
        {"allow_headers": [""]},
        {"allow_headers": ["x y"]},
        {"allow_headers": ["Cookie"]},
        {"allow_headers": ["sec-fetch-site"]},
        {"allow_headers": ["Proxy-Authorization"]},
        {"allow_headers": ["access-control-allow-origin"]},
        {"expose_headers": [""]},
        {"expose_headers": ["x:y"]},
        {"expose_headers": ["Set-Cookie"]},
        {"expose_headers": ["access-control-request-method"]},
        {"expose_headers": ["Origin"]},
        {"expose_headers": ["*"], "allow_credentials": True},
        {"max_age": -2},
        {"max_age": 86401},
        {"preflight_status": 199},
        {"preflight_status": 300},
    ],
)
def test_malformed_options(options: dict[str, Any]) -> None:
    """An option that could not do what it says is an error at construction, by its name."""
    assert fields(**options) == [next(iter(options))]


@pytest.mark.parametrize(
    "options", [{"max_age": -1}, {"max_age": 86400}, {"preflight_status": 200}, {"preflight_status": 299}]
)
def test_the_bounds_of_options(options: dict[str, Any]) -> None:
    """What stands at its bound is within it."""
    assert CORSPolicy.of(CORSOptions(allow_origins=[APP], **options)).allows_origin(APP.encode())


def test_every_fault_is_told_at_once() -> None:
    """All that is wrong is told together."""
    assert fields(
        allow_origins=["null", "https://a.example/", "*"],
        allow_methods=["TRACE", "*", "A B"],
        allow_headers=["Cookie", "*"],
        expose_headers=["Set-Cookie", "*"],
        allow_credentials=True,
        max_age=-2,
    ) == [*["allow_origins"] * 4, *["allow_methods"] * 2, "allow_headers", *["expose_headers"] * 2, "max_age"]


@pytest.mark.parametrize(
    "origin", ["tauri://localhost", "chrome-extension://abcdefghijklmnop", "connector://a.example"]
)
def test_origins_of_other_schemes(origin: str) -> None:
    """Pages of installed apps and extensions have origins too, which are compared as they are."""
    policy = CORSPolicy.of(CORSOptions(allow_origins=[origin]))
    assert policy.allows_origin(origin.encode())
    assert not policy.allows_origin(origin.replace("://", "s://").encode())


@pytest.mark.parametrize("origin", ["connector://a.example", "http://a.example", "http://*.a.example:*"])
def test_insecure_origins_on_request(origin: str) -> None:
    """Credentials for an origin that anyone on the network can imitate take a word that says so."""
    assert fields(allow_origins=[origin], allow_credentials=True) == ["allow_origins"]
    made = CORSPolicy.of(CORSOptions(allow_origins=[origin], allow_credentials=True, unsafe_insecure_origins=True))
    assert made.credentials


INSTALLED = ("capacitor", "chrome-extension", "ionic", "moz-extension", "safari-web-extension", "tauri")


@pytest.mark.parametrize("scheme", INSTALLED)
def test_what_is_installed_may_have_credentials(scheme: str) -> None:
    """Nobody on the network can imitate a page that comes from the device, whatever its host is called."""
    policy = CORSPolicy.of(CORSOptions(allow_origins=[f"{scheme}://a.example"], allow_credentials=True))
    assert policy.allows_origin(f"{scheme}://a.example".encode())


@pytest.mark.parametrize(
    "scheme", ["about", "blob", "data", "file", "filesystem", "ftp", "javascript", "ws", "wss", "1x", "", "h_p"]
)
def test_schemes_without_origins(scheme: str) -> None:
    """What browsers give no origin of its own is none."""
    assert fields(allow_origins=[f"{scheme}://a.example"]) == ["allow_origins"]


def test_the_longest_name_and_the_largest_port() -> None:
    """A name of 253 characters and the port 65535 are the last that there are."""
    name = ".".join(["a" * 62] * 4) + ".b"
    for longest in (f"https://{name}", "https://a.example:65535"):
        assert CORSPolicy.of(CORSOptions(allow_origins=[longest])).allows_origin(longest.encode())
    assert fields(allow_origins=[f"https://{name}b"]) == ["allow_origins"]
    assert fields(allow_origins=["https://a.example:65536"]) == ["allow_origins"]


def test_wildcards_of_this_machine() -> None:
    """Names below localhost are this machine's own, for development."""
    made = CORSPolicy.of(CORSOptions(allow_origins=["http://*.localhost:*"], allow_credentials=True))
    assert made.allows_origin(b"http://app.localhost:5173")
