"""What the project says of itself, held to what it is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

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
