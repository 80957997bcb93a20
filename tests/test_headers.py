"""The few things that every layer does with a response's headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_guard.asgi import Headers, add_vary, has_header, set_header

names = st.sampled_from([b"vary", b"Vary", b"VARY", b"x-id", b"X-ID", b"set-cookie", b"Set-Cookie"])
lists = st.lists(st.tuples(names, st.sampled_from([b"", b"a", b"*", b"Origin", b"accept, origin", b"x,*"])), max_size=6)


@pytest.mark.parametrize(
    ("headers", "found"),
    [([], False), ([(b"X-Id", b"1")], True), ([(b"x-idx", b"1")], False), ([(b"a", b""), (b"x-id", b"")], True)],
)
def test_has_header(headers: Headers, found: bool) -> None:
    """A header is found in whatever case the app wrote it."""
    assert has_header(headers, b"x-id") is found


@given(lists, st.binary(max_size=5))
def test_set_header(headers: Headers, value: bytes) -> None:
    """After setting a header there is one line of it, and every other line is there as it was, in order."""
    before = list(headers)
    set_header(headers, b"x-id", value)
    assert [line for line in headers if line[0].lower() == b"x-id"] == [(b"x-id", value)]
    assert [line for line in headers if line[0].lower() != b"x-id"] == [
        line for line in before if line[0].lower() != b"x-id"
    ]


@pytest.mark.parametrize(
    ("before", "added"),
    [
        ([], True),
        ([(b"vary", b"accept")], True),
        ([(b"vary", b"")], True),
        ([(b"vary", b"x-origin")], True),
        ([(b"origin", b"origin")], True),
        ([(b"vary", b"origin")], False),
        ([(b"Vary", b"Accept , ORIGIN")], False),
        ([(b"vary", b"accept"), (b"Vary", b"Origin")], False),
        ([(b"vary", b"*")], False),
        ([(b"vary", b"accept, *")], False),
    ],
)
def test_add_vary(before: Headers, added: bool) -> None:
    """A request header is named in Vary unless it, or everything, is named there already."""
    headers = list(before)
    add_vary(headers, b"Origin")
    assert headers == [*before, *([(b"vary", b"Origin")] if added else [])]


@given(lists)
def test_add_vary_once(headers: Headers) -> None:
    """Naming a header twice changes nothing more than naming it once, and nothing that the app said is lost."""
    before = list(headers)
    add_vary(headers, b"origin")
    once = list(headers)
    add_vary(headers, b"origin")
    assert headers == once
    assert once[: len(before)] == before
    named = {item.strip() for name, value in once if name.lower() == b"vary" for item in value.lower().split(b",")}
    assert named & {b"origin", b"*"}
