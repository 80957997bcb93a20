"""The command line, called in this process or as a program of its own."""

from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import pytest

from asgi_guard.cli import main
from asgi_guard.testing import LocalIssuer
from tests.end_to_end.serving import ROOT
from tests.stores.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asgi_guard.testing import SigningKey

NOBODY = "redis://127.0.0.1:1/0"
"""A store's URL where nothing listens: port 1 is for root, who has no use for it."""

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
    site = Starlette()
    site.add_middleware(Guard)
    site.add_middleware(Outside)
    return site

def within():
    return Outside(Guard(app))

async def failing(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no disk"})
"""
"""An app that commands are told the name of, and others that are not as it is."""


@dataclass
class Ran:
    """What came of a command: its exit code, and what it said on either stream."""

    code: int
    out: str
    err: str


class Command(Protocol):
    def __call__(self, *arguments: str, stdin: bytes = b"") -> Ran: ...


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may force colours; the commands here are told when to."""
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Calls `asgi-guard` in this process."""

    def call(*arguments: str, stdin: bytes = b"") -> Ran:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8"))
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main.main(list(arguments), prog_name="asgi-guard")
        said = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return Ran(caught.value.code, said.out, said.err)

    return call


def program(*arguments: str, **environment: str) -> Ran:
    """Runs `asgi-guard` as a program, with no variable of the guard but these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ASGI_GUARD_")}
    done = subprocess.run(
        [sys.executable, "-m", "asgi_guard", *arguments],
        cwd=ROOT,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def served(signing_key: SigningKey) -> Iterator[LocalIssuer]:
    """A local issuer that serves over HTTP."""
    with LocalIssuer(key=signing_key).serve() as issuer:
        yield issuer


@pytest.fixture
def configured(served: LocalIssuer, monkeypatch: pytest.MonkeyPatch) -> LocalIssuer:
    """That issuer, named by the environment."""
    monkeypatch.setenv("ASGI_GUARD_AUTH_ISSUER", served.url)
    monkeypatch.setenv("ASGI_GUARD_AUTH_AUDIENCE", served.audience)
    return served


@pytest.fixture(scope="session")
def valkey() -> Iterator[Server]:
    """A real store for the session."""
    with Server() as server:
        yield server


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
