"""Origins as a configuration names them: exact, `https://*.example.com`, `http://localhost:*`; and what is none."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

from asgi_guard.errors import Problem
from asgi_guard.policy.address import is_loopback
from asgi_guard.policy.public_suffixes import is_public_suffix

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>\*|[0-9]+))?")
_LABELS = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_OPAQUE = frozenset({"about", "blob", "data", "file", "filesystem", "ftp", "javascript", "ws", "wss"})
"""Pages of these have no such origin: browsers write `null`, or that of another scheme."""
_INSTALLED = frozenset({"capacitor", "chrome-extension", "ionic", "moz-extension", "safari-web-extension", "tauri"})
"""Whose pages come from what is installed on the device: nobody on the network can stand in for them."""


class OriginPatterns:
    """Origins with wildcards: `https://*.example.com`, `https://example.com:*`, or both; a hundred cost as much as one.

    Args:
        origins: those, none of which has a fault.
    """

    def __init__(self, origins: Iterable[str]) -> None:
        # By scheme and host, or what a host ends in: from a dot on. A port is empty for the scheme's own, or `*`.
        self._ports: dict[tuple[str, str], set[str]] = {}
        for origin in origins:
            scheme, _, rest = origin.partition("://")
            host, port = _split_port(rest)
            self._ports.setdefault((scheme, host.removeprefix("*")), set()).add(port)
        self._depths = sorted({host.count(".") for _, host in self._ports if host.startswith(".")})

    def __bool__(self) -> bool:
        return bool(self._ports)

    def match(self, origin: str) -> bool:
        """Tell whether an `Origin` header is one of these."""
        scheme, _, rest = origin.partition("://")
        host, port = _split_port(rest)
        if port == "*" or host.startswith("."):
            return False
        if self._has(scheme, host, port):
            return True
        if not self._depths or _LABELS.fullmatch(host) is None:
            return False
        labels = host.split(".")
        below = (labels[-depth:] for depth in self._depths if depth < len(labels))
        return any(self._has(scheme, f".{'.'.join(name)}", port) for name in below)

    def _has(self, scheme: str, name: str, port: str) -> bool:
        ports = self._ports.get((scheme, name), ())
        return port in ports or "*" in ports


def origin_problems(
    origins: Sequence[str], *, credentials: bool, insecure: bool = False, public_suffixes: bool = False
) -> Iterator[Problem]:
    """Everything that is wrong with a list of origins.

    Args:
        origins: what is to be allowed.
        credentials: whether their pages may act with cookies.
        insecure: whether that holds for origins that anyone on the network can imitate, too.
        public_suffixes: whether `*.` may stand before a name under which strangers register.
    """
    field = "allow_origins"
    if not origins:
        message = "no origin is named: write the origins of your pages, such as https://app.example.com"
        yield Problem(field, message, "missing")
    if "*" in origins:
        if len(origins) > 1:
            yield Problem(field, "'*' already means every origin: write it alone, or leave it out", "wildcard")
        if credentials:
            message = "'*' with credentials would let every site act as your users: name the origins"
            yield Problem(field, message, "wildcard")
    for origin in origins:
        fault = None if origin == "*" else _malformed(origin)
        if fault is None and not public_suffixes:
            fault = _too_wide(origin)
        if fault is None and credentials and not insecure:
            fault = _insecure(origin)
        if fault is not None:
            yield fault


def page_origin_fault(origin: str) -> str | None:
    """What keeps a text from being the origin of a page, as browsers write it in `Origin`; None if nothing does."""
    if origin == "null":
        return None
    if "*" in origin:
        return f"{origin!r} is no one page's origin: write one of those that it stands for"
    fault = _malformed(origin)
    return None if fault is None else fault.message


def is_installed(origin: str) -> bool:
    """Tell whether this is the origin of an installed app or extension, whose pages come over no network."""
    return origin.partition("://")[0] in _INSTALLED


def _malformed(origin: str) -> Problem | None:
    field = "allow_origins"
    if origin.lower() == "null":
        message = (
            "'null' is the origin of sandboxed frames and local files, which anyone can make: it cannot be allowed"
        )
        return Problem(field, message, "prohibited")
    scheme, separator, rest = origin.partition("://")
    host, port = _split_port(rest)
    known = _SCHEME.fullmatch(scheme) is not None and scheme not in _OPAQUE
    if not separator or not known or set(rest) & set("/?#@\\ "):
        message = f"{origin!r} is not an origin: write scheme://host[:port], lower case, without path or trailing slash"
        return Problem(field, message, "invalid")
    name = host.removeprefix("*.")
    below_address = host.startswith("*.") and name.replace(".", "").isdecimal()
    if not _is_host(name) or below_address or (port and port != "*" and not _is_port(port, scheme)):
        message = f"{origin!r} is not an origin as browsers send it: lower case, '*.' only in front, no default port"
        return Problem(field, message, "invalid")
    return None


def _too_wide(origin: str) -> Problem | None:
    host, _ = _split_port(origin.partition("://")[2])
    name = host.removeprefix("*.")
    if name == host or _is_this_machine(name) or not is_public_suffix(name):
        return None
    message = f"{origin!r} is too wide: anyone can have a site below {name}; name the domain that is yours"
    return Problem("allow_origins", message, "public_suffix")


def _insecure(origin: str) -> Problem | None:
    scheme, _, rest = origin.partition("://")
    name = _split_port(rest)[0].removeprefix("*.")
    if origin == "*" or scheme == "https" or is_installed(origin) or _is_this_machine(name):
        return None
    message = f"{origin!r} with credentials: whoever is on the network could act as your users; use https"
    return Problem("allow_origins", message, "insecure")


def _is_this_machine(name: str) -> bool:
    """Tell whether a host, as origins have it, is this machine, where nobody listens in."""
    return is_loopback(name[1:-1] if name.startswith("[") else name)


def _is_host(name: str) -> bool:
    if name.startswith("["):
        try:
            return IPv6Address(name[1:-1]).compressed == name[1:-1] and "%" not in name
        except ValueError:
            return False
    return len(name) <= 253 and _LABELS.fullmatch(name) is not None


def _is_port(port: str, scheme: str) -> bool:
    return port[0] != "0" and int(port) <= 65535 and port != _DEFAULT_PORTS.get(scheme)


def _split_port(authority: str) -> tuple[str, str]:
    """The host and the port, empty where there is none, of an authority; two empty texts for what is none."""
    match = _AUTHORITY.fullmatch(authority)
    return (match["host"], match["port"] or "") if match else ("", "")
