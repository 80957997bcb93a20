"""What only a real server shows: processes, signals, streams, clients that leave, and WebSockets."""

from __future__ import annotations

import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from asgi_guard.operations.draining import ECHO_SECONDS
from asgi_guard.testing import LocalIssuer
from tests.end_to_end.serving import Served, free_port, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOURCE = """
import asyncio
import os
import time

go = asyncio.Event()

async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while scope["path"] == "/ticks":
            await send({"type": "websocket.send", "text": "tick"})
            await asyncio.sleep(0.01)
        await send({"type": "websocket.send", "text": scope["user"].display_name})
        message = await receive()
        await send({"type": "websocket.send", "text": message["text"].upper()})
        await send({"type": "websocket.close", "code": 1000})
        return
    assert scope["type"] == "http"
    path = scope["path"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if path == "/stream":
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await go.wait()
        for _ in range(64):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
    elif path == "/forever":
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    elif path == "/go":
        go.set()
    elif path == "/busy":
        time.sleep(0.1)
    await send({"type": "http.response.body", "body": b"%d" % os.getpid()})
"""
ROUTES = """[
    {"path": "/private/*", "scopes": ["chat"]},
    {"path": "/", "auth": "none"},
    {"path": "/*", "auth": "none"}
]"""
PATIENCE = 20.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("server")
    (made / "plain_site.py").write_text(SOURCE)
    return made


@pytest.fixture(scope="module")
def issuer() -> Iterator[LocalIssuer]:
    with LocalIssuer().serve() as made:
        yield made


@pytest.fixture(scope="module")
def site(folder: Path, issuer: LocalIssuer) -> Iterator[Served]:
    """The app in one process; WebSockets below /private need a token."""
    port = free_port()
    with serve(
        folder,
        *("run", "plain_site:app", "--app-dir", str(folder), "--port", str(port)),
        port=port,
        ASGI_GUARD_AUTH_ISSUER=issuer.url,
        ASGI_GUARD_AUTH_AUDIENCE=issuer.audience,
        ASGI_GUARD_ROUTES=ROUTES,
    ) as served:
        yield served
        assert served.stop() == 0
        assert "Traceback" not in served.errors()


def test_a_stream_is_not_held_back(site: Served) -> None:
    """The first part of a stream arrives while the app still waits to send the rest, and all of it arrives."""
    headers = {"x-request-id": "stream"}
    with httpx.stream("GET", f"{site.url}/stream", headers=headers, timeout=PATIENCE) as answer:
        parts = answer.iter_raw()
        assert next(parts) == b"first"
        assert httpx.get(f"{site.url}/go").status_code == 200
        rest = b"".join(parts)
    assert rest.startswith(b"x" * 64 * 65536)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert site.line("stream")["http.response.body.size"] == len(b"first") + len(rest)


def test_a_client_that_leaves_early(site: Served) -> None:
    """A client that hangs up is logged as gone, and the others are served on."""
    headers = {"x-request-id": "gone"}
    with httpx.stream("GET", f"{site.url}/forever", headers=headers, timeout=PATIENCE) as answer:
        assert next(answer.iter_raw()) == b"first"
    line = site.line("gone")
    assert line["error.type"] == "client_disconnected"
    assert line["http.response.status_code"] == 200
    assert httpx.get(site.url).status_code == 200


def test_a_websocket_that_leaves_while_it_is_sent_to(site: Served) -> None:
    """That the client left, as the server's error tells the app, is logged as an ordinary end, without a traceback."""
    url = f"{site.url}/ticks".replace("http", "ws", 1)
    with connect(url, additional_headers={"x-request-id": "ticks"}) as session:
        assert session.recv(PATIENCE) == "tick"
    line = site.line("ticks")
    assert (line["http.response.status_code"], line["severity"]) == (101, "INFO")
    assert "error.type" not in line
    assert "Traceback" not in site.errors()


def test_a_request_that_is_no_http(site: Served) -> None:
    """Bytes that are no HTTP are answered by the server itself, and the others are served on."""
    with socket.create_connection(("127.0.0.1", int(site.url.rpartition(":")[2])), PATIENCE) as connection:
        connection.sendall(b"\x16\x03\x01\x00nonsense\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400")
    assert httpx.get(site.url).status_code == 200


def test_head_has_no_body(site: Served) -> None:
    """The guard's own answers to HEAD carry the headers of a GET and no body."""
    answers = [httpx.request(method, f"{site.url}/private/x") for method in ("GET", "HEAD")]
    assert [answer.status_code for answer in answers] == [401, 401]
    assert answers[0].headers["content-length"] == answers[1].headers["content-length"] != "0"
    assert answers[1].content == b""


def test_a_websocket_with_a_token(site: Served, issuer: LocalIssuer) -> None:
    """A handshake with a token and its scope is accepted, and the app sees who it is."""
    token = issuer.token("alice", scopes=["chat"])
    headers = {"authorization": f"Bearer {token}", "x-request-id": "chat"}
    with connect(site.url.replace("http", "ws") + "/private/chat", additional_headers=headers) as chat:
        assert chat.response is not None
        assert chat.response.headers["x-request-id"] == "chat"
        assert chat.recv(PATIENCE) == "alice"
        chat.send("hello")
        assert chat.recv(PATIENCE) == "HELLO"
    line = site.line("chat")
    assert line["http.response.status_code"] == 101
    assert line["user.id"] == "alice"
    assert line["http.response.body.size"] == len("aliceHELLO")


@pytest.mark.parametrize("level", ["info", "debug"])
def test_the_servers_log_repeats_no_request(folder: Path, tmp_path: Path, issuer: LocalIssuer, level: str) -> None:
    """Neither a token in a handshake's address nor one in its headers is in what the server says by itself."""
    port, token = free_port(), issuer.token("alice")
    command = ("run", "plain_site:app", "--app-dir", str(folder), "--port", str(port), "--log-level", level)
    variables = {
        "ASGI_GUARD_AUTH_ISSUER": issuer.url,
        "ASGI_GUARD_AUTH_AUDIENCE": issuer.audience,
        "ASGI_GUARD_AUTH_UNSAFE_WEBSOCKET_QUERY_TOKEN": "token",
    }
    with serve(tmp_path, *command, port=port, **variables) as served:
        address = served.url.replace("http", "ws") + "/chat"
        for query, headers in ((f"?token={token}", {}), ("", {"authorization": f"Bearer {token}"})):
            with connect(address + query, additional_headers=headers) as chat:
                assert chat.recv(PATIENCE) == "alice"
                chat.send("secret")
                assert chat.recv(PATIENCE) == "SECRET"
        with pytest.raises(InvalidStatus):
            connect(f"{address}?token={token}x")
        assert served.stop() == 0
    assert "Application startup complete" in served.errors()
    for part in (*token.split("."), "SECRET"):
        assert part not in served.errors()
        assert part not in served.out.read_text()


@pytest.mark.parametrize(("scopes", "status"), [(None, 401), ([], 403)])
def test_a_websocket_without_what_it_needs(
    site: Served, issuer: LocalIssuer, scopes: list[str] | None, status: int
) -> None:
    """A handshake without a token, or without its scope, is refused by an HTTP response that says why."""
    headers = {} if scopes is None else {"authorization": f"Bearer {issuer.token(scopes=scopes)}"}
    with (
        pytest.raises(InvalidStatus) as caught,
        connect(site.url.replace("http", "ws") + "/private/chat", additional_headers=headers),
    ):
        raise AssertionError("it was accepted")
    response = caught.value.response
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["www-authenticate"].startswith("Bearer")


def test_draining(folder: Path, tmp_path: Path) -> None:
    """After SIGTERM the process is not ready but serves on, asks its clients to connect elsewhere, and then ends."""
    port = free_port()
    command = ("run", "plain_site:app", "--app-dir", str(folder), "--port", str(port))
    with serve(tmp_path, *command, port=port, ASGI_GUARD_HEALTH_DRAIN_SECONDS="2") as served, httpx.Client() as client:
        assert "connection" not in client.get(served.url).headers
        served.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE
        while (ready := client.get(f"{served.url}/health/ready")).status_code == 200 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
        assert client.get(f"{served.url}/health/live").status_code == 200
        answer = client.get(served.url)
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert served.process.wait(PATIENCE) == 0
    assert "draining: not ready for new requests" in served.errors()
    assert "Traceback" not in served.errors()


def test_a_second_sigterm_ends_draining(folder: Path, tmp_path: Path) -> None:
    """Whoever sends SIGTERM again does not want to wait for the end of draining."""
    port = free_port()
    command = ("run", "plain_site:app", "--app-dir", str(folder), "--port", str(port))
    with serve(tmp_path, *command, port=port, ASGI_GUARD_HEALTH_DRAIN_SECONDS="3600") as served:
        served.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE
        while httpx.get(f"{served.url}/health/ready").status_code == 200 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(ECHO_SECONDS)  # within that it would be the first once more
        assert served.stop() == 0


def test_two_workers(folder: Path, tmp_path: Path) -> None:
    """Several processes serve the same port, their log lines stay whole, and all end with the first."""
    port = free_port()
    command = ("run", "plain_site:app", "--app-dir", str(folder), "--port", str(port), "--workers", "2")
    with serve(tmp_path, *command, port=port, ASGI_GUARD_RATE_LIMIT="1000/second by ip") as served:
        answered: set[str] = set()
        deadline = time.monotonic() + PATIENCE
        sent = 0
        with ThreadPoolExecutor(8) as pool:
            # A worker that is busy leaves the next connection to the other: an idle one may take them all.
            while len(answered) < 2 and time.monotonic() < deadline:
                answered |= set(pool.map(lambda _: httpx.get(f"{served.url}/busy").text, range(32)))
                sent += 32
        assert len(answered) == 2
        assert served.stop() == 0
    assert [line["url.path"] for line in served.log()].count("/busy") == sent
    assert served.errors().count("2 workers each keep their own buckets in memory") == 1
    assert "Traceback" not in served.errors()


@pytest.mark.long
@pytest.mark.parametrize(("workers", "together", "told"), [("2", False, True), ("2", True, False), ("1", False, False)])
def test_workers_that_measure(folder: Path, tmp_path: Path, workers: str, together: bool, told: bool) -> None:
    """That a scrape meets one worker of several is warned of, unless they measure together, as a scrape then tells."""
    port, shared = free_port(), tmp_path / "measured"
    shared.mkdir()
    variables = {"PROMETHEUS_MULTIPROC_DIR": str(shared)} if together else {}
    command = ("run", "plain_site:app", "--app-dir", str(folder), "--port", str(port), "--workers", workers)
    with serve(tmp_path, *command, port=port, ASGI_GUARD_METRICS_PATH="/metrics", **variables) as served:
        scraped = httpx.get(f"{served.url}/metrics")
    assert ("each measure for themselves" in served.errors()) is told
    assert served.errors().count("identity is off: everyone may do everything") == 1
    assert scraped.status_code == 200
    assert bool(list(shared.iterdir())) is together
