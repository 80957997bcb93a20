"""What proofs are judged by: thumbprints, URLs, nonces, bindings, and the memory of what was seen."""

from __future__ import annotations

from base64 import urlsafe_b64decode

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.errors import TokenError
from asgi_guard.policy.claims import confirmation
from asgi_guard.policy.dpop import DPoPPolicy, Nonces, SeenProofs, normalised, thumbprint, url_of
from asgi_guard.testing import ProofKey
from tests.policy.test_dpop import POLICY, RFC_KEY, SECRET


def test_thumbprints_are_those_of_the_standards() -> None:
    """The thumbprints of RFC 7638 section 3.1 and RFC 8037 appendix A.3 come out, whatever else the keys say."""
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjh"
        "Mstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvR"
        "L5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDK"
        "gw"
    )
    rsa_key = {"kty": "RSA", "n": modulus, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"}
    assert thumbprint(rsa_key) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    private = Ed25519PrivateKey.from_private_bytes(urlsafe_b64decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="))
    assert ProofKey("EdDSA", private).cnf == {"jkt": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"}


@pytest.mark.parametrize(
    ("scheme", "host", "raw_path", "expected"),
    [
        ("https", [b"api.example"], b"/items", "https://api.example:443/items"),
        ("http", [b"api.example"], b"/items", "http://api.example:80/items"),
        ("wss", [b"api.example"], b"/chat", "https://api.example:443/chat"),
        ("ws", [b"api.example"], b"/chat", "http://api.example:80/chat"),
        ("ws", [b"api.example:8000"], b"/chat", "http://api.example:8000/chat"),
        ("https", [b"API.Example:443"], b"/items", "https://api.example:443/items"),
        ("https", [b"[::1]:8443"], b"/", "https://[::1]:8443/"),
        ("https", [b"[2001:DB8::1]"], b"/", "https://[2001:db8::1]:443/"),
        ("https", [b"api.example"], b"", "https://api.example:443/"),
        ("https", [b"api.example"], b"/items?page=1", "https://api.example:443/items"),
        ("https", [b"api.example"], b"/a%2fb%7E%c3%a9", "https://api.example:443/a%2Fb~%C3%A9"),
        ("https", [b"api.example"], None, "https://api.example:443/caf%C3%A9%20au"),
        ("https", [], b"/items", None),
        ("https", [b"api.example", b"api.example"], b"/items", None),
        ("https", [b""], b"/items", None),
        ("https", [b"api.example/x"], b"/items", None),
        ("https", [b"user@api.example"], b"/items", None),
        ("https", [b"api.example, evil.test"], b"/items", None),
        ("https", [b"api.example:"], b"/items", "https://api.example:443/items"),
        ("https", [b"api.ex\xe4mple"], b"/items", None),
        ("https", [b"api.example"], b"/caf\xe9", None),
        ("https", [b"api.example"], b"/items#x", None),
        ("https", [b"api.example"], b"/a b", None),
        ("https", [b"api.example"], b"/a\x00b", None),
        ("ftp", [b"api.example"], b"/items", None),
        ("", [b"api.example"], b"/items", None),
    ],
)
def test_the_url_of_a_request(scheme: str, host: list[bytes], raw_path: bytes | None, expected: str | None) -> None:
    """The URL is told as the client sees it, or not at all."""
    assert url_of(scheme, host, raw_path, "/café au") == expected


@pytest.mark.parametrize(
    ("raw_path", "root_path", "path"),
    [
        (b"/items", "/api", "/api/items"), (b"/items?a=b", "api/", "/api/items"), (b"/", "/api", "/api/"),
        (b"/api/items", "/api", "/api/items"), (b"/api", "/api", "/api"), (b"/api/", "/api", "/api/"),
        (b"/apiary", "/api", "/api/apiary"), (b"/api/api", "/api", "/api/api"), (b"/items", "/", "/items"),
        (b"/items", "", "/items"), (b"/items", "/a b", "/a%20b/items"), (b"/a%20b/items", "/a b", "/a%20b/items"),
        (b"/%61pi/items", "/api", "/api/items"), (b"/%C3%A9/x", "/\xe9", "/%C3%A9/x"), (None, "/api", "/api/items"),
    ],
)  # fmt: skip
def test_the_url_below_a_root_path(raw_path: bytes | None, root_path: str, path: str) -> None:
    """A root path is put before a path from which it was taken away, and before no other."""
    found = url_of("https", [b"api.example"], raw_path, "/items", root_path)
    assert found == f"https://api.example:443{path}"


@given(st.text(), st.lists(st.binary(), max_size=2), st.none() | st.binary(), st.text(), st.text())
@example("https", [b"h"], None, "/\ud800", "")
@example("https", [b"h"], b"/\xff", "", "\ud800 %41")
@example("https", [b"[" + b":" * 50], b"/%", "", "")
@example("https", [b"h"], b"/%%34%31", "", "")
@example("https", [b"h"], b"/%2541%7e", "", "/")
def test_any_request_has_a_url_or_none(
    scheme: str, host: list[bytes], raw_path: bytes | None, path: str, root_path: str
) -> None:
    """No bytes of a request raise, and a URL that is told is in its one spelling."""
    url = url_of(scheme, host, raw_path, path, root_path)
    assert url is None or normalised(url) == url


@given(st.integers(0, 2**40), st.floats(0, 300, exclude_max=True), st.floats(-300, 300))
def test_a_nonce_lives_for_a_period_at_least(start: int, offset: float, later: float) -> None:
    """A nonce counts for a period after it was told, though the next one is told by then, and across workers."""
    told = start + offset
    assert Nonces(SECRET).accepts(Nonces(SECRET).current(told), told + later)


def test_a_nonce_ends() -> None:
    """Two periods after it was told, a nonce counts no more, and it holds nothing of the secret."""
    nonces = Nonces(SECRET, period=10)
    told = nonces.current(100)
    assert [nonces.accepts(told, at) for at in (89, 90, 100, 109, 119.9, 120)] == [False, True, True, True, True, False]
    assert len(told) == 43
    assert told != nonces.current(110)


def test_a_proof_is_seen_once() -> None:
    """A proof is new once, until it could not come again."""
    seen = SeenProofs(120)
    times = [seen.add("a", "u", 0), seen.add("a", "u", 0), seen.add("b", "u", 60), seen.add("a", "u", 119.9)]
    assert times == [True, False, True, False]
    assert seen.add("a", "u", 120)
    assert not seen.add("a", "u", 239)


def test_room_for_proofs_is_bounded() -> None:
    """When there is no room, that is told, and nothing that could come again is forgotten."""
    seen = SeenProofs(10, size=2)
    assert not seen.is_full("u", 0)
    assert seen.add("a", "u", 0)
    assert seen.is_full("u", 0)
    assert seen.add("b", "v", 5)
    assert seen.is_full("w", 9)
    assert len(seen) == 2
    assert not seen.is_full("u", 10)
    assert len(seen) == 1
    assert not seen.add("b", "v", 10)
    again = SeenProofs(10, size=20)
    assert [again.add("a", "u", 0), again.add("a", "u", 10), again.is_full("u", 10)] == [True, True, False]


def test_no_user_takes_the_room_of_others() -> None:
    """Who has a tenth of the room gets no more, until the first of his can come no more; the others have theirs."""
    seen = SeenProofs(10, size=39)
    for number in range(3):
        assert not seen.is_full("u", number)
        assert seen.add(f"u{number}", "u", number)
    assert seen.is_full("u", 3)
    assert not seen.is_full("v", 3)
    assert not seen.is_full("u", 10)
    assert seen.add("u0", "u", 10)
    assert seen.is_full("u", 10)
    assert not seen.is_full("u", 30)
    assert len(seen) == 0
    assert not seen._owned  # nor is anything kept of who came once


@given(st.floats(-100, 100), st.floats(-100, 100), st.floats(0, POLICY.leeway))
@example(-2 * POLICY.leeway, POLICY.max_age, POLICY.leeway)
def test_what_is_forgotten_cannot_come_again(first: float, again: float, ahead: float) -> None:
    """Whenever a proof is taken, it is remembered for as long as any worker takes it, by clocks that differ."""
    iat = 0.0
    taken = [-POLICY.leeway <= clock - iat <= POLICY.max_age for clock in (first + ahead, again)]
    if all(taken):
        assert again - first <= POLICY.life


@pytest.mark.parametrize(("max_age", "leeway", "life"), [(60, 30, 120), (60, 0, 60), (10, 1, 12)])
def test_a_proof_is_remembered_no_longer_than_it_has_to_be(max_age: float, leeway: float, life: float) -> None:
    """A proof takes its room for its age, the leeway of the client and that of the worker."""
    assert DPoPPolicy(max_age=max_age, leeway=leeway).life == life


@pytest.mark.parametrize(
    "cnf",
    [
        None, "x", [], {}, {"jkt": ""}, {"jkt": RFC_KEY[1:]}, {"jkt": RFC_KEY + "="}, {"jkt": RFC_KEY + "\n"},
        {"jkt": None}, {"jkt": [RFC_KEY]}, {"jwk": {}}, {"jkt": RFC_KEY, "new": RFC_KEY}, {"new": RFC_KEY},
    ],
)  # fmt: skip
def test_a_token_is_bound_to_what_is_known(cnf: object) -> None:
    """A binding that is not a thumbprint of the known kind, and nothing else beside it, is refused."""
    with pytest.raises(TokenError) as caught:
        confirmation({"cnf": cnf}, {"jkt"})
    assert caught.value.reason == "claim"
    assert confirmation({"cnf": {"jkt": RFC_KEY}}, {"jkt"}) == {"jkt": RFC_KEY}
    assert confirmation({}, {"jkt"}) == {}
