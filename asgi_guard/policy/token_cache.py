"""Tokens that were verified a moment ago, so that a signature is not checked with every request.

An entry is found by the SHA-256 of the token's bytes, lives for a minute at most and never past the token's end, and
counts only for the very key set that verified it: a key rotated out takes its tokens along. Revocation is not
remembered here; it is looked up with every request.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from asgi_guard.policy.identity import User
    from asgi_guard.policy.keys import KeySet

LIFETIME = 60.0
AT_ONCE = 16
"""Entries that are over and leave with one that comes: as many as take a few microseconds."""
_Entry = TypeVar("_Entry")


def put_last(
    entries: OrderedDict[bytes, _Entry], name: bytes, entry: _Entry, size: int, is_over: Callable[[_Entry], bool]
) -> None:
    """Put an entry behind all others. A few of the oldest leave that are over; if there is no room, the oldest does.

    A plain dict from whose front much was deleted looks for its first entry through all that is gone.

    Args:
        entries: what there is, in the order in which it was put.
        name: of the entry, in the place of one of that name.
        entry: what is put.
        size: how many there may be.
        is_over: whether an entry counts no more.
    """
    entries.pop(name, None)
    for _ in range(min(AT_ONCE, len(entries))):
        oldest = next(iter(entries))
        if len(entries) < size and not is_over(entries[oldest]):
            break
        del entries[oldest]
    entries[name] = entry


class TokenCache:
    """A bounded map from tokens to the users they were verified to be; the oldest entry leaves first.

    Those that are over leave a few at a time, as others come.

    Args:
        size: how many tokens it holds at most; 0 holds none.
    """

    def __init__(self, size: int = 10_000) -> None:
        self._size = size
        self._entries: OrderedDict[bytes, tuple[User, float, KeySet]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    @staticmethod
    def digest(token: bytes) -> bytes:
        """The name of a token in the cache."""
        return sha256(token).digest()

    def get(self, digest: bytes, now: float) -> tuple[User, KeySet] | None:
        """Find a token's user and the keys that verified it, if the entry still counts at `now` (Unix seconds)."""
        try:
            user, until, keys = self._entries[digest]  # most are there, and `get` takes longer
        except KeyError:
            return None
        if now < until:
            return user, keys
        del self._entries[digest]
        return None

    def put(self, digest: bytes, user: User, now: float, keys: KeySet) -> None:
        """Remember that this token is this user's."""
        if self._size < 1:
            return
        until = now + LIFETIME
        entry = user, until if user.expires is None else min(user.expires, until), keys
        put_last(self._entries, digest, entry, self._size, lambda entry: entry[1] <= now)

    def forget(self, digest: bytes) -> None:
        """Drop a token, as when its keys have changed."""
        self._entries.pop(digest, None)
