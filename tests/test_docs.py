"""What the pages say, held to what the code does."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

import asgi_guard
from asgi_guard import Guard, GuardSettings
from asgi_guard.chain import response
from asgi_guard.policy.answer import Reason
from asgi_guard.policy.identity import APIKey, api_key_digest
from asgi_guard.policy.path_index import NO_ROW
from asgi_guard.policy.rates import parse_limits
from asgi_guard.policy.routes import Route, RouteTable
from asgi_guard.policy.token import MAX_TOKEN_BYTES
from asgi_guard.policy.vocabulary import DETAILS
from asgi_guard.settings import variables
from tests.asgi import Echo, call, get, http_scope
from tests.faults.test_redis_faults import NEEDED
from tests.pages import REGIONS, filled, pages, regions
from tests.reference import GROUPS

DOCS = Path(__file__).parents[1] / "docs"
BROWSER = (DOCS / "browser.md").read_text("utf-8")
LIMITS = (DOCS / "limits.md").read_text("utf-8")


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_variables_that_are_named_exist(page: Path) -> None:
    """Every variable that a page names is one."""
    known = {variable.name for variable in variables()}
    assert set(re.findall(r"ASGI_GUARD_[A-Z0-9_]*[A-Z0-9]", page.read_text("utf-8"))) <= known


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_what_pages_hold_of_the_code_is_current(page: Path) -> None:
    """What stands in a page of variables, reasons and names is what the code says; `make docs` puts it there."""
    text = page.read_text("utf-8")
    assert filled(text) == text


def test_the_paths_of_rows_are_as_shown() -> None:
    """Each row of the README's table on paths holds for the paths beside it, and not for those behind."""
    readme = (DOCS.parent / "README.md").read_text("utf-8")
    shown = re.findall(r'^\| `(/\S*)`(?: with `"auth": "(\w+)"`)? \| (.*) \| (.*) \|$', readme, re.MULTILINE)
    assert len(shown) == 9
    for path, auth, held, passed_over in shown:
        table = RouteTable([Route(path, auth=auth or None)])
        for paths, index in ((held, 0), (passed_over, NO_ROW)):
            found = {each: table.find(each, "GET") for each in re.findall(r"`([^`]+)`", paths)}
            assert set(found.values()) == {(index, False)}, (path, found)
    both = RouteTable([Route("/login"), Route("/login/")])
    assert [both.match(each, "GET") for each in ("/login", "/login/")] == [0, 1]


def test_how_long_a_token_may_be_is_told() -> None:
    """The page on identity has the bound on a token's bytes, and what makes tokens longer, as the advice does."""
    page = (DOCS / "identity.md").read_text("utf-8")
    assert f"A token has {MAX_TOKEN_BYTES} bytes at most" in page
    assert "groups" in DETAILS["too_large"].advice


def test_every_part_has_its_place() -> None:
    """Whatever is made of the code stands in one page, once."""
    assert sorted(name for page in pages() for name in regions(page.read_text("utf-8"))) == sorted(REGIONS)


def test_the_reference_has_every_public_name() -> None:
    """Every public name has its entry in the reference, once, and no other name has."""
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(asgi_guard.__all__)


def test_the_members_of_log_lines_are_told() -> None:
    """Every member of a log line that is the guard's own is in the page on operations, and so is each sort of end."""
    page, code = (DOCS / "operations.md").read_text("utf-8"), Path(asgi_guard.__file__).parent
    written = (code / "policy" / "log_record.py").read_text("utf-8")
    members = set(re.findall(r'"(asgi_guard\.\w+)"', written))
    assert len(members) == 14
    said = re.findall(r"(?:return|else) (\"\w+\"|[A-Z_]+\b)", inspect.getsource(response.Response.failure))
    ends = {getattr(response, name) for name in said}
    assert ends == {"client_disconnected", "response_unfinished"}
    assert {name for name in members | ends if f"`{name}`" not in page} == set()


def test_limits_that_are_shown_can_be_written() -> None:
    """Every limit of the page on limits can be parsed, and its options too."""
    shown = re.findall(r"^\| `([^`]* by [^`]*)` \|", LIMITS, re.MULTILINE)
    assert len(shown) == 4
    options = re.findall(r"^\| `((?:as|shadow|enforce|on-failure)[^`]*)` \|", LIMITS, re.MULTILINE)
    assert len(options) == 4
    for text in shown:
        assert parse_limits(text)
    for option in options:
        assert parse_limits(f"1/second by ip {option.replace('NAME', 'name')}")


def test_settings_that_are_shown_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings that the page on limits shows make a guard, all together."""
    for name, value in re.findall(r"(ASGI_GUARD_[A-Z_]+)=(?:\"([^\"]*)\"|'[^']*'|\S+)", LIMITS):
        if value:
            monkeypatch.setenv(name, value)
    for name, value in re.findall(r"(ASGI_GUARD_[A-Z_]+)='([^']*)'", LIMITS):
        monkeypatch.setenv(name, json.dumps(json.loads(value.replace("...", "0" * 64))))
    monkeypatch.setenv("ASGI_GUARD_RATE_PLAN_CLAIM", "plan")
    monkeypatch.setenv("ASGI_GUARD_AUTH_ISSUER", "https://id.example.com")
    monkeypatch.setenv("ASGI_GUARD_AUTH_AUDIENCE", "api")

    guard = Guard(Echo(), GuardSettings())

    assert set(guard.settings.rate.plans) == {"partner", "internal"}
    assert guard.settings.rate.messages
    assert len(guard.settings.routes) == 3


def test_permissions_that_are_shown_are_those_needed() -> None:
    """The least permissions that the page names are those that the tests of permissions run with."""
    assert NEEDED.replace("|", "\\|") in LIMITS


async def test_the_first_app_that_is_shown_can_be_added_to() -> None:
    """What the README shows first leaves the app its name: routes are added to it, and served behind the guard."""
    readme = (DOCS.parent / "README.md").read_text("utf-8")
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", readme, re.DOTALL)[0], names)  # noqa: S102 - it is what users are told
    names["api"].add_api_route("/items", lambda: "of the app")
    answer = await get(names["app"], "/items")
    assert (answer.status, "x-request-id" in answer.headers) == (200, True)


async def test_the_sessions_that_are_shown_are_guarded() -> None:
    """The app with sessions that the page on browsers shows works, for its own pages only, and with its token."""
    (code,) = (
        block for block in re.findall(r"```python\n(.*?)```", BROWSER, re.DOTALL) if "SessionMiddleware" in block
    )
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - it is what users are told to write
    app = names["app"]
    login = await call(app, http_scope("POST", "/login"))
    session = (b"cookie", login.headers["set-cookie"].partition(";")[0].encode())
    page = await get(app, "/", [session])
    token = re.findall(rb'content="(\S+)"', page.body)[0]
    assert "Cookie" in page.headers["vary"].title()
    moved = await call(app, http_scope("POST", "/move", [session, (b"x-csrf-token", token)]))
    assert (moved.status, moved.body) == (200, b"moved for alice")
    same = (b"sec-fetch-site", b"same-origin")
    assert (await call(app, http_scope("POST", "/move", [session, same]))).status == 200
    for forged in ((b"sec-fetch-site", b"cross-site"), (b"origin", b"https://evil.example"), (b"x-csrf-token", b"x")):
        assert (await call(app, http_scope("POST", "/move", [session, forged]))).status == 403


def test_the_key_that_is_made_as_shown_can_be_used() -> None:
    """The line that the page on identity shows prints a key and the hash by which it is configured."""
    (line,) = re.findall(r'^    python3 -c "(.*)"$', (DOCS / "identity.md").read_text("utf-8"), re.MULTILINE)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(line, {})  # noqa: S102 - it is what users are told to run
    key, digest = said.getvalue().split()
    assert api_key_digest(key.encode()) == APIKey("ci", digest).sha256


def test_reasons_that_are_named_exist() -> None:
    """The reasons that the page on browsers names are some."""
    named = set(re.findall(r"`((?:cross|csrf_token)_[a-z]+)`", BROWSER))
    assert named == {"cross_site", "csrf_token_missing", "csrf_token_invalid"}
    assert named <= {reason.value for reason in Reason}


def test_what_is_shown_of_apps_runs() -> None:
    """The code of the page on apps is run as it stands, one block after the other."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "apps.md").read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 2
    exec("\n".join(blocks), {"__name__": "shown"})  # noqa: S102 - that is what is tested
