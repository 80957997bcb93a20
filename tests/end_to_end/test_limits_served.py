"""Limits under a real server with a real store: what ends a request there, and what is left of it."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.end_to_end.serving import Served, free_port, serve
from tests.stores.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from websockets.sync.client import ClientConnection

SOURCE = """
import asyncio

from asgi_guard import limits

async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"].upper()})
        if scope["path"] == "/stubborn":
            for _ in range(3):
                await send({"type": "websocket.send", "text": "too late"})
        return
    assert scope["type"] == "http"
    path = scope["path"]
    if path == "/fails":
        raise LookupError("as it was asked to")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if path in ("/hold", "/forever"):
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        if path == "/forever":
            await asyncio.Event().wait()
        return
    if path.startswith("/charge/"):
        limits.charge(scope, int(path.rpartition("/")[2]))
    await send({"type": "http.response.body", "body": b"ok"})
"""
ROUTES = """[
    {"path": "/hold", "limits": "1 at once by ip as held"},
    {"path": "/fails", "limits": "1 at once by ip as failing"},
    {"path": "/forever", "limits": "2 at once by ip as forever"},
    {"path": "/sockets", "limits": "1 at once by ip as sockets"},
    {"path": "/charge/*", "limits": "10/hour by ip as charged"}
]"""
PATIENCE = 20.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("limits")
    (made / "limited_site.py").write_text(SOURCE)
    return made


@pytest.fixture(scope="module")
def store() -> Iterator[Server]:
    with Server() as server:
        yield server


def environment(store: Server) -> dict[str, str]:
    return {
        "ASGI_GUARD_STORE_URL": store.url,
        "ASGI_GUARD_STORE_TIMEOUT": "10",
        "ASGI_GUARD_RATE_ON_STORE_FAILURE": "deny",
        "ASGI_GUARD_RATE_MESSAGES": "3/hour",
        "ASGI_GUARD_ROUTES": ROUTES,
    }


@pytest.fixture(scope="module")
def site(folder: Path, store: Server) -> Iterator[Served]:
    """The app in one process."""
    port = free_port()
    command = ("run", "limited_site:app", "--app-dir", str(folder), "--port", str(port), "--graceful", "1")
    with serve(folder, *command, port=port, **environment(store)) as served:
        yield served
        assert served.stop() == 0


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that happens in another process."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def dial(site: Served, path: str = "/", request_id: str = "quiet") -> ClientConnection:
    return connect(site.url.replace("http", "ws") + path, additional_headers={"x-request-id": request_id})


def lines(served: Served, request_id: str) -> list[dict[str, Any]]:
    return [line for line in served.log() if line["request_id"] == request_id]


@pytest.mark.parametrize("path", ["/", "/stubborn"])
def test_one_message_too_many(site: Served, path: str) -> None:
    """The message that is one too many closes the connection with 1008, which the log tells; others go on."""
    with dial(site, path) as other, dial(site, path, f"loud-{path[1:]}") as chat:
        for text in "abc":
            chat.send(text)
            assert chat.recv(PATIENCE) == text.upper()
        chat.send("d")
        with pytest.raises(ConnectionClosed) as caught:
            chat.recv(PATIENCE)
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1008, "rate_limited")
        other.send("e")
        assert other.recv(PATIENCE) == "E"
    until(lambda: bool(lines(site, f"loud-{path[1:]}")), "its line")
    (line,) = lines(site, f"loud-{path[1:]}")
    assert line["asgi_guard.reason"] == "rate_limited"
    assert line["asgi_guard.limit"] == "messages"
    assert line["http.response.status_code"] == 101
    assert "error.type" not in line


def test_many_messages_at_once(site: Served) -> None:
    """A client that sends without waiting gets the answers to what it was allowed, then the close."""
    with dial(site) as chat:
        with chat.send_context():  # all in one write: between several, the close could arrive
            for text in b"abcdefgh":
                chat.protocol.send_text(bytes([text]))
        assert [chat.recv(PATIENCE) for _ in range(3)] == ["A", "B", "C"]
        with pytest.raises(ConnectionClosed) as caught:
            chat.recv(PATIENCE)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1008


def test_a_client_that_leaves(site: Served, store: Server) -> None:
    """A request counts as under way until its client has gone, and the store then holds nothing of it."""
    for _ in range(2):
        with httpx.stream("GET", f"{site.url}/hold", timeout=PATIENCE) as first:
            parts = first.iter_raw()  # held, since the connection ends with it
            assert next(parts) == b"first"
            refused = httpx.get(f"{site.url}/hold")
            assert refused.status_code == 429
            assert refused.headers["ratelimit"] == '"held";r=0'
            assert refused.headers["ratelimit-policy"] == '"held";q=1;qu="concurrent-requests"'
            assert refused.headers["retry-after"] in ("1", "2")
            assert store.client.keys("*:held:*") != []
        until(lambda: store.client.keys("*:held:*") == [], "its end")


def test_an_app_that_fails(site: Served, store: Server) -> None:
    """Requests that the app fails on are under way no more."""
    assert [httpx.get(f"{site.url}/fails").status_code for _ in range(3)] == [500, 500, 500]
    until(lambda: store.client.keys("*:failing:*") == [], "its end")


@pytest.mark.parametrize("politely", [True, False])
def test_sockets(site: Served, store: Server, politely: bool) -> None:
    """A WebSocket counts until it is closed, or its connection is cut."""
    with ExitStack() as stack:
        chat = stack.enter_context(dial(site, "/sockets"))
        with pytest.raises(InvalidStatus) as caught, dial(site, "/sockets"):
            raise AssertionError("it was accepted")
        assert caught.value.response.status_code == 429
        if not politely:
            chat.socket.close()
    until(lambda: store.client.keys("*:sockets:*") == [], "its end")
    with dial(site, "/sockets"):
        pass


def test_what_the_app_charges(site: Served) -> None:
    """What the app charges is taken, and what it gives back is there again."""
    told = []
    for cost in (4, 2, -3, 0):
        answer = httpx.get(f"{site.url}/charge/{cost}")
        told.append(answer.headers["ratelimit"].partition(";t")[0])
        # The account is settled once the answer is on its way, before anything else that this client can ask.
    assert told == ['"charged";r=9', '"charged";r=4', '"charged";r=1', '"charged";r=3']


def test_a_server_that_stops(folder: Path, tmp_path: Path, store: Server) -> None:
    """Requests that are cut off when the server stops are under way no more: the store holds nothing of them."""
    port = free_port()
    command = ("run", "limited_site:app", "--app-dir", str(folder), "--port", str(port), "--graceful", "1")
    with serve(tmp_path, *command, port=port, **environment(store)) as served, ExitStack() as stack:
        for _ in range(2):
            stream = stack.enter_context(httpx.stream("GET", f"{served.url}/forever", timeout=PATIENCE))
            assert stream.status_code == 200
        assert store.client.zcard(store.client.keys("*:forever:*")[0]) == 2
        assert served.stop(signal.SIGTERM) == 0
    assert store.client.keys("*:forever:*") == []


def test_a_worker_that_is_killed(folder: Path, tmp_path: Path, store: Server) -> None:
    """What a process that was killed had under way counts for the time of a lease, and no longer."""
    port = free_port()
    command = ("run", "limited_site:app", "--app-dir", str(folder), "--port", str(port))
    with serve(tmp_path, *command, port=port, **environment(store)) as served, ExitStack() as stack:
        stream = stack.enter_context(httpx.stream("GET", f"{served.url}/forever", timeout=PATIENCE))
        assert stream.status_code == 200
        served.stop(signal.SIGKILL)
    (name,) = store.client.keys("*:forever:*")
    assert 0 < store.client.pttl(name) <= 60_000
    store.client.delete(name)


@pytest.mark.long
def test_two_workers_share(folder: Path, tmp_path: Path, store: Server) -> None:
    """Several processes count requests under way together."""
    port = free_port()
    command = ("run", "limited_site:app", "--app-dir", str(folder), "--port", str(port), "--workers", "2")
    with serve(tmp_path, *command, port=port, **environment(store)) as served, ExitStack() as stack:
        seen = []
        for _ in range(6):
            stream = stack.enter_context(httpx.stream("GET", f"{served.url}/forever", timeout=PATIENCE))
            seen.append(stream.status_code)
        assert seen == [200, 200, 429, 429, 429, 429]
    store.client.flushall()
