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
from tests.end_to_end.serving import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from asgi_guard.testing import LocalIssuer
    from tests.cli.conftest import Command, Ran

PATIENCE = 30.0


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


def visited(
    command: Command, site: Path, name: str, *, path: str = "/", number: signal.Signals = signal.SIGTERM
) -> tuple[Ran, httpx.Response]:
    """Run an app of the site until it has answered once: what came of the command, and the answer."""
    port = free_port()
    visitor = Visitor(f"http://127.0.0.1:{port}{path}", number)
    visitor.start()
    ran = command("run", name, "--app-dir", str(site), "--port", str(port))
    visitor.join()
    assert visitor.answer is not None
    return ran, visitor.answer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", ["run_site:app", "run_site:create()"])
def test_run_serves_until_a_signal(command: Command, site: Path, name: str, number: signal.Signals) -> None:
    """The app is served behind the guard, one line of JSON an exchange, and a signal ends it with exit code 0."""
    ran, answer = visited(command, site, name, path="/a?b=c", number=number)
    assert answer.text == "hello"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers
    assert ran.code == 0
    (line,) = ran.out.splitlines()
    assert orjson.loads(line)["request_id"] == answer.headers["x-request-id"]


def test_an_exception_is_told_once(command: Command, site: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An exception of the app's is told by the guard, with the request's id, and not by the server once more."""
    ran, answer = visited(command, site, "run_site:broken")
    assert answer.status_code == 500
    (record,) = [each for each in caplog.records if each.exc_info and each.levelname == "ERROR"]
    assert record.name == "asgi_guard"
    assert answer.headers["x-request-id"] in record.getMessage()
    assert "Exception in ASGI application" not in ran.err


def test_an_exception_around_the_guard_is_told_by_the_server(command: Command, site: Path) -> None:
    """What is raised where the guard does not see it is in the server's log, with its traceback."""
    ran, answer = visited(command, site, "run_site:around()")
    assert answer.status_code == 500
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


@pytest.mark.parametrize("name", ["run_site:app", "run_site:with_limits"])
def test_what_is_warned_of_at_the_start_is_told_once(
    command: Command, site: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """A guard that was added as middleware is made twice, as it was added, and warns once.

    That nobody is asked who they are is told of a guard that is put around the app, and not of the app's own. Handlers
    of the guard's logger stay there.
    """
    handlers = [*logging.getLogger("asgi_guard").handlers]
    monkeypatch.setenv("ASGI_GUARD_RATE_LIMIT", "5/minute by ip" if name == "run_site:app" else "5/minute by tenant")
    monkeypatch.setenv("ASGI_GUARD_RATE_SHADOW", "true")
    ran, _ = visited(command, site, name)
    assert ran.code == 0
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert said.count("limits refuse nothing: ASGI_GUARD_RATE_SHADOW is on") == 1
    assert handlers
    assert logging.getLogger("asgi_guard").handlers == handlers
    assert sum(each.startswith("identity is off") for each in said) == (name == "run_site:app")


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
