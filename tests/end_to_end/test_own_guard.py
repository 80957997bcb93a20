"""`asgi-guard run` with an app that is a Guard already, and connections that idle."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.end_to_end.serving import free_port, serve

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = """
from asgi_guard import Guard

async def fine():
    pass

async def inner(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})

app = Guard(inner, checks={"own": fine})
"""
PATIENCE = 30.0


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.long)])
def test_its_own_guard_serves_and_idle_connections_end(tmp_path: Path, workers: str) -> None:
    """It is served as it is, with its own checks and one line an exchange; an idle connection ends when it is said."""
    (tmp_path / "own_site.py").write_text(SOURCE)
    port = free_port()
    command = ("run", "own_site:app", "--app-dir", str(tmp_path), "--port", str(port))
    with serve(tmp_path, *command, "--workers", workers, "--keep-alive", "1", port=port) as served:
        assert httpx.get(f"{served.url}/health/ready").json()["checks"] == {"own": "ok"}
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nhost: site\r\nx-request-id: idle.1\r\n\r\n")
            received = b""
            while data := connection.recv(4096):  # until the server closes it, which by default is not this soon
                received += data
        assert b"hello" in received
        assert served.stop() == 0
        assert served.line("idle.1")
