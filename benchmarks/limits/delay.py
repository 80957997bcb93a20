"""A proxy that holds back every byte for a while, as a network does, in a process of its own.

`python -m benchmarks.limits.delay SOCKET SECONDS LIFETIME` listens on a free port of 127.0.0.1, prints it, and passes
bytes on to the UNIX socket and back. It ends after LIFETIME seconds, or when its standard input does: with whoever
started it.
"""

from __future__ import annotations

import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import redis

from benchmarks.child import child

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.limits.servers import Target

CHUNK = 65536
PINGS = 100
TRIES = 2


@contextmanager
def delayed(target: Target, added: float, lifetime: float) -> Iterator[tuple[str, float]]:
    """The URL at which a server answers later than it would, and the seconds that a PING takes longer there.

    Args:
        target: the server, on a UNIX socket.
        added: seconds that a round trip shall take longer.
        lifetime: seconds after which the proxy ends by itself.
    """
    one_way = added / 2
    for _ in range(TRIES):
        # To wake up, to read and to write takes the proxy some time too, which is part of the delay.
        with _proxy(target, one_way, lifetime) as (_, found):
            one_way = max(0.0, one_way - (found - added) / 2)
    with _proxy(target, one_way, lifetime) as measured:
        yield measured


@contextmanager
def _proxy(target: Target, one_way: float, lifetime: float) -> Iterator[tuple[str, float]]:
    path = urlsplit(target.url).path
    command = [sys.executable, "-m", __name__, path, str(one_way), str(lifetime)]
    with child(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        url = f"redis://127.0.0.1:{int(process.stdout.readline())}"
        client: Any = redis.Redis.from_url(url)
        added = _added(client, target.client)
        client.close()
        yield url, added
        process.stdin.close()
        process.wait(10)


def _added(client: Any, direct: Any) -> float:
    """Seconds that a PING of the one takes longer than one of the other, asked in turns."""

    def ping(asked: Any) -> float:
        started = time.perf_counter()
        asked.ping()
        return time.perf_counter() - started

    return statistics.median([ping(client) - ping(direct) for _ in range(PINGS + 1)][1:])


class Proxy:
    """Connections to a UNIX socket, both directions delayed by the same time: so one queue is in order for all.

    Args:
        path: the socket.
        one_way: seconds.
    """

    def __init__(self, path: str, one_way: float) -> None:
        self._path = path
        self._delay = one_way
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        # Others round waiting times up to a whole millisecond, which is more than the delay.
        self._selector = selectors.SelectSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._peers: dict[socket.socket, socket.socket] = {}
        self._queue: deque[tuple[float, socket.socket, bytes]] = deque()
        self.port: int = self._listener.getsockname()[1]

    def serve(self, until: float, owner: Any = None) -> None:
        """Pass bytes on until this instant of the monotonic clock, or until the owner's stream ends."""
        if owner is not None:
            self._selector.register(owner, selectors.EVENT_READ)
        while (now := time.monotonic()) < until:
            wait = min(until, self._queue[0][0]) - now if self._queue else until - now
            for key, _ in self._selector.select(max(0.0, wait)):
                if key.fileobj is owner:
                    return
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._read(key.fileobj)
            self._pass_on(time.monotonic())

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.connect(self._path)
        for one, other in ((client, server), (server, client)):
            self._peers[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _read(self, source: Any) -> None:
        if source not in self._peers:
            return  # its other end closed it in this very turn
        try:
            data = source.recv(CHUNK)
        except OSError:
            data = b""
        self._queue.append((time.monotonic() + self._delay, self._peers[source], data))
        if not data:
            self._selector.unregister(source)

    def _pass_on(self, now: float) -> None:
        while self._queue and self._queue[0][0] <= now:
            _, sink, data = self._queue.popleft()
            if sink not in self._peers:
                continue
            try:
                if not data:
                    raise ConnectionResetError  # the end of the stream is passed on as an end of both
                sink.sendall(data)
            except OSError:
                self._drop(sink)

    def _drop(self, end: socket.socket) -> None:
        for one in (end, self._peers[end]):
            if one.fileno() in self._selector.get_map():
                self._selector.unregister(one)
            del self._peers[one]
            one.close()

    def close(self) -> None:
        """Close everything."""
        for one in tuple(self._peers):
            one.close()
        self._selector.close()
        self._listener.close()


def main(path: str, one_way: str, lifetime: str) -> None:
    """Serve, from the command line."""
    proxy = Proxy(path, float(one_way))
    print(proxy.port, flush=True)
    try:
        proxy.serve(time.monotonic() + float(lifetime), sys.stdin)
    finally:
        proxy.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
