"""daphne takes the root path from a header of the client's: it chooses nothing by it, neither a row nor a path."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.end_to_end.serving import ROOT, Served, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = """
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from asgi_guard import Guard, RequestIDMiddleware

async def plain(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": scope["path"]})
        await send({"type": "websocket.close", "code": 1000})
        return
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})

guarded = Guard(plain)
mounted = Starlette(routes=[Mount("/v1", guarded)])
rooted = FastAPI()
rooted.root_path = "/api"
rooted.mount("/v1", guarded)
layered = RequestIDMiddleware(mounted)
"""
VARIABLES = {
    "ASGI_GUARD_AUTH_API_KEYS": "someone=" + "0" * 64,
    "ASGI_GUARD_ROUTES": '[{"path": "/login", "auth": "none"}, {"path": "/public/*", "auth": "none"}]',
    "ASGI_GUARD_HOSTS_ALLOWED": "127.0.0.1",
    "ASGI_GUARD_HOSTS_EXEMPT": "/login",
    "ASGI_GUARD_CSRF_MODE": "enforce",
    "ASGI_GUARD_CSRF_EXEMPT": "/public/*",
    "ASGI_GUARD_METRICS_PATH": "/metrics",
    "ASGI_GUARD_METRICS_ALLOW": "127.0.0.1",
}
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="daphne is installed elsewhere only")


@contextmanager
def daphne(folder: Path, target: str, *options: str, **variables: str) -> Iterator[Served]:
    """daphne, as its users start it."""
    (folder / "by_path.py").write_text(SOURCE)
    port = free_port()
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ASGI_GUARD_")}
    environment = {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", **VARIABLES, **variables}
    program = str(Path(sys.executable).parent / "daphne")
    where = ("-b", "127.0.0.1", "-p", str(port))
    command = [program, "-v", "0", *where, *options, f"by_path:{target}"]
    out, err = folder / "out", folder / "err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            command, stdout=stdout, stderr=stderr, cwd=folder, env=kept | environment, start_new_session=True
        )
        try:
            yield Served(f"http://127.0.0.1:{port}", process, out, err)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with daphne(tmp_path_factory.mktemp("daphne"), "guarded") as found:
        found.wait_until_ready()
        yield found


def get(served: Served, path: str, root_path: str | None = None, **headers: str) -> httpx.Response:
    if root_path is not None:
        headers["Daphne-Root-Path"] = root_path
    return httpx.get(served.url + path, headers=headers)


@pytest.mark.parametrize(
    ("path", "root_path", "status"),
    [
        ("/login", None, 200),
        ("/admin/login", None, 401),
        ("/admin/login", "/admin", 400),
        ("/admin/login", "/adm%69n", 400),
        ("/admin/login", "/admin/", 400),
        ("/adminlogin", "/admin", 400),
        ("/admin/public/x", "/admin", 400),
        ("/login", "/login", 400),
        ("/public/login", "/public", 400),
        ("/public/public/x", "/public", 200),
        ("/public/x", "/stripped", 200),
        ("/login", "/stripped", 200),
        ("/admin/users", "/admin", 401),
    ],
)
def test_a_row(served: Served, path: str, root_path: str | None, status: int) -> None:
    """What a client names makes no request another row's: it is refused where it would, and else changes nothing."""
    answer = get(served, path, root_path)
    assert answer.status_code == status, answer.text
    line = served.line(answer.headers["x-request-id"])
    assert line.get("asgi_guard.detail") == ("root_path" if status == 400 else None)


@pytest.mark.parametrize(("root_path", "reason"), [(None, "credentials_missing"), ("/admin", "path_ambiguous")])
def test_a_websocket(served: Served, root_path: str | None, reason: str) -> None:
    """So it is for handshakes."""
    name = f"handshake-{reason}"
    handshake = {"Connection": "Upgrade", "Upgrade": "websocket"}
    handshake |= {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    answer = get(served, "/admin/login", root_path, **handshake, **{"X-Request-ID": name})
    assert answer.status_code == 403  # daphne lets no app answer a handshake
    assert served.line(name)["asgi_guard.reason"] == reason


def test_paths_of_the_guard_itself(served: Served) -> None:
    """A client makes no path one of the guard's own, nor one of those another."""
    assert get(served, "/metrics").status_code == 200
    assert "asgi_guard" in get(served, "/metrics", "/metrics").text
    assert get(served, "/x/metrics", "/x").status_code == 401
    assert get(served, "/health/live", "/health").json() == {"status": "live"}


def test_paths_that_are_exempt(served: Served) -> None:
    """A client makes no path exempt from the check of the host, nor from that of the page that sends it."""
    assert get(served, "/login", host="elsewhere").status_code == 200
    for path, root_path in (("/admin/login", "/admin"), ("/login", "/login")):
        answer = get(served, path, root_path, host="elsewhere")
        assert answer.json()["reason"] == "host_not_allowed"
    foreign = {"Sec-Fetch-Site": "cross-site"}
    url = f"{served.url}/public/public/hook"
    assert httpx.post(url, headers=foreign).status_code == 200
    answer = httpx.post(url, headers={**foreign, "Daphne-Root-Path": "/public"})
    assert answer.json()["reason"] == "cross_site"


def test_the_log(served: Served) -> None:
    """A client keeps no request out of the log by a root path below which it looks like a probe, or which hides one."""
    for name, path, root_path in (("hidden", "/x/health/live", "/x"), ("hiding", "/health/live", "/health")):
        get(served, path, root_path, **{"X-Request-ID": name})
        assert served.line(name)["url.path"] == path


def test_the_servers_own_root_path(tmp_path: Path) -> None:
    """The root path of daphne's own option holds, and a client that names another, or none, gets nowhere by that."""
    with daphne(tmp_path, "guarded", "--root-path", "/api") as served:
        served.wait_until_ready()
        assert get(served, "/api/health/live").status_code == 200
        for path in ("/api/login", "/login", "/api/public/x"):
            assert get(served, path).status_code == 200
            assert get(served, path, "/api").status_code == 200
        assert get(served, "/api/login", "").status_code == 400
        assert get(served, "/api/admin/login", "/api/admin").status_code == 400
        assert get(served, "/api/admin", "").status_code == 401


@pytest.mark.parametrize(("target", "before"), [("mounted", ""), ("layered", ""), ("rooted", "/api")])
def test_a_mount(tmp_path: Path, target: str, before: str) -> None:
    """Below a mount the app's own part of the root path holds, with a layer around it all or without."""
    with daphne(tmp_path, target) as served:
        served.wait_until_ready(f"{before}/v1/health/live")
        assert get(served, f"{before}/v1/login").status_code == 200
        assert get(served, f"{before}/v1/x/login").status_code == 401
        if not before:
            assert get(served, "/x/v1/login", "/x").status_code == 400


IMPORTED = """
import asyncio, daphne.server, httpx
from by_path import guarded

async def main():
    transport = httpx.ASGITransport(guarded, root_path="/api")
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        print((await client.get("/api/login")).status_code)

asyncio.run(main())
"""


def test_another_server(tmp_path: Path) -> None:
    """Where daphne is only imported, as by apps of Django, root paths hold."""
    (tmp_path / "by_path.py").write_text(SOURCE)
    variables = {**VARIABLES, "ASGI_GUARD_LOG_FORMAT": "off", "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-c", IMPORTED]
    ran = subprocess.run(command, env=os.environ | variables, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout == "200\n"
