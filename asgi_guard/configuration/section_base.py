"""What all sections of the settings share, and how whoever makes one in Python is told what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, dataclass_transform

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from asgi_guard.configuration.findings import findings
from asgi_guard.errors import ConfigError

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
                raise ConfigError(findings(error, self, lambda path: f"{self.__name__}.{path[0]}")) from None


class Section(BaseModel, metaclass=_Told):
    """What all sections share: they are frozen, and a misspelt field is an error.

    Raises:
        ConfigError: with everything that is wrong, by field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)
