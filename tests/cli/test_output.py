"""How the command line speaks: tables and colour to a terminal, plain text to anything else."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import program
from tests.end_to_end.serving import ROOT

if TYPE_CHECKING:
    from tests.cli.conftest import Command

ESCAPE = "\x1b["


def in_a_terminal(*arguments: str, columns: int, **environment: str) -> tuple[int, str]:
    """Run `asgi-guard` with a terminal for its output: the exit code, and all that the terminal got."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ASGI_GUARD_")}
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "asgi_guard", *arguments],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        cwd=ROOT,
        env={**kept, "TERM": "xterm-256color", "COLUMNS": str(columns), **environment},
    )
    os.close(follower)
    said = bytearray()
    try:
        while piece := os.read(leader, 65536):
            said += piece
    except OSError:
        pass  # how Linux tells that the other side of a terminal is closed
    finally:
        os.close(leader)
    return process.wait(60), said.decode().replace("\r\n", "\n")


def test_a_terminal_gets_tables_and_colour() -> None:
    """In a terminal there are tables with borders, and states have colours."""
    code, said = in_a_terminal("check", columns=200)
    assert code == 0
    assert "┏━━━━━━━" in said
    assert f"{ESCAPE}32mon" in said
    assert f"{ESCAPE}33moff" in said


def test_a_narrow_terminal_cuts_nothing_off() -> None:
    """However narrow the terminal, a name is wrapped and never shortened, so that it can be copied."""
    code, said = in_a_terminal("env", columns=60, NO_COLOR="1")
    assert code == 0
    assert "…" not in said
    names = "".join(line.split("│")[1].strip() for line in said.splitlines() if line.startswith("│"))
    assert "ASGI_GUARD_AUTH_REVOCATION_ON_STORE_FAILURE" in names


def test_problems_in_a_terminal() -> None:
    """Problems are not wrapped, and what they quote is not taken for markup or for an emoji."""
    code, said = in_a_terminal("check", columns=40, ASGI_GUARD_RATE_LIMIT="[red]:key:[/nope]")
    assert code == 2
    assert f"{ESCAPE}1;31masgi-guard: the configuration has 1 problem:" in said
    assert "  ASGI_GUARD_RATE_LIMIT: '[red]:key:[/nope]' is not a limit: expected COUNT/PERIOD [burst N]" in said


def test_colour_may_be_forced(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where output is not a terminal, FORCE_COLOR asks for what a terminal gets; cells are text, not markup."""
    monkeypatch.setenv("ASGI_GUARD_HOSTS_ALLOWED", "shop.example")
    monkeypatch.setenv("ASGI_GUARD_ROUTES", '[{"path": "/[red]:key:[/x]"}]')
    monkeypatch.setenv("COLUMNS", "200")
    assert ESCAPE not in command("check").out
    monkeypatch.setenv("FORCE_COLOR", "1")
    said = command("check").out
    assert ESCAPE in said
    assert "any method /[red]:key:[/x]" in said


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""An environment in which Python takes all text for ASCII."""


@pytest.mark.parametrize("also", [(), ("--json",)])
@pytest.mark.parametrize("arguments", [("check", "--no-probe"), ("explain", "GET", "/caf\u00e9")], ids="-".join)
def test_what_a_locale_cannot_write_is_escaped(arguments: tuple[str, ...], also: tuple[str, ...]) -> None:
    """Where standard output takes ASCII alone, other characters are escaped; variables are UTF-8 all the same."""
    auth = {"ISSUER": "https://id.example.com", "RESOURCE": "https://shop.example", "RESOURCE_NAME": "Caf\u00e9"}
    environment = {f"ASGI_GUARD_AUTH_{name}": value for name, value in auth.items()}
    ran = program(*arguments, *also, **environment, **ASCII)
    assert (ran.code, ran.err) == (0, "")
    assert ("caf\\u00e9" if also else "caf\\xe9") in ran.out.lower()


@pytest.mark.parametrize(
    ("closed", "arguments", "code"),
    [
        (">&-", ("check",), 0),
        (">&- 2>&-", ("env", "--json"), 0),
        (">&- 2>&- <&-", ("check",), 0),
        ("2>&-", ("run", "nothing:here"), 2),
        ("<&-", ("token", "--explain", "-"), 2),
    ],
)
def test_streams_that_are_closed(closed: str, arguments: tuple[str, ...], code: int) -> None:
    """What shells close before the start takes no answer, and the exit code is the one that it would be otherwise."""
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -m asgi_guard "$@" {closed}', sys.executable, *arguments],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("ASGI_GUARD_")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
