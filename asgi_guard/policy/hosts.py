"""Which names this server answers to, and where plain http is sent.

The order of decisions:

1. The path is exempt: passed, whatever the host and the scheme.
2. No `Host`, several, or one that is not `name[:port]`: refused, 400 (RFC 9110 7.2).
3. Hosts are configured and this is none of them: refused, 400.
4. https is asked for and the scheme, as a trusted proxy says it, is not: redirected with 308 to the same allowed
   host, or refused where a redirect cannot be followed (a WebSocket).

Names compare without case; a trailing dot is not a different name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, unquote

from asgi_guard.errors import ConfigError, Problem
from asgi_guard.policy.routes import path_faults, taken_path

if TYPE_CHECKING:
    from collections.abc import Sequence

_HOST = re.compile(
    rb"(?P<name>(?![^:]*\.\.)[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9.])?|\[[0-9A-Fa-f:.]{2,45}\])"
    rb"(?::(?P<port>[0-9]{1,5}))?"
)
MAX_HOST = 260
"""Characters of the longest name and port; nothing longer is looked at."""
_PATH_CHARACTERS = "/:@!$&'()*+,;=~-._"  # RFC 3986 3.3: what needs no encoding in a path
_PLAIN_PATH = re.compile(rb"/(?!/)[/:@!$&'()*+,;=~\-._%0-9A-Za-z]*")  # nothing else in it, and one slash before it
_PATTERN = re.compile(r"(\*\.)?[a-z0-9]([a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\]")


@dataclass(frozen=True, slots=True)
class HostPolicy:
    """The allowed hosts.

    Attributes:
        allowed: exact names, or `*.example.com` for every name below it; none allows all.
        suffixes: what those names end in.
        https_redirect: whether plain http is redirected to https.
        exempt: paths that are served whatever the host and the scheme.
    """

    allowed: frozenset[str] = frozenset()
    suffixes: tuple[str, ...] = ()
    https_redirect: bool = False
    exempt: frozenset[str] = frozenset()

    @classmethod
    def of(cls, allowed: Sequence[str], *, https_redirect: bool = False, exempt: Sequence[str] = ()) -> HostPolicy:
        """Compile the names.

        Raises:
            ConfigError: with all that is wrong: names that are no hosts', https without any (a redirect to whatever
                host a client names would be an open one), or exempt paths that no request has.
        """
        names = [name.lower().rstrip(".") for name in allowed]
        problems: list[Problem] = []
        if wrong := [repr(name) for name in names if not _PATTERN.fullmatch(name)]:
            message = "not host names, such as api.example.com or *.example.com (no scheme, no port)"
            if "*" in names:
                message = "not host names; every host is allowed where none is named"
            problems.append(Problem("allowed", f"{', '.join(wrong)}: {message}"))
        if https_redirect and not names:
            problems.append(Problem("allowed", "a redirect to https needs the allowed hosts: it goes to no other"))
        if unlike := [repr(path) for path in exempt if any(path_faults(path, pattern=False))]:
            problems.append(Problem("exempt", f"{', '.join(unlike)}: not whole paths, such as /healthz"))
        if problems:
            raise ConfigError(problems)
        return cls(
            frozenset(name for name in names if not name.startswith("*")),
            tuple(name[1:] for name in names if name.startswith("*")),
            https_redirect,
            frozenset(exempt),
        )

    def decide(
        self, hosts: Sequence[bytes], scheme: str, path: str = ""
    ) -> Literal["pass", "redirect", "insecure", "refuse"]:
        """Decide on a request; the module's docstring gives the order.

        Args:
            hosts: the lines of `Host`.
            scheme: `http`, `https`, `ws` or `wss`.
            path: the decoded path, below the root path; never one that was taken out of a URL built from the host.
        """
        if path in self.exempt:
            return "pass"
        match = _match(hosts[0]) if len(hosts) == 1 else None
        if match is None:
            return "refuse"
        if self.allowed or self.suffixes:
            name = match["name"].decode().lower().rstrip(".")
            if name not in self.allowed and not name.endswith(self.suffixes or ("\0",)):
                return "refuse"
        if self.https_redirect and scheme != "https":
            return "insecure" if scheme == "ws" else "pass" if scheme == "wss" else "redirect"
        return "pass"


def _match(host: bytes) -> re.Match[bytes] | None:
    match = _HOST.fullmatch(host) if len(host) <= MAX_HOST else None
    return None if match is None or not 0 < int(match["port"] or 1) <= 65535 else match


def is_host(value: bytes) -> bool:
    """Tell whether this is `name[:port]`, with a port that there is."""
    return _match(value) is not None


def https_location(host: bytes, path: str, query: bytes, raw_path: bytes | None = None, root_path: str = "") -> bytes:
    """Where a redirect goes: the same host without its port, which was the plain one's, and the same path and query.

    Args:
        host: the host that was asked for.
        path: the decoded path.
        query: the query, as it was sent.
        raw_path: the path as it was sent, where the server tells: what is encoded in it stays so.
        root_path: where the app is mounted. A proxy may have taken it from the path; the client has to name it again.
    """
    match = _HOST.fullmatch(host)
    name = match["name"] if match else host
    if raw_path is not None and _PLAIN_PATH.fullmatch(raw_path):
        target = raw_path.decode()
    else:
        # Encoded anew: whatever the server decoded of it, no byte of it can end the header or the authority. Leading
        # slashes are folded, lest `//evil.example` after the host be read as something else by someone.
        target = quote("/" + path.lstrip("/"), safe=_PATH_CHARACTERS, errors="replace")
    if root_path:
        target = quote(taken_path(unquote(target), root_path), safe=_PATH_CHARACTERS, errors="replace") + target
    if query:
        target += "?" + quote(query, safe=_PATH_CHARACTERS + "?%")  # a query arrives encoded; only stray bytes are
    return b"https://" + name + target.encode()
