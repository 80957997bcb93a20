"""Which names this server answers to, and where plain http is sent.

The order of decisions:

1. No `Host`, several, or one that is not `name[:port]`: refused, 400 (RFC 9110 7.2).
2. Hosts are configured and this is none of them: refused, 400.
3. https is asked for and the scheme, as a trusted proxy says it, is not: redirected with 308 to the same allowed
   host, or refused where a redirect cannot be followed (a WebSocket).

Names compare without case; a trailing dot is not a different name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Sequence

_HOST = re.compile(
    rb"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9.])?|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?"
)
_PATH_CHARACTERS = "/:@!$&'()*+,;=~-._"  # RFC 3986 3.3: what needs no encoding in a path
_PATTERN = re.compile(r"(\*\.)?[a-z0-9]([a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\]")


@dataclass(frozen=True, slots=True)
class HostPolicy:
    """The allowed hosts.

    Attributes:
        allowed: exact names, or `*.example.com` for every name below it; none allows all.
        https_redirect: whether plain http is redirected to https.
    """

    allowed: frozenset[str] = frozenset()
    suffixes: tuple[str, ...] = ()
    https_redirect: bool = False

    @classmethod
    def of(cls, allowed: Sequence[str], *, https_redirect: bool = False) -> HostPolicy:
        """Compile the names.

        Raises:
            ValueError: one is not a host name, or https is asked for without any (a redirect to whatever host a client
                names would be an open one).
        """
        names = [name.lower().rstrip(".") for name in allowed]
        wrong = [repr(name) for name in names if not _PATTERN.fullmatch(name)]
        if wrong:
            raise ValueError(
                f"{', '.join(wrong)}: not host names, such as api.example.com or *.example.com (no scheme, no port)"
            )
        if https_redirect and not names:
            raise ValueError("a redirect to https needs the allowed hosts: it goes to no other")
        return cls(
            frozenset(name for name in names if not name.startswith("*")),
            tuple(name[1:] for name in names if name.startswith("*")),
            https_redirect,
        )

    def decide(self, hosts: Sequence[bytes], scheme: str) -> Literal["pass", "redirect", "insecure", "refuse"]:
        """Decide on a request; the module's docstring gives the order."""
        match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if match is None or int(match["port"] or 0) > 65535:
            return "refuse"
        if self.allowed or self.suffixes:
            name = match["name"].decode().lower().rstrip(".")
            if name not in self.allowed and not name.endswith(self.suffixes or ("\0",)):
                return "refuse"
        if self.https_redirect and scheme != "https":
            return "insecure" if scheme == "ws" else "pass" if scheme == "wss" else "redirect"
        return "pass"


def https_location(host: bytes, path: str, query: bytes) -> bytes:
    """Where a redirect goes: the same host without its port, which was the plain one's, and the same path and query."""
    match = _HOST.fullmatch(host)
    name = match["name"] if match else host
    # The path is encoded anew: whatever the server decoded of it, no byte of it can end the header or the authority.
    # Leading slashes are folded, lest `//evil.example` after the host be read as something else by someone.
    target = quote("/" + path.lstrip("/"), safe=_PATH_CHARACTERS, errors="replace")
    if query:
        target += "?" + quote(query, safe=_PATH_CHARACTERS + "?%")  # a query arrives encoded; only stray bytes are
    return b"https://" + name + target.encode()
