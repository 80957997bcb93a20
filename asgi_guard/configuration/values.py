"""Values as people write them, in variables and in Python, before they are validated."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, cast

from pydantic import (
    AfterValidator,
    BeforeValidator,
    SecretStr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import InitErrorDetails

from asgi_guard.errors import ConfigError, Problem
from asgi_guard.policy.identity import APIKey
from asgi_guard.policy.listing import LIKE_COMMAS, listed
from asgi_guard.policy.routes import Route, row_faults, wrong_columns

_ROUTES = """write a list of rows, as in [{"path": "/login", "auth": "none"}]"""
_ISSUERS = """write a list, as in [{"issuer": "https://id.example.com", "audience": "api"}]"""


_NOTHING = "it holds nothing: leave it out if none is meant"


def _some(read: Callable[[object], object]) -> Callable[[object], object]:
    """Have a reader refuse a text that is not empty and names nothing: the layer that it is for would be off."""

    def reading(value: object) -> object:
        found = read(value)
        if isinstance(value, str) and value.strip() and isinstance(found, Sized) and not found:
            raise ValueError(_NOTHING)
        return found

    return reading


def _listed_in(name: str, text: str) -> tuple[str, ...]:
    """The list of a part of a value, such as a row's methods, of which none would mean all."""
    items = listed(text)
    if not items:
        raise ValueError(f"{name}: {_NOTHING}")
    return items


class _TwiceError(ValueError):
    """A name stands twice in one object of JSON."""


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its members. Of two that have one name, JSON keeps the last: what the first says is lost."""
    made: dict[str, Any] = {}
    for name, value in members:
        if name in made:
            raise _TwiceError(f"{name!r} stands twice in one object, and only the last would hold: leave one out")
        made[name] = value
    return made


def _json(text: str, expected: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except _TwiceError:
        raise
    except json.JSONDecodeError as error:
        where = f"{error.msg} at line {error.lineno}, column {error.colno}"
        raise ValueError(f"this is not JSON: {expected} ({where})") from None
    except (ValueError, RecursionError):
        raise ValueError(f"this is not JSON: {expected}") from None


def _json_list(text: str, expected: str) -> list[Any]:
    value = _json(text, expected)
    if not isinstance(value, list):
        raise ValueError(f"this is no list: {expected}")  # noqa: TRY004 - pydantic reports no other error
    return value


@_some
def rows_of(value: object) -> object:
    """Read the table, and let a row say `"methods": "GET, POST"` where it means a list."""
    if isinstance(value, str):
        value = _json_list(value, _ROUTES)
    if not isinstance(value, list):
        return value
    return [_row(row) if isinstance(row, dict) else row for row in value]


def _whole_row(value: object, handler: ValidatorFunctionWrapHandler) -> Route:
    """Make a row; where pydantic finds a column wrong, see what is wrong with the others, which it does not look at."""
    try:
        return cast("Route", handler(value))
    except ValidationError as error:
        found = error.errors(include_url=False)
        at_fault = {each["loc"][0] for each in found if each["loc"]}
        if not isinstance(value, dict) or not at_fault:  # no row at all, or one that was looked at whole
            raise
        kept = {name: each for name, each in value.items() if name not in at_fault}
        unclear = {name for name, _ in wrong_columns(kept)}  # which pydantic makes something of
        unclear |= {"security"} if isinstance(kept.get("security"), dict) else set()
        faults = list(row_faults({name: each for name, each in kept.items() if name not in unclear}))
        if not faults:
            raise
        rest = ConfigError(Problem(Route.__name__, fault) for fault in faults)
        details: list[InitErrorDetails] = [
            {"type": each["type"], "loc": each["loc"], "input": each["input"], "ctx": each.get("ctx", {})}
            for each in found
        ]
        details.append({"type": "value_error", "input": value, "ctx": {"error": rest}})
        raise ValidationError.from_exception_data(error.title, details) from None


def _row(row: dict[str, Any]) -> dict[str, Any]:
    written = {name: row[name] for name in ("methods", "scopes", "any_scopes") if isinstance(row.get(name), str)}
    return {**row, **{name: _listed_in(name, text) for name, text in written.items()}}


@_some
def _api_keys(value: object) -> object:
    """Read `name=SHA256, other=SHA256`, or JSON: `{"name": {"sha256": "...", "scopes": ["..."]}}`."""
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        pairs = [item.partition("=") for item in listed(value)]
        if not all(equals for _, equals, _ in pairs):
            raise ValueError("write name=SHA256, several with commas")
        return [{"name": name.strip(), "sha256": digest.strip()} for name, _, digest in pairs]
    if isinstance(value, str):
        try:
            value = _json(value, """write {"name": {"sha256": "...", "scopes": ["..."]}}""")
        except _TwiceError:
            # It is not repeated: it may be the key or its hash, written the wrong way round.
            raise ValueError("a name stands twice in one object, and only the last would hold: leave one out") from None
    if isinstance(value, dict):
        entries = {name: {"sha256": entry} if isinstance(entry, str) else entry for name, entry in value.items()}
        return [
            {"name": name, **_scoped(entry)} if isinstance(entry, dict) else entry for name, entry in entries.items()
        ]
    return value


def _scoped(entry: dict[str, Any]) -> dict[str, Any]:
    """Let `"scopes": "a b"` mean what it means in a token, and `"a, b"` what it means elsewhere."""
    scopes = entry.get("scopes")
    if not isinstance(scopes, str):
        return entry
    text = scopes if scopes.lstrip().startswith("[") else scopes.replace(" ", ",")
    return {**entry, "scopes": _listed_in("scopes", text)}


@_some
def issuers(value: object) -> object:
    """Read `[{"issuer": "https://id.example.com", "audience": "api"}, ...]`; one that says no more may be a text."""
    if isinstance(value, str):
        value = _json_list(value, _ISSUERS)
    return (
        [{"issuer": each} if isinstance(each, str) else each for each in value]
        if isinstance(value, list | tuple)
        else value
    )


@_some
def _plans(value: object) -> object:
    """Read `{"partner": "100/second by user"}`."""
    if isinstance(value, str):
        value = _json(value, """write {"name": "limits", ...}""")
    return value


def _list(value: object) -> object:
    return listed(value) if isinstance(value, str) else value


def _parted(value: object) -> object:
    """Read a list of names that may be any text, and refuse what looks like several: nothing would match it."""
    items = _list(value)
    if not isinstance(value, str) or not isinstance(items, tuple) or value.lstrip().startswith("["):
        return items
    if any(map(LIKE_COMMAS.search, items)):
        better = [", ".join(part for item in items for part in LIKE_COMMAS.split(item) if part)]
        better.append(f"{json.dumps(items, ensure_ascii=False)} if that is meant")
        raise ValueError(f"names are parted by ',': write {', or '.join(filter(None, better))}")
    return items


def _probe_path(path: str) -> str:
    """Read `off`, which a variable has to say: an empty one counts as not set, and the default would hold."""
    return "" if path == "off" else path


if TYPE_CHECKING:
    # What may be given: lists too, one text where several belong, a secret as a text. Kept are tuples and `SecretStr`s.
    Names: TypeAlias = Sequence[str]
    NamesOrNone: TypeAlias = Sequence[str]
    AnyNames: TypeAlias = Sequence[str]
    AnyNamesOrNone: TypeAlias = Sequence[str]
    Routes: TypeAlias = Sequence[Route]
    APIKeys: TypeAlias = Sequence[APIKey]
    Secret: TypeAlias = SecretStr | str
else:
    Names = Annotated[tuple[str, ...], BeforeValidator(_some(_list))]
    NamesOrNone = Annotated[tuple[str, ...], BeforeValidator(_list)]
    """Those of a default that is not empty: `[]` says that there are to be none."""
    AnyNames = Annotated[tuple[str, ...], BeforeValidator(_some(_parted))]
    """Those that may hold any character, so that they cannot be told from several that no comma parts."""
    AnyNamesOrNone = Annotated[tuple[str, ...], BeforeValidator(_parted)]
    Routes = Annotated[tuple[Annotated[Route, WrapValidator(_whole_row)], ...], BeforeValidator(rows_of)]
    APIKeys = Annotated[tuple[APIKey, ...], BeforeValidator(_api_keys)]
    Secret = SecretStr
Plans = Annotated[Mapping[str, str], BeforeValidator(_plans)]
ProbePath = Annotated[str, AfterValidator(_probe_path)]


def revealed(secret: Secret | None) -> str:
    """What a secret says; empty where there is none."""
    return secret.get_secret_value() if isinstance(secret, SecretStr) else secret or ""
