"""`asgi-guard explain --origin`: what a browser makes of a request, and what to change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Command

PAGE = "https://app.example"
PROBED = """
from pathlib import Path
from asgi_guard import Guard

async def check():
    Path({asked!r}).touch()

async def inner(scope, receive, send):
    raise AssertionError("nobody asks it here")

app = Guard(inner, checks={{"disk": check}})
"""


@pytest.fixture(autouse=True)
def _configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASGI_GUARD_CORS_ALLOW_ORIGINS", PAGE)


def seen(command: Command, *arguments: str) -> dict[str, Any]:
    ran = command("explain", *arguments, "--json")
    assert ran.code == 0, ran.err
    found: dict[str, Any] = orjson.loads(ran.out)["browser"]
    return found


def test_a_page_that_may_read(command: Command) -> None:
    """A simple request of an allowed origin needs no preflight, and its answer may be read, the guard's headers too."""
    found = seen(command, "--origin", PAGE, "GET", "/items")
    assert (found["readable"], found["preflight"], found["change"]) == (True, "not needed", {})
    assert "x-request-id" in found["exposed"]


def test_every_variable_to_change(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a page may not read, every variable that stands in the way is named, and changing them helps."""
    call = ("--origin", PAGE, "PUT", "/items?page=2", "--header", "content-type", "--credentials")
    found = seen(command, *call)
    assert (found["readable"], found["sent"], found["stopped_at"]) == (False, False, "preflight_origin")
    assert found["preflight"] == "asks for PUT with content-type"
    assert found["change"] == {
        "ASGI_GUARD_CORS_ALLOW_CREDENTIALS": "write true, so that cookies may go along",
        "ASGI_GUARD_CORS_ALLOW_METHODS": "add PUT",
        "ASGI_GUARD_CORS_ALLOW_HEADERS": "add content-type",
    }
    for name, value in {"CREDENTIALS": "true", "METHODS": "PUT", "HEADERS": "content-type"}.items():
        monkeypatch.setenv(f"ASGI_GUARD_CORS_ALLOW_{name}", value)
    assert seen(command, *call)["readable"]


def test_a_stranger(command: Command) -> None:
    """The request of a stranger that needs no preflight is made, and its answer hidden: that is said."""
    found = seen(command, "--origin", "https://evil.example", "POST", "/", "--header", "content-type: text/plain")
    assert (found["readable"], found["sent"]) == (False, True)
    assert "though the request is made" in found["verdict"]
    assert found["change"] == {"ASGI_GUARD_CORS_ALLOW_ORIGINS": "add https://evil.example"}


def test_without_cors(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where CORS is off, no page may read, and every variable that this request needs is named."""
    monkeypatch.delenv("ASGI_GUARD_CORS_ALLOW_ORIGINS")
    found = seen(command, "--origin", PAGE, "DELETE", "/items/1")
    assert not found["readable"]
    assert list(found["change"]) == ["ASGI_GUARD_CORS_ALLOW_ORIGINS", "ASGI_GUARD_CORS_ALLOW_METHODS"]


def test_a_method_that_no_script_may_use(command: Command) -> None:
    """Where the browser itself refuses, no variable is named."""
    found = seen(command, "--origin", PAGE, "TRACE", "/", "--header", "Cookie: a=b")
    assert found["stopped_at"] == "method_forbidden"
    assert found["change"] == {"": "use another method: no setting helps"}
    assert found["ignored"] == ["Cookie"]


@pytest.mark.parametrize("origin", [PAGE, "https://elsewhere.example"])
@pytest.mark.parametrize("cors", [True, False])
def test_what_everyone_may_read(command: Command, monkeypatch: pytest.MonkeyPatch, origin: str, cors: bool) -> None:
    """What the resource says of itself may be read by a page of any origin, whatever headers its client sets."""
    monkeypatch.setenv("ASGI_GUARD_AUTH_ISSUER", "https://id.example.com")
    monkeypatch.setenv("ASGI_GUARD_AUTH_RESOURCE", "https://api.example.com/mcp")
    if not cors:
        monkeypatch.delenv("ASGI_GUARD_CORS_ALLOW_ORIGINS")
    path = "/.well-known/oauth-protected-resource/mcp"
    for headers in ((), ("--header", "mcp-protocol-version: 1")):
        found = seen(command, "--origin", origin, "GET", path, *headers)
        assert (found["readable"], found["change"]) == (True, {})
    assert not seen(command, "--origin", "https://elsewhere.example", "GET", "/items")["readable"]


@pytest.mark.parametrize("hosts", ["*.example.com", "*.Example.org, *.example.com", "*.example.com, shop.example"])
def test_hosts_below_a_name(command: Command, monkeypatch: pytest.MonkeyPatch, hosts: str) -> None:
    """The app is asked by a name that it answers to, also where only names below another are allowed."""
    monkeypatch.setenv("ASGI_GUARD_HOSTS_ALLOWED", hosts)
    for method in ("GET", "POST"):
        found = seen(command, "--origin", PAGE, method, "/items", "--header", "authorization")
        assert found["change"] == {"ASGI_GUARD_CORS_ALLOW_HEADERS": "add authorization"}
    assert seen(command, "--origin", PAGE, "GET", "/items")["change"] == {}
    assert seen(command, "--origin", PAGE, "--websocket", "GET", "/ws")["readable"]


@pytest.mark.parametrize("cors", [True, False])
def test_a_page_of_the_apps_own(command: Command, monkeypatch: pytest.MonkeyPatch, cors: bool) -> None:
    """A page of the origin that the app has itself may read whatever CORS says, and nothing is to be opened for it."""
    monkeypatch.setenv("ASGI_GUARD_HOSTS_ALLOWED", "a.example")
    monkeypatch.setenv("ASGI_GUARD_CSRF_MODE", "enforce")
    if not cors:
        monkeypatch.delenv("ASGI_GUARD_CORS_ALLOW_ORIGINS")
    found = seen(command, "--origin", "https://a.example", "PUT", "/x", "--header", "x-a", "--header", "cookie: b")
    assert (found["readable"], found["preflight"], found["sent"], found["change"]) == (True, "not needed", True, {})
    assert "the app's own origin" in found["verdict"]
    assert (found["exposed"], found["ignored"]) == (["*"], ["cookie"])
    assert not seen(command, "--origin", "http://a.example", "PUT", "/x")["readable"]
    assert not seen(command, "--origin", "https://a.example", "TRACE", "/x")["readable"]
    assert seen(command, "--origin", "https://a.example", "--websocket", "GET", "/ws")["readable"]


def test_whose_the_app_is_where_no_host_is_named(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The app's own origin is not known then: pages of https://localhost are others', as Capacitor's are."""
    for method in ("GET", "PUT"):
        assert not seen(command, "--origin", "https://localhost", method, "/items")["readable"]
    assert not seen(command, "--origin", "https://localhost", "--websocket", "GET", "/ws")["readable"]


@pytest.mark.parametrize(("origin", "opens"), [(PAGE, True), ("https://evil.example", False)])
def test_a_websocket(command: Command, origin: str, opens: bool) -> None:
    """A WebSocket opens for pages of allowed origins only."""
    found = seen(command, "--origin", origin, "--websocket", "GET", "/ws")
    assert found["readable"] is opens
    assert bool(found["change"]) is not opens


def test_a_websocket_with_a_cookie(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a cookie tells who the user is, a WebSocket that brings it has to come from a page that may send it."""
    monkeypatch.setenv("ASGI_GUARD_AUTH_ISSUER", "https://id.example")
    monkeypatch.setenv("ASGI_GUARD_AUTH_AUDIENCE", "api")
    monkeypatch.setenv("ASGI_GUARD_AUTH_COOKIE", "__Host-session")
    call = ("--origin", PAGE, "--websocket", "GET", "/ws", "--credentials")
    found = seen(command, *call)
    assert (found["readable"], "cookie" in found["verdict"]) == (False, True)
    assert list(found["change"]) == ["ASGI_GUARD_CORS_ALLOW_CREDENTIALS"]
    monkeypatch.setenv("ASGI_GUARD_CORS_ALLOW_CREDENTIALS", "true")
    assert seen(command, *call)["readable"]


def test_a_websocket_without_a_token(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the path asks who it is, and nothing of a handshake could tell, that is said, and what to set."""
    monkeypatch.setenv("ASGI_GUARD_AUTH_ISSUER", "https://id.example")
    monkeypatch.setenv("ASGI_GUARD_AUTH_AUDIENCE", "api")
    monkeypatch.setenv("ASGI_GUARD_ROUTES", '[{"path": "/open", "auth": "none"}]')
    call = ("--origin", PAGE, "--websocket", "GET", "/ws")
    found = seen(command, *call)
    assert (found["readable"], "can send no token" in found["verdict"]) == (False, True)
    assert found["change"] == {"ASGI_GUARD_AUTH_COOKIE": "have the token in a cookie"}
    assert seen(command, *call[:-1], "/open")["readable"]
    monkeypatch.setenv("ASGI_GUARD_AUTH_COOKIE", "__Host-session")
    assert seen(command, *call)["readable"]
    monkeypatch.delenv("ASGI_GUARD_AUTH_COOKIE")
    monkeypatch.setenv("ASGI_GUARD_AUTH_UNSAFE_WEBSOCKET_QUERY_TOKEN", "access_token")
    assert seen(command, *call)["readable"]
    for name in ("ISSUER", "AUDIENCE", "UNSAFE_WEBSOCKET_QUERY_TOKEN"):
        monkeypatch.delenv(f"ASGI_GUARD_AUTH_{name}")
    monkeypatch.setenv("ASGI_GUARD_AUTH_API_KEYS", f"ci={'0' * 64}")
    found = seen(command, *call)
    assert (found["readable"], found["change"]) == (False, {})


def test_explaining_a_probe_asks_no_check(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is explained of readiness, with an app's own guard, leaves the app's checks alone."""
    asked = tmp_path / "asked"
    source = PROBED.format(asked=str(asked))
    (tmp_path / "probed_site.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = seen(command, "--origin", PAGE, "GET", "/health/ready", "--app", "probed_site:app")
    assert (found["readable"], asked.exists()) == (True, False)


def test_an_answer_that_is_a_refusal(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page can read an answer and be refused all the same, as another site's: that is said, and what to change."""
    call = ("--origin", PAGE, "POST", "/items")
    monkeypatch.setenv("ASGI_GUARD_CSRF_MODE", "enforce")
    found = seen(command, *call)
    assert (found["readable"], found["csrf"]) == (True, "it is refused: cross_site")
    assert found["change"] == {"ASGI_GUARD_CSRF_TRUSTED_ORIGINS": f"add {PAGE}"}
    assert "csrf it is refused: cross_site" in " ".join(command("explain", *call).out.split())
    assert "csrf" not in seen(command, "--origin", PAGE, "GET", "/items")
    monkeypatch.setenv("ASGI_GUARD_CSRF_EXEMPT", '["/a b"]')
    assert "csrf" not in seen(command, "--origin", PAGE, "POST", "/a%20b")
    monkeypatch.delenv("ASGI_GUARD_CSRF_EXEMPT")
    socket = seen(command, "--origin", PAGE, "--websocket", "GET", "/ws")
    assert (socket["readable"], socket["verdict"]) == (False, "a page there is refused at the handshake")
    monkeypatch.setenv("ASGI_GUARD_CSRF_MODE", "log")
    assert seen(command, *call)["csrf"] == "it would be refused, and is only logged: cross_site"
    assert seen(command, "--origin", PAGE, "--websocket", "GET", "/ws")["readable"]
    monkeypatch.setenv("ASGI_GUARD_CSRF_MODE", "enforce")
    for name, value in (("CSRF_TRUSTED_ORIGINS", PAGE), ("CSRF_EXEMPT", "/*"), ("CORS_ALLOW_CREDENTIALS", "true")):
        monkeypatch.setenv(f"ASGI_GUARD_{name}", value)
        assert "csrf" not in seen(command, *call)
        assert seen(command, "--origin", PAGE, "--websocket", "GET", "/ws")["readable"]
        monkeypatch.delenv(f"ASGI_GUARD_{name}")


def test_a_websocket_of_a_page_that_csrf_trusts(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cookies that hold tokens may come with pages that the CSRF layer trusts, too."""
    monkeypatch.setenv("ASGI_GUARD_AUTH_ISSUER", "https://id.example")
    monkeypatch.setenv("ASGI_GUARD_AUTH_AUDIENCE", "api")
    monkeypatch.setenv("ASGI_GUARD_AUTH_COOKIE", "__Host-session")
    monkeypatch.setenv("ASGI_GUARD_CSRF_MODE", "enforce")
    monkeypatch.setenv("ASGI_GUARD_CSRF_TRUSTED_ORIGINS", PAGE)
    assert seen(command, "--origin", PAGE, "--websocket", "GET", "/ws", "--credentials")["readable"]


@pytest.mark.parametrize(
    "origin", ["https://a.example/", "https://*.example", "a.example", "https://a.example:443", ""]
)
def test_what_is_no_origin(command: Command, origin: str) -> None:
    """What no browser writes as an origin is refused, with how it is written."""
    ran = command("explain", "--origin", origin, "GET", "/")
    assert (ran.code, "--origin" in ran.err) == (2, True)
    assert "origin" in ran.err.partition("--origin:")[2]


def test_plain_text(command: Command) -> None:
    """For a reader, the verdict and what to change are lines of the table."""
    text = " ".join(command("explain", "--origin", PAGE, "PUT", "/items", "--header", "sec-x").out.split())
    assert f"from {PAGE} a page there may not ask: the preflight fails" in text
    assert "preflight asks for PUT" in text
    assert "left out by browsers sec-x" in text
    assert "change ASGI_GUARD_CORS_ALLOW_METHODS add PUT" in text
    assert "it may read x-request-id" in " ".join(command("explain", "--origin", PAGE, "GET", "/").out.split())


@pytest.mark.parametrize("option", [["--header", "x-a"], ["--credentials"], ["--websocket"]])
def test_what_goes_with_an_origin(command: Command, option: list[str]) -> None:
    """What a page does is nothing without the page."""
    ran = command("explain", "GET", "/", *option)
    assert ran.code == 2
    assert "go with --origin" in ran.err


@pytest.mark.parametrize("header", ["bad header", "", ": x", "x(y): z"])
def test_what_is_no_header(command: Command, header: str) -> None:
    """A header that no browser could send is refused, and not judged."""
    ran = command("explain", "--origin", PAGE, "PUT", "/items", "--header", header)
    assert (ran.code, ran.out) == (2, "")
    assert "Invalid value for --header: " in ran.err
    assert "is not a header's name" in ran.err
