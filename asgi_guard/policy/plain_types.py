"""Values of another type than the plain one they are declared with, told where no type checker did.

Only what is declared with plain types alone (`str`, `int`, `float`, `bool`, `bytes`, `None`) is looked at. Such a value
would mostly be taken, and fail with the first request that meets it.
"""

from __future__ import annotations

from dataclasses import fields
from types import NoneType
from typing import TYPE_CHECKING

from asgi_guard.errors import ConfigError, Problem, wrong_type

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from _typeshed import DataclassInstance

_PLAIN: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "a text"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "bool": ((bool,), "True or False"),
    "bytes": ((bytes,), "bytes"),
    "None": ((NoneType,), "None"),
}
"""The plain types as they are written: what is taken for one, and how it is called."""


def wrong_types(declared: Mapping[str, object], given: Mapping[str, object]) -> Iterator[Problem]:
    """Find what is of another type. The value itself is not told, as it may be a secret.

    Args:
        declared: the types as they are written, by name: `float`, `str | None`.
        given: the values, by name.
    """
    for name, value in given.items():
        names = str(declared.get(name, "")).split(" | ")
        if not _PLAIN.keys() >= set(names):
            continue
        kinds = tuple(kind for each in names for kind in _PLAIN[each][0])
        # A bool is an int to Python, and to nobody who writes down a number.
        if not isinstance(value, kinds) or (isinstance(value, bool) and "bool" not in names):
            said = " or ".join(_PLAIN[each][1] for each in names)
            yield Problem(name, wrong_type(value, said))


def require_fields(made: DataclassInstance) -> None:
    """See to it that the fields of a dataclass are of the types that it declares.

    Raises:
        ConfigError: with every one that is not.
    """
    declared = {each.name: each.type for each in fields(made)}
    if problems := list(wrong_types(declared, {name: getattr(made, name) for name in declared})):
        raise ConfigError(problems)


def require_times(made: DataclassInstance) -> None:
    """See to it that all fields of a dataclass are lengths of time, 0 at least.

    Raises:
        ConfigError: with every one that is of another type, or else with every one that is negative, or no number.
    """
    require_fields(made)
    # Written so that it holds for NaN, too.
    if negative := [each.name for each in fields(made) if not getattr(made, each.name) >= 0]:
        raise ConfigError([Problem(name, "it is negative, or no number") for name in negative])
