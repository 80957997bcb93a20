"""The guarded app in a worker of `asgi-guard run`, which says by its exit code that it cannot be loaded."""

from __future__ import annotations

import logging
import sys

from asgi_guard.cli.workers import STARTUP_FAILURE

try:
    from asgi_guard.wrapped import app as app
except Exception:
    logging.getLogger("uvicorn.error").exception("the app cannot be loaded")
    sys.exit(STARTUP_FAILURE)
