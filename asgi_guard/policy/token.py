"""JSON Web Tokens, parsed strictly (RFC 7515, 7519, 8725), before any key is looked for.

PyJWT verifies the signature; what it would let through is refused here first: oversized tokens, non-canonical base64
(two strings would be one token and slip past a cache or a revocation), duplicate members, `NaN`, deep nesting,
`crit`, `b64`, `zip`, nested tokens, and algorithms by anything but their exact name. Headers that name keys (`jku`,
`jwk`, `x5u`, `x5c`) are never followed.

The order of decisions: size; three segments; the header's encoding; the algorithm; the header's other members; the
encoding of the payload, and of the signature. The signature itself and the claims come after, with the key.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from asgi_guard.errors import TokenError

if TYPE_CHECKING:
    from collections.abc import Collection

MAX_TOKEN_BYTES = 8192
MAX_KID_LENGTH = 256
MAX_DEPTH = 16
"""JSON nested deeper than this is no claims set."""
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
"""A JSON string, or the rest of the text where one does not end, be it with a backslash.

It has to match at every quote: else each of them would have the text looked through to its end, a tenth of a second for
the longest token.
"""


@dataclass(frozen=True, slots=True)
class ParsedToken:
    """A token whose form is right and whose signature nobody has checked yet.

    Attributes:
        algorithm: the header's `alg`, which is on the allow-list.
        kid: the header's `kid`.
        header: all of the header.
        claims: all of the payload.
        signing_input: the bytes that the signature is over.
        signature: the signature.
    """

    algorithm: str
    kid: str | None
    header: dict[str, Any]
    claims: dict[str, Any]
    signing_input: bytes
    signature: bytes


def parse(token: bytes, algorithms: Collection[str]) -> ParsedToken:
    """Parse a token in compact serialisation.

    Args:
        token: the bytes behind `Bearer `.
        algorithms: the exact names that are allowed.

    Raises:
        TokenError: the form is not right; the reason is `too_large`, `malformed`, `algorithm` or `unsupported`.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise too_large(token)
    segments = token.split(b".", 3)
    if len(segments) != 3:
        what = "an encrypted token (JWE)" if token.count(b".") == 4 else "not a signed token in compact form"
        raise TokenError("malformed", f"this is {what}: it does not have exactly three segments")
    header = _json(segments[0], "header")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        allowed = ", ".join(sorted(algorithms))
        raise TokenError("algorithm", f"the algorithm {_shown(algorithm)} is not allowed (allowed: {allowed})")
    _check_header(header)
    kid = header.get("kid")
    if kid is not None and (not isinstance(kid, str) or len(kid) > MAX_KID_LENGTH):
        raise TokenError("malformed", f"the kid is not a string of at most {MAX_KID_LENGTH} characters")
    claims = _json(segments[1], "payload")
    signature = _base64(segments[2], "signature")
    return ParsedToken(algorithm, kid, header, claims, token[: -len(segments[2]) - 1], signature)


def too_large(token: bytes) -> TokenError:
    """The error for a token beyond the size of tokens."""
    return TokenError("too_large", f"the token has {len(token)} bytes; {MAX_TOKEN_BYTES} are allowed")


def _check_header(header: dict[str, Any]) -> None:
    for name in ("crit", "b64", "zip"):
        if name in header:
            raise TokenError("unsupported", f"the header has {name!r}, which is not supported")
    content = header.get("cty")
    if content is not None and (not isinstance(content, str) or content.upper().removeprefix("APPLICATION/") == "JWT"):
        raise TokenError("unsupported", "the token holds another token (cty: JWT)")


def _base64(segment: bytes, what: str) -> bytes:
    try:
        decoded = urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    except ValueError:
        raise TokenError("malformed", f"the {what} is not base64url") from None
    # Python's decoder skips what it does not know and ignores stray last bits: only the canonical form is accepted.
    if urlsafe_b64encode(decoded).rstrip(b"=") != segment:
        raise TokenError("malformed", f"the {what} is not canonical base64url (RFC 7515 appendix C)")
    return decoded


def _json(segment: bytes, what: str) -> dict[str, Any]:
    decoded = _base64(segment, what)
    if _is_too_deep(decoded):
        raise TokenError("malformed", f"the {what} is nested deeper than {MAX_DEPTH}")
    try:
        value = json.loads(decoded.decode("utf-8"), object_pairs_hook=_members, parse_constant=_constant)
        if b"\\u" in decoded:
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # a lone surrogate, spelt \\ud800, has no encoding
    except ValueError:
        raise TokenError("malformed", f"the {what} is not strict JSON") from None
    if not isinstance(value, dict):
        raise TokenError("malformed", f"the {what} is not a JSON object")
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _is_too_deep(text: bytes) -> bool:
    """Whether JSON is nested too deep, told before it is parsed. Brackets within strings count on neither side."""
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for byte in _STRING.sub(b"", text):
        if byte in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif byte in b"]}":
            depth -= 1
    return False


def _shown(value: object) -> str:
    """A header's value for the operator's eyes: short, and with nothing that a terminal would obey."""
    return ascii(value)[:64]
