"""The key in a proof: public, of a known kind, fit for its algorithm, and of a size that can be checked."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from asgi_guard.policy.dpop import thumbprint
from asgi_guard.testing import ProofKey
from tests.policy.forging import b64, private_key
from tests.policy.test_dpop import KEY, proof, refusal

PRIVATE = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")


@pytest.mark.parametrize("name", PRIVATE)
def test_private_keys_are_no_proof(name: str) -> None:
    """A proof that gives its private key away, or a part of one, is refused."""
    assert refusal(proof(headers={"jwk": {**KEY.jwk, name: "AA"}})) == "proof_key"


@pytest.mark.parametrize(
    "key",
    [
        None, "key", [], {}, {"kty": "oct"}, {"kty": "EC"}, {"kty": ["EC"]}, {**KEY.jwk, "x": 1},
        {**KEY.jwk, "x": None}, {**KEY.jwk, "kty": "ec"}, {"kty": "RSA", "n": "AQAB"}, {"kty": "OKP", "crv": "Ed25519"},
    ],
)  # fmt: skip
def test_keys_without_thumbprint(key: object) -> None:
    """What is no public key of a known kind, or is not written in strings, is refused."""
    assert refusal(proof(headers={"jwk": key})) == "proof_key"


@pytest.mark.parametrize(
    "extra", [{"use": "enc"}, {"key_ops": ["sign"]}, {"alg": "RS256"}, {"kid": 1}, {"alg": ["ES256"]}]
)
def test_keys_for_another_purpose(extra: dict[str, Any]) -> None:
    """A key that says it is for something else is refused, though it is the right one."""
    assert refusal(proof(headers={"jwk": {**KEY.jwk, **extra}})) == "proof_key"


@pytest.mark.parametrize("changes", [{"x": "AAAA"}, {"crv": "P-384"}, {"y": KEY.jwk["x"]}, {"x": ""}, {"x": "é!"}])
def test_keys_that_do_not_fit(changes: dict[str, Any]) -> None:
    """A point that is not on its curve, or a curve that does not fit the algorithm, is refused even if it is named."""
    key = ProofKey(private=private_key("ES256"))
    key.jwk = {**KEY.jwk, **changes}
    key.cnf = {"jkt": thumbprint(key.jwk)}
    assert refusal(proof(key), key=key) == "proof_key"


def rsa_proof(bits: int = 2048, exponent: int = 65537) -> tuple[ProofKey, bytes]:
    key = ProofKey("RS256", rsa.generate_private_key(public_exponent=65537, key_size=1024 if bits < 2048 else 2048))
    modulus = (1 << bits) - 1 if bits > 2048 else None
    if modulus is not None:
        key.jwk["n"] = b64(modulus.to_bytes(bits // 8)).decode()
    if exponent != 65537:
        key.jwk["e"] = b64(exponent.to_bytes(16)).decode()
    key.cnf = {"jkt": thumbprint(key.jwk)}
    return key, proof(key)


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")  # a client that does not heed it
@pytest.mark.parametrize(("bits", "exponent"), [(1024, 65537), (4104, 65537), (8192, 65537), (2048, (1 << 32) + 1)])
def test_rsa_keys_of_odd_sizes(bits: int, exponent: int) -> None:
    """An RSA key that is too small to prove anything, or so large that checking it is work, is refused."""
    key, shown = rsa_proof(bits, exponent)
    assert refusal(shown, key=key) == "proof_key"


@pytest.mark.parametrize(("bits", "exponent"), [(4096, 65537), (2048, (1 << 31) + 1)])
def test_rsa_keys_of_the_largest_sizes(bits: int, exponent: int) -> None:
    """An RSA key of the largest size that is taken, and one of the largest exponent, are asked for their signature."""
    key, shown = rsa_proof(bits, exponent)
    assert refusal(shown, key=key) == "proof_signature"


def test_a_curve_of_the_wrong_size_is_named_by_no_algorithm() -> None:
    """A key of one curve cannot be used with the algorithm of another."""
    private = ec.generate_private_key(ec.SECP384R1())
    writer: Any = jwt.get_algorithm_by_name("ES384")
    key = ProofKey()
    key.jwk = {k: v for k, v in writer.to_jwk(private.public_key(), as_dict=True).items() if k != "key_ops"}
    key.cnf = {"jkt": thumbprint(key.jwk)}
    assert refusal(proof(key), key=key) == "proof_key"
