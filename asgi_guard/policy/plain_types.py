"""Values of another type than the plain one they are declared with, told where no type checker did.

Only what is declared with plain types alone (`str`, `int`, `float`, `bool`, `bytes`, `None`) is looked at. Such a value
would mostly be taken, and fail with the first request that meets it.
"""

from __future__ import annotations

from dataclasses import fields
from types import NoneType
from typing import TYPE_CHECKING

from asgi_guard.policy.faults import Fault, FaultsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from _typeshed import DataclassInstance

_PLAIN: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "bytes": (bytes,),
    "None": (NoneType,),
}
_SAID = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "True or False",
    "bytes": "bytes",
    "None": "None",
}


def wrong_types(declared: Mapping[str, object], given: Mapping[str, object]) -> Iterator[Fault]:
    """Find what is of another type. The value itself is not told, as it may be a secret.

    Args:
        declared: the types as they are written, by name: `float`, `str | None`.
        given: the values, by name.
    """
    for name, value in given.items():
        names = str(declared.get(name)).split(" | ") if name in declared else []
        if not names or not _PLAIN.keys() >= set(names):
            continue
        kinds = tuple(kind for each in names for kind in _PLAIN[each])
        # A bool is an int to Python, and to nobody who writes down a number.
        if not isinstance(value, kinds) or (isinstance(value, bool) and "bool" not in names):
            said = " or ".join(_SAID[each] for each in names)
            yield Fault(name, f"it is of the type {type(value).__name__}: give {said}")


def wrong_fields(made: DataclassInstance) -> list[Fault]:
    """Find the fields of a dataclass that are of another type."""
    declared = {each.name: each.type for each in fields(made)}
    return list(wrong_types(declared, {name: getattr(made, name) for name in declared}))


def require_fields(made: DataclassInstance) -> None:
    """See to it that the fields of a dataclass are of the types that it declares.

    Raises:
        FaultsError: with every one that is not.
    """
    if faults := wrong_fields(made):
        raise FaultsError(faults)
