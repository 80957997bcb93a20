"""Security headers: what the presets say, and what may be said instead."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.errors import ConfigError
from asgi_guard.policy.header_values import DEFAULT_HSTS
from asgi_guard.policy.security import DENIED_FEATURES, TELLING, Preset, SecurityHeaders, SecurityPolicy

ALL: list[Preset] = ["api", "page", "docs", "off"]
SENDING: list[Preset] = ["api", "page", "docs"]


def directives(csp: str) -> dict[str, str]:
    """A policy by directive."""
    return {name: value for name, _, value in (part.strip().partition(" ") for part in csp.split(";"))}


def policy_of(preset: Preset | None = None, **options: Any) -> SecurityPolicy:
    return SecurityPolicy.of(SecurityHeaders(preset, **options))


def plain(policy: SecurityPolicy) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in policy.plain}


def secure(policy: SecurityPolicy) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in policy.secure}


@pytest.mark.parametrize("preset", SENDING)
def test_recommended(preset: Preset) -> None:
    """Every preset has the values that OWASP recommends for pages and other answers alike."""
    headers = plain(policy_of(preset))
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    opened = "same-origin-allow-popups" if preset == "docs" else "same-origin"  # Swagger UI logs in by a popup
    assert headers["cross-origin-opener-policy"] == opened
    assert headers["cross-origin-resource-policy"] == "same-origin"
    csp = directives(headers["content-security-policy"])
    assert csp["frame-ancestors"] == "'none'"
    assert "'unsafe-eval'" not in headers["content-security-policy"]
    assert {"default-src", "base-uri", "form-action"} <= set(csp)


def test_api() -> None:
    """The preset for answers that are no pages allows nothing at all, and tells no other site where it was called."""
    headers = plain(policy_of())
    assert headers == plain(policy_of("api"))
    assert set(directives(headers["content-security-policy"]).values()) == {"'none'"}
    assert headers["cross-origin-embedder-policy"] == "require-corp"
    assert headers["referrer-policy"] == "no-referrer"
    assert not {"permissions-policy", "x-permitted-cross-domain-policies"} & headers.keys()


def test_page() -> None:
    """The preset for pages is OWASP's policy, with insecure requests upgraded over https only."""
    policy = policy_of("page")
    wanted = {
        "default-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'self'",
        "object-src": "'none'",
        "frame-ancestors": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
    }
    assert directives(plain(policy)["content-security-policy"]) == wanted
    assert directives(secure(policy)["content-security-policy"]) == {**wanted, "upgrade-insecure-requests": ""}


def test_docs() -> None:
    """The preset for API documentation lets Swagger UI and ReDoc load what they are made of, and nothing by default."""
    csp = directives(plain(policy_of("docs"))["content-security-policy"])
    assert csp["default-src"] == "'none'"
    assert csp["connect-src"] == "'self'"
    for directive in ("script-src", "style-src"):
        assert {"'unsafe-inline'", "https://cdn.jsdelivr.net"} <= set(csp[directive].split())


def test_off() -> None:
    """The preset `off` sends nothing, and only what is said beside it."""
    assert policy_of("off") == SecurityPolicy((), (), frozenset(), taken=frozenset(), no_store=False)
    assert secure(policy_of("off", hsts=DEFAULT_HSTS)) == {"strict-transport-security": DEFAULT_HSTS}
    assert plain(policy_of("off", csp="default-src 'self'")) == {"content-security-policy": "default-src 'self'"}


@pytest.mark.parametrize("preset", ["page", "docs"])
def test_permissions(preset: Preset) -> None:
    """What renders in a browser is denied each of the features once, and plug-ins read no policy of it."""
    value = plain(policy_of(preset))["permissions-policy"]
    assert plain(policy_of(preset))["x-permitted-cross-domain-policies"] == "none"
    assert value == ", ".join(f"{feature}=()" for feature in DENIED_FEATURES)
    assert len(set(DENIED_FEATURES)) == len(DENIED_FEATURES) == 27
    assert {"camera", "microphone", "geolocation", "usb", "serial", "hid", "clipboard-read"} <= set(DENIED_FEATURES)


@pytest.mark.parametrize("preset", ALL)
@pytest.mark.parametrize("hsts", [None, "max-age=0", "max-age=63072000; includeSubDomains; preload", "off"])
def test_hsts_is_said_over_https_only(preset: Preset, hsts: str | None) -> None:
    """Strict-Transport-Security never stands on an answer over http, nor does an upgrade of insecure requests."""
    policy = policy_of(preset, hsts=hsts)
    assert "strict-transport-security" not in plain(policy)
    assert "upgrade-insecure-requests" not in plain(policy).get("content-security-policy", "")
    wanted = None if hsts == "off" or (hsts is None and preset == "off") else hsts or DEFAULT_HSTS
    assert secure(policy).get("strict-transport-security") == wanted


@pytest.mark.parametrize("preset", ALL)
def test_plain_and_secure_differ_in_nothing_else(preset: Preset) -> None:
    """Over https there is what there is over http, and Strict-Transport-Security besides; `names` has all of them."""
    policy = policy_of(preset, csp="default-src 'self'")
    assert {**secure(policy), "strict-transport-security": ""} == {**plain(policy), "strict-transport-security": ""}
    taken = frozenset() if preset == "off" else TELLING
    assert policy.names == {name for name, _ in (*policy.plain, *policy.secure)} | taken
    assert all(name == name.lower() for name in policy.names)


OPTIONS = {
    "csp": ("content-security-policy", "default-src 'self'"),
    "csp_report_only": ("content-security-policy-report-only", "script-src https:"),
    "referrer_policy": ("referrer-policy", "no-referrer, same-origin"),
    "permissions_policy": ("permissions-policy", 'camera=(self "https://a.example"), usb=*, midi=self, hid=()'),
    "frame_options": ("x-frame-options", "DENY"),
    "opener_policy": ("cross-origin-opener-policy", "same-origin-allow-popups"),
    "embedder_policy": ("cross-origin-embedder-policy", "credentialless"),
    "resource_policy": ("cross-origin-resource-policy", "cross-origin"),
    "cache_control": ("cache-control", "no-cache"),
}


@pytest.mark.parametrize("preset", ALL)
def test_own_pages_may_frame(preset: Preset) -> None:
    """SAMEORIGIN is what the preset's policy says of frames, too, since browsers go by that; one's own policy stays."""
    name, framed = "content-security-policy", policy_of(preset, frame_options="SAMEORIGIN")
    own = policy_of(preset, frame_options="SAMEORIGIN", csp="frame-ancestors 'none'")
    for view in (plain, secure):
        expected = {**view(policy_of(preset)), "x-frame-options": "SAMEORIGIN"}
        if preset != "off":
            expected[name] = expected[name].replace("frame-ancestors 'none'", "frame-ancestors 'self'")
            assert "frame-ancestors 'self'" in expected[name]
        assert view(framed) == expected
        assert view(own)[name] == "frame-ancestors 'none'"


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("preset", ALL)
def test_overrides(preset: Preset, option: str) -> None:
    """What is said replaces the preset's value as it is, `off` leaves it out, and the others stay."""
    name, value = OPTIONS[option]
    default = policy_of(preset)
    said = policy_of(preset, **{option: value})
    left_out = policy_of(preset, **{option: "off"})
    for view in (plain, secure):
        assert view(said) == {**view(default), name: value}
        assert view(left_out) == {other: each for other, each in view(default).items() if other != name}


@pytest.mark.parametrize(
    "value",
    [
        "no-store",
        "Public, Max-Age=60",
        "max-age=0,must-revalidate",
        'private="set-cookie"',
        "stale-if-error=60, immutable",
        'no-cache="Set-Cookie, Set-Cookie2", max-age="60"',
        "no-store, no-cache, post-check=0, pre-check=0,",
    ],
)
def test_what_caches_are_told(value: str) -> None:
    """A Cache-Control of directives that caches know is sent as it is written."""
    assert plain(policy_of("api", cache_control=value))["cache-control"] == value


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("referrer_policy", "no-referer"),
        ("permissions_policy", "camera 'none'"),
        ("permissions_policy", "camera=(); usb=()"),
        ("permissions_policy", "camera=(example.com)"),
        ("frame_options", "ALLOW-FROM https://a.example"),
        ("opener_policy", "same-site"),
        ("embedder_policy", "same-origin"),
        ("resource_policy", "none"),
        ("cache_control", "no"),
        ("cache_control", "max-age=1h, public"),
        ("cache_control", "max-age"),
        ("cache_control", "public=yes"),
        ("cache_control", "public; max-age=60"),
        ("csp", "default-src self"),
        ("csp_report_only", "script-src 'self'; report-to nowhere"),
        ("preset", "pages"),
        ("reporting_endpoints", ["https://a.example"]),
        ("reporting_endpoints", ["a=http://a.example"]),
        ("reporting_endpoints", ["a=https://[::1/csp"]),
        ("reporting_endpoints", ["a=https://a.example:99999/csp"]),
        ("reporting_endpoints", ['a=https://a.example/"']),
        ("reporting_endpoints", ["a=https://a.example", "a=https://b.example"]),
    ],
)
def test_values_that_browsers_would_pass_over(option: str, value: Any) -> None:
    """A value that a browser would not understand is an error, by its option."""
    with pytest.raises(ConfigError) as caught:
        policy_of(**{option: value})
    assert {fault.name for fault in caught.value.problems} == {option}


def test_upgrades_over_https_only() -> None:
    """An upgrade of insecure requests that was asked for is left out over plain http, wherever it stands."""
    made = policy_of(csp="Upgrade-Insecure-Requests; default-src 'self'", csp_report_only="upgrade-insecure-requests")
    assert plain(made)["content-security-policy"] == "default-src 'self'"
    assert "content-security-policy-report-only" not in plain(made)
    assert secure(made)["content-security-policy"].startswith("Upgrade-Insecure-Requests")


def test_one_text_is_no_list_of_endpoints() -> None:
    """An endpoint that is given as a text alone is told once, with what to write, and not letter by letter."""
    (problem,) = SecurityHeaders(reporting_endpoints="main=https://r.example/a").problems()
    assert problem.name == "reporting_endpoints"
    assert "write reporting_endpoints=('main=https://r.example/a',)" in problem.message


def test_reporting() -> None:
    """Policies report to the first endpoint, in both spellings where endpoints are known, unless they say where to."""
    ends = ("main=https://r.example/a", "other=https://r.example/b")
    made = policy_of("page", reporting_endpoints=ends, csp_report_only="script-src 'none'; report-to other")
    assert secure(made)["reporting-endpoints"] == 'main="https://r.example/a", other="https://r.example/b"'
    assert "reporting-endpoints" not in plain(made)
    for view in (plain, secure):
        csp = directives(view(made)["content-security-policy"])
        assert (csp["report-uri"], csp.get("report-to")) == ("https://r.example/a", None if view is plain else "main")
        assert view(made)["content-security-policy-report-only"] == "script-src 'none'; report-to other"


@pytest.mark.parametrize("over_https", [False, True])
def test_nonces(over_https: bool) -> None:
    """A nonce stands in both policies where they have a place for it, and nothing stands there without one."""
    made = policy_of(
        csp="script-src 'nonce' 'strict-dynamic'; style-src 'nonce'", csp_report_only="img-src 'nonce' data:"
    )
    lines = dict(made.with_nonce("abc", secure=over_https))
    assert lines[b"content-security-policy"] == b"script-src 'nonce-abc' 'strict-dynamic'; style-src 'nonce-abc'"
    assert lines[b"content-security-policy-report-only"] == b"img-src 'nonce-abc' data:"
    without = secure(made) if over_https else plain(made)
    assert without["content-security-policy"] == "script-src 'strict-dynamic'; style-src 'none'"
    assert without["content-security-policy-report-only"] == "img-src data:"
    assert [name for name, _ in made.with_nonce("abc", secure=True)] == [name for name, _ in made.secure]
    assert policy_of("api").with_nonce("abc", secure=over_https) == (
        policy_of().secure if over_https else policy_of().plain
    )


@pytest.mark.parametrize("over_https", [False, True])
def test_keywords_in_any_case(over_https: bool) -> None:
    """A nonce is filled in, and left out, however its place is written."""
    made = policy_of(csp="script-src 'Self' 'NONCE'; upgrade-insecure-requests", csp_report_only="img-src 'Nonce'")
    lines = dict(made.with_nonce("abC", secure=over_https))
    assert lines[b"content-security-policy"].startswith(b"script-src 'self' 'nonce-abC'")
    assert lines[b"content-security-policy-report-only"] == b"img-src 'nonce-abC'"
    without = secure(made) if over_https else plain(made)
    assert without["content-security-policy"].startswith("script-src 'self'")
    assert "nonce" not in without["content-security-policy"].lower()
    assert without["content-security-policy-report-only"] == "img-src 'none'"


def test_rows() -> None:
    """A row's preset leaves behind what was said beside the other, but for the host's own; its options do not."""
    default = SecurityHeaders(
        "page", csp="default-src 'self'", hsts="max-age=1", reporting_endpoints=("a=https://a.example",)
    )
    docs = SecurityHeaders("docs").over(default)
    assert (docs.csp, docs.hsts, docs.reporting_endpoints) == (None, "max-age=1", ("a=https://a.example",))
    framed = SecurityHeaders(frame_options="SAMEORIGIN").over(default)
    assert str(SecurityHeaders("api", csp="off")) == "preset: api; csp: off"
    assert (framed.preset, framed.csp, framed.frame_options) == ("page", "default-src 'self'", "SAMEORIGIN")


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
    assert secure(policy_of(hsts=value))["strict-transport-security"] == value


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
    with pytest.raises(ConfigError, match=says) as caught:
        policy_of(hsts=value)
    assert [fault.name for fault in caught.value.problems] == ["hsts"]


@pytest.mark.parametrize("value", ["", "  ", "a\nb", "a\r\nset-cookie: x", "a\0", "a\tb", "ä", "\x7f"])
def test_every_fault_is_told_at_once(value: str) -> None:
    """Values that cannot stand in a header are all told together, by option."""
    with pytest.raises(ConfigError) as caught:
        SecurityPolicy.of(SecurityHeaders(None, **dict.fromkeys(OPTIONS, value), hsts="preload"))
    assert [fault.name for fault in caught.value.problems] == [
        name for name in SecurityHeaders.__dataclass_fields__ if name in OPTIONS or name == "hsts"
    ]
    for fault in caught.value.problems:
        assert f"{fault.name}: {fault.message}" in str(caught.value)


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
        policy = policy_of(preset, csp=csp, hsts=hsts)
    except ConfigError as error:
        assert {fault.name for fault in error.problems} <= {"csp", "hsts"}  # noqa: PT017 - either outcome may be right
    else:
        for _, value in policy.secure:
            assert all(32 <= byte < 127 for byte in value)
