"""An app that a command is told the name of: what its module raises is told by the module's own lines."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING

import click

from asgi_guard.apps.loading import load_app
from asgi_guard.errors import ConfigError, Problem

if TYPE_CHECKING:
    from types import TracebackType

    from asgi_guard.asgi import ASGIApp

_NOT_THEIRS = ("asgi_guard.cli.", "asgi_guard.apps.loading", "click.", "importlib.")
"""How the names of modules begin through which a command comes to a module that it imports."""


def import_app(name: str, argument: str) -> ASGIApp:
    """Import an app as `load_app` does.

    Args:
        name: its name.
        argument: what to name in errors.

    Raises:
        ConfigError: there is no such app, or its module or factory raises, which is then told in full before.
    """
    try:
        return load_app(name, argument)
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever an app may raise
        click.echo("".join(traceback.format_exception(type(error), error, _theirs(error.__traceback__))), err=True)
        module = name.partition(":")[0]
        what = f"calling {name}" if module in sys.modules else f"importing {module!r}"
        said = f"{what} raised {type(error).__name__}: {error}".rstrip(": ")
        raise ConfigError([Problem(argument, said)]) from None


def _theirs(frames: TracebackType | None) -> TracebackType | None:
    """A traceback from the app's own first line on."""
    while frames is not None and f"{frames.tb_frame.f_globals.get('__name__', '')}.".startswith(_NOT_THEIRS):
        frames = frames.tb_next
    return frames
