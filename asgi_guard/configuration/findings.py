"""What pydantic finds wrong with settings, as people are told it: where, what to write instead, and never the value.

Values may be secret. What pydantic says of one is told with what the field is for, and a name that there is not with
the one that may be meant.
"""

from __future__ import annotations

from dataclasses import is_dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from pydantic import BaseModel

from asgi_guard.errors import Problem, meant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_HEADERS = "SecurityHeaders"
"""What pydantic calls the one of two sorts of value that a row's `security` may have."""
_NO_SUCH = frozenset({"extra_forbidden", "unexpected_keyword_argument"})
_OF_SIZE = frozenset({"greater_than", "greater_than_equal", "less_than", "less_than_equal"})
_BOOL, _INT, _FLOAT, _TEXT = "write true or false", "write a whole number", "write a number", "write a text"
_LIST, _OBJECT = "write a list", "write an object, as {...}"
_INSTEAD = {
    "bool_parsing": _BOOL, "bool_type": _BOOL,
    "int_parsing": _INT, "int_type": _INT, "int_from_float": _INT, "int_parsing_size": "write a smaller number",
    "float_parsing": _FLOAT, "float_type": _FLOAT, "finite_number": _FLOAT,
    "string_type": _TEXT, "string_unicode": _TEXT, "path_type": "write a path",
    "tuple_type": _LIST, "list_type": _LIST, "dict_type": _OBJECT, "mapping_type": _OBJECT,
    "too_short": "name at least one",
    "string_pattern_mismatch": "this is no such name, which stands alone, without spaces and quotes",
    "missing": "it is missing",
}  # fmt: skip
"""What to say in the place of what pydantic says, by its name of the fault."""


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
        if each["type"] in _NO_SUCH:
            message = _no_such(location, model)
        else:
            message = _plain(each, model)
            if len(location) == depth and each["type"] in (*_INSTEAD, *_OF_SIZE):
                purpose = _purpose(model, location)
                message += f"; its meaning: {purpose}" if purpose else ""
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


def _plain(found: ErrorDetails, model: type[BaseModel]) -> str:
    """What is wrong with a value, in words for those who write one."""
    kind, message = found["type"], found["msg"]
    if kind in _INSTEAD:
        return _INSTEAD[kind]
    if kind == "string_too_long":
        return message.replace("String should have", "write")
    if kind == "literal_error":
        return message.replace("Input should be", "write")
    if kind in _OF_SIZE:
        return message.replace("Input should be", "write a number")
    if kind in ("model_type", "dataclass_type"):
        name = _innermost(model, found["loc"]).__name__
        return f"write an object of its fields, as {{...}}, or in Python {name}(...)"
    # What a row or a key says of itself begins with what it is, and of several that are wrong each does.
    own = f"{_innermost(model, found['loc']).__name__}: "
    lines = message.removeprefix("Value error, ").split("\n")
    return "; ".join(line.removeprefix(own) for line in lines)


def _no_such(location: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """What to write instead of a name that there is not."""
    name, known = str(location[-1]), _fields(_innermost(model, location[:-1]))
    if len(location) == 1:  # in Python, where a variable's name may have been taken for that of an argument
        flat = {
            f"{section}_{field}": f"{section}={kind.__name__}({field}=...)"
            for section, kind in known.items()
            if isinstance(kind, type) and issubclass(kind, BaseModel)
            for field in kind.model_fields
        }
        if (close := get_close_matches(name, [*known, *flat], n=1)) and close[0] in flat:
            return f"there is no such field; did you mean {flat[close[0]]}?"
    what = "column" if location[0] == "routes" else "field"
    return f"there is no such {what}" + (meant(name, known) or f"; there are {', '.join(known)}")


def _innermost(model: type[BaseModel], location: tuple[int | str, ...]) -> type:
    """The model or dataclass that a location leads to."""
    record: type = model
    for part in location:
        annotation = _fields(record).get(str(part))  # numbers, and names of alternatives, are none
        if annotation is not None:
            record = _record(annotation) or record
    return record


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
