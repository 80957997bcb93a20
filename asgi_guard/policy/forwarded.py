"""`Forwarded` (RFC 7239), read from the right: what the nearest proxy appended comes first.

A client may send anything ahead of it, so nothing to the left of the elements that count is looked at: neither an
unbalanced quote there, nor a thousand elements, change what the proxies' own say.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ELEMENT = 1024
"""Characters of the longest element that is read; proxies write some 100."""
MAX_COMMAS = 128
"""How many commas are looked at, those within quoted strings too."""

_PAIR = re.compile(
    r"[ \t]*(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+)="
    r'(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<token>[^\s,;"]+))[ \t]*(?P<separator>;|\Z)',
    re.DOTALL,
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def elements(text: str) -> Iterator[dict[str, str] | None]:
    """The elements, last first: each the pairs of its names, in lower case, and values; None for a malformed one.

    They are split at the commas outside of quoted strings. Nothing is given beyond an element that cannot be told from
    its neighbours: one longer than `MAX_ELEMENT`, or with a quote that has no other.
    """
    text = text.strip(" \t")
    end = at = len(text)
    quotes = 0
    for _ in range(MAX_COMMAS):
        comma = text.rfind(",", 0, at)
        if end - comma > MAX_ELEMENT:
            yield None
            return
        if text.find('"', comma + 1, at) >= 0:
            quotes += _ESCAPED.sub("", text[comma + 1 : at]).count('"')
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

    Addresses are taken unquoted as well, as some proxies write them.
    """
    pairs: dict[str, str] = {}
    at = 0
    while True:
        match = _PAIR.match(text, at)
        if match is None or (name := match["name"].lower()) in pairs:
            return None
        quoted = match["quoted"]
        pairs[name] = match["token"] if quoted is None else _ESCAPED.sub(r"\1", quoted)
        if not match["separator"]:
            return pairs
        at = match.end()
