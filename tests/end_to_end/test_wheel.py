"""What users install: the built wheel, in an environment of its own, with nothing but its own dependencies."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from typing import TYPE_CHECKING
from zipfile import ZipFile

import pytest

from tests.end_to_end.serving import ROOT

if TYPE_CHECKING:
    from pathlib import Path

REQUEST = """
import asyncio
from asgi_guard import APIKey, AuthSettings, Guard, GuardSettings

async def app(scope, receive, send):
    raise AssertionError("the app is not to be reached")

async def main():
    sent = []
    async def send(message):
        sent.append(message)
    async def receive():
        return {"type": "http.request"}
    guard = Guard(app, GuardSettings(auth=AuthSettings(api_keys=(APIKey("someone", "a" * 64),))))
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
    await guard(scope, receive, send)
    print(sent[0]["status"])

asyncio.run(main())
"""


def run(*command: str | Path, **options: str) -> str:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("ASGI_GUARD_", "COVERAGE"))
    }
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env={**environment, **options}, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_wheel_works_by_itself(tmp_path: Path) -> None:
    """The wheel holds what the package needs, installs alone, imports, explains itself, and guards a request."""
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("asgi_guard-*.whl")
    with ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {"asgi_guard/stores/admit.lua", "asgi_guard/stores/revoke.lua", "asgi_guard/py.typed"} <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "examples/", "benchmarks/"))]
    venv.create(tmp_path / "env", with_pip=True)
    programs = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin")
    run(programs / "python", "-m", "pip", "install", "--quiet", wheel)
    assert "ASGI_GUARD_AUTH_ISSUER" in run(programs / "asgi-guard", "env")
    *_, status = run(programs / "python", "-c", REQUEST).splitlines()
    assert status == "401"
