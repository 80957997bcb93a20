"""Tokens that nobody should have to pay for: each is refused, and the sooner the better."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asgi_guard.testing import LocalIssuer

OVERSIZED = "oversized, 85 KB"


def _part(document: Any) -> str:
    return urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()


def tokens(issuer: LocalIssuer) -> dict[str, str]:
    """By what is wrong with them."""
    good = issuer.token(lifetime=3600)
    header, payload, signature = good.split(".")
    nested = urlsafe_b64encode(b"[" * 3000 + b"]" * 3000).rstrip(b"=").decode()
    unended = urlsafe_b64encode(b"[" * 17 + b'"\\' * 2900).rstrip(b"=").decode()
    flipped = signature[:10] + ("B" if signature[10] == "A" else "A") + signature[11:]
    return {
        OVERSIZED: f"{header}.{payload * (85_000 // len(payload))}.{signature}",
        "a megabyte of dots": "." * 2**20,
        "garbage, 16 bytes": "0123456789abcdef",
        "garbage, 8 KB": "A" * 8000,
        "three parts of garbage": "AAAA.BBBB.CCCC",
        "alg: none": f"{_part({'alg': 'none', 'kid': issuer.published[0].kid})}.{payload}.",
        "nested 3,000 deep": f"{header}.{nested}.{signature}",
        "2,900 strings, unended": f"{unended}.{payload}.{signature}",
        "another issuer": issuer.token(iss="https://elsewhere.test"),
        "expired": issuer.token(lifetime=-3600),
        "an unknown key": issuer.token(headers={"kid": "nobody's"}),
        "a forged signature": f"{header}.{payload}.{flipped}",
    }
