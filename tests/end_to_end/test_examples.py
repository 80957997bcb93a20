"""Each example by its documented line, and every call that the demo prints."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.end_to_end.serving import ROOT, Served, free_port, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXAMPLES = ["fastapi_app", "starlette_app", "quart_app"]


@pytest.fixture(scope="module", params=[*EXAMPLES, ""])
def demo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Served]]:
    """The demo of each example, and of the app that it brings along."""
    folder: Path = tmp_path_factory.mktemp("demo")
    port, issuer_port = free_port(), free_port()
    app = [f"examples.{request.param}:app"] if request.param else []
    ports = ("--port", str(port), "--issuer-port", str(issuer_port))
    with serve(folder, "demo", *app, *ports, port=port) as served:
        yield request.param, served
        assert served.stop() == 0
        assert "Traceback" not in served.errors()


def tokens(served: Served) -> dict[str, dict[str, str]]:
    found = dict(re.findall(r"^(READ|WRITE)=(\S+)$", served.errors(), re.MULTILINE))
    return {name: {"authorization": f"Bearer {value}"} for name, value in found.items()}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_says_how_to_run_it(name: str) -> None:
    """The line that starts an example stands in the example."""
    assert f"asgi-guard demo examples.{name}:app" in (ROOT / "examples" / f"{name}.py").read_text()


def test_the_calls_that_the_demo_prints(demo: tuple[str, Served]) -> None:
    """Each printed call is answered with the status that is printed above it."""
    _, served = demo
    shell = shutil.which("bash")
    curl = shutil.which("curl")
    if shell is None or curl is None:
        pytest.skip("the printed calls are for a shell with curl")
    printed = served.errors()
    variables = "\n".join(re.findall(r"^(?:READ|WRITE)=\S+$", printed, re.MULTILINE))
    calls = re.findall(r"^# (\d{3}): .*\n((?:curl|for) .*)$", printed, re.MULTILINE)
    assert [status for status, _ in calls] == ["200", "401", "403", "201", "429", "204"]
    for status, call in calls:
        if not demo[0] and status == "201":
            continue  # the app that the demo brings along answers everything with 200
        done = subprocess.run([shell, "-c", f"{variables}\n{call}"], capture_output=True, text=True, check=True)
        found = re.findall(r"^(?:HTTP/1.1 )?(\d{3})\b", done.stdout, re.MULTILINE)
        assert found[-1] == status, (call, done.stdout)


def test_the_app_sees_who_calls(demo: tuple[str, Served]) -> None:
    """The framework's own way to the user, the scopes and the request id leads to what the guard found out."""
    name, served = demo
    headers = {**tokens(served)["READ"], "x-request-id": "seen-by-the-app"}
    answer = httpx.get(f"{served.url}/items", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["x-request-id"] == "seen-by-the-app"
    if not name:
        assert answer.text == "hello alice, this is request seen-by-the-app\n"
        return
    seen = answer.json()
    assert seen["user"] == "alice"
    assert seen["scopes"] == ["items:read"]
    assert seen["request_id"] == "seen-by-the-app"
    public = httpx.get(served.url).json()
    assert public["hello"] == "world"
    assert public["request_id"]


def test_documentation_is_open(demo: tuple[str, Served]) -> None:
    """FastAPI's pages of documentation are open to all, with the policy under which their scripts run."""
    name, served = demo
    for path in ("/docs", "/redoc"):
        answer = httpx.get(served.url + path)
        assert "script-src 'self' 'unsafe-inline' https://cdn.jsdelivr.net" in answer.headers["content-security-policy"]
        assert answer.status_code == {"fastapi_app": 200, "": 200}.get(name, 404)


def test_the_log_is_json(demo: tuple[str, Served]) -> None:
    """Standard output holds one line of JSON an exchange."""
    _, served = demo
    httpx.get(f"{served.url}/items", headers={"x-request-id": "a-stranger"})
    line = served.line("a-stranger")
    assert line["http.response.status_code"] == 401
    assert line["asgi_guard.reason"] == "credentials_missing"


def test_a_second_demo_says_which_port_is_taken(demo: tuple[str, Served], tmp_path: Path) -> None:
    """A port in use is told with the option that changes it, and exit code 2."""
    port = demo[1].url.rpartition(":")[2]
    with (
        pytest.raises(AssertionError, match=r"(?s)ended with 2.*--port: 127\.0\.0\.1:\d+ cannot be used"),
        serve(tmp_path, "demo", "--port", port, "--issuer-port", str(free_port()), port=free_port()),
    ):
        raise RuntimeError
