"""`asgi-guard env`, and what holds for the whole command line."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import orjson
import pytest

from asgi_guard.cli import main
from asgi_guard.settings import variables
from tests.cli.conftest import program

if TYPE_CHECKING:
    from tests.cli.conftest import Command


def test_every_variable_is_listed(command: Command) -> None:
    """Plain text has one line for each variable, with its values, its default and its meaning."""
    ran = command("env")
    lines = ran.out.splitlines()
    assert ran.code == 0
    assert [line.split()[0] for line in lines if line] == [variable.name for variable in variables()]
    (line,) = (line for line in lines if line.startswith("ASGI_GUARD_LOG_FORMAT "))
    assert line.split("  ", 1)[1].split()[:3] == ["json", "|", "otel"]
    assert line.endswith("the schema; json is otel")


def test_json(command: Command) -> None:
    """JSON holds the same facts."""
    (issuer,) = (each for each in orjson.loads(command("env", "--json").out) if each["name"].endswith("AUTH_ISSUER"))
    assert issuer == {
        "name": "ASGI_GUARD_AUTH_ISSUER",
        "meaning": "the issuer whose tokens are accepted, as in its `iss`",
        "values": ["text"],
        "default": "",
    }


def test_markdown(command: Command) -> None:
    """The table of the README has a row for each variable, each with four columns."""
    rows = command("env", "--markdown").out.splitlines()
    assert len(rows) == 2 + len(variables())
    assert {row.replace(r"\|", "").count("|") for row in rows} == {5}


def test_one_form_at_a_time(command: Command) -> None:
    """Of JSON and Markdown one is said, and neither is passed over."""
    ran = command("env", "--json", "--markdown")
    assert (ran.code, ran.out) == (2, "")
    assert "Error: --json and --markdown are asked one at a time" in ran.err


def test_it_needs_no_right_configuration(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of variables is there for those whose variables are wrong."""
    monkeypatch.setenv("ASGI_GUARD_NOPE", "1")
    assert command("env").code == 0


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], *([name, "-h"] for name in main.commands)])
def test_help(command: Command, arguments: list[str]) -> None:
    """Every command explains itself."""
    ran = command(*arguments)
    assert ran.code == 0
    assert "Usage: asgi-guard" in ran.out


def test_version(command: Command) -> None:
    """The version is that of the installed distribution."""
    assert version("asgi-guard") in command("--version").out


def test_the_module_is_the_command() -> None:
    """`python -m asgi_guard` is `asgi-guard`."""
    ran = program("--version")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("asgi-guard, version ")


@pytest.mark.parametrize(
    "arguments", [["nope"], ["check", "--nope"], ["explain", "GET"], ["run", "a:b", "--log-level", "x"]]
)
def test_a_wrong_call(command: Command, arguments: list[str]) -> None:
    """A call that means nothing has exit code 2 and a line that says why."""
    ran = command(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert "Error: " in ran.err
