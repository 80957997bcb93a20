"""`asgi-guard check --headers`: the grade of what is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    import pytest

    from tests.cli.conftest import Command


def test_every_set_is_graded(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default's headers are graded, and those of each row that says others."""
    monkeypatch.setenv("ASGI_GUARD_ROUTES", '[{"path": "/docs", "security": "docs"}, {"path": "/x", "cost": 2}]')
    monkeypatch.setenv("ASGI_GUARD_RATE_LIMIT", "9/second by ip")
    found = orjson.loads(command("check", "--headers", "--json").out)["headers"]
    assert set(found) == {"every path", "any method /docs"}
    assert (found["every path"]["score"], found["every path"]["letter"], found["every path"]["best"]) == (
        150,
        "A+",
        150,
    )
    (csp, *_) = found["any method /docs"]["results"]
    assert csp["points"] == -20


def test_plain_text(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a reader, each header has its points, and what would give more has its variable."""
    monkeypatch.setenv("ASGI_GUARD_SECURITY_PRESET", "page")
    text = " ".join(command("check", "--headers").out.split())
    assert "every path: 135 of 150, A+" in text
    assert "cross-origin-embedder-policy 0 there is none ASGI_GUARD_SECURITY_EMBEDDER_POLICY: say require-corp" in text


def test_no_headers(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the layer is off, what an app without any headers would get is told."""
    monkeypatch.setenv("ASGI_GUARD_SECURITY_PRESET", "off")
    assert "30 of 150, D" in command("check", "--headers").out
