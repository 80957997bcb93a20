"""Which keys of a JWK set are used, for what, and what they verify."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.errors import TokenError
from asgi_guard.policy.keys import ALGORITHMS, MAX_KEYS, KeySet, VerificationKey, load
from tests.policy.forging import ALL, CLAIMS, b64, judge, jwk, private_key, sign

FAMILIES = ("RS256", "ES256", "ES384", "ES512", "EdDSA")


def key_for(algorithm: str) -> VerificationKey:
    """The shared public key of an algorithm, loaded."""
    return load(jwk(algorithm), ALL)


def refusal(entry: object, algorithms: frozenset[str] = ALL) -> str:
    """Why a JWK is not used."""
    with pytest.raises(ValueError, match=r".") as caught:
        load(entry, algorithms)
    return str(caught.value)


@pytest.mark.parametrize("algorithm", sorted(ALL))
def test_each_algorithm_verifies_what_another_library_signs(algorithm: str) -> None:
    """A token that PyJWT signs is accepted with the key's JWK, and its claims are the ones signed."""
    sent = jwt.encode(CLAIMS, private_key(algorithm), algorithm, headers={"kid": "k1"}).encode()
    assert judge(sent, KeySet.of({"keys": [jwk(algorithm)]}, ALL)) == CLAIMS


def test_no_algorithm_with_a_shared_secret_can_be_allowed() -> None:
    """Every algorithm there is to allow has a public key; there are those of RFC 7518, and EdDSA."""
    families = {family + size for family in ("RS", "PS", "ES") for size in ("256", "384", "512")}
    assert set(ALGORITHMS) == {*families, "EdDSA"}
    assert {kind for kind, _ in ALGORITHMS.values()} == {"RSA", "EC", "OKP"}


@pytest.mark.parametrize("other", sorted(ALL - {"ES256"}))
def test_a_key_verifies_by_its_own_algorithms_only(other: str) -> None:
    """A key is not asked about a signature of an algorithm that does not fit it."""
    assert not key_for("ES256").verifies(other, b"text", sign("ES256", b"text"))


def test_a_key_that_names_its_algorithm_verifies_by_no_other() -> None:
    """An RSA key marked for PS256 does not verify RS256, though the mathematics would let it."""
    key = load(jwk("PS256", alg="PS256"), ALL)
    assert key.algorithms == {"PS256"}
    assert key.verifies("PS256", b"text", sign("PS256", b"text"))
    assert not key.verifies("RS256", b"text", sign("RS256", b"text"))


def test_a_key_that_names_no_algorithm_verifies_by_the_allowed_ones_that_fit() -> None:
    """Without `alg`, the key type and the allow-list decide."""
    assert load(jwk("RS256"), frozenset({"RS256", "PS512", "ES256"})).algorithms == {"RS256", "PS512"}


def _weak(bits: int) -> dict[str, Any]:
    public = rsa.generate_private_key(65537, bits).public_key().public_numbers()
    return {"kty": "RSA", "n": b64(public.n.to_bytes(bits // 8, "big")).decode(), "e": "AQAB"}


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"use": "enc"}, "its use is 'enc'"), ({"use": ""}, "its use is ''"), ({"use": ["sig"]}, "its use is"),
        ({"key_ops": []}, "key_ops"), ({"key_ops": ["sign"]}, "key_ops"), ({"key_ops": "verify"}, "key_ops"),
        ({"key_ops": {"verify": 1}}, "key_ops"), ({"key_ops": [["verify"]]}, "key_ops"), ({"key_ops": 5}, "key_ops"),
        ({"d": "AA"}, "a secret"), ({"kty": "oct", "k": "AA"}, "a secret"), ({"kty": "oct"}, "a secret"),
        ({"kid": 5}, "its kid"), ({"kid": ["k1"]}, "its kid"), ({"kid": {}}, "its kid"),
        ({"alg": "HS256"}, "no allowed algorithm"), ({"alg": "none"}, "no allowed algorithm"),
        ({"alg": "ES256"}, "no allowed algorithm"), ({"alg": "RSA-OAEP"}, "no allowed algorithm"),
        ({"alg": ["RS256"]}, "no allowed algorithm"), ({"alg": 5}, "no allowed algorithm"),
        ({"kty": "rsa"}, "no allowed algorithm"), ({"kty": ["RSA"]}, "no allowed algorithm"),
        ({"kty": "EC"}, "no allowed algorithm"), ({"kty": None}, "no allowed algorithm"),
        ({"e": "AQ"}, "malformed"), ({"e": "AA"}, "malformed"), ({"e": "Ag"}, "malformed"), ({"e": ""}, "malformed"),
        ({"n": ""}, "malformed"), ({"n": "!"}, "malformed"), ({"n": 5}, "malformed"), ({"n": None}, "malformed"),
        ({"n": "\ud800"}, "malformed"), ({"n": []}, "malformed"),
        (_weak(1024), "1024 bits; 2048"),
    ],
)  # fmt: skip
def test_rsa_keys_that_do_not_fit_are_not_used(members: dict[str, Any], reason: str) -> None:
    """An RSA key that is weak, secret, malformed or meant for something else is refused with the reason."""
    assert reason in refusal(jwk("RS256", **members))


@pytest.mark.parametrize("name", ["alg", "use", "key_ops", "kid", "crv", "d", "x5c"])
def test_what_is_null_is_not_there(name: str) -> None:
    """Some serialisers write what a key does not have as null: it is used as one without that, and told of so."""
    plain = {member: value for member, value in jwk("RS256").items() if member != name}
    assert load({**plain, name: None}, ALL).algorithms == load(plain, ALL).algorithms
    assert refusal({**plain, name: None, "kty": "oct"}) == refusal({**plain, "kty": "oct"})
    assert "no allowed algorithm fits it (kty None" in refusal({**plain, "kty": None})


@pytest.mark.parametrize("algorithm", FAMILIES)
def test_a_private_key_in_a_set_is_not_used(algorithm: str) -> None:
    """A key published with its secret is everyone's."""
    writer: Any = jwt.get_algorithm_by_name(algorithm)
    entry = writer.to_jwk(private_key(algorithm), as_dict=True)
    reason = refusal({**entry, "key_ops": ["verify"]})
    assert "secret" in reason
    assert entry["d"] not in reason


@pytest.mark.parametrize(
    ("algorithm", "members", "reason"),
    [
        ("ES256", {"crv": "P-384"}, "malformed"), ("ES256", {"crv": "secp256k1"}, "no allowed algorithm"),
        ("ES256", {"crv": "p-256"}, "no allowed algorithm"), ("ES256", {"crv": None}, "no allowed algorithm"),
        ("ES256", {"crv": ["P-256"]}, "no allowed algorithm"), ("ES256", {"alg": "ES384"}, "no allowed algorithm"),
        ("ES256", {"x": "AA"}, "malformed"), ("ES256", {"x": None}, "malformed"),
        ("ES256", {"x": b64(b"\1" * 32).decode(), "y": b64(b"\1" * 32).decode()}, "malformed"),
        ("ES256", {"x": b64(b"\0" * 32).decode(), "y": b64(b"\0" * 32).decode()}, "malformed"),
        ("EdDSA", {"crv": "Ed448"}, "no allowed algorithm"), ("EdDSA", {"crv": "X25519"}, "no allowed algorithm"),
        ("EdDSA", {"x": "AA"}, "malformed"), ("EdDSA", {"x": None}, "malformed"),
        ("EdDSA", {"kty": "EC"}, "no allowed algorithm"),
    ],
)  # fmt: skip
def test_curve_keys_that_do_not_fit_are_not_used(algorithm: str, members: dict[str, Any], reason: str) -> None:
    """A key of another curve, or a point that is not on its curve, is refused with the reason."""
    assert reason in refusal(jwk(algorithm, **members))


@pytest.mark.parametrize("entry", [None, 5, "key", [], [jwk("RS256")], True])
def test_a_key_is_an_object(entry: object) -> None:
    """What is no JSON object is no key."""
    assert refusal(entry) == "it is not an object"


def test_a_key_without_an_allowed_algorithm_is_not_used() -> None:
    """The allow-list decides which keys are loaded at all."""
    assert "no allowed algorithm" in refusal(jwk("ES256"), frozenset({"RS256"}))


def test_one_odd_key_does_not_take_the_others_down() -> None:
    """The usable keys of a set are used, in order, and each other one is reported by its place."""
    document = {"keys": [None, jwk("ES256", kid="a"), jwk("RS256", kid="b", use="enc"), jwk("EdDSA", kid="c"), {}]}
    keys = KeySet.of(document, ALL)
    assert [key.kid for key in keys.keys] == ["a", "c"]
    assert [reason.partition(":")[0] for reason in keys.skipped] == [
        "key 1 (no kid)",
        "key 3 (kid 'b')",
        "key 5 (no kid)",
    ]


def test_reports_are_fit_for_a_log() -> None:
    """What a set's members hold is shown short, escaped, and without key material."""
    wild = "\x1b[31m\r\n" * 100
    entries = [{**jwk("RS256"), "kid": wild, name: wild} for name in ("use", "alg", "kty", "n")]
    keys = KeySet.of({"keys": [*entries, {"kty": "oct", "k": "hunter2", "kid": "k"}]}, ALL)
    assert len(keys.skipped) == 5
    assert all(reason.isascii() and reason.isprintable() and len(reason) < 400 for reason in keys.skipped)
    assert "hunter2" not in "".join(keys.skipped)


@pytest.mark.parametrize(
    "document", [None, [], "keys", {}, {"keys": None}, {"keys": {}}, {"keys": "k"}, [jwk("RS256")]]
)
def test_what_has_no_list_of_keys_is_no_set(document: object) -> None:
    """A document of another shape is refused as a whole."""
    with pytest.raises(ValueError, match=r"not a JWK set: it has no list of keys$"):
        KeySet.of(document, ALL)


def test_a_discovery_document_is_told_from_a_set() -> None:
    """Whoever gives the document that names the set, in the place of the set, is told so."""
    with pytest.raises(ValueError, match="it is the discovery document, whose jwks_uri names the set"):
        KeySet.of({"issuer": "https://issuer.test", "jwks_uri": "https://issuer.test/keys"}, ALL)


def test_the_number_of_keys_is_bounded() -> None:
    """A set of a hundred keys is used, one of a hundred and one is refused as a whole."""
    entries = [jwk("EdDSA", kid=str(number)) for number in range(MAX_KEYS + 1)]
    assert len(KeySet.of({"keys": entries[1:]}, ALL).keys) == MAX_KEYS
    with pytest.raises(ValueError, match="101 keys"):
        KeySet.of({"keys": entries}, ALL)


def test_the_same_set_fetched_twice_is_equal() -> None:
    """Sets are compared by their keys, so that fetching the same ones anew changes nothing."""
    documents = [{"keys": [jwk(name, kid=name) for name in FAMILIES]} for _ in range(2)]
    assert KeySet.of(documents[0], ALL) == KeySet.of(documents[1], ALL)
    assert KeySet.of(documents[0], ALL) != KeySet.of({"keys": documents[0]["keys"][1:]}, ALL)


@pytest.mark.parametrize(
    ("kid", "algorithm", "chosen"),
    [
        ("a", "RS256", 0), ("b", "ES256", 1), ("shared", "ES384", 2), ("shared", "EdDSA", 3),
        (None, "RS256", 0), (None, "EdDSA", 3), ("a", "ES256", None), ("A", "RS256", None), ("", "RS256", None),
        ("missing", "RS256", None), (None, "ES512", None), ("shared", "none", None), (None, "HS256", None),
    ],
)  # fmt: skip
def test_the_one_key_that_fits_is_chosen(kid: str | None, algorithm: str, chosen: int | None) -> None:
    """A key is found by exact `kid` and algorithm, or by algorithm alone where a token has no `kid`."""
    named = [("a", "RS256"), ("b", "ES256"), ("shared", "ES384"), ("shared", "EdDSA")]
    keys = KeySet.of({"keys": [jwk(name, kid=kid) for kid, name in named]}, ALL)
    assert keys.select(kid, algorithm) is (None if chosen is None else keys.keys[chosen])
    assert keys.has(kid, algorithm) is (chosen is not None)


@pytest.mark.parametrize("kid", ["k1", None])
def test_an_ambiguous_kid_is_refused(kid: str | None) -> None:
    """Where several keys fit, none is tried."""
    keys = KeySet.of({"keys": [jwk("RS256"), jwk("PS256", use="sig")]}, ALL)
    with pytest.raises(TokenError) as caught:
        keys.select(kid, "RS256")
    assert caught.value.reason == "ambiguous_key"


def test_a_key_without_kid_is_not_found_by_one() -> None:
    """A `kid` that no key carries fits no key, not even one that has none."""
    keys = KeySet.of({"keys": [jwk("RS256", kid=None)]}, ALL)
    assert keys.select("k1", "RS256") is None
    assert keys.select(None, "RS256") is keys.keys[0]


members = st.sampled_from(["kty", "crv", "alg", "use", "key_ops", "kid", "n", "e", "x", "y", "d", "k", "x5c", "oth"])
values = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=50) | st.lists(st.text(max_size=9))
    | st.sampled_from(["RSA", "EC", "OKP", "oct", "P-256", "P-521", "Ed25519", "sig", "RS256", "ES256", "AQAB"])
)  # fmt: skip


@given(base=st.sampled_from(["", *FAMILIES]), changes=st.dictionaries(members, values))
@example(base="RS256", changes={"e": "AQ"})
@example(base="ES256", changes={"crv": "P-521"})
def test_any_object_is_loaded_or_reported(base: str, changes: dict[str, Any]) -> None:
    """A key of any shape is used for algorithms of its own type and curve, or skipped with a reason."""
    entry = {**(jwk(base) if base else {}), **changes}
    keys = KeySet.of({"keys": [entry]}, ALL)
    assert len(keys.keys) + len(keys.skipped) == 1
    for key in keys.keys:
        fitting = [(entry["kty"], None), (entry["kty"], entry.get("crv"))]
        assert key.algorithms
        assert all(ALGORITHMS[name] in fitting for name in key.algorithms)
