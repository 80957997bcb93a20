"""Lists as people write them, and reports of everything that is wrong at once."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.errors import ConfigError, Problem
from asgi_guard.policy.listing import listed


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("", ()), ("  ", ()), (",", ()), (" , ,", ()), ("a", ("a",)), ("a,b", ("a", "b")), (" a , b ,", ("a", "b")),
        ("https://a.example.com", ("https://a.example.com",)), ("a b", ("a b",)), ("a\n,b\n", ("a", "b")),
        ("[]", ()), ('["a"]', ("a",)), ('["a", "b"]', ("a", "b")), (' ["a,b"] ', ("a,b",)), ('["é"]', ("é",)),
        ("[::1]", ("[::1]",)), ("[2001:DB8::1] , a", ("[2001:DB8::1]", "a")), ("a, [::1]", ("a", "[::1]")),
        ([], ()), (["a", "b"], ("a", "b")), (("a",), ("a",)), (["a,b"], ("a,b",)),
    ],
)  # fmt: skip
def test_a_list_is_read_as_it_is_meant(written: str | list[str], meant: tuple[str, ...]) -> None:
    """Commas, JSON and sequences make the same list, and a plain string is one item."""
    assert listed(written) == meant


@pytest.mark.parametrize(
    "written",
    ["[", "[a]", "[a, b]", '["a"', '["a"] x', "[1]", "[1:", "[::1] a", '["a", null]', '[["a"]]', "[" * 10_000],
)
def test_what_starts_like_json_is_json(written: str) -> None:
    """A list that starts like JSON and is none, or holds anything but strings, is refused with both spellings."""
    with pytest.raises(ValueError, match="JSON such as"):
        listed(written)


@given(items=st.lists(st.text()))
@example(items=["a, b", "[", ""])
def test_json_carries_any_strings(items: list[str]) -> None:
    """Every list of strings can be written as JSON."""
    assert listed(json.dumps(items)) == tuple(items)


@given(written=st.text())
@example(written="abc")
@example(written=" [")
def test_no_letter_becomes_an_item_by_itself(written: str) -> None:
    """A string is read as its parts between commas, each without white space around, or refused as broken JSON."""
    if written.strip().startswith("["):
        return
    assert ",".join(listed(written)) == ",".join(part.strip() for part in written.split(",") if part.strip())


def test_problems_are_reported_together() -> None:
    """An error holds every problem by its option, and its text names them all in order."""
    error = ConfigError([Problem("origins", "is empty"), Problem("max_age", "is negative")])
    assert error.problems == (Problem("origins", "is empty"), Problem("max_age", "is negative"))
    assert str(error) == "origins: is empty\nmax_age: is negative"
    assert isinstance(error, ValueError)
