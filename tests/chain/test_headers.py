"""The few things that every layer does with a response's headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_guard.asgi import Head, Headers

names = st.sampled_from([b"vary", b"Vary", b"VARY", b"x-id", b"X-ID", b"set-cookie", b"Set-Cookie"])
lists = st.lists(st.tuples(names, st.sampled_from([b"", b"a", b"*", b"Origin", b"accept, origin", b"x,*"])), max_size=6)


@pytest.mark.parametrize(
    ("headers", "found"),
    [([], False), ([(b"X-Id", b"1")], True), ([(b"x-idx", b"1")], False), ([(b"a", b""), (b"x-id", b"")], True)],
)
def test_a_header_is_found(headers: Headers, found: bool) -> None:
    """A header is found in whatever case the app wrote it."""
    assert (b"x-id" in Head(headers).names) is found


@given(lists)
def test_the_list_of_the_app_is_not_touched(headers: Headers) -> None:
    """What layers add, replace and take away stays out of the message that the app sent."""
    before = list(headers)
    head = Head(headers)
    head.add(b"a", b"1")
    head.set(b"x-id", b"1")
    head.remove(frozenset((b"vary",)))
    assert headers == before


@given(lists, st.binary(max_size=5))
def test_setting(headers: Headers, value: bytes) -> None:
    """After setting a header there is one line of it, and every other line is there as it was, in order."""
    head = Head(headers)
    head.set(b"x-id", value)
    assert [line for line in head.lines if line[0].lower() == b"x-id"] == [(b"x-id", value)]
    assert [line for line in head.lines if line[0].lower() != b"x-id"] == [
        line for line in headers if line[0].lower() != b"x-id"
    ]


@given(lists, st.sets(st.sampled_from([b"vary", b"x-id", b"a"])))
def test_names_keep_up(headers: Headers, removed: set[bytes]) -> None:
    """The names are those of the lines, whatever was added and taken away."""
    head = Head(headers)
    head.set(b"x-id", b"1")
    head.vary(b"origin")
    head.remove(frozenset(removed))
    assert head.names == {name.lower() for name, _ in head.lines}
    assert head.names.isdisjoint(removed)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], [(b"vary", b"origin")]),
        ([(b"vary", b"accept")], [(b"vary", b"accept, origin")]),
        ([(b"VARY", b"Accept,  x-a")], [(b"vary", b"Accept,  x-a, origin")]),
        ([(b"vary", b"")], [(b"vary", b"origin")]),
        ([(b"vary", b"x-origin")], [(b"vary", b"x-origin, origin")]),
        (
            [(b"vary", b"accept"), (b"a", b"1"), (b"Vary", b"Cookie")],
            [(b"a", b"1"), (b"vary", b"accept, Cookie, origin")],
        ),
        ([(b"origin", b"origin")], [(b"origin", b"origin"), (b"vary", b"origin")]),
        ([(b"vary", b"origin")], None),
        ([(b"Vary", b"Accept , ORIGIN")], None),
        ([(b"vary", b"accept"), (b"Vary", b"origin")], None),
        ([(b"vary", b"*")], None),
        ([(b"vary", b"accept, *")], None),
    ],
)
def test_vary(before: Headers, after: Headers | None) -> None:
    """A request header is named in Vary, beside what the app named, unless it or everything is named there already."""
    head = Head(before)
    head.vary(b"origin")
    assert head.lines == (before if after is None else after)


def named_in_vary(headers: Headers) -> list[bytes]:
    lines = [value for name, value in headers if name.lower() == b"vary"]
    return [item.strip().lower() for value in lines for item in value.split(b",") if item.strip()]


@given(lists)
def test_vary_once(headers: Headers) -> None:
    """Naming a header twice changes nothing more than naming it once; nothing is lost, and what changes is one line."""
    head = Head(headers)
    head.vary(b"origin")
    once = list(head.lines)
    head.vary(b"origin")
    assert head.lines == once
    assert [line for line in once if line[0].lower() != b"vary"] == [
        line for line in headers if line[0].lower() != b"vary"
    ]
    before, after = named_in_vary(headers), named_in_vary(once)
    if {b"origin", b"*"} & set(before):
        assert once == headers
    else:
        assert after == [*before, b"origin"]
        assert [name for name, _ in once if name.lower() == b"vary"] == [b"vary"]
