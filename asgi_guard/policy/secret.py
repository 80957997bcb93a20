"""Secrets that operators choose: how short one may be."""

from __future__ import annotations

MIN_SECRET = 32
"""Characters of the shortest secret: of random ones, half of them would do."""


def too_short(secret: str) -> str | None:
    """What to take instead of a secret that is too short; None for one that is not, and where none is set."""
    if not secret or len(secret) >= MIN_SECRET:
        return None
    return f"it is too short to be a secret: take {MIN_SECRET} random characters or more"
