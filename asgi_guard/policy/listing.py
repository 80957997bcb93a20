"""Lists as people write them: in Python as sequences, in the environment as `a, b` or as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from asgi_guard.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence


LIKE_COMMAS = re.compile(r"[\s;]+")
"""What parts names elsewhere: a name that holds it may be meant as several."""

_ADDRESS = re.compile(r"\[[0-9A-Fa-f]*:[0-9A-Fa-f:.]+\]\s*(,|$)")
"""An IPv6 address as hosts have it, with which a list may begin, and which begins as JSON does."""


def listed(value: str | Sequence[str]) -> tuple[str, ...]:
    """Read a list of names.

    A plain string is a list too, and never a sequence of its letters: `in` on a string would look for substrings.

    Raises:
        ValueError: it starts like JSON and is not a JSON list of strings; or it is no list of strings in Python.
    """
    if not isinstance(value, str):
        given: object = value
        texts = tuple(given) if isinstance(given, Iterable) else (given,)
        if not all(isinstance(item, str) for item in texts):
            raise ValueError('this is no list of texts: write ["a", "b"], or "a, b"')
        return texts
    text = value.strip()
    if not text.startswith("[") or _ADDRESS.match(text):
        return tuple(item for part in text.split(",") if (item := part.strip()))
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        items = None
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise ValueError('this is neither a list such as a, b nor JSON such as ["a", "b"]')
    return tuple(items)


def all_listed(**options: str | Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Read several options that are lists.

    Raises:
        ConfigError: with every option that is none.
    """
    lists: dict[str, tuple[str, ...]] = {}
    problems: list[Problem] = []
    for name, value in options.items():
        try:
            lists[name] = listed(value)
        except ValueError as error:
            problems.append(Problem(name, str(error)))
    if problems:
        raise ConfigError(problems)
    return lists


def one_text(**options: object) -> str | None:
    """What to write in the place of one text that is given where a tuple of them belongs; None where none is.

    It would be taken for a sequence of its letters.
    """
    for name, value in options.items():
        if isinstance(value, str):
            return f"{name}={value!r} is one text where several belong: write {name}=({value!r},)"
    return None
