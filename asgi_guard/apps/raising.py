"""What an exception on the lifespan scope tells of the app that raised it, by the code that it came through.

Whatever is wrapped around an app, and however, this is seen where an app cannot be found from outside.
"""

from __future__ import annotations

from traceback import walk_tb

_WITH_LIFESPAN = frozenset({"litestar.app", "quart.app", "starlette.applications", "starlette.routing"})
"""Where apps of frameworks that have a lifespan are called; FastAPI's are Starlette's."""
_WITHOUT = frozenset(
    {
        "asgiref.wsgi",
        "channels.routing",
        "django.core.handlers.asgi",
        "starlette.middleware.wsgi",
        "uvicorn.middleware.wsgi",
    }
)
"""Where it is refused, as what they do not know, by apps that have none."""
_BUILDS = "build_middleware_stack"
"""What Starlette and FastAPI call before they serve their first scope, whatever it is."""


def could_not_be_built(error: BaseException) -> bool:
    """Whether middleware that was added to Starlette or FastAPI could not be made: every request will meet it too."""
    return _BUILDS in {function for _, function in _passed(error)}


def has_lifespan(error: BaseException) -> bool:
    """Whether it came through an app that has a lifespan, from middleware that was added to it, say."""
    return any(module in _WITH_LIFESPAN and function == "__call__" for module, function in _passed(error))


def refuses_lifespan(error: BaseException) -> bool:
    """Whether it is what an app without lifespan, of a kind that is known, says to this scope."""
    module, function = _passed(error)[-1]
    return module in _WITHOUT and function == "__call__"


def _passed(error: BaseException) -> list[tuple[str, str]]:
    """The module and the function of all that an exception came through; the last is where it was raised."""
    frames = (frame for frame, _ in walk_tb(error.__traceback__))
    return [(str(frame.f_globals.get("__name__")), frame.f_code.co_name) for frame in frames]
