"""The proxy that stands for a network passes everything on, late, and goes away by itself."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from benchmarks.limits import delay
from benchmarks.limits.servers import target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.long  # each of them starts a proxy


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket that a proxy can connect to; what it does is for the test to say."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        listener.settimeout(20)
        yield listener


@pytest.fixture
def proxy(upstream: socket.socket) -> Iterator[delay.Proxy]:
    """A proxy that is serving, until its owner's stream ends."""
    made = delay.Proxy(upstream.getsockname(), 0.001)
    owner, theirs = socket.socketpair()
    serving = threading.Thread(target=made.serve, args=(time.monotonic() + 60, theirs))
    serving.start()
    yield made
    owner.close()
    serving.join(20)
    assert not serving.is_alive()
    made.close()
    theirs.close()


def _through(proxy: delay.Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=20)


def test_the_proxy_passes_bytes_on_in_order(proxy: delay.Proxy, upstream: socket.socket) -> None:
    """What is written at either end arrives at the other, whole and in order, on each connection for itself."""
    with _through(proxy) as client, _through(proxy) as other:
        served = [upstream.accept()[0], upstream.accept()[0]]
        client.sendall(b"one")
        other.sendall(b"two")
        received = {server.recv(100): server for server in served}
        assert set(received) == {b"one", b"two"}
        for text, server in received.items():
            server.sendall(text + b"!")
            server.sendall(b"?" * 1000)
        for end, text in ((client, b"one!"), (other, b"two!")):
            data = b""
            while len(data) < 1004:
                data += end.recv(2000)
            assert data == text + b"?" * 1000
        for server in served:
            server.close()


@pytest.mark.parametrize("abruptly", [False, True])
def test_the_proxy_passes_on_an_end(proxy: delay.Proxy, upstream: socket.socket, abruptly: bool) -> None:
    """When one end closes or resets, so is the other closed, and the proxy goes on with the rest."""
    with _through(proxy) as client, _through(proxy) as other:
        server, second = upstream.accept()[0], upstream.accept()[0]
        client.sendall(b"one")
        other.sendall(b"two")
        first, last = (server, second) if server.recv(100) == b"one" else (second, server)
        if abruptly:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        client.close()
        assert first.recv(100) == b""
        first.close()
        last.close()
        while other.recv(100):
            pass


def test_the_proxy_delays_a_server() -> None:
    """A client that goes through the proxy's process is answered, and the delay that was measured is told."""
    with target(None) as own, delay.delayed(own, 0.002, 60) as (url, added):
        assert url.startswith("redis://127.0.0.1:")
        assert added > 0


@pytest.mark.parametrize("lifetime", ["0", "0.05"])
def test_the_proxy_ends_by_itself(upstream: socket.socket, lifetime: str) -> None:
    """After its lifetime the proxy's process ends, though whoever started it is still there."""
    command = [sys.executable, "-m", delay.__name__, upstream.getsockname(), "0.001", lifetime]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.wait(20) == 0
