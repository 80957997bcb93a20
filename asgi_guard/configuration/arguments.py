"""Arguments in Python that are of another type than they are declared with: told where they are given."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, TypeVar, cast

from asgi_guard.errors import ConfigError
from asgi_guard.policy.plain_types import wrong_types

if TYPE_CHECKING:
    from collections.abc import Callable

Init = TypeVar("Init", bound="Callable[..., None]")


def typed(init: Init) -> Init:
    """Have a constructor raise `ConfigError` for arguments that are of another plain type than it declares."""
    signature = inspect.signature(init)
    declared = {name: parameter.annotation for name, parameter in signature.parameters.items()}

    @functools.wraps(init)
    def checked(*args: Any, **kwargs: Any) -> None:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            given = {}  # arguments that there are not, or too few of them: the call itself names the constructor
        if problems := list(wrong_types(declared, given)):
            raise ConfigError(problems)
        init(*args, **kwargs)

    return cast("Init", checked)
