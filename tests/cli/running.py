"""Runs the command line in this process, as a terminal or a pipe would see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from click.testing import CliRunner, Result

from asgi_guard.cli import main

if TYPE_CHECKING:
    from collections.abc import Mapping


def invoke(*arguments: str, standard_input: str | None = None, env: Mapping[str, str] | None = None) -> Result:
    """Run `asgi-guard ARGUMENTS`; an exception that is not an exit fails the test."""
    return CliRunner().invoke(main, list(arguments), input=standard_input, env=env, catch_exceptions=False)
