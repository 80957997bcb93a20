"""The ASGI vocabulary: types and the few things every layer does with headers.

The types are those of the ASGI specification 3.0, in the loose form that Starlette uses. Frameworks and servers have
types of their own for the three arguments of an app, which exclude each other: so those are left open where apps meet,
and any app may be guarded, and the guard be given to any server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]

Header: TypeAlias = tuple[bytes, bytes]
Headers: TypeAlias = list[Header]


class Head:
    """The headers of one response on its way out, for the layers to add to. The message they came in is not touched.

    Attributes:
        lines: every header line, in order: those of the app, or of the guard's own answer, and what layers added.
        names: the names that the app sent, in lower case whatever its own spelling, and those that the methods below
            added: what a layer looks at before it says the same again.
        status: the response's; None for an accepted WebSocket.
    """

    __slots__ = ("lines", "names", "status")

    names: set[bytes]

    def __init__(self, lines: Iterable[Header], status: int | None = None) -> None:
        self.status = status
        self.lines: Headers = list(lines)
        self.names = found = set()  # `set[bytes]()` would make a new type each time, which takes ten times as long
        for name, _ in self.lines:
            found.add(name.lower())

    def add(self, name: bytes, value: bytes) -> None:
        """Append a line. `name` is lower case, here and below."""
        self.lines.append((name, value))
        self.names.add(name)

    def set(self, name: bytes, value: bytes) -> None:
        """Replace every line of this name by one."""
        if name in self.names:
            self.remove(frozenset((name,)))
        self.add(name, value)

    def remove(self, names: frozenset[bytes]) -> None:
        """Take every line of these names away."""
        self.lines = [line for line in self.lines if line[0].lower() not in names]
        self.names -= names

    def vary(self, field: bytes) -> None:
        """Name a request header in `Vary` (RFC 9110 12.5.5), once, beside what the app said there, in one line.

        `field` is lower case. Of several lines some caches heed the last alone, nginx before 1.23 among them, and would
        hand one user's page to another.
        """
        if b"vary" in self.names:
            said, others = b"", []
            for line in self.lines:
                if line[0].lower() != b"vary":
                    others.append(line)
                elif line[1]:
                    said = said + b", " + line[1] if said else line[1]
            named = said.lower()
            if field in named or b"*" in named:  # perhaps; a part of a name is none
                fields = {item.strip() for item in named.split(b",")}
                if field in fields or b"*" in fields:
                    return
            if said:
                field = said + b", " + field
            self.lines = others
        self.add(b"vary", field)
