"""`asgi-guard explain`: which rule holds for a request, as the layers would see it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from tests.cli.conftest import program
from tests.cli.running import invoke
from tests.configuring import DIGEST

if TYPE_CHECKING:
    from tests.cli.conftest import Command

ROUTES = """[
    {"path": "/login", "methods": ["POST"], "auth": "none", "limits": "5/minute by ip"},
    {"path": "/news", "auth": "none"},
    {"path": "/maps", "auth": "optional"},
    {"path": "/caf\u00e9", "cost": 2},
    {"path": "/files/*", "auth": "none"},
    {"path": "/payments/*", "scopes": ["payments:write"], "limits": "8/second by user", "cost": 5, "security": "docs"}
]"""


@pytest.fixture(autouse=True)
def _configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASGI_GUARD_AUTH_ISSUER", "https://id.example.com")
    monkeypatch.setenv("ASGI_GUARD_AUTH_AUDIENCE", "shop")
    monkeypatch.setenv("ASGI_GUARD_RATE_LIMIT", "10/second by user; 5/second by anonymous")
    monkeypatch.setenv("ASGI_GUARD_ROUTES", ROUTES)


def explained(command: Command, method: str, path: str) -> dict[str, Any]:
    ran = command("explain", method, path, "--json")
    assert ran.code == 0
    found: dict[str, Any] = orjson.loads(ran.out)
    return found


def test_a_row_with_everything(command: Command) -> None:
    """What a row says is told, each with where it comes from."""
    assert explained(command, "post", "/payments/1") == {
        "request": "POST /payments/1",
        "rule": "row 6: any method /payments/*",
        "auth": "required",
        "auth_because": "what no row opens needs an identity",
        "scopes": ["payments:write"],
        "any_scopes": [],
        "limits": {"without identity": [], "with a token": ["8/second by user (as 'payments-user')"]},
        "limits_because": "row 6",
        "cost": 5,
        "security": "docs",
        "cors": "off",
        "csrf": "off",
    }


def test_who_may_act(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the CSRF layer asks of the page is told for the method and the path."""
    monkeypatch.setenv("ASGI_GUARD_CSRF_MODE", "enforce")
    monkeypatch.setenv("ASGI_GUARD_CSRF_EXEMPT", "/hooks/*")
    own = "only pages of the app and of trusted origins"
    assert explained(command, "POST", "/payments/1")["csrf"] == own
    assert explained(command, "POST", "/hooks/a")["csrf"] == "exempt: any page may ask"
    assert explained(command, "POST", "/hooks/%2e%2e/a")["csrf"] == own
    assert explained(command, "GET", "/news")["csrf"].startswith("any page may ask, for GET changes nothing")
    monkeypatch.setenv("ASGI_GUARD_CSRF_MODE", "log")
    monkeypatch.setenv("ASGI_GUARD_CSRF_SECRET", "s" * 32)
    monkeypatch.setenv("ASGI_GUARD_CSRF_SESSION_COOKIE", "session")
    assert explained(command, "POST", "/payments/1")["csrf"] == (
        f"{own}; where the browser names none, with the session's token in x-csrf-token (others are logged, and let "
        "through)"
    )
    assert f"csrf {own}" in " ".join(command("explain", "POST", "/payments/1").out.split())


@pytest.mark.parametrize(
    ("method", "path", "rule", "auth", "because"),
    [
        ("POST", "/login", "row 1: POST /login", "none", "row 1"),
        ("GET", "/login", "no row matches: the defaults", "required", "what no row opens needs an identity"),
        ("GET", "/", "no row matches: the defaults", "required", "what no row opens needs an identity"),
        ("GET", "/maps?q=1", "row 3: any method /maps", "optional", "row 3"),
        ("GET", "/caf%C3%A9", "row 4: any method /caf\u00e9", "required", "what no row opens needs an identity"),
        ("GET", "/caf\u00e9", "row 4: any method /caf\u00e9", "required", "what no row opens needs an identity"),
        ("HEAD", "/health/ready", "the guard answers this probe itself", "none", None),
        ("POST", "/health/ready", "no row matches: the defaults", "required", "what no row opens needs an identity"),
    ],
)
def test_which_rule_holds(command: Command, method: str, path: str, rule: str, auth: str, because: str | None) -> None:
    """The path is read as a server would, and the rule is the first row that it fits."""
    found = explained(command, method, path)
    assert (found["rule"], found["auth"], found.get("auth_because")) == (rule, auth, because)


def test_what_the_guard_answers_to_some(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scrapes, and what begins a drain, are told of beside the rule that holds for everybody else."""
    monkeypatch.setenv("ASGI_GUARD_METRICS_PATH", "/metrics")
    monkeypatch.setenv("ASGI_GUARD_HEALTH_DRAIN_PATH", "/drain")
    scraped = explained(command, "GET", "/metrics")
    assert (scraped["auth"], scraped["note"]) == (
        "required", "the guard answers 127.0.0.0/8, ::1/128 itself, with its metrics"
    )  # fmt: skip
    assert "note" not in explained(command, "POST", "/metrics")
    assert "begins to drain" in explained(command, "POST", "/drain")["note"]
    assert "note" not in explained(command, "GET", "/drain")


@pytest.mark.parametrize("path", ["/files//x", "/files/../x", "/files/a%2Fb", "/files/%2e%2e/x"])
def test_a_path_that_routers_disagree_about(command: Command, path: str) -> None:
    """A path that could be another one to another router matches no row that opens anything, and that is said."""
    found = explained(command, "GET", path)
    assert found["auth"] == "required"
    assert found["note"].startswith("routers may disagree about this path")


@pytest.mark.parametrize(("path", "refused"), [("/files//x", True), ("/no//row", False)])
def test_a_path_that_is_refused(command: Command, path: str, refused: bool) -> None:
    """Whether an odd path is refused, or only opens nothing, is told as the guard decides it."""
    assert ("it is refused with 400" in explained(command, "GET", path)["note"]) is refused


@pytest.mark.parametrize(
    ("path", "holds"),
    [
        ("/", "off; csp: default-src 'none'; hsts: max-age=60"),
        ("/docs", "docs; hsts: max-age=60"),
        ("/page", "off; csp: default-src 'none'; hsts: max-age=60; referrer_policy: origin"),
        ("/bare", "off; hsts: max-age=60"),
    ],
)
def test_security_headers(command: Command, monkeypatch: pytest.MonkeyPatch, path: str, holds: str) -> None:
    """What is said beside a preset is told with it, as it holds for a row, and not `off` where headers are sent."""
    for name, value in {"PRESET": "off", "CSP": "default-src 'none'", "HSTS": "max-age=60"}.items():
        monkeypatch.setenv(f"ASGI_GUARD_SECURITY_{name}", value)
    rows = """[{"path": "/docs", "security": "docs"}, {"path": "/bare", "security": "off"},
               {"path": "/page", "security": {"referrer_policy": "origin"}}]"""
    monkeypatch.setenv("ASGI_GUARD_ROUTES", rows)
    assert explained(command, "GET", path)["security"] == holds


def test_limits_where_no_credentials_are_looked_at(command: Command) -> None:
    """On a row that looks at no credentials, everyone is limited as a stranger is."""
    assert explained(command, "GET", "/news")["limits"] == {"of anyone": ["5/second by anonymous (as 'anonymous')"]}
    assert explained(command, "POST", "/login")["limits"] == {"of anyone": ["5/minute by ip (as 'login-ip')"]}


def test_limits_by_sort_of_client(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients of each sort that there is have their own limits."""
    monkeypatch.setenv("ASGI_GUARD_AUTH_API_KEYS", f"ci={DIGEST}")
    assert explained(command, "GET", "/maps")["limits"] == {
        "without identity": ["5/second by anonymous (as 'anonymous')"],
        "with a token": ["10/second by user (as 'user')"],
        "with an API key": ["10/second by user (as 'user')"],
    }


def test_identity_is_off(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody is asked who they are, that is the reason that is told."""
    for name in ("AUTH_ISSUER", "AUTH_AUDIENCE", "RATE_LIMIT", "ROUTES"):
        monkeypatch.delenv(f"ASGI_GUARD_{name}")
    found = explained(command, "GET", "/")
    assert found["auth"] == "none"
    assert found["auth_because"].startswith("identity is off: neither ASGI_GUARD_AUTH_ISSUER nor")
    assert found["limits"] == {"of anyone": []}
    assert "limits from" not in command("explain", "GET", "/").out


def test_api_keys_alone(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only API keys are believed, nothing is said of tokens."""
    for name in ("AUTH_ISSUER", "AUTH_AUDIENCE"):
        monkeypatch.delenv(f"ASGI_GUARD_{name}")
    monkeypatch.setenv("ASGI_GUARD_AUTH_API_KEYS", f"ci={DIGEST}")
    assert set(explained(command, "GET", "/maps")["limits"]) == {"without identity", "with an API key"}


def test_plain_text(command: Command) -> None:
    """For a reader, the same facts are lines of text."""
    lines = [" ".join(line.split()) for line in command("explain", "PUT", "/payments/1").out.splitlines()]
    assert lines == [
        "PUT /payments/1",
        "rule row 6: any method /payments/*",
        "auth required (what no row opens needs an identity)",
        "scopes payments:write",
        "limits without identity none",
        "limits with a token 8/second by user (as 'payments-user')",
        "limits from row 6, at a cost of 5 a request",
        "security docs",
        "cors off",
        "csrf off",
        "",
    ]
    probe = command("explain", "GET", "/health/live").out
    assert "the guard answers this probe itself" in probe
    assert "routers may disagree" in command("explain", "GET", "/files//x").out


def test_a_path_without_a_slash(command: Command) -> None:
    """A path that no request could have is refused with the reason."""
    ran = command("explain", "GET", "login")
    assert ran.code == 2
    assert "a path starts with '/'" in ran.err


def test_a_path_that_is_no_text() -> None:
    """A path of bytes that are no text is explained as a server would decode it."""
    ran = program("explain", "GET", os.fsdecode(b"/\xff"), "--json")
    assert (ran.code, ran.err) == (0, "")
    assert orjson.loads(ran.out)["request"] == "GET /\ufffd"


def test_a_broken_configuration() -> None:
    """Where the configuration cannot be used, the problems are told as `check` tells them."""
    ran = program("explain", "GET", "/", ASGI_GUARD_RATE_LIMIT="x")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(
        "asgi-guard: the configuration has 1 problem:\n  ASGI_GUARD_RATE_LIMIT: 'x' is not a limit"
    )


def test_the_resources_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    """The document that tells clients of the issuer is answered by the guard itself, for anyone."""
    for name, value in {
        "AUTH_ISSUER": "https://id.example.com",
        "AUTH_RESOURCE": "https://api.example.com/mcp",
    }.items():
        monkeypatch.setenv(f"ASGI_GUARD_{name}", value)
    said = invoke("explain", "GET", "/.well-known/oauth-protected-resource/mcp").output
    assert "the guard answers this itself" in said
    assert "none (anyone may ask)" in said
    assert "required" in invoke("explain", "GET", "/mcp").output


@pytest.mark.parametrize("method", ["WEBSOCKET", "ws", "WSS"])
def test_a_websocket_is_asked_about_as_a_get(command: Command, method: str) -> None:
    """A word that is the method of no request is refused, since no row could hold for it, with the one that is."""
    ran = command("explain", method, "/news")
    assert (ran.code, ran.out) == (2, "")
    assert "Invalid value for METHOD: a WebSocket handshake is a GET: write GET" in ran.err


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("DELTE", "there is no method DELTE; did you mean DELETE?"),
        ("psot", "there is no method psot; did you mean POST?"),
        ("GET,POST", "'GET,POST' is no method: name one, as in POST"),
        ("", "'' is no method: name one, as in POST"),
    ],
)
def test_a_method_that_no_request_has(command: Command, method: str, said: str) -> None:
    """One that is misspelt, or several, would be answered for as a method that no row names; one of an app's own is."""
    ran = command("explain", method, "/news")
    assert (ran.code, ran.out) == (2, "")
    assert f"Invalid value for METHOD: {said}" in ran.err
    assert explained(command, "publish", "/news")["request"] == "PUBLISH /news"
