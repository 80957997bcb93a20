"""Load for a server, from a process of its own: by wrk or oha where they are found, else by this module.

`python -m benchmarks.server.load PORT CONNECTIONS SECONDS REQUEST` is the one in Python: each connection sends the
request again as soon as it is answered.
"""

from __future__ import annotations

import json
import re
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WRK_SCRIPT = """
done = function(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format("\\nFIGURES %d %d %d %d %d %d\\n", summary.requests, summary.duration, failed,
    latency:percentile(50), latency:percentile(95), latency:percentile(99)))
end
"""
SLACK = 30
"""Seconds beyond the time of the load after which a tool counts as hung."""


@dataclass(frozen=True, slots=True)
class Load:
    """What became of the requests.

    Attributes:
        requests: how many were answered, in
        seconds: this time.
        failed: how many failed or had an error's status.
        p50: the median latency in milliseconds, and
        p95: that of 19 in 20, and
        p99: that of 99 in 100.
    """

    requests: int
    seconds: float
    failed: int
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Asking:
    """What is sent, and how.

    Attributes:
        port: of 127.0.0.1.
        path: with its query.
        headers: by name.
        connections: kept alive, each with one request under way.
        seconds: for how long.
    """

    port: int
    path: str
    headers: Sequence[tuple[str, str]]
    connections: int
    seconds: float

    def options(self) -> list[str]:
        """The headers as options of command lines. To a Host that is not spelt so, wrk would add its own."""
        return [option for name, value in self.headers for option in ("-H", f"{name.title()}: {value}")]

    @property
    def url(self) -> str:
        """The whole URL."""
        return f"http://127.0.0.1:{self.port}{self.path}"


def tool() -> str:
    """The name of the load generator that is here."""
    return next((name for name in ("wrk", "oha") if shutil.which(name)), "Python")


def run(asking: Asking, name: str) -> Load:
    """Load a server by the tool of this name."""
    return TOOLS[name](asking)


def _output(command: Sequence[str], seconds: float) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + SLACK).stdout


def _wrk(asking: Asking) -> Load:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "report.lua"
        script.write_text(WRK_SCRIPT)
        assert asking.seconds == round(asking.seconds) >= 1, "wrk takes whole seconds"
        shape = ["-t1", f"-c{asking.connections}", f"-d{round(asking.seconds)}s", "-s", str(script)]
        # A slow answer is measured, by its latency: unless told, wrk counts one of two seconds as a failure.
        patient = ["--timeout", f"{SLACK}s"]
        said = _output(["wrk", *shape, *patient, *asking.options(), asking.url], asking.seconds)
    return read_wrk(said)


def read_wrk(said: str) -> Load:
    """The figures in the output of wrk with our script. It counts in microseconds."""
    found = re.search(r"^FIGURES (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)$", said, re.MULTILINE)
    assert found, said
    requests, duration, failed, *latencies = map(int, found.groups())
    p50, p95, p99 = (each / 1000 for each in latencies)
    return Load(requests, duration / 1e6, failed, p50, p95, p99)


def _oha(asking: Asking) -> Load:
    shape = ["--no-tui", "--output-format", "json", "-c", str(asking.connections), "-z", f"{asking.seconds}s"]
    return read_oha(_output(["oha", *shape, *asking.options(), asking.url], asking.seconds))


def read_oha(said: str) -> Load:
    """The figures in the JSON of oha. It counts in seconds; requests that the end cut off did not fail."""
    document = json.loads(said)
    codes = document["statusCodeDistribution"]
    errors = {name: count for name, count in document["errorDistribution"].items() if "deadline" not in name}
    failed = sum(errors.values()) + sum(count for code, count in codes.items() if int(code) >= 400)
    p50, p95, p99 = (document["latencyPercentiles"][name] * 1000 for name in ("p50", "p95", "p99"))
    return Load(sum(codes.values()), document["summary"]["total"], failed, p50, p95, p99)


def _python(asking: Asking) -> Load:
    request = request_of(asking.path, asking.headers).decode()
    shape = [str(asking.port), str(asking.connections), str(asking.seconds), request]
    said = _output([sys.executable, "-m", __name__, *shape], asking.seconds)
    return Load(**json.loads(said))


def request_of(path: str, headers: Sequence[tuple[str, str]]) -> bytes:
    """A request as it is sent."""
    return "\r\n".join([f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]).encode()


TOOLS: dict[str, Callable[[Asking], Load]] = {"wrk": _wrk, "oha": _oha, "Python": _python}


class Connection:
    """One kept connection, with a request under way."""

    def __init__(self, port: int, request: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self._request = request
        self._received = b""
        self._sent = 0.0
        self.send()

    def send(self) -> None:
        """Send the request."""
        self._sent = time.perf_counter()
        self.socket.sendall(self._request)

    def read(self) -> tuple[bool, float] | None:
        """Take what came: once the answer is whole, whether it is a good one, and its milliseconds."""
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionResetError("the server closed a connection")
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if not end or length is None or len(body) < int(length[1]):
            return None
        self._received = b""
        return head[9:10] == b"2", (time.perf_counter() - self._sent) * 1000

    def finish(self) -> None:
        """Wait for the answer, which has to be a good one."""
        while (answer := self.read()) is None:
            pass
        assert answer[0], "a request failed"


def load(port: int, connections: int, seconds: float, request: bytes) -> Load:
    """Send the request over and over, until it was answered once at the least, and measure."""
    latencies: list[float] = []
    failed = 0
    with selectors.DefaultSelector() as selector:
        started = time.perf_counter()
        for _ in range(connections):
            opened = Connection(port, request)
            selector.register(opened.socket, selectors.EVENT_READ, opened)
        while (now := time.perf_counter() - started) < seconds or (not latencies and now < SLACK):
            for key, _ in selector.select(0.1):
                answered = key.data.read()
                if answered is not None:
                    failed += not answered[0]
                    latencies.append(answered[1])
                    key.data.send()
        taken = time.perf_counter() - started
        for key in list(selector.get_map().values()):
            key.data.socket.close()
    latencies.sort()
    p50, p95, p99 = (latencies[int(share * (len(latencies) - 1))] for share in (0.5, 0.95, 0.99))
    return Load(len(latencies), taken, failed, p50, p95, p99)


def main(port: str, connections: str, seconds: str, request: str) -> None:
    """Load, from the command line."""
    found = load(int(port), int(connections), float(seconds), request.encode())
    print(json.dumps({name: getattr(found, name) for name in Load.__slots__}))


if __name__ == "__main__":
    main(*sys.argv[1:])
