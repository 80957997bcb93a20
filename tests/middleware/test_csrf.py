"""The CSRF layer: for apps that know their users by a cookie of their own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard import (
    AuthSettings,
    ConfigError,
    CORSSettings,
    CSRFMiddleware,
    CSRFSettings,
    Guard,
    GuardSettings,
    LogSettings,
    MetricsSettings,
    Route,
    csrf,
)
from asgi_guard.chain.layer import Chain
from asgi_guard.middleware import AccessLogMiddleware, RequestIDMiddleware
from asgi_guard.operations.instruments import METRICS
from asgi_guard.policy.credentials import MAX_COOKIE_BYTES
from asgi_guard.policy.csrf_token import NONCE_BYTES, CSRFTokens
from tests.asgi import Echo, Exchange, call, get, http_scope, websocket_scope
from tests.operations.test_watching import value

if TYPE_CHECKING:
    from asgi_guard.asgi import ASGIApp, Header, Receive, Scope, Send
    from asgi_guard.testing import LocalIssuer

SECRET, NEXT = "s" * 32, "n" * 32
SESSION = (b"cookie", b"theme=dark; sessionid=abc")
SITE = b"sec-fetch-site"
OWN, OTHER, TRUSTED = b"http://testserver", b"https://evil.example", b"https://app.example"
TOKENS: dict[str, Any] = {"session_cookie": "sessionid", "secret": SECRET}


class Pages:
    """An app whose pages hold their token, which is made only if they are asked for one."""

    def __init__(self, asks: int = 1, headers: tuple[Header, ...] = ()) -> None:
        self.tokens: list[str] = []
        self.headers = list(headers)
        self._asks = asks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.tokens = [csrf.token() for _ in range(self._asks)]
        assert set(self.tokens) <= {csrf.token(scope)} if self._asks else True
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        await send({"type": "http.response.body", "body": b"ok"})


async def post(app: ASGIApp, *headers: Header, path: str = "/move", method: str = "POST", **members: Any) -> Exchange:
    return await call(app, http_scope(method, path, headers, **members))


async def token_for(app: ASGIApp, pages: Pages, *headers: Header) -> bytes:
    """The token in a page of the session that these headers name."""
    assert (await get(app, "/page", headers)).status == 200
    return pages.tokens[0].encode()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 200),
        ([(SITE, b"same-origin")], 200), ([(SITE, b"none")], 200), ([(SITE, b"same-origin"), (b"origin", OTHER)], 200),
        ([(SITE, b"cross-site")], 403), ([(SITE, b"same-site")], 403), ([(SITE, b"")], 403), ([(SITE, b"x")], 403),
        ([(SITE, b"cross-site"), (b"origin", OWN)], 403), ([(SITE, b"cross-site"), (b"origin", TRUSTED)], 200),
        ([(b"origin", OWN)], 200), ([(b"origin", TRUSTED)], 200), ([(b"origin", OTHER)], 403),
        ([(b"origin", b"null")], 403), ([(b"origin", b"http://user@testserver")], 403), ([(b"origin", b"")], 403),
        ([(b"origin", b"https://a.shop.example")], 200), ([(b"origin", b"https://shop.example")], 403),
        ([(b"origin", OWN), (b"origin", OWN)], 403), ([(SITE, b"none"), (SITE, b"none")], 403),
        ([(b"origin", OTHER), (b"authorization", b"Bearer x")], 403),
    ],
)  # fmt: skip
@pytest.mark.parametrize("cookie", [(), (SESSION,)])
async def test_what_changes_something(headers: list[Header], status: int, cookie: tuple[Header, ...]) -> None:
    """An unsafe method passes from the app's own pages and trusted origins; a refusal never reaches the app."""
    app = Echo()
    guarded = CSRFMiddleware(app, trusted_origins="https://app.example, https://*.shop.example")
    for method in ("POST", "DELETE", "PATCH"):
        exchange = await post(guarded, *headers, *cookie, method=method)
        assert exchange.status == status
        if status == 403:
            assert exchange.headers["content-type"] == "application/problem+json"
            assert b'"reason":"cross_site"' in exchange.body
    assert len(app.scopes) == (3 if status == 200 else 0)


@pytest.mark.parametrize(("origin", "status"), [(b"http://testserver", 403), (b"https://testserver", 200)])
async def test_pages_of_plain_http(origin: bytes, status: int) -> None:
    """What came over TLS is not the same origin's as a page of plain http, which anyone on the network can write."""
    guarded = CSRFMiddleware(Echo())
    assert (await post(guarded, (b"origin", origin), scheme="https")).status == status
    assert (
        await post(guarded, (b"origin", origin))
    ).status == 200  # TLS may have ended in a proxy that does not say so
    exchange = await call(guarded, websocket_scope(headers=[(b"origin", origin)], scheme="wss"))
    assert (exchange.messages[0]["type"] == "websocket.accept") is (status == 200)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "get"])
async def test_safe_methods_pass(method: str) -> None:
    """What changes nothing is let through from anywhere."""
    exchange = await post(CSRFMiddleware(Echo(), **TOKENS), (b"origin", OTHER), (SITE, b"cross-site"), method=method)
    assert exchange.status == 200


@pytest.mark.parametrize(
    ("headers", "opens"),
    [
        ([], True), ([(b"origin", OWN)], True), ([(b"origin", OTHER)], False), ([(b"origin", b"null")], False),
        ([(b"origin", TRUSTED)], True), ([(SITE, b"cross-site")], False), ([(SITE, b"same-origin")], True),
        ([(b"origin", OWN), SESSION], True), ([(b"origin", OTHER), SESSION], False), ([SESSION], True),
    ],
)  # fmt: skip
async def test_websockets(headers: list[Header], opens: bool) -> None:
    """A handshake is judged by its origin, which every browser tells: no token is asked for, and none helps."""
    app = Echo()
    guarded = CSRFMiddleware(app, trusted_origins=[TRUSTED.decode()], **TOKENS)
    exchange = await call(guarded, websocket_scope(headers=headers))
    assert (exchange.messages[0]["type"] == "websocket.accept") is opens
    if not opens:
        assert exchange.status == 403
        assert app.scopes == []


@pytest.mark.parametrize(
    ("path", "raw_path", "method", "status"),
    [
        ("/hooks/a", None, "POST", 200), ("/hooks/a/b", None, "POST", 200), ("/hooks", None, "POST", 403),
        ("/ping", None, "POST", 200), ("/rows/1", None, "POST", 200), ("/rows/1", None, "PUT", 403),
        ("/rows/1/x", None, "POST", 403), ("/move", None, "POST", 403),
        ("/hooks/../move", None, "POST", 403), ("/hooks//move", None, "POST", 403), ("/hooks/./a", None, "POST", 403),
        ("/hooks/a\\b", None, "POST", 403), ("/hooks/a/b", b"/hooks/a%2fb", "POST", 403),
        ("hooks/a", None, "POST", 403),
    ],
)  # fmt: skip
async def test_exemptions(path: str, raw_path: bytes | None, method: str, status: int) -> None:
    """Paths and rows are exempt as they are written, and none whose path routers could read differently."""
    routes = [Route("/rows/*/x"), Route("/rows/*", methods=("POST",), csrf=False)]
    guarded = CSRFMiddleware(Echo(), exempt="/hooks/*, /ping", routes=routes)
    members = {} if raw_path is None else {"raw_path": raw_path}
    assert (await post(guarded, (b"origin", OTHER), path=path, method=method, **members)).status == status
    mounted = await post(guarded, (b"origin", OTHER), path="/app" + path, method=method, root_path="/app", **members)
    assert mounted.status == (status if path.startswith("/") else 403)


@pytest.mark.parametrize("path", ["/hooks/app/move", "/hooks/app", "/apphooks/a"])
async def test_no_exemption_where_routers_may_read_another_path(path: str) -> None:
    """Below a root path, nothing is exempt that to some router is a path without exemption."""
    guarded = CSRFMiddleware(Echo(), exempt="/hooks/*, /apphooks/*")
    assert (await post(guarded, (b"origin", OTHER), path=path)).status == 200
    assert (await post(guarded, (b"origin", OTHER), path=path, root_path="/app")).status == 403


async def test_exempt_websocket() -> None:
    """A handshake is a GET in the route table."""
    guarded = CSRFMiddleware(Echo(), routes=[Route("/talk", methods=("GET",), csrf=False)])
    for path, opens in (("/talk", True), ("/listen", False)):
        exchange = await call(guarded, websocket_scope(path, [(b"origin", OTHER)]))
        assert (exchange.messages[0]["type"] == "websocket.accept") is opens


async def test_tokens() -> None:
    """Of a browser that says nothing, a request with the session's cookie passes with the token of that session."""
    pages = Pages()
    app = CSRFMiddleware(pages, **TOKENS)
    token = await token_for(app, pages, SESSION)
    forged = token[:-1] + (b"B" if token.endswith(b"A") else b"A")
    assert (await post(app, SESSION, (b"x-csrf-token", token))).status == 200
    for headers, reason in (
        ([SESSION], b"csrf_token_missing"),
        ([SESSION, (b"x-csrf-token", b"")], b"csrf_token_invalid"),
        ([SESSION, (b"x-csrf-token", forged)], b"csrf_token_invalid"),
        ([SESSION, (b"x-csrf-token", token), (b"x-csrf-token", token)], b"csrf_token_invalid"),
        ([(b"cookie", b"sessionid=abd"), (b"x-csrf-token", token)], b"csrf_token_invalid"),
        ([SESSION, (b"cookie", b"sessionid=abd"), (b"x-csrf-token", token)], b"csrf_token_invalid"),
        ([SESSION, (b"cookie", b"x" * MAX_COOKIE_BYTES), (b"x-csrf-token", token)], b"csrf_token_invalid"),
    ):
        exchange = await post(app, *headers)
        assert exchange.status == 403
        assert b'"reason":"%s"' % reason in exchange.body
    for nobody in ((), (b"cookie", b"theme=dark"), (b"cookie", b"sessionid=; a=b")):
        assert (await post(app, *((nobody,) if nobody else ()))).status == 200


async def test_a_token_is_no_leave() -> None:
    """What a browser says counts: from another site no token helps, and from the app's own page none is needed."""
    pages = Pages()
    app = CSRFMiddleware(pages, **TOKENS)
    token = (b"x-csrf-token", await token_for(app, pages, SESSION))
    assert (await post(app, SESSION, token, (SITE, b"cross-site"))).status == 403
    assert (await post(app, SESSION, token, (b"origin", OTHER))).status == 403
    assert (await post(app, SESSION, (SITE, b"same-origin"))).status == 200
    assert (await post(app, SESSION, (b"origin", OWN))).status == 200


async def test_without_a_secret_before_it_none_makes_tokens() -> None:
    """A token that somebody makes with an empty secret is none, and without any secret no cookie is asked for one."""
    made = CSRFTokens([""]).make(b"abc", b"n" * NONCE_BYTES).encode()
    exchange = await post(CSRFMiddleware(Echo(), **TOKENS), SESSION, (b"x-csrf-token", made))
    assert (exchange.status, b'"csrf_token_invalid"' in exchange.body) == (403, True)
    for cookie in (SESSION, (b"cookie", b"=abc")):
        assert (await post(CSRFMiddleware(Echo()), cookie)).status == 200


async def test_rotation() -> None:
    """Pages that were loaded before the secret changed go on to work while the one before it is named."""
    pages = Pages()
    old = (b"x-csrf-token", await token_for(CSRFMiddleware(pages, **TOKENS), pages, SESSION))
    both = CSRFMiddleware(pages, session_cookie="sessionid", secret=NEXT, previous_secret=SECRET)
    assert (await post(both, SESSION, old)).status == 200
    new = (b"x-csrf-token", await token_for(both, pages, SESSION))
    after = CSRFMiddleware(pages, session_cookie="sessionid", secret=NEXT, token_header="X-CSRF-Token")
    assert [(await post(after, SESSION, each)).status for each in (old, new)] == [403, 200]


async def test_tokens_are_made_for_who_asks() -> None:
    """A token is made once a response and only if it is asked for, and such a response varies by the cookie."""
    pages = Pages(asks=2, headers=((b"vary", b"accept-encoding"),))
    app = CSRFMiddleware(pages, **TOKENS)
    first = await get(app, headers=[SESSION])
    one, again = pages.tokens
    assert one == again
    assert first.headers["vary"] == "accept-encoding, cookie"
    await get(app, headers=[SESSION])
    assert pages.tokens[0] != one
    assert (await get(app)).headers["vary"] == "accept-encoding, cookie"
    assert pages.tokens == ["", ""]
    assert (await get(app, headers=[SESSION, (b"cookie", b"sessionid=x")])).status == 200
    assert pages.tokens == ["", ""]
    assert (await get(CSRFMiddleware(Pages(asks=0), **TOKENS), headers=[SESSION])).headers == {}


async def test_a_token_that_is_asked_for_late() -> None:
    """A token that is asked for once the response has begun holds as any other, and goes unsaid in `Vary`."""
    tokens: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        tokens.append(csrf.token().encode())
        await send({"type": "http.response.body", "body": tokens[-1]})

    guarded = CSRFMiddleware(app, **TOKENS)
    assert "vary" not in (await get(guarded, headers=[SESSION])).headers
    assert (await post(guarded, SESSION, (b"x-csrf-token", tokens[0]))).status == 200
    assert (await post(guarded, SESSION)).status == 403


async def test_the_scope_has_the_token_too() -> None:
    """Templates that see the scope find a function there; without a layer there is none, and the token is empty."""
    app = Echo()
    await get(CSRFMiddleware(app, **TOKENS), headers=[SESSION])
    (scope,) = app.scopes
    assert scope[csrf.TOKEN_KEY]() == csrf.token(scope) != ""
    assert csrf.token() == ""
    assert csrf.token({}) == ""
    pages = Pages()
    await get(CSRFMiddleware(pages), headers=[SESSION])
    assert pages.tokens == [""]


async def test_only_logged() -> None:
    """In log mode nothing is refused, and what would be stands in the log line, sampled or not, and in the counts."""
    lines: list[bytes] = []
    app = Echo()
    layer = CSRFMiddleware(app, mode="log", **TOKENS)
    log = AccessLogMiddleware(app, write=lines.append, sample=0)
    chain = Chain(app, [RequestIDMiddleware(app), log, layer])
    for headers in ([(b"origin", OTHER)], [SESSION], [SESSION, (b"x-csrf-token", b"x")], [(b"origin", OWN)]):
        assert (await post(chain, *headers)).status == 200
    said = [re.findall(rb'"asgi_guard.csrf_shadow":"(\w+)"', line) for line in lines]
    assert said == [[b"cross_site"], [b"csrf_token_missing"], [b"csrf_token_invalid"]]
    assert not any(b"asgi_guard.reason" in line for line in lines)
    assert layer.shadowed == {"cross_site": 1, "csrf_token_missing": 1, "csrf_token_invalid": 1}
    assert len(app.scopes) == 4
    session = await call(chain, websocket_scope(headers=[(b"origin", OTHER)]))
    assert session.messages[0]["type"] == "websocket.accept"
    assert b'"asgi_guard.csrf_shadow":"cross_site"' in lines[-1]


async def test_counted() -> None:
    """Metrics tell of what was refused, and of what would have been, each by its reason."""
    assert METRICS["shadow_refusals"].labels == ("layer", "reason")

    def counts() -> list[float]:
        names, reasons = ("refusals_total", "shadow_refusals_total"), ("cross_site", "csrf_token_missing")
        return [value(name, layer="csrf", reason=reason) for name in names for reason in reasons]

    before = counts()
    for mode in ("enforce", "log"):
        section = CSRFSettings.model_validate({"mode": mode, **TOKENS})
        settings = GuardSettings(csrf=section, metrics=MetricsSettings(path="/metrics"), log=LogSettings(format="off"))
        guard = Guard(Echo(), settings)
        for _ in range(2):
            await post(guard, (b"origin", OTHER))
        await post(guard, SESSION)
        await get(guard, "/metrics", client=("127.0.0.1", 1))
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [2, 1, 2, 1]


def guarded(*, credentials: bool = True, app: Any = None, **section: Any) -> Guard:
    """A guard with CORS for one origin, and a CSRF layer."""
    return Guard(
        app or Echo(),
        GuardSettings(
            csrf=CSRFSettings.model_validate({"mode": "enforce", **section}),
            cors=CORSSettings(allow_origins=(TRUSTED.decode(),), allow_credentials=credentials),
            log=LogSettings(format="off"),
        ),
    )


async def test_origins_are_shared_with_cors() -> None:
    """Whom CORS lets send cookies may act with them; whom it does not may not, unless it is said here too."""
    origin = (b"origin", TRUSTED)
    assert (await post(guarded(), origin)).status == 200
    refused = await post(guarded(credentials=False), origin)
    assert refused.status == 403
    assert refused.headers["access-control-allow-origin"] == TRUSTED.decode()
    assert (await post(guarded(credentials=False, trusted_origins=TRUSTED.decode()), origin)).status == 200
    assert (await post(guarded(trusted_origins="https://b.example"), (b"origin", b"https://b.example"))).status == 200
    assert (await post(guarded(trusted_origins="https://b.example"), (b"origin", OTHER))).status == 403
    everyone = GuardSettings(csrf=CSRFSettings(mode="enforce"), cors=CORSSettings(allow_origins=("*",)))
    assert (await post(Guard(Echo(), everyone), origin)).status == 403


async def test_cookie_tokens_go_by_the_same_origins(issuer: LocalIssuer) -> None:
    """Tokens that the guard itself takes from a cookie are for the same pages, in log mode and exempt paths too."""
    for mode in ("enforce", "log"):
        section = CSRFSettings.model_validate({"mode": mode, "trusted_origins": "https://b.example", "exempt": "/move"})
        auth = AuthSettings(issuer=issuer.url, audience=(issuer.audience,), cookie="__Host-token")
        guard = Guard(Echo(), GuardSettings(csrf=section, auth=auth), http_client=issuer.client)
        cookie = (b"cookie", b"__Host-token=" + issuer.token().encode())
        assert (await post(guard, cookie, (b"origin", b"https://b.example"))).status == 200
        assert (await post(guard, cookie, (b"origin", OTHER))).status == 403


async def test_preflights_are_answered_first() -> None:
    """A preflight is CORS's business, whatever comes of the request."""
    headers = [(b"origin", TRUSTED), (b"access-control-request-method", b"POST"), (SITE, b"cross-site")]
    assert (await post(guarded(credentials=False), *headers, method="OPTIONS")).status == 204


def test_off() -> None:
    """Off, there is no layer at all; on, it stands behind CORS."""
    assert "csrf" not in [layer.name for layer in Guard(Echo(), GuardSettings()).layers]
    names = [layer.name for layer in guarded().layers]
    assert names[names.index("cors") + 1] == "csrf"


@pytest.mark.parametrize(
    ("options", "name", "message"),
    [
        ({"secret": "short", "session_cookie": "s"}, "secret", "too short"),
        ({"secret": SECRET, "previous_secret": "short", "session_cookie": "s"}, "previous_secret", "too short"),
        ({"previous_secret": SECRET}, "previous_secret", "no effect"),
        ({"secret": SECRET}, "session_cookie", "name the cookie"),
        ({"session_cookie": "s"}, "secret", "set it"),
        ({"session_cookie": "a b", "secret": SECRET}, "session_cookie", "not a cookie's name"),
        ({"token_header": "sec-token"}, "token_header", "script can set"),
        ({"token_header": "a b"}, "token_header", "script can set"),
        ({"trusted_origins": "null"}, "trusted_origins", "'null'"),
        ({"trusted_origins": "*"}, "trusted_origins", "name the origins"),
        ({"trusted_origins": "app.example"}, "trusted_origins", "not an origin"),
        ({"trusted_origins": "http://app.example"}, "trusted_origins", "use https"),
        ({"trusted_origins": "https://*.github.io"}, "trusted_origins", "too wide"),
        ({"trusted_origins": '["a"'}, "trusted_origins", "neither a list"),
        ({"exempt": "hooks"}, "exempt", "does not start with '/'"),
        ({"exempt": '["a"'}, "exempt", "neither a list"),
        ({"mode": "off"}, "mode", "'off' is none of"),
    ],
)
def test_bad_options(options: dict[str, Any], name: str, message: str) -> None:
    """What cannot be used is refused at construction, by name, and no secret is repeated."""
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        CSRFMiddleware(Echo(), **options)
    assert [problem.name for problem in caught.value.problems] == [name]
    assert SECRET not in str(caught.value)
    assert "short" not in str(caught.value).replace("too short", "")


def test_all_at_once() -> None:
    """Everything that is wrong is told together, by the variable."""
    section = CSRFSettings.model_validate({"mode": "enforce", "secret": "short", "exempt": "x", "trusted_origins": "*"})
    with pytest.raises(ConfigError) as caught:
        Guard(Echo(), GuardSettings(csrf=section))
    names = [problem.name.removeprefix("ASGI_GUARD_CSRF_") for problem in caught.value.problems]
    assert names == ["SECRET", "SESSION_COOKIE", "TRUSTED_ORIGINS", "EXEMPT"]


def test_plain_http_for_those_who_say_so() -> None:
    """An origin that anyone on the network can imitate is trusted only by a name that says so."""
    layer = CSRFMiddleware(Echo(), trusted_origins="http://a.intra", unsafe_insecure_origins=True)
    assert layer.trusts(b"http://a.intra")
    assert not layer.trusts(b"https://a.intra")


words = st.sampled_from([b"", b"null", OWN, OTHER, TRUSTED, b"cross-site", b"same-origin", b"none", b"x"])
lines = st.lists(
    st.tuples(st.sampled_from([SITE, b"origin", b"host", b"cookie", b"x-csrf-token"]), words | st.binary(max_size=70))
    | st.just(SESSION),
    max_size=5,
)


@given(headers=lines, method=st.sampled_from(["POST", "DELETE", "x"]), websocket=st.booleans())
@example(headers=[SESSION, (b"x-csrf-token", b"\xff" * 64)], method="POST", websocket=False)
async def test_no_request_of_another_site_gets_in(headers: list[Header], method: str, websocket: bool) -> None:
    """Whatever else it sends, what a browser marks as another site's does not reach the app, and nothing fails."""
    app = Echo()
    layer = CSRFMiddleware(app, **TOKENS)
    scope = websocket_scope(headers=headers) if websocket else http_scope(method, "/", headers)
    exchange = await call(layer, scope)
    assert exchange.error is None
    sites = [line for name, line in headers if name == SITE]
    if sites and sites != [b"same-origin"] and sites != [b"none"]:
        assert app.scopes == []
    if (b"origin", OTHER) in headers and not sites:
        assert app.scopes == []
    if not websocket and not sites and SESSION in headers and "origin" not in {name.decode() for name, _ in headers}:
        assert app.scopes == []  # no token is right that nobody has made
