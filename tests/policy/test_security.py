"""Security headers: what the presets say, and what may be said instead."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.policy.faults import FaultsError
from asgi_guard.policy.routes import Preset
from asgi_guard.policy.security import DEFAULT_HSTS, DENIED_FEATURES, SecurityPolicy

ALL: list[Preset] = ["api", "page", "docs", "off"]
SENDING: list[Preset] = ["api", "page", "docs"]


def directives(csp: str) -> dict[str, str]:
    """A policy by directive."""
    return {name: value for name, _, value in (part.strip().partition(" ") for part in csp.split(";"))}


def plain(policy: SecurityPolicy) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in policy.plain}


def secure(policy: SecurityPolicy) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in policy.secure}


@pytest.mark.parametrize("preset", SENDING)
def test_recommended(preset: Preset) -> None:
    """Every preset has the values that OWASP recommends for pages and other answers alike."""
    headers = plain(SecurityPolicy.of(preset))
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["x-permitted-cross-domain-policies"] == "none"
    csp = directives(headers["content-security-policy"])
    assert csp["frame-ancestors"] == "'none'"
    assert "'unsafe-eval'" not in headers["content-security-policy"]
    assert {"default-src", "base-uri", "form-action"} <= set(csp)


def test_api() -> None:
    """The preset for answers that are no pages allows nothing at all, and tells no other site where it was called."""
    headers = plain(SecurityPolicy.of())
    assert headers == plain(SecurityPolicy.of("api"))
    assert set(directives(headers["content-security-policy"]).values()) == {"'none'"}
    assert headers["cross-origin-embedder-policy"] == "require-corp"
    assert headers["referrer-policy"] == "no-referrer"


def test_page() -> None:
    """The preset for pages is OWASP's policy, with insecure requests upgraded over https only."""
    policy = SecurityPolicy.of("page")
    wanted = {
        "default-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'self'",
        "object-src": "'none'",
        "frame-ancestors": "'none'",
    }
    assert directives(plain(policy)["content-security-policy"]) == wanted
    assert directives(secure(policy)["content-security-policy"]) == {**wanted, "upgrade-insecure-requests": ""}


def test_docs() -> None:
    """The preset for API documentation lets Swagger UI and ReDoc load what they are made of, and nothing by default."""
    csp = directives(plain(SecurityPolicy.of("docs"))["content-security-policy"])
    assert csp["default-src"] == "'none'"
    assert csp["connect-src"] == "'self'"
    for directive in ("script-src", "style-src"):
        assert {"'unsafe-inline'", "https://cdn.jsdelivr.net"} <= set(csp[directive].split())


def test_off() -> None:
    """The preset `off` sends nothing, and only what is said beside it."""
    assert SecurityPolicy.of("off") == SecurityPolicy((), (), frozenset())
    assert secure(SecurityPolicy.of("off", hsts=DEFAULT_HSTS)) == {"strict-transport-security": DEFAULT_HSTS}
    assert plain(SecurityPolicy.of("off", csp="default-src 'self'")) == {
        "content-security-policy": "default-src 'self'"
    }


def test_permissions() -> None:
    """Each denied feature is denied once."""
    value = plain(SecurityPolicy.of())["permissions-policy"]
    assert value == ", ".join(f"{feature}=()" for feature in DENIED_FEATURES)
    assert len(set(DENIED_FEATURES)) == len(DENIED_FEATURES) == 27
    assert {"camera", "microphone", "geolocation", "usb", "serial", "hid", "clipboard-read"} <= set(DENIED_FEATURES)


@pytest.mark.parametrize("preset", ALL)
@pytest.mark.parametrize("hsts", [None, "max-age=0", "max-age=63072000; includeSubDomains; preload", "off"])
def test_hsts_is_said_over_https_only(preset: Preset, hsts: str | None) -> None:
    """Strict-Transport-Security never stands on an answer over http, nor does an upgrade of insecure requests."""
    policy = SecurityPolicy.of(preset, hsts=hsts)
    assert "strict-transport-security" not in plain(policy)
    assert "upgrade-insecure-requests" not in plain(policy).get("content-security-policy", "")
    wanted = None if hsts == "off" or (hsts is None and preset == "off") else hsts or DEFAULT_HSTS
    assert secure(policy).get("strict-transport-security") == wanted


@pytest.mark.parametrize("preset", ALL)
def test_plain_and_secure_differ_in_nothing_else(preset: Preset) -> None:
    """Over https there is what there is over http, and Strict-Transport-Security besides; `names` has all of them."""
    policy = SecurityPolicy.of(preset, csp="default-src 'self'")
    assert {**secure(policy), "strict-transport-security": ""} == {**plain(policy), "strict-transport-security": ""}
    assert policy.names == {name for name, _ in (*policy.plain, *policy.secure)}
    assert all(name == name.lower() for name in policy.names)


OPTIONS = {
    "csp": "content-security-policy",
    "csp_report_only": "content-security-policy-report-only",
    "referrer_policy": "referrer-policy",
    "permissions_policy": "permissions-policy",
}


@pytest.mark.parametrize(("option", "name"), OPTIONS.items())
@pytest.mark.parametrize("preset", ALL)
def test_overrides(preset: Preset, option: str, name: str) -> None:
    """What is said replaces the preset's value as it is, `off` leaves it out, and the others stay."""
    default = SecurityPolicy.of(preset)
    said = SecurityPolicy.of(preset, **{option: "a-value"})
    left_out = SecurityPolicy.of(preset, **{option: "off"})
    for view in (plain, secure):
        assert view(said) == {**view(default), name: "a-value"}
        assert view(left_out) == {other: value for other, value in view(default).items() if other != name}


@pytest.mark.parametrize(
    "value",
    [
        "max-age=31536000",
        "max-age=0",
        'MAX-AGE="31536000"',
        "max-age = 31536000 ; includeSubDomains",
        "includeSubDomains; max-age=1",
        "max-age=31536000; includeSubDomains; preload",
        "max-age=63072000; INCLUDESUBDOMAINS; Preload;",
        "max-age=1; later=invention",
    ],
)
def test_hsts(value: str) -> None:
    """A Strict-Transport-Security with one max-age is sent as it is written."""
    assert secure(SecurityPolicy.of(hsts=value))["strict-transport-security"] == value


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("includeSubDomains", "one max-age"),
        ("max-age", "one max-age"),
        ("max-age=", "one max-age"),
        ("max-age=-1", "one max-age"),
        ("max-age=one", "one max-age"),
        ("max-age=1; max-age=2", "one max-age"),
        ('max-age="31536000', "one max-age"),
        ("max-age=31536000 includeSubDomains", "one max-age"),
        ("max-age=99999999999", "one max-age"),
        ("max-age=1; includeSubDomains; includesubdomains", "twice"),
        ("max-age=31536000; preload", "needs includeSubDomains"),
        ("max-age=31535999; includeSubDomains; preload", "at least 31536000"),
        ("", "empty"),
        ("max-age=1\r\nset-cookie: x", "cannot stand in a header"),
    ],
)
def test_malformed_hsts(value: str, says: str) -> None:
    """A Strict-Transport-Security that browsers, or the preload list, would pass over is an error."""
    with pytest.raises(FaultsError, match=says) as caught:
        SecurityPolicy.of(hsts=value)
    assert [fault.field for fault in caught.value.faults] == ["hsts"]


@pytest.mark.parametrize("value", ["", "  ", "a\nb", "a\r\nset-cookie: x", "a\0", "a\tb", "ä", "\x7f"])
def test_every_fault_is_told_at_once(value: str) -> None:
    """Values that cannot stand in a header are all told together, by option."""
    with pytest.raises(FaultsError) as caught:
        SecurityPolicy.of(
            csp=value, csp_report_only=value, hsts="preload", referrer_policy=value, permissions_policy=value
        )
    assert {fault.field for fault in caught.value.faults} == {*OPTIONS, "hsts"}
    assert len(caught.value.faults) == 5
    for fault in caught.value.faults:
        assert f"{fault.field}: {fault.message}" in str(caught.value)


@given(
    st.sampled_from(ALL),
    st.text(max_size=20),
    st.one_of(st.integers(0, 10**9).map("max-age={}".format), st.text(max_size=20)),
)
@example("api", "default-src 'self'", "max-age=1")
@example("page", "a\r\nset-cookie: b", "max-age=1")
def test_no_value_forges_a_header(preset: Preset, csp: str, hsts: str) -> None:
    """Whatever is said stands in one line of plain ASCII, or is refused."""
    try:
        policy = SecurityPolicy.of(preset, csp=csp, hsts=hsts)
    except FaultsError as error:
        assert {fault.field for fault in error.faults} <= {"csp", "hsts"}  # noqa: PT017 - either outcome may be right
    else:
        for _, value in policy.secure:
            assert all(32 <= byte < 127 for byte in value)
