"""The Guard that an app brings along, and whether every request comes to it; for those that bring none, another."""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

from asgi_guard.apps.conflicts import makes_guard
from asgi_guard.apps.inspection import (
    MAX_LOOKED_AT,
    added_middleware,
    answers_preflights,
    apps_within,
    handed_on,
    hands_on,
)
from asgi_guard.chain.layer import Chain
from asgi_guard.configuration.cautions import OPEN
from asgi_guard.configuration.variables import PREFIX
from asgi_guard.errors import ConfigError, Problem
from asgi_guard.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asgi_guard.asgi import ASGIApp

logger = logging.getLogger("asgi_guard")

_MAY_ANSWER = "stands around the app's own Guard, and may answer requests that never come to it"
_PREFLIGHTS = (
    "CORSMiddleware stands around the app's own Guard, and answers preflights without an id, a log line or security "
    f"headers: take it out, and say its origins by {PREFIX}CORS_ALLOW_ORIGINS"
)

OwnGuard: TypeAlias = "Guard | Callable[[ASGIApp], Guard]"
"""A guard, or what makes one as `add_middleware` will with the first request."""


def own_guard(app: object) -> OwnGuard | None:
    """The guard that every request to an app comes to; None where that is not known of any.

    That is the app itself, or stands within what is known to hand every request on, or was added as middleware.
    """
    return _guard_of(_way_in(app)[0])


def guard_within(app: object) -> OwnGuard | None:
    """A guard to which requests to an app may come, if not all of them; None where none can be seen."""
    return next((guard for each in apps_within(app) if (guard := _guard_of(each)) is not None), None)


def passing_by(app: object) -> list[str]:
    """What may answer requests to an app that never come to the app's own guard, and what to do; one text for each."""
    reached, passed = _way_in(app)
    own, outside, found = _guard_of(reached) is not None, list(_outside(reached)), []
    if own and any(map(answers_preflights, (*passed, *(cls for cls, _ in outside)))):
        found.append(_PREFLIGHTS)
    names = [_name(options.get("dispatch", cls)) for cls, options in outside if not hands_on(cls)]
    if own and names:
        found.append(f"{names[0]} {_MAY_ANSWER}: add the Guard last, and so outermost")
    elif not own and guard_within(reached) is not None:
        name = names[0] if names else _name(reached)
        found.append(
            f"{name} {_MAY_ANSWER}, so `asgi-guard run` and asgi_guard.wrapped put another one around both, of the "
            f"environment: put your own around {name} instead"
        )
    return found


def guarded(app: ASGIApp) -> ASGIApp:
    """The app behind a guard: its own, if every request comes to it, else one of the environment.

    If the environment's guard has identity off, this is logged, since no code chose it.

    Raises:
        ConfigError: as `Guard`, and `require_servable`.
    """
    require_servable(app)
    for warning in passing_by(app):
        logger.warning("%s", warning)
    if own_guard(app) is not None:
        return app
    guard = Guard(app)
    if not guard.settings.auth.on and guard.settings.model_fields_set:  # else it has said more
        logger.warning("%s", OPEN)
    return guard


def require_servable(app: object) -> None:
    """See to it that each guard and layer that was added to an app by `add_middleware` can be made around it.

    The app makes them with its first request, so nobody would know before every request is answered by an error.

    Raises:
        ConfigError: a Guard stands right within another, or something was added that is made already.
    """
    if problems := [problem for each in apps_within(app) for problem in _unservable(each)]:
        raise ConfigError(problems)


def _unservable(app: object) -> Iterator[Problem]:
    added = [cls for cls, _, _ in added_middleware(app)]
    for cls in added:
        if isinstance(cls, Chain):
            name = type(cls).__name__
            options = "settings=..." if isinstance(cls, Guard) else "..."
            said = f"add_middleware takes the class, not a {name} that is made: add_middleware({name}, {options})"
            yield Problem("app", said)
    if any(makes_guard(outer) and makes_guard(inner) for outer, inner in pairwise(added)):
        yield Problem("app", "a Guard was added to it twice: two would charge every limit twice; keep one")


def _way_in(app: object) -> tuple[object, list[object]]:
    """How far in every request to an app is known to come, and the classes of what hands it on.

    It comes to a guard, or to what may answer some requests itself.
    """
    passed: list[object] = []
    for _ in range(MAX_LOOKED_AT):
        inner = None if _guard_of(app) is not None else handed_on(app)
        if inner is None:
            break
        passed += (type(app), *(cls for cls, _, _ in added_middleware(app)))
        app = inner
    return app, passed


def _outside(app: object) -> Iterator[tuple[object, dict[str, Any]]]:
    """What was added to an app after its guard, the last first, or all where none was added: classes and options."""
    for cls, _, options in added_middleware(app):
        if makes_guard(cls):
            return
        yield cls, options


def _guard_of(app: object) -> OwnGuard | None:
    """The guard that something is, or that was added to it as middleware."""
    if isinstance(app, Guard):
        return app
    for cls, args, options in added_middleware(app):
        if makes_guard(cls):
            return _maker(cls, args, options)
    return None


def _maker(cls: type[Guard], args: tuple[Any, ...], options: dict[str, Any]) -> Callable[[ASGIApp], Guard]:
    """What makes a guard as Starlette and FastAPI do: around the app, which comes before all that was given."""
    return lambda app: cls(app, *args, **options)


def _name(it: object) -> str:
    """What the code calls a class, a function, or else the class of something."""
    return str(getattr(it, "__name__", type(it).__name__))
