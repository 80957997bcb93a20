"""Hostile and broken requests through the whole guard: refused or served, and never an error of the guard's."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asgi_guard import (
    APIKey,
    AuthSettings,
    CORSSettings,
    Guard,
    GuardSettings,
    HostsSettings,
    ProxySettings,
    RateSettings,
    Route,
)
from asgi_guard.middleware import AccessLogMiddleware
from asgi_guard.policy.identity import api_key_digest
from asgi_guard.testing import LocalIssuer
from tests.asgi import Echo, Exchange, call, http_scope, websocket_scope

if TYPE_CHECKING:
    from asgi_guard.asgi import Message, Scope

ISSUER = LocalIssuer(algorithm="EdDSA")
GOOD = [(b"authorization", b"Bearer " + ISSUER.token(scopes=["read"], lifetime=86400).encode())]
KEY = [(b"x-api-key", b"correct horse")]
STATUSES = {101, 200, 204, 308, 400, 401, 403, 429, 503}

SETTINGS = GuardSettings(
    auth=AuthSettings(
        issuer=ISSUER.url,
        audience=(ISSUER.audience,),
        cookie="session",
        api_keys=(APIKey("someone", api_key_digest(b"correct horse")),),
    ),
    rate=RateSettings(limit="1000/second burst 100000 by ip; 5/second by user"),
    cors=CORSSettings(allow_origins=("https://app.example.com", "https://*.example.org"), allow_credentials=True),
    hosts=HostsSettings(allowed=("testserver", "*.example.com")),
    proxy=ProxySettings(trusted=("203.0.113.0/24", "2001:db8::/32")),
    routes=(
        Route("/public/*", auth="none"),
        Route("/maybe", auth="optional"),
        Route("/admin/*", scopes=("admin",)),
        Route("/dear", cost=3),
    ),
)


class Stand:
    """A guarded app, what it was asked, and what was logged."""

    def __init__(self, settings: GuardSettings = SETTINGS) -> None:
        self.app = Echo()
        self.lines: list[bytes] = []
        self.guard = Guard(self.app, settings, http_client=ISSUER.client)
        for layer in self.guard.layers:
            if isinstance(layer, AccessLogMiddleware):
                layer.write = self.lines.append

    async def ask(self, scope: Scope) -> Exchange:
        return await call(self.guard, scope)


SHORT = st.binary(max_size=40)
TEXTS = st.one_of(
    SHORT,
    st.sampled_from(
        [b"\xff\xfe", b"\x00", b"a\r\nb", b"%0a", b"null", b"*", b",", b"=", b'"', b"a" * 9000, b"," * 65536]
    ),
)
NAMED = {
    b"authorization": st.one_of(
        TEXTS,
        st.builds(lambda value: b"Bearer " + value, TEXTS),
        st.builds(lambda value: b"Bearer " + base64.urlsafe_b64encode(value) + b".e30.", SHORT),
        st.sampled_from(
            [GOOD[0][1], GOOD[0][1] + b"=", GOOD[0][1][:-2], b"Bearer " + b"." * 20000, b"Basic x", b"Bearer"]
        ),
    ),
    b"x-api-key": st.one_of(TEXTS, st.just(b"correct horse")),
    b"cookie": st.one_of(TEXTS, st.builds(lambda value: b"session=" + value, TEXTS)),
    b"host": st.one_of(
        TEXTS, st.sampled_from([b"testserver", b"testserver:99999", b"a.example.com", b"user@testserver"])
    ),
    b"origin": st.one_of(TEXTS, st.sampled_from([b"https://app.example.com", b"https://a@b.example.org", b"null"])),
    b"access-control-request-method": st.one_of(TEXTS, st.just(b"PUT")),
    b"access-control-request-headers": st.one_of(TEXTS, st.just(b"authorization")),
    b"x-request-id": TEXTS,
    b"traceparent": st.one_of(TEXTS, st.just(b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01")),
    b"x-forwarded-for": st.one_of(TEXTS, st.sampled_from([b"1.2.3.4, 203.0.113.1", b"::1%x", b"[::1]:99", b"unknown"])),
    b"x-forwarded-proto": st.one_of(TEXTS, st.sampled_from([b"https", b"https,http"])),
    b"sec-fetch-site": st.one_of(TEXTS, st.sampled_from([b"same-origin", b"cross-site"])),
    b"content-length": st.sampled_from([b"0", b"5", b"-1", b"x", b"9" * 30]),
    b"user-agent": TEXTS,
}
HEADERS = st.lists(
    st.sampled_from(sorted(NAMED)).flatmap(lambda name: st.tuples(st.just(name), NAMED[name])), max_size=8
)
ODD_PATHS = """
    / /public/page /public/../admin/x /public//x /public/%2e%2e /admin/x /maybe /dear * //evil.example /public/\\x
    /health/live /health/ready
""".split()  # noqa: SIM905 - paths hold no blanks
PATHS = st.one_of(
    st.sampled_from([*ODD_PATHS, "", "/\ud800", "/a\nb", "/a\x00b", "/" + "a" * 65536]),
    st.text(max_size=20).map(lambda text: "/" + text),
)
MEMBERS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "client": st.sampled_from([None, ("203.0.113.9", 1), ("2001:db8::1", 2), ("not an address", 0), ("", 0)]),
        "scheme": st.sampled_from(["http", "https", ""]),
        "query_string": TEXTS,
        "root_path": st.sampled_from(["", "/public", "/x"]),
        "raw_path": st.one_of(st.none(), TEXTS, st.sampled_from([b"/public%2f..%2fadmin", b"/%", b"/%ff%00"])),
        "http_version": st.sampled_from(["1.0", "1.1", "2", "3"]),
        "state": st.sampled_from([{}, {"pool": 1}]),
        "extensions": st.sampled_from([{}, {"websocket.http.response": {}}]),
    },
)
OPTIONAL = ("asgi", "client", "extensions", "http_version", "query_string", "raw_path", "root_path", "scheme", "server")
LEFT_OUT = st.sets(st.sampled_from(OPTIONAL))
METHODS = st.one_of(st.sampled_from(["GET", "HEAD", "POST", "OPTIONS", "get", "BREW", "PURGE"]), st.text(max_size=8))


def check(stand: Stand, exchange: Exchange, scope: Scope, answered_by_app: bool) -> None:
    assert exchange.error is None
    messages = exchange.messages
    assert len(exchange.starts) <= 1
    assert_ordered(messages)
    if exchange.starts:
        assert exchange.status in STATUSES
    if answered_by_app:
        headers = dict(scope["headers"])
        identified = any(headers.get(name) == value for name, value in (*GOOD, *KEY))
        assert identified or may_be_anonymous(scope["path"], scope.get("root_path", ""))
    assert len(stand.lines) <= 1
    for line in stand.lines:
        assert line.count(b"\n") == 1
        orjson.loads(line)
    if scope["path"] not in ("/health/live", "/health/ready"):
        assert stand.lines


def without(scope: dict[str, Any], left_out: set[str]) -> dict[str, Any]:
    """A scope without some of the members that servers may leave out."""
    return {name: value for name, value in scope.items() if name not in left_out}


def may_be_anonymous(path: str, root_path: str) -> bool:
    below = path[len(root_path) :] if root_path and path.startswith(root_path) else path
    return path.startswith("/public/") or below.startswith("/public/") or "/maybe" in (path, below)


def assert_ordered(messages: list[Message]) -> None:
    """Bodies come after a start, and nothing after the end."""
    kinds = [message["type"] for message in messages]
    allowed = (
        ["http.response.start", "http.response.body"],
        ["websocket.http.response.start", "websocket.http.response.body"],
        ["websocket.close"],
        ["websocket.accept", "websocket.send", "websocket.close"],
    )
    assert kinds in allowed


@given(method=METHODS, path=PATHS, headers=HEADERS, members=MEMBERS, left_out=LEFT_OUT)
@settings(max_examples=300)
@example(method="GET", path="/", headers=[(b"authorization", b"Bearer \xff")], members={}, left_out=set())
@example(method="GET", path="/", headers=GOOD, members={}, left_out=set(OPTIONAL))
@example(method="GET", path="/", headers=GOOD * 2, members={}, left_out=set())
@example(method="GET", path="/", headers=GOOD + KEY, members={}, left_out=set())
@example(
    method="OPTIONS",
    path="/",
    headers=[(b"origin", b"\xff"), (b"access-control-request-method", b"\xff")],
    members={},
    left_out=set(),
)
async def test_any_http_request_is_answered_once(
    method: str, path: str, headers: list[tuple[bytes, bytes]], members: dict[str, Any], left_out: set[str]
) -> None:
    """Whatever a client sends over HTTP gets one answer of a documented status and one line in the log."""
    stand = Stand()
    scope = without(http_scope(method, path, headers, **members), left_out)
    exchange = await stand.ask(scope)
    assert exchange.starts
    check(stand, exchange, scope, bool(stand.app.scopes))


@given(path=PATHS, headers=HEADERS, members=MEMBERS, left_out=LEFT_OUT)
@settings(max_examples=200)
@example(path="/", headers=[(b"origin", b"https://evil.example")], members={"extensions": {}}, left_out=set())
async def test_any_handshake_is_answered_once(
    path: str, headers: list[tuple[bytes, bytes]], members: dict[str, Any], left_out: set[str]
) -> None:
    """Whatever a client sends as a WebSocket handshake is accepted by the app or refused by the guard, once."""
    stand = Stand()
    scope = without(websocket_scope(path, headers, **members), left_out)
    exchange = await stand.ask(scope)
    check(stand, exchange, scope, bool(stand.app.scopes))


@pytest.mark.parametrize("path", ["/", "/admin/x", "/publicx", "/maybe/", "/other\\..\\x"])
async def test_no_credentials_reach_only_what_a_row_opens(path: str) -> None:
    """Without credentials, a path that no row opens is refused."""
    stand = Stand()
    exchange = await stand.ask(http_scope("GET", path))
    assert exchange.status == 401
    assert not stand.app.scopes


@pytest.mark.parametrize("headers", [[], GOOD])
@pytest.mark.parametrize(
    ("path", "raw_path"),
    [
        ("/public/../admin/x", None),
        ("/public//x", None),
        ("/public/./x", None),
        ("/public\\..\\x", None),
        ("//admin/x", None),
        ("/x/../admin/x", None),
        ("\\admin\\x", None),
        ("http://testserver/admin/x", None),
        ("/public/x", b"/public%2Fx"),
        ("/admin/x", b"/admin%2fx"),
    ],
)
async def test_a_path_of_two_rules_is_refused(
    headers: list[tuple[bytes, bytes]], path: str, raw_path: bytes | None
) -> None:
    """A path that some router could read as that of another rule is refused, with good credentials too."""
    stand = Stand()
    scope = http_scope("GET", path, headers, raw_path=raw_path or path.encode())
    exchange = await stand.ask(scope)
    assert exchange.status == 400
    assert orjson.loads(exchange.body)["reason"] == "path_ambiguous"
    assert not stand.app.scopes


@pytest.mark.parametrize("path", ["//x", "/x//y", "/x/../y", "/admin/a//b", "/admin/a/./b"])
async def test_a_doubtful_path_of_one_rule_is_judged_by_it(path: str) -> None:
    """An odd path that every router would serve by the same rule is the app's business."""
    stand = Stand()
    exchange = await stand.ask(http_scope("GET", path, GOOD))
    assert exchange.status == (403 if path.startswith("/admin") else 200)


@pytest.mark.parametrize("headers", [GOOD, KEY])
async def test_good_credentials_reach_the_app(headers: list[tuple[bytes, bytes]]) -> None:
    """The same requests with good credentials are served, so that the refusals above mean something."""
    stand = Stand()
    assert (await stand.ask(http_scope("GET", "/", headers))).status == 200
    assert (await stand.ask(http_scope("GET", "/admin/x", headers))).status == 403


@given(value=st.binary(max_size=200))
@settings(max_examples=300)
async def test_no_bytes_are_good_credentials(value: bytes) -> None:
    """No header value but the right one is let in."""
    stand = Stand()
    headers = [(b"authorization", b"Bearer " + value), (b"x-api-key", value), (b"cookie", b"session=" + value)]
    for header in headers:
        exchange = await stand.ask(http_scope("GET", "/", [header]))
        assert exchange.status in (400, 401, 403)
    assert not stand.app.scopes
