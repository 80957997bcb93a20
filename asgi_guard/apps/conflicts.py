"""What an app has within, where it and the guard get in each other's way: told as the cautions are."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

from asgi_guard.apps.inspection import (
    added_middleware,
    answers_preflights,
    apps_within,
    loose_mounts,
    own_root_path,
    root_paths_within,
)
from asgi_guard.chain.exchange import rows_told
from asgi_guard.chain.layer import Chain, Layer
from asgi_guard.configuration.variables import PREFIX
from asgi_guard.middleware import RateLimitMiddleware
from asgi_guard.policy.routes import UNNAMED, beyond_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_guard.guard import Guard
    from asgi_guard.settings import GuardSettings


def conflicts(app: object, settings: GuardSettings, *, added: bool = False) -> Iterator[str]:
    """What an app has within, and the guard does in its place: told where it would get in the way.

    Args:
        app: the app; Starlette's and FastAPI's name what was added to them.
        settings: those of the guard around it.
        added: whether that guard is itself among what was added, and so not around all of it.
    """
    yield from _blank_pages(app, settings)
    yield from _unheard_handler(app)
    yield from _beside_mounts(app, settings)
    if settings.limited and any(_charges(each) for each in apps_within(app)):
        yield (
            "a guard within this one charges limits too: each counts for itself, or twice what a request costs in a "
            "store that they share; keep one of them"
        )
    root_path = own_root_path(app)
    for beyond in beyond_root(settings.routes, root_path):
        rows_told.add(beyond)
        yield beyond
    others = root_paths_within(app) - {root_path}
    if others and settings.routes:
        yield (
            f"an app within takes {', '.join(sorted(others))} for its root path, and whether all requests come to it "
            "cannot be seen from outside, so rows are matched as if it did not: put the Guard around that app itself, "
            "or have the server give the root path"
        )
    if not any(map(answers_preflights, _kinds_within(app, added=added))):
        return
    if settings.cors.allow_origins:
        yield (
            f"the app's own CORSMiddleware marks answers beside {PREFIX}CORS_ALLOW_ORIGINS, for whatever origins it is "
            "told: take it out"
        )
    elif settings.auth.on:
        yield (
            "the app's own CORSMiddleware sees no preflight, which brings no token and so is refused: take it out, and "
            f"say its origins by {PREFIX}CORS_ALLOW_ORIGINS"
        )


def _kinds_within(app: object, *, added: bool) -> Iterator[object]:
    """The classes of what a guard around an app, or added to it, has within."""
    for each in apps_within(app):
        kinds: list[object] = [cls for cls, _, _ in added_middleware(each)]
        if not added:
            yield type(each)
            yield from kinds
            continue
        guards = [place for place, cls in enumerate(kinds) if makes_guard(cls)]
        yield from kinds[guards[0] + 1 :] if guards else ()


def makes_guard(cls: object) -> TypeGuard[type[Guard]]:
    """Whether a class makes a whole guard, and not a layer alone: `Guard`, which imports this, or one that inherits."""
    return isinstance(cls, type) and issubclass(cls, Chain) and not issubclass(cls, Layer)


def _beside_mounts(app: object, settings: GuardSettings) -> Iterator[str]:
    """Litestar's mounts, where what begins with their letters is let in, and what is below them is not."""
    if not settings.auth.on or not (mounts := list(loose_mounts(app))):
        return  # a table takes its time where there are many rows
    table = settings.route_table
    for path in mounts:
        beside, below = (table.row(f"{path}{more}", "GET") for more in (UNNAMED, f"/{UNNAMED}"))
        if beside is not None and beside.opens and (below is None or not below.opens):
            yield (
                f"Litestar hands what is mounted at {path} every path that begins so, as in {path}x, and the row "
                f"{beside} lets anyone in there: put a Guard around what is mounted, or open only paths that you name"
            )


def _unheard_handler(app: object) -> Iterator[str]:
    """Starlette's and FastAPI's handler of whatever nobody handles runs around all that `add_middleware` adds."""
    handlers = getattr(app, "exception_handlers", None)
    if not isinstance(handlers, dict) or not (Exception in handlers or 500 in handlers):
        return
    added = sorted(
        each.__name__ for each, _, _ in added_middleware(app) if isinstance(each, type) and issubclass(each, Chain)
    )
    if added:
        yield (
            f"what the app's own handler of Exception answers is not sent: {', '.join(added)} stands within it by "
            f"add_middleware, and answers 500 first: put it around the app, as in {added[0]}(app)"
        )


def _charges(app: object) -> bool:
    """Whether this is a whole guard that charges limits. A layer alone was put there on purpose."""
    if not isinstance(app, Chain) or len(app.layers) == 1:
        return False
    rows = (row for layer in app.layers if isinstance(layer, RateLimitMiddleware) for row in layer.limits)
    return any(each.limits for row in rows for each in row.all())


def _blank_pages(app: object, settings: GuardSettings) -> Iterator[str]:
    """FastAPI's pages of documentation, where they are let through and may load nothing of what they consist of."""
    openapi = getattr(app, "openapi_url", None)
    if (
        not openapi
        or not isinstance(openapi, str)
        or settings.security.preset not in ("api", "page")
        or settings.security.csp is not None
    ):
        return
    table, blank = settings.route_table, []
    for path in (getattr(app, name, None) for name in ("docs_url", "redoc_url")):
        if not path or not isinstance(path, str):
            continue
        route = table.row(path, "GET")
        closed = settings.auth.on and (route is None or not route.opens)
        if not closed and (route is None or route.security is None):
            blank.append(path)
    if blank:
        opens, more = (', "auth": "none"', f", and one for {openapi}") if settings.auth.on else ("", "")
        yield (
            f"browsers show nothing at {' and '.join(blank)}, whose scripts the preset {settings.security.preset!r} "
            "forbids, unless the app "
            f'sets one of its own: give them rows, as in {{"path": "{blank[0]}"{opens}, "security": "docs"}}{more}, or '
            "tell FastAPI to have none"
        )
