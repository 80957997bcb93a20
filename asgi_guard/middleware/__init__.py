"""The layers: thin ASGI shells around the decisions of `asgi_guard.policy`, each usable alone."""

from __future__ import annotations

from asgi_guard.identity.issuer import Issuer
from asgi_guard.middleware.access import AccessMiddleware
from asgi_guard.middleware.access_log import AccessLogMiddleware
from asgi_guard.middleware.cors import CORSMiddleware
from asgi_guard.middleware.csrf import CSRFMiddleware
from asgi_guard.middleware.drain import DrainMiddleware
from asgi_guard.middleware.health import HealthMiddleware
from asgi_guard.middleware.hosts import HostMiddleware
from asgi_guard.middleware.identity import IdentityMiddleware
from asgi_guard.middleware.metrics import MetricsMiddleware
from asgi_guard.middleware.proxy import ProxyMiddleware
from asgi_guard.middleware.rate_limit import RateLimitMiddleware
from asgi_guard.middleware.request_id import RequestIDMiddleware
from asgi_guard.middleware.resource_metadata import ResourceMetadataMiddleware
from asgi_guard.middleware.security import SecurityHeadersMiddleware

__all__ = [
    "AccessLogMiddleware",
    "AccessMiddleware",
    "CORSMiddleware",
    "CSRFMiddleware",
    "DrainMiddleware",
    "HealthMiddleware",
    "HostMiddleware",
    "IdentityMiddleware",
    "Issuer",
    "MetricsMiddleware",
    "ProxyMiddleware",
    "RateLimitMiddleware",
    "RequestIDMiddleware",
    "ResourceMetadataMiddleware",
    "SecurityHeadersMiddleware",
]
