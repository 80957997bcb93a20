"""Each row of the table of servers, held to a run of that server: what drains it, and that SIGTERM ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from asgi_guard.policy.servers import SERVERS, ServerName, drain_problem
from tests.end_to_end.serving import ROOT, Served, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = """
import os

async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % os.getpid()})
"""
PATIENCE = 30.0
TARGET = "asgi_guard.wrapped:app"
OPTIONS: dict[ServerName, str] = {
    "uvicorn": "uvicorn --port {port}",
    "uvicorn-workers": "uvicorn --workers 2 --port {port}",
    "gunicorn-uvicorn": "gunicorn -k uvicorn_worker.UvicornWorker -w 2 -b 127.0.0.1:{port}",
    "gunicorn-asgi": "gunicorn -k asgi --graceful-timeout 3 -w 2 -b 127.0.0.1:{port}",
    "hypercorn": "hypercorn -b 127.0.0.1:{port}",
    "granian": "granian --interface asgi --port {port}",
    "daphne": "daphne -b 127.0.0.1 -p {port}",
}
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="these servers, and these signals, are of POSIX")


@pytest.fixture(params=OPTIONS)
def name(request: pytest.FixtureRequest) -> ServerName:
    found: ServerName = request.param
    return found


@contextmanager
def running(name: ServerName, tmp_path: Path, **variables: str) -> Iterator[Served]:
    """The server, as its users start it."""
    (tmp_path / "plain_site.py").write_text(SOURCE)
    port = free_port()
    program, *arguments = OPTIONS[name].format(port=port).split()
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ASGI_GUARD_")}
    environment = {
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
        "ASGI_GUARD_APP": "plain_site:app",
        **variables,
    }
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            [Path(sys.executable).parent / program, *arguments, TARGET],
            stdout=stdout, stderr=stderr, cwd=tmp_path, env=kept | environment,
            start_new_session=True,
        )  # fmt: skip
        try:
            found = Served(f"http://127.0.0.1:{port}", process, out, err)
            found.wait_until_ready()
            yield found
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def served(name: ServerName, tmp_path: Path) -> Iterator[Served]:
    """The server, draining for two seconds."""
    variables = {
        "ASGI_GUARD_HEALTH_DRAIN_SECONDS": "2",
        "ASGI_GUARD_HEALTH_DRAIN_FILE": str(tmp_path / "drain"),
    }
    with running(name, tmp_path, **variables) as found:
        yield found


def drains(served: Served) -> bool:
    """Whether the server says that it drains, before it is gone."""
    deadline = time.monotonic() + PATIENCE
    while served.process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(f"{served.url}/health/ready").status_code == 503:
                return True
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    return False


def test_sigterm(name: ServerName, served: Served) -> None:
    """SIGTERM drains where the table says so, and ends the server in any case."""
    served.process.send_signal(signal.SIGTERM)
    assert drains(served) is SERVERS[name].sigterm, served.errors()
    served.process.wait(PATIENCE)


@pytest.mark.parametrize("name", [name for name in OPTIONS if SERVERS[name].reserved])
@pytest.mark.parametrize("on_signal", ["SIGUSR1", "SIGUSR2"])
@pytest.mark.long
def test_a_signal_of_the_servers_own(name: ServerName, on_signal: str, tmp_path: Path) -> None:
    """A signal that the server sends all workers for its own purposes is warned of; another one drains one worker."""
    with running(name, tmp_path, ASGI_GUARD_HEALTH_DRAIN_SIGNAL=on_signal) as served:
        if on_signal == SERVERS[name].reserved:
            served.process.send_signal(signal.SIGUSR1)
            assert drains(served)
        else:
            served.process.send_signal(signal.SIGUSR1)
            time.sleep(0.5)
            assert {httpx.get(f"{served.url}/health/ready").status_code for _ in range(10)} == {200}
            os.kill(int(httpx.get(served.url).text), signal.SIGUSR2)
            assert drains(served)
        warned = "SIGUSR1 is gunicorn's own" in served.errors()
    assert warned is (on_signal == "SIGUSR1")


@pytest.mark.parametrize("name", [name for name in OPTIONS if not SERVERS[name].sigterm])
def test_the_file(served: Served, tmp_path: Path) -> None:
    """The file drains under a server that takes SIGTERM itself, and SIGTERM then ends it."""
    (tmp_path / "drain").touch()
    assert drains(served), served.errors()
    assert httpx.get(f"{served.url}/health/live").status_code == 200
    served.process.send_signal(signal.SIGTERM)
    served.process.wait(PATIENCE)


SEVERAL = """
import asyncio
import sys

import uvicorn

from asgi_guard import Guard
from plain_site import app

guard = Guard(app)

async def serve(guards, ports):
    configs = [uvicorn.Config(guard, port=int(port)) for guard, port in zip(guards, ports)]
    await asyncio.gather(*(uvicorn.Server(config).serve() for config in configs))

if __name__ == "__main__":
    asyncio.run(serve([guard, guard if sys.argv[1] == "one" else Guard(app)], sys.argv[2:]))
"""
MOUNTED = """
from starlette.applications import Starlette
from starlette.routing import Mount

from asgi_guard import Guard
from plain_site import app

guard = Guard(Starlette(routes=[Mount("/v1", Guard(app))]))
"""
BREAKING = """
import asyncio

from asgi_guard import Guard
from plain_site import app

async def breaking(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        while not guard.layers[0].draining.begun:
            await asyncio.sleep(0.01)
        raise RuntimeError("a task of the app's failed")
    await app(scope, receive, send)

guard = Guard(breaking)
"""


@contextmanager
def started(tmp_path: Path, source: str, *arguments: str, ports: tuple[int, ...]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that drains for two seconds, once it is ready at all ports."""
    (tmp_path / "plain_site.py").write_text(SOURCE)
    (tmp_path / "several.py").write_text(source)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ASGI_GUARD_")}
    variables = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "ASGI_GUARD_HEALTH_DRAIN_SECONDS": "2"}
    with (tmp_path / "out").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments], stdout=output, stderr=output, cwd=tmp_path, env=kept | variables
        )
        try:
            for port in ports:
                out = tmp_path / "out"
                Served(f"http://127.0.0.1:{port}", process, out, out).wait_until_ready()
            yield process
        finally:
            process.kill()
            process.wait()


def ends(process: subprocess.Popen[bytes], *ports: int) -> tuple[list[int], float]:
    """What the probes at these ports say soon after SIGTERM, and how many seconds later the process has ended."""
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    time.sleep(0.4)
    found = [httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code for port in ports]
    process.wait(PATIENCE)
    return found, time.monotonic() - begun


@pytest.mark.parametrize("guards", ["one", "two"])
@pytest.mark.long
def test_two_servers_in_one_process(guards: str, tmp_path: Path) -> None:
    """Two servers in one process drain as one, with one guard or one each, and both end."""
    ports = free_port(), free_port()
    with started(tmp_path, SEVERAL, "several.py", guards, *map(str, ports), ports=ports) as process:
        found, seconds = ends(process, *ports)
    assert found == [503, 503]
    assert seconds >= 2


def test_a_mounted_guard(tmp_path: Path) -> None:
    """A guard in an app that is mounted within another guard adds no drain of its own."""
    port = free_port()
    arguments = ("-m", "uvicorn", "several:guard", "--port", str(port))
    with started(tmp_path, MOUNTED, *arguments, ports=(port,)) as process:
        assert httpx.get(f"http://127.0.0.1:{port}/v1/").status_code == 200
        found, seconds = ends(process, port)
    assert found == [503]
    assert seconds >= 2


def test_an_app_that_breaks_down_while_draining(tmp_path: Path) -> None:
    """SIGTERM is not lost if the app's lifespan ends with an error in the middle of a drain."""
    port = free_port()
    with started(tmp_path, BREAKING, "-m", "uvicorn", "several:guard", "--port", str(port), ports=(port,)) as process:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def workers(served: Served, number: int) -> set[int]:
    """The processes that answer, once there are so many."""
    deadline = time.monotonic() + PATIENCE
    found: set[int] = set()
    while len(found) < number:
        assert time.monotonic() < deadline, served.errors()
        found.add(int(httpx.get(served.url).raise_for_status().text))
    return found


@pytest.mark.long
@pytest.mark.parametrize("number", ["SIGTTOU", "SIGHUP"])
def test_gunicorns_workers_that_are_too_many(number: str, tmp_path: Path) -> None:
    """Workers that gunicorn has no more need of drain in full, though it sends them SIGTERM again every second."""
    name: ServerName = "gunicorn-uvicorn"
    with running(name, tmp_path, ASGI_GUARD_HEALTH_DRAIN_SECONDS="4") as served:
        before = workers(served, 2)
        begun = time.monotonic()
        served.process.send_signal(getattr(signal, number))
        while not any(map(gone, before)):
            assert time.monotonic() < begun + 2 * PATIENCE
            time.sleep(0.02)
        assert time.monotonic() - begun >= 4
        assert "another SIGTERM" not in served.errors()


@pytest.mark.long
@pytest.mark.parametrize("name", ["uvicorn-workers", "gunicorn-uvicorn"])
def test_workers_are_started_anew(name: ServerName, tmp_path: Path) -> None:
    """A worker that has served its number drains, ends and is replaced, and no request fails meanwhile."""
    variables = {
        "ASGI_GUARD_HEALTH_DRAIN_SECONDS": "0.2",
        "ASGI_GUARD_HEALTH_MAX_REQUESTS": "10",
        "ASGI_GUARD_RATE_WORKERS": "2",
    }
    with running(name, tmp_path, **variables) as served:
        workers: set[str] = set()
        deadline = time.monotonic() + 2 * PATIENCE
        while len(workers) < 3 and time.monotonic() < deadline:
            # Where both end at once, a request waits for the next; uvicorn may take 5 s to see that one has ended.
            workers.add(httpx.get(served.url, timeout=PATIENCE).raise_for_status().text)
        assert len(workers) >= 3
        assert httpx.get(f"{served.url}/health/ready").status_code == 200


@pytest.mark.parametrize(
    ("server", "seconds", "triggers", "message"),
    [
        ("uvicorn", 1, "", None),
        ("uvicorn", 0, "file", "ends it without a drain"),
        ("hypercorn", 1, "", "takes SIGTERM itself"),
        ("hypercorn", 1, "SIGUSR1 path", "reaches one process"),
        ("hypercorn", 0, "file", None),
        ("gunicorn-uvicorn", 1, "SIGUSR2", None),
        ("gunicorn-uvicorn", 1, "SIGUSR1", "SIGUSR1 reopens the logs of all workers"),
        ("gunicorn-asgi", 0, "SIGUSR1 file", "set ASGI_GUARD_HEALTH_DRAIN_SIGNAL=SIGUSR2"),
    ],
)
def test_what_a_server_needs(server: ServerName, seconds: float, triggers: str, message: str | None) -> None:
    """What keeps a server from draining is said, with what to set."""
    on_signal = next((each for each in triggers.split() if each.startswith("SIG")), None)
    found = drain_problem(server, seconds, on_signal=on_signal, file="file" in triggers, path="path" in triggers)
    assert (found is None) if message is None else (message in (found or ""))


def test_every_server_is_run() -> None:
    """No row of the table, in the code and in the page, is without its run."""
    assert set(OPTIONS) == set(SERVERS)
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    for name, server in SERVERS.items():
        (row,) = [line for line in page.splitlines() if line.endswith(f"| `{name}` |")]
        assert server.started in row
        assert ("| yes |" in row) is server.sigterm
