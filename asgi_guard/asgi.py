"""The ASGI vocabulary: types and the few things every layer does with headers.

The types are those of the ASGI specification 3.0 in the loose form that Starlette and Quart use, so that any app fits.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_WRAPPERS = 64
"""How deep an app is looked for within wrappers: one may wrap itself."""

Header: TypeAlias = tuple[bytes, bytes]
Headers: TypeAlias = list[Header]


class Head:
    """The headers of one response on its way out, for the layers to add to. The message they came in is not touched.

    Attributes:
        lines: every header line, in order: those of the app, or of the guard's own answer, and what layers added.
        names: the names that the app sent, in lower case whatever its own spelling, and those that the methods below
            added: what a layer looks at before it says the same again.
    """

    __slots__ = ("lines", "names")

    names: set[bytes]

    def __init__(self, lines: Iterable[Header], names: Iterable[bytes] | None = None) -> None:
        self.lines: Headers = list(lines)
        if names is not None:
            self.names = set(names)
            return
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
        """Name a request header in `Vary` (RFC 9110 12.5.5), once, leaving what the app said there."""
        if b"vary" in self.names:
            for name, value in self.lines:
                if name.lower() == b"vary":
                    named = {item.strip() for item in value.lower().split(b",")}
                    if field.lower() in named or b"*" in named:
                        return
        self.add(b"vary", field)


def misfit(app: object) -> str | None:
    """Why something is no ASGI app, as far as that can be told without calling it; None if it may be one.

    A server would start with it all the same, and every request would meet an error.
    """
    if not callable(app):
        return f"a {type(app).__name__} is not an ASGI app: it cannot be called"
    if isinstance(app, type) and not hasattr(app, "__await__"):
        return f"{app.__name__} is a class: an ASGI app is an instance of it, as in {app.__name__}()"
    try:
        signature = inspect.signature(app, follow_wrapped=False)  # what it wraps may be no app
    except (ValueError, TypeError):  # what is compiled need not tell
        return None
    if _takes(signature, 3):
        return None
    if _takes(signature, 0):
        return "it takes no arguments: if it makes the app, call it, as in create_app()"
    if _takes(signature, 2):
        return "it takes two arguments, as WSGI apps do: wrap it, as in a2wsgi.WSGIMiddleware(app)"
    return "it does not take scope, receive and send, so it is not an ASGI app"


def is_factory(made: object) -> bool:
    """Whether something can be called for an app, as far as that can be told."""
    if not callable(made):
        return False
    try:
        return _takes(inspect.signature(made, follow_wrapped=False), 0)
    except (ValueError, TypeError):
        return True


def own_root_path(app: object) -> str:
    """The root path that an app puts in the place of the server's; empty if it takes that one.

    FastAPI has its argument `root_path`, Django its setting FORCE_SCRIPT_NAME. A guard that read paths by the server's
    would judge `/api/admin` by another row than that of `/admin`, which the app then serves. Neither is imported, and
    both are found through wrappers that keep what they wrap as `app`.
    """
    for _ in range(MAX_WRAPPERS):
        kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(app).__mro__}
        if "fastapi.FastAPI" in kinds:
            return str(getattr(app, "root_path", "") or "")
        if "django.ASGIHandler" in kinds:
            return str(getattr(sys.modules["django.conf"].settings, "FORCE_SCRIPT_NAME", "") or "")
        app = getattr(app, "app", None)
    return ""


def _takes(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True
