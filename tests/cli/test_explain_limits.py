"""`asgi-guard explain`: everything that limits a request, and whom it does not limit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from tests.configuring import DIGEST

if TYPE_CHECKING:
    from tests.cli.conftest import Command

SAID = {
    "AUTH_ISSUER": "https://id.example.com",
    "AUTH_AUDIENCE": "shop",
    "AUTH_API_KEYS": json.dumps({"ci": {"sha256": DIGEST, "plan": "partner"}}),
    "STORE_URL": "redis://127.0.0.1:1",
    "RATE_LIMIT": "10/second by user; 2 at once by ip on-failure deny; 9/hour by ip; 5/hour by anonymous shadow",
    "RATE_PLANS": json.dumps({"pro": "90/second by user", "partner": "50/second by api-key"}),
    "RATE_PLAN_CLAIM": "plan",
    "RATE_EXEMPT": "10.0.0.0/8",
    "RATE_MESSAGES": "20/second burst 40",
    "ROUTES": json.dumps([{"path": "/open", "auth": "none"}, {"path": "/free", "limits": ""}]),
}
BY_IP = ["2 at once by ip on-failure deny (as 'ip-at-once')", "9/hour by ip (as 'ip')"]


@pytest.fixture(autouse=True)
def _configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SAID.items():
        monkeypatch.setenv(f"ASGI_GUARD_{name}", value)


def explained(command: Command, path: str = "/") -> dict[str, Any]:
    ran = command("explain", "GET", path, "--json")
    assert ran.code == 0, ran.err
    found: dict[str, Any] = orjson.loads(ran.out)
    return found


def test_everything(command: Command) -> None:
    """Each plan, each exemption, what refuses early and what holds without the store is told."""
    found = explained(command)
    assert found["limits"] == {
        "without identity": [*BY_IP, "5/hour by anonymous shadow (as 'anonymous', in shadow)"],
        "with a token": ["10/second by user (as 'user')", *BY_IP],
        "with a token of plan 'pro'": [*BY_IP, "90/second by user (as 'pro-user')"],
        "with a token of plan 'partner'": BY_IP,
        "with an API key": ["10/second by user (as 'user')", *BY_IP],
        "with an API key of plan 'partner'": [*BY_IP, "50/second by api-key (as 'partner-api-key')"],
    }
    assert found["exempt"] == ["10.0.0.0/8"]
    assert found["messages"] == "20/second burst 40 by WebSocket"
    assert found["before_identity"] == ["ip"]
    assert found["without_store"] == {
        "user": "local", "ip-at-once": "deny", "ip": "local", "pro-user": "local", "partner-api-key": "local",
    }  # fmt: skip


def test_plain_text(command: Command) -> None:
    """For a reader, the same facts are lines of text."""
    lines = [" ".join(line.split()) for line in command("explain", "GET", "/open").out.splitlines()]
    assert "exempt 10.0.0.0/8" in lines
    assert "messages 20/second burst 40 by WebSocket" in lines
    assert "refuse before identity ip" in lines
    assert "without the store ip-at-once: deny, ip: local" in lines


def test_where_no_credentials_are_looked_at(command: Command) -> None:
    """Of a row that looks at no credentials, only what limits anyone is told."""
    found = explained(command, "/open")
    assert list(found["limits"]) == ["of anyone"]
    assert found["without_store"] == {"ip-at-once": "deny", "ip": "local"}


def test_a_row_without_limits(command: Command) -> None:
    """Of a row without limits nothing is told but what holds for WebSockets."""
    found = explained(command, "/free")
    assert not any(found["limits"].values())
    assert found["exempt"] == ["10.0.0.0/8"]
    assert not {"before_identity", "without_store"} & set(found)


@pytest.mark.parametrize(
    "environment",
    [
        {"RATE_EXEMPT": "user:alice"},
        {"RATE_DENY_CACHE": "0"},
        {"RATE_SHADOW": "true"},
        {"RATE_LIMIT": "1/hour by user"},
        {"RATE_LIMIT": "1/hour by ip shadow"},
        {"RATE_LIMIT": "1 at once by ip"},
    ],
)
def test_what_waits_for_the_identity(
    command: Command, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    """Where no limit refuses before it is known who it is, none is told to."""
    for name, value in environment.items():
        monkeypatch.setenv(f"ASGI_GUARD_{name}", value)
    assert "before_identity" not in explained(command)


def test_everything_in_shadow(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """With everything in shadow, that is said of every limit."""
    monkeypatch.setenv("ASGI_GUARD_RATE_SHADOW", "true")
    found = explained(command)
    assert all(each.endswith(", in shadow)") for limits in found["limits"].values() for each in limits)
    assert found["messages"].endswith("(in shadow)")
    assert "without_store" not in found


def test_plans_without_a_claim(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no claim names a plan, only those of API keys are told."""
    monkeypatch.delenv("ASGI_GUARD_RATE_PLAN_CLAIM")
    found = explained(command)
    assert [name for name in found["limits"] if "plan" in name] == ["with an API key of plan 'partner'"]


@pytest.mark.parametrize(("messages", "refused"), [("1/second", True), ("", False)])
def test_a_doubtful_path(command: Command, monkeypatch: pytest.MonkeyPatch, messages: str, refused: bool) -> None:
    """Whether an odd path is refused is told as the layers that are on decide it."""
    for name in SAID:
        monkeypatch.delenv(f"ASGI_GUARD_{name}")
    monkeypatch.setenv("ASGI_GUARD_RATE_MESSAGES", messages)
    monkeypatch.setenv("ASGI_GUARD_ROUTES", '[{"path": "/a"}, {"path": "/a/*"}]')
    assert ("it is refused with 400" in explained(command, "/a/x/../b//c")["note"]) is False
    assert ("it is refused with 400" in explained(command, "/a//../")["note"]) is refused
