"""What the access log wrote, for tests of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from asgi_guard import AccessLogMiddleware

if TYPE_CHECKING:
    from asgi_guard.asgi import ASGIApp


class Lines(list[bytes]):
    """What was written, line by line."""

    def layer(self, app: ASGIApp, **options: Any) -> AccessLogMiddleware:
        return AccessLogMiddleware(app, write=self.append, **options)

    @property
    def record(self) -> dict[str, Any]:
        """The one line there is."""
        (line,) = self
        assert line.endswith(b"\n")
        assert len(line.decode().splitlines()) == 1
        record: dict[str, Any] = json.loads(line)
        return record
