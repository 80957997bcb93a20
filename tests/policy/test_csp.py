"""Content-Security-Policy: what is written, read and found wrong."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard import csp
from asgi_guard.errors import ConfigError
from asgi_guard.policy.csp import DIRECTIVES, csp_problems, directives, in_lower_case, without_nonce


def test_written() -> None:
    """A policy is written directive by directive, as the header wants it."""
    policy = csp.CSP(
        default_src=(csp.NONE,), script_src=(csp.SELF, csp.NONCE, "https://cdn.example"), sandbox=(),
        upgrade_insecure_requests=True,
    )  # fmt: skip
    text = "default-src 'none'; script-src 'self' 'nonce' https://cdn.example; sandbox; upgrade-insecure-requests"
    assert str(policy) == text
    assert csp.CSP.parse(f" {text} ;") == policy


def test_hashes() -> None:
    """The source of an inline script is the hash of what stands between its tags."""
    digest = base64.b64encode(hashlib.sha256("alert('é')".encode()).digest()).decode()
    assert csp.sha256("alert('é')") == f"'sha256-{digest}'"
    assert str(csp.CSP(script_src=(csp.sha256("x"), csp.STRICT_DYNAMIC))).endswith("=' 'strict-dynamic'")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no directive"),
        (" ; ", "no directive"),
        ("script-srcs 'self'", "did you mean script-src"),
        ("default-src self", "write 'self'"),
        ("default-src None", "write 'none'"),
        ("script-src nonce", "write 'nonce'"),
        ("script-src 'unsafe-inlined'", "no keyword and no hash"),
        ("script-src 'sha256-é'", "cannot stand in a policy"),
        ("script-src 'sha1-abc='", "no keyword and no hash"),
        ("default-src 'none' https://a.example", "'none' beside other sources"),
        ("default-src 'self' script-src 'self'", "is a ';' missing"),
        ("default-src 'self', script-src 'self'", "cannot stand in a policy"),
        ("img-src *; img-src 'self'", "img-src stands there twice"),
        ("script-src 'nonce-abc'", "write 'nonce'"),
        ("script-src 'strict-dynamic' https:", "lets nothing run"),
        ("upgrade-insecure-requests 1", "takes no value"),
        ("default-src 'NONE' https://a.example", "'none' beside other sources"),
        ("script-src 'Strict-Dynamic' https:", "lets nothing run"),
        ("webrtc", "webrtc is 'allow' or 'block'"),
        ("webrtc block", "webrtc is 'allow' or 'block'"),
        ("webrtc 'none'", "webrtc is 'allow' or 'block'"),
        ("webrtc 'allow' 'block'", "webrtc is 'allow' or 'block'"),
        ("script-src 'allow'", "no keyword and no hash"),
    ],
)
def test_faults(text: str, says: str) -> None:
    """What browsers would pass over, or take for something else, is an error."""
    with pytest.raises(ConfigError, match=says):
        csp.CSP.parse(text)
    assert {fault.name for fault in csp_problems(text, "here")} == {"here"}


def test_one_text_is_no_list_of_sources() -> None:
    """One text would be taken for sources of a letter each."""
    with pytest.raises(ConfigError, match=r"write default_src=\('https://a.example',\)"):
        csp.CSP(default_src="https://a.example")  # type: ignore[arg-type]  # that is what is tested


def test_faults_of_what_is_built() -> None:
    """A policy that is built is held to the same, all at once."""
    with pytest.raises(ValueError, match="write 'self'") as caught:
        csp.CSP(default_src=("self",), img_src=(csp.NONE, csp.SELF))
    assert "'none' beside" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("script-src 'self' 'nonce'; img-src *", "script-src 'self'; img-src *"),
        ("script-src 'nonce'", "script-src 'none'"),
        (
            "script-src 'self' 'nonce' 'unsafe-inline'; style-src 'unsafe-inline'",
            "script-src 'self'; style-src 'unsafe-inline'",
        ),
        ("script-src 'unsafe-inline' 'nonce'", "script-src 'none'"),
        ("script-src 'Nonce' 'Unsafe-Inline' https:", "script-src https:"),
        ("default-src 'nonce' 'strict-dynamic' 'unsafe-inline'", "default-src 'strict-dynamic'"),
        ("Script-Src 'self'", "Script-Src 'self'"),
    ],
)
def test_without_a_nonce(text: str, without: str) -> None:
    """Without a nonce its place is left out, with `'unsafe-inline'`, which a nonce makes browsers pass over."""
    assert without_nonce(text) == without


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Script-Src 'Nonce' 'STRICT-DYNAMIC'", "Script-Src 'nonce' 'strict-dynamic'"),
        ("default-src 'None';img-src 'SELF'", "default-src 'none';img-src 'self'"),
        ("script-src 'sha256-AbC=' 'Self'", "script-src 'sha256-AbC=' 'self'"),
        ("webrtc 'Block'", "webrtc 'block'"),
        ("img-src https://a.example/'SELF'/x 'OTHER'", "img-src https://a.example/'SELF'/x 'OTHER'"),
    ],
)
def test_keywords_in_any_case(text: str, read: str) -> None:
    """A keyword is one in any case, and goes on in lower case; what else stands there stays as it is written."""
    assert in_lower_case(text) == read
    assert directives(text) == directives(read)


@pytest.mark.parametrize("value", ["'allow'", "'block'"])
def test_webrtc(value: str) -> None:
    """Whether a page may connect to its peers is said by one of two words."""
    policy = csp.CSP(default_src=(csp.SELF,), webrtc=(value,))
    assert str(policy) == f"default-src 'self'; webrtc {value}"
    assert csp.CSP.parse(str(policy)) == policy


sources = st.lists(
    st.sampled_from(
        [
            *(csp.SELF, csp.NONCE, csp.UNSAFE_EVAL, csp.UNSAFE_INLINE, csp.sha256("x")),
            *("https:", "https://a.example:8443/x", "data:"),
        ]
    ),
    min_size=1,
    unique=True,
).map(tuple)
fetched = st.sampled_from(sorted(name.replace("-", "_") for name in DIRECTIVES if name.endswith("-src")))


@given(st.dictionaries(fetched, sources, min_size=1))
@example({"script_src": (csp.NONCE, "data:")})
def test_what_is_written_is_read(parts: dict[str, tuple[str, ...]]) -> None:
    """Any policy that can be built is read back as it was, and has no source of its nonce left without one."""
    policy = csp.CSP(**parts)  # type: ignore[arg-type]  # mypy takes every value for that of every argument
    assert csp.CSP.parse(str(policy)) == policy
    assert directives(str(policy)) == {name.replace("_", "-"): values for name, values in parts.items()}
    without = directives(without_nonce(str(policy)))
    for name, values in directives(str(policy)).items():
        left = {csp.NONCE, csp.UNSAFE_INLINE} if csp.NONCE in values else set()
        assert set(without[name]) == (set(values) - left or {csp.NONE})
