"""How an issuer's servers are asked: the client that is made unless a user makes another."""

from __future__ import annotations

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import httpx
import pytest

from asgi_guard.errors import KeysUnavailableError
from asgi_guard.identity import fetching, introspection
from asgi_guard.identity.fetching import check_name, check_url, default_client, opened, why
from asgi_guard.identity.introspection import Introspection
from tests.introspecting import CLIENT, OpaqueIssuer

if TYPE_CHECKING:
    from collections.abc import Iterator

PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")


class Proxy(ThreadingHTTPServer):
    """A proxy that answers everything itself, calls every token active, and remembers what it was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.asked: list[str] = []


class _Answers(BaseHTTPRequestHandler):
    server: Proxy

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", "0")))
        self.server.asked.append(self.path)
        body = json.dumps({"active": True, "sub": "eve", "aud": "api", "token_type": "Bearer"}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Say nothing."""


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy that the environment names for everything."""
    with Proxy() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        for name in PROXIES:
            monkeypatch.delenv(name, raising=False)
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_address[1]}")
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "LOCALHOST", "[::1]"])
async def test_no_proxy_hears_what_is_said_to_this_machine(proxy: Proxy, host: str) -> None:
    """A secret that may be sent over http, since it stays on this machine, is sent to no proxy, nor is one believed."""
    url = check_url(f"http://{host}:9/introspect", query=True)
    asked = Introspection(url, "api", "hunter2", audience="api").introspector()
    with pytest.raises(KeysUnavailableError, match="ConnectError"):
        await asked.obtain(b"opaque-token")
    await asked.aclose()
    assert proxy.asked == []


async def test_this_machine_answers_past_a_proxy(proxy: Proxy) -> None:
    """An endpoint on this machine is asked itself."""
    with OpaqueIssuer() as issuer:
        asked = Introspection(issuer.url, *CLIENT, audience="api").introspector()
        assert (await asked.obtain(issuer.token().encode())).subject == "alice"
        await asked.aclose()
    assert proxy.asked == []


async def test_everybody_else_is_asked_by_the_proxy(proxy: Proxy) -> None:
    """The environment's proxies are gone by for all other hosts; a client that is left is closed whole."""
    async with opened(default_client) as client, client.stream("GET", "http://issuer.test/jwks") as response:
        assert response.status_code == 200
    assert proxy.asked == ["http://issuer.test/jwks"]
    for url in ("http://issuer.test/", "http://127.0.0.1:9/"):
        with pytest.raises(RuntimeError, match="closed"):
            await client.send(httpx.Request("GET", url))


@pytest.mark.parametrize(
    ("own", "ours", "said"),
    [(None, 0.2, "TimeoutError: no answer within 0.2 s"), (0.05, 9.0, "ReadTimeout: no answer within 0.05 s")],
)
async def test_time_that_has_run_out_is_told(
    own: float | None, ours: float, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a slow issuer the log and the error tell how long was waited, by the client's own limit or by ours."""
    for module in (fetching, introspection):
        monkeypatch.setattr(module, "TIMEOUT", ours)
    with OpaqueIssuer() as issuer:
        issuer.slow = 1
        made = Introspection(issuer.url, *CLIENT, audience="api", client=lambda: httpx.AsyncClient(timeout=own))
        asked = made.introspector()
        with pytest.raises(KeysUnavailableError, match=f"cannot be asked: {said}"):
            await asked.obtain(b"opaque-token")
        await asked.aclose()
    assert said in caplog.text


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (httpx.ReadTimeout(""), "ReadTimeout: no answer within 3 s"),
        (
            httpx.ConnectTimeout("", request=httpx.Request("GET", "https://id.test")),
            "ConnectTimeout: no answer within 3 s",
        ),
        (TimeoutError(110, "Connection timed out"), "TimeoutError: '[Errno 110] Connection timed out'"),
        (ValueError("it is odd"), "it is odd"),
        (KeysUnavailableError("it is away", 1), "it is away"),
        (OSError(), "OSError: ''"),
        (KeyError("x"), "KeyError: \"'x'\""),
    ],
)
def test_why_something_could_not_be_fetched(error: Exception, said: str) -> None:
    """What has a text of its own is told by that; time that has run out, by how long there was."""
    assert why(error) == said


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://issuer.test", "use https"), ("ftp://127.0.0.1/keys", "use https"), ("ws://localhost", "use https"),
        ("https:///keys", "write a plain URL: https://host/path, without user or fragment"),
        ("https://@issuer.test", "without user or fragment"), ("https://issuer.test/#x", "without user or fragment"),
        ("https://a.test,https://b.test", "no single URL"), ("https://a.test /keys", "no single URL"),
    ],
)  # fmt: skip
def test_what_is_not_asked(url: str, said: str) -> None:
    """A URL is https, or http to this machine, and one, and names nobody; an identifier has no query besides."""
    with pytest.raises(ValueError, match=said):
        check_url(url, query=True)
    assert check_url("https://issuer.test/keys?a=b", query=True)
    for identifier, fault in (
        ("https://issuer.test?a=b", "query"),
        ("https://issuer.test/.well-known/x", "stands bef"),
    ):
        with pytest.raises(ValueError, match=fault):
            check_url(identifier)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "write what iss says"), ("a\n", "write what iss says"), ("https://a.test\0", "write what iss says"),
        ("https://a.test,https://b.test", "these are several issuers"), ("a.test", None), ("https://a.test/b c", None),
        ("https://a.test/x/.well-known/openid-configuration", "write https://a.test/x$"), ("urn:issuer", None),
    ],
)  # fmt: skip
def test_the_name_of_an_issuer(name: str, said: str | None) -> None:
    """Any printable text may be an issuer's name, but several of them, and where its keys are discovered."""
    if said is None:
        check_name(name)
    else:
        with pytest.raises(ValueError, match=said):
            check_name(name)


async def test_no_query_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """What httpx logs of a request of ours has no query, which may be a secret; an app may log what it asks itself."""
    caplog.set_level(logging.INFO, "httpx")
    with OpaqueIssuer() as issuer:
        url = f"{issuer.url}?code=hunter2"
        for client in (default_client, default_client, httpx.AsyncClient):
            each = Introspection(url, *CLIENT, audience="api", client=client).introspector()
            assert (await each.obtain(issuer.token().encode())).subject == "alice"
            await each.aclose()
    lines = [record.getMessage() for record in caplog.records if record.name == "httpx"]
    ours = f'HTTP Request: POST {issuer.url} "HTTP/1.1 200 OK"'
    assert lines == [ours, ours, ours.replace(issuer.url, url)]
