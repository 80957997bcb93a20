"""URLs that name several hosts, as those of a cluster or of sentinels do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.asyncio.connection import parse_url

from asgi_guard.stores.server_link import CLIENT_OPTIONS
from asgi_guard.stores.urls import URLError, check_store_url, is_port

if TYPE_CHECKING:
    from typing import TypeAlias

    Address: TypeAlias = tuple[str, int]

PARTS = re.compile(r"(?P<scheme>rediss?)\+\w+://(?P<netloc>[^/?#]*)(?P<path>[^?#]*)(?P<rest>.*)", re.DOTALL)
HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:@\s]+)(?::(?P<port>\d+))?")


class Hosts(NamedTuple):
    """What such a URL says.

    Attributes:
        addresses: the hosts and ports that it names, in order.
        path: what follows them, up to the options.
        options: what a connection to any of them is made with, but for the host and the port.
    """

    addresses: tuple[Address, ...]
    path: str
    options: dict[str, Any]


def read_hosts(url: str, port: int) -> Hosts:
    """Take such a URL apart. User, password and options are what they are in a URL of one host.

    Args:
        url: `redis+WORD://[user:password@]host[:port],host[:port]...[/path][?options]`; `rediss+WORD://` for TLS.
        port: where it names none.

    Raises:
        URLError: it cannot be read, for a reason that can be told.
        ValueError: it cannot be read. The text may hold a part of it.
    """
    match = PARTS.fullmatch(url)
    if match is None:
        raise ValueError("not a URL of several hosts")
    login, at, hosts = match["netloc"].rpartition("@")
    addresses = []
    for text in hosts.split(","):
        found = HOST.fullmatch(text)
        if found is None:
            raise URLError("hosts stand as host:port,host:port, and the password is to be percent-encoded")
        if not is_port(found["port"] or ""):
            raise URLError("a port is a number from 1 to 65535")
        addresses.append((found["host"].strip("[]"), int(found["port"] or port)))
    single = f"{match['scheme']}://{login}{at}host{match['rest']}"
    check_store_url(single)
    if "@" in match["path"]:
        raise URLError("what may be meant as the password ends before the @: percent-encode it")
    options: dict[str, Any] = {**CLIENT_OPTIONS, **parse_url(single)}
    del options["host"]
    return Hosts(tuple(addresses), match["path"], options)
