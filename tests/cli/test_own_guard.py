"""The commands that look at the Guard that an app brings along: what it was given in Python holds for them too."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

import pytest

from asgi_guard.apps.loading import load_app
from asgi_guard.testing import LocalIssuer
from tests.asgi import get
from tests.cli.running import invoke
from tests.stores.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Command

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
    assert "1 limit of tenant:" in invoke("limits", "reset", "tenant:acme", *APP).output
    assert json.loads(invoke("limits", "show", emptiest["client"], *APP, "--json").output) == []


def test_what_it_asks_of_a_request_is_explained(token: str) -> None:
    """Its limits are told, and its defaults are not those of the environment."""
    answer = json.loads(invoke("explain", "GET", "/", *APP, "--json").output)
    assert answer["auth"] == "required"
    assert answer["limits"]["with a token"] == ["5/minute by tenant (as 'tenant')", "100/hour by ip (as 'ip')"]
    assert json.loads(invoke("explain", "GET", "/", "--json").output)["auth"] == "none"


def test_a_variable_that_does_not_hold_is_no_rule(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where limits are given in Python beside a variable that is set, they are said to be of the former."""
    assert token
    monkeypatch.setenv("ASGI_GUARD_RATE_LIMIT", "9/second by ip")
    told = json.loads(invoke("explain", "GET", "/", *APP, "--json").stdout)
    assert told["limits_because"] == "RateSettings(limit=...)"
    monkeypatch.setenv("ASGI_GUARD_APP", "")
    assert json.loads(invoke("explain", "GET", "/", "--json").stdout)["limits_because"] == "ASGI_GUARD_RATE_LIMIT"


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


def test_its_store_may_be_played(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of its store is told, too, that it has any certificate accepted; its URL is not."""
    source = SOURCE.format(store="rediss://user:hunter2@h?ssl_cert_reqs=none", issuer="https://id.example.com")
    (tmp_path / "played_limits.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    said = invoke("check", "--app", "played_limits:app", "--no-probe", "--json").stdout
    (warned,) = [text for text in json.loads(said)["warnings"] if "can play it" in text]
    assert "the URL of the store that is given in Python says ssl_cert_reqs=none" in warned
    assert "hunter2" not in said


ROOTED = """
from fastapi import FastAPI
from asgi_guard import APIKey, AuthSettings, Guard, GuardSettings, RequestIDMiddleware, Route

api = FastAPI()
api.root_path = "/v1"
auth = AuthSettings(api_keys=(APIKey("ci", "0" * 64),))
rows = (Route("/admin", scopes=("admin",)), Route("/v1/users", scopes=("users",)))
app = Guard(api, GuardSettings(auth=auth, routes=rows))

outer = FastAPI()
outer.mount("/v1", app)
added = FastAPI()
added.add_middleware(Guard)
wrapped = RequestIDMiddleware(app)
"""


@pytest.fixture
def rooted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Apps with a root path, to be found."""
    (tmp_path / "rooted_site.py").write_text(ROOTED)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "rooted_site", raising=False)


@pytest.mark.usefixtures("rooted")
def test_a_root_path_is_explained_as_the_guard_reads_it() -> None:
    """Paths are explained below the app's own root path, and a row that begins with it is told to match nothing."""
    for path in ("/admin", "/v1/admin"):
        answer = json.loads(invoke("explain", "GET", path, "--app", "rooted_site:app", "--json").output)
        assert (answer["request"], answer["rule"]) == (f"GET {path}", "row 1: any method /admin")
    said = invoke("explain", "GET", "/v1/admin", "--app", "rooted_site:app").output
    assert "/admin, below the app's own root path /v1" in said
    assert "no row matches" in invoke("explain", "GET", "/v1/users", "--app", "rooted_site:app").output
    assert "row 1" in invoke("explain", "GET", "/v1/admin", "--app", "rooted_site:wrapped").output
    checked = json.loads(invoke("check", "--app", "rooted_site:app", "--json", "--no-probe").output)
    beyond = "no request matches the row /v1/users, since paths are those below the root path /v1: write /users"
    assert beyond in checked["warnings"]


@pytest.mark.usefixtures("rooted")
def test_an_app_that_is_no_guard_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever names an app without a guard is told that a server by itself would serve it bare."""
    told = "rooted_site:outer is no Guard: this is what `asgi-guard run rooted_site:outer` does"
    assert told in invoke("explain", "GET", "/x", "--app", "rooted_site:outer").output
    assert told in invoke("check", "--app", "rooted_site:outer", "--no-probe").output
    for name in ("app", "added", "wrapped"):
        assert "is no Guard" not in invoke("check", "--app", f"rooted_site:{name}", "--no-probe").output
    monkeypatch.setenv("ASGI_GUARD_APP", "rooted_site:outer")
    assert "is no Guard" not in invoke("check", "--no-probe").output


BESIDE = """
from asgi_guard import APIKey, AuthSettings, Guard, GuardSettings
from tests.asgi import Echo
from tests.apps.test_own_guard import Engine, Plain, added

auth = AuthSettings(api_keys=(APIKey("ci", "0" * 64),))
app = Engine(Guard(Echo(), GuardSettings(auth=auth)))
last = added(Plain)
within = Engine(added())
"""


def test_what_goes_past_its_guard_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever asks about the Guard within something that may answer by itself is told so, whoever named the app."""
    (tmp_path / "beside_site.py").write_text(BESIDE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "beside_site", raising=False)
    for attribute, name, auth in (
        ("app", "Engine", "required"),
        ("last", "Plain", "none"),
        ("within", "Engine", "none"),
    ):
        told, named = f"{name} stands around the app's own Guard, and may answer", ("--app", f"beside_site:{attribute}")
        answer = json.loads(invoke("explain", "GET", "/socket.io/", *named, "--json").output)
        assert (answer["auth"], answer["guard"][: len(told)]) == (auth, told)
        assert told in invoke("explain", "GET", "/socket.io/", *named).output
        said = json.loads(invoke("check", *named, "--no-probe", "--json").output)
        assert [warning[: len(told)] for warning in said["warnings"]].count(told) == 1
        assert f"warning: {told}" in invoke("check", *named, "--no-probe").output
    monkeypatch.setenv("ASGI_GUARD_APP", "beside_site:app")
    answer = json.loads(invoke("explain", "GET", "/socket.io/", "--json").output)
    assert answer["auth"] == "none"  # that is what the environment's does, which is put around it
    assert answer["guard"].startswith("Engine stands around")


ADDED = """
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from asgi_guard import APIKey, AuthSettings, Guard, GuardSettings

positional, twice, made = FastAPI(), FastAPI(), FastAPI()
positional.add_middleware(Guard, GuardSettings(auth=AuthSettings(api_keys=(APIKey("ci", "0" * 64),))))
positional.add_middleware(CORSMiddleware)
twice.add_middleware(Guard)
twice.add_middleware(Guard)
made.add_middleware(Guard(made))
"""


def test_what_was_added_is_judged_as_the_app_would_make_it(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Settings by position are those that hold; what would fail with the first request is refused, by `run` too."""
    (tmp_path / "added_site.py").write_text(ADDED)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "added_site", raising=False)
    answer = json.loads(command("explain", "GET", "/", "--app", "added_site:positional", "--json").out)
    assert answer["auth"] == "required"
    warned = json.loads(command("check", "--no-probe", "--app", "added_site:positional", "--json").out)["warnings"]
    (of_cors,) = [each for each in warned if "CORSMiddleware" in each]
    assert of_cors.startswith("CORSMiddleware stands around the app's own Guard")
    for name, said in (("twice", "a Guard was added to it twice"), ("made", "add_middleware takes the class")):
        for asked in (("check", "--no-probe", "--app"), ("run",)):
            ran = command(*asked, f"added_site:{name}")
            assert (ran.code, ran.out, f"  app: {said}" in ran.err) == (2, "", True)


def test_without_the_app_a_function_is_unknown_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the environment alone is looked at, the error says that a function is given to the Guard."""
    monkeypatch.setenv("ASGI_GUARD_RATE_LIMIT", "5/minute by tenant")
    said = " ".join(invoke("explain", "GET", "/").output.split())
    assert "there is no key 'tenant'" in said
    assert "or a function that Guard is given" in said


def test_the_app_that_the_environment_names(token: str, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked at where no other is said, and what is wrong with it is told by the variable."""
    monkeypatch.setenv("ASGI_GUARD_APP", "own_limits:app")
    said = json.loads(invoke("check", "--json", "--no-probe").output)
    assert said["settings"]["ASGI_GUARD_RATE_LIMIT"] == "5/minute by tenant; 100/hour by ip"
    told = command("check", "--no-probe", "--app", "own_limits:nope")
    assert (told.code, "--app: the module 'own_limits' has no" in told.err) == (2, True)


@pytest.mark.parametrize("name", ["elsewhere", "elsewhere:", ":app", "elsewhere:()"])
@pytest.mark.parametrize("arguments", [("check", "--no-probe"), ("explain", "GET", "/"), ("token",)])
def test_a_name_that_is_none(
    command: Command, monkeypatch: pytest.MonkeyPatch, name: str, arguments: tuple[str, ...]
) -> None:
    """A name that names no app anywhere is a problem like others, and told beside them: no server starts with it."""
    monkeypatch.setenv("ASGI_GUARD_APP", name)
    monkeypatch.setenv("ASGI_GUARD_RATE_LIMITT", "1")
    ran = command(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert "  ASGI_GUARD_APP: name the app as module:attribute, as in myapp:app" in ran.err.splitlines()
    assert "  ASGI_GUARD_RATE_LIMITT: there is no such variable" in ran.err
    monkeypatch.delenv("ASGI_GUARD_RATE_LIMITT")
    assert command(*arguments).code == 2
    if arguments[0] == "check":
        assert command(*arguments, "--app", "").code == 0


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("", "has no attribute 'app'"),
        ("import os; print('at work'); os.environ['DATABASE_URL_OF_NOBODY']", "importing it raised KeyError"),
        ("import sys; sys.exit(0)", "importing it ended by sys.exit(0)"),
        ("raise SystemExit", "importing it ended by sys.exit()"),
    ],
)
def test_an_app_that_is_not_at_home_here(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, why: str
) -> None:
    """Where the environment's app cannot be imported, what the environment says is looked at, and that is noted."""
    (tmp_path / "elsewhere.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "elsewhere", raising=False)
    monkeypatch.setenv("ASGI_GUARD_APP", "elsewhere:app")
    said = json.loads(command("check", "--json", "--no-probe").out)
    assert any("ASGI_GUARD_APP=elsewhere:app was not looked at" in note and why in note for note in said["notes"])
    said = json.loads(command("check", "--json", "--no-probe", "--app", "").out)
    assert not any("was not looked at" in note for note in said["notes"])
    monkeypatch.setenv("ASGI_GUARD_RATE_LIMITT", "1")
    told = command("check", "--no-probe")
    assert (told.code, "ASGI_GUARD_RATE_LIMITT: there is no such variable" in told.err) == (2, True)


@pytest.mark.parametrize("asked", [("explain", "GET", "/"), ("check", "--no-probe")])
@pytest.mark.parametrize("name", ["talking_site:app", "talking_site:create()"])
def test_what_an_app_prints_is_no_part_of_the_answer(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked: tuple[str, ...], name: str
) -> None:
    """A module or a factory that prints while it is looked at prints on standard error, and the answer is JSON."""
    (tmp_path / "talking_site.py").write_text(
        "from asgi_guard import Guard\nfrom tests.asgi import Echo\nprint('loading')\napp = Guard(Echo())\n"
        "def create():\n    print('making')\n    return app\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "talking_site", raising=False)
    ran = command(*asked, "--app", name, "--json")
    assert isinstance(json.loads(ran.out), dict)
    assert ran.err.startswith("loading\nmaking" if name.endswith("()") else "loading\n")
