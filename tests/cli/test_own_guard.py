"""The commands that look at the Guard that an app brings along: what it was given in Python holds for them too."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

import pytest

from asgi_guard.loading import load_app
from asgi_guard.testing import LocalIssuer
from tests.asgi import get
from tests.cli.running import invoke
from tests.stores.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOURCE = """
from asgi_guard import AuthSettings, Guard, GuardSettings, RateSettings, RedisStore
from tests.asgi import Echo

store = RedisStore({store!r}, prefix="mine:", timeout=5)
auth = AuthSettings(issuer={issuer!r}, audience=("api",), revocation=True)
rate = RateSettings(limit="5/minute by tenant; 100/hour by ip")
settings = GuardSettings(auth=auth, rate=rate)
app = Guard(Echo(), settings, store=store, limit_functions={{"tenant": lambda scope: "acme"}})
"""
APP = ("--app", "own_limits:app")


@pytest.fixture(scope="module")
def issuer() -> Iterator[LocalIssuer]:
    with LocalIssuer(algorithm="ES256").serve() as issuer:
        yield issuer


@pytest.fixture
def token(issuer: LocalIssuer, valkey: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A token for the app, which is there to be found."""
    valkey.client.flushall()
    (tmp_path / "own_limits.py").write_text(SOURCE.format(store=valkey.url, issuer=issuer.url))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_limits", raising=False)
    return issuer.token("alice")


def use(token: str) -> list[int | None]:
    async def ask() -> list[int | None]:
        guard = load_app("own_limits:app")
        answers = [await get(guard, "/", [(b"authorization", f"Bearer {token}".encode())]) for _ in range(2)]
        for layer in guard.layers:  # type: ignore[attr-defined]  # it is a Guard
            await layer.shutdown()
        return [answer.status for answer in answers]

    return asyncio.run(ask())


def test_limits_by_a_function_are_shown_and_reset(token: str) -> None:
    """The buckets are those of its store, under its prefix, and a client is named by the function's text."""
    assert use(token) == [200, 200]
    shown = invoke("limits", "show", "tenant:acme", *APP, "--json")
    assert [(row["limit"], row["left"]) for row in json.loads(shown.output)] == [("tenant", 3)]
    (emptiest, _) = json.loads(invoke("limits", "top", *APP, "--json").output)
    assert emptiest["limit"] == "tenant"
    assert "1 of the limits" in invoke("limits", "reset", "tenant:acme", *APP).output
    assert json.loads(invoke("limits", "show", emptiest["client"], *APP, "--json").output) == []


def test_what_it_asks_of_a_request_is_explained(token: str) -> None:
    """Its limits are told, and its defaults are not those of the environment."""
    answer = json.loads(invoke("explain", "GET", "/", *APP, "--json").output)
    assert answer["auth"] == "required"
    assert answer["limits"]["with a token"] == ["5/minute by tenant (as 'tenant')", "100/hour by ip (as 'ip')"]
    assert json.loads(invoke("explain", "GET", "/", "--json").output)["auth"] == "none"


def test_a_token_is_judged_and_revoked_as_it_does(token: str) -> None:
    """Its issuer is asked, and the token is put among the revoked of its store."""
    assert "accepted: 'alice'" in invoke("token", "--explain", token, *APP).output
    assert "revoked, for the" in invoke("revoke", token, *APP).output
    assert "token_revoked" in invoke("token", "--explain", token, *APP).output
    assert use(token) == [401, 401]


def test_it_is_checked(token: str) -> None:
    """A check, and the checklist, take its limits and its store for what they are."""
    checked = invoke("check", *APP, "--no-probe", "--json")
    assert checked.exit_code == 0, checked.output
    assert json.loads(checked.output)["layers"]["rate_limit"]
    lines = json.loads(invoke("check", *APP, "--production", "--no-probe", "--json").output)["checklist"]
    (limits,) = (line["found"] for line in lines if line["name"] == "limits")
    assert limits == "identities are under no limit of their own"  # and not: each process counts for itself


def test_without_the_app_a_function_is_unknown_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the environment alone is looked at, the error says that a function is given to the Guard."""
    monkeypatch.setenv("ASGI_GUARD_RATE_LIMIT", "5/minute by tenant")
    said = " ".join(invoke("explain", "GET", "/").output.split())
    assert "there is no key 'tenant'" in said
    assert "or a function that Guard is given" in said


def test_the_app_that_the_environment_names(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked at where no other is said, and what is wrong with it is told by the variable."""
    monkeypatch.setenv("ASGI_GUARD_APP", "own_limits:app")
    said = json.loads(invoke("check", "--json", "--no-probe").output)
    assert said["settings"]["ASGI_GUARD_RATE_LIMIT"] == "5/minute by tenant; 100/hour by ip"
    told = invoke("check", "--no-probe", "--app", "own_limits:nope")
    assert (told.exit_code, "--app: the module 'own_limits' has no" in told.stderr) == (2, True)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("", "has no attribute 'app'"),
        ("import os; print('at work'); os.environ['DATABASE_URL_OF_NOBODY']", "importing it raised KeyError"),
    ],
)
def test_an_app_that_is_not_at_home_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, why: str
) -> None:
    """Where the environment's app cannot be imported, what the environment says is looked at, and that is noted."""
    (tmp_path / "elsewhere.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "elsewhere", raising=False)
    monkeypatch.setenv("ASGI_GUARD_APP", "elsewhere:app")
    said = json.loads(invoke("check", "--json", "--no-probe").stdout)
    assert any("ASGI_GUARD_APP=elsewhere:app was not looked at" in note and why in note for note in said["notes"])
    said = json.loads(invoke("check", "--json", "--no-probe", "--app", "").stdout)
    assert not any("was not looked at" in note for note in said["notes"])
    monkeypatch.setenv("ASGI_GUARD_RATE_LIMITT", "1")
    told = invoke("check", "--no-probe")
    assert (told.exit_code, "ASGI_GUARD_RATE_LIMITT: there is no such variable" in told.stderr) == (2, True)
