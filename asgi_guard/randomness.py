"""Random digits, many from one call to the system, which is the dearest part of making an id."""

from __future__ import annotations

import os
from collections.abc import Iterator

DIGITS = 32
"""Hexadecimal digits of one piece: 128 bits."""
PIECES = 256

_pieces: Iterator[str] = iter(())


def random_digits() -> str:
    """32 hexadecimal digits that nobody else is given: not another thread, and not a process that was forked off."""
    # The next of an iterator over a list is taken whole: two threads never get the same one.
    return next(_pieces, None) or _refill()


def _refill() -> str:
    global _pieces
    drawn = os.urandom(PIECES * DIGITS // 2).hex()
    _pieces = iter([drawn[start : start + DIGITS] for start in range(0, len(drawn), DIGITS)])
    return next(_pieces)


def _forget() -> None:
    global _pieces
    _pieces = iter(())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
