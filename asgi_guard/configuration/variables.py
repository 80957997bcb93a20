"""The environment's variables: what each is called, what it means, and which names mean nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, SecretStr

from asgi_guard.errors import Problem, meant
from asgi_guard.policy.listing import LIKE_COMMAS, listed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic.fields import FieldInfo

PREFIX = "ASGI_GUARD_"
ALIKE = 0.8
"""How much of a prefix has to be that of these variables for it to be a misspelt one."""

# By a part of the type's own name, the first that fits.
_SORTS = {
    "Route": "JSON",
    "IssuerSettings": "JSON",
    "Mapping[": "JSON",
    "APIKey": "name=SHA256, ... or JSON",
    "tuple[str": "list",
    "bool": "true or false",
    "int": "whole number",
    "float": "number",
    "Path": "path",
}

# What Kubernetes adds to every pod's environment for a Service called `asgi-guard`; for one called `asgi-guard-redis`
# it stands behind `REDIS_`.
_KUBERNETES = re.compile(r"SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?")

_HOST = "_SERVICE_HOST"


class Variable:
    """One environment variable: its name, where its value goes, and what it means.

    Attributes:
        name: such as `ASGI_GUARD_AUTH_ISSUER`.
        section: such as `auth`; empty for a field of `GuardSettings` itself.
        field: such as `issuer`.
        choices: the values that may be written, or what sort of value it is.
        default: the default, as it would be written.
        meaning: one line.
        file: the variable that names a file with the value instead, where it is a secret.
    """

    def __init__(self, section: str, field: str, info: FieldInfo) -> None:
        self.section = section
        self.field = field
        self.name = PREFIX + (f"{section}_{field}" if section else field).upper()
        self.choices = _choices(info.annotation)
        default = info.default
        self.default = written(default.get_secret_value() if isinstance(default, SecretStr) else default)
        self.meaning = info.description or ""
        self.file = f"{self.name}_FILE" if _is_secret(info.annotation) else None


def variables_of(settings: type[BaseModel]) -> list[Variable]:
    """Every variable there is, section by section; a section is a field whose type is a model."""
    found: list[Variable] = []
    for name, info in settings.model_fields.items():
        section = info.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            found += [Variable(name, field, each) for field, each in section.model_fields.items()]
        else:
            found.append(Variable("", name, info))
    return found


def unknown_variables(names: Iterable[str], known: set[str]) -> Iterator[Problem]:
    """Name every `ASGI_GUARD_*` variable that means nothing: a misspelt limit would otherwise be no limit."""
    endings = [name.removeprefix(PREFIX) for name in known]
    found = sorted(name for name in names if name.upper().startswith(PREFIX))
    services = _services(found)
    for name in found:
        if name in known or any(_KUBERNETES.fullmatch(name.removeprefix(service)) for service in services):
            continue
        hint = meant(name.upper().removeprefix(PREFIX), endings, PREFIX) or "; `asgi-guard env` lists those there are"
        yield Problem(name, f"there is no such variable{hint}")


def _services(names: Iterable[str]) -> list[str]:
    """What Kubernetes' names of each Service begin with, by those that say where it is."""
    hosts = (name.removesuffix(_HOST) for name in names if name.startswith(PREFIX) and name.endswith(_HOST))
    return [PREFIX, *(f"{service}_" for service in hosts)]


def resembling(names: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Variables that end as some of these do, and begin almost as they do: `ASGI_GAURD_APP`; each with what is meant.

    They may be someone else's, so they are no error.
    """
    found: dict[str, str] = {}
    for name in sorted(names):
        upper = name.upper()
        if PREFIX in upper:  # which is a tool's that hands variables on, or has been told
            continue
        for each in known:
            before = upper.removesuffix(each.removeprefix(PREFIX))
            if before != upper and SequenceMatcher(None, before, PREFIX).ratio() > ALIKE:
                found[name] = each
    return found


def _is_secret(annotation: Any) -> bool:
    return "SecretStr" in str(annotation)


def _choices(annotation: Any) -> list[str]:
    literals = _literals(annotation)
    if literals:
        return literals
    if _is_secret(annotation):
        return ["text, or _FILE"]
    text = str(annotation)
    for part, name in _SORTS.items():
        if part in text:
            return [name]
    return ["text"]


def _literals(annotation: Any) -> list[str]:
    values: list[str] = []
    for argument in getattr(annotation, "__args__", ()):
        values += [argument] if isinstance(argument, str) else _literals(argument)
    return values


def written(value: object) -> str:
    """A setting's value as it would be written in its variable, so that it can be put there."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | Mapping):
        return _list_written(value) if value else ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)


def _list_written(value: tuple[Any, ...] | Mapping[str, str]) -> str:
    """A list as people write it, or as JSON where that could not be read back, or where there is no other way."""
    if isinstance(value, tuple) and all(isinstance(item, str) for item in value):
        text = ", ".join(value)
        if not text.startswith("[") and listed(text) == value and not any(map(LIKE_COMMAS.search, value)):
            return text
    models = (item.model_dump(exclude_none=True) if isinstance(item, BaseModel) else item for item in value)
    return json.dumps(value if isinstance(value, Mapping) else list(models))
