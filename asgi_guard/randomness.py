"""Random digits, many from one call to the system, which is the dearest part of making an id."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DIGITS = 32
"""Hexadecimal digits of one piece: 128 bits."""
PIECES = 256


class Stock:
    """Pieces that nobody else is given: not another thread, and not a process that was forked off.

    Args:
        digits: random hexadecimal digits of each piece.
        cut: makes the pieces of the digits of `PIECES` of them.
    """

    def __init__(self, digits: int, cut: Callable[[bytes], list[str]]) -> None:
        self._digits = digits
        self._cut = cut
        self._pieces: Iterator[str] = iter(())
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def take(self) -> str:
        """Take a piece."""
        # The next of an iterator over a list is taken whole: two threads never get the same one.
        return next(self._pieces, None) or self._refill()

    def _refill(self) -> str:
        drawn = os.urandom(-(-PIECES * self._digits // 2)).hex().encode()
        self._pieces = pieces = iter(self._cut(drawn[: PIECES * self._digits]))
        return next(pieces)

    def _forget(self) -> None:
        self._pieces = iter(())


def _cut(drawn: bytes) -> list[str]:
    text = drawn.decode()
    return [text[start : start + DIGITS] for start in range(0, len(text), DIGITS)]


random_digits = Stock(DIGITS, _cut).take
"""32 hexadecimal digits that nobody else is given."""
