"""What signatures are worth: forged ones are refused, and a changed token is no token."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asgi_guard.errors import TokenError
from asgi_guard.policy.keys import KeySet, VerificationKey, load
from tests.policy.forging import ALL, CLAIMS, b64, encoded, judge, jwk, private_key, sign, token

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493


def key_for(algorithm: str) -> VerificationKey:
    """The shared public key of an algorithm, loaded."""
    return load(jwk(algorithm), ALL)


@pytest.mark.parametrize("algorithm", sorted(ALL))
def test_a_signature_is_over_exactly_one_text(algorithm: str) -> None:
    """A signature verifies what it was made over and nothing else."""
    key, signature = key_for(algorithm), sign(algorithm, b"text")
    assert key.verifies(algorithm, b"text", signature)
    assert not key.verifies(algorithm, b"Text", signature)
    assert not key.verifies(algorithm, b"", signature)


@pytest.mark.parametrize("secret", ["pem", "der", "jwk"])
def test_a_public_key_is_no_password(secret: str) -> None:
    """A token signed by HMAC with the public key, in any spelling, is refused for its algorithm."""
    public = private_key("RS256").public_key()
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    spellings = {
        "pem": public.public_bytes(serialization.Encoding.PEM, info),
        "der": public.public_bytes(serialization.Encoding.DER, info),
        "jwk": json.dumps(jwk("RS256")).encode(),
    }
    hmac: Any = jwt.get_algorithm_by_name("HS256")
    signing_input = encoded({"alg": "HS256", "kid": "k1"}) + b"." + encoded(CLAIMS)
    forged = signing_input + b"." + b64(hmac.sign(signing_input, spellings[secret]))
    with pytest.raises(TokenError) as caught:
        judge(forged, KeySet.of({"keys": [jwk("RS256")]}, ALL))
    assert caught.value.reason == "algorithm"
    assert not key_for("RS256").verifies("HS256", signing_input, hmac.sign(signing_input, spellings[secret]))


def _raw(r: int, s: int, size: int = 32) -> bytes:
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def test_forged_ecdsa_signatures_are_refused() -> None:
    """Numbers out of range, ASN.1 and any length but the exact one are no ECDSA signatures."""
    key, right = key_for("ES256"), sign("ES256", b"text")
    der = private_key("ES256").sign(b"text", ECDSA(SHA256()))
    r, s = int.from_bytes(right[:32], "big"), int.from_bytes(right[32:], "big")
    forged = [
        _raw(0, 0), _raw(r, 0), _raw(0, s), _raw(1, 1), _raw(P256_ORDER, s), _raw(r, P256_ORDER), _raw(s, r),
        _raw(P256_ORDER, P256_ORDER), _raw(P256_ORDER - 1, P256_ORDER - 1), _raw(2**256 - 1, 2**256 - 1),
        b"", right[:-1], right[:32], right + b"\0", b"\0" + right, _raw(r, s, 33), _raw(r, s, 48), _raw(r, s, 66),
        der, _raw(*decode_dss_signature(der), size=40),
    ]  # fmt: skip
    assert key.verifies("ES256", b"text", right)
    assert [signature.hex() for signature in forged if key.verifies("ES256", b"text", signature)] == []


@pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
def test_forged_rsa_signatures_are_refused(algorithm: str) -> None:
    """Constants, numbers beyond the modulus and any length but the exact one are no RSA signatures."""
    key, right = key_for(algorithm), sign(algorithm, b"text")
    modulus = private_key(algorithm).public_key().public_numbers().n
    number = int.from_bytes(right, "big")
    forged = [
        b"", b"\0" * 256, b"\0" * 255 + b"\1", b"\xff" * 256, right[:-1], right[1:], right + b"\0", b"\0" + right,
        modulus.to_bytes(256, "big"), (modulus - 1).to_bytes(256, "big"), (modulus - number).to_bytes(256, "big"),
        (modulus + number).to_bytes(257, "big"),
    ]  # fmt: skip
    assert key.verifies(algorithm, b"text", right)
    assert [signature.hex() for signature in forged if key.verifies(algorithm, b"text", signature)] == []


@pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
def test_an_rsa_signature_without_its_leading_zero_is_refused(algorithm: str) -> None:
    """The one signature of 256 that begins with a zero has no second, shorter spelling."""
    text, right = next((text, right) for text in map(str, count()) if (right := sign(algorithm, text.encode()))[0] == 0)
    key = key_for(algorithm)
    assert key.verifies(algorithm, text.encode(), right)
    assert not key.verifies(algorithm, text.encode(), right[1:])


def test_forged_eddsa_signatures_are_refused() -> None:
    """A second spelling of the same number, constants and wrong lengths are no EdDSA signatures."""
    key, right = key_for("EdDSA"), sign("EdDSA", b"text")
    twin = right[:32] + (int.from_bytes(right[32:], "little") + ED25519_ORDER).to_bytes(32, "little")
    forged = [
        twin,
        b"",
        b"\0" * 64,
        b"\xff" * 64,
        b"\1" + b"\0" * 63,
        right[:-1],
        right + b"\0",
        right[32:] + right[:32],
    ]
    assert key.verifies("EdDSA", b"text", right)
    assert [signature.hex() for signature in forged if key.verifies("EdDSA", b"text", signature)] == []


@st.composite
def mutated(draw: st.DrawFn, originals: tuple[bytes, ...]) -> bytes:
    """A real token with something done to it, which may come to nothing."""
    sent = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(sent)))
        until = draw(st.integers(at, min(len(sent), at + 4)))
        sent[at:until] = draw(st.binary(max_size=4) | st.text("AQJab019-_.=+/ \n", max_size=4).map(str.encode))
    return bytes(sent)


REAL = tuple(token(name, kid=name) for name in ("RS256", "ES256", "EdDSA"))
REAL_KEYS = KeySet.of({"keys": [jwk(name, kid=name) for name in ("RS256", "ES256", "EdDSA")]}, ALL)


@settings(max_examples=400)
@given(sent=mutated(REAL) | st.binary())
@example(sent=REAL[0])
@example(sent=token("RS256", kid="another"))
@example(sent=REAL[1] + b"=")
@example(sent=REAL[1][:-1])
@example(sent=b".".join((*REAL[0].split(b".")[:2], REAL[1].split(b".")[2])))
@example(sent=b".".join((REAL[0].split(b".")[0], *REAL[1].split(b".")[1:])))
@example(sent=REAL[2].rpartition(b".")[0] + b".")
def test_a_changed_token_is_never_accepted(sent: bytes) -> None:
    """Whatever bytes are sent, they are refused with a token error unless they are a real token, byte for byte."""
    accepted = True
    try:
        claims = judge(sent, REAL_KEYS)
    except TokenError:
        accepted = False
    else:
        assert claims == CLAIMS
    assert accepted == (sent in REAL)
