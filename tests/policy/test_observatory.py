"""The grade: the points of each header, and the scores of sets that the Observatory itself has graded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_guard.policy.observatory import BEST, grade
from asgi_guard.policy.security import Preset, SecurityHeaders, SecurityPolicy

HSTS = {"strict-transport-security": "max-age=31536000; includeSubDomains"}
COMMON = {**HSTS, "x-content-type-options": "nosniff"}
ISOLATED = {"cross-origin-opener-policy": "same-origin", "cross-origin-resource-policy": "same-origin"}
HELMET = (
    "default-src 'self';base-uri 'self';font-src 'self' https: data:;form-action 'self';frame-ancestors 'self';"
    "img-src 'self' data:;object-src 'none';script-src 'self';script-src-attr 'none';style-src 'self' https: "
    "'unsafe-inline';upgrade-insecure-requests"
)
OWASP = (
    "default-src 'self'; form-action 'self'; base-uri 'self'; object-src 'none'; frame-ancestors 'none'; "
    "upgrade-insecure-requests"
)


def score(headers: dict[str, str]) -> int:
    return grade((name.encode(), value.encode()) for name, value in headers.items()).score


def points(test: str, headers: dict[str, str]) -> int:
    found = grade((name.encode(), value.encode()) for name, value in headers.items())
    (result,) = (each for each in found.results if each.test == test)
    assert bool(result.better) is bool(result.option)
    return result.points


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ({}, 30),
        ({"x-content-type-options": "nosniff", "x-frame-options": "DENY", "referrer-policy": "same-origin",
          "cross-origin-opener-policy": "same-origin"}, 55),
        ({**COMMON, **ISOLATED, "content-security-policy": HELMET, "x-frame-options": "SAMEORIGIN",
          "referrer-policy": "no-referrer"}, 130),
        ({**COMMON, **ISOLATED, "content-security-policy": OWASP, "x-frame-options": "deny",
          "referrer-policy": "no-referrer", "cross-origin-embedder-policy": "require-corp"}, 145),
    ],
    ids=["nothing", "django", "helmet", "owasp"],
)  # fmt: skip
def test_known_sets(headers: dict[str, str], wanted: int) -> None:
    """Sets of headers whose score the Observatory has told get the same score here."""
    assert score(headers) == wanted


@pytest.mark.parametrize(("preset", "least"), [("api", 150), ("page", 130)])
def test_presets(preset: Preset, least: int) -> None:
    """The presets reach what they promise, with a nonce as well as without."""
    policy = SecurityPolicy.of(SecurityHeaders(preset))
    for lines in (policy.secure, policy.with_nonce("abc", secure=True)):
        assert grade(lines).score >= least
        assert grade(lines).letter == "A+"


@pytest.mark.parametrize(
    ("csp", "wanted"),
    [
        (None, -25),
        (";;", -25),
        ("default-src 'none'", 10),
        ("default-src", 10),
        ("default-src 'none'; script-src 'self'", 10),
        ("default-src 'self'", 5),
        ("img-src 'self'", -20),
        ("script-src 'self'", -20),
        ("script-src 'self'; object-src 'none'", 0),
        ("default-src 'self'; script-src https:", -20),
        ("default-src 'self'; script-src 'self' data:", -20),
        ("default-src 'self'; script-src 'unsafe-inline'", -20),
        ("default-src 'self'; script-src 'unsafe-inline' 'nonce-abc'", 5),
        ("default-src 'self'; script-src 'strict-dynamic' https: 'nonce-abc'", 5),
        ("default-src 'self'; script-src 'strict-dynamic'", -25),
        ("default-src 'self'; object-src *", -20),
        ("default-src 'self'; script-src http://a.example", -20),
        ("default-src 'self'; connect-src http://a.example", -20),
        ("default-src 'self'; script-src 'self' 'unsafe-eval'", -10),
        ("default-src 'self'; img-src http://a.example", -10),
        ("default-src 'self'; style-src 'unsafe-inline'", 0),
        ("default-src 'self'; style-src 'unsafe-inline' 'sha256-abc='", 5),
        ("DEFAULT-SRC 'NONE'", 10),
    ],
)
def test_policies(csp: str | None, wanted: int) -> None:
    """The first thing that is unsafe in a policy decides what it costs."""
    headers = {} if csp is None else {"content-security-policy": csp}
    assert points("content-security-policy", headers) == wanted


@pytest.mark.parametrize(
    ("test", "value", "wanted"),
    [
        ("strict-transport-security", "max-age=15552000", 0),
        ("strict-transport-security", "includeSubDomains; MAX-AGE=15551999", -10),
        ("strict-transport-security", "max-age=1, max-age=2", -20),
        ("strict-transport-security", "includeSubDomains", -20),
        ("strict-transport-security", "max-age=x", -20),
        ("x-content-type-options", "NoSniff", 0),
        ("x-content-type-options", "sniff", -5),
        ("x-frame-options", "sameorigin", 0),
        ("x-frame-options", "ALLOWALL", -20),
        ("referrer-policy", "no-referrer, same-origin", 5),
        ("referrer-policy", "no-referrer, origin", -5),
        ("referrer-policy", "invention, no-referrer", 5),
        ("referrer-policy", "invention", -5),
        ("cross-origin-resource-policy", "same-site", 10),
        ("cross-origin-resource-policy", "cross-origin", 0),
        ("cross-origin-resource-policy", "none", -5),
        ("cross-origin-opener-policy", 'same-origin; report-to="x"', 10),
        ("cross-origin-opener-policy", "same-origin-allow-popups", 0),
        ("cross-origin-opener-policy", "Same-Origin", -5),
        ("cross-origin-embedder-policy", "credentialless", 0),
    ],
)
def test_headers(test: str, value: str, wanted: int) -> None:
    """Each other header has its points by its value."""
    assert points(test, {test: value}) == wanted


def test_only_reported() -> None:
    """A policy that is only reported counts as none, and that is said."""
    found = grade([(b"Content-Security-Policy-Report-Only", b"default-src 'none'")]).results[0]
    assert (found.points, found.found) == (-25, "only reported, not enforced")


@pytest.mark.parametrize(("missing", "letter"), [("x-content-type-options", "A+"), ("strict-transport-security", "B+")])
def test_extra_is_for_those_who_have_the_rest(missing: str, letter: str) -> None:
    """Who loses more than ten points gets none on top."""
    lines = [line for line in SecurityPolicy.of().secure if line[0] != missing.encode()]
    found = grade(lines)
    assert found.letter == letter
    assert found.score == (145 if letter == "A+" else 80)


@given(st.lists(st.tuples(st.sampled_from([name for name, _ in SecurityPolicy.of().secure]), st.binary(max_size=20))))
def test_any_headers(lines: list[tuple[bytes, bytes]]) -> None:
    """Whatever is sent gets a score within bounds, and never more than the best."""
    assert 0 <= grade(lines).score <= BEST
