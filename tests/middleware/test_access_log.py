"""The AccessLog layer: one JSON line an exchange, whatever comes of it."""

from __future__ import annotations

import asyncio
import json
import logging
import select
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from fastapi import FastAPI
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Mount

from asgi_guard import (
    AccessLogMiddleware,
    APIKey,
    ConfigError,
    HostMiddleware,
    IdentityMiddleware,
    ProxyMiddleware,
    RateLimitMiddleware,
    RequestIDMiddleware,
)
from asgi_guard import Route as Row
from asgi_guard.chain.layer import Layer
from asgi_guard.policy.identity import User, api_key_digest
from asgi_guard.policy.trace_context import Trace
from tests.asgi import Echo, call, get, http_scope, websocket_scope
from tests.middleware.log_lines import Lines

if TYPE_CHECKING:
    from asgi_guard.asgi import Receive, Scope, Send
    from asgi_guard.chain.exchange import Exchange as Current


async def test_line(lines: Lines) -> None:
    """The line tells what was asked and answered, with query values redacted."""
    headers = [(b"user-agent", b"curl/8"), (b"authorization", b"Bearer secret")]
    await get(lines.layer(Echo()), "/a", headers, query_string=b"token=secret&page=2")
    record = lines.record
    assert record.pop("timestamp").endswith("Z")
    assert record.pop("duration_ms") >= 0
    assert record == {
        "severity": "INFO",
        "message": "GET /a 200",
        "http.request.method": "GET",
        "url.scheme": "http",
        "url.path": "/a",
        "url.query": "token=[REDACTED]&page=[REDACTED]",
        "http.response.status_code": 200,
        "http.response.body.size": 2,
        "network.protocol.version": "1.1",
        "client.address": "203.0.113.9",
        "network.peer.address": "203.0.113.9",
        "user_agent.original": "curl/8",
    }


async def test_no_body_for_head(lines: Lines) -> None:
    """The body that an app gives for a HEAD request goes nowhere, and so is not counted."""
    await call(lines.layer(Echo()), http_scope("HEAD"))
    assert lines.record["http.response.body.size"] == 0


async def test_sparse_scope(lines: Lines) -> None:
    """Members that a scope may leave out may be missing."""
    scope = {name: http_scope()[name] for name in ("type", "method", "path", "headers")}
    await call(lines.layer(Echo()), scope)
    assert lines.record["http.response.status_code"] == 200
    assert "client.address" not in lines.record


@pytest.mark.parametrize("schema", ["json", "ecs", "gcp", "datadog"])
async def test_a_client_without_a_name(schema: Any, lines: Lines) -> None:
    """A client that its server names by an empty text, as granian does over a UNIX socket, is one without a name."""
    await get(lines.layer(RequestIDMiddleware(Echo()), format=schema), client=("", 0))
    assert '""' not in lines[0].decode()


@pytest.mark.parametrize("path", ["/a\n{}", "/a\r\n", "/\x1b[31m", "/\x00", "/\u2028", '/"', "/" + "x" * 100_000])
async def test_forged(path: str, lines: Lines) -> None:
    """No path makes two lines of one, or an endless one."""
    await get(lines.layer(Echo()), path)
    assert lines.record["url.path"] == (path if len(path) < 2048 else path[:512])


@pytest.mark.parametrize("more", [0, 9000])
@pytest.mark.parametrize("hidden", ["\x9b1A\x9b2K", "\u202edeb", "\u2066", "\x85"])
async def test_a_line_holds_nothing_that_a_terminal_heeds(hidden: str, more: int, lines: Lines) -> None:
    """Control characters, and those that turn text around, are escaped, and are read as what was sent, if cut."""
    path = f"/\u00e9{hidden}" + "x" * more
    await get(lines.layer(Echo()), path, [(b"user-agent", hidden.encode())], query_string=hidden.encode())
    assert not set(hidden) & set(lines[0].decode()) - set("1A2Kdeb")
    assert lines.record["url.path"] == path[:512]


async def test_a_long_address_is_cut(lines: Lines) -> None:
    """What a server has put in the client's place, of any length, makes no line that is longer than a pipe takes."""
    await get(lines.layer(Echo()), client=("a" * 9000 + ", 1.2.3.4", 0))
    assert len(lines[0]) <= select.PIPE_BUF
    assert lines.record["client.address"] == "a" * 512


HARD = ["a", "\x01", '"', "\u2028", "\x85", "\U0001f600", "\ud800"]


@pytest.mark.parametrize("schema", ["json", "ecs", "gcp", "datadog"])
@pytest.mark.parametrize("hard", HARD, ids=ascii)
async def test_a_pipe_takes_a_line_whole(schema: Any, hard: str, lines: Lines) -> None:
    """However long what a client sends is in JSON, a line is no longer than what a pipe takes at once, nor a blank."""

    class Known(Layer):
        name = "identity"

        def enter(self, exchange: Current) -> None:
            exchange.user, exchange.request_id = User(hard * 3000), "r" * 200
            exchange.trace = Trace("1" * 32, "2" * 16, 1)

    raw = hard.encode("utf-8", "surrogatepass")
    headers = [(b"user-agent", raw * 3000), (b"host", raw * 3000)]
    for query in (b"a&" * 3000, b"&".join([raw + b"=1"] * 3000), b"%01=1&" * 3000):
        lines.clear()
        layer = lines.layer(Known(Echo()), format=schema)
        await get(layer, "/" + hard * 3000, headers, query_string=query)
        (line,) = lines
        assert 500 < len(line) <= select.PIPE_BUF
        assert json.loads(line)["message"].startswith("GET /")


async def test_what_fits_is_not_cut(lines: Lines) -> None:
    """A path is there as a whole where the line has room for it."""
    await get(lines.layer(Echo()), "/" + "x" * 1700)
    assert lines.record["url.path"] == "/" + "x" * 1700


async def test_a_line_that_just_fits(lines: Lines) -> None:
    """A line as long as a pipe takes at once is whole, and one that is a little longer is cut, and not written so."""
    layer = lines.layer(Echo())
    for more in range(1800, 2000):
        await get(layer, "/" + "x" * 950, headers=[(b"user-agent", b"y" * more)])
    written = [len(line) for line in lines]
    assert written[-1] < written[0] < select.PIPE_BUF - 5 < max(written) <= select.PIPE_BUF


async def test_lone_surrogates(lines: Lines) -> None:
    """What has no encoding is replaced in the line."""
    await call(lines.layer(Echo()), http_scope("G\ud800T", "/a\udcff", client=("\udcff", 1)))
    assert lines.record["url.path"] == "/a?"


async def test_quiet(lines: Lines) -> None:
    """The success of a quiet path is not logged, below a root path too; its failure is."""
    quiet = ["/health/live"]
    await get(lines.layer(Echo(), quiet=quiet), "/health/live")
    await get(lines.layer(Echo(), quiet=quiet), "/api/health/live", root_path="/api")
    assert lines == []
    for status in (400, 503):
        lines.clear()
        await get(lines.layer(Echo(status=status), quiet=quiet), "/health/live")
        assert lines.record["http.response.status_code"] == status


@pytest.mark.parametrize(
    "scope",
    [
        http_scope("POST", "/health/live"),
        websocket_scope("/health/live"),
        http_scope("GET", "/api/health/live"),
        http_scope("GET", "/health/live/"),
    ],
)
async def test_what_is_no_probe_is_not_quiet(lines: Lines, scope: Scope) -> None:
    """What only looks like a quiet path is logged: another method, a WebSocket, a longer path."""
    await call(lines.layer(Echo(), quiet="/health/live"), scope)
    assert lines.record["url.path"] == scope["path"]


def test_an_unknown_format() -> None:
    """A schema that there is not is refused, with those that there are."""
    with pytest.raises(ConfigError, match=r"format: .*ecs.*gcp"):
        AccessLogMiddleware(Echo(), format="xml")  # type: ignore[arg-type]  # which is what is tested


@pytest.mark.parametrize(("schema", "hosts"), [("json", 0), ("ecs", 0), ("gcp", 1), ("datadog", 0)])
async def test_which_headers_are_logged(schema: Any, hosts: int, lines: Lines) -> None:
    """Of a request's headers the line has the user agent and, in Google Cloud's schema, the host: no other one."""
    others = ("cookie", "authorization", "referer", "origin", "x-forwarded-for", "x-api-key", "content-type", "accept")
    headers = [(name.encode(), b"hidden") for name in others]
    await get(lines.layer(Echo(), format=schema), "/a", [*headers, (b"user-agent", b"shown"), (b"host", b"at.example")])
    (line,) = lines
    assert (line.count(b"hidden"), line.count(b"shown"), line.count(b"at.example")) == (0, 1, hosts)


@pytest.mark.parametrize("schema", ["json", "ecs", "gcp", "datadog"])
@pytest.mark.parametrize(
    "path", ["http://alice:s3cr3t@at.example/a", "HTTPS://s3cr3t@at.example/a", "x://a:s3/cr3t@b/a"]
)
async def test_a_login_in_an_address(schema: Any, path: str, lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    """Of a whole address in the path's place, which servers hand on as it is, the login is neither logged nor told."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["path"] == path
        raise LookupError

    await get(lines.layer(app, format=schema), path, [(b"host", b"alice:s3cr3t@at.example")])
    for told in (lines[0].decode(), caplog.text):
        assert path.partition("://")[0] + "://[REDACTED]@" in told
        assert "s3" not in told


@pytest.mark.parametrize(("root_path", "shown"), [("/api", "/api"), ("/api/", "/api/"), ("/other", "")])
async def test_a_login_behind_a_root_path(root_path: str, shown: str, lines: Lines) -> None:
    """Nor is one where the server has put the root path before the address, as uvicorn does."""
    path = shown + "http://alice:s3cr3t@at.example/a"
    await call(lines.layer(Echo()), http_scope("GET", path, root_path=root_path))
    assert lines.record["url.path"] == shown + "http://[REDACTED]@at.example/a"


@pytest.mark.parametrize("path", ["*", "at.example:443", "//a:b@c/d", "/http://a:b@c", "http://at.example/a", ""])
async def test_a_path_without_a_login(path: str, lines: Lines) -> None:
    """What stands in the path's place is logged as it is otherwise."""
    await get(lines.layer(Echo()), path)
    assert lines.record["url.path"] == path


async def test_gcp_without_a_host(lines: Lines) -> None:
    """A request that names no host has its line in Google Cloud's schema, too: HTTP/1.0 asks for none."""
    await call(lines.layer(Echo(), format="gcp"), {**http_scope(path="/a"), "headers": []})
    assert lines.record["httpRequest"]["requestUrl"] == "http:///a"


async def test_sample(lines: Lines) -> None:
    """What is sampled away is not logged, unless it was refused or only would have been, failed, or was slow."""
    await get(lines.layer(Echo(), sample=0))
    assert lines == []
    await get(lines.layer(HostMiddleware(Echo(), allowed="a.example"), sample=0))
    await get(lines.layer(Echo(status=502), sample=0))
    await get(lines.layer(Echo(), sample=0, slow_ms=1e-6))
    records = [json.loads(line) for line in lines]
    assert [record["http.response.status_code"] for record in records] == [400, 502, 200]
    assert records[-1]["asgi_guard.slow"] is True

    async def streams(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})

    lines.clear()
    await get(lines.layer(streams, sample=0))
    assert lines == []

    limited = lines.layer(RateLimitMiddleware(Echo(), limit="1/hour by ip", shadow=True), sample=0)
    for _ in range(3):
        await get(limited)
    assert [json.loads(line)["asgi_guard.limit_shadow"] for line in lines] == ["ip", "ip"]


async def test_version_of_http(lines: Lines) -> None:
    """The version is the one that the server says, and 1.1 where it says none, as ASGI has it."""
    for said in ("2", "1.0", ""):
        await get(lines.layer(Echo()), http_version=said)
    records = [json.loads(line) for line in lines]
    assert [record["network.protocol.version"] for record in records] == ["2", "1.0", "1.1"]


@pytest.mark.parametrize("quiet", ["/health/live", ["/health/live"]])
async def test_one_quiet_path(lines: Lines, quiet: str | list[str]) -> None:
    """A path by itself is one path, and no list of its letters."""
    layer = lines.layer(Echo(), quiet=quiet)
    await get(layer, "/health/live")
    assert lines == []
    await get(layer, "/")
    assert lines.record["url.path"] == "/"


@pytest.mark.parametrize("sample", [-0.1, 1.1, 10, float("nan")])
def test_a_share_that_is_none(sample: Any) -> None:
    """A share of exchanges is a number from 0 to 1."""
    with pytest.raises(ConfigError, match="is no share from 0 to 1"):
        AccessLogMiddleware(Echo(), sample=sample)


async def test_sampling_by_trace(lines: Lines) -> None:
    """All of one trace is logged, or none of it."""
    app = RequestIDMiddleware(lines.layer(Echo(), sample=0.5))
    for trace in range(1, 65):
        parent = b"00-%032x-%016x-01" % (trace * 0x9E3779B97F4A7C15, 1)
        before = len(lines)
        for _ in range(3):
            await get(app, headers=[(b"traceparent", parent)])
        assert len(lines) - before in (0, 3)
    assert 0 < len(lines) < 64 * 3


async def test_trace(lines: Lines) -> None:
    """The caller's trace and the request's id stand in the line."""
    parent = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"
    await get(lines.layer(RequestIDMiddleware(Echo())), headers=[(b"traceparent", parent), (b"x-request-id", b"r1")])
    record = lines.record
    assert (record["trace_id"], record["span_id"], record["request_id"]) == ("a" * 32, "b" * 16, "r1")


async def test_routes(lines: Lines) -> None:
    """The route is the app's own pattern, where its router leaves one, or the route table's, and never the raw path."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith("/users"):
            scope["route"] = SimpleNamespace(path="/users/{id}")
        elif scope["path"].startswith("/items"):
            scope["route"] = "items"  # which no router means as a pattern
        await Echo()(scope, receive, send)

    for wrapped in (app, RequestIDMiddleware(app)):
        layer = lines.layer(wrapped, routes=[Row("/users/*"), Row("/items/*")])
        for path in ("/users/1", "/items/1", "/other/1"):
            await get(layer, path)
        records = [json.loads(line) for line in lines]
        assert [record.get("http.route") for record in records] == ["/users/{id}", "/items/*", None]
        lines.clear()


async def test_route_of_a_mounted_app(lines: Lines) -> None:
    """The route is that of the app that answers, as a layer around it saw it, and not the mount that led there."""
    mounted = FastAPI()

    @mounted.get("/items/{item}")
    async def item(item: str) -> str:
        return item

    outer = Starlette(routes=[Mount("/shop", RequestIDMiddleware(mounted))])
    assert (await get(lines.layer(outer), "/shop/items/1")).status == 200
    assert lines.record["http.route"] == "/items/{item}"


async def test_limits(lines: Lines) -> None:
    """A refusal by a limit names the limit; in shadow, what would have been refused is told."""
    for shadow, status in ((False, 429), (True, 200)):
        layer = lines.layer(RateLimitMiddleware(Echo(), limit="1/hour by ip", shadow=shadow))
        await get(layer)
        lines.clear()
        await get(layer)
        record = lines.record
        assert (record["http.response.status_code"], record["severity"]) == (status, "INFO")
        assert record.get("asgi_guard.reason") == (None if shadow else "rate_limited")
        assert record.get("asgi_guard.refused_by") == (None if shadow else "rate_limit")
        assert record["asgi_guard.limit_shadow" if shadow else "asgi_guard.limit"] == "ip"
        assert ("asgi_guard.limit" in record) is not shadow


async def test_why_credentials_led_to_nobody(lines: Lines) -> None:
    """Where nobody refuses them, as without an Access layer, the line tells all the same what was wrong with them."""
    identity = IdentityMiddleware(Echo(), api_keys=[APIKey("robot", api_key_digest(b"k"))])
    await get(lines.layer(identity), headers=[(b"x-api-key", b"another")])
    record = lines.record
    assert (record["http.response.status_code"], record["asgi_guard.detail"]) == (200, "api_key")


async def test_client_behind_a_proxy(lines: Lines) -> None:
    """The client is the corrected one, and the peer is the proxy, wherever the Proxy layer stands."""
    headers = [(b"x-forwarded-for", b"198.51.100.7"), (b"x-forwarded-proto", b"https")]
    await get(lines.layer(ProxyMiddleware(Echo(), trusted="203.0.113.9")), headers=headers)
    record = lines.record
    assert (record["client.address"], record["network.peer.address"]) == ("198.51.100.7", "203.0.113.9")
    assert record["url.scheme"] == "https"


async def test_once(lines: Lines) -> None:
    """The layer twice writes one line, the outer one's."""
    inner: list[bytes] = []
    await get(lines.layer(AccessLogMiddleware(Echo(), write=inner.append)))
    assert (len(lines), len(inner)) == (1, 0)


async def test_off(lines: Lines) -> None:
    """The format `off` writes nothing."""
    await get(lines.layer(Echo(), format="off"))
    assert lines == []


async def test_a_log_that_cannot_be_written(caplog: pytest.LogCaptureFixture) -> None:
    """A line that cannot be written takes no response back, and the failure is told."""

    def full(line: bytes) -> None:
        raise OSError("no space left on device")

    exchange = await get(AccessLogMiddleware(Echo(), write=full))
    assert (exchange.error, exchange.status) == (None, 200)
    assert "no space left" in caplog.text


async def test_standard_output(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """By default, lines go to standard output, at once."""
    with open(1, "w", closefd=False) as stream:  # noqa: ASYNC230 - standard output itself, as pytest captures it
        monkeypatch.setattr(sys, "stdout", stream)
        await get(AccessLogMiddleware(Echo()))
        assert json.loads(capfdbinary.readouterr().out)["http.response.status_code"] == 200


async def test_through_logging(caplog: pytest.LogCaptureFixture) -> None:
    """With a logger for a writer, each line is one record of the user's own logging."""
    logger = logging.getLogger("access")
    layer = AccessLogMiddleware(Echo(), write=lambda line: logger.info("%s", line.decode().rstrip()))
    with caplog.at_level(logging.INFO, "access"):
        await get(layer, "/a%s%d")
    (record,) = caplog.records
    assert json.loads(record.getMessage())["url.path"] == "/a%s%d"


async def test_through_structlog() -> None:
    """With structlog for a writer, each line is one event with the line's members."""
    with structlog.testing.capture_logs() as events:
        logger = structlog.get_logger("access")
        layer = AccessLogMiddleware(Echo(), write=lambda line: logger.info("exchange", **json.loads(line)))
        await get(layer, "/a")
    (event,) = events
    assert (event["event"], event["url.path"], event["http.response.status_code"]) == ("exchange", "/a", 200)


SECRETS = ["s3cr3t-value", "eyJhbGciOiJSUzI1NiJ9.payload.signature", "Basic dXNlcjpwYXNz", "sk_live_4eC39HqLyjWDarjtT1"]

anything = st.text(max_size=40)

raw = st.binary(max_size=40)


@given(
    schema=st.sampled_from(["json", "ecs", "gcp", "datadog"]),
    kind=st.sampled_from(["http", "websocket"]),
    method=anything,
    path=anything,
    agent=raw,
    host=raw,
    keys=st.lists(st.sampled_from([b"token", b"a%20b", b"%ff", b"", b"x[]"]), max_size=4),
    secret=st.sampled_from(SECRETS),
    peer=anything,
)
@example("json", "http", "GET\n", "/\n{}\r\x85\u2028\ud800", b"\n", b"\r\n", [b"token"], SECRETS[0], "\udcff\n")
def test_law(
    schema: Any, kind: str, method: str, path: str, agent: bytes, host: bytes, keys: list[bytes], secret: str, peer: str
) -> None:
    """No input makes two lines of one, an invalid line or none; and no secret in a query, header or cookie is in it."""
    lines = Lines()
    value = secret.encode()
    query = b"&".join([value, *(key + b"=" + value for key in keys)])
    names = (b"authorization", b"cookie", b"x-api-key", b"referer", b"proxy-authorization")
    headers = [*((name, value) for name in names), (b"user-agent", agent), (b"host", host)]
    scope = http_scope(method, path, query_string=query, client=(peer, 1))
    scope |= {"headers": headers, "type": kind}
    asyncio.run(call(lines.layer(Echo(), format=schema), scope))
    (line,) = lines
    assert line.endswith(b"}\n")
    assert not set(b"\n\r\x0b\x0c\x1b\0") & set(line[:-1])
    assert len(line.decode().splitlines()) == 1
    assert isinstance(json.loads(line), dict)
    assert secret not in line.decode()
