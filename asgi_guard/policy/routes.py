"""The route table: one list, first match wins, and every layer reads its own column of it.

A path in the table is exact (`/login`), or holds `*` as a whole segment: in the middle it stands for one segment
(`/users/*/keys`), at the end for one or more characters of any depth (`/payments/*` is `/payments/1` and
`/payments/1/refund`, not `/payments`). Matching looks at the decoded path without the server's root path, as
frameworks do. A slash at the end makes no difference to some routers, so unless another row names the path with it, or
without it, a row holds for both, if it ends in no `*` and opens nothing.

A row that *opens* something also holds for both where the other path is open anyway, by a later row that opens or since
nobody is asked who they are, and is spared nothing by that: its limits are not slipped by a slash.

Such a row (`auth` is `none` or `optional`) is held to more, besides: it never matches a path with an empty,
`.` or `..` segment, a backslash, a control character, or an encoded slash, since another router may read such a path
differently: Starlette's takes `/admin%0A` for `/admin`. And where the readings of such a path lead to different rows,
or to one that opens something, the request is refused: see `RouteTable.find`. So it is where a path is another row's
to routers and file systems that disregard case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args
from urllib.parse import unquote

from asgi_guard.errors import ConfigError, Problem, wrong_type
from asgi_guard.policy.listing import one_text
from asgi_guard.policy.methods import misspelt, not_a_method
from asgi_guard.policy.path_index import NO_ROW, PathIndex
from asgi_guard.policy.plain_types import wrong_types
from asgi_guard.policy.security import Preset, SecurityHeaders

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

AuthMode: TypeAlias = Literal["required", "optional", "none"]

_HIDDEN = re.compile(rb"%(?:2f|5c)", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LISTS = {"methods": '("GET",)', "scopes": '("items:read",)', "any_scopes": '("items:read",)'}
"""The columns that hold several texts, and how such are written."""
_METHOD = re.compile(r"[A-Z][A-Z0-9_-]*")
"""Methods are tokens (RFC 9110 9.1), of which those are left out that are probably meant as more: `*`, `GET|POST`."""
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the route table. Whatever it leaves out comes from the defaults.

    Attributes:
        path: an absolute path; `*` stands for a whole segment, at the end for everything below.
        methods: the methods it holds for, upper case; none means all. GET holds for HEAD too, and a WebSocket handshake
            is a GET. Methods of one's own may be named, and what looks like a slip of the hand (DELTE) may
            not, nor WEBSOCKET.
        auth: `required`: a verified identity; `optional`: verified if sent; `none`: credentials are not looked at.
        scopes: scopes that the identity must all have.
        any_scopes: scopes of which the identity must have one.
        limits: rates in the grammar of `asgi_guard.policy.rates`, instead of the default ones.
        cost: how many units the request takes from each of its limits.
        security: the preset of security headers, or what else is to be said of them on this path.
        csrf: whether requests that other sites can forge are refused here, where that layer is on.

    Raises:
        ConfigError: with everything that is wrong with the row.
    """

    # Read by pydantic where a row comes from the environment: a misspelt column is an error.
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - pydantic asks for a plain dict

    path: str
    methods: tuple[str, ...] = ()
    auth: AuthMode | None = None
    scopes: tuple[str, ...] = ()
    any_scopes: tuple[str, ...] = ()
    limits: str | None = None
    cost: int = 1
    security: Preset | SecurityHeaders | None = None
    csrf: bool = True

    def __post_init__(self) -> None:
        for name in _LISTS:
            value: object = getattr(self, name)
            if isinstance(value, Iterable) and not isinstance(value, str | bytes):
                object.__setattr__(self, name, tuple(value))
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        problems = dict(wrong_columns(values))
        sound = {name: value for name, value in values.items() if name not in problems}
        faults = (Problem(Route.__name__, fault) for fault in row_faults(sound))
        if found := [*problems.values(), *faults]:
            raise ConfigError(found)

    def takes(self, method: str) -> bool:
        """Whether the row holds for this method, in upper case."""
        if method == "HEAD" and "HEAD" not in self.methods:
            method = "GET"
        return not self.methods or method in self.methods

    @property
    def opens(self) -> bool:
        """Whether the row lets in those who are not identified."""
        return self.auth in ("none", "optional")

    def __str__(self) -> str:
        return f"{','.join(self.methods) or 'any method'} {self.path}"


def wrong_columns(values: Mapping[str, object]) -> Iterator[tuple[str, Problem]]:
    """Which of a row's values are of another type than their column's, each with what is wrong, by column."""
    declared = {each.name: each.type for each in fields(Route)}
    found = [(problem.name, problem) for problem in wrong_types(declared, values)]
    for name in (name for name in _LISTS if name in values):
        value = values[name]
        if fault := one_text(**{name: value}):
            found.append((name, Problem(Route.__name__, f"{_row(values)}: {fault}")))
        elif not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
            found.append((name, Problem(name, wrong_type(value, f"several texts, as in {_LISTS[name]}"))))
    for name, problem in found:
        other = "; this is a row of the guard's table, and Starlette's Route another" if callable(values[name]) else ""
        yield name, replace(problem, message=problem.message + other)


def row_faults(values: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a row, as far as its values tell.

    Args:
        values: those that are there, by column, of the column's type.
    """
    row, auth, security = _row(values), values.get("auth"), values.get("security")
    methods, scopes = values.get("methods", ()), (*values.get("scopes", ()), *values.get("any_scopes", ()))
    if "path" in values:
        yield from (f"path {fault}" for fault in path_faults(values["path"]))
    if not all(map(_METHOD.fullmatch, methods)):
        yield f"methods {', '.join(methods)}: methods are upper-case words, as in POST"
    for method in methods:
        if meant := not_a_method(method):
            yield f"methods {method}: {meant}"
        if known := misspelt(method):
            yield f"methods {method}: there is no such method; did you mean {known}?"
    if scopes and auth in ("none", "optional"):
        yield f"{row} asks for scopes, so its auth cannot be {auth!r}"
    if auth not in (None, *get_args(AuthMode)):
        yield f"{row}: auth {auth!r} is none of {', '.join(get_args(AuthMode))}"
    if isinstance(security, SecurityHeaders):
        problems = security.problems(in_row=True)
        yield from (f"{row}: security {fault.name}: {fault.message}" for fault in problems)
    elif security not in (None, *get_args(Preset)):
        yield f"{row}: security {security!r} is none of {', '.join(get_args(Preset))}"
    if any(not _SCOPE.fullmatch(scope) for scope in scopes):
        yield f"{row}: a scope is visible ASCII without quotes and backslashes (RFC 6749 3.3)"
    if values.get("cost", 1) < 0:
        yield f"cost {values['cost']} is negative: a request cannot give units back"


def _row(values: Mapping[str, object]) -> str:
    """What to call a row by."""
    path = values.get("path")
    return f"path {path!r}" if isinstance(path, str) else "the row"


def path_faults(path: str, *, pattern: bool = True) -> Iterator[str]:
    """What keeps a path from matching any request, each beginning with the path.

    Args:
        path: a path as it is configured.
        pattern: whether it may hold `*`, as a row's may, or is that of a single place.
    """
    segments = path.split("/")
    if not path.startswith("/"):
        yield f"{path!r} does not start with '/'"
    if not pattern and "*" in path:
        yield f"{path!r}: it is a single path, so nothing stands for others in it"
    elif any("*" in segment and segment != "*" for segment in segments):
        yield f"{path!r}: '*' stands for a whole segment, as in /reports/*"
    if ambiguous(path):
        what = "an empty, '.' or '..' segment, a backslash or a control character"
        yield f"{path!r} has {what}: no request would match"
    elif any(segment != segment.strip() for segment in segments):
        yield f"{path!r} has white space where a segment begins or ends: write it without"
    if any(set(segment) & set("{}<>?#%") or segment[:1] == ":" for segment in segments):
        yield f"{path!r}: it is matched decoded, without query" + ("; '*' stands for a parameter" if pattern else "")


UNNAMED = "\ue000"
"""A segment, and a method, that no row names: only rows that take any of them match it."""


def sample(pattern: str) -> str:
    """A path that this pattern matches, and no other pattern for a name in it."""
    return pattern.replace("*", UNNAMED)


def ambiguous(path: str) -> bool:
    """Tell whether routers could disagree about this decoded path."""
    if "//" in path or "\\" in path or (not path.isprintable() and _CONTROL.search(path)):
        return True
    return "/." in path and any(segment in (".", "..") for segment in path.split("/"))


def doubtful(path: str, raw_path: bytes | None) -> bool:
    """Tell whether routers could disagree about a request's path: this one, or an absolute one, or an encoded slash."""
    if path[:1] != "/" or ambiguous(path):
        return True
    return raw_path is not None and b"%" in raw_path and hides_slash(raw_path)


def readings(path: str, raw_path: bytes | None) -> Iterator[str]:
    """How routers could read a doubtful path: as it is, cleaned up, and with encoded slashes left in their segments."""
    yield path
    yield path.removesuffix("\n")  # the end of a text, to a regular expression
    text = _CONTROL.sub("", path.replace("\\", "/"))
    if not text.startswith("/"):
        text = "/" + (text.partition("://")[2].partition("/")[2] if "://" in text else text)
    yield text
    kept: list[str] = []
    for segment in text.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    yield "/" + "/".join(kept) + ("/" if kept and text.endswith("/") else "")
    if raw_path is not None and hides_slash(raw_path):
        whole = unquote(_HIDDEN.sub(b"\x01", raw_path))
        yield whole[max(0, len(whole) - len(path)) :]  # without the root path


def route_path(path: str, root_path: str) -> str:
    """The path below the place where the server mounted the app (ASGI's `root_path`)."""
    if not root_path or not path.startswith(root_path):
        return path
    below = path[len(root_path) :] or "/"
    return below if below.startswith("/") else path


def taken_path(path: str, root_path: str) -> str:
    """What a proxy has taken from a path before it came here: the root path, where the path does not begin with it."""
    root_path = f"/{root_path.strip('/')}"
    return "" if root_path == "/" or route_path(path, root_path) != path else root_path


def joined_path(path: str, root_path: str) -> str | None:
    """What is below the root path to a router that does not look where it begins and ends; None if that is the same.

    Below `/api`, `/apiadmin` is `/admin` to Quart and Litestar, and `/public/api/admin` is to Litestar.
    """
    before, found, below = path.partition(root_path) if root_path else (path, "", "")
    if not found or (not before and below[:1] in ("", "/")):
        return None
    joined = below if below[:1] == "/" else f"/{below}"
    return None if joined == route_path(path, root_path) else joined  # as below a root path of one slash


def beyond_root(routes: Iterable[Route], root_path: str) -> Iterator[str]:
    """What to write in the place of rows whose paths begin with the root path, below which paths are matched."""
    for route in routes:
        below = route_path(route.path, root_path)
        if below != route.path:
            yield (
                f"no request matches the row {route.path}, since paths are those below the root path {root_path}: "
                f"write {below}"
            )


class RouteTable:
    """The rows, ready to be matched: a thousand of them cost as much as one.

    Args:
        routes: the rows.
        open_to_all: whether nobody is asked who they are, so that what no row names is open too.
    """

    def __init__(self, routes: Sequence[Route] = (), *, open_to_all: bool = False) -> None:
        self.routes = tuple(routes)
        given: tuple[object, ...] = self.routes
        if strangers := [row for row in given if not isinstance(row, Route)]:
            raise ConfigError([Problem("routes", wrong_type(strangers[0], "Route('/path', ...)"))])
        paths = [route.path for route in self.routes]
        folded = [_folded(path) for path in paths]
        self._index = PathIndex(self.routes, paths, open_to_all=open_to_all)
        # Rows that differ by case alone are of an app that regards it.
        regards_case = len(set(folded)) < len(set(paths))
        self._caseless = None if regards_case else PathIndex(self.routes, folded, open_to_all=open_to_all)
        self._cased = folded != paths

    @classmethod
    def of(cls, routes: Sequence[Route] | RouteTable, *, open_to_all: bool = False) -> RouteTable:
        """The table of these rows; a table is taken as it is, so that layers which share one look a request up once."""
        return routes if isinstance(routes, RouteTable) else cls(routes, open_to_all=open_to_all)

    def find(
        self, path: str, method: str, raw_path: bytes | None = None, joined: str | None = None
    ) -> tuple[int, bool]:
        """The first row that this request matches, and whether that is disputed.

        A match is disputed if another router could choose a different row, or one that is passed over here: because it
        reads the path in another way, or ignores case, as file systems may. So is a path that does not start with a
        slash: nobody knows what routers make of it. Such a request is to be refused: whichever row were chosen, an app
        that reads the path differently would serve it by the rule of another.

        Args:
            path: the decoded path, without the root path.
            method: the request's method, in any case, since not every server upper-cases it and some frameworks do;
                `GET` for a WebSocket.
            raw_path: the path as sent, if the server gives it.
            joined: the path as some routers find it below the root path (`joined_path`), where they disagree.

        Returns:
            the row's index, or `NO_ROW`; and whether it is disputed.
        """
        if not self.routes:
            return NO_ROW, False
        method = method.upper()
        if joined is None and not doubtful(path, raw_path):
            row = self._index.first(path, method)
            if row == self._first_without_case(path, method, row):
                return row, False
            return self._index.first(path, method, closed=True), True
        read = (*readings(path, raw_path), *(readings(joined, raw_path) if joined is not None else ()))
        rows = {self._index.first(reading, method) for reading in read}
        rows |= {self._first_without_case(reading, method, row) for row in rows for reading in read}
        # Of what does not start with a slash some routers take away a scheme, parameters and more. `*` is no path.
        odd = path[:1] not in ("", "/") and path != "*"
        disputed = odd or len(rows) > 1 or any(row != NO_ROW and self.routes[row].opens for row in rows)
        return self._index.first(path, method, closed=True), disputed

    def match(self, path: str, method: str, raw_path: bytes | None = None) -> int:
        """The first row that this request matches: its index, or `NO_ROW`. The arguments are those of `find`."""
        return self.find(path, method, raw_path)[0]

    def row(self, path: str, method: str) -> Route | None:
        """The first row that a request of this path and method matches; None where the defaults hold."""
        index = self.match(path, method)
        return None if index == NO_ROW else self.routes[index]

    def _first_without_case(self, path: str, method: str, row: int) -> int:
        """The first row to a router that disregards case; `row`, the one to all others, where that cannot differ."""
        folded = _folded(path)
        if self._caseless is None or (folded == path and not self._cased):
            return row
        return self._caseless.first(folded, method)


def _folded(path: str) -> str:
    """The path as it is where case is disregarded. Regular expressions take two more letters of Turkish for an i."""
    folded = path.casefold()
    return folded if folded.isascii() else folded.replace("i\u0307", "i").replace("\u0131", "i")


def hides_slash(raw_path: bytes) -> bool:
    """Tell whether a slash or a backslash is encoded in a path as sent, which routers take for one or not."""
    lowered = raw_path.lower()
    return b"%2f" in lowered or b"%5c" in lowered
