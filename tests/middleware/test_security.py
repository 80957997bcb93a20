"""The SecurityHeaders layer: its headers on every response, and none of the app's lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard import (
    ConfigError,
    CORSMiddleware,
    IdentityMiddleware,
    Route,
    SecurityHeaders,
    SecurityHeadersMiddleware,
    csp,
)
from asgi_guard.policy.header_values import DEFAULT_HSTS
from asgi_guard.policy.security import Preset, SecurityPolicy
from asgi_guard.testing import LocalIssuer
from tests.asgi import Echo, call, get, websocket_scope

if TYPE_CHECKING:
    from asgi_guard.asgi import Header, Receive, Scope, Send

OF_API = SecurityPolicy.of()


async def test_plain() -> None:
    """Over http, a response gets the preset's lines and no Strict-Transport-Security."""
    exchange = await get(SecurityHeadersMiddleware(Echo(headers=[])))
    assert tuple(exchange.starts[0]["headers"]) == OF_API.plain
    assert "strict-transport-security" not in exchange.headers


async def test_secure() -> None:
    """Over https, Strict-Transport-Security is among them."""
    exchange = await get(SecurityHeadersMiddleware(Echo(headers=[])), scheme="https")
    assert tuple(exchange.starts[0]["headers"]) == OF_API.secure
    assert "strict-transport-security" in exchange.headers


@pytest.mark.parametrize(("scheme", "lines"), [("ws", OF_API.plain), ("wss", OF_API.secure)])
async def test_websocket(scheme: str, lines: tuple[tuple[bytes, bytes], ...]) -> None:
    """An accepted WebSocket gets them too."""
    exchange = await call(SecurityHeadersMiddleware(Echo()), websocket_scope(scheme=scheme))
    assert tuple(exchange.messages[0]["headers"]) == lines


async def test_the_apps_own_win() -> None:
    """A header that the app sets stays as it is, in any spelling, and every other line of the app's stays too."""
    own = [
        (b"Content-Security-Policy", b"default-src 'self'"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"X-FRAME-OPTIONS", b"SAMEORIGIN"),
    ]
    headers = (await get(SecurityHeadersMiddleware(Echo(headers=own)))).starts[0]["headers"]
    assert headers[:4] == own
    names = [name.lower() for name, _ in headers]
    assert names.count(b"content-security-policy") == names.count(b"x-frame-options") == 1
    assert b"x-content-type-options" in names


@pytest.mark.parametrize(
    ("options", "own", "ancestors"),
    [
        ({}, [b"SAMEORIGIN"], "'self'"),
        ({}, [b" sameorigin "], "'self'"),
        ({"preset": "page"}, [b"SAMEORIGIN"], "'self'"),
        ({"frame_options": "SAMEORIGIN"}, [], "'self'"),
        ({"frame_options": "SAMEORIGIN"}, [b"deny"], "'none'"),
        ({}, [b"DENY"], "'none'"),
        ({}, [b"ALLOWALL"], "'none'"),
        ({}, [b"SAMEORIGIN", b"DENY"], "'none'"),
        ({"csp": "frame-ancestors 'none'"}, [b"SAMEORIGIN"], "'none'"),
        ({"csp": "frame-ancestors 'self'"}, [b"DENY"], "'self'"),
    ],
)
async def test_who_may_frame(options: dict[str, Any], own: list[bytes], ancestors: str) -> None:
    """Where the app says who may frame, the preset's policy says the same; one that the operator wrote stays."""
    echo = Echo(headers=[(b"X-Frame-Options", value) for value in own])
    headers = (await get(SecurityHeadersMiddleware(echo, **options))).headers
    (found,) = (each for each in headers["content-security-policy"].split("; ") if each.startswith("frame-ancestors"))
    assert found == f"frame-ancestors {ancestors}"
    expected = b", ".join(own).decode() or options.get("frame_options")
    assert headers["x-frame-options"] == expected


async def test_the_servers_name_is_taken_away() -> None:
    """What tells which software answers is taken away, and nothing else is."""
    own = [(b"Server", b"x"), (b"x-a", b"1"), (b"X-Powered-By", b"y"), (b"x-a", b"2")]
    headers = (await get(SecurityHeadersMiddleware(Echo(headers=own)))).starts[0]["headers"]
    assert headers == [(b"x-a", b"1"), (b"x-a", b"2"), *OF_API.plain]


@pytest.mark.parametrize(
    ("preset", "routes"),
    [("off", [Route("/other", security="page")]), ("api", [Route("/", security="off")]), ("off", [])],
)
async def test_off_is_off(issuer: LocalIssuer, preset: Preset, routes: list[Route]) -> None:
    """Under `off` a response is the app's, to identified users too, whatever another row says."""
    own = [(b"Server", b"x"), (b"x-powered-by", b"y")]
    app = IdentityMiddleware(Echo(headers=own), issuers=[issuer.accepted()])
    layer = SecurityHeadersMiddleware(app, preset=preset, routes=routes)
    known = (b"authorization", b"Bearer " + issuer.token().encode())
    for headers in ([], [known]):
        assert (await get(layer, headers=headers)).starts[0]["headers"] == own
    if routes and preset == "off":
        elsewhere = (await get(layer, "/other", headers=[known])).headers
        assert elsewhere["cache-control"] == "no-store"
        assert "server" not in elsewhere


async def test_what_is_said_beside_off(issuer: LocalIssuer) -> None:
    """Beside `off` what is said is sent, and no more; a word on caching is none on responses to identified users."""
    app = IdentityMiddleware(Echo(headers=[(b"server", b"x")]), issuers=[issuer.accepted()])
    known = [(b"authorization", b"Bearer " + issuer.token().encode())]
    framed = SecurityHeadersMiddleware(app, preset="off", frame_options="DENY")
    assert (await get(framed, headers=known)).headers == {"server": "x", "x-frame-options": "DENY"}
    cached = SecurityHeadersMiddleware(app, preset="off", cache_control="public, max-age=60")
    assert (await get(cached)).headers == {"server": "x", "cache-control": "public, max-age=60"}
    assert (await get(cached, headers=known)).headers == {"server": "x", "cache-control": "no-store"}


async def test_options() -> None:
    """What is said stands in the place of the preset's value, and `off` takes a header away."""
    layer = SecurityHeadersMiddleware(
        Echo(), preset="page", csp="default-src 'self'", csp_report_only="script-src 'none'", hsts="max-age=60",
        referrer_policy="off", permissions_policy="off",
    )  # fmt: skip
    headers = (await get(layer, scheme="https")).headers
    assert headers["content-security-policy"] == "default-src 'self'"
    assert headers["content-security-policy-report-only"] == "script-src 'none'"
    assert headers["strict-transport-security"] == "max-age=60"
    assert not {"referrer-policy", "permissions-policy"} & set(headers)


async def test_routes() -> None:
    """A row's preset holds for its path, and the default elsewhere."""
    routes = [Route("/docs", security="docs"), Route("/x", security="off"), Route("/y")]
    layer = SecurityHeadersMiddleware(Echo(), routes=routes)
    assert "cdn.jsdelivr.net" in (await get(layer, "/docs")).headers["content-security-policy"]
    assert "content-security-policy" not in (await get(layer, "/x")).headers
    for path in ("/y", "/z"):
        assert tuple((await get(layer, path)).starts[0]["headers"][1:]) == OF_API.plain


@pytest.mark.parametrize(("own", "expected"), [([], ["no-store"]), ([(b"Cache-Control", b"max-age=5")], ["max-age=5"])])
async def test_what_one_user_may_see_is_not_stored(
    issuer: LocalIssuer, own: list[tuple[bytes, bytes]], expected: list[str]
) -> None:
    """A response to an identified user is not to be stored, unless the app says otherwise."""
    layer = SecurityHeadersMiddleware(IdentityMiddleware(Echo(headers=own), issuers=[issuer.accepted()]))
    token = issuer.token()
    exchange = await get(layer, headers=[(b"authorization", b"Bearer " + token.encode())])
    assert [v.decode() for n, v in exchange.starts[0]["headers"] if n.lower() == b"cache-control"] == expected
    assert "cache-control" not in (await get(SecurityHeadersMiddleware(Echo()))).headers


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("csp", "default-src 'self'\r\nx: y"),
        ("csp_report_only", " "),
        ("hsts", "includeSubDomains"),
        ("referrer_policy", "é"),
        ("permissions_policy", ""),
    ],
)
def test_bad_value(option: str, value: str) -> None:
    """A value that cannot stand in its header is refused at construction, by name."""
    with pytest.raises(ConfigError) as caught:
        SecurityHeadersMiddleware(Echo(), **{option: value})  # type: ignore[arg-type]  # mypy takes the value for that of every argument
    assert [problem.name for problem in caught.value.problems] == [option]


async def test_rows_that_say_more() -> None:
    """A row may say more than a preset: over the guard's own headers, or over those of another preset."""
    routes = [
        Route("/framed", security=SecurityHeaders(frame_options="SAMEORIGIN", csp="frame-ancestors 'self'")),
        Route("/docs", security=SecurityHeaders("docs", resource_policy="cross-origin")),
    ]
    layer = SecurityHeadersMiddleware(Echo(), referrer_policy="same-origin", routes=routes)
    framed, docs = (await get(layer, "/framed")).headers, (await get(layer, "/docs")).headers
    assert (framed["x-frame-options"], framed["referrer-policy"]) == ("SAMEORIGIN", "same-origin")
    assert framed["content-security-policy"] == "frame-ancestors 'self'"
    assert (docs["cross-origin-resource-policy"], docs["referrer-policy"]) == ("cross-origin", "no-referrer")
    assert (await get(layer)).headers["x-frame-options"] == "DENY"


def test_bad_rows() -> None:
    """What a row says wrong is told by the row; a row may report to an endpoint of the guard, and to no other."""
    with pytest.raises(ValueError, match="security frame_options: 'X' is none of"):
        Route("/x", security=SecurityHeaders(frame_options="X"))
    routes = [Route("/x", security=SecurityHeaders(csp="default-src 'self'; report-to main"))]
    SecurityHeadersMiddleware(Echo(), routes=routes, reporting_endpoints="main=https://r.example")
    with pytest.raises(ConfigError, match="security of the row any method /x: csp: report-to main"):
        SecurityHeadersMiddleware(Echo(), routes=routes)


async def test_cache_control(issuer: LocalIssuer) -> None:
    """What is said of caching holds for responses that say nothing, but never for those to identified users."""
    layer = SecurityHeadersMiddleware(
        IdentityMiddleware(Echo(), issuers=[issuer.accepted()]), cache_control="public, max-age=60"
    )
    assert (await get(layer)).headers["cache-control"] == "public, max-age=60"
    token = issuer.token().encode()
    assert (await get(layer, headers=[(b"authorization", b"Bearer " + token)])).headers["cache-control"] == "no-store"


class Page:
    """An app that asks for a nonce, before or after its response begins."""

    def __init__(self, *, late: bool = False) -> None:
        self.late = late
        self.nonces: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self.late:
            self.nonces += [csp.nonce(scope), csp.nonce()]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if self.late or scope["path"] == "/again":
            self.nonces.append(csp.nonce())
        await send({"type": "http.response.body", "body": b""})


async def test_nonces() -> None:
    """A response whose app asks has one nonce, in both its policies; each response has its own."""
    app = Page()
    layer = SecurityHeadersMiddleware(app, preset="page", csp_report_only="script-src 'nonce'")
    for path in ("/", "/again"):
        headers = (await get(layer, path)).headers
        (nonce,) = set(app.nonces)
        assert len(nonce) >= 22
        assert f"script-src 'self' 'nonce-{nonce}'" in headers["content-security-policy"]
        assert headers["content-security-policy-report-only"] == f"script-src 'nonce-{nonce}'"
        app.nonces.clear()


async def test_a_nonce_that_nobody_asked_for() -> None:
    """Without the app's asking there is no nonce, and its place is empty."""
    headers = (await get(SecurityHeadersMiddleware(Echo(), preset="page"))).headers
    assert "nonce" not in headers["content-security-policy"]


NOT_MODIFIED = Echo(304, [(b"etag", b'"1"'), (b"server", b"x")])


async def test_no_inline_script_without_a_nonce() -> None:
    """Where a nonce stands beside `'unsafe-inline'`, a response whose app asked for none lets no inline script run."""
    layer = SecurityHeadersMiddleware(Echo(), csp="script-src 'self' 'nonce' 'unsafe-inline'")
    assert (await get(layer)).headers["content-security-policy"] == "script-src 'self'"
    asked = (await get(SecurityHeadersMiddleware(Page(), csp="script-src 'nonce' 'unsafe-inline'"))).headers
    assert asked["content-security-policy"].endswith("' 'unsafe-inline'")


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("preset", ["api", "page", "docs"])
@pytest.mark.parametrize("row", [None, "page"])
async def test_a_stored_response_keeps_what_it_said(preset: Preset, scheme: str, row: Preset | None) -> None:
    """A 304 says nothing of what its stored response may have said for itself, for caches replace what it repeats."""
    layer = SecurityHeadersMiddleware(
        NOT_MODIFIED, preset=preset, csp_report_only="script-src 'nonce'", cache_control="no-cache",
        reporting_endpoints="main=https://r.example", routes=[Route("/", security=row)],
    )  # fmt: skip
    headers = (await get(layer, scheme=scheme)).headers
    of_the_host = {"strict-transport-security": DEFAULT_HSTS} if scheme == "https" else {}
    assert headers == {"etag": '"1"', **of_the_host}


async def test_what_a_304_says_itself_stays() -> None:
    """What the app says on its 304 is sent as it is, and what tells which software answers is not."""
    own = [(b"etag", b'"1"'), (b"Content-Security-Policy", b"default-src 'self'"), (b"X-Powered-By", b"x")]
    own.append((b"Strict-Transport-Security", b"max-age=1"))
    exchange = await get(SecurityHeadersMiddleware(Echo(304, own)), scheme="https")
    assert exchange.starts[0]["headers"] == [own[0], own[1], own[3]]


async def test_a_304_to_a_user(issuer: LocalIssuer) -> None:
    """Whether a stored response may be kept was for that response to say, also where its user is known."""
    layer = SecurityHeadersMiddleware(IdentityMiddleware(NOT_MODIFIED, issuers=[issuer.accepted()]))
    exchange = await get(layer, headers=[(b"authorization", b"Bearer " + issuer.token().encode())])
    assert exchange.headers == {"etag": '"1"'}


async def test_a_304_to_a_page_of_another_origin() -> None:
    """Who may read a stored response is said anew: a cache may hold it as another origin's page got it."""
    layer = CORSMiddleware(SecurityHeadersMiddleware(NOT_MODIFIED), allow_origins="https://app.example")
    headers = (await get(layer, headers=[(b"origin", b"https://app.example")])).headers
    assert headers == {"etag": '"1"', "vary": "origin", "access-control-allow-origin": "https://app.example"}


async def test_a_304_leaves_its_pages_nonce_alone() -> None:
    """The scripts of a stored page have the nonce of then, so a 304 names no other, whatever its app asks for."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        csp.nonce()
        await NOT_MODIFIED(scope, receive, send)

    assert (await get(SecurityHeadersMiddleware(app, preset="page"))).headers == {"etag": '"1"'}


async def test_a_nonce_that_comes_too_late() -> None:
    """Once the policy is sent, asking for a nonce is an error: the script would not run."""
    exchange = await get(SecurityHeadersMiddleware(Page(late=True), preset="page"))
    assert isinstance(exchange.error, RuntimeError)
    assert "before the first byte" in str(exchange.error)


def test_no_guard_no_nonce() -> None:
    """Outside of a guarded request there is no policy, and no nonce."""
    assert csp.nonce() == csp.nonce({}) == ""


lines = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *(name.decode() for name, _ in OF_API.secure), "set-cookie", "Set-Cookie", "VARY", "vary",
                "cache-control", "Content-Type", "link", "Server", "X-Powered-By", "access-control-allow-origin",
                "retry-after",
            ]
        ).map(str.encode),
        st.binary(max_size=5),
    ),
    max_size=12,
)  # fmt: skip


@given(lines, st.sampled_from(["api", "page", "docs", "off"]), st.sampled_from(["http", "https"]), st.booleans())
@example([(b"set-cookie", b"a"), (b"Set-Cookie", b"b"), (b"x-frame-options", b"")], "page", "https", True)
async def test_no_header_of_the_app_is_lost(own: list[Header], preset: Preset, scheme: str, cors: bool) -> None:
    """Every line of the app's stands on the response, in its order and its spelling; no name of it is said again.

    `Vary` alone may have one line in the place of the app's, which names all that these named.
    """
    app = CORSMiddleware(Echo(headers=own), allow_origins="https://app.example") if cors else Echo(headers=own)
    layer = SecurityHeadersMiddleware(app, preset=preset)
    exchange = await get(layer, headers=[(b"origin", b"https://app.example")], scheme=scheme)
    headers = exchange.starts[0]["headers"]
    kept = [line for line in own if preset == "off" or line[0].lower() not in (b"server", b"x-powered-by")]
    varied = [value for name, value in own if name.lower() == b"vary"]
    if varied and headers[: len(kept)] != kept:
        kept = [line for line in kept if line[0].lower() != b"vary"]
        assert [value for name, value in headers if name.lower() == b"vary"] == [
            b", ".join((*filter(None, varied), b"origin"))
        ]
    assert headers[: len(kept)] == kept
    of_app = {name.lower() for name, _ in kept}
    added = [name for name, _ in headers[len(kept) :]]
    assert len(set(added)) == len(added)
    assert not set(added) & of_app
