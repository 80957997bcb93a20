"""The ASGI vocabulary: types and the few things every layer does with headers.

The types are those of the ASGI specification 3.0 in the loose form that Starlette and Quart use, so that any app fits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

Header: TypeAlias = tuple[bytes, bytes]
Headers: TypeAlias = list[Header]


def has_header(headers: Headers, name: bytes) -> bool:
    """Tell whether a response already has this header. `name` is lower case; the app's own spelling may be any."""
    for present, _ in headers:  # noqa: SIM110 - a generator costs more than the whole loop
        if present.lower() == name:
            return True
    return False


def set_header(headers: Headers, name: bytes, value: bytes) -> None:
    """Replace every line of this name by one."""
    headers[:] = [line for line in headers if line[0].lower() != name]
    headers.append((name, value))


def add_vary(headers: Headers, field: bytes) -> None:
    """Name a request header in `Vary` (RFC 9110 12.5.5), once, leaving what the app said there."""
    for name, value in headers:
        if name.lower() == b"vary":
            named = {item.strip() for item in value.lower().split(b",")}
            if field.lower() in named or b"*" in named:
                return
    headers.append((b"vary", field))
