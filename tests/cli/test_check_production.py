"""`asgi-guard check --production`: the checklist over what is in force, told by exit code too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from tests.cli.conftest import NOBODY

if TYPE_CHECKING:
    from pathlib import Path

    from asgi_guard.testing import LocalIssuer
    from tests.cli.conftest import Command
    from tests.stores.server import Server

GOOD = {
    "AUTH_ISSUER": "https://id.example.com",
    "AUTH_AUDIENCE": "shop",
    "AUTH_MAX_TOKEN_LIFETIME": "720",
    "AUTH_REVOCATION": "true",
    "STORE_URL": NOBODY,
    "RATE_LIMIT": "60/second burst 120 by user; 10/second burst 20 by anonymous",
    "HEALTH_DRAIN_SECONDS": "8",
    "PROXY_TRUSTED": "10.0.0.0/8",
}
APP = """
from asgi_guard import Guard

async def postgres():
    raise AssertionError("nobody asks it here")

async def inner(scope, receive, send):
    raise AssertionError("nobody asks it here")

app = Guard(inner, checks={"postgres": postgres})
"""


@pytest.fixture
def good(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GOOD.items():
        monkeypatch.setenv(f"ASGI_GUARD_{name}", value)


def checklist(command: Command, *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    ran = command("check", "--production", "--json", *arguments)
    told = orjson.loads(ran.out)
    assert told["holds"] == (not any(line["status"] == "fail" for line in told["checklist"]))
    return ran.code, {line["name"]: line for line in told["checklist"]}


def test_nothing_configured_fails(command: Command) -> None:
    """Without variables, lines fail, each with what to set, and the exit code tells."""
    ran = command("check", "--production")
    lines = [" ".join(line.split()) for line in ran.out.splitlines()]
    assert ran.code == 1
    assert "denylist fail revoked tokens are refused, by jti tokens are not looked up among the revoked" in lines
    assert "set: denylist: ASGI_GUARD_AUTH_REVOCATION=true" in lines
    assert "look: logout: in the app: await asgi_guard.revoke(request.scope)" in lines


@pytest.mark.usefixtures("good")
def test_what_is_right_passes(command: Command) -> None:
    """What the environment can say right passes; what only the app knows is not known, and fails nothing."""
    code, lines = checklist(command, "--no-probe", "--p99", "0.2")
    assert code == 0
    assert {name for name, line in lines.items() if line["status"] == "unknown"} == {
        "refresh tokens", "logout", "probes", "migrations", "lifespan",
    }  # fmt: skip


@pytest.mark.usefixtures("good")
@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("AUTH_MAX_TOKEN_LIFETIME", "1000", "access tokens"),
        ("AUTH_REVOCATION_ON_STORE_FAILURE", "allow", "denylist"),
        ("STORE_URL", "memory://", "limits"),
        ("RATE_SHADOW", "true", "limits"),
        ("RATE_LIMIT", "60/second by user", "limits"),
        ("RATE_LIMIT", "60/second by user; 1/second by anonymous shadow", "limits"),
        ("RATE_LIMIT", "60/second by user; 1/second by anonymous enforce 99%", "limits"),
        ("RATE_LIMIT", "60/second by user enforce 1%; 1/second by anonymous", "limits"),
        ("HEALTH_READY_PATH", "/health/live", ""),
        ("HEALTH_DRAIN_SECONDS", "0", "graceful stop"),
        ("LOG_FORMAT", "off", "logs"),
        ("SECURITY_PRESET", "off", "headers"),
        ("SECURITY_HSTS", "max-age=300", "headers"),
        ("CORS_ALLOW_ORIGINS", "https://*.shop.example", "cors"),
    ],
)
def test_one_thing_set_wrong(
    command: Command, monkeypatch: pytest.MonkeyPatch, name: str, value: str, line: str
) -> None:
    """One setting that is wrong for production makes its line fail; what cannot be used at all has exit code 2."""
    monkeypatch.setenv(f"ASGI_GUARD_{name}", value)
    if not line:
        assert command("check", "--production", "--no-probe").code == 2
        return
    code, lines = checklist(command, "--no-probe")
    assert code == 1
    assert lines[line]["status"] == "fail"


@pytest.mark.usefixtures("good")
def test_the_times_of_a_stop_are_compared(command: Command) -> None:
    """What the deployment gives a stop is held against what the stop takes."""
    assert checklist(command, "--no-probe", "--p99", "31")[1]["graceful stop"]["status"] == "fail"
    times = ("--p99", "31", "--graceful", "31", "--grace-period")
    assert checklist(command, "--no-probe", *times, "39")[1]["graceful stop"]["status"] == "fail"
    assert checklist(command, "--no-probe", *times, "40")[1]["graceful stop"]["status"] == "pass"


@pytest.mark.usefixtures("good")
def test_the_apps_own_guard_is_looked_at(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of an app that is a Guard, its checks are known, and its settings are those in force."""
    (tmp_path / "guarded_shop.py").write_text(APP)
    monkeypatch.syspath_prepend(str(tmp_path))
    code, lines = checklist(command, "--no-probe", "--app", "guarded_shop:app")
    assert code == 0
    assert lines["probes"]["found"] == "readiness asks keys, postgres, store"
    monkeypatch.setenv("ASGI_GUARD_AUTH_ISSUERS", '[{"issuer": "https://partner.example.com"}]')
    assert checklist(command, "--no-probe", "--app", "guarded_shop:app")[1]["probes"] == lines["probes"]
    assert checklist(command, "--no-probe", "--app", "guarded_shop:inner")[1]["probes"]["status"] == "unknown"
    assert command("check", "--app", "guarded_shop:nope").code == 2


@pytest.mark.usefixtures("good")
def test_what_does_not_answer_fails(
    command: Command, configured: LocalIssuer, valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store and the issuer are asked, and one that does not answer makes its line fail."""
    code, lines = checklist(command)
    assert code == 1
    assert lines["limits"]["found"] == "the store did not answer"
    monkeypatch.setenv("ASGI_GUARD_STORE_URL", valkey.url)
    assert checklist(command)[1]["limits"]["status"] == "pass"
    configured.outage = True
    assert command("check", "--production").code == 1


@pytest.mark.parametrize("option", ["--p99", "--graceful", "--grace-period"])
@pytest.mark.parametrize("value", ["nan", "inf", "-5", "soon"])
def test_what_is_no_number_of_seconds(command: Command, option: str, value: str) -> None:
    """A figure that could not be measured is refused by its option, and no line is judged by it."""
    ran = command("check", "--production", "--no-probe", option, value)
    assert (ran.code, ran.out) == (2, "")
    assert f"Invalid value for '{option}': " in ran.err
