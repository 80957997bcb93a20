"""What is the origin of one page, as whoever asks about one writes it."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.policy.origins import origin_problems, page_origin_fault


@pytest.mark.parametrize("origin", ["null", "https://a.example", "http://a.example:8080", "https://[::1]:8443"])
def test_the_origin_of_a_page(origin: str) -> None:
    """A page has an origin as browsers write it, or `null`, which no list may name."""
    assert page_origin_fault(origin) is None


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        ("*", "is no one page's origin"), ("https://*.example.com", "is no one page's origin"),
        ("https://a.example:*", "is no one page's origin"), ("", "scheme://host"), ("a.example", "scheme://host"),
        ("https://a.example/", "without path"), ("wss://a.example", "scheme://host"),
        ("https://a.example:443", "no default port"), ("https://A.example", "lower case"),
        ("NULL", "cannot be allowed"),
    ],
)  # fmt: skip
def test_what_no_page_has(origin: str, said: str) -> None:
    """A pattern stands for many pages, and what no browser writes is that of none; it is said which of these it is."""
    assert said in (page_origin_fault(origin) or "")


parts = st.sampled_from(["https", "http", "ws", "://", "a.example", "*.", "*", "null", ":443", ":80", ":8443", "/"])


@given(st.lists(parts, max_size=5).map("".join))
@example("https://a.example:8443")
@example("http://*.a.example")
def test_a_page_has_what_a_list_may_name(origin: str) -> None:
    """But for `null`, a page has just the origins that a list without cookies may name and that are no patterns."""
    named = not list(origin_problems([origin], credentials=False, public_suffixes=True))
    assert (page_origin_fault(origin) is None) is (origin == "null" or (named and "*" not in origin))
