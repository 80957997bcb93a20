"""The route table in the settings: as JSON, from a file, in Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from asgi_guard import ConfigError, GuardSettings, SecurityHeaders
from asgi_guard.policy.routes import Route
from tests.configuring import DIGEST, problems


def test_routes_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row names its columns, and its lists may be written as such or with commas."""
    monkeypatch.setenv("ASGI_GUARD_AUTH_API_KEYS", f"ci={DIGEST}")
    monkeypatch.setenv(
        "ASGI_GUARD_ROUTES",
        """[
            {"path": "/login", "methods": "POST, PUT", "auth": "none", "limits": "5/minute by ip"},
            {"path": "/payments/*", "scopes": ["payments:write"], "cost": 5, "security": "docs"}
        ]""",
    )
    monkeypatch.setenv("ASGI_GUARD_RATE_LIMIT", "60/minute by ip")
    assert GuardSettings().routes == (
        Route("/login", methods=("POST", "PUT"), auth="none", limits="5/minute by ip"),
        Route("/payments/*", scopes=("payments:write",), cost=5, security="docs"),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{]", "this is not JSON"),
        ('[{"path": "/a"}\n {"path": "/b"}]', "(Expecting ',' delimiter at line 2, column 2)"),
        ("[" * 100_000, "this is not JSON"),
        ('{"path": "/"}', "this is no list: write a list of rows"),
        ("[1]", "number 1"),
        ('[{"path": "/"}, {"path": "x"}]', "number 2: path 'x' does not start with '/'"),
        ('[{"pth": "/"}]', "number 1, pth: there is no such column; did you mean path?"),
        ('[{"path": "/", "auth": "maybe"}]', "number 1, auth"),
        ('[{"path": "/", "methods": "[GET"}]', "neither a list"),
        ('[{"path": "/", "methods": "get"}]', "upper-case"),
        ('[{"path": "/", "limits": "often"}]', "'often' is not a limit"),
    ],
)
def test_routes_that_cannot_be_read(text: str, message: str) -> None:
    """What is wrong with the route table is told by its row."""
    found = problems(ROUTES=text)
    assert set(found) == {"ROUTES"}
    assert message in " ".join(found["ROUTES"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_routes_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoding: str) -> None:
    """The route table may stand in a TOML file, which may begin with the mark of UTF-8."""
    file = tmp_path / "routes.toml"
    table = '[[routes]]\npath = "/a"\nlimits = "1/second by ip"\n\n[[routes]]\npath = "/b"\nmethods = "GET"\n'
    file.write_text(table, encoding)
    monkeypatch.setenv("ASGI_GUARD_ROUTES_FILE", str(file))
    assert GuardSettings().routes == (Route("/a", limits="1/second by ip"), Route("/b", methods=("GET",)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[[routes]", "is not TOML"),
        (b"\xff", "is not TOML"),
        (b"a = " + b"[" * 100_000, "is not TOML"),
        (b"", "holds nothing: it holds the table as [[routes]], and no more"),
        (b'[[route]]\npath = "/"\n', "holds route: it holds the table as [[routes]], and no more"),
        (b'[routes]\npath = "/"\n', "has one [routes]: rows are written [[routes]]"),
        (b'[[routes]]\npath = "login"\n', "number 1: path 'login' does not start"),
        (b'[[routes]]\npath = "/"\nlimit = "x"\n', "number 1, limit: there is no such column"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, content: bytes, message: str) -> None:
    """What is wrong with the file of routes is told under the variable that names it."""
    file = tmp_path / "routes.toml"
    file.write_bytes(content)
    (found,) = problems(ROUTES_FILE=str(file)).items()
    assert found[0] == "ROUTES_FILE"
    assert message in " ".join(found[1])


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A file of routes that cannot be read is told with the reason."""
    file = tmp_path / "none.toml"
    assert problems(ROUTES_FILE=str(file)) == {"ROUTES_FILE": [f"{file} cannot be read: No such file or directory"]}


def test_all_that_is_wrong_with_rows_is_told_at_once() -> None:
    """What is wrong with a row's path, columns and their values is told together, and so are the limits of others."""
    rows = [
        {"path": "login", "auth": "nope", "method": "POST"},
        {"pathh": "/x", "methods": ["post"], "cost": "5", "scopes": "a", "security": {"csp": 5}},
        {"path": "y", "security": {"nope": 1}, "cost": "x", "scopes": ["a", 5]},
        {"path": "/z", "limits": "5/minutee by ip"},
    ]
    (told,) = problems(ROUTES=json.dumps(rows)).values()
    for each in (
        "number 1, auth: write 'required', 'optional' or 'none'",
        "number 1, method: there is no such column; did you mean methods?",
        "number 1: path 'login' does not start with '/'",
        "number 2, path: it is missing",
        "number 2: methods post: methods are upper-case words, as in POST",
        "number 3: path 'y' does not start with '/'",
        "any method /z: '5/minutee by ip' is not a limit: did you mean '5/minute by ip'?",
    ):
        assert each in told
    assert not any("number 2: " in each and "cost" in each for each in told)


def test_rows_that_can_be_read_once() -> None:
    """Rows may come one by one; one that is wrong is told as in a list, and the others hold."""
    rows: Any = ({"path": path} for path in ("/x", "/y"))
    assert [row.path for row in GuardSettings(routes=rows).routes] == ["/x", "/y"]
    rows = ({"path": path} for path in ("/x", "x"))
    with pytest.raises(ConfigError) as caught:
        GuardSettings(routes=rows)
    assert [problem.message for problem in caught.value.problems] == ["number 2: path 'x' does not start with '/'"]


def test_a_row_in_python_may_say_a_list_as_a_text() -> None:
    """A list of rows that is given in Python is read as the environment's is, wrong rows beside others too."""
    rows: Any = [{"path": "/x", "methods": "GET, POST"}]
    assert GuardSettings(routes=rows).routes[0].methods == ("GET", "POST")
    rows = {1: {"path": "/x"}, 2: {"path": "x"}}.values()
    with pytest.raises(ConfigError) as caught:
        GuardSettings(routes=rows)
    assert [problem.message for problem in caught.value.problems] == ["number 2: path 'x' does not start with '/'"]


def test_routes_in_one_place_only(tmp_path: Path) -> None:
    """Routes in both places would hide one another, so one of them has to go."""
    found = problems(ROUTES_FILE=str(tmp_path), ROUTES='[{"path": "/"}]')
    told = "rows are given too (ASGI_GUARD_ROUTES, or routes=): keep the route table in one place"
    assert found == {"ROUTES_FILE": [told]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('limits = "5/minutee by ip"', "did you mean '5/minute by ip'?"),
        ('limits = "5/minute by ip"\ncost = 6', "costs 6"),
        ('security = { csp = "report-to main" }', "security of the row any method /a: csp: report-to main"),
        ("cost = 5", "no limit counts it"),
        ('limits = ";"\ncost = 5', "its own limits, ';', are none"),
        ("csrf = false", "is exempt from what is off"),
        ('path = "/*"\n\n[[routes]]\npath = "/b"', "the row any method /b never holds"),
        ('auth = "required"', "asks who it is, and nobody can say"),
        ('limits = "5/minute by user"', "limits identities, and there are none"),
    ],
)
def test_what_is_wrong_with_rows_of_a_file_is_told_by_it(tmp_path: Path, row: str, message: str) -> None:
    """What a layer, or another setting, finds wrong with a row of a file has the name of the file's variable."""
    file = tmp_path / "routes.toml"
    file.write_text("[[routes]]\n" + ("" if row.startswith("path") else 'path = "/a"\n') + row + "\n")
    found = problems(ROUTES_FILE=str(file))
    assert list(found) == ["ROUTES_FILE"]
    assert any(message in told for told in found["ROUTES_FILE"])


def test_rows_of_a_file_that_look_at_no_credentials(tmp_path: Path) -> None:
    """So it is where identities are known, and a row of the file looks at none."""
    file = tmp_path / "routes.toml"
    file.write_text('[[routes]]\npath = "/a"\nauth = "none"\nlimits = "5/minute by user"\n')
    (found,) = problems(ROUTES_FILE=str(file), AUTH_API_KEYS=f"ci={DIGEST}").items()
    assert found[0] == "ROUTES_FILE"
    assert "looks at no credentials" in found[1][0]


def test_all_that_is_wrong_with_rows_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    """What the settings find wrong with the rows of a file hides nothing of what the layers do."""
    file = tmp_path / "routes.toml"
    file.write_text('[[routes]]\npath = "/a"\ncost = 5\n[[routes]]\npath = "/b"\nlimits = "5/minutee by ip"\n')
    (told,) = problems(ROUTES_FILE=str(file)).values()
    assert len(told) == 2


def test_rows_in_python_beside_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever gives rows in Python, where the variable names a file, is told of both."""
    monkeypatch.setenv("ASGI_GUARD_ROUTES_FILE", str(tmp_path))
    with pytest.raises(ConfigError, match=r"rows are given too \(ASGI_GUARD_ROUTES, or routes=\)"):
        GuardSettings(routes=(Route("/a"),))


def test_a_row_with_security_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row may say security headers one by one, and a misspelt one is told by its place."""
    said = '{"preset": "page", "frame_options": "SAMEORIGIN"}'
    monkeypatch.setenv("ASGI_GUARD_ROUTES", f'[{{"path": "/a", "security": {said}}}]')
    (route,) = GuardSettings().routes
    assert route.security == SecurityHeaders("page", frame_options="SAMEORIGIN")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            '{"frame_option": "DENY"}',
            "number 1, security, frame_option: there is no such column; did you mean frame_options?",
        ),
        ('{"frame_options": "X"}', "number 1: "),
        ('{"preset": "pages"}', "number 1, security, preset: write 'api', 'page', 'docs' or 'off'"),
        ('"pages"', "number 1, security: write 'api', 'page', 'docs' or 'off'"),
        ("3", "number 1, security: write 'api', 'page', 'docs' or 'off'"),
    ],
)
def test_security_headers_of_a_row_that_cannot_be(said: str, message: str) -> None:
    """What is wrong with a row's security headers is told once, by its place."""
    (found,) = problems(ROUTES=f'[{{"path": "/a", "security": {said}}}]')["ROUTES"]
    assert found.startswith(message)
