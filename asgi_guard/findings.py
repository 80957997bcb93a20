"""What pydantic finds wrong with settings, as people are told it: where, what to write instead, and never the value.

Values may be secret. What pydantic says of one is told with what the field is for, and a name that there is not with
the one that may be meant.
"""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from pydantic import BaseModel

from asgi_guard.errors import Problem, meant

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_HEADERS = "SecurityHeaders"
"""What pydantic calls the one of two sorts of value that a row's `security` may have."""
_OF_SIZE = frozenset({"greater_than", "greater_than_equal", "less_than", "less_than_equal"})
_NO_SUCH = frozenset({"extra_forbidden", "unexpected_keyword_argument"})


def findings(
    error: ValidationError, model: type[BaseModel], named: Callable[[tuple[str, ...]], str]
) -> Iterator[Problem]:
    """Tell what is wrong with a model's fields.

    Args:
        error: what pydantic found.
        model: what it was to make.
        named: the name of a field, from the path that leads to it, which has as many parts as models have to be passed.
    """
    for each in _relevant(error):
        location = each["loc"]
        depth = _depth(model, location)
        message = each["msg"].removeprefix("Value error, ").replace("\n", "; ")  # of several that were found at once
        if each["type"] in _NO_SUCH:
            message = _no_such(location, _beside(model, location))
        elif len(location) == depth:
            message = _explained(each["type"], message, _purpose(model, location))
        inner = (part for part in location[depth:] if part != _HEADERS)
        where = ", ".join(f"number {part + 1}" if isinstance(part, int) else part for part in inner)
        yield Problem(named(tuple(map(str, location[:depth]))), f"{where}: {message}" if where else message)


def _relevant(error: ValidationError) -> Iterator[ErrorDetails]:
    """What pydantic found, but for what a row's `security` is not: no preset where it is headers, and vice versa."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    headers = {each["loc"][:3] for each in found if _HEADERS in each["loc"][:-1]}
    for each in found:
        location = each["loc"]
        is_preset = bool(location) and str(location[-1]).startswith("literal[")
        if location[-1:] != (_HEADERS,) and not (is_preset and location[:3] in headers):
            yield each if not is_preset else {**each, "loc": location[:-1]}


def _depth(model: type[BaseModel], location: tuple[int | str, ...]) -> int:
    """How many parts name a field: one, and one more within a section."""
    info = model.model_fields.get(str(location[0])) if location else None
    return 2 if info is not None and isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel) else 1


def _purpose(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    for part in location[:-1]:
        annotation = model.model_fields[str(part)].annotation
        assert isinstance(annotation, type)  # noqa: S101 - `_depth` has looked
        model = annotation
    info = model.model_fields.get(str(location[-1]))
    return "" if info is None else info.description or ""


def _explained(kind: str, message: str, purpose: str) -> str:
    """Say what a value is for, where pydantic says only what it should look like."""
    if not purpose:
        return message
    if kind == "string_pattern_mismatch":
        return f"this is no such name, which stands alone, without spaces and quotes: it is {purpose}"
    return f"{message}: it is {purpose}" if kind in _OF_SIZE or kind.endswith("_parsing") else message


def _no_such(location: tuple[int | str, ...], known: Collection[str]) -> str:
    """What to write instead of a name that there is not."""
    what = "column" if location[0] == "routes" else "field"
    return f"there is no such {what}" + (meant(str(location[-1]), known) or f"; there are {', '.join(known)}")


def _beside(model: type[BaseModel], location: tuple[int | str, ...]) -> Collection[str]:
    """The names that there are where the last one of a location is not."""
    record: type = model
    for part in location[:-1]:
        annotation = _fields(record).get(str(part))  # numbers, and names of alternatives, are none
        if annotation is not None:
            record = _record(annotation) or record
    return _fields(record)


def _fields(record: type) -> Mapping[str, Any]:
    """The fields of a model or a dataclass, with their types."""
    if issubclass(record, BaseModel):
        return {name: info.annotation for name, info in record.model_fields.items()}
    return get_type_hints(record)


def _record(annotation: Any) -> type | None:
    """The model or dataclass that is in a type, as in `tuple[Route, ...]`."""
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or is_dataclass(annotation)):
        return annotation
    return next((found for each in get_args(annotation) if (found := _record(each)) is not None), None)
