"""The CORS layer: preflights, responses, and the origins of WebSockets."""

from __future__ import annotations

import gc
import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from asgi_guard import ConfigError, CORSMiddleware, RequestIDMiddleware
from asgi_guard.chain.exchange import Exchange
from asgi_guard.middleware.cors import MAX_REMEMBERED
from asgi_guard.policy.answer import Answer
from tests.asgi import Echo, call, get, http_scope, websocket_scope

if TYPE_CHECKING:
    from asgi_guard.asgi import Header, Receive, Scope, Send

PAGE = b"https://app.example"
ORIGIN = (b"origin", PAGE)
ASKED = (b"access-control-request-method", b"PUT")


def layer(app: Any = None, **options: Any) -> CORSMiddleware:
    return CORSMiddleware(app or Echo(), **{"allow_origins": [PAGE.decode()], "allow_methods": "PUT", **options})


def cors_headers(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.startswith("access-control-") or name == "vary"}


async def test_preflight() -> None:
    """An allowed preflight is answered by 204 with what was asked for, and the app is not asked."""
    app = Echo()
    guarded = layer(app, allow_headers="x-a, x-b", allow_credentials=True, max_age=600)
    headers = [ORIGIN, ASKED, (b"access-control-request-headers", b"x-a")]
    exchange = await call(guarded, http_scope("OPTIONS", headers=headers))
    assert (exchange.status, exchange.body) == (204, b"")
    assert exchange.headers == {
        "access-control-allow-origin": PAGE.decode(),
        "access-control-allow-credentials": "true",
        "access-control-max-age": "600",
        "access-control-allow-methods": "PUT",
        "access-control-allow-headers": "x-a",
        "vary": "access-control-request-headers, access-control-request-method, origin",
    }
    assert app.scopes == []


@pytest.mark.parametrize(
    "headers",
    [
        [(b"origin", b"https://evil.example"), ASKED],
        [ORIGIN, (b"access-control-request-method", b"DELETE")],
        [ORIGIN, ASKED, (b"access-control-request-headers", b"x-c")],
        [ORIGIN, ORIGIN, ASKED],
        [ORIGIN, ASKED, ASKED],
        [(b"origin", b"\xff"), ASKED],
    ],
)
async def test_refused_preflight(headers: list[Header]) -> None:
    """A refused preflight is 403, tells nothing of the configuration, and does not reach the app.

    So it is after one that was allowed, whose answer is remembered.
    """
    app = Echo()
    guarded = layer(app)
    assert (await call(guarded, http_scope("OPTIONS", headers=[ORIGIN, ASKED]))).status == 204
    exchange = await call(guarded, http_scope("OPTIONS", headers=headers))
    assert exchange.status == 403
    assert b'"reason":"preflight_refused"' in exchange.body
    assert cors_headers(exchange.headers) == {"vary": "origin"}
    assert app.scopes == []


@pytest.mark.parametrize("credentials", [False, True])
async def test_an_apps_word_on_credentials(credentials: bool) -> None:
    """What an app says of credentials for origins of its own does not hold for one that the guard lets in."""
    app = Echo(headers=[(b"Access-Control-Allow-Credentials", b"true"), (b"x-other", b"stays")])
    exchange = await get(layer(app, allow_credentials=credentials), headers=[ORIGIN])
    said = [line for line in exchange.starts[0]["headers"] if line[0].lower().endswith(b"credentials")]
    assert len(said) == credentials
    assert exchange.headers["x-other"] == "stays"
    apps = Echo(headers=[(b"access-control-allow-origin", PAGE), (b"access-control-allow-credentials", b"true")])
    assert (await get(layer(apps), headers=[ORIGIN])).headers["access-control-allow-credentials"] == "true"


@pytest.mark.parametrize(
    ("method", "headers"),
    [("OPTIONS", []), ("OPTIONS", [ORIGIN]), ("OPTIONS", [ASKED]), ("GET", [ORIGIN, ASKED]), ("PUT", [ORIGIN, ASKED])],
)
async def test_what_is_no_preflight(method: str, headers: list[Header]) -> None:
    """OPTIONS without the marks of a preflight is the app's, and so is any other method with them."""
    app = Echo()
    await call(layer(app), http_scope(method, headers=headers))
    assert len(app.scopes) == 1


@pytest.mark.parametrize(
    ("headers", "options", "expected"),
    [
        ([ORIGIN], {}, {"access-control-allow-origin": PAGE.decode(), "vary": "origin"}),
        (
            [ORIGIN],
            {"allow_credentials": True, "expose_headers": "x-a"},
            {
                "access-control-allow-origin": PAGE.decode(),
                "access-control-allow-credentials": "true",
                "access-control-expose-headers": "x-a",
                "vary": "origin",
            },
        ),
        ([(b"origin", b"https://evil.example")], {}, {"vary": "origin"}),
        ([(b"origin", b"https://app.exampl")], {"allow_origins": PAGE.decode()}, {"vary": "origin"}),
        (
            [(b"origin", b"https://a.app.example")],
            {"allow_origins": "https://*.app.example"},
            {"access-control-allow-origin": "https://a.app.example", "vary": "origin"},
        ),
        ([ORIGIN, ORIGIN], {}, {"vary": "origin"}),
        ([], {}, {"vary": "origin"}),
        ([ORIGIN], {"allow_origins": "*"}, {"access-control-allow-origin": "*"}),
        ([], {"allow_origins": "*"}, {"access-control-allow-origin": "*"}),
    ],
)
async def test_response(headers: list[Header], options: dict[str, Any], expected: dict[str, str]) -> None:
    """A response tells an allowed origin that it may read it, and a cache that the origin matters."""
    assert cors_headers((await get(layer(**options), headers=headers)).headers) == expected


async def test_the_apps_own() -> None:
    """Where the app answers for itself, its answer stands, and `Vary` is not said twice."""
    own = [(b"Access-Control-Allow-Origin", b"https://other.example"), (b"Vary", b"Accept, Origin")]
    exchange = await get(layer(Echo(headers=own)), headers=[ORIGIN])
    assert exchange.starts[0]["headers"] == own


@pytest.mark.parametrize("origin", [[ORIGIN], [(b"origin", b"https://evil.example")], []])
async def test_what_the_apps_answer_varies_by(origin: list[Header]) -> None:
    """`Vary` is one line with all that the answer depends on: of several, some caches heed one."""
    own = [(b"Vary", b"Cookie"), (b"vary", b"Accept-Encoding")]
    exchange = await get(layer(Echo(headers=own)), headers=origin)
    lines = [value for name, value in exchange.starts[0]["headers"] if name.lower() == b"vary"]
    assert lines == [b"Cookie, Accept-Encoding, origin"]


async def test_unhandled_exception() -> None:
    """A page may read the response to an unhandled exception."""

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError

    exchange = await get(layer(broken), headers=[ORIGIN])
    assert exchange.status == 500
    assert exchange.headers["access-control-allow-origin"] == PAGE.decode()


@pytest.mark.parametrize(
    "origins",
    [[], [PAGE], [b"http://testserver"], [b"https://TESTSERVER"]],
)
async def test_handshake(origins: list[bytes]) -> None:
    """A WebSocket of an allowed origin, of the server's own, or of no browser is accepted."""
    exchange = await call(layer(), websocket_scope(headers=[(b"origin", origin) for origin in origins]))
    assert exchange.messages[0]["type"] == "websocket.accept"


@pytest.mark.parametrize(("origin", "opens"), [(b"http://testserver", False), (b"https://testserver", True)])
async def test_handshake_over_tls(origin: bytes, opens: bool) -> None:
    """A page of plain http, which anyone on the network can write, is none of the server's own over TLS."""
    exchange = await call(layer(), websocket_scope(headers=[(b"origin", origin)], scheme="wss"))
    assert (exchange.messages[0]["type"] == "websocket.accept") is opens


FOREIGN = [[b"https://evil.example"], [b"null"], [PAGE, PAGE], [b""], [b"https://testserver:8000"]]


@pytest.mark.parametrize("origins", FOREIGN)
async def test_refused_handshake(origins: list[bytes]) -> None:
    """A WebSocket of any other origin is denied with 403."""
    app = Echo()
    exchange = await call(layer(app), websocket_scope(headers=[(b"origin", origin) for origin in origins]))
    assert exchange.status == 403
    assert b"origin_not_allowed" in exchange.body
    assert app.scopes == []


async def test_refused_handshake_without_denial_responses() -> None:
    """Where the server offers no denial response, it is closed before it is accepted."""
    exchange = await call(layer(), websocket_scope(headers=[(b"origin", b"null")], extensions={}))
    assert exchange.messages == [{"type": "websocket.close", "code": 1008, "reason": "origin_not_allowed"}]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"allow_origins": []}, {"allow_origins"}),
        ({"allow_origins": "https://a.example/"}, {"allow_origins"}),
        ({"allow_origins": '["https://a.example"'}, {"allow_origins"}),
        ({"allow_origins": "*", "allow_credentials": True}, {"allow_origins"}),
        ({"allow_methods": "CONNECT", "allow_headers": "cookie", "max_age": 86401},
         {"allow_methods", "allow_headers", "max_age"}),
        ({"expose_headers": "a b"}, {"expose_headers"}),
        ({"allow_methods": "[PUT]", "allow_headers": "[x]", "expose_headers": "[x]"},
         {"allow_methods", "allow_headers", "expose_headers"}),
    ],
)  # fmt: skip
def test_bad_options(options: dict[str, Any], names: set[str]) -> None:
    """All that is wrong is refused at construction, together and by name."""
    with pytest.raises(ConfigError) as caught:
        layer(**options)
    assert {problem.name for problem in caught.value.problems} == names


async def test_status_of_preflights() -> None:
    """An allowed preflight has the status that was chosen, and a refused one does not."""
    headers = [ORIGIN, ASKED]
    assert (await call(layer(preflight_status=200), http_scope("OPTIONS", headers=headers))).status == 200
    refused = [(b"origin", b"https://evil.example"), ASKED]
    assert (await call(layer(preflight_status=200), http_scope("OPTIONS", headers=refused))).status == 403


@pytest.mark.parametrize(("on", "asked", "told"), [(True, b"true", True), (True, b"1", False), (False, b"true", False)])
async def test_private_networks(on: bool, asked: bytes, told: bool) -> None:
    """A preflight that asks for a private network is answered only where that was turned on."""
    headers = [ORIGIN, ASKED, (b"access-control-request-private-network", asked)]
    exchange = await call(layer(unsafe_private_network=on), http_scope("OPTIONS", headers=headers))
    assert exchange.status == 204
    assert ("access-control-allow-private-network" in exchange.headers) is told


@pytest.mark.parametrize(
    ("host", "origin", "opens"),
    [
        (b"x.example:443", b"https://x.example", True),
        (b"x.example:443", b"http://x.example", False),
        (b"x.example", b"http://x.example:443", False),
        (b"x.example:443", b"https://y.example", False),
    ],
)
async def test_a_host_with_the_default_port(host: bytes, origin: bytes, opens: bool) -> None:
    """The app's own page opens a WebSocket too where a proxy writes the port of https into `Host`."""
    scope = {**websocket_scope(), "headers": [(b"host", host), (b"origin", origin)]}
    exchange = await call(layer(), scope)
    assert (exchange.messages[0]["type"] == "websocket.accept") is opens


async def test_debugging() -> None:
    """With debugging on, an allowed origin is told what is allowed; a stranger never is."""
    guarded = layer(allow_headers="x-a, x-b", allow_credentials=True, unsafe_debug=True)
    asked = (b"access-control-request-headers", b"x-c")
    exchange = await call(guarded, http_scope("OPTIONS", headers=[ORIGIN, ASKED, asked]))
    assert exchange.status == 204
    assert exchange.headers["access-control-allow-headers"] == "x-a,x-b"
    exchange = await call(guarded, http_scope("OPTIONS", headers=[ORIGIN, (b"access-control-request-method", b"X")]))
    assert "access-control-allow-methods" not in exchange.headers
    exchange = await call(guarded, http_scope("OPTIONS", headers=[(b"origin", b"https://evil.example"), ASKED, asked]))
    assert exchange.status == 403
    assert not [name for name in exchange.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("credentials", [False, True])
async def test_debugging_a_method(credentials: bool) -> None:
    """Where a method is refused, an allowed origin is told whether cookies are what failed."""
    guarded = layer(allow_headers="x-a", allow_credentials=credentials, unsafe_debug=True)
    exchange = await call(guarded, http_scope("OPTIONS", headers=[ORIGIN, (b"access-control-request-method", b"X")]))
    assert exchange.status == 204
    assert exchange.headers.get("access-control-allow-credentials") == ("true" if credentials else None)
    assert exchange.headers["access-control-allow-origin"] == PAGE.decode()
    assert "access-control-allow-headers" not in exchange.headers


async def test_refused_preflights_are_told_apart() -> None:
    """A refusal names the request that it refuses, also where the same was refused before."""
    guarded = RequestIDMiddleware(layer())
    headers = [(b"origin", b"https://evil.example"), ASKED]
    for _ in range(2):
        exchange = await call(guarded, http_scope("OPTIONS", headers=headers))
        assert json.loads(exchange.body)["request_id"] == exchange.headers["x-request-id"]


async def test_no_more_answers_are_kept_than_pages_ask_for() -> None:
    """Whoever asks for ever other methods makes this process remember no more of them than its bound."""

    def answers() -> int:
        gc.collect()
        return sum(type(each) is Answer for each in gc.get_objects())

    guarded, before = layer(allow_methods="*"), answers()
    for each in range(2 * MAX_REMEMBERED):
        headers = [ORIGIN, (b"access-control-request-method", b"X%d" % each)]
        assert (await call(guarded, http_scope("OPTIONS", headers=headers))).status == 204
    assert answers() - before <= MAX_REMEMBERED + 1


async def test_no_long_origin_is_kept() -> None:
    """Where all origins are allowed, whoever names long ones does not have this process keep them."""
    guarded = layer(allow_origins="*")
    for each in range(4):
        tracemalloc.start()
        headers = [(b"origin", b"https://%d." % each + b"x" * 100_000), ASKED]
        assert (await call(guarded, http_scope("OPTIONS", headers=headers))).status == 204
        del headers
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert kept < 100_000


async def test_strangers_do_not_fill_the_memory() -> None:
    """Pages that come once others have asked for what is never asked again are remembered like the first."""
    guarded = layer(allow_methods="*")
    for each in range(MAX_REMEMBERED + 1):
        await call(guarded, http_scope("OPTIONS", headers=[ORIGIN, (ASKED[0], b"X%d" % each)]))
    asked = Exchange(http_scope("OPTIONS", headers=[ORIGIN, ASKED]))
    assert guarded.decide(asked) is guarded.decide(asked)


async def test_preflights_that_are_asked_again() -> None:
    """An answer is the same when it is asked for again, whatever else was asked in between, and is never another's."""
    options = {"allow_headers": "*", "allow_methods": "*", "unsafe_private_network": True}
    guarded = layer(**options)
    wanted = [[ORIGIN, (b"access-control-request-method", b"X%d" % each)] for each in range(MAX_REMEMBERED + 2)]
    wanted += [[*wanted[0], (b"access-control-request-headers", each)] for each in (b"x-a", b"x-b", b"x" * 300)]
    wanted += [[*wanted[0], (b"access-control-request-private-network", each)] for each in (b"true", b"1")]
    wanted.append([(b"origin", b"https://evil.example"), ASKED])
    first = [(await call(guarded, http_scope("OPTIONS", headers=each))).starts[0] for each in wanted]
    fresh = [(await call(layer(**options), http_scope("OPTIONS", headers=each))).starts[0] for each in wanted]
    again = [(await call(guarded, http_scope("OPTIONS", headers=each))).starts[0] for each in wanted]
    assert first == again == fresh


async def test_long_preflights_are_not_remembered() -> None:
    """What a client makes long, the method or the headers that it asks for, takes no memory once it is answered."""
    guarded = layer(allow_origins="https://*.example.com", allow_headers="*", allow_methods="*", allow_credentials=True)
    origin, long = (b"origin", b"https://a.example.com"), b"x" * 300
    asked = [
        [origin, (ASKED[0], b"PUT"), (b"access-control-request-headers", long)],
        [origin, (ASKED[0], long)],
        [(b"origin", b"https://%b.example.com" % b".".join([b"a" * 60] * 4)), ASKED],
    ]
    for headers in asked:
        found = Exchange(http_scope("OPTIONS", headers=headers))
        answer = guarded.decide(found)
        assert isinstance(answer, Answer)
        assert answer.status == 204
        assert guarded.decide(found) is not answer


async def test_an_app_that_lets_everyone_read() -> None:
    """An app that says itself who may read is left alone; where everyone may, no `Vary` is added either."""
    app = Echo(headers=[(b"access-control-allow-origin", b"https://b.example")])
    exchange = await get(layer(app, allow_origins="*"), headers=[ORIGIN])
    assert cors_headers(exchange.headers) == {"access-control-allow-origin": "https://b.example"}


async def test_dangerous_options_are_off() -> None:
    """What is unsafe has to be asked for: http origins with cookies, names that anyone registers, private networks."""
    for origin, option in (("http://a.example", "insecure_origins"), ("https://*.github.io", "public_suffixes")):
        with pytest.raises(ConfigError, match="allow_origins"):
            CORSMiddleware(Echo(), allow_origins=origin, allow_credentials=True)
        layer(allow_origins=origin, allow_credentials=True, **{f"unsafe_{option}": True})
    headers = [ORIGIN, ASKED, (b"access-control-request-private-network", b"true")]
    exchange = await call(layer(), http_scope("OPTIONS", headers=headers))
    assert (exchange.status, "access-control-allow-private-network" in exchange.headers) == (204, False)
