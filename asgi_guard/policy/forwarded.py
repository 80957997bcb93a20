"""`Forwarded` (RFC 7239), read from the right: what the nearest proxy appended comes first.

A client may send anything ahead of it, so nothing to the left of the elements that count is looked at: neither an
unbalanced quote there, nor a thousand elements, change what the proxies' own say.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_ELEMENT = 1024
"""Characters of the longest element that is read; proxies write some 100."""
MAX_COMMAS = 128
"""How many commas are looked at, those within quoted strings too."""
MAX_TEXT = 2560
"""Characters that are looked at in all, so that no client makes a request dear by what it sends ahead."""
MAX_PAIRS = 12
"""Pairs of an element: RFC 7239 has four, and lets proxies add some."""

_PAIR = re.compile(
    r"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)="
    r'(?:"([^"\\]*(?:\\.[^"\\]*)*)"|([^\s,;"]+))[ \t]*(;|\Z)',
    re.DOTALL,
)
"""Its groups: the name, the value if it is quoted, the value if it is a token, and what comes after it."""
_EMPTY = re.compile(r"[ \t;]*")
"""Pairs that there are not, which may stand between those that there are."""
_BACKSLASH, _NO_BYTE = "\\\\", "\uffff"
"""One that is escaped, and what stands for it in between: no header has it."""


def tail(lines: Sequence[bytes]) -> str:
    """What `elements` looks at of a header's lines, and one character more, by which it sees that there is more."""
    return b",".join(lines).rstrip(b" \t")[-1 - MAX_TEXT :].decode("latin-1")


def elements(text: str) -> Iterator[dict[str, str] | None]:
    """The elements, last first: each the pairs of its names, in lower case, and values; None for a malformed one.

    They are split at the commas outside of quoted strings. Nothing is given beyond an element that cannot be told from
    its neighbours: one longer than `MAX_ELEMENT`, one that begins before the last `MAX_TEXT` characters, or one with a
    quote that has no other.
    """
    text = text.rstrip(" \t")
    end = at = len(text)
    quotes, first, escapes = 0, max(0, end - MAX_TEXT), "\\" in text
    for _ in range(MAX_COMMAS):
        comma = text.rfind(",", 0, at)
        if end - comma - 1 > MAX_ELEMENT or comma + 1 < first:
            yield None
            return
        if escapes:
            quotes += text[comma + 1 : at].replace(_BACKSLASH, "").replace('\\"', "").count('"')
        else:
            quotes += text.count('"', comma + 1, at)
        if quotes % 2 == 0:
            yield parse_element(text[comma + 1 : end])
            end, quotes = comma, 0
        if comma < 0:
            break
        at = comma
    if end >= 0:
        yield None


def parse_element(text: str) -> dict[str, str] | None:
    """Parse one element: `name=value` pairs, each name once, values tokens or quoted strings; None if it is none.

    One with more than `MAX_PAIRS` is none. Addresses are taken unquoted as well, as some proxies write them.
    """
    pairs: dict[str, str] = {}
    at = 0
    for _ in range(MAX_PAIRS):
        match = _PAIR.match(text, at)
        if match is None:
            empty = _EMPTY.match(text, at)
            assert empty is not None  # noqa: S101 - it matches anywhere
            if empty.end() == len(text):
                return pairs or None
            if empty.end() == at:
                return None
            at = empty.end()
            continue
        name, quoted, token, separator = match.groups()
        name = name.lower()
        if name in pairs:
            return None
        pairs[name] = token if quoted is None else _unescaped(quoted) if "\\" in quoted else quoted
        if not separator:
            return pairs
        at = match.end()
    return None


def _unescaped(text: str) -> str:
    """What a quoted string stands for. Without a regular expression, which is slow where much is escaped."""
    return text.replace(_BACKSLASH, _NO_BYTE).replace("\\", "").replace(_NO_BYTE, "\\")
