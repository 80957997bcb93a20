"""An app by its name, `module:attribute`."""

from __future__ import annotations

from importlib import import_module
from inspect import getattr_static
from typing import TYPE_CHECKING, cast

from asgi_guard.apps.inspection import is_factory, misfit
from asgi_guard.configuration.variables import PREFIX
from asgi_guard.errors import ConfigError, Problem, meant

if TYPE_CHECKING:
    from collections.abc import Callable

    from asgi_guard.asgi import ASGIApp


def load_app(name: str | None, variable: str = f"{PREFIX}APP") -> ASGIApp:
    """Import an app.

    Args:
        name: `module:attribute`, the attribute with dots if need be, and with `()` behind it if it is to be called for
            the app.
        variable: what to name in errors.

    Raises:
        ConfigError: there is no such app. An error in the module itself is raised as it is.
    """
    found: object = _find(name, variable)
    if (name or "").endswith("()"):
        if not is_factory(found):
            message = f"{(name or '')[:-2]} cannot be called without arguments: if it is the app, leave the () out"
            raise ConfigError([Problem(variable, message)])
        found = cast("Callable[[], object]", found)()
        if fault := misfit(found):
            raise ConfigError([Problem(variable, f"what {name} gives: {fault}")])
    return cast("ASGIApp", found)


def misnamed(name: str | None, variable: str = f"{PREFIX}APP") -> Problem | None:
    """What is wrong with a name that can name no app, wherever it is looked for; None if nothing is."""
    module_name, colon, path = (name or "").removesuffix("()").partition(":")
    if colon and path and all(module_name.split(".")):
        return None
    return Problem(variable, "name the app as module:attribute, as in myapp:app")


def _find(name: str | None, variable: str) -> Callable[..., object]:
    """Import what `name` names, an app or what is to be called for one."""
    if malformed := misnamed(name, variable):
        raise ConfigError([malformed])
    module_name, _, path = (name or "").removesuffix("()").partition(":")
    try:
        found: object = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise
        hint = _as_module(module_name, (name or "")[len(module_name) :])
        said = f"there is no module {error.name!r} here or among the installed{hint}"
        raise ConfigError([Problem(variable, said)]) from None
    before = ""
    for attribute in path.split("."):
        if not hasattr(found, attribute):
            hint = meant(attribute, _callables(found), before)
            raise ConfigError([Problem(variable, f"the module {module_name!r} has no attribute {path!r}{hint}")])
        found, before = getattr(found, attribute), f"{before}{attribute}."
    called = (name or "").endswith("()")
    fault = misfit(found) if not called or not callable(found) else None
    if fault is not None:
        if is_factory(found) and not isinstance(found, type):
            fault = f"it takes no arguments: if it makes the app, name it {name}()"
        raise ConfigError([Problem(variable, f"{name}: {fault}")])
    return cast("Callable[..., object]", found)


def _as_module(file: str, rest: str) -> str:
    """How to name a module that may be meant by the name of its file: to be added to what is wrong."""
    module = file.removesuffix(".py").replace("/", ".")
    if module == file or file.startswith("/"):
        return ""
    how = "folders stand with dots, and .py is left out" if "/" in file else "leave .py out"
    return f": {how}, as in {module}{rest}"


def _callables(owner: object) -> list[str]:
    """The names of what can be called among the attributes of a module, or of something in it."""
    return [name for name in dir(owner) if name[:1] != "_" and callable(getattr_static(owner, name, None))]
