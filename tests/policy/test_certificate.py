"""Where the client's certificate is told, and what tells of none."""

from __future__ import annotations

import re
from base64 import b64encode, urlsafe_b64decode
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.policy.certificate import (
    MAX_HEADER_BYTES,
    CertificateSource,
    matches,
    of_header,
    of_pem,
    of_tls,
    thumbprint,
)
from tests.certificates import certificate

CERTIFICATE = certificate("client")
DER = CERTIFICATE.public_bytes(Encoding.DER)
PEM = CERTIFICATE.public_bytes(Encoding.PEM).decode()
OTHER = certificate("other").public_bytes(Encoding.PEM).decode()
RIGHT = thumbprint(DER)
HASH = sha256(DER).hexdigest()

HEADERS: tuple[CertificateSource, ...] = ("x-forwarded-client-cert", "client-cert", "x-client-cert")

# RFC 8705 appendix A: a self-signed certificate and its thumbprint.
RFC_PEM = """-----BEGIN CERTIFICATE-----
MIIBBjCBrAIBAjAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARtdGxzMB4XDTE4MTAx
ODEyMzcwOVoXDTIyMDUwMjEyMzcwOVowDzENMAsGA1UEAwwEbXRsczBZMBMGByqG
SM49AgEGCCqGSM49AwEHA0IABNcnyxwqV6hY8QnhxxzFQ03C7HKW9OylMbnQZjjJ
/Au08/coZwxS7LfA4vOLS9WuneIXhbGGWvsDSb0tH6IxLm8wCgYIKoZIzj0EAwID
SQAwRgIhAP0RC1E+vwJD/D1AGHGzuri+hlV/PpQEKTWUVeORWz83AiEA5x2eXZOV
bUlJSGQgjwD5vaUaKlLR50Q2DmFfQj1L+SY=
-----END CERTIFICATE-----
"""


def steady(value: object) -> str | None:
    """A test's name without what differs from process to process: several share the tests among them."""
    return re.sub("[0-9A-Za-z+/%=-]{60,}", "...", value)[:50] if isinstance(value, str) else None


def test_the_thumbprint_of_the_standard() -> None:
    """The example certificate of RFC 8705 appendix A has the thumbprint that stands there."""
    assert of_pem(RFC_PEM) == "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"


@pytest.mark.parametrize(
    "pem",
    [
        PEM, PEM.strip(), "\n\n" + PEM + "\n", PEM.replace("\n", "\r\n"), PEM.replace("\n", " "),
        PEM.replace("\n", "\t"), PEM.replace("\n", "\n\t"),
    ],
)  # fmt: skip
def test_a_certificate_is_found(pem: str) -> None:
    """One certificate as PEM, however its lines are folded, has its thumbprint."""
    assert of_pem(pem) == RIGHT


@pytest.mark.parametrize(
    "pem",
    [
        "", "x", PEM + PEM, PEM + OTHER, PEM + "x", "x" + PEM, PEM.replace("END", "BEGIN"), PEM.replace("CERT", "cert"),
        PEM.replace("CERTIFICATE", "PRIVATE KEY"), PEM[:-40], PEM.replace("M", "!", 1),
        "-----BEGIN CERTIFICATE----------END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\n==AA\n-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\nMI\u0130B\n-----END CERTIFICATE-----",
    ],
)  # fmt: skip
def test_what_is_not_one_certificate(pem: str) -> None:
    """None, several, or something else has no thumbprint: which certificate would be the client's?"""
    assert of_pem(pem) is None


def test_a_thumbprint_is_compared_whole() -> None:
    """A certificate is the one that a token is bound to, or is not, and none is none."""
    assert matches(RIGHT, RIGHT)
    for shown in (None, "", RIGHT[:-1], RIGHT + "A", RIGHT.lower(), thumbprint(b"x"), "\u00e9"):
        assert not matches(RIGHT, shown)
    assert not matches("", None)


@pytest.mark.parametrize("chain", [[PEM], (PEM, OTHER), iter([PEM, OTHER])])
def test_the_server_tells_of_a_chain(chain: Any) -> None:
    """The client's own certificate is the first of the chain, as the extension says."""
    assert of_tls({"tls": {"client_cert_chain": chain, "client_cert_error": None}}) == RIGHT


@pytest.mark.parametrize(
    "extensions",
    [
        None, {}, {"tls": None}, {"tls": {}}, {"tls": {"client_cert_chain": None}}, {"tls": {"client_cert_chain": []}},
        {"tls": {"client_cert_chain": [OTHER + PEM]}}, {"tls": {"client_cert_chain": [DER]}},
        {"tls": {"client_cert_chain": [None, PEM]}}, {"tls": {"client_cert_chain": ["", PEM]}},
        {"tls": {"client_cert_chain": [PEM], "client_cert_error": "expired"}},
        {"tls": {"client_cert_chain": [PEM], "client_cert_error": ""}}, {"http.response.push": {}},
    ],
)  # fmt: skip
def test_the_server_tells_of_none(extensions: dict[str, Any] | None) -> None:
    """Without TLS, without a certificate, or with one that the server found wrong, there is none."""
    assert of_tls(extensions) is None


ENVOY = f'By=spiffe://mesh/ns/shop;Hash={HASH};Subject="CN=client,O=\\"Shop; Co\\"";URI=spiffe://mesh/ns/client'


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("x-forwarded-client-cert", ENVOY),
        ("x-forwarded-client-cert", f"Hash={HASH}"),
        ("x-forwarded-client-cert", f" hash={HASH.upper()};DNS=a.example;DNS=b.example "),
        ("x-forwarded-client-cert", f'Hash="{HASH}";URI='),
        ("x-forwarded-client-cert", f'Hash={HASH};Subject="CN=x;Hash={"0" * 64}"'),
        ("x-forwarded-client-cert", f'Subject="a,Hash={"0" * 64},b";Hash={HASH}'),
        ("x-forwarded-client-cert", f'Hash={HASH};Cert="{quote(PEM)}"'),
        ("client-cert", f":{b64encode(DER).decode()}:"),
        ("client-cert", f"  :{b64encode(DER).decode()}:\t"),
        ("x-client-cert", quote(PEM, "")),
        ("x-client-cert", quote(PEM, "+=/ ")),
        ("x-client-cert", PEM.replace("\n", "\t")),
    ],
    ids=steady,
)
def test_a_proxy_tells_of_a_certificate(source: CertificateSource, line: str) -> None:
    """Each kind of header tells of the certificate as its proxies write it."""
    assert of_header(source, [line.encode()]) == RIGHT


@pytest.mark.parametrize(
    "line",
    [
        "", "Hash", "Hash=", f"Hash={HASH[:-1]}", f"Hash={HASH}0", f"Hash={HASH[:-1]}g", f"Hash={HASH};Hash={HASH}",
        f"Hash={'0' * 64};hash={HASH}", f"Hash={HASH},Hash={'0' * 64}", f"By=a,Hash={HASH}", f"Hash={HASH},By=a",
        f"URI=spiffe://x;Hash={'0' * 64};Hash={HASH}", f"By=a;URI=b,Hash={HASH};By=c", f"Hash={HASH},", f"={HASH}",
        f'Subject="CN=x;Hash={HASH}', f'Subject="CN=x\\";Hash={HASH}', f'Subject=CN="x";Hash={HASH}', f"Hash = {HASH}",
        f"Hash={HASH} ;By=a", f'Subject="x"y;Hash={HASH}', f'Subject="Hash={HASH}"', f"URI=Hash={HASH}", ";;",
        f";Hash={HASH}", "Hash=" + "\u0660" * 64, f"Cert={quote(PEM)}",
    ],
    ids=steady,
)  # fmt: skip
def test_what_envoy_does_not_write(line: str) -> None:
    """Two certificates or two hashes, no hash, or a malformed header tell of none, wherever a hash stands in it."""
    assert of_header("x-forwarded-client-cert", [line.encode()]) is None


@pytest.mark.parametrize(
    "line",
    [
        b"", b":", b"::", b":x", b"x:", b":A:", b":====:", b":" + b64encode(DER), b64encode(DER), b64encode(DER) + b":",
        b":" + b64encode(DER) + b":, :" + b64encode(DER) + b":", b":" + b64encode(DER) + b":;a=1",
        b":" + b64encode(DER) + b";",
        b":" + b64encode(DER).replace(b"M", b"-", 1) + b":",
        b":" + b64encode(DER)[:9] + b" " + b64encode(DER)[9:] + b":",
    ],
    ids=steady,
)  # fmt: skip
def test_what_rfc_9440_does_not_write(line: bytes) -> None:
    """Anything but one byte sequence tells of no certificate."""
    assert of_header("client-cert", [line]) is None


@pytest.mark.parametrize("source", HEADERS)
def test_headers_are_single_and_bounded(source: CertificateSource) -> None:
    """No header, two of them, or a huge one tell of no certificate."""
    line = {
        "x-forwarded-client-cert": ENVOY,
        "client-cert": f":{b64encode(DER).decode()}:",
        "x-client-cert": quote(PEM),
    }
    right = line[source].encode()
    assert of_header(source, [right]) == RIGHT
    assert of_header(source, []) is None
    assert of_header(source, [right, right]) is None
    assert of_header(source, [right + b" " * MAX_HEADER_BYTES]) is None
    assert of_header(source, [b"A" * (MAX_HEADER_BYTES + 1)]) is None


@given(st.sampled_from(HEADERS), st.lists(st.binary(max_size=300), max_size=2))
@example("x-forwarded-client-cert", [b'By="\\'])
@example("client-cert", [b":\xff:"])
@example("x-client-cert", [b"%ff%zz%"])
def test_no_bytes_raise(source: CertificateSource, lines: list[bytes]) -> None:
    """Whatever stands in the header, it tells of a certificate or of none."""
    found = of_header(source, lines)
    assert found is None or len(urlsafe_b64decode(found + "=")) == 32


NAMES = st.sampled_from(["By", "URI", "DNS", "Subject", "Chain"])


@given(st.lists(st.tuples(NAMES, st.text(max_size=20))), st.integers(0, 10))
def test_what_a_client_chose_is_never_a_hash(values: list[tuple[str, str]], at: int) -> None:
    """However a client names itself in its certificate, as Envoy quotes it, the hash stays that of the certificate."""
    pairs = [(name, value.encode("ascii", "ignore").decode()) for name, value in values]
    quoted = [
        f'{name}="{value.replace(chr(92), chr(92) * 2).replace(chr(34), chr(92) + chr(34))}"' for name, value in pairs
    ]
    quoted.insert(at, f"Hash={HASH}")
    assert of_header("x-forwarded-client-cert", [";".join(quoted).encode()]) == RIGHT


@given(st.text('=;,"\\Hash0' + HASH, max_size=200))
@example(f";Hash={'0' * 64}")
@example(f",Hash={'0' * 64};By=")
def test_what_is_not_quoted_is_never_a_hash(value: str) -> None:
    """A name that Envoy does not quote (`URI`) makes the header say nothing, if it does more than stand there."""
    shown = of_header("x-forwarded-client-cert", [f"By=spiffe://mesh/shop;Hash={HASH};URI={value}".encode()])
    assert shown in (RIGHT, None)
