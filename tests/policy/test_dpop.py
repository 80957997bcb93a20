"""Proofs of possession: whatever is not exactly right about one, it is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from asgi_guard.errors import TokenError
from asgi_guard.policy import keys
from asgi_guard.policy.dpop import (
    MAX_JTI_LENGTH,
    MAX_PROOF_BYTES,
    DPoPPolicy,
    Nonces,
    ProofError,
    Request,
    normalised,
    thumbprint,
)
from asgi_guard.policy.token import parse
from asgi_guard.testing import ProofKey
from tests.policy.forging import ALL, NOW, b64, compact, encoded, jwk, private_key, sign

# RFC 9449, figures 2, 9, 12 and 13: the proofs share one key.
RFC_KEY = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
RFC_TOKEN = b"Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
RFC_HEADER = (
    b"eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJo"
    b"RjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19"
)
RFC_TOKEN_PROOF = (
    RFC_HEADER + b".eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3"
    b"Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ"
    b".2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
)
RFC_PROOF = (
    RFC_HEADER + b".eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy"
    b"9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbV"
    b"FFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
)
RFC_REQUEST = Request("GET", normalised("https://resource.example.org/protectedresource"))
RFC_NOW = 1562262618

POLICY = DPoPPolicy()
KEY = ProofKey(private=private_key("ES256"))
TOKEN = "the.access.token"
URL = "https://api.example/items"
REQUEST = Request("GET", normalised(URL))


def proof(key: ProofKey = KEY, **changes: Any) -> bytes:
    """A proof that is right but for the changes."""
    members = {"method": "GET", "url": URL, "iat": NOW, "jti": "j1", **changes}
    return key.proof(TOKEN, members.pop("method"), members.pop("url"), **members).encode()


def verify(*proofs: bytes, policy: DPoPPolicy = POLICY, key: ProofKey = KEY, now: float = NOW, **changes: Any) -> str:
    """What the policy makes of a request's proofs."""
    request = Request(changes.get("method", REQUEST.method), changes.get("url", REQUEST.url))
    token = changes.get("token", TOKEN.encode())
    return policy.verify(proofs, token, key.cnf["jkt"], request, now)


def refusal(*proofs: bytes, **facts: Any) -> str:
    """The reason why proofs are refused."""
    with pytest.raises(TokenError) as caught:
        verify(*proofs, **facts)
    assert isinstance(caught.value, ProofError) == caught.value.reason.startswith("proof_")
    for each in proofs:
        assert len(each) < 20 or each.decode("latin-1") not in str(caught.value)
    return caught.value.reason


def test_the_proof_of_the_standard_is_good() -> None:
    """The example of RFC 9449 section 7.1 proves what it says, and is wrong for anything else."""
    assert POLICY.verify([RFC_PROOF], RFC_TOKEN, RFC_KEY, RFC_REQUEST, RFC_NOW)
    for token, now in ((RFC_TOKEN + b"x", RFC_NOW), (RFC_TOKEN, RFC_NOW + 61), (RFC_TOKEN, RFC_NOW - 31)):
        with pytest.raises(ProofError):
            POLICY.verify([RFC_PROOF], token, RFC_KEY, RFC_REQUEST, now)


def test_the_proof_for_a_token_endpoint_opens_nothing() -> None:
    """The example of RFC 9449 section 4.2 has a right signature and names no token, so no token is proved by it."""
    parsed = parse(RFC_TOKEN_PROOF, ALL)
    assert keys.load(parsed.header["jwk"], frozenset({"ES256"})).verifies(
        "ES256", parsed.signing_input, parsed.signature
    )
    request = Request("POST", normalised("https://server.example.com/token"))
    with pytest.raises(ProofError) as caught:
        POLICY.verify([RFC_TOKEN_PROOF], RFC_TOKEN, RFC_KEY, request, RFC_NOW)
    assert caught.value.reason == "proof_token"


@pytest.mark.parametrize("algorithm", sorted(ALL))
def test_every_asymmetric_algorithm(algorithm: str) -> None:
    """Whatever key the client has, of a kind that issuers may have as well, its proofs are good."""
    key = ProofKey("ES256", private_key("ES256"))
    key.jwk = jwk(algorithm, kid=None)
    key.cnf = {"jkt": thumbprint(key.jwk)}
    ath = parse(proof(), ALL).claims["ath"]
    claims = {"jti": "j1", "htm": "GET", "htu": URL, "iat": NOW, "ath": ath}
    signing_input = encoded({"typ": "dpop+jwt", "alg": algorithm, "jwk": key.jwk}) + b"." + encoded(claims)
    assert verify(signing_input + b"." + b64(sign(algorithm, signing_input)), key=key)


def test_there_is_exactly_one_proof() -> None:
    """None, two of them, or two in one line prove nothing."""
    assert refusal() == "proof_missing"
    assert refusal(proof(), proof()) == "proof_repeated"
    assert refusal(proof() + b", " + proof()) == "proof_malformed"
    assert refusal(b"") == "proof_malformed"


@pytest.mark.parametrize("kind", [None, "", "JWT", "at+jwt", "DPOP+JWT", "application/dpop+jwt", 1, ["dpop+jwt"]])
def test_the_type_is_that_of_proofs(kind: object) -> None:
    """Nothing that a key has signed for another purpose is a proof."""
    signing_input = encoded({"typ": kind, "alg": "ES256", "jwk": KEY.jwk}) + b"." + proof().split(b".")[1]
    assert refusal(signing_input + b"." + b64(sign("ES256", signing_input))) == "proof_type"


@pytest.mark.parametrize("algorithm", ["none", "HS256", "es256", "", None, 1, ["ES256"]])
def test_algorithms_are_asymmetric_and_exact(algorithm: object) -> None:
    """A proof with no signature, with one that a shared secret makes, or with a misspelt algorithm is refused."""
    header = {"typ": "dpop+jwt", "alg": algorithm, "jwk": KEY.jwk}
    assert refusal(compact(header, {"jti": "j1"})) == "proof_malformed"


@pytest.mark.parametrize("extra", [{"crit": ["b64"]}, {"b64": False}, {"zip": "DEF"}, {"cty": "JWT"}])
def test_the_strict_parser_reads_proofs(extra: dict[str, Any]) -> None:
    """What no token may have in its header, no proof may have."""
    assert refusal(proof(headers=extra)) == "proof_malformed"


def test_another_key_is_no_proof_for_this_token() -> None:
    """A good proof by a key that the token is not bound to says that the token is not that client's."""
    assert refusal(proof(ProofKey())) == "binding"


def test_the_signature_is_the_keys_own() -> None:
    """A proof that names the right key, and that another key has signed, is refused."""
    thief = ProofKey()
    thief.jwk = KEY.jwk
    assert refusal(proof(thief)) == "proof_signature"
    good = proof()
    assert refusal(good.rpartition(b".")[0] + b".") == "proof_signature"
    zero = good.rpartition(b".")[0] + b"." + b64(bytes(64))
    assert refusal(zero) == "proof_signature"


@pytest.mark.parametrize("jti", [None, "", 1, ["j"], {"j": 1}, True, "j" * (MAX_JTI_LENGTH + 1)])
def test_a_proof_has_an_id(jti: object) -> None:
    """A proof without a bounded id could not be told from its replay."""
    assert refusal(proof(jti=jti)) == "proof_malformed"


def test_ids_may_be_long_and_odd() -> None:
    """Any text of the allowed length is an id."""
    assert verify(proof(jti="j"))
    assert verify(proof(jti="j" * MAX_JTI_LENGTH)) != verify(proof(jti="\0é\U0001f511"))


@pytest.mark.parametrize("method", ["POST", "get", "Get", "", None, 1, ["GET"], "GET "])
def test_the_method_is_that_of_the_request(method: Any) -> None:
    """A proof is for one method, as it is spelt in requests."""
    assert refusal(proof(htm=method)) == "proof_method"


@pytest.mark.parametrize(
    "url",
    [
        "https://API.example/items", "HTTPS://api.example/items", "https://api.example:443/items",
        "https://api.example:/items", "https://api.example:0443/items", "https://api.example/items?page=1",
        "https://api.example/items#top", "https://api.example/items?a=https://evil.example/#b", "https://api.example/%69tems",
        "wss://api.example/items",
    ],
)  # fmt: skip
def test_spellings_of_one_url(url: str) -> None:
    """The URL is compared without its query and fragment, and as RFC 3986 says that URLs are the same."""
    assert verify(proof(htu=url))


@pytest.mark.parametrize(
    "url",
    [
        None, "", 1, ["https://api.example/items"], "/items", "//api.example/items", "api.example/items",
        "http://api.example/items", "ws://api.example/items", "ftp://api.example/items", "https://api.example",
        "https://api.example/", "https://api.example/Items", "https://api.example/items/", "https://api.example//items",
        "https://api.example/./items", "https://api.example/x/../items", "https://api.example/items%2F",
        "https://api.example:80/items", "https://api.example:8443/items", "https://api.example.evil.test/items",
        "https://evil.test/https://api.example/items", "https://api.example@evil.test/items",
        "https://user@api.example/items", "https://api.example\\@evil.test/items", "https://api.example./items",
        " https://api.example/items", "https://api.example/items ", "https://api.example/it\tems",
        "https://api.example/items\n", "https://api.ex\u00e4mple/items", "https://api.example:99999999/items",
        "https://api.example:x/items", "https:///items", "https:api.example/items", "https://api.example;/items",
        "https://[api.example]/items", "https://api.example/items;a=1", "https://\uff41pi.example/items",
    ],
)  # fmt: skip
def test_other_urls(url: object) -> None:
    """A proof for any other URL, or for something that is none, is refused."""
    assert refusal(proof(htu=url)) == "proof_url"


def test_a_request_whose_url_nobody_knows() -> None:
    """No proof is for a request whose URL cannot be told, not even one that is just as unclear."""
    assert refusal(proof(htu="https:///items"), url=None) == "proof_url"
    assert refusal(proof(htu=None), url=None) == "proof_url"


@pytest.mark.parametrize("iat", [NOW - 60, NOW - 60 + 0.5, NOW, NOW + 0.5, NOW + 30])
def test_a_proof_is_made_for_now(iat: float) -> None:
    """A proof counts for a minute, and a client's clock may be half a minute ahead."""
    assert verify(proof(iat=iat))


@pytest.mark.parametrize(
    "iat",
    [None, NOW - 60.5, NOW + 30.5, 0, -NOW, 10**400, float(10**300), True, str(NOW), [NOW], {"at": NOW}, NOW * 1000],
)
def test_a_proof_of_another_time(iat: object) -> None:
    """A proof that is old, made for later, or that says no time is refused."""
    assert refusal(proof(iat=iat)) == "proof_time"


@pytest.mark.parametrize("ath", [None, "", "x", 1, ["x"], "\ud83d\udd11", TOKEN, RFC_KEY])
def test_a_proof_is_for_one_token(ath: object) -> None:
    """A proof names the token that it goes with, by its hash."""
    assert refusal(proof(ath=ath)) == "proof_token"


def test_a_proof_goes_with_no_other_token() -> None:
    """A token that was stolen is not proved by a proof for another one of the same client."""
    assert refusal(proof(), token=b"another.access.token") == "proof_token"


def test_proofs_are_remembered_by_key_and_id() -> None:
    """One id of one key has one name, of bounded length, whatever else the proof says; others have others."""
    name = verify(proof())
    assert name == verify(proof(iat=NOW - 5, extra="x"))
    assert name != verify(proof(jti="j2"))
    other = ProofKey()
    assert name != verify(proof(other), key=other)
    assert len(verify(proof(jti="j" * MAX_JTI_LENGTH))) == len(name) == 32


def test_large_proofs_are_refused_unread() -> None:
    """A proof is of bounded size."""
    assert refusal(proof(extra="x" * MAX_PROOF_BYTES)) == "proof_malformed"
    assert refusal(b"." * (MAX_PROOF_BYTES + 1)) == "proof_malformed"
    with pytest.raises(ProofError, match="three segments"):
        verify(b"." * MAX_PROOF_BYTES)


GOOD = proof()
CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.= \0"


@given(st.integers(0, len(GOOD) - 1), st.sampled_from(CHARACTERS))
@example(len(GOOD) - 1, "A")
@example(len(GOOD) - 1, "=")
@example(0, "f")
@example(GOOD.index(b"."), "-")
def test_any_change_of_a_proof_is_refused(at: int, character: str) -> None:
    """No character of a proof may be another one."""
    changed = GOOD[:at] + character.encode() + GOOD[at + 1 :]
    if changed == GOOD:
        assert verify(changed)
    else:
        assert refusal(changed)


@given(st.lists(st.binary(max_size=200), max_size=2))
@example([b"\xff.\xff.\xff"])
@example([b"e30.e30."])
def test_no_bytes_raise_anything_else(proofs: list[bytes]) -> None:
    """Whatever stands in the header is refused as a proof."""
    assert refusal(*proofs).startswith("proof_")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from(["htm", "htu", "iat", "ath", "jti"]), VALUES, max_size=2),
    st.dictionaries(st.sampled_from([*KEY.jwk, "d"]), VALUES, max_size=2),
)
@example({}, {"kty": {}})
@example({"jti": None}, {})
def test_no_members_raise_anything_else(claims: dict[str, Any], members: dict[str, Any]) -> None:
    """A signed proof whose claims or key are of any other type is refused."""
    assume((claims and not isinstance(claims.get("jti"), str)) or members)
    reason = refusal(proof(headers={"jwk": {**KEY.jwk, **members}}, **claims))
    assert reason == "binding" or reason.startswith("proof_")


SECRET = "a secret that all workers share, of some length"


def test_a_demanded_nonce() -> None:
    """Where a nonce is demanded, a proof without one, with an invented one, or with an old one is refused."""
    nonces = Nonces(SECRET)
    policy = DPoPPolicy(nonces=nonces)
    good = proof(nonce=nonces.current(NOW))
    assert verify(good, policy=policy)
    for nonce in (None, "", "invented", 1, [nonces.current(NOW)], nonces.current(NOW - 1000), "\ud83d\udd11"):
        assert refusal(proof(nonce=nonce), policy=policy) == "proof_nonce"
    assert refusal(proof(nonce=Nonces("another secret").current(NOW)), policy=policy) == "proof_nonce"
    assert verify(good)  # and where none is demanded, it does no harm
