"""Which tokens are revoked, and for how long that is kept."""

from __future__ import annotations

import pytest

from asgi_guard.policy.claims import MAX_LEEWAY
from asgi_guard.policy.revocation import (
    EVER,
    LONGEST_TTL,
    MARGIN,
    Marks,
    is_revoked,
    kept_for,
    longest_life,
    marks_of,
    session_key,
    subject_key,
)


@pytest.mark.parametrize(
    ("instant", "issued", "revoked"),
    [
        (0, 0, False),
        (0, 5_000, False),
        (EVER, 0, True),
        (EVER, 5_000, True),
        (5_000, 4_999, True),
        (5_000, 5_000, True),
        (5_000, 5_001, False),
        (5_000, 0, True),
        (5_000, -7, True),
    ],
)
def test_what_is_kept_is_compared_with_when_it_was_issued(instant: int, issued: int, *, revoked: bool) -> None:
    """Nothing kept revokes nothing, a name revokes for ever, an instant what was not issued after it."""
    assert is_revoked(instant, Marks(None, "u", issued)) is revoked


def test_without_marks_only_a_name_revokes() -> None:
    """Where only the id was looked up, an instant says nothing of it."""
    assert [is_revoked(instant, None) for instant in (0, EVER, 5_000)] == [False, True, False]


def test_marks_are_hashed_and_apart() -> None:
    """Names in the store tell nothing of session and subject, and those of several issuers are apart."""
    marks = marks_of("https://a.test", "alice", {"sid": "alice", "iat": 12.5})
    assert marks == Marks(session_key("https://a.test", "alice"), subject_key("https://a.test", "alice"), 12_500_000)
    assert marks_of("https://a.test", "alice", {}) == Marks(None, marks.subject)
    other = marks_of("https://b.test", "alice", {"sid": "alice"})
    names = {marks.session, marks.subject, other.session, other.subject}
    assert len(names) == 4
    assert all(name is not None and len(name) == 32 and "alice" not in name for name in names)


@pytest.mark.parametrize(
    ("max_age", "max_lifetime", "life"),
    [(None, None, None), (900, None, 960), (None, 600, 660), (900, 600, 660), (300, 600, 360)],
)
def test_the_longest_life_of_a_token(max_age: float | None, max_lifetime: float | None, life: float | None) -> None:
    """The stricter bound counts, and both clocks may differ by the leeway."""
    assert longest_life(max_age, max_lifetime, 30) == life


@pytest.mark.parametrize(
    ("life", "ttl", "kept"),
    [
        (None, None, 30 * 24 * 3600), (960, None, 960), (None, 5, 5), (960, 960, 960), (9, 99, 99), (0, None, 1),
        (None, LONGEST_TTL, LONGEST_TTL), (None, 0.5, 0.5),
    ],
)  # fmt: skip
def test_a_revocation_is_kept_as_long_as_tokens_live(life: float | None, ttl: float | None, kept: float) -> None:
    """Unless said, it is kept for the longest life, and for 30 days where there is none; longer, where that is said."""
    assert kept_for(life, ttl) == kept


def test_a_revocation_outlasts_its_token_by_any_leeway() -> None:
    """A token that another guard takes for longer, by the leeway of that one, is revoked there to its end."""
    assert MARGIN >= MAX_LEEWAY


@pytest.mark.parametrize(
    ("life", "ttl"), [(None, 0), (None, -1), (960, 959), (None, LONGEST_TTL + 1), (None, float("inf"))]
)
def test_a_revocation_that_tokens_outlive_is_refused(life: float | None, ttl: float) -> None:
    """So is one that is kept for no time, or for ever."""
    with pytest.raises(ValueError, match="ttl"):
        kept_for(life, ttl)
    with pytest.raises(ValueError, match="ttl"):
        kept_for(life, float("nan"))
