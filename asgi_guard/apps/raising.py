"""What an exception on the lifespan scope tells of the app that raised it, by the code that it came through.

Whatever is wrapped around an app, and however, this is seen where an app cannot be found from outside.
"""

from __future__ import annotations

from itertools import pairwise
from traceback import walk_tb
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

_WITH_LIFESPAN = frozenset({"litestar.app", "quart.app", "starlette.applications", "starlette.routing"})
"""Where apps of frameworks that have a lifespan are called; FastAPI's are Starlette's."""
_BUILDS = "build_middleware_stack"
"""What Starlette calls before it serves its first scope, whatever that is."""
_BUILDERS = frozenset({"starlette.applications", "fastapi.applications"})
"""Where it stands, unless a class derived from theirs has its own, and where it is called."""
_SLIPS = (AttributeError, LookupError, NameError, TypeError)
"""What code meets that does not expect such a scope; who refuses it, as Django does, says so by another error."""


def could_not_be_built(error: BaseException) -> bool:
    """Whether middleware that was added to Starlette or FastAPI could not be made: every request will meet it too."""
    return any(
        frame.f_code.co_name == _BUILDS and not _BUILDERS.isdisjoint((_module(caller), _module(frame)))
        for caller, frame in pairwise(_passed(error))
    )


def has_lifespan(error: BaseException) -> bool:
    """Whether it came through an app that has a lifespan, from middleware that was added to it, say."""
    return any(frame.f_code.co_name == "__call__" and _module(frame) in _WITH_LIFESPAN for frame in _passed(error))


def refuses_lifespan(error: BaseException) -> bool:
    """Whether an app says by it that it has none: it is no slip, and whoever raised it was handed the scope."""
    code = _passed(error)[-1].f_code
    return "scope" in code.co_varnames[: code.co_argcount] and not isinstance(error, _SLIPS)


def _module(frame: FrameType) -> str | None:
    return frame.f_globals.get("__name__")


def _passed(error: BaseException) -> list[FrameType]:
    """All that an exception came through; the last is where it was raised."""
    return [frame for frame, _ in walk_tb(error.__traceback__)]
