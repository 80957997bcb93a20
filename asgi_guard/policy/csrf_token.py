"""Tokens by which a page shows that it is the app's own: bound to the session, and worth nothing in another.

A token is base64url of 16 random bytes and an HMAC-SHA256 over them and the value of the session's cookie: the signed
double-submit pattern without a second cookie. The random bytes make every token look different, so that a page which is
compressed does not give it away letter by letter (BREACH). There is no date in it: it ends with the session's value.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from binascii import Error, a2b_base64
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

NONCE_BYTES = 16
TOKEN_CHARACTERS = 64
"""Of 48 bytes, which base64 needs no padding for."""

_PURPOSE = b"asgi-guard csrf 1\0"
"""Keeps these apart from whatever else the same secret may sign."""
_URLSAFE = bytes.maketrans(b"-_+/", b"+/\0\0")


class CSRFTokens:
    """Makes tokens with the first of its secrets, and takes those of all.

    Args:
        secrets: the secret in use, and those that were before it.
    """

    __slots__ = ("_keys",)

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keys = tuple(secret.encode() for secret in secrets)

    def make(self, session: bytes, nonce: bytes) -> str:
        """A token for the session whose cookie has this value.

        Args:
            session: the cookie's value.
            nonce: 16 random bytes.
        """
        return urlsafe_b64encode(nonce + _mac(self._keys[0], nonce, session)).decode()

    def verify(self, token: bytes, session: bytes) -> bool:
        """Tell whether a token was made for this session."""
        if len(token) != TOKEN_CHARACTERS:
            return False
        try:
            raw = a2b_base64(token.translate(_URLSAFE), strict_mode=True)
        except Error:
            return False
        nonce, mac = raw[:NONCE_BYTES], raw[NONCE_BYTES:]
        return any(hmac.compare_digest(mac, _mac(key, nonce, session)) for key in self._keys)


def _mac(key: bytes, nonce: bytes, session: bytes) -> bytes:
    return hmac.digest(key, _PURPOSE + nonce + session, sha256)
