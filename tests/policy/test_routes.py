"""The route table against a table that is looked through line by line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from asgi_guard.errors import ConfigError
from asgi_guard.policy.path_index import NO_ROW, PathIndex
from asgi_guard.policy.routes import (
    AuthMode,
    Route,
    RouteTable,
    ambiguous,
    beyond_root,
    joined_path,
    path_faults,
    readings,
    route_path,
    sample,
    wrong_columns,
)
from asgi_guard.policy.security import SecurityHeaders

if TYPE_CHECKING:
    from collections.abc import Callable


def _may_be_open(path: str, raw_path: bytes | None) -> bool:
    raw = (raw_path or b"").lower()
    return not (
        "//" in path
        or any(segment in (".", "..") for segment in path.split("/"))
        or any(character == "\\" or ord(character) < 32 or ord(character) == 127 for character in path)
        or b"%2f" in raw
        or b"%5c" in raw
    )


def _names(pattern: str, path: str) -> bool:
    """Whether the pattern names the path, by a regular expression."""
    parts = [r"[^/]*" if segment == "*" else re.escape(segment) for segment in pattern.split("/")]
    if pattern.endswith("/*"):
        parts[-1] = r".+"
    return re.fullmatch("/".join(parts), path, re.DOTALL) is not None


def _slashed(path: str) -> str:
    return path[:-1] if path.endswith("/") else path + "/"


def naive(routes: list[Route], path: str, method: str, raw_path: bytes | None, *, open_to_all: bool = False) -> int:
    """The first row that matches, found by looking at every one."""

    def takes(route: Route) -> bool:
        methods = {"GET", "HEAD"} if method == "HEAD" and "HEAD" not in route.methods else {method}
        opens = route.auth in ("none", "optional")
        return (not route.methods or bool(methods & set(route.methods))) and (not opens or _may_be_open(path, raw_path))

    def first(names: Callable[[Route], bool]) -> int:
        return next((index for index, route in enumerate(routes) if names(route) and takes(route)), NO_ROW)

    def both(route: Route) -> bool:
        """Whether the row holds with and without a slash at its end."""
        return route.auth not in ("none", "optional") and not route.path.endswith("/*") and route.path != "/"

    def named(path: str) -> bool:
        """Whether a row that holds for the method has this very path."""
        return any(route.path == path and takes(route) for route in routes)

    exact = first(lambda route: "*" not in route.path and route.path == path)
    if exact == NO_ROW:
        exact = first(lambda route: "*" not in route.path and both(route) and _slashed(route.path) == path)
    pattern = first(
        lambda route: (
            "*" in route.path
            and (
                _names(route.path, path)
                or (both(route) and not named(_slashed(route.path)) and _names(_slashed(route.path), path))
            )
        )
    )
    found = min((row for row in (exact, pattern) if row != NO_ROW), default=NO_ROW)
    instead = routes[found] if found != NO_ROW else Route("/*")
    if instead.auth == "required" or instead.scopes or (instead.auth is None and not open_to_all):
        return found
    if found != NO_ROW and instead.path == path:
        return found
    opening = first(
        lambda route: (
            route.auth in ("none", "optional")
            and not route.path.endswith("/*")
            and route.path != "/"
            and not named(_slashed(route.path))
            and _names(_slashed(route.path), path)
        )
    )
    if opening == NO_ROW or NO_ROW < found < opening:
        return found
    here = routes[opening]
    spares = (instead.csrf and not here.csrf) or (here.limits == "" and instead.limits != "")
    spares = spares or (here.limits is None and instead.limits not in (None, ""))
    return found if spares else opening


segments = st.sampled_from(["a", "b", "*", "login"])
patterns = st.lists(segments, max_size=3).map(lambda found: "/" + "/".join(found))
auths: st.SearchStrategy[AuthMode | None] = st.sampled_from([None, "none", "optional", "required"])
methods = st.sampled_from(["GET", "HEAD", "POST", "DELETE"])
rows = st.builds(
    Route,
    path=patterns,
    methods=st.lists(methods, max_size=2).map(tuple),
    auth=auths,
    limits=st.sampled_from([None, None, "", "9/hour by ip"]),
    csrf=st.booleans(),
)
tables = st.lists(rows, max_size=8)
raw_segments = st.sampled_from(
    [
        "a",
        "b",
        "login",
        "",
        ".",
        "..",
        "...",
        ".a",
        "\\",
        "%00",
        "%0a",
        "a%0A",
        "%2f",
        "%2F",
        "%5c",
        "%5C",
        "%252f",
        "%2e%2e",
        "%2E",
        "*",
    ]
)
raw_paths = st.lists(raw_segments, max_size=5).map(lambda found: "/" + "/".join(found))
glued = st.lists(raw_segments, max_size=3).map(lambda found: "/" + "".join(found))


@given(tables, st.one_of(raw_paths, glued), methods, st.booleans(), st.booleans())
@example([Route("/a/*"), Route("/a/b")], "/a/b", "GET", True, False)
@example([Route("/*/a"), Route("/*/a/", methods=("POST",)), Route("/*", auth="none")], "/b/a/", "GET", True, False)
@example([Route("/*/a"), Route("/*/a/", methods=("POST",)), Route("/*", auth="none")], "/b/a/", "POST", True, False)
@example([Route("/a/b"), Route("/a/*")], "/a/b", "GET", True, False)
@example([Route("/a/b", methods=("POST",)), Route("/a/*"), Route("/a/b")], "/a/b", "GET", True, False)
@example([Route("/a", auth="none"), Route("/a", auth="required")], "/a", "HEAD", False, False)
@example([Route("/a/*", auth="none")], "/a/..", "GET", False, False)
@example([Route("/a"), Route("/a/")], "/a/", "GET", False, False)
@example([Route("/a"), Route("/*", auth="none")], "/a/", "GET", False, False)
@example([Route("/a", auth="none")], "/a/", "GET", False, False)
@example([Route("/a/", methods=("POST",)), Route("/a")], "/a/", "GET", False, False)
@example([Route("/*/b"), Route("/*/b/", auth="none")], "/a/b/", "GET", False, False)
@example([Route("/*/b", auth="none"), Route("/*", auth="none")], "/a/b/", "GET", False, False)
@example([Route("/a", auth="none"), Route("/a/", auth="none", methods=("POST",))], "/a/", "GET", False, True)
@example([Route("/a/b", auth="none"), Route("/a/*")], "/a/b/", "GET", False, True)
@example([Route("/a/b", auth="none"), Route("/a/*", auth="required")], "/a/b/", "GET", False, True)
def test_equals_first_match(routes: list[Route], raw: str, method: str, gives_raw: bool, open_to_all: bool) -> None:
    """The table answers what a look at every row in order would, for any path and method."""
    path, raw_path = unquote(raw), raw.encode() if gives_raw else None
    table = RouteTable(routes, open_to_all=open_to_all)
    assert table.match(path, method, raw_path) == naive(routes, path, method, raw_path, open_to_all=open_to_all)


OPENING = Route("/login", auth="none", methods=("POST",))


@pytest.mark.parametrize(
    ("rows", "path", "open_to_all", "found"),
    [
        ([OPENING], "/login/", False, NO_ROW),
        ([OPENING], "/login/", True, 0),
        ([OPENING, Route("/*", auth="optional")], "/login/", False, 0),
        ([OPENING, Route("/*", scopes=("a",))], "/login/", False, 1),
        ([Route("/*", auth="none"), OPENING], "/login/", False, 0),
        ([OPENING, Route("/login/", auth="none"), Route("/*", auth="none")], "/login/", False, 1),
        ([OPENING, Route("/login/", auth="none", methods=("GET",)), Route("/*", auth="none")], "/login/", False, 0),
        ([Route("/login/", auth="none"), Route("/*", auth="none")], "/login", False, 0),
        ([Route("/login/", auth="none"), Route("/*", auth="none")], "/login//", False, NO_ROW),
        ([Route("/u/*/key", auth="none"), Route("/*", auth="none")], "/u/1/key/", False, 0),
        ([Route("/u/*/key", auth="none")], "/u/1/key/", False, NO_ROW),
        ([Route("/u/*", auth="none"), Route("/*", auth="none")], "/u", False, 1),
        ([Route("/", auth="none"), Route("/*", auth="none")], "/", True, 0),
        ([OPENING, Route("/*", auth="required")], "/login/", True, 1),
        ([OPENING, Route("/*", scopes=("a",))], "/login/", True, 1),
        ([OPENING, Route("/*")], "/login/", True, 0),
        ([Route("/*/public", auth="none"), Route("/admin/*", auth="required")], "/admin/public/", True, 1),
        ([Route("/*/x", auth="none"), Route("/a/x/", auth="none")], "/a/x/", False, 1),
        ([Route("/hook", auth="none", csrf=False), Route("/*", auth="none")], "/hook/", False, 1),
        ([Route("/hook", auth="none", csrf=False), Route("/*", auth="none", csrf=False)], "/hook/", False, 0),
        ([OPENING, Route("/*", auth="none", csrf=False)], "/login/", False, 0),
        ([Route("/health", auth="none", limits=""), Route("/*", auth="none")], "/health/", False, 1),
        ([Route("/health", auth="none", limits="")], "/health/", True, NO_ROW),
        ([OPENING, Route("/*", auth="none", limits="9/hour by ip")], "/login/", False, 1),
        ([OPENING, Route("/*", auth="none", limits="")], "/login/", False, 0),
        ([Route("/a", auth="none", limits="9/hour by ip"), Route("/*", auth="none", limits="")], "/a/", False, 0),
    ],
)
def test_a_slash_slips_from_no_open_row(rows: list[Route], path: str, open_to_all: bool, found: int) -> None:
    """A row that opens something holds with a slash more or less where the path is open without it, and only there."""
    assert RouteTable(rows, open_to_all=open_to_all).match(path, "POST") == found


@given(st.lists(st.builds(Route, path=patterns, auth=auths), max_size=8), st.lists(segments, max_size=5))
@example([Route("/*/*/*/*")], ["*"] * 5)
@example([Route("/*/a"), Route("/*/a/"), Route("/b/*")], ["b", "a", ""])
def test_no_row_is_found_by_two_ways(routes: list[Route], path: list[str]) -> None:
    """A path goes down each branch once, whatever stands in it, so that no client makes a look-up long."""
    found = PathIndex(routes, [route.path for route in routes])._patterns.matching(["", *path])
    assert len(found) == len(set(found))


@given(tables, st.one_of(raw_paths, glued, st.text().map(lambda text: "/" + text)), methods)
@example([Route("/*", auth="none")], "/a/%2e%2e/b", "GET")
@example([Route("/*", auth="none")], "/a%2fb", "GET")
@example([Route("/*", auth="optional")], "//a", "GET")
@example([Route("/*", auth="optional")], "/a%5Cb", "POST")
def test_open_rows_never_match_ambiguous_paths(routes: list[Route], raw: str, method: str) -> None:
    """A row that opens something matches only paths that every router reads alike."""
    path = unquote(raw)
    assume(not _may_be_open(path, raw.encode("utf-8", "surrogatepass")))
    index = RouteTable(routes).match(path, method, raw.encode("utf-8", "surrogatepass"))
    assert index == NO_ROW or not routes[index].opens


@given(tables, raw_paths, methods)
def test_closed_rows_match_whatever_is_asked(routes: list[Route], raw: str, method: str) -> None:
    """Rows that open nothing match ambiguous paths as they match any other."""
    closed = [Route(route.path, methods=route.methods) for route in routes]
    path = unquote(raw)
    assert RouteTable(closed).match(path, method, raw.encode()) == RouteTable(closed).match(path, method)


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/login", "/login", True),
        ("/login", "/login/", True),
        ("/login", "/login//", False),
        ("/login/", "/login", True),
        ("/login", "/Login", False),
        ("/login", "/login/x", False),
        ("/", "/", True),
        ("/", "", False),
        ("/*", "/", False),
        ("/*", "/a", True),
        ("/*", "/a/b", True),
        ("/*", "*", False),
        ("/payments/*", "/payments", False),
        ("/payments/*", "/payments/", False),
        ("/payments/*", "/payments/1", True),
        ("/payments/*", "/payments/1/refund", True),
        ("/payments/*", "/payments/1/", True),
        ("/payments/*", "/paymentsx/1", False),
        ("/users/*/keys", "/users/1/keys", True),
        ("/users/*/keys", "/users/1/keys/", True),
        ("/users/*/keys/", "/users/1/keys", True),
        ("/users/*/keys", "/users/1/2/keys", False),
        ("/users/*/keys", "/users/keys", False),
        ("/users/*/keys", "/users/1/keys/2", False),
        ("/users/*/keys/*", "/users/1/keys/2/3", True),
        ("/users/*/keys/*", "/users/1/keys", False),
        ("/*/*", "/a", False),
        ("/*/*", "/a/b", True),
        ("/a/b/", "/a/b/", True),
        ("/a/b/", "/a/b", True),
    ],
)
def test_patterns(pattern: str, path: str, matches: bool) -> None:
    """A star is one whole segment in the middle, and one or more characters of any depth at the end."""
    assert RouteTable([Route(pattern)]).match(path, "GET") == (0 if matches else NO_ROW)


@pytest.mark.parametrize(
    ("allowed", "method", "matches"),
    [
        ((), "BREW", True),
        (("GET",), "GET", True),
        (("GET",), "HEAD", True),
        (("GET",), "OPTIONS", False),
        (("GET",), "get", True),
        (("POST",), "post", True),
        (("POST",), "HEAD", False),
        (("HEAD",), "HEAD", True),
        (("HEAD",), "GET", False),
        (("HEAD",), "head", True),
        (("GET", "HEAD"), "HEAD", True),
        (("POST", "HEAD"), "HEAD", True),
        (("M-SEARCH", "MY_OWN2"), "M-SEARCH", True),
        (("M-SEARCH", "MY_OWN2"), "my_own2", True),
        (("VERSION-CONTROL", "BASELINE-CONTROL"), "VERSION", False),
    ],
)
def test_methods(allowed: tuple[str, ...], method: str, matches: bool) -> None:
    """GET holds for HEAD too, and a method is the same in whatever case a server passes it on."""
    assert RouteTable([Route("/x", methods=allowed)]).match("/x", method) == (0 if matches else NO_ROW)


@pytest.mark.parametrize("path", ["//a", "/a//b", "/./a", "/a/.", "/a/..", "/../a", "/a\\b", "/a\0", "/a/../b", "/a/"])
@pytest.mark.parametrize("auth", ["none", "optional"])
def test_an_ambiguous_path_falls_through_to_the_rows_below(path: str, auth: AuthMode) -> None:
    """What an open row passes over, the closed row below it takes."""
    opened = path == "/a/"
    table = RouteTable([Route("/*", auth=auth), Route("/*", auth="required")])
    assert table.match(path, "GET") == (0 if opened else 1)


@pytest.mark.parametrize("raw_path", [b"/a%2fb", b"/a%2Fb", b"/a%5cb", b"/a%5Cb"])
@pytest.mark.parametrize("path", ["/a/b", "/ab"])
def test_an_encoded_slash_opens_nothing(path: str, raw_path: bytes) -> None:
    """Whatever a server makes of an encoded slash, an open row does not match it, and a closed one does."""
    table = RouteTable([Route("/*", auth="none"), Route("/*")])
    assert table.match(path, "GET", raw_path) == 1
    assert table.match(path, "GET", path.encode()) == table.match(path, "GET") == 0


@pytest.mark.parametrize(
    ("path", "is_ambiguous"),
    [
        ("/", False),
        ("/a/b", False),
        ("/a/", False),
        ("/.well-known/x", False),
        ("/a.b/..c/...", False),
        ("//", True),
        ("/a//", True),
        ("/.", True),
        ("/..", True),
        ("/a/./b", True),
        ("/a\u00a0\u00adb", False),
        ("/\\", True),
        ("/\0", True),
        ("/a\x7fb", True),
        ("/a\n", True),
    ],
)
def test_ambiguous(path: str, is_ambiguous: bool) -> None:
    """Routers can disagree about empty and dot segments, backslashes and NULs, and about nothing else here."""
    assert ambiguous(path) is is_ambiguous


@pytest.mark.parametrize(
    ("path", "root_path", "below"),
    [
        ("/api/users", "", "/api/users"),
        ("/api/users", "/api", "/users"),
        ("/api/", "/api", "/"),
        ("/api", "/api", "/"),
        ("/apiary", "/api", "/apiary"),
        ("/users", "/api", "/users"),
        ("/xyz/users", "/api", "/xyz/users"),
        ("", "", ""),
        ("/api/api/x", "/api", "/api/x"),
        ("/api//x", "/api", "//x"),
    ],
)
def test_route_path(path: str, root_path: str, below: str) -> None:
    """The path is looked at below the root path, and the root path itself is its root."""
    assert route_path(path, root_path) == below


@pytest.mark.parametrize(
    ("path", "root_path", "joined"),
    [
        ("/api/users", "", None),
        ("/api/users", "/api", None),
        ("/api", "/api", None),
        ("/users", "/api", None),
        ("/apiadmin", "/api", "/admin"),
        ("/public/api/admin", "/api", "/admin"),
        ("/public/api", "/api", "/"),
        ("/public/apiadmin", "/api", "/admin"),
        ("/", "/", None),
        ("/users", "/", None),
    ],
)
def test_joined_path(path: str, root_path: str, joined: str | None) -> None:
    """Another path is told only where some router looks for the root path elsewhere than in front."""
    assert joined_path(path, root_path) == joined


@pytest.mark.parametrize(
    ("path", "joined", "found"),
    [
        ("/public", None, (0, False)),
        ("/public/x", "/admin", (NO_ROW, True)),
        ("/admin", "/public", (1, True)),
        ("/admin", "/admin", (1, False)),
        ("/x", "//admin", (NO_ROW, True)),
        ("admin", None, (NO_ROW, True)),
        ("http://testserver/admin", None, (NO_ROW, True)),
        ("x:admin", None, (NO_ROW, True)),
        ("foo:/admin", None, (NO_ROW, True)),
        ("admin;x", None, (NO_ROW, True)),
        ("admin#x", None, (NO_ROW, True)),
        ("x", None, (NO_ROW, True)),
        ("", None, (NO_ROW, False)),
        ("*", None, (NO_ROW, False)),
    ],
)
def test_readings_of_different_rows_are_disputed(path: str, joined: str | None, found: tuple[int, bool]) -> None:
    """A path without a slash in front, or one that is another to some routers, opens nothing, and is disputed."""
    table = RouteTable([Route("/public", auth="none"), Route("/admin")])
    assert table.find(path, "GET", None, joined) == found


@pytest.mark.parametrize(
    ("rows", "path", "found"),
    [
        ([Route("/admin/*"), Route("/*", auth="none")], "/admin/x", (0, False)),
        ([Route("/admin/*"), Route("/*", auth="none")], "/admin/X", (0, False)),
        ([Route("/admin/*"), Route("/*", auth="none")], "/Admin/x", (NO_ROW, True)),
        ([Route("/admin/*"), Route("/*", auth="none")], "/Public", (1, False)),
        ([Route("/admin/*", scopes=("admin",))], "/ADMIN/x", (NO_ROW, True)),
        ([Route("/admin/*", scopes=("admin",))], "/ADMIN/../x", (NO_ROW, True)),
        ([Route("/admin/*", scopes=("admin",))], "/Other", (NO_ROW, False)),
        ([Route("/Users/*"), Route("/*", auth="none")], "/users/x", (NO_ROW, True)),
        ([Route("/Users/*"), Route("/*", auth="none")], "/Users/X", (0, False)),
        ([Route("/Users/*", auth="none"), Route("/*")], "/users/x", (1, True)),
        ([Route("/a"), Route("/A", auth="none")], "/A", (1, False)),
        ([Route("/a"), Route("/A", auth="none")], "/a", (0, False)),
        ([Route("/stra\u00dfe"), Route("/*", auth="none")], "/STRASSE", (NO_ROW, True)),
        ([Route("/admin"), Route("/*", auth="none")], "/adm\u0131n", (NO_ROW, True)),
        ([Route("/admin"), Route("/*", auth="none")], "/adm\u0130n", (NO_ROW, True)),
        ([Route("/adm\u0131n"), Route("/*", auth="none")], "/admin", (NO_ROW, True)),
        ([Route("/admin/*"), Route("/*", auth="none")], "/admin/\u0130", (0, False)),
        ([Route("/user/*"), Route("/*", auth="none")], "/u\u017fer/1", (NO_ROW, True)),
        ([Route("/key/*"), Route("/*", auth="none")], "/\u212aey/1", (NO_ROW, True)),
    ],
)
def test_case_that_leads_to_another_row_is_disputed(rows: list[Route], path: str, found: tuple[int, bool]) -> None:
    """Some routers disregard case, and some file systems: where that is another row's path, the request is refused."""
    assert RouteTable(rows).find(path, "GET") == found


@pytest.mark.parametrize(
    ("path", "raw_path", "read"),
    [
        ("/a/b", b"/a/b", {"/a/b"}),
        ("/a b", b"/a%20b", {"/a b"}),
        ("/a/b/c/../d", None, {"/a/b/c/../d", "/a/b/d"}),
        ("/../a/./b", None, {"/../a/./b", "/a/b"}),
        ("//a//b//", None, {"//a//b//", "/a/b/"}),
        ("/a/../", None, {"/a/../", "/"}),
        ("/a\\..\\b", None, {"/a\\..\\b", "/a/../b", "/b"}),
        ("/a\n", None, {"/a\n", "/a"}),
        ("/a/.\n", None, {"/a/.\n", "/a/.", "/a"}),
        ("/a\x01b\x7f", None, {"/a\x01b\x7f", "/ab"}),
        ("/\x01/a\n", None, {"/\x01/a\n", "/\x01/a", "//a", "/a"}),
        ("http://h/a/b", None, {"http://h/a/b", "/a/b"}),
        ("http://h", None, {"http://h", "/"}),
        ("h:a", None, {"h:a", "/h:a"}),
        ("/a/b", b"/a%2Fb", {"/a/b", "/a\x01b"}),
        ("/a/b", b"/root/a%2fb", {"/a/b", "/a\x01b"}),
        ("/a\\b/c", b"/a%5Cb/c", {"/a\\b/c", "/a/b/c", "/a\x01b/c"}),
        ("/\xe9/b", b"/%C3%A9%2fb", {"/\xe9/b", "/\xe9\x01b"}),
        ("/a/b/c", b"/a%2fb", {"/a/b/c", "/a\x01b"}),
    ],
)  # fmt: skip
def test_readings(path: str, raw_path: bytes | None, read: set[str]) -> None:
    """A path is read as it came, and as the routers read it that clean paths up or keep encoded slashes."""
    assert set(readings(path, raw_path)) == read


@pytest.mark.parametrize(
    ("path", "raw_path", "found"),
    [
        ("/x/../admin", None, (NO_ROW, True)), ("/x/../y", None, (NO_ROW, False)), ("/admin/..", None, (NO_ROW, False)),
        ("//admin", None, (NO_ROW, True)), ("/./admin", None, (NO_ROW, True)), ("\\admin", None, (NO_ROW, True)),
        ("/admin\n", None, (NO_ROW, True)), ("/ad\0min", None, (NO_ROW, True)),
        ("/item/1/x", b"/item/1%2fx", (NO_ROW, True)), ("/item/1/x", b"/item/1/x", (NO_ROW, False)),
        ("/open/a b", b"/open/a%20b", (3, False)), ("/open/../open/a", None, (NO_ROW, True)),
        ("/open/a/./b", None, (NO_ROW, True)), ("/open/a/b", b"/open/a%2Fb", (NO_ROW, True)),
        ("/all/a/./b", None, (2, False)),
    ],
)  # fmt: skip
def test_a_doubtful_path_is_disputed_where_a_reading_leads_elsewhere(
    path: str, raw_path: bytes | None, found: tuple[int, bool]
) -> None:
    """Where the readings of a path lead to different rows, or to one that opens something, it is disputed; else not."""
    table = RouteTable([Route("/admin"), Route("/item/*/"), Route("/all/*"), Route("/open/*", auth="none")])
    assert table.find(path, "GET", raw_path) == found


def test_no_rows() -> None:
    """An empty table matches nothing, and nothing is disputed, whatever the path."""
    assert RouteTable().match("/a", "GET") == NO_ROW
    assert RouteTable().find("http://a", "GET") == (NO_ROW, False)


def test_a_table_knows_who_is_asked_unless_it_is_told_otherwise() -> None:
    """Without a word of it, what no row names is closed, so a slash is not added to what a row opens."""
    for table in (RouteTable([OPENING]), RouteTable.of([OPENING])):
        assert table.match("/login/", "POST") == NO_ROW


def test_what_is_no_row_is_told() -> None:
    """Something else in the place of a row is an error that says what it is."""
    rows: Any = [Route("/a"), "/b"]
    with pytest.raises(ConfigError, match="routes: it is of the type str"):
        RouteTable(rows)


def test_the_row_of_a_request() -> None:
    """A request's row is the first that it matches, or none."""
    table = RouteTable([Route("/a", methods=("POST",)), Route("/a")])
    assert [table.row("/a", method) for method in ("POST", "GET")] == list(table.routes)
    assert table.row("/b", "GET") is None


def test_rows_that_begin_with_the_root_path() -> None:
    """A row that names a path together with the root path is told what to write; others are not."""
    (said,) = beyond_root([Route("/api/users"), Route("/users"), Route("/apiary")], "/api")
    assert "the row /api/users" in said
    assert said.endswith("write /users")


@pytest.mark.parametrize("pattern", ["/", "/a", "/*", "/a/*/b", "/a/*/b/*"])
def test_a_sample_matches_its_pattern(pattern: str) -> None:
    """A sample is matched by the pattern that it is of, and names nothing in the place of a star."""
    assert RouteTable([Route(pattern)]).match(sample(pattern), "GET") == 0
    assert "*" not in sample(pattern)


def test_a_table_is_taken_as_it_is() -> None:
    """Layers that are given one table share it; rows make a new one."""
    table = RouteTable([Route("/a")])
    assert RouteTable.of(table) is table
    assert RouteTable.of([Route("/a")]).routes == table.routes


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"path": ""}, "does not start with '/'"),
        ({"path": "login"}, "does not start with '/'"),
        ({"path": "*"}, "does not start with '/'"),
        ({"path": "/rep*"}, "stands for a whole segment"),
        ({"path": "/a/**"}, "stands for a whole segment"),
        ({"path": "/a//b"}, "no request would match"),
        ({"path": "/a/../b"}, "no request would match"),
        ({"path": "/a\\b"}, "no request would match"),
        ({"path": "/a\0"}, "no request would match"),
        ({"path": "/admin "}, "'/admin ' has white space where a segment begins or ends: write it without"),
        ({"path": "/ admin/*"}, "white space where a segment begins or ends"),
        ({"path": "/admin\xa0"}, "white space where a segment begins or ends"),
        ({"path": "/a/{id}"}, "'*' stands for a parameter"),
        ({"path": "/a/<id>/b"}, "'*' stands for a parameter"),
        ({"path": "/a/:id"}, "'*' stands for a parameter"),
        ({"path": "/a?b=c"}, "it is matched decoded, without query"),
        ({"path": "/a%20b"}, "it is matched decoded, without query"),
        ({"path": "/a", "methods": ("post",)}, "upper-case"),
        ({"path": "/a", "methods": ("GET", "")}, "upper-case"),
        ({"path": "/a", "methods": ("\u00c4\u00d6",)}, "upper-case"),
        ({"path": "/a", "methods": ("*",)}, "upper-case"),
        ({"path": "/a", "methods": ("GET|POST",)}, "upper-case"),
        ({"path": "/a", "methods": ("-",)}, "upper-case"),
        ({"path": "/a", "methods": ("GET", "DELTE")}, "methods DELTE: there is no such method; did you mean DELETE?"),
        ({"path": "/a", "methods": ("WEBSOCKET",)}, "methods WEBSOCKET: a WebSocket handshake is a GET: write GET"),
        ({"path": "/a", "methods": ("POST", "WSS")}, "methods WSS: a WebSocket handshake is a GET: write GET"),
        ({"path": "/a", "scopes": ("x",), "auth": "none"}, "cannot be 'none'"),
        ({"path": "/a", "scopes": ("x",), "auth": "optional"}, "cannot be 'optional'"),
        ({"path": "/a", "any_scopes": ("x",), "auth": "none"}, "cannot be 'none'"),
        ({"path": "/a", "any_scopes": ("x", "a b")}, "a scope is visible ASCII"),
        ({"path": "/a", "security": SecurityHeaders(frame_options="SOMETIMES")}, "path '/a': security frame_options:"),
        ({"path": "/a", "cost": -1}, "cannot give units back"),
        ({"path": "/a", "methods": "GET"}, "write methods=('GET',)"),
        ({"path": "/a", "scopes": "admin"}, "write scopes=('admin',)"),
        ({"path": "/a", "any_scopes": "admin"}, "write any_scopes=('admin',)"),
    ],
)
def test_malformed_rows(options: dict[str, object], says: str) -> None:
    """A row that cannot mean anything is an error that says why."""
    with pytest.raises(ValueError, match=re.escape(says)):
        Route(**options)  # type: ignore[arg-type]  # the table holds options of several types


def test_a_row_may_be_free_and_report_to_an_endpoint_of_the_guard() -> None:
    """A cost is one unit unless said, and may be none; a report may go to an endpoint that the row does not name."""
    assert (Route("/a").cost, Route("/a", cost=0).cost) == (1, 0)
    assert not dict(wrong_columns({"path": "/a"}))
    policy = SecurityHeaders(csp="default-src 'self'; report-to guard")
    assert Route("/a", security=policy).security is policy


@pytest.mark.parametrize(
    ("path", "faults"),
    [
        ("/a", []), ("/a:b", []), ("/a/*", ["'/a/*': it is a single path, so nothing stands for others in it"]),
        ("/{a}", ["'/{a}': it is matched decoded, without query"]),
    ],
)  # fmt: skip
def test_a_single_path(path: str, faults: list[str]) -> None:
    """A path that is one place and no pattern holds no star."""
    assert list(path_faults(path, pattern=False)) == faults


def test_all_that_is_wrong_is_said_at_once() -> None:
    """A row with several mistakes names every one."""
    with pytest.raises(ValueError, match="start with") as caught:
        Route("a*", methods=("get",), scopes=("x",), auth="none", cost=-1)
    for part in ("start with", "whole segment", "upper-case", "asks for scopes", "negative"):
        assert part in str(caught.value)


@pytest.mark.parametrize(("auth", "opens"), [(None, False), ("required", False), ("optional", True), ("none", True)])
def test_opens(auth: AuthMode | None, opens: bool) -> None:
    """A row opens something if it lets in those who are not identified."""
    assert Route("/a", auth=auth).opens is opens


def test_lists_in_a_row_are_kept_as_tuples() -> None:
    """A row that was given lists is the row that was given tuples: nobody changes it later, and it can be hashed."""
    methods, scopes, any_scopes = ["GET"], ["a"], ["b", "c"]
    given: dict[str, Any] = {"methods": methods, "scopes": scopes, "any_scopes": any_scopes}
    row = Route("/x", **given)
    for each in (methods, scopes, any_scopes):
        each.append("LATER")
    assert row == Route("/x", methods=("GET",), scopes=("a",), any_scopes=("b", "c"))
    assert hash(row) == hash(Route("/x", methods=("GET",), scopes=("a",), any_scopes=("b", "c")))


def test_rows_are_named() -> None:
    """A row is named by its methods and its path."""
    assert [str(Route("/a")), str(Route("/a", methods=("GET", "PUT")))] == ["any method /a", "GET,PUT /a"]


@pytest.mark.parametrize("scope", ["", "a b", 'a"b', "a\\b", "a\nb", "ä"])
def test_scopes_are_those_of_rfc_6749(scope: str) -> None:
    """A scope that could not stand in a challenge is an error at construction."""
    with pytest.raises(ValueError, match="a scope is visible ASCII"):
        Route("/a", scopes=(scope,))


@pytest.mark.parametrize("column", ["auth", "security"])
def test_a_row_with_a_value_that_no_type_checker_saw(column: str) -> None:
    """A column with a value that it cannot have is an error, with those that it can have."""
    with pytest.raises(ValueError, match=f"{column} 'maybe' is none of "):
        Route("/a", **{column: "maybe"})  # type: ignore[arg-type]  # that is what is tested


SEVERAL = 'give several texts, as in ("GET",)'
OTHER = "this is a row of the guard's table, and Starlette's Route another"


@pytest.mark.parametrize(
    ("args", "options", "said"),
    [
        ((print,), {}, [f"methods: it is of the type builtin_function_or_method: {SEVERAL}; {OTHER}"]),
        ((None,), {}, [f"methods: it is of the type NoneType: {SEVERAL}"]),
        ((("GET", 5),), {}, [f"methods: it is of the type tuple: {SEVERAL}"]),
        ((), {"scopes": 5, "any_scopes": b"x"}, [
            'scopes: it is of the type int: give several texts, as in ("items:read",)',
            'any_scopes: it is of the type bytes: give several texts, as in ("items:read",)']),
        ((), {"methods": "GET", "cost": "2", "auth": "maybe"}, [
            "cost: it is of the type str: give a whole number",
            "Route: path '/x': methods='GET' is one text where several belong: write methods=('GET',)",
            "Route: path '/x': auth 'maybe' is none of required, optional, none"]),
    ],
)  # fmt: skip
def test_values_of_another_type_are_told_with_the_rest(args: Any, options: Any, said: list[str]) -> None:
    """Values that no column can have are told by column, with what is wrong with the others; a handler is none."""
    with pytest.raises(ConfigError) as caught:
        Route("/x", *args, **options)
    assert str(caught.value).split("\n") == said


def test_a_row_whose_path_is_none_is_judged_by_the_rest() -> None:
    """Of a row that has no path to be called by, the other columns are told of all the same."""
    path: Any = 5
    with pytest.raises(ConfigError) as caught:
        Route(path, scopes=("a",), auth="none")
    said = ["path: it is of the type int: give a text", "Route: the row asks for scopes, so its auth cannot be 'none'"]
    assert str(caught.value).split("\n") == said
