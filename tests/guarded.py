"""A guard with everything on, and what came of a request."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from asgi_guard import (
    APIKey,
    AuthSettings,
    CORSSettings,
    Guard,
    GuardSettings,
    HostsSettings,
    ProxySettings,
    RateSettings,
    Route,
)
from asgi_guard.middleware import AccessLogMiddleware

if TYPE_CHECKING:
    from asgi_guard.asgi import ASGIApp
    from asgi_guard.testing import LocalIssuer

PAGE = "https://app.example"
KEY = b"the-robots-key"
LAYERS = [
    "health", "proxy", "request_id", "access_log", "security", "host", "cors", "rate_limit", "identity", "rate_limit",
    "access",
]  # fmt: skip
ROUTES = (
    Route("/public", auth="none", limits=""),
    Route("/maybe", auth="optional"),
    Route("/login", methods=("POST",), auth="none", limits="2/hour by ip"),
    Route("/pay/*", scopes=("payments:write",)),
    Route("/docs", auth="none", security="docs"),
)


def settings(issuer: LocalIssuer, **sections: Any) -> GuardSettings:
    """Settings with every layer on."""
    whole: dict[str, Any] = {
        "auth": AuthSettings(
            issuer=issuer.url,
            audience=(issuer.audience,),
            api_keys=(APIKey("robot", sha256(KEY).hexdigest()),),
            cookie="session",
            revocation=True,
        ),
        "rate": RateSettings(limit="1000000/hour by ip; 1000000/hour by user"),
        "cors": CORSSettings(allow_origins=(PAGE,), allow_credentials=True),
        "hosts": HostsSettings(allowed=("testserver", "*.example.com")),
        "proxy": ProxySettings(trusted=("203.0.113.0/24",)),
        "routes": ROUTES,
        **sections,
    }
    return GuardSettings(**whole)


class Recorded:
    """A guard whose access log is kept here."""

    def __init__(self, app: ASGIApp, issuer: LocalIssuer, chosen: GuardSettings | None = None) -> None:
        self.guard = Guard(app, chosen or settings(issuer), http_client=issuer.client)
        self.lines: list[bytes] = []
        (layer,) = [layer for layer in self.guard.layers if isinstance(layer, AccessLogMiddleware)]
        layer.write = self.lines.append

    @property
    def record(self) -> dict[str, Any]:
        """The one line that was written since it was last looked at."""
        (line,) = self.lines
        self.lines.clear()
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        record: dict[str, Any] = json.loads(line)
        return record
