"""An issuer's public keys: which keys of a JWK set are usable, and which one a token asks for (RFC 7517, 7518, 8037).

A key that does not fit is skipped and reported, never an error: one odd key must not take the others down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from asgi_guard.errors import TokenError

ALGORITHMS: dict[str, tuple[str, str | None]] = {
    "RS256": ("RSA", None),
    "RS384": ("RSA", None),
    "RS512": ("RSA", None),
    "PS256": ("RSA", None),
    "PS384": ("RSA", None),
    "PS512": ("RSA", None),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}
"""Each algorithm that can be allowed, with the key type and curve it needs. All are asymmetric: a shared secret (HS256)
beside public keys is how a public key becomes a password."""

MAX_KEYS = 100
MIN_RSA_BITS = 2048


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key, bound to what it may verify.

    Attributes:
        kid: its id in the set.
        algorithms: the allowed algorithms that fit it.
        material: the key itself, as PyJWT's algorithms take it.
    """

    kid: str | None
    algorithms: frozenset[str]
    material: Any

    def fits(self, kid: str | None, algorithm: str) -> bool:
        """Tell whether a token of this key id and algorithm may be this key's; one without `kid` may be any's."""
        return algorithm in self.algorithms and (kid is None or self.kid == kid)

    def verifies(self, algorithm: str, signing_input: bytes, signature: bytes) -> bool:
        """Check a signature. The algorithm is the token's, already on the allow-list and among this key's."""
        if algorithm not in self.algorithms:
            return False
        if isinstance(self.material, RSAPublicKey) and len(signature) != -(-self.material.key_size // 8):
            # RFC 8017 8.1.2 and 8.2.2, step 1. OpenSSL takes a PSS signature without its leading zeros, which would be
            # a second spelling of the same token.
            return False
        return jwt.get_algorithm_by_name(algorithm).verify(signing_input, self.material, signature)


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of a JWK set.

    Attributes:
        keys: in the order of the set.
        skipped: why each other key is not used, for the operator.
    """

    keys: tuple[VerificationKey, ...]
    skipped: tuple[str, ...] = ()

    @classmethod
    def of(cls, document: object, algorithms: frozenset[str]) -> Self:
        """Load a JWK set (RFC 7517 section 5).

        Raises:
            ValueError: it is no JWK set at all, or has more than 100 keys.
        """
        entries = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(entries, list):
            is_discovery = isinstance(document, dict) and "jwks_uri" in document
            hint = "; it is the discovery document, whose jwks_uri names the set" if is_discovery else ""
            raise ValueError(f"this is not a JWK set: it has no list of keys{hint}")  # noqa: TRY004 - bad data
        if len(entries) > MAX_KEYS:
            raise ValueError(f"the JWK set has {len(entries)} keys; {MAX_KEYS} are allowed")
        keys: list[VerificationKey] = []
        skipped: list[str] = []
        for index, entry in enumerate(entries):
            try:
                keys.append(load(entry, algorithms))
            except ValueError as error:
                skipped.append(f"key {index + 1} ({_name(entry)}): {error}")
        return cls(tuple(keys), tuple(skipped))

    def has(self, kid: str | None, algorithm: str) -> bool:
        """Tell whether any key fits a token, or several do."""
        return any(key.fits(kid, algorithm) for key in self.keys)

    def select(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        """Find the one key for a token; None if no key fits.

        A token without `kid` is matched by its algorithm alone.

        Raises:
            TokenError: several keys fit (`ambiguous_key`): trying one after the other would make a key of any of them.
        """
        found = [key for key in self.keys if key.fits(kid, algorithm)]
        if len(found) > 1:
            raise TokenError("ambiguous_key", "several keys of the issuer fit this token")
        return found[0] if found else None


def load(entry: object, algorithms: frozenset[str]) -> VerificationKey:
    """Load one JWK.

    Raises:
        ValueError: it cannot be used to verify any allowed algorithm; the text says why, without key material.
    """
    if not isinstance(entry, dict):
        raise ValueError("it is not an object")  # noqa: TRY004 - bad data, not a bad argument
    # Some serialisers write what a key does not have as null.
    entry = {name: value for name, value in entry.items() if value is not None}
    kid = entry.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise ValueError("its kid is not a string")
    fitting = _fitting(entry, algorithms)
    try:  # this refuses RSA exponents below 3 (1 verifies anything) and points that are not on their curve
        material = jwt.PyJWK(entry, algorithm=min(fitting)).key
    except Exception as error:  # noqa: BLE001 - PyJWT lets several unrelated kinds of error out of a malformed key
        raise ValueError(f"it is malformed ({type(error).__name__})") from None
    if isinstance(material, RSAPublicKey) and material.key_size < MIN_RSA_BITS:
        raise ValueError(f"its RSA modulus has {material.key_size} bits; {MIN_RSA_BITS} are needed")
    return VerificationKey(kid, fitting, material)


def _fitting(entry: dict[str, Any], algorithms: frozenset[str]) -> frozenset[str]:
    kind, curve = entry.get("kty"), entry.get("crv")
    if "d" in entry or kind == "oct":
        raise ValueError("it holds a secret, which has no place in a public set")
    if entry.get("use", "sig") != "sig":
        raise ValueError(f"its use is {_shown(entry['use'])}, not 'sig'")
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise ValueError("its key_ops do not include 'verify'")
    fitting = frozenset(
        name for name in algorithms if ALGORITHMS[name][0] == kind and ALGORITHMS[name][1] in (None, curve)
    )
    if "alg" in entry:
        fitting &= {entry["alg"]} if isinstance(entry["alg"], str) else frozenset()
    if not fitting:
        raise ValueError(
            f"no allowed algorithm fits it (kty {_shown(kind)}, crv {_shown(curve)}, alg {_shown(entry.get('alg'))})"
        )
    return fitting


def _name(entry: object) -> str:
    return f"kid {_shown(entry['kid'])}" if isinstance(entry, dict) and "kid" in entry else "no kid"


def _shown(value: object) -> str:
    return ascii(value)[:64]
