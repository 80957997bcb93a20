"""Tokens written by hand, valid or not: libraries refuse to write the ones that matter."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from asgi_guard.errors import TokenError
from asgi_guard.policy.claims import ClaimsPolicy
from asgi_guard.policy.keys import ALGORITHMS, KeySet
from asgi_guard.policy.token import parse

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW = 1_800_000_000
ALL = frozenset(ALGORITHMS)
CLAIMS: dict[str, Any] = {"iss": "https://issuer.test", "aud": "api", "sub": "alice", "jti": "t1", "exp": NOW + 300}
POLICY = ClaimsPolicy("https://issuer.test", frozenset({"api"}))


def b64(data: bytes) -> bytes:
    """Encode as base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=")


def encoded(value: object) -> bytes:
    """Encode a header or payload; bytes are taken as they are."""
    return b64(value if isinstance(value, bytes) else json.dumps(value).encode())


def compact(header: object, payload: object, signature: bytes = b"\1" * 64) -> bytes:
    """A token in compact serialisation, whatever is in it."""
    return b".".join((encoded(header), encoded(payload), b64(signature)))


@lru_cache
def private_key(algorithm: str) -> Any:
    """A private key for an algorithm; making one takes a while, so the tests share it."""
    kind, curve = ALGORITHMS[algorithm]
    if kind == "RSA":
        return _rsa()
    if kind == "OKP":
        return ed25519.Ed25519PrivateKey.generate()
    curves: dict[str | None, ec.EllipticCurve] = {
        "P-256": ec.SECP256R1(),
        "P-384": ec.SECP384R1(),
        "P-521": ec.SECP521R1(),
    }
    return ec.generate_private_key(curves[curve])


@lru_cache
def _rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def jwk(algorithm: str, **members: Any) -> dict[str, Any]:
    """The public key of an algorithm as a JWK; `members` adds or replaces, None leaves one out."""
    writer: Any = jwt.get_algorithm_by_name(algorithm)
    entry: dict[str, Any] = {**writer.to_jwk(private_key(algorithm).public_key(), as_dict=True), "kid": "k1", **members}
    return {name: value for name, value in entry.items() if value is not None}


def sign(algorithm: str, signing_input: bytes) -> bytes:
    """Sign anything with the shared key of an algorithm."""
    signer: Any = jwt.get_algorithm_by_name(algorithm)
    signature: bytes = signer.sign(signing_input, private_key(algorithm))
    return signature


def token(algorithm: str, claims: object = None, **header: Any) -> bytes:
    """A token with a right signature, whatever it says."""
    signing_input = b".".join(
        (encoded({"alg": algorithm, "kid": "k1", **header}), encoded(CLAIMS if claims is None else claims))
    )
    return signing_input + b"." + b64(sign(algorithm, signing_input))


def judge(token: bytes, keys: KeySet, now: float = NOW) -> Mapping[str, Any]:
    """Take a token through all of the policy: its form, its key, its signature and its claims.

    Raises:
        TokenError: it is not acceptable.
    """
    parsed = parse(token, ALL)
    key = keys.select(parsed.kid, parsed.algorithm)
    if key is None:
        raise TokenError("unknown_key", "no key fits")
    if not key.verifies(parsed.algorithm, parsed.signing_input, parsed.signature):
        raise TokenError("signature", "it is not the key's")
    POLICY.check(parsed.claims, now)
    return parsed.claims
