"""How the command line speaks: tables and colour to a terminal, plain aligned text to anything else."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asgi_guard.errors import ConfigError

STYLES = {"on": "green", "ok": "green", "off": "yellow", "failed": "bold red", "slow": "yellow",
          "pass": "green", "fail": "bold red", "unknown": "yellow"}  # fmt: skip
"""Words that have a colour wherever they stand alone in a cell."""


def open_closed_streams() -> None:
    """Have standard streams that were closed before the start, as by `>&-`, lead to nowhere.

    To Python there are none: the first word would be an error, and not what was asked be told by the exit code.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)  # by workers, to whom it would be closed too
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8"))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print a table on standard output."""
    console = Console()
    rows = [[_writable(cell, sys.stdout) for cell in row] for row in rows]
    title = _writable(title, sys.stdout)
    if console.is_terminal:
        shown = Table(
            title=Text(title) if title else None, title_justify="left", title_style="bold", header_style="bold"
        )
        for column in columns:
            shown.add_column(column, overflow="fold")  # a name that is cut short cannot be copied
        for row in rows:
            shown.add_row(*(Text(cell, STYLES.get(cell, "")) for cell in row))
        console.print(shown)
        return
    if title:
        print(title)
    widths = [max(len(row[index]) for row in rows) if rows else 0 for index in range(len(columns))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print()


def say(text: str, style: str = "", *, error: bool = False) -> None:
    """Print a line: on standard output, or on standard error for what is not the answer."""
    console = Console(stderr=error, soft_wrap=True, highlight=False)
    console.print(Text(_writable(text, sys.stderr if error else sys.stdout), style))


def _writable(text: str, stream: TextIO) -> str:
    """A text with what this stream cannot write escaped, such as an accent in the locale C."""
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def dump(value: Any) -> None:
    """Print JSON for a script."""
    try:
        text = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
        text.encode(sys.stdout.encoding or "utf-8")
    except (TypeError, UnicodeEncodeError):  # bytes that are no UTF-8, as an environment may have them; the locale C
        text = json.dumps(value, indent=2)
    sys.stdout.write(f"{text}\n")


def report_problems(error: ConfigError) -> None:
    """Tell everything that is wrong with the configuration, on standard error."""
    count = len(error.problems)
    say(f"asgi-guard: the configuration has {count} problem{'s' if count != 1 else ''}:", "bold red", error=True)
    for problem in error.problems:
        say(f"  {problem.name}: {problem.message}", error=True)
