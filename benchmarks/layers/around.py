"""What is put around an app: each layer alone, the whole guard, and as much of its stack as there is up to a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_guard import (
    AccessLogMiddleware,
    AccessMiddleware,
    CORSMiddleware,
    Guard,
    HealthMiddleware,
    HostMiddleware,
    IdentityMiddleware,
    MemoryStore,
    ProxyMiddleware,
    RateLimitMiddleware,
    RequestIDMiddleware,
    SecurityHeadersMiddleware,
)
from asgi_guard.chain.layer import Chain
from asgi_guard.middleware.rate_limit import KnownLimits
from benchmarks import subjects
from benchmarks.calls import Idle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asgi_guard.asgi import ASGIApp
    from asgi_guard.chain.layer import Layer
    from asgi_guard.testing import LocalIssuer

BARE = "the app alone"
IDLE = "(a layer that does nothing)"
GUARD = "the whole Guard"


def around(app: ASGIApp, issuer: LocalIssuer) -> dict[str, ASGIApp]:
    """The app, each layer alone around it, and the whole guard around it."""
    return {
        BARE: app,
        IDLE: Idle(app),
        "Health": HealthMiddleware(app),
        "Proxy": ProxyMiddleware(app, trusted=subjects.PROXIES),
        "RequestID": RequestIDMiddleware(app),
        "AccessLog": AccessLogMiddleware(app),
        "SecurityHeaders": SecurityHeadersMiddleware(app),
        "Host": HostMiddleware(app, allowed=subjects.HOST),
        "CORS": CORSMiddleware(app, allow_origins=subjects.ORIGIN),
        "Identity (cached token)": IdentityMiddleware(app, issuers=[issuer.accepted()]),
        "RateLimit (2 limits, memory)": RateLimitMiddleware(
            app, limit=subjects.LIMITS.format("anonymous"), store=MemoryStore()
        ),
        "Access": AccessMiddleware(app, default="optional"),
        GUARD: guard(app, issuer),
    }


def guard(app: ASGIApp, issuer: LocalIssuer) -> Guard:
    """The whole guard."""
    settings = subjects.settings(issuer.url, issuer.audience)
    return Guard(app, settings, store=MemoryStore(), http_client=issuer.client)


def growing(app: ASGIApp, issuer: LocalIssuer) -> dict[str, ASGIApp]:
    """The guard's layers, one more each time, from none to all: each by the name of the one that came last."""
    found: dict[str, ASGIApp] = {BARE: app, IDLE: Chain(app, [Idle(app)])}
    return found | {name: Chain(app, below) for name, below in stops(guard(app, issuer).layers).items()}


def stops(layers: Sequence[Layer]) -> dict[str, list[Layer]]:
    """As many of a guard's layers as there are up to each, by its name.

    What refuses clients that are known to be over a limit stands before Identity, and is RateLimit's: it comes with it.
    """
    found: dict[str, list[Layer]] = {}
    for count, last in enumerate(layers, 1):
        if isinstance(last, KnownLimits):
            continue
        limited = any(isinstance(layer, RateLimitMiddleware) for layer in layers[:count])
        name = type(last).__name__.removesuffix("Middleware")
        found[name] = [layer for layer in layers[:count] if limited or not isinstance(layer, KnownLimits)]
    return found
