"""Arguments in Python that cannot be meant are told where they are given."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import pytest

from asgi_guard import (
    AccessLogMiddleware,
    APIKey,
    AsgiGuardError,
    Breaker,
    Check,
    ClusterStore,
    ConfigError,
    CORSMiddleware,
    CSRFMiddleware,
    DrainMiddleware,
    HealthMiddleware,
    HostMiddleware,
    IdentityMiddleware,
    Introspection,
    IntrospectionTimes,
    Issuer,
    KeyTimes,
    MemoryStore,
    MetricsMiddleware,
    Possession,
    ProxyMiddleware,
    RateLimitMiddleware,
    RedisStore,
    RequestIDMiddleware,
    ResourceMetadataMiddleware,
    Route,
    SecurityHeadersMiddleware,
    SentinelStore,
)
from tests.asgi import Echo, get
from tests.configuring import DIGEST

if TYPE_CHECKING:
    from collections.abc import Callable

    from asgi_guard.asgi import ASGIApp, Receive, Scope, Send

LAYERS: list[tuple[Any, dict[str, Any], str]] = [
    (AccessLogMiddleware, {"slow_ms": "500"}, "slow_ms"),
    (CORSMiddleware, {"allow_origins": "https://a.example", "max_age": "600"}, "max_age"),
    (CSRFMiddleware, {"secret": b"0123456789abcdef0123456789abcdef", "session_cookie": "s"}, "secret"),
    (DrainMiddleware, {"seconds": "5"}, "seconds"),
    (HealthMiddleware, {"check_timeout": "1"}, "check_timeout"),
    (HostMiddleware, {"allowed": "a.example", "https_redirect": "yes"}, "https_redirect"),
    (IdentityMiddleware, {"api_keys": [APIKey("a", "0" * 64)], "cache_size": "10"}, "cache_size"),
    (MetricsMiddleware, {"path": 9000}, "path"),
    (ProxyMiddleware, {"hops": "1"}, "hops"),
    (RateLimitMiddleware, {"limit": "5/second", "workers": "4"}, "workers"),
    (RequestIDMiddleware, {"header": b"x-request-id"}, "header"),
    (ResourceMetadataMiddleware, {"resource": 1, "authorization_servers": "https://a.example"}, "resource"),
    (SecurityHeadersMiddleware, {"hsts": 31536000}, "hsts"),
]
OTHERS: list[tuple[Callable[[], object], str]] = [
    (lambda: Issuer("https://a.example", "api", leeway="30"), "leeway"),  # type: ignore[arg-type]
    (lambda: Introspection("https://a.example", "api", None), "client_secret"),  # type: ignore[arg-type]
    (lambda: KeyTimes(ttl="300"), "ttl"),  # type: ignore[arg-type]
    (lambda: IntrospectionTimes(positive="60"), "positive"),  # type: ignore[arg-type]
    (lambda: Breaker(threshold=1.5), "threshold"),  # type: ignore[arg-type]
    (lambda: Possession(dpop="accept", dpop_nonce_secret=b"0" * 32), "dpop_nonce_secret"),  # type: ignore[arg-type]
    (lambda: Route("/", cost="2"), "cost"),  # type: ignore[arg-type]
    (lambda: Check(5, MemoryStore().ping), "name"),  # type: ignore[arg-type]
    (lambda: APIKey(5, "0" * 64), "name"),  # type: ignore[arg-type]
    (lambda: MemoryStore(max_keys="100"), "max_keys"),  # type: ignore[arg-type]
    (lambda: RedisStore(b"redis://localhost"), "url"),  # type: ignore[arg-type]
    (lambda: SentinelStore("redis+sentinel://localhost/main", timeout="1"), "timeout"),  # type: ignore[arg-type]
    (lambda: ClusterStore("redis+cluster://localhost", prefix=None), "prefix"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("layer", "options", "named"), LAYERS, ids=lambda each: getattr(each, "__name__", None))
def test_layers(layer: Any, options: dict[str, Any], named: str) -> None:
    """An option of another type than it is declared with is told by its name, with what to give."""
    with pytest.raises(ConfigError, match=f"^{named}: it is of the type .*: give "):
        layer(Echo(), **options)


@pytest.mark.parametrize(("make", "named"), OTHERS, ids=[named for _, named in OTHERS])
def test_others(make: Callable[[], object], named: str) -> None:
    """So are those of what layers are given, which is no error of the layer's then."""
    with pytest.raises(ValueError, match=f"^{named}: it is of the type .*: give "):
        make()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Route("x"), ["Route: path 'x' does not start with '/'"]),
        (lambda: Route("/", methods="GET"), ["Route: path '/': "]),  # type: ignore[arg-type]  # as a user may
        (lambda: Route("x", cost=-1), ["Route: path 'x' does not", "Route: cost -1 is negative"]),
        (lambda: APIKey("", DIGEST), ["APIKey: an API key's name is 1 to 128"]),
        (lambda: APIKey("ci", "hunter2"), ["APIKey: an API key is not given as name and SHA-256"]),
        (lambda: Check("db", MemoryStore().ping, timeout=-1), ["timeout: the check 'db' has -1 s"]),
        (lambda: KeyTimes(ttl=0), ["ttl: keys need a life"]),
        (lambda: KeyTimes(cooldown=-1), ["cooldown: it is negative"]),
        (lambda: KeyTimes(ttl=math.nan, stale_for=-1), ["ttl: it is negative, or no", "stale_for: it is negative"]),
        (lambda: IntrospectionTimes(positive=-1), ["positive: it is negative"]),
        (lambda: IntrospectionTimes(stale_for=math.nan), ["stale_for: it is negative, or no number"]),
        (lambda: KeyTimes(min_ttl=9, max_ttl=8), ["min_ttl: it is longer than max_ttl"]),
        (lambda: Breaker(threshold=0), ["threshold: 0 is no number of failures"]),
        (lambda: Breaker(first_wait=-1), ["first_wait: it is negative"]),
        (lambda: Breaker(max_wait=float("nan")), ["max_wait: it is negative, or no number"]),
        (lambda: RedisStore("foo"), ["url: the URL cannot be read: write redis://"]),
        (lambda: MemoryStore(max_keys=0), ["max_keys: 0 is no number of buckets"]),
        (lambda: CSRFMiddleware(Echo(), exempt=["x", "/a"]), ["exempt: path 'x' does not start with '/'"]),
    ],
)
def test_values_that_cannot_be(make: Callable[[], object], said: list[str]) -> None:
    """What cannot be used for a configuration is an error of the guard's own, whatever it was to be."""
    with pytest.raises(AsgiGuardError) as caught:
        make()
    assert isinstance(caught.value, ConfigError)
    assert all(str(each).startswith(text) for each, text in zip(caught.value.problems, said, strict=True))


@pytest.mark.parametrize(("layer", "_options", "_named"), LAYERS, ids=lambda each: getattr(each, "__name__", None))
def test_no_such_argument(layer: Any, _options: object, _named: object) -> None:
    """An argument that there is not is Python's own error, with the constructor's name."""
    with pytest.raises(TypeError, match=rf"{layer.__name__}.__init__\(\) .*'misspelt'"):
        layer(Echo(), misspelt=1)


@pytest.mark.parametrize("values", [5, None, [1, 2], b"a.example", ["a.example", None]])
def test_lists(values: Any) -> None:
    """What is no list of texts is told."""
    with pytest.raises(ConfigError, match=r"^allowed: this is no list of texts"):
        HostMiddleware(Echo(), allowed=values)


@pytest.mark.parametrize("app", [None, "myapp:app", Echo])
def test_no_app(app: Any) -> None:
    """A layer around what is no app is told so, before any request comes."""
    with pytest.raises(ConfigError, match=r"^app: "):
        RequestIDMiddleware(app)


async def test_a_decorated_app() -> None:
    """An app that says to wrap something else is judged by what it takes itself."""

    def asgi(view: Callable[[str], str]) -> ASGIApp:
        @functools.wraps(view)
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await Echo()(scope, receive, send)

        return app

    @asgi
    def home(request: str) -> str:
        return request

    assert (await get(RequestIDMiddleware(home))).status == 200
