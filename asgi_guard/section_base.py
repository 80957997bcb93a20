"""What all sections of the settings share, and how whoever makes one in Python is told what is wrong with it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, dataclass_transform

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from asgi_guard.errors import ConfigError, Problem

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass  # which has no public name
else:
    ModelMetaclass = type(BaseModel)


@dataclass_transform(kw_only_default=True, field_specifiers=(Field,))
class _Told(ModelMetaclass):
    """Has whoever makes a section in Python told what is wrong with it as the environment's variables are.

    Such a call begins here; what pydantic makes of the environment does not come this way, and is told as a whole.
    """

    if not TYPE_CHECKING:  # to type checkers a call is as pydantic declares it: they see misspelt fields before

        def __call__(self, *values: Any, **fields: Any) -> Any:
            try:
                return super().__call__(*values, **fields)
            except ValidationError as error:
                raise ConfigError(_problems(self.__name__, list(self.model_fields), error)) from None


def no_such_field(name: str, fields: Collection[str]) -> str:
    """What to write instead of a name that there is not."""
    close = get_close_matches(name, fields, n=1)
    return "there is no such field; " + (f"did you mean {close[0]}?" if close else f"there are {', '.join(fields)}")


def _problems(section: str, fields: Collection[str], error: ValidationError) -> Iterator[Problem]:
    for each in error.errors(include_url=False, include_context=False, include_input=False):
        name, *inner = (str(part) for part in each["loc"])
        message = each["msg"].removeprefix("Value error, ").replace("\n", "; ")  # of several that were found at once
        if each["type"] == "extra_forbidden" and not inner:
            message = no_such_field(name, fields)
        yield Problem(f"{section}.{name}", f"{', '.join(inner)}: {message}" if inner else message)


class Section(BaseModel, metaclass=_Told):
    """What all sections share: they are frozen, and a misspelt field is an error.

    Raises:
        ConfigError: with everything that is wrong, by field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)
