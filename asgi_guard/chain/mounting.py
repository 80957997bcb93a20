"""Who says where the app is mounted. Of daphne, any client does: by a header of the request, `Daphne-Root-Path`.

daphne hands on what stands there in the place of its own `--root-path`, and takes the header out of the scope. So the
scope does not tell whose word its root path is.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

    from asgi_guard.asgi import Scope

DAPHNE = "daphne.server"
"""The module whose presence says that daphne may be what serves; `claim` finds out whether it is."""

_own: str | None = None


def claim(scope: Scope) -> tuple[str, str] | None:
    """What daphne was told to be mounted at, and what a request says instead; None where there is nothing to doubt.

    Args:
        scope: the scope as the outermost chain is handed it. Below its mounts Starlette keeps in it what the root path
            was before them, and the app, which may have put its own there.
    """
    global _own
    if _own is None:
        # Django's apps import daphne for its `runserver` wherever they are served.
        if not getattr(sys.modules.get("twisted.internet.reactor"), "running", False):
            return None
        _own = _told(sys._getframe())
    said = scope.get("app_root_path", scope.get("root_path")) or ""
    if said == _own or (said and said == getattr(scope.get("app"), "root_path", None)):
        return None
    return _own, said


def _told(frame: FrameType | None) -> str:
    """The `--root-path` of the server that runs the event loop, which runs this; empty where that is not found."""
    while frame is not None and frame.f_globals.get("__name__") != DAPHNE:
        frame = frame.f_back
    return "" if frame is None else str(getattr(frame.f_locals.get("self"), "root_path", None) or "")
