"""Tokens that were verified a moment ago, so that a signature is not checked with every request.

An entry is found by the SHA-256 of the token's bytes, lives for a minute at most and never past the token's end, and
counts only for the very key set that verified it: a key rotated out takes its tokens along. Revocation is not
remembered here; it is looked up with every request.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asgi_guard.policy.identity import User
    from asgi_guard.policy.keys import KeySet

LIFETIME = 60.0


class TokenCache:
    """A bounded map from tokens to the users they were verified to be; the oldest entry leaves first.

    Args:
        size: how many tokens it holds at most; 0 holds none.
    """

    def __init__(self, size: int = 10_000) -> None:
        self._size = size
        self._entries: dict[bytes, tuple[User, float, KeySet]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @staticmethod
    def digest(token: bytes) -> bytes:
        """The name of a token in the cache."""
        return sha256(token).digest()

    def get(self, digest: bytes, now: float) -> tuple[User, KeySet] | None:
        """Find a token's user and the keys that verified it, if the entry still counts at `now` (Unix seconds)."""
        entry = self._entries.get(digest)
        if entry is None:
            return None
        user, until, keys = entry
        if now < until:
            return user, keys
        del self._entries[digest]
        return None

    def put(self, digest: bytes, user: User, now: float, keys: KeySet) -> None:
        """Remember that this token is this user's."""
        if self._size < 1:
            return
        entries = self._entries
        if len(entries) >= self._size and digest not in entries:
            del entries[next(iter(entries))]
        until = now + LIFETIME
        entries[digest] = (user, until if user.expires is None else min(user.expires, until), keys)

    def forget(self, digest: bytes) -> None:
        """Drop a token, as when its keys have changed."""
        self._entries.pop(digest, None)
