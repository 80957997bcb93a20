"""What can be told of an app without calling it: whether it is one, and what it will take for its root path."""

from __future__ import annotations

import inspect
import sys
from collections import deque
from contextlib import suppress
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_LOOKED_AT = 32
"""How many objects are looked at for the app within a wrapper: one may wrap itself, or hold much."""
_HAND_ON = {
    "asgi_guard.Chain": "app",
    "asgi_correlation_id.CorrelationIdMiddleware": "app",
    "hypercorn.HTTPToHTTPSRedirectMiddleware": "app",
    "hypercorn.ProxyFixMiddleware": "app",
    "opentelemetry.OpenTelemetryMiddleware": "app",
    "quart.Quart": "asgi_app",
    "sentry_sdk.SentryAsgiMiddleware": "app",
    "starlette.AuthenticationMiddleware": "app",
    "starlette.CORSMiddleware": "app",
    "starlette.ExceptionMiddleware": "app",
    "starlette.GZipMiddleware": "app",
    "starlette.HTTPSRedirectMiddleware": "app",
    "starlette.RequestBodyLimitMiddleware": "app",
    "starlette.ServerErrorMiddleware": "app",
    "starlette.SessionMiddleware": "app",
    "starlette.TrustedHostMiddleware": "app",
    "uvicorn.MessageLoggerMiddleware": "app",
    "uvicorn.ProxyHeadersMiddleware": "app",
}
"""Wrappers that hand on all that they do not refuse, redirect or answer as a preflight, and where they keep the app."""
_BY_ROUTES = {"starlette.Starlette", "starlette.Router"}


def misfit(app: object) -> str | None:
    """Why something is no ASGI app, as far as that can be told without calling it; None if it may be one.

    A server would start with it all the same, and every request would meet an error.
    """
    if not callable(app):
        kind = type(app).__name__
        return f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind} is not an ASGI app: it cannot be called"
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
    return callable(made) and can_take(made, 0)


def can_take(function: Callable[..., object], count: int) -> bool:
    """Whether a function can be called with so many arguments; what is compiled need not tell, and may."""
    try:
        return _takes(inspect.signature(function, follow_wrapped=False), count)
    except (ValueError, TypeError):
        return True


def own_root_path(app: object) -> str:
    """The root path that an app puts in the place of the server's; empty if it takes that one, or none can be told.

    FastAPI has its argument `root_path`, Django its setting FORCE_SCRIPT_NAME. A guard that read paths by the server's
    would judge `/api/admin` by another row than that of `/admin`, which the app then serves. Neither is imported, and
    both are found through wrappers that hand every request on to one app: which they keep as `app`, or which is the
    only one that they hold.
    """
    seen: set[int] = set()
    while app is not None and id(app) not in seen and len(seen) < MAX_LOOKED_AT:
        root_path = _root_path(app)
        if root_path is not None:
            return root_path
        seen.add(id(app))
        app = _wrapped(app)
    return ""


def added_middleware(app: object) -> list[tuple[object, tuple[Any, ...], dict[str, Any]]]:
    """What was added to an app by `add_middleware`, as Starlette's and FastAPI's keep it: class, arguments, options."""
    added = getattr(app, "user_middleware", ())
    return [(getattr(each, "cls", None), getattr(each, "args", ()), getattr(each, "kwargs", {})) for each in added]


def _wrapped(app: object) -> object:
    """The one app that a wrapper hands every request on to; None where that cannot be told."""
    named = (_attribute(app, "app"), app.__dict__.get("__wrapped__") if type(app) is FunctionType else None)
    for each in named:
        if _is_app(each):
            return each
    if "quart.Quart" in _kinds(app):
        return _attribute(app, "asgi_app")
    held = {id(each): each for each in _held(app) if _is_app(each)}
    return next(iter(held.values())) if len(held) == 1 else None


def hands_on(kind: object) -> bool:
    """Whether what a class makes is known to hand on every request, but for those that it refuses or redirects."""
    return isinstance(kind, type) and _caller(kind) in _HAND_ON


def answers_preflights(kind: object) -> bool:
    """Whether this is a CORSMiddleware, Starlette's or this package's, or a class that inherits from one."""
    return isinstance(kind, type) and any(each.__name__ == "CORSMiddleware" for each in kind.__mro__)


def handed_on(app: object) -> object:
    """The app that something is known to hand every request on to; None where nobody knows.

    That it holds a single app does not tell: it may answer some requests itself.
    """
    caller = _caller(type(app))
    inner: object = None
    if caller in _HAND_ON:
        inner = _attribute(app, _HAND_ON[caller])
    elif caller in _BY_ROUTES and all(hands_on(kind) for kind, _, _ in added_middleware(app)):
        inner = next(_held(app), None)
    return inner if _is_app(inner) else None


def _caller(kind: type) -> str:
    """Whose `__call__` a class has: one that inherits it serves as that does, whatever it is called."""
    owner = next(each for each in kind.__mro__ if "__call__" in vars(each) or each is object)
    return f"{owner.__module__.partition('.')[0]}.{owner.__name__}"


def root_paths_within(app: object) -> set[str]:
    """Every root path of their own that apps within have, whether requests come to them or not."""
    return {root_path for each in apps_within(app) if (root_path := _root_path(each))}


def apps_within(app: object) -> Iterator[object]:
    """An app, and all that it may hand requests on to, as far as can be seen."""
    waiting, seen = deque([app]), {id(app)}
    for _ in range(MAX_LOOKED_AT):
        if not waiting:
            return
        each = waiting.popleft()
        yield each
        for inner in _held(each):
            if id(inner) not in seen and _is_app(inner):
                seen.add(id(inner))
                waiting.append(inner)


def loose_mounts(app: object) -> Iterator[str]:
    """The paths of mounts which take all that begins with their letters: Litestar's, `/adminx` for `/admin`."""
    for each in apps_within(app):
        if "litestar.Litestar" in _kinds(each):
            mounts = getattr(_attribute(each, "asgi_router"), "_mount_routes", None)
            yield from (path for path in mounts if isinstance(path, str)) if isinstance(mounts, dict) else ()


def is_of_one_route(app: object) -> bool:
    """Whether something serves one route of an app: what Litestar hands its `middleware`, for every route anew."""
    found = False
    for _ in range(MAX_LOOKED_AT):
        kinds = _kinds(app)
        if not kinds.isdisjoint({"litestar.Litestar", "litestar.ASGIRouter"}):
            return False  # it serves all of them
        if app is None:
            break
        found = found or "litestar.ExceptionHandlerMiddleware" in kinds
        app = _attribute(app, "app")
    return found


def _root_path(app: object) -> str | None:
    """The root path of an app of a kind that has one; None for any other."""
    kinds = _kinds(app)
    if "fastapi.FastAPI" in kinds:
        return str(_attribute(app, "root_path") or "")
    if "django.ASGIHandler" in kinds:
        return str(getattr(sys.modules["django.conf"].settings, "FORCE_SCRIPT_NAME", "") or "")
    return None


def _kinds(app: object) -> set[str]:
    return {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(app).__mro__}


def _is_app(held: object) -> bool:
    # By its very type: what stands for something else may not be able to say yet what that is.
    if not hasattr(type(held), "__call__") or issubclass(type(held), type):  # noqa: B004 - for that reason
        return False
    try:
        return misfit(held) is None
    except Exception:  # noqa: BLE001 - whatever a stand-in raises whose object is not there
        return False


def _attribute(app: object, name: str) -> object:
    try:
        return getattr(app, name, None)
    except Exception:  # noqa: BLE001 - as above
        return None


def _held(app: object) -> Iterator[object]:
    """What an object may hand requests on to. Apps that serve by routes hand all on only if they have a single one."""
    if _root_path(app) is not None:
        return
    if not _kinds(app).isdisjoint(_BY_ROUTES):
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
    attributes = _attribute(app, "__dict__")
    if isinstance(attributes, dict):
        for each in list(attributes.values()):
            if not (type(each) is MethodType and each.__self__ is app):
                yield each


def _takes(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True
