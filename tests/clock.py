"""A clock that stands still until it is told."""

from __future__ import annotations


class Clock:
    """Seconds, as they are told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now
