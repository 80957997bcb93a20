"""Every variable with a value of its own, and what is wrong with others."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from asgi_guard import ConfigError, GuardSettings, IssuerSettings
from asgi_guard.guard import configure
from asgi_guard.policy.identity import APIKey
from asgi_guard.policy.routes import Route
from asgi_guard.settings import variables

DIGEST = "0123456789abcdef" * 4
OTHER_DIGEST = "fedcba9876543210" * 4

# Each variable with a value that is not its default, and what the setting then is.
SAID: dict[str, tuple[str, Any]] = {
    "APP": ("asgi_guard.guard:no_app", "asgi_guard.guard:no_app"),
    "ROUTES": ('[{"path": "/login", "auth": "none"}]', (Route("/login", auth="none"),)),
    "ROUTES_FILE": ("", None),  # has tests of its own
    "STORE_URL": ("redis://cache:6379/2", "redis://cache:6379/2"),
    "STORE_TIMEOUT": ("0.2", 0.2),
    "STORE_PREFIX": ("shop:", "shop:"),
    "STORE_CLOCK": ("worker", "worker"),
    "STORE_MAX_KEYS": ("2000", 2000),
    "AUTH_ISSUER": ("https://id.example.com", "https://id.example.com"),
    "AUTH_AUDIENCE": ("shop, shop-admin", ("shop", "shop-admin")),
    "AUTH_JWKS_URL": ("https://id.example.com/keys", "https://id.example.com/keys"),
    "AUTH_ALGORITHMS": ("ES256", ("ES256",)),
    "AUTH_LEEWAY": ("5", 5),
    "AUTH_MAX_TOKEN_AGE": ("3600", 3600),
    "AUTH_COOKIE": ("session", "session"),
    "AUTH_UNSAFE_WEBSOCKET_QUERY_TOKEN": ("ticket", "ticket"),
    "AUTH_API_KEYS": (f"ci={DIGEST}", (APIKey("ci", DIGEST),)),
    "AUTH_API_KEY_HEADER": ("x-key", "x-key"),
    "AUTH_MAX_TOKEN_LIFETIME": ("900", 900.0),
    "AUTH_PROFILE": ("at+jwt", "at+jwt"),
    "AUTH_REQUIRED_CLAIMS": ("client_id, tenant=acme", ("client_id", "tenant=acme")),
    "AUTH_SCOPE_CLAIMS": ("scope, roles", ("scope", "roles")),
    "AUTH_ISSUERS": (
        '[{"issuer": "https://other.example", "audience": "b"}]',
        (IssuerSettings(issuer="https://other.example", audience=("b",)),),
    ),
    "AUTH_INTROSPECTION_URL": ("https://id.example.com/introspect", "https://id.example.com/introspect"),
    "AUTH_INTROSPECTION_CLIENT_ID": ("shop", "shop"),
    "AUTH_INTROSPECTION_CLIENT_SECRET": ("hunter2", "hunter2"),
    "AUTH_INTROSPECTION_ISSUER": ("https://opaque.example.com", "https://opaque.example.com"),
    "AUTH_INTROSPECTION_UNSAFE_ANY_AUDIENCE": ("true", True),
    "AUTH_INTROSPECTION_UNSAFE_ANY_TYPE": ("true", True),
    "AUTH_INTROSPECTION_UNSAFE_SUBJECT": ("username, client_id", ("username", "client_id")),
    "AUTH_REVOCATION": ("true", True),
    "AUTH_REVOCATION_ON_STORE_FAILURE": ("allow", "allow"),
    "AUTH_DPOP": ("accept", "accept"),
    "AUTH_DPOP_NONCE_SECRET": ("n" * 32, "n" * 32),
    "AUTH_CLIENT_CERT": ("tls", "tls"),
    "AUTH_RESOURCE": ("https://shop.example/api", "https://shop.example/api"),
    "AUTH_RESOURCE_NAME": ("The shop", "The shop"),
    "AUTH_RESOURCE_DOCUMENTATION": ("https://shop.example/docs", "https://shop.example/docs"),
    "RATE_LIMIT": ("10/second by user", "10/second by user"),
    "RATE_ON_STORE_FAILURE": ("deny", "deny"),
    "RATE_HEADERS": ("legacy", "legacy"),
    "RATE_SHADOW": ("yes", True),
    "RATE_PLANS": ('{"pro": "90/second by user"}', {"pro": "90/second by user"}),
    "RATE_PLAN_CLAIM": ("plan", "plan"),
    "RATE_EXEMPT": (
        "10.0.0.0/8, user:https://other.example#alice",
        ("10.0.0.0/8", "user:https://other.example#alice"),
    ),
    "RATE_MESSAGES": ("20/second burst 40", "20/second burst 40"),
    "RATE_DENY_CACHE": ("0.5", 0.5),
    "RATE_WORKERS": ("4", 4),
    "RATE_IPV6_PREFIX": ("56", 56),
    "CORS_ALLOW_ORIGINS": ("https://shop.example", ("https://shop.example",)),
    "CORS_ALLOW_METHODS": ("PUT,DELETE", ("PUT", "DELETE")),
    "CORS_ALLOW_HEADERS": ('["authorization"]', ("authorization",)),
    "CORS_ALLOW_CREDENTIALS": ("1", True),
    "CORS_EXPOSE_HEADERS": ("etag", ("etag",)),
    "CORS_MAX_AGE": ("600", 600),
    "CORS_PREFLIGHT_STATUS": ("200", 200),
    "CORS_UNSAFE_INSECURE_ORIGINS": ("1", True),
    "CORS_UNSAFE_PUBLIC_SUFFIXES": ("1", True),
    "CORS_UNSAFE_PRIVATE_NETWORK": ("1", True),
    "CORS_UNSAFE_DEBUG": ("1", True),
    "CSRF_MODE": ("enforce", "enforce"),
    "CSRF_TRUSTED_ORIGINS": ("https://partner.example", ("https://partner.example",)),
    "CSRF_EXEMPT": ("/hooks/*", ("/hooks/*",)),
    "CSRF_SESSION_COOKIE": ("sessionid", "sessionid"),
    "CSRF_SECRET": ("s" * 32, "s" * 32),
    "CSRF_PREVIOUS_SECRET": ("p" * 32, "p" * 32),
    "CSRF_TOKEN_HEADER": ("x-csrftoken", "x-csrftoken"),
    "CSRF_UNSAFE_INSECURE_ORIGINS": ("1", True),
    "SECURITY_PRESET": ("page", "page"),
    "SECURITY_CSP": ("default-src 'self'", "default-src 'self'"),
    "SECURITY_CSP_REPORT_ONLY": ("default-src 'none'", "default-src 'none'"),
    "SECURITY_HSTS": ("max-age=60", "max-age=60"),
    "SECURITY_REFERRER_POLICY": ("same-origin", "same-origin"),
    "SECURITY_PERMISSIONS_POLICY": ("off", "off"),
    "SECURITY_FRAME_OPTIONS": ("SAMEORIGIN", "SAMEORIGIN"),
    "SECURITY_OPENER_POLICY": ("unsafe-none", "unsafe-none"),
    "SECURITY_EMBEDDER_POLICY": ("off", "off"),
    "SECURITY_RESOURCE_POLICY": ("same-site", "same-site"),
    "SECURITY_CACHE_CONTROL": ("no-cache", "no-cache"),
    "SECURITY_REPORTING_ENDPOINTS": ("a=https://a.example", ("a=https://a.example",)),
    "HOSTS_ALLOWED": ("shop.example, *.shop.example", ("shop.example", "*.shop.example")),
    "HOSTS_HTTPS_REDIRECT": ("on", True),
    "HOSTS_EXEMPT": ("/healthz, /ping", ("/healthz", "/ping")),
    "PROXY_HOPS": ("1", 1),
    "PROXY_HOST": ("on", True),
    "PROXY_TRUSTED": ("10.0.0.0/8, ::1", ("10.0.0.0/8", "::1")),
    "PROXY_HEADER": ("forwarded", "forwarded"),
    "REQUEST_ID_HEADER": ("x-correlation-id", "x-correlation-id"),
    "REQUEST_ID_TRUST_INCOMING": ("nobody", "nobody"),
    "REQUEST_ID_GENERATOR": ("uuid4", "uuid4"),
    "LOG_FORMAT": ("gcp", "gcp"),
    "LOG_SAMPLE": ("0.25", 0.25),
    "LOG_SLOW_MS": ("250", 250),
    "LOG_GCP_PROJECT": ("shop-1", "shop-1"),
    "METRICS_PATH": ("/metrics", "/metrics"),
    "METRICS_ALLOW": ("10.0.0.0/8", ("10.0.0.0/8",)),
    "METRICS_OTEL": ("true", True),
    "HEALTH_LIVE_PATH": ("/livez", "/livez"),
    "HEALTH_READY_PATH": ("/readyz", "/readyz"),
    "HEALTH_MAX_REQUESTS": ("10000", 10_000),
    "HEALTH_DRAIN_SECONDS": ("5", 5),
    "HEALTH_DRAIN_SIGNAL": ("SIGUSR1", "SIGUSR1"),
    "HEALTH_DRAIN_FILE": ("/tmp/drain", "/tmp/drain"),  # noqa: S108 - nothing is written there
    "HEALTH_DRAIN_PATH": ("/drain", "/drain"),
    "HEALTH_CHECK_TIMEOUT": ("2.5", 2.5),
    "HEALTH_DETAILS": ("10.0.0.0/8, ::1", ("10.0.0.0/8", "::1")),
}


def setting(settings: GuardSettings, name: str) -> Any:
    """The setting that a variable, named without its prefix, stands for."""
    (variable,) = (each for each in variables() if each.name == f"ASGI_GUARD_{name}")
    value = getattr(getattr(settings, variable.section) if variable.section else settings, variable.field)
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def problems(**environment: str) -> dict[str, list[str]]:
    """What is wrong with these variables, named without their prefix: the messages by variable."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(f"ASGI_GUARD_{name}", value)
        with pytest.raises(ConfigError) as caught:
            configure()
    found: dict[str, list[str]] = {}
    for problem in caught.value.problems:
        assert problem.name.startswith("ASGI_GUARD_")
        found.setdefault(problem.name.removeprefix("ASGI_GUARD_"), []).append(problem.message)
    return found
