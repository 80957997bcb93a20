"""An app guarded without a change of its code, for any server.

ASGI_GUARD_APP=myapp:app gunicorn -k uvicorn_worker.UvicornWorker asgi_guard.wrapped:app
"""

from __future__ import annotations

from asgi_guard.apps.loading import load_app
from asgi_guard.apps.own_guard import guarded
from asgi_guard.settings import environment

app = guarded(load_app(environment().get("app")))
