"""Whether a server will be able to listen where it is to: told by the option, and before the app is started."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from asgi_guard.errors import ConfigError, Problem


def require_address(host: str, port: int, option: str = "--port") -> None:
    """See to it that a host is one of this machine's, and that the port is free there.

    Args:
        host: the address or the name.
        port: the port; 0 for any.
        option: the option that says the port.

    Raises:
        ConfigError: either is not so.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no name of a host"
        raise ConfigError([Problem("--host", f"{host!r} cannot be found ({reason})")]) from None
    bound, elsewhere = False, ""
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                said = f"{host}:{port} cannot be used ({error.strerror}): choose another"
                raise ConfigError([Problem(option, said)]) from None
            elsewhere = f"{host!r} is no address of this machine ({error.strerror})"
        else:
            bound = True
    if not bound:
        raise ConfigError([Problem("--host", elsewhere)])


def require_socket(path: str) -> None:
    """See to it that a UNIX socket can be made at a path; one that is there is taken over by the server.

    Raises:
        ConfigError: it cannot.
    """
    place, reason = Path(path), None
    try:
        if not place.exists():
            with socket.socket(socket.AF_UNIX) as probe:
                probe.bind(path)
            place.unlink()
        elif not place.is_socket():
            reason = "something else is there"
        elif not os.access(place.parent, os.W_OK):
            reason = "what is there cannot be replaced"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason is not None:
        raise ConfigError([Problem("--uds", f"no socket can be made at {path} ({reason}): name another place")])
