"""What `asgi-guard run` and `asgi-guard demo` do not start with: told by the option or the variable at fault."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import program
from tests.end_to_end.serving import ROOT, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Command


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("name", ["run_site:nope", "nowhere_site:app", "run_site"])
def test_an_app_that_is_not_there(command: Command, site: Path, name: str, workers: str) -> None:
    """A name that leads to no app is told once, with exit code 2, however many workers would have looked for it."""
    ran = command("run", name, "--app-dir", str(site), "--workers", workers)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("asgi-guard: the configuration has 1 problem:\n  MODULE:ATTRIBUTE: ")


@pytest.mark.parametrize(("folder", "why"), [("nowhere", "does not exist"), ("run_site.py", "is a file")])
def test_a_folder_that_is_none(command: Command, site: Path, folder: str, why: str) -> None:
    """A folder to look in that is not there, or is a file, is told by its option, and not as a missing module."""
    ran = command("run", "run_site:app", "--app-dir", str(site / folder))
    assert (ran.code, ran.out) == (2, "")
    assert "Invalid value for '--app-dir'" in ran.err
    assert why in ran.err


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("name", ["run_site:app", "run_site:added"])
def test_a_broken_configuration(site: Path, name: str, workers: str) -> None:
    """With a configuration that cannot be used, nothing is served: the problems, exit code 2, and no traceback.

    So it is where the guard was added as middleware, and would be made with the first request.
    """
    ran = program("run", name, "--app-dir", str(site), "--workers", workers, ASGI_GUARD_CORS_ALLOW_ORIGINS="x")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("asgi-guard: the configuration has 1 problem:\n  ASGI_GUARD_CORS_ALLOW_ORIGINS: ")
    assert len(ran.err.splitlines()) == 2


@pytest.fixture
def taken() -> Iterator[str]:
    """A port that somebody has."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield str(listener.getsockname()[1])


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_port_that_is_taken(command: Command, site: Path, taken: str, host: str, workers: str) -> None:
    """A port that somebody has is told by the option that changes it, before the app's start, which fails here."""
    where = ("--host", host, "--port", taken, "--workers", workers)
    ran = command("run", "run_site:failing", "--app-dir", str(site), *where)
    assert ran.code == 2
    assert f"  --port: {host}:{taken} cannot be used (Address already in use): choose another" in ran.err
    assert "no disk" not in ran.err


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("nowhere.invalid", "'nowhere.invalid' cannot be found ("),
        ("a..b", "'a..b' cannot be found ("),
        ("192.0.2.7", "'192.0.2.7' is no address of this machine (Cannot assign requested address)"),
    ],
)
@pytest.mark.parametrize("name", ["run", "demo"])
def test_a_host_that_is_not_here(command: Command, site: Path, name: str, host: str, message: str) -> None:
    """A host that cannot be found, or is another machine's, is told by its option, before the app's start."""
    app_dir = ("--app-dir", str(site)) if name == "run" else ()
    ran = command(name, "run_site:failing", *app_dir, "--host", host, "--port", str(free_port()))
    assert (ran.code, ran.out) == (2, "")
    assert f"  --host: {message}" in ran.err
    assert "no disk" not in ran.err


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("nowhere/s", "No such file or directory"),
        ("run_site.py", "something else is there"),
        ("s" * 120, "AF_UNIX path too long"),
    ],
)
def test_a_place_where_no_socket_can_be(command: Command, site: Path, place: str, reason: str) -> None:
    """A UNIX socket that cannot be made is told by its option and its path, before the app's start."""
    path = str(site / place)
    ran = command("run", "run_site:failing", "--app-dir", str(site), "--uds", path)
    assert (ran.code, ran.out) == (2, "")
    assert f"  --uds: no socket can be made at {path} ({reason}): name another place" in ran.err
    assert "no disk" not in ran.err


@pytest.mark.parametrize("beside", [("--port", "8000"), ("--host", "127.0.0.1")])
def test_a_unix_socket_and_a_port(command: Command, site: Path, beside: tuple[str, str]) -> None:
    """A server listens in one place: what would be ignored is refused, also if it is as by default."""
    ran = command("run", "run_site:app", "--app-dir", str(site), "--uds", str(site / "s"), *beside)
    assert (ran.code, ran.out) == (2, "")
    assert f"--uds is instead of {beside[0]}: say one or the other" in ran.err


def test_the_demo_on_one_port(command: Command, site: Path) -> None:
    """The app and its issuer cannot be at one port, which is told as such."""
    port = str(free_port())
    ran = command("demo", "--port", port, "--issuer-port", port)
    assert (ran.code, ran.out) == (2, "")
    assert f"  --issuer-port: {port} is the app's --port too: choose another" in ran.err


@pytest.mark.parametrize(
    "arguments",
    [("run", "{}"), ("run", "{}", "--workers", "2"), ("check", "--no-probe", "--app", "{}"), ("demo", "{}")],
    ids=" ".join,
)
@pytest.mark.parametrize(
    ("name", "raised"),
    [
        ("raising_site:app", "importing 'raising_site' raised KeyError: 'DATABASE_URL'"),
        ("callable_site:create()", "calling callable_site:create() raised KeyError: 'DATABASE_URL'"),
    ],
)
def test_an_app_that_raises(
    command: Command, site: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], name: str, raised: str
) -> None:
    """What an app's module or factory raises is told in a sentence, behind its own lines and no others."""
    function = "def create():\n    return {}['DATABASE_URL']\n"
    (site / "callable_site.py").write_text(function)
    (site / "raising_site.py").write_text(f"{function}create()\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "callable_site", raising=False)
    module = site / f"{name.partition(':')[0]}.py"
    ports = ("--port", str(free_port()), "--issuer-port", str(free_port())) if arguments[0] == "demo" else ()
    ran = command(*(each.format(name) for each in arguments), *ports)
    assert (ran.code, ran.out) == (2, "")
    head, first, *rest = ran.err.splitlines()
    assert head == "Traceback (most recent call last):"
    assert first.startswith(f'  File "{module}", line ')
    assert all(str(module) in line for line in rest if line.startswith("  File "))
    argument = "--app" if arguments[0] == "check" else "MODULE:ATTRIBUTE"
    assert rest[-1] == f"  {argument}: {raised}"


@pytest.mark.parametrize(
    "arguments",
    [("run", "{}"), ("run", "{}", "--workers", "2"), ("check", "--no-probe", "--app", "{}"), ("demo", "{}")],
    ids=" ".join,
)
def test_an_app_that_ends_the_process(
    command: Command, site: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """An app that calls sys.exit(0) while it is imported is a problem: by its code the command would have done well."""
    (site / "ending_site.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.syspath_prepend(site)
    ports = ("--port", str(free_port()), "--issuer-port", str(free_port())) if arguments[0] == "demo" else ()
    ran = command(*(each.format("ending_site:app") for each in arguments), *ports)
    assert (ran.code, ran.out) == (2, "")
    argument = "--app" if arguments[0] == "check" else "MODULE:ATTRIBUTE"
    assert ran.err.splitlines()[-1] == f"  {argument}: importing 'ending_site' ended by sys.exit(0)"


@pytest.mark.parametrize(
    "arguments",
    [("run", "{}"), ("run", "{}", "--app-dir", "../inside"), ("check", "--no-probe", "--app", "{}"), ("demo", "{}")],
    ids=" ".join,
)
def test_where_modules_are_is_said_whole(
    command: Command, site: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """The folder of the app is known by its whole path, since an app may change the folder while it is imported."""
    folder = site / "inside"
    folder.mkdir()
    (folder / "going_site.py").write_text("import sys\nraise LookupError(sys.path[0])\n")
    monkeypatch.chdir(folder)
    ports = ("--port", str(free_port()), "--issuer-port", str(free_port())) if arguments[0] == "demo" else ()
    *_, said = command(*(each.format("going_site:app") for each in arguments), *ports).err.splitlines()
    (_, _, found) = said.partition("raised LookupError: ")
    assert found.startswith(str(site))
    assert found.endswith("inside")


@pytest.mark.parametrize(
    ("said", "counted"), [("", "3"), (" ", "3"), ("2", "3"), ("3", "3"), ("8", "8"), ("many", "many")]
)
def test_workers_that_are_counted(
    command: Command,
    site: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    said: str,
    counted: str,
) -> None:
    """The variable counts the workers that are started at least; where it says fewer, that is warned of."""
    (site / "counting_site.py").write_text("import os\nraise LookupError(os.environ['ASGI_GUARD_RATE_WORKERS'])\n")
    monkeypatch.setenv("ASGI_GUARD_RATE_WORKERS", said)
    ran = command("run", "counting_site:app", "--app-dir", str(site), "--workers", "3")
    assert ran.err.splitlines()[-1].endswith(f"raised LookupError: {counted}")
    warned = [record.getMessage() for record in caplog.records if "RATE_WORKERS" in record.getMessage()]
    assert warned == (["ASGI_GUARD_RATE_WORKERS=2 is less than --workers: 3 are counted"] if said == "2" else [])


def test_the_demo_of_a_guarded_app(command: Command, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app that has its guard is told by the argument, and what to name in its place."""
    monkeypatch.syspath_prepend(site)
    ran = command("demo", "run_site:within()", "--port", str(free_port()), "--issuer-port", str(free_port()))
    assert (ran.code, ran.out) == (2, "")
    told = "run_site:within() has a Guard already, and the demo puts its own around: name the bare app within it"
    assert f"  MODULE:ATTRIBUTE: {told}" in ran.err


@pytest.mark.parametrize("option", ["--port", "--issuer-port"])
def test_demo_on_a_port_that_is_taken(command: Command, site: Path, taken: str, option: str) -> None:
    """A port that somebody has is told by the option that changes it."""
    other = "--issuer-port" if option == "--port" else "--port"
    ran = command("demo", option, taken, other, str(free_port()))
    assert ran.code == 2
    assert f"  {option}: 127.0.0.1:{taken} cannot be used (Address already in use): choose another" in ran.err


@pytest.mark.parametrize("beside", [{}, {"ASGI_GUARD_STORE_TIMEOUT": "soon"}])
@pytest.mark.parametrize(("found", "said"), [("", "it is empty: name a folder"), ("nowhere", "there is no folder ")])
def test_a_folder_of_measures_that_is_none(site: Path, found: str, said: str, beside: dict[str, str]) -> None:
    """Workers that could not measure together are not started, and leave no files where they were to be."""
    place = found and str(site / found)
    ran = program(
        *("run", "run_site:app", "--app-dir", str(site), "--workers", "2"),
        ASGI_GUARD_METRICS_PATH="/metrics",
        PROMETHEUS_MULTIPROC_DIR=place,
        **beside,
    )
    assert ran.code == 2
    assert f"  PROMETHEUS_MULTIPROC_DIR: {said}" in ran.err
    assert all(f"  {name}: " in ran.err for name in beside)
    assert "Traceback" not in ran.err
    assert not list(ROOT.glob("*.db"))
