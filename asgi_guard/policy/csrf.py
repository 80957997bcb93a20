"""Cross-site request forgery, decided by what browsers say of a request (Fetch Metadata, then Origin).

Only identities that the browser sends by itself (a cookie) can be abused so; a bearer token cannot. The order of
decisions is that of Go's `http.CrossOriginProtection`, with four repairs: an Origin with user information is refused,
WebSocket handshakes, though they are GETs, are judged by their Origin, a Host may name the port that goes without
saying in the Origin, and over TLS no page of plain http is the app's own.

1. A safe method (GET, HEAD, OPTIONS) that is no WebSocket handshake: allowed.
2. `Sec-Fetch-Site` is `same-origin` or `none`: allowed.
3. `Sec-Fetch-Site` has any other value: allowed only from a trusted origin.
4. Neither `Sec-Fetch-Site` nor `Origin`: not a browser; allowed.
5. The Origin's host and port are the request's Host: allowed.
6. The Origin is trusted: allowed. Otherwise refused.

Where either header is sent more than once, steps 2 to 6 are skipped: refused.

Where pages have tokens (`asgi_guard.policy.csrf_token`), step 4 is for those who have no session: see `CSRFMiddleware`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from asgi_guard.policy.path_index import NO_ROW
from asgi_guard.policy.routes import Route, RouteTable, doubtful

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Page: TypeAlias = Literal["own", "foreign", "unsaid"]
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_AUTHORITY = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~%!$&'()*+,;=:[]"
"""What RFC 3986 allows in a host and port. Without `@`, there is no user information."""
_DEFAULT_PORTS = {b"https": b":443", b"http": b":80"}


def allows(
    method: str,
    *,
    websocket: bool,
    fetch_site: Sequence[bytes],
    origin: Sequence[bytes],
    host: Sequence[bytes],
    trusts: Callable[[bytes], bool],
    secure: bool = False,
) -> bool:
    """Tell whether a request that a browser authenticated by itself may go on.

    The arguments are those of `whose_page`.
    """
    if method in SAFE_METHODS and not websocket:
        return True
    page = whose_page(fetch_site=fetch_site, origin=origin, host=host, trusts=trusts, secure=secure)
    return page != "foreign"


def whose_page(
    *,
    fetch_site: Sequence[bytes],
    origin: Sequence[bytes],
    host: Sequence[bytes],
    trusts: Callable[[bytes], bool],
    secure: bool = False,
) -> Page:
    """Tell whose page a request comes from: `own` for a trusted origin's too; `unsaid` where no header tells.

    Args:
        fetch_site: the lines of `Sec-Fetch-Site`.
        origin: the lines of `Origin`.
        host: the lines of `Host`.
        trusts: tells whether an origin is trusted (the same origins as CORS allows with credentials).
        secure: whether the request came over TLS, as the server or a trusted proxy says.
    """
    if len(origin) > 1 or len(fetch_site) > 1:
        return "foreign"
    if fetch_site and fetch_site[0] in (b"same-origin", b"none"):
        return "own"
    if not fetch_site:
        if not origin:
            return "unsaid"
        if is_same_origin(origin[0], host, secure=secure):
            return "own"
    return "own" if origin and trusts(origin[0]) else "foreign"


class ForgeryExemptions:
    """Where nothing is refused: rows of the route table that say so, and paths in its grammar.

    Args:
        table: the route table.
        paths: more paths, whatever the row says.

    Raises:
        ConfigError: one of them is no path; the text names it.
    """

    __slots__ = ("_paths", "_table")

    def __init__(self, table: RouteTable, paths: Iterable[str] = ()) -> None:
        self._table = table
        self._paths = RouteTable([Route(path) for path in paths])

    def cover(self, path: str, method: str, raw_path: bytes | None = None, joined: str | None = None) -> bool:
        """Tell whether a request is exempt; none is whose path routers could read in different ways.

        The arguments are those of `RouteTable.find`.
        """
        if joined is not None or doubtful(path, raw_path):
            return False
        row, disputed = self._table.find(path, method, raw_path)
        if disputed:
            return False
        return (row != NO_ROW and not self._table.routes[row].csrf) or self._paths.match(path, method) != NO_ROW


def is_same_origin(origin: bytes, host: Sequence[bytes], *, secure: bool = False) -> bool:
    """Tell whether an Origin's host and port are the request's own.

    An Origin leaves the default port of its scheme out (RFC 6454 6.2); some proxies write it into Host. It counts as
    that of the Origin's own scheme alone: what is at `http://app.example` is not at `app.example:443`. Over TLS no page
    of plain http is the own one, whatever its port: whoever is on the network can write it. A request that came over no
    TLS may have come over one to a proxy that does not say so: of it nothing follows.
    """
    authority = _authority(origin) if len(host) == 1 else None
    scheme = origin.partition(b"://")[0].lower()
    if authority is None or (secure and scheme == b"http"):
        return False
    named = host[0].lower()
    if named == authority:
        return True
    default = None if authority.rpartition(b":")[2].isdigit() else _DEFAULT_PORTS.get(scheme)
    return default is not None and named == authority + default


def _authority(origin: bytes) -> bytes | None:
    """The host and port of a serialised origin, or None if it is not one (`null`, or something with a path).

    `urlsplit` would not do: it passes over tabs, line ends and an empty path, query or fragment.
    """
    scheme, _, authority = origin.partition(b"://")
    if not scheme.isalnum() or not authority or authority.translate(None, _AUTHORITY):
        return None
    return authority.lower()
