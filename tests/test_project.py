"""What the project says of itself, held to what it is."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

import asgi_guard
from asgi_guard import (
    AuthSettings,
    CORSSettings,
    CSRFSettings,
    Guard,
    GuardSettings,
    HealthSettings,
    HostsSettings,
    MetricsSettings,
    RateSettings,
)
from asgi_guard.cli.check import SWITCHES
from tests.asgi import Echo

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_the_public_names_exist() -> None:
    """Every name of `__all__` is there, once, and says what it is."""
    assert len(set(asgi_guard.__all__)) == len(asgi_guard.__all__)
    for name in asgi_guard.__all__:
        assert getattr(asgi_guard, name).__doc__, name


def test_the_lowest_versions_are_those_of_the_project() -> None:
    """The constraints of the run against the lowest versions are the lower bounds of what users install."""
    extras = PROJECT["optional-dependencies"]
    required = [*PROJECT["dependencies"], *extras["server"], *extras["prometheus"], *extras["otel"]]
    bounds = dict(re.findall(r"^([a-z-]+)(?:\[\w+\])?>=([\d.]+)", "\n".join(required), re.MULTILINE))
    assert len(bounds) == len(required)
    lowest = (ROOT / "tests" / "lowest.txt").read_text("utf-8")
    pinned = dict(line.split("==") for line in lowest.splitlines() if not line.startswith("#"))
    assert set(pinned) == set(bounds)
    for name, bound in bounds.items():
        assert [*pinned[name].split("."), "0", "0"][:3] == [*bound.split("."), "0", "0"][:3], name


@pytest.mark.skipif(shutil.which("bash") is None, reason="the gate is a script of bash's")
@pytest.mark.parametrize(
    ("said", "valgrind", "status"),
    [
        ("instructions a guarded request: 7; good", True, 0),
        ("no figure is recorded for x: times are compared instead", True, 1),
        ("callgrind does not find functools_reduce in this Python: times are compared instead", True, 0),
        ("valgrind is not installed: times are compared instead", False, 0),
    ],
)
def test_the_gate_is_not_passed_by_times_where_instructions_can_be_counted(
    tmp_path: Path, said: str, valgrind: bool, status: int
) -> None:
    """Where a figure can be recorded, one has to be; where nothing can be counted, what is said of times will do."""
    for name in ("bash", "dirname", "mktemp", "tee", "grep", "rm"):
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    made = f'[ "$1" != instructions ] || echo "{said}"'
    for name in ("make", "chromium", "haproxy", "nginx", *(("valgrind",) if valgrind else ())):
        (tmp_path / name).write_text(f"#!{tmp_path}/bash\n{made if name == 'make' else ''}\n")
        (tmp_path / name).chmod(0o755)
    where = {"PATH": str(tmp_path), "CONFORMANCE_VECTORS": "x"}
    ran = subprocess.run(
        [tmp_path / "bash", ROOT / ".ci" / "run"], env=where, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, said in ran.stdout) == (status, True), ran.stderr
    assert ("instructions --record" in ran.stdout) == bool(status)


def test_the_commands_that_are_named_exist() -> None:
    """Every `make` command that the README and CONTRIBUTING name is a target."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md"):
        named = set(re.findall(r"\bmake ([a-z-]+)", (ROOT / page).read_text("utf-8")))
        assert named - {"a"} <= targets, page


def test_the_readme_names_every_layer_in_order() -> None:
    """The README's table has every layer, outermost first."""
    rows = re.findall(
        r"^\| ([A-Z]\w+) \|.*\| (?:always|once|with)", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE
    )
    assert [row.lower() for row in rows] == [
        {"security": "securityheaders"}.get(name, name.replace("_", "")) for name in SWITCHES
    ]


def test_check_knows_every_layer() -> None:
    """The layers that `check` tells of are those that there are, in their order."""
    settings = GuardSettings(
        auth=AuthSettings(issuer="https://id.example", resource="https://api.example"),
        rate=RateSettings(limit="1/second by ip"),
        cors=CORSSettings(allow_origins=("https://app.example",)),
        csrf=CSRFSettings(mode="enforce"),
        hosts=HostsSettings(allowed=("api.example",)),
        metrics=MetricsSettings(path="/metrics"),
        health=HealthSettings(drain_seconds=5),
    )
    names = [
        layer.name for layer in reversed(Guard(Echo(), settings).layers)
    ]  # limits look twice: the last time counts
    assert list(reversed(SWITCHES)) == list(dict.fromkeys(names))
