"""What can be told of an app without calling it: whether it is one, and what it will take for its root path."""

from __future__ import annotations

import inspect
import sys
from collections import deque
from contextlib import suppress
from types import FunctionType, MethodType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LOOKED_AT = 64
"""How many objects are looked at for the app within a wrapper: one may wrap itself, or hold much."""


def misfit(app: object) -> str | None:
    """Why something is no ASGI app, as far as that can be told without calling it; None if it may be one.

    A server would start with it all the same, and every request would meet an error.
    """
    if not callable(app):
        return f"a {type(app).__name__} is not an ASGI app: it cannot be called"
    if isinstance(app, type) and not hasattr(app, "__await__"):
        return f"{app.__name__} is a class: an ASGI app is an instance of it, as in {app.__name__}()"
    try:
        signature = inspect.signature(app, follow_wrapped=False)  # what it wraps may be no app
    except (ValueError, TypeError):  # what is compiled need not tell
        return None
    if _takes(signature, 3):
        return None
    if _takes(signature, 0):
        return "it takes no arguments: if it makes the app, call it, as in create_app()"
    if _takes(signature, 2):
        return "it takes two arguments, as WSGI apps do: wrap it, as in a2wsgi.WSGIMiddleware(app)"
    return "it does not take scope, receive and send, so it is not an ASGI app"


def is_factory(made: object) -> bool:
    """Whether something can be called for an app, as far as that can be told."""
    if not callable(made):
        return False
    try:
        return _takes(inspect.signature(made, follow_wrapped=False), 0)
    except (ValueError, TypeError):
        return True


def own_root_path(app: object) -> str:
    """The root path that an app puts in the place of the server's; empty if it takes that one, or none can be told.

    FastAPI has its argument `root_path`, Django its setting FORCE_SCRIPT_NAME. A guard that read paths by the server's
    would judge `/api/admin` by another row than that of `/admin`, which the app then serves. Neither is imported, and
    both are found through wrappers: in attributes, in what functions enclose, and where they are mounted at the root.
    Where there are several, it is told if they agree.
    """
    found = {root_path for each in _within(app) if (root_path := _root_path(each)) is not None}
    return found.pop() if len(found) == 1 else ""


def _root_path(app: object) -> str | None:
    """The root path of an app of a kind that has one; None for any other."""
    kinds = _kinds(app)
    if "fastapi.FastAPI" in kinds:
        return str(getattr(app, "root_path", "") or "")
    if "django.ASGIHandler" in kinds:
        return str(getattr(sys.modules["django.conf"].settings, "FORCE_SCRIPT_NAME", "") or "")
    return None


def _kinds(app: object) -> set[str]:
    return {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(app).__mro__}


def _within(app: object) -> Iterator[object]:
    """An app, and what it may be a wrapper of."""
    waiting, seen = deque([app]), {id(app)}
    while waiting and len(seen) <= MAX_LOOKED_AT:
        each = waiting.popleft()
        yield each
        for inner in _held(each):
            # By its very type: what stands for something else may not say yet what that is.
            if callable(inner) and not issubclass(type(inner), type) and id(inner) not in seen:
                seen.add(id(inner))
                waiting.append(inner)


def _held(app: object) -> Iterator[object]:
    """What an object may hand requests on to: whatever it has, but for apps that serve by routes, which say so."""
    if _root_path(app) is not None:
        return
    if "starlette.Starlette" in _kinds(app):
        routes = list(getattr(app, "routes", ()))
        if len(routes) == 1 and getattr(routes[0], "path", None) == "":  # all there is, mounted at the root
            yield getattr(routes[0], "app", None)
        return
    if type(app) is FunctionType:
        for cell in app.__closure__ or ():
            with suppress(ValueError):  # it is empty yet
                yield cell.cell_contents
    if type(app) is MethodType:
        yield app.__self__
    with suppress(Exception):  # whatever a stand-in raises whose object is not there
        yield from list(vars(app).values())


def _takes(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True
