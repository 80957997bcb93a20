"""Cross-site request forgery, told from what browsers say."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.policy.csrf import ForgeryExemptions, allows, is_same_origin, whose_page
from asgi_guard.policy.routes import Route, RouteTable

HOST = b"app.example"
TRUSTED = b"https://trusted.example"


def allowed(
    method: str = "POST",
    *,
    websocket: bool = False,
    site: bytes | None = None,
    origin: bytes | None = None,
    host: bytes = HOST,
) -> bool:
    """Ask the policy about a request with at most one line of each header."""
    return allows(
        method,
        websocket=websocket,
        fetch_site=[] if site is None else [site],
        origin=[] if origin is None else [origin],
        host=[host],
        trusts=TRUSTED.__eq__,
    )


SAME, OTHER = b"https://app.example", b"https://evil.example"


@pytest.mark.parametrize(
    ("site", "origin", "expected"),
    [
        (None, None, True), (None, SAME, True), (None, b"http://app.example", True), (None, OTHER, False),
        (None, TRUSTED, True), (None, b"null", False), (None, b"", False),
        (b"same-origin", None, True), (b"same-origin", SAME, True), (b"same-origin", OTHER, True),
        (b"none", None, True), (b"none", OTHER, True),
        (b"same-site", None, False), (b"same-site", SAME, False), (b"same-site", OTHER, False),
        (b"same-site", TRUSTED, True),
        (b"cross-site", None, False), (b"cross-site", SAME, False), (b"cross-site", OTHER, False),
        (b"cross-site", b"null", False), (b"cross-site", TRUSTED, True),
        (b"", None, False), (b"", OTHER, False), (b"invalid", None, False), (b"invalid", SAME, False),
        (b"Same-Origin", None, False), (b"same-origin, cross-site", None, False), (b"invalid", TRUSTED, True),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("method", "websocket"), [("POST", False), ("GET", True), ("HEAD", True)])
def test_unsafe_requests_are_judged_by_what_the_browser_says(
    method: str, websocket: bool, site: bytes | None, origin: bytes | None, expected: bool
) -> None:
    """Methods that change something, and WebSocket handshakes, pass from the same origin and trusted ones only."""
    assert allowed(method, websocket=websocket, site=site, origin=origin) is expected


@pytest.mark.parametrize(
    ("site", "origin", "page"),
    [
        (b"same-origin", OTHER, "own"), (b"none", None, "own"), (None, SAME, "own"), (None, TRUSTED, "own"),
        (b"cross-site", TRUSTED, "own"), (b"cross-site", SAME, "foreign"), (None, OTHER, "foreign"),
        (None, None, "unsaid"),
    ],
)  # fmt: skip
def test_whose_page_it_is(site: bytes | None, origin: bytes | None, page: str) -> None:
    """A trusted origin's page is the app's own, and needs no token; only where no header tells it is unsaid."""
    sites, origins = [each for each in (site,) if each is not None], [each for each in (origin,) if each is not None]
    assert whose_page(fetch_site=sites, origin=origins, host=[HOST], trusts=TRUSTED.__eq__) == page


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "get", "Get", ""])
def test_any_other_method_is_unsafe(method: str) -> None:
    """Only the three methods that promise to change nothing are let through unseen."""
    assert not allowed(method, site=b"cross-site", origin=OTHER)
    assert allowed(method, site=b"same-origin")


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("site", [None, b"cross-site", b"same-site", b""])
@pytest.mark.parametrize("origin", [None, OTHER, b"null"])
def test_safe_methods_pass(method: str, site: bytes | None, origin: bytes | None) -> None:
    """A request that changes nothing passes from anywhere."""
    assert allowed(method, site=site, origin=origin)


@pytest.mark.parametrize(
    ("fetch_site", "origin"),
    [
        ([b"same-origin", b"same-origin"], []), ([b"none", b"cross-site"], []), ([], [SAME, SAME]), ([], [SAME, OTHER]),
        ([], [TRUSTED, TRUSTED]), ([b"same-origin"], [SAME, OTHER]),
    ],
)  # fmt: skip
def test_repeated_headers_are_no_browsers(fetch_site: list[bytes], origin: list[bytes]) -> None:
    """No browser sends either header twice: such a request is refused."""
    assert not allows("POST", websocket=False, fetch_site=fetch_site, origin=origin, host=[HOST], trusts=TRUSTED.__eq__)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (b"https://app.example", b"app.example"), (b"http://app.example", b"app.example"),
        (b"https://app.example:8443", b"app.example:8443"), (b"https://APP.example", b"app.EXAMPLE"),
        (b"http://127.0.0.1:8000", b"127.0.0.1:8000"), (b"http://[::1]:8000", b"[::1]:8000"),
        (b"https://xn--bcher-kva.example", b"xn--bcher-kva.example"),
    ],
)  # fmt: skip
def test_the_same_host_and_port_is_the_same_origin(origin: bytes, host: bytes) -> None:
    """An Origin whose host and port are the request's Host is the request's own."""
    assert is_same_origin(origin, [host])


@pytest.mark.parametrize(
    "origin",
    [
        b"", b"null", b"app.example", b"//app.example", b"://app.example", b"https:app.example", b"https:/app.example",
        b"https://", b"https:///app.example", b"https://app.example/", b"https://app.example/path",
        b"https://app.example?", b"https://app.example?x", b"https://app.example#", b"https://app.example#x",
        b"https://user@app.example", b"https://user:pw@app.example", b"https://@app.example",
        b"https://app.example@evil.example", b"https://evil.example\\@app.example", b"https://app.example\\",
        b"https://app.example:443", b"https://app.example.", b"https://app.example.evil.example",
        b"https://evil.example/app.example", b"https://xapp.example", b"https://pp.example", b"https://app.exampl",
        b" https://app.example", b"https://app.example ", b"https://app\t.example", b"https://app.\nexample",
        b"\x00https://app.example", b"https://app.example\0", b"https://app.example, https://app.example",
        b"https://app.example https://evil.example", b"https://[app.example", b"https://\xc3\xa4pp.example",
    ],
)  # fmt: skip
def test_anything_else_is_another_origin(origin: bytes) -> None:
    """What is no serialised origin, or differs in host or port, is not the request's own."""
    assert not is_same_origin(origin, [HOST])


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        (b"https://app.example", b"app.example:443", True), (b"http://app.example", b"app.example:80", True),
        (b"https://APP.example", b"App.Example:443", True), (b"HTTPS://app.example", b"app.example:443", True),
        (b"https://[::1]", b"[::1]:443", True),
        (b"http://app.example", b"app.example:443", False), (b"https://app.example", b"app.example:80", False),
        (b"https://app.example:443", HOST, False), (b"http://app.example:443", HOST, False),
        (b"http://app.example:80", HOST, False), (b"https://app.example:8443", b"app.example:8443:443", False),
        (b"https://app.example", b"app.example:", False), (b"https://app.example", b"app.example:0443", False),
        (b"https://app.example", b"app.example:4430", False), (b"https://evil.example", b"app.example:443", False),
        (b"wss://app.example", b"app.example:443", False), (b"tauri://app.example", b"app.example:443", False),
    ],
)  # fmt: skip
def test_the_default_port(origin: bytes, host: bytes, same: bool) -> None:
    """A Host may name the default port of the Origin's own scheme, which an Origin never names, and no other's."""
    assert is_same_origin(origin, [host]) is same
    assert allowed(origin=origin, host=host) is same


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        (b"https://app.example", HOST, True), (b"https://app.example", b"app.example:443", True),
        (b"http://app.example", HOST, False), (b"HTTP://App.Example", HOST, False), (b"http://[::1]", b"[::1]", False),
        (b"https://app.example:8443", b"app.example:8443", True), (b"http://localhost:8000", b"localhost:8000", False),
        (b"http://app.example:8443", b"app.example:8443", False),
        (b"http://app.example:443", b"app.example:443", False), (b"http://app.example", b"app.example:80", False),
        (b"http://app.example", b"app.example:443", False), (b"tauri://app.example", HOST, True),
    ],
)  # fmt: skip
def test_over_tls(origin: bytes, host: bytes, same: bool) -> None:
    """Over TLS no page of plain http is the app's own, on no port: who is on the network answers on any."""
    assert is_same_origin(origin, [host], secure=True) is same
    for websocket in (False, True):
        assert (
            allows(
                "POST",
                websocket=websocket,
                fetch_site=[],
                origin=[origin],
                host=[host],
                trusts=TRUSTED.__eq__,
                secure=True,
            )
            is same
        )


@pytest.mark.parametrize("host", [[], [HOST, HOST], [b""], [b"app.example:80"], [b"user@app.example"]])
def test_without_one_host_nothing_is_the_same_origin(host: list[bytes]) -> None:
    """A request without exactly one plain Host has no origin to be the same as."""
    assert not is_same_origin(SAME, host)
    assert not is_same_origin(b"https://", host)
    assert not is_same_origin(b"null", host)


@pytest.mark.parametrize("authority", [b"user@app.example", b"app.example/", b"app.example?x", b"app example", b"\xff"])
def test_what_is_no_authority_is_not_the_same_as_itself(authority: bytes) -> None:
    """An Origin with user information, a path or what no host has is none, though the Host says the same."""
    assert not is_same_origin(b"https://" + authority, [authority])


names = st.sampled_from([b"", b"null", HOST, SAME, OTHER, TRUSTED, b"cross-site", b"none"])


@given(origin=st.binary(max_size=30) | names, host=st.binary(max_size=30) | names)
@example(origin=SAME, host=HOST)
@example(origin=b"https://a\tb", host=b"ab")
@example(origin=b"https://", host=b"")
@example(origin=SAME, host=HOST + b":443")
def test_the_same_origin_ends_with_its_host(origin: bytes, host: bytes) -> None:
    """Whatever is sent, an Origin that passes for the request's own is a scheme and that very host."""
    if is_same_origin(origin, [host]):
        scheme, _, own = origin.lower().partition(b"://")
        default = {b"https": b":443", b"http": b":80"}.get(scheme, b"")
        assert host.lower() in (own, own + default)
        assert own


@given(
    method=st.sampled_from(["POST", "GET", "DELETE"]),
    websocket=st.booleans(),
    fetch_site=st.lists(names, max_size=2),
    origin=st.lists(names, max_size=2),
    host=st.lists(names, max_size=2),
    secure=st.booleans(),
)
def test_an_attackers_page_gets_nothing_done(
    method: str, websocket: bool, fetch_site: list[bytes], origin: list[bytes], host: list[bytes], secure: bool
) -> None:
    """A request that a browser marks as another site's, and whose origin nobody trusts, changes nothing."""
    passes = allows(
        method,
        websocket=websocket,
        fetch_site=fetch_site,
        origin=origin,
        host=host,
        trusts=TRUSTED.__eq__,
        secure=secure,
    )
    if fetch_site == [b"cross-site"] and origin != [TRUSTED] and (websocket or method != "GET"):
        assert not passes
    if method == "GET" and not websocket:
        assert passes


EXEMPT = ForgeryExemptions(
    RouteTable(
        [
            Route("/hooks/paid", methods=("POST",), csrf=False),
            Route("/hooks/*"),
            Route("/admin"),
            Route("/ping/admin", scopes=("admin",)),
            Route("/status", csrf=False),
        ]
    ),
    ("/ping/*",),
)


@pytest.mark.parametrize(
    ("path", "method", "covered"),
    [
        ("/hooks/paid", "POST", True),
        ("/hooks/paid", "PUT", False),
        ("/hooks/other", "POST", False),
        ("/admin", "POST", False),
        ("/elsewhere", "POST", False),
        ("/status", "POST", True),
        ("/ping/a", "POST", True),
        ("/ping/a", "DELETE", True),
        ("/ping", "POST", False),
    ],
)
def test_rows_and_paths_are_exempt_as_they_are_written(path: str, method: str, covered: bool) -> None:
    """A row is exempt if it says so, for its methods; a path whatever the row says; nothing else is."""
    assert EXEMPT.cover(path, method, path.encode()) is covered


@pytest.mark.parametrize(
    ("path", "raw_path", "joined"),
    [
        ("/hooks/paid", b"/hooks%2Fpaid", None),
        ("/ping/../admin", b"/ping/../admin", None),
        ("/ping//a", b"/ping//a", None),
        ("/ping/a", b"/ping/a", "/admin"),
        ("/ping/ADMIN", b"/ping/ADMIN", None),
    ],
)
def test_no_path_is_exempt_that_routers_read_differently(path: str, raw_path: bytes, joined: str | None) -> None:
    """Slashes that are hidden or doubled, dots, another reading below a root path, another case: none is exempt."""
    assert not EXEMPT.cover(path, "POST", raw_path, joined)
