"""`asgi-guard run` and `asgi-guard demo`: their servers run in this process, and are stopped by signals."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING

import httpx
import orjson
import pytest

from asgi_guard import Guard
from asgi_guard.cli.demo import demo_app, demo_settings
from tests.asgi import Echo, call, http_scope, websocket_scope
from tests.cli.conftest import program
from tests.end_to_end.serving import ROOT, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asgi_guard.testing import LocalIssuer
    from tests.cli.conftest import Command

SOURCE = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})

def create():
    return app

async def broken(scope, receive, send):
    raise LookupError("no such row")

class Outside:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            raise LookupError("around the guard")
        await self.app(scope, receive, send)

from starlette.applications import Starlette
from asgi_guard import Guard
added = Starlette()
added.add_middleware(Guard)
with_limits = Starlette()
with_limits.add_middleware(Guard, limit_functions={"tenant": lambda scope: "acme"})

def around():
    return Outside(Guard(app))

async def failing(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no disk"})
"""
PATIENCE = 30.0


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with an app, and a process that is as it was afterwards."""
    (tmp_path / "run_site.py").write_text(SOURCE)
    monkeypatch.setenv("ASGI_GUARD_APP", "")
    monkeypatch.setenv("ASGI_GUARD_RATE_WORKERS", "")
    monkeypatch.setattr(sys, "path", [*sys.path])
    logger = logging.getLogger("asgi_guard")
    filters = [*logger.filters]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield tmp_path
    for number, handler in handlers.items():
        signal.signal(number, handler)
    logger.filters[:] = filters
    sys.modules.pop("run_site", None)


class Visitor(threading.Thread):
    """Calls a server as soon as it listens, and then sends this process a signal."""

    def __init__(self, url: str, number: signal.Signals, uds: str | None = None) -> None:
        super().__init__()
        self.answer: httpx.Response | None = None
        self._url, self._number, self._uds = url, number, uds

    def run(self) -> None:
        try:
            self._wait()
            with httpx.Client(transport=httpx.HTTPTransport(uds=self._uds)) as client:
                self.answer = client.get(self._url)
        finally:
            os.kill(os.getpid(), self._number)

    def _wait(self) -> None:
        url = httpx.URL(self._url)
        family = socket.AF_INET if self._uds is None else socket.AF_UNIX
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with socket.socket(family) as probe:
                if probe.connect_ex(self._uds or (url.host, url.port)) == 0:
                    return
            time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", ["run_site:app", "run_site:create()"])
def test_run_serves_until_a_signal(command: Command, site: Path, name: str, number: signal.Signals) -> None:
    """The app is served behind the guard, one line of JSON an exchange, and a signal ends it with exit code 0."""
    port = free_port()
    visitor = Visitor(f"http://127.0.0.1:{port}/a?b=c", number)
    visitor.start()
    ran = command("run", name, "--app-dir", str(site), "--port", str(port))
    visitor.join()
    assert visitor.answer is not None
    assert visitor.answer.text == "hello"
    assert visitor.answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in visitor.answer.headers
    assert ran.code == 0
    (line,) = ran.out.splitlines()
    assert orjson.loads(line)["request_id"] == visitor.answer.headers["x-request-id"]


def test_an_exception_is_told_once(command: Command, site: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An exception of the app's is told by the guard, with the request's id, and not by the server once more."""
    port = free_port()
    visitor = Visitor(f"http://127.0.0.1:{port}/", signal.SIGTERM)
    visitor.start()
    ran = command("run", "run_site:broken", "--app-dir", str(site), "--port", str(port))
    visitor.join()
    assert visitor.answer is not None
    assert visitor.answer.status_code == 500
    (record,) = [each for each in caplog.records if each.exc_info]
    assert record.name == "asgi_guard"
    assert visitor.answer.headers["x-request-id"] in record.getMessage()
    assert "Exception in ASGI application" not in ran.err


def test_an_exception_around_the_guard_is_told_by_the_server(command: Command, site: Path) -> None:
    """What is raised where the guard does not see it is in the server's log, with its traceback."""
    port = free_port()
    visitor = Visitor(f"http://127.0.0.1:{port}/", signal.SIGTERM)
    visitor.start()
    ran = command("run", "run_site:around()", "--app-dir", str(site), "--port", str(port))
    visitor.join()
    assert visitor.answer is not None
    assert visitor.answer.status_code == 500
    assert "Exception in ASGI application" in ran.err
    assert "LookupError: around the guard" in ran.err


def test_run_on_a_unix_socket(command: Command, site: Path) -> None:
    """The server may listen on a UNIX socket, where clients have no address."""
    path = str(site / "s")
    visitor = Visitor("http://site/", signal.SIGTERM, uds=path)
    visitor.start()
    ran = command("run", "run_site:app", "--app-dir", str(site), "--uds", path)
    visitor.join()
    assert visitor.answer is not None
    assert visitor.answer.text == "hello"
    assert ran.code == 0
    assert "client.address" not in orjson.loads(ran.out)


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("name", ["run_site:nope", "nowhere_site:app", "run_site"])
def test_an_app_that_is_not_there(command: Command, site: Path, name: str, workers: str) -> None:
    """A name that leads to no app is told once, with exit code 2, however many workers would have looked for it."""
    ran = command("run", name, "--app-dir", str(site), "--workers", workers)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("asgi-guard: the configuration has 1 problem:\n  MODULE:ATTRIBUTE: ")


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("name", ["run_site:app", "run_site:added"])
def test_a_broken_configuration(site: Path, name: str, workers: str) -> None:
    """With a configuration that cannot be used, nothing is served: the problems, exit code 2, and no traceback.

    So it is where the guard was added as middleware, and would be made with the first request.
    """
    ran = program("run", name, "--app-dir", str(site), "--workers", workers, ASGI_GUARD_CORS_ALLOW_ORIGINS="x")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("asgi-guard: the configuration has 1 problem:\n  ASGI_GUARD_CORS_ALLOW_ORIGINS: ")
    assert len(ran.err.splitlines()) == 2


def test_the_app_keeps_its_handlers_of_the_guards_logger(command: Command, site: Path) -> None:
    """What an app has set up to log what the guard says goes on when the server sets up its own log."""
    logger, handler = logging.getLogger("asgi_guard"), logging.NullHandler()
    logger.addHandler(handler)
    try:
        port = free_port()
        visitor = Visitor(f"http://127.0.0.1:{port}/", signal.SIGTERM)
        visitor.start()
        assert command("run", "run_site:app", "--app-dir", str(site), "--port", str(port)).code == 0
        visitor.join()
        assert handler in logger.handlers
    finally:
        logger.removeHandler(handler)


@pytest.mark.parametrize("name", ["run_site:app", "run_site:with_limits"])
def test_what_is_warned_of_at_the_start_is_told_once(
    command: Command, site: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """A guard that was added as middleware is made twice, as it was added, and warns once.

    That nobody is asked who they are is told of a guard that is put around the app, and not of the app's own.
    """
    monkeypatch.setenv("ASGI_GUARD_RATE_LIMIT", "5/minute by ip" if name == "run_site:app" else "5/minute by tenant")
    monkeypatch.setenv("ASGI_GUARD_RATE_SHADOW", "true")
    port = free_port()
    visitor = Visitor(f"http://127.0.0.1:{port}/", signal.SIGTERM)
    visitor.start()
    ran = command("run", name, "--app-dir", str(site), "--port", str(port))
    visitor.join()
    assert ran.code == 0
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert said.count("limits refuse nothing: ASGI_GUARD_RATE_SHADOW is on") == 1
    assert sum(each.startswith("identity is off") for each in said) == (name == "run_site:app")


@pytest.fixture
def taken() -> Iterator[str]:
    """A port that somebody has."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield str(listener.getsockname()[1])


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_port_that_is_taken(command: Command, site: Path, taken: str, host: str, workers: str) -> None:
    """A port that somebody has is told by the option that changes it, before the app's start, which fails here."""
    where = ("--host", host, "--port", taken, "--workers", workers)
    ran = command("run", "run_site:failing", "--app-dir", str(site), *where)
    assert ran.code == 2
    assert f"  --port: {host}:{taken} cannot be used (Address already in use): choose another" in ran.err
    assert "no disk" not in ran.err


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("nowhere.invalid", "'nowhere.invalid' cannot be found ("),
        ("a..b", "'a..b' cannot be found ("),
        ("192.0.2.7", "'192.0.2.7' is no address of this machine (Cannot assign requested address)"),
    ],
)
@pytest.mark.parametrize("name", ["run", "demo"])
def test_a_host_that_is_not_here(command: Command, site: Path, name: str, host: str, message: str) -> None:
    """A host that cannot be found, or is another machine's, is told by its option, before the app's start."""
    app_dir = ("--app-dir", str(site)) if name == "run" else ()
    ran = command(name, "run_site:failing", *app_dir, "--host", host, "--port", str(free_port()))
    assert (ran.code, ran.out) == (2, "")
    assert f"  --host: {message}" in ran.err
    assert "no disk" not in ran.err


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("nowhere/s", "No such file or directory"),
        ("run_site.py", "something else is there"),
        ("s" * 120, "AF_UNIX path too long"),
    ],
)
def test_a_place_where_no_socket_can_be(command: Command, site: Path, place: str, reason: str) -> None:
    """A UNIX socket that cannot be made is told by its option and its path, before the app's start."""
    path = str(site / place)
    ran = command("run", "run_site:failing", "--app-dir", str(site), "--uds", path)
    assert (ran.code, ran.out) == (2, "")
    assert f"  --uds: no socket can be made at {path} ({reason}): name another place" in ran.err
    assert "no disk" not in ran.err


@pytest.mark.parametrize("beside", [("--port", "8000"), ("--host", "127.0.0.1")])
def test_a_unix_socket_and_a_port(command: Command, site: Path, beside: tuple[str, str]) -> None:
    """A server listens in one place: what would be ignored is refused, also if it is as by default."""
    ran = command("run", "run_site:app", "--app-dir", str(site), "--uds", str(site / "s"), *beside)
    assert (ran.code, ran.out) == (2, "")
    assert f"--uds is instead of {beside[0]}: say one or the other" in ran.err


def test_the_demo_on_one_port(command: Command, site: Path) -> None:
    """The app and its issuer cannot be at one port, which is told as such."""
    port = str(free_port())
    ran = command("demo", "--port", port, "--issuer-port", port)
    assert (ran.code, ran.out) == (2, "")
    assert f"  --issuer-port: {port} is the app's --port too: choose another" in ran.err


@pytest.mark.parametrize(
    "arguments",
    [("run", "{}"), ("run", "{}", "--workers", "2"), ("check", "--no-probe", "--app", "{}"), ("demo", "{}")],
    ids=" ".join,
)
@pytest.mark.parametrize(
    ("name", "raised"),
    [
        ("raising_site:app", "importing 'raising_site' raised KeyError: 'DATABASE_URL'"),
        ("callable_site:create()", "calling callable_site:create() raised KeyError: 'DATABASE_URL'"),
    ],
)
def test_an_app_that_raises(
    command: Command, site: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], name: str, raised: str
) -> None:
    """What an app's module or factory raises is told in a sentence, behind its own lines and no others."""
    function = "def create():\n    return {}['DATABASE_URL']\n"
    (site / "callable_site.py").write_text(function)
    (site / "raising_site.py").write_text(f"{function}create()\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "callable_site", raising=False)
    module = site / f"{name.partition(':')[0]}.py"
    ports = ("--port", str(free_port()), "--issuer-port", str(free_port())) if arguments[0] == "demo" else ()
    ran = command(*(each.format(name) for each in arguments), *ports)
    assert (ran.code, ran.out) == (2, "")
    head, first, *rest = ran.err.splitlines()
    assert head == "Traceback (most recent call last):"
    assert first.startswith(f'  File "{module}", line ')
    assert all(str(module) in line for line in rest if line.startswith("  File "))
    argument = "--app" if arguments[0] == "check" else "MODULE:ATTRIBUTE"
    assert rest[-1] == f"  {argument}: {raised}"


def test_the_demo_of_a_guarded_app(command: Command, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app that has its guard is told by the argument, and what to name in its place."""
    monkeypatch.syspath_prepend(site)
    ran = command("demo", "run_site:around()", "--port", str(free_port()), "--issuer-port", str(free_port()))
    assert (ran.code, ran.out) == (2, "")
    told = "run_site:around() has a Guard already, and the demo puts its own around: name the bare app within it"
    assert f"  MODULE:ATTRIBUTE: {told}" in ran.err


@pytest.mark.parametrize("name", ["run", "demo"])
def test_an_app_whose_start_fails(command: Command, site: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """An app that cannot start is told with its own words, and is a failure, with nothing said to be ready."""
    monkeypatch.setenv("HOME", str(site))
    monkeypatch.syspath_prepend(site)
    ports = ("--port", str(free_port()), *(("--issuer-port", str(free_port())) if name == "demo" else ()))
    ran = command(name, "run_site:failing", *ports)
    assert (ran.code, ran.out) == (3, "")
    assert "no disk" in ran.err
    assert "READ=" not in ran.err


@pytest.mark.parametrize("name", ["run", "demo"])
def test_without_a_server(command: Command, site: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Where uvicorn is not installed, how to install it is told, and `check` has nothing to note about it."""
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    ran = command(name, "run_site:app")
    assert ran.code == 2
    assert "  uvicorn: it is not installed: pip install 'asgi-guard[server]'" in ran.err
    assert "uvicorn" not in command("check").out


def test_demo_serves_until_ctrl_c(command: Command, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo prints its calls once it is ready, keeps its key, and ends with exit code 0."""
    monkeypatch.setenv("HOME", str(site))
    port, issuer_port = free_port(), free_port()
    visitor = Visitor(f"http://127.0.0.1:{port}/", signal.SIGINT)
    visitor.start()
    ran = command("demo", "--port", str(port), "--issuer-port", str(issuer_port))
    visitor.join()
    assert visitor.answer is not None
    assert re.fullmatch(r"hello stranger, this is request [0-9a-f-]{36}\n", visitor.answer.text)
    assert ran.code == 0
    assert (
        f"The guarded app is at http://127.0.0.1:{port}, its local issuer at http://127.0.0.1:{issuer_port}" in ran.err
    )
    assert "READ=ey" in ran.err
    assert orjson.loads(ran.out)["http.response.status_code"] == 200
    key = site / ".local/state/asgi-guard/local-issuer.pem"
    assert key.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("option", ["--port", "--issuer-port"])
def test_demo_on_a_port_that_is_taken(command: Command, site: Path, taken: str, option: str) -> None:
    """A port that somebody has is told by the option that changes it."""
    other = "--issuer-port" if option == "--port" else "--port"
    ran = command("demo", option, taken, other, str(free_port()))
    assert ran.code == 2
    assert f"  {option}: 127.0.0.1:{taken} cannot be used (Address already in use): choose another" in ran.err


@pytest.mark.parametrize("content", [b"nonsense", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_key_file_that_holds_no_key(
    command: Command, site: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    """A file without an RSA key is told by its name, with exit code 2 and no traceback."""
    monkeypatch.setenv("HOME", str(site))
    key = site / ".local/state/asgi-guard/local-issuer.pem"
    key.parent.mkdir(parents=True)
    key.write_bytes(content)
    for ran in (
        command("demo", "--port", str(free_port()), "--issuer-port", str(free_port())),
        command("token"),
        command("token", "--key", str(key)),
    ):
        assert (ran.code, ran.out) == (2, "")
        assert "local-issuer.pem: it does not hold an RSA key as unencrypted PEM" in ran.err


def test_a_key_file_that_cannot_be_made(command: Command, tmp_path: Path) -> None:
    """A place where no file can be is told with the system's reason."""
    (tmp_path / "file").write_text("")
    ran = command("token", "--key", str(tmp_path / "file" / "key.pem"))
    assert (ran.code, ran.out) == (2, "")
    assert "key.pem: the key cannot be read or made: Not a directory" in ran.err


async def test_the_demos_own_app_speaks_http_only() -> None:
    """The small app answers HTTP, and refuses WebSockets by raising, as apps without them do."""
    answer = await call(demo_app, websocket_scope())
    assert isinstance(answer.error, NotImplementedError)
    guarded = Guard(Echo(), demo_settings("https://id.example.com"))
    assert (await call(guarded, http_scope("GET", "/items"))).status == 401


def test_a_token_that_is_no_text(command: Command, served: LocalIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that are no text are judged as a token that is none, on the command line and on standard input."""
    monkeypatch.setenv("ASGI_GUARD_AUTH_ISSUER", served.url)
    monkeypatch.setenv("ASGI_GUARD_AUTH_AUDIENCE", served.audience)
    for ran in (command("token", "--explain", "\udcff.a.b"), command("token", "--explain", "-", stdin=b"\xff.a.b")):
        assert ran.code == 1
        assert "not accepted (malformed)" in ran.out


@pytest.mark.parametrize("beside", [{}, {"ASGI_GUARD_STORE_TIMEOUT": "soon"}])
@pytest.mark.parametrize(("found", "said"), [("", "it is empty: name a folder"), ("nowhere", "there is no folder ")])
def test_a_folder_of_measures_that_is_none(site: Path, found: str, said: str, beside: dict[str, str]) -> None:
    """Workers that could not measure together are not started, and leave no files where they were to be."""
    place = found and str(site / found)
    ran = program(
        *("run", "run_site:app", "--app-dir", str(site), "--workers", "2"),
        ASGI_GUARD_METRICS_PATH="/metrics",
        PROMETHEUS_MULTIPROC_DIR=place,
        **beside,
    )
    assert ran.code == 2
    assert f"  PROMETHEUS_MULTIPROC_DIR: {said}" in ran.err
    assert all(f"  {name}: " in ran.err for name in beside)
    assert "Traceback" not in ran.err
    assert not list(ROOT.glob("*.db"))
