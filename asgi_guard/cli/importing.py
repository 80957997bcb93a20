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
        ConfigError: there is no such app, or its module or factory raises, or would end the process, which is then told
            in full before.
    """
    try:
        return load_app(name, argument)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever an app may raise
        click.echo("".join(traceback.format_exception(type(error), error, _theirs(error.__traceback__))), err=True)
        module = name.partition(":")[0]
        what = f"calling {name}" if module in sys.modules else f"importing {module!r}"
        said = f"{what} {outcome(error)}: {error}" if isinstance(error, Exception) else f"{what} {outcome(error)}"
        raise ConfigError([Problem(argument, said.rstrip(": "))]) from None


def outcome(error: Exception | SystemExit) -> str:
    """What came of importing an app: to be read after what was imported.

    One that ends the process would have a command end without a word, and a code of 0 say that all is done.
    """
    if isinstance(error, SystemExit):
        return f"ended by sys.exit({'' if error.code is None else repr(error.code)})"
    return f"raised {type(error).__name__}"


def _theirs(frames: TracebackType | None) -> TracebackType | None:
    """A traceback from the app's own first line on."""
    while frames is not None and f"{frames.tb_frame.f_globals.get('__name__', '')}.".startswith(_NOT_THEIRS):
        frames = frames.tb_next
    return frames
