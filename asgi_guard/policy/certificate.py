"""The client's certificate, to which its token is bound (RFC 8705 section 3): where it is told, and its thumbprint.

A TLS server tells it in the scope. Behind a proxy that ends TLS, the proxy tells it in one header, which is believed of
trusted proxies only; that is for the caller to see to. What is repeated, malformed, or tells of several certificates
tells of none: which of them would be the client's?
"""

from __future__ import annotations

import re
from base64 import b64decode, urlsafe_b64encode
from hashlib import sha256
from hmac import compare_digest
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CertificateSource: TypeAlias = Literal["off", "tls", "x-forwarded-client-cert", "client-cert", "x-client-cert"]
"""Where the certificate is told: nowhere; by the server, in ASGI's `tls` extension; by Envoy, in the header of which
`Hash` counts; in the header of RFC 9440; or, as nginx can, as a URL-encoded PEM."""

BINDING = "x5t#S256"
"""The member of `cnf` that binds a token to a certificate."""

MAX_HEADER_BYTES = 16384

_PEM = re.compile(r"\s*-----BEGIN CERTIFICATE-----(?P<base64>[A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----\s*", re.ASCII)
_XFCC_PAIR = re.compile(
    r'(?P<name>[A-Za-z]+)=(?:"(?P<quoted>(?:[^"\\]|\\.)*+)"|(?P<plain>[^",;]*))(?P<end>[;,]|\Z)', re.DOTALL
)
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def thumbprint(der: bytes) -> str:
    """The `x5t#S256` of a certificate."""
    return _encoded(sha256(der).digest())


def of_pem(text: str) -> str | None:
    """The thumbprint of the one certificate in a PEM text; None if there is not exactly one."""
    match = _PEM.fullmatch(text)
    return None if match is None else _of_base64("".join(match["base64"].split()))


def of_tls(extensions: Mapping[str, Any] | None) -> str | None:
    """The thumbprint of the certificate that the server tells of, in ASGI's `tls` extension; None without one.

    A certificate that the server found wrong (`client_cert_error`) is none.
    """
    tls = (extensions or {}).get("tls") or {}
    leaf = next(iter(tls.get("client_cert_chain") or ()), None)
    if not isinstance(leaf, str) or tls.get("client_cert_error") is not None:
        return None
    return of_pem(leaf)


def of_header(source: CertificateSource, lines: Sequence[bytes]) -> str | None:
    """The thumbprint of the certificate that a trusted proxy tells of.

    Args:
        source: which header it is.
        lines: its lines.
    """
    if len(lines) != 1 or len(lines[0]) > MAX_HEADER_BYTES:
        return None
    text = lines[0].decode("latin-1").strip(" \t")
    if source == "x-forwarded-client-cert":
        return _of_xfcc(text)
    if source == "client-cert":
        return _of_base64(text[1:-1]) if len(text) > 2 and text[0] == text[-1] == ":" else None
    return of_pem(unquote(text, "latin-1"))


def matches(bound: str, shown: str | None) -> bool:
    """Tell whether the certificate that was shown is the one that a token is bound to."""
    return shown is not None and compare_digest(bound.encode(), shown.encode())


def _of_xfcc(text: str) -> str | None:
    """`Hash` of Envoy's header, if it tells of one certificate only: each proxy on the way may add another."""
    found: str | None = None
    at = 0
    while at < len(text):
        match = _XFCC_PAIR.match(text, at)
        if match is None or match["end"] == ",":
            return None
        if match["name"].lower() == "hash":
            value = match["plain"] if match["quoted"] is None else match["quoted"]
            if found is not None or not _SHA256.fullmatch(value):
                return None
            found = _encoded(bytes.fromhex(value))
        at = match.end()
    return found


def _of_base64(text: str) -> str | None:
    try:
        der = b64decode(text, validate=True)
    except ValueError:
        return None
    return thumbprint(der) if der else None


def _encoded(digest: bytes) -> str:
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
