"""asgi-guard: a production front around any ASGI app.

    from asgi_guard import Guard
    app = Guard(api)

What is named here is the public interface; everything else may change.
"""

from __future__ import annotations

from asgi_guard import csp, csrf, limits
from asgi_guard.chain.exchange import request_id
from asgi_guard.configuration.sections import (
    AuthSettings,
    CORSSettings,
    CSRFSettings,
    HealthSettings,
    HostsSettings,
    IssuerSettings,
    LogSettings,
    MetricsSettings,
    ProxySettings,
    RateSettings,
    RequestIDSettings,
    SecuritySettings,
    StoreSettings,
)
from asgi_guard.errors import (
    AsgiGuardError,
    ConfigError,
    KeysUnavailableError,
    Problem,
    StoreUnavailableError,
    TokenError,
    UnknownScopeError,
)
from asgi_guard.guard import Guard
from asgi_guard.identity.introspection import Introspection
from asgi_guard.identity.possession import Possession
from asgi_guard.logs import RequestContextFilter, add_request_context
from asgi_guard.middleware import (
    AccessLogMiddleware,
    AccessMiddleware,
    CORSMiddleware,
    CSRFMiddleware,
    DrainMiddleware,
    HealthMiddleware,
    HostMiddleware,
    IdentityMiddleware,
    Issuer,
    MetricsMiddleware,
    ProxyMiddleware,
    RateLimitMiddleware,
    RequestIDMiddleware,
    ResourceMetadataMiddleware,
    SecurityHeadersMiddleware,
)
from asgi_guard.operations.draining import draining
from asgi_guard.operations.readiness import Check
from asgi_guard.policy.breaker import Breaker
from asgi_guard.policy.identity import Anonymous, APIKey, Auth, User
from asgi_guard.policy.introspection import IntrospectionTimes
from asgi_guard.policy.keyring import KeyTimes
from asgi_guard.policy.routes import Route
from asgi_guard.policy.security import SecurityHeaders
from asgi_guard.policy.trace_context import Trace
from asgi_guard.propagation import propagate, propagation_headers, trace
from asgi_guard.revocation import revoke
from asgi_guard.settings import GuardSettings
from asgi_guard.stores import ClusterStore, MemoryStore, RedisStore, SentinelStore, Store

__all__ = [
    "APIKey",
    "AccessLogMiddleware",
    "AccessMiddleware",
    "Anonymous",
    "AsgiGuardError",
    "Auth",
    "AuthSettings",
    "Breaker",
    "CORSMiddleware",
    "CORSSettings",
    "CSRFMiddleware",
    "CSRFSettings",
    "Check",
    "ClusterStore",
    "ConfigError",
    "DrainMiddleware",
    "Guard",
    "GuardSettings",
    "HealthMiddleware",
    "HealthSettings",
    "HostMiddleware",
    "HostsSettings",
    "IdentityMiddleware",
    "Introspection",
    "IntrospectionTimes",
    "Issuer",
    "IssuerSettings",
    "KeyTimes",
    "KeysUnavailableError",
    "LogSettings",
    "MemoryStore",
    "MetricsMiddleware",
    "MetricsSettings",
    "Possession",
    "Problem",
    "ProxyMiddleware",
    "ProxySettings",
    "RateLimitMiddleware",
    "RateSettings",
    "RedisStore",
    "RequestContextFilter",
    "RequestIDMiddleware",
    "RequestIDSettings",
    "ResourceMetadataMiddleware",
    "Route",
    "SecurityHeaders",
    "SecurityHeadersMiddleware",
    "SecuritySettings",
    "SentinelStore",
    "Store",
    "StoreSettings",
    "StoreUnavailableError",
    "TokenError",
    "Trace",
    "UnknownScopeError",
    "User",
    "add_request_context",
    "csp",
    "csrf",
    "draining",
    "limits",
    "propagate",
    "propagation_headers",
    "request_id",
    "revoke",
    "trace",
]
