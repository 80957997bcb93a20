"""Who verifies a token beside us: PyJWT and joserfc alone, and the bare signature as the least that there is."""

from __future__ import annotations

import importlib.util
import warnings
from base64 import urlsafe_b64decode
from typing import TYPE_CHECKING, Any, TypeAlias

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

if TYPE_CHECKING:
    from collections.abc import Callable

    from asgi_guard.testing import LocalIssuer

    Verify: TypeAlias = Callable[[str], object]

SIGNATURE = "the signature alone"
PYJWT = "PyJWT alone"
JOSERFC = "joserfc alone"


def absences() -> dict[str, str]:
    """Whoever is not here, with the reason."""
    return {} if importlib.util.find_spec("joserfc") else {JOSERFC: "joserfc is not installed"}


def verifiers(issuer: LocalIssuer) -> dict[str, Verify]:
    """Each with its key ready, checking signature, issuer, audience and times, and raising unless all is well."""
    found = {PYJWT: _pyjwt(issuer)}
    if JOSERFC not in absences():
        found[JOSERFC] = _joserfc(issuer)
    return found


def _pyjwt(issuer: LocalIssuer) -> Verify:
    key = jwt.PyJWK(issuer.published[0].jwk)
    options: dict[str, Any] = {
        "algorithms": [key.algorithm_name], "audience": issuer.audience, "issuer": issuer.url, "leeway": 30,
        "options": {"require": ["exp", "iss", "aud"]},
    }  # fmt: skip
    return lambda token: jwt.decode(token, key, **options)


def _joserfc(issuer: LocalIssuer) -> Verify:
    from joserfc import jwk
    from joserfc import jwt as joserfc_jwt

    # It deprecates the name EdDSA (RFC 9864), which issuers still write.
    warnings.filterwarnings("ignore", message="EdDSA is deprecated")
    held: Any = issuer.published[0].jwk
    key, algorithms = jwk.import_key(held), [held["alg"]]
    claims = joserfc_jwt.JWTClaimsRegistry(
        leeway=30,
        iss={"essential": True, "value": issuer.url},
        aud={"essential": True, "value": issuer.audience},
        exp={"essential": True},
    )

    def verify(token: str) -> object:
        found = joserfc_jwt.decode(token, key, algorithms=algorithms)
        claims.validate(found.claims)
        return found

    return verify


def signature(issuer: LocalIssuer, token: str) -> Callable[[], object]:
    """Check this token's signature by cryptography, everything before and after it done already."""
    signed, _, encoded = token.rpartition(".")
    data = signed.encode()
    value = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    key: Any = issuer.published[0].private.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        pad, digest = padding.PKCS1v15(), hashes.SHA256()
        return lambda: key.verify(value, data, pad, digest)
    if isinstance(key, ec.EllipticCurvePublicKey):
        half = len(value) // 2
        der = utils.encode_dss_signature(int.from_bytes(value[:half]), int.from_bytes(value[half:]))
        scheme = ec.ECDSA(hashes.SHA256())
        return lambda: key.verify(der, data, scheme)
    assert isinstance(key, ed25519.Ed25519PublicKey)
    return lambda: key.verify(value, data)
