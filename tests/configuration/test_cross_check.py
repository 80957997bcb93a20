"""Settings that are wrong only in combination."""

from __future__ import annotations

import pytest

from asgi_guard import Guard, GuardSettings, ProxySettings, RequestIDSettings
from asgi_guard.guard import configure
from tests.asgi import Echo, get
from tests.configuring import DIGEST, problems

KEYS = f"ci={DIGEST}"
ISSUER = {"AUTH_ISSUER": "https://id.example.com", "AUTH_AUDIENCE": "shop"}


@pytest.mark.parametrize(
    ("environment", "variable", "message"),
    [
        ({"AUTH_ISSUER": "https://id.example.com"}, "AUTH_AUDIENCE", "name this API"),
        ({"AUTH_ISSUER": "https://id.example.com", "AUTH_AUDIENCE": '[""]'}, "AUTH_AUDIENCE", "name this API"),
        ({"AUTH_ISSUER": "https://id.example.com", "AUTH_AUDIENCE": '["a", " "]'}, "AUTH_AUDIENCE", "name this API"),
        ({"AUTH_ISSUERS": '[{"issuer": "https://b.example", "audience": [""]}]'}, "AUTH_ISSUERS", "audience: name"),
        ({"AUTH_AUDIENCE": "shop"}, "AUTH_AUDIENCE", "no effect without ASGI_GUARD_AUTH_ISSUER"),
        ({"AUTH_JWKS_URL": "https://id.example.com/k"}, "AUTH_JWKS_URL", "no effect without ASGI_GUARD_AUTH_ISSUER"),
        ({"AUTH_COOKIE": "session"}, "AUTH_COOKIE", "no effect without ASGI_GUARD_AUTH_ISSUER"),
        (
            {"AUTH_UNSAFE_WEBSOCKET_QUERY_TOKEN": "t"},
            "AUTH_UNSAFE_WEBSOCKET_QUERY_TOKEN",
            "no effect without ASGI_GUARD_AUTH_ISSUER",
        ),
        (
            {**ISSUER, "AUTH_DPOP": "require", "AUTH_UNSAFE_WEBSOCKET_QUERY_TOKEN": "t"},
            "AUTH_UNSAFE_WEBSOCKET_QUERY_TOKEN",
            "come without a proof",
        ),
        ({"AUTH_ALGORITHMS": "ES256"}, "AUTH_ALGORITHMS", "no effect without ASGI_GUARD_AUTH_ISSUER"),
        ({"AUTH_PROFILE": "at+jwt"}, "AUTH_PROFILE", "no effect without ASGI_GUARD_AUTH_ISSUER"),
        ({**ISSUER, "AUTH_API_KEY_HEADER": "x-key"}, "AUTH_API_KEY_HEADER", "without ASGI_GUARD_AUTH_API_KEYS"),
        (
            {**ISSUER, "AUTH_API_KEYS": KEYS, "AUTH_API_KEY_HEADER": "authorization"},
            "AUTH_API_KEY_HEADER",
            "'authorization' is where something else stands",
        ),
        ({"PROXY_HEADER": "forwarded"}, "PROXY_HEADER", "no effect without ASGI_GUARD_PROXY_TRUSTED"),
        ({"METRICS_ALLOW": "10.0.0.0/8"}, "METRICS_ALLOW", "no effect without ASGI_GUARD_METRICS_PATH"),
        (
            {**ISSUER, "AUTH_ISSUER": "https://a.example/.well-known/openid-configuration"},
            "AUTH_ISSUER",
            "which stands before /.well-known/: write https://a.example",
        ),
        ({**ISSUER, "AUTH_ISSUER": "https://a.example,https://b.example"}, "AUTH_ISSUER", "ASGI_GUARD_AUTH_ISSUERS"),
        ({"HOSTS_ALLOWED": "*"}, "HOSTS_ALLOWED", "every host is allowed where none is named"),
        (
            {"CORS_ALLOW_ORIGINS": "https://a.example", "CORS_ALLOW_METHODS": "put delete"},
            "CORS_ALLOW_METHODS",
            "'put delete' is not a method's name: names are parted by ','",
        ),
        ({"AUTH_MAX_TOKEN_AGE": "60"}, "AUTH_MAX_TOKEN_AGE", "no effect without ASGI_GUARD_AUTH_ISSUER"),
        ({"AUTH_REVOCATION": "true"}, "AUTH_REVOCATION", "no effect without ASGI_GUARD_AUTH_ISSUER"),
        ({"CORS_ALLOW_METHODS": "PUT"}, "CORS_ALLOW_METHODS", "no effect without ASGI_GUARD_CORS_ALLOW_ORIGINS"),
        ({"CORS_ALLOW_HEADERS": "etag"}, "CORS_ALLOW_HEADERS", "no effect without ASGI_GUARD_CORS_ALLOW_ORIGINS"),
        ({"CORS_ALLOW_CREDENTIALS": "1"}, "CORS_ALLOW_CREDENTIALS", "no effect without"),
        ({"CORS_EXPOSE_HEADERS": "etag"}, "CORS_EXPOSE_HEADERS", "no effect without"),
        ({"CORS_MAX_AGE": "60"}, "CORS_MAX_AGE", "no effect without"),
        ({"CSRF_TRUSTED_ORIGINS": "https://a.example"}, "CSRF_TRUSTED_ORIGINS", "without ASGI_GUARD_CSRF_MODE"),
        ({"CSRF_SECRET": "s" * 32}, "CSRF_SECRET", "no effect without ASGI_GUARD_CSRF_MODE"),
        ({"CSRF_TOKEN_HEADER": "x-xsrf-token"}, "CSRF_TOKEN_HEADER", "no effect without ASGI_GUARD_CSRF_MODE"),
        (
            {"ROUTES": '[{"path": "/hooks/*", "methods": ["POST"], "csrf": false}]'},
            "ROUTES",
            "the row POST /hooks/* is exempt from what is off: set ASGI_GUARD_CSRF_MODE",
        ),
        ({"CSRF_MODE": "enforce", "CSRF_SECRET": "x", "CSRF_SESSION_COOKIE": "s"}, "CSRF_SECRET", "too short"),
        ({"HOSTS_HTTPS_REDIRECT": "true"}, "HOSTS_ALLOWED", "needs the allowed hosts"),
        ({"HEALTH_READY_PATH": "/health/live"}, "HEALTH_READY_PATH", "liveness"),
        ({"RATE_LIMIT": "1/second by user"}, "RATE_LIMIT", "limits identities, and there are none"),
        ({"RATE_LIMIT": "1/second by api-key"}, "RATE_LIMIT", "limits identities, and there are none"),
        ({**ISSUER, "RATE_LIMIT": "1/second by api-key"}, "RATE_LIMIT", "limits API keys, and there are none"),
        ({"ROUTES": '[{"path": "/", "scopes": ["a"]}]'}, "ROUTES", "any method / asks who it is, and nobody can say"),
        ({"ROUTES": '[{"path": "/", "auth": "required"}]'}, "ROUTES", "asks who it is"),
        ({"ROUTES": '[{"path": "/", "auth": "optional", "methods": ["GET"]}]'}, "ROUTES", "the row GET / asks who"),
        ({"ROUTES": '[{"path": "/", "limits": "1/second by user"}]'}, "ROUTES", "limits identities"),
        (
            {"AUTH_API_KEYS": KEYS, "ROUTES": '[{"path": "/", "auth": "none", "limits": "1/second by user"}]'},
            "ROUTES",
            "the row any method / looks at no credentials, so '1/second by user' knows no identities: limit by ip",
        ),
        ({"AUTH_ISSUERS": '[{"issuer": "https://b.example"}]'}, "AUTH_ISSUERS", "https://b.example: audience: name"),
        (
            {**ISSUER, "AUTH_ISSUERS": '[{"issuer": "https://id.example.com"}]'},
            "AUTH_ISSUERS",
            "an issuer is named twice",
        ),
        ({**ISSUER, "AUTH_ISSUERS": '[{"issuer": "http://b.example"}]'}, "AUTH_ISSUERS", "http://b.example: issuer: "),
        ({**ISSUER, "AUTH_ISSUERS": '[{"issuer": "https://b.example", "typo": 1}]'}, "AUTH_ISSUERS", "number 1, typo"),
        ({**ISSUER, "AUTH_ISSUERS": "https://b.example"}, "AUTH_ISSUERS", "not JSON"),
        ({**ISSUER, "AUTH_REQUIRED_CLAIMS": "=x"}, "AUTH_REQUIRED_CLAIMS", "names no claim"),
        ({"AUTH_REQUIRED_CLAIMS": "x"}, "AUTH_REQUIRED_CLAIMS", "no effect without ASGI_GUARD_AUTH_ISSUER"),
        ({"ROUTES": '[{"path": "/", "any_scopes": ["a"]}]'}, "ROUTES", "asks who it is"),
        ({**ISSUER, "RATE_PLAN_CLAIM": "plan"}, "RATE_PLAN_CLAIM", "no effect without ASGI_GUARD_RATE_PLANS"),
        ({**ISSUER, "RATE_PLANS": '{"a": "1/hour by user"}'}, "RATE_PLANS", "nobody has a plan"),
        (
            {"AUTH_API_KEYS": KEYS, "RATE_PLANS": '{"a": "1/hour by user"}', "RATE_PLAN_CLAIM": "plan"},
            "RATE_PLAN_CLAIM",
            "no effect without ASGI_GUARD_AUTH_ISSUER",
        ),
        (
            {
                "AUTH_API_KEYS": f'{{"ci": {{"sha256": "{DIGEST}", "plan": "b"}}}}',
                "RATE_PLANS": '{"a": "1/hour by user"}',
            },
            "AUTH_API_KEYS",
            "the plan 'b' of 'ci' is none of ASGI_GUARD_RATE_PLANS: a",
        ),
        (
            {
                **ISSUER,
                "AUTH_ISSUERS": '[{"issuer": "https://b.example", "audience": "b"}]',
                "RATE_LIMIT": "1/hour by ip",
                "RATE_EXEMPT": "user:alice, user:https://b.example#bob",
            },
            "RATE_EXEMPT",
            "'user:alice' could be anyone's of several issuers: write user:ISSUER#SUBJECT",
        ),
        ({"RATE_LIMIT": "; ;"}, "RATE_LIMIT", "'; ;' holds no limit: leave it out if none is meant"),
        (
            {"ROUTES": '[{"path": "/export", "cost": 5}]'},
            "ROUTES",
            "the row any method /export costs 5, and no limit counts it: set ASGI_GUARD_RATE_LIMIT",
        ),
        (
            {"ROUTES": '[{"path": "/a", "limits": "1/hour by ip"}, {"path": "/export", "cost": 5}]'},
            "ROUTES",
            "the row any method /export costs 5, and no limit counts it: set ASGI_GUARD_RATE_LIMIT",
        ),
        (
            {"RATE_LIMIT": "1/hour by ip", "ROUTES": '[{"path": "/export", "limits": "", "cost": 5}]'},
            "ROUTES",
            "the row any method /export costs 5, and its own limits, '', are none: leave either out",
        ),
        (
            {"AUTH_API_KEYS": KEYS, "AUTH_API_KEY_HEADER": "X-Request-Id"},
            "AUTH_API_KEY_HEADER",
            "'X-Request-Id' is ASGI_GUARD_REQUEST_ID_HEADER too: name another",
        ),
        (
            {
                "AUTH_API_KEYS": KEYS,
                "AUTH_API_KEY_HEADER": "x-own",
                "CSRF_MODE": "enforce",
                "CSRF_SECRET": "s" * 32,
                "CSRF_SESSION_COOKIE": "session",
                "CSRF_TOKEN_HEADER": "x-own",
            },
            "CSRF_TOKEN_HEADER",
            "'x-own' is ASGI_GUARD_AUTH_API_KEY_HEADER too: name another",
        ),
        (
            {**ISSUER, "AUTH_REVOCATION_ON_STORE_FAILURE": "allow"},
            "AUTH_REVOCATION_ON_STORE_FAILURE",
            "it has no effect without ASGI_GUARD_AUTH_REVOCATION",
        ),
        (
            {"CSRF_MODE": "enforce", "CSRF_TOKEN_HEADER": "x-xsrf-token"},
            "CSRF_TOKEN_HEADER",
            "it has no effect without ASGI_GUARD_CSRF_SECRET",
        ),
        ({"LOG_GCP_PROJECT": "shop-1"}, "LOG_GCP_PROJECT", "it has no effect unless ASGI_GUARD_LOG_FORMAT is gcp"),
        ({"METRICS_PATH": "/health/live"}, "METRICS_PATH", "is ASGI_GUARD_HEALTH_LIVE_PATH, which answers there"),
        ({"METRICS_PATH": "/r", "HEALTH_READY_PATH": "/r"}, "METRICS_PATH", "is ASGI_GUARD_HEALTH_READY_PATH"),
        ({"RATE_EXEMPT": "10.0.0.0/8"}, "RATE_EXEMPT", "no effect without ASGI_GUARD_RATE_LIMIT"),
        ({"STORE_URL": "memory://", "SECURITY_HSTS": "max-age=1; preload"}, "SECURITY_HSTS", "'preload' needs"),
        ({"CORS_ALLOW_ORIGINS": "*", "CORS_ALLOW_CREDENTIALS": "1"}, "CORS_ALLOW_ORIGINS", "name the origins"),
    ],
)
def test_a_rule_that_would_not_hold(environment: dict[str, str], variable: str, message: str) -> None:
    """A rule that another setting keeps from holding is an error, once, at the variable that has to change."""
    found = problems(**environment)
    assert list(found) == [variable]
    (told,) = found[variable]
    assert message in told


@pytest.mark.parametrize(
    "environment",
    [
        {"METRICS_PATH": "metrics", "METRICS_ALLOW": "10.0.0.0/8"},
        {"LOG_FORMAT": "offf", "LOG_GCP_PROJECT": "shop-1"},
    ],
)
def test_what_is_said_beside_what_is_wrong(environment: dict[str, str]) -> None:
    """What has an effect beside another option is not found to have none where that one is only written wrongly."""
    assert list(problems(**environment)) == [next(iter(environment))]


@pytest.mark.parametrize(
    "environment",
    [
        {"AUTH_API_KEYS": KEYS, "RATE_LIMIT": "1/second by user"},
        {"RATE_SHADOW": "on", "RATE_HEADERS": "legacy", "STORE_PREFIX": "shop:", "STORE_TIMEOUT": "1"},
        {"ROUTES": '[{"path": "/a", "limits": "9/hour by ip"}]', "RATE_HEADERS": "off", "RATE_SHADOW": "on"},
        {"STORE_URL": "memory://", "STORE_TIMEOUT": "1", "LOG_FORMAT": "off", "LOG_SAMPLE": "0.1"},
        {"STORE_URL": "redis://cache", "STORE_TIMEOUT": "1", "STORE_PREFIX": "a:", "STORE_CLOCK": "worker"},
        {
            "CSRF_MODE": "enforce",
            "CSRF_SECRET": "s" * 32,
            "CSRF_SESSION_COOKIE": "session",
            "CSRF_TOKEN_HEADER": "x-api-key",
        },
        {"AUTH_API_KEYS": KEYS, "RATE_LIMIT": "1/second by api-key"},
        {"AUTH_API_KEYS": KEYS, "ROUTES": '[{"path": "/", "auth": "none", "limits": "1/second by ip"}]'},
        {**ISSUER, "RATE_LIMIT": "1/second by user", "ROUTES": '[{"path": "/", "scopes": ["a"]}]'},
        {**ISSUER, "ROUTES": '[{"path": "/", "auth": "optional", "limits": "1/second by user"}]'},
        {"RATE_LIMIT": "1/second by ip; 1/second by anonymous"},
        {"ROUTES": '[{"path": "/", "auth": "none"}]'},
        {"HOSTS_ALLOWED": "shop.example", "HOSTS_HTTPS_REDIRECT": "true"},
        {**ISSUER, "AUTH_REVOCATION_ON_STORE_FAILURE": "deny", "LOG_FORMAT": "gcp", "LOG_GCP_PROJECT": "shop-1"},
        {**ISSUER, "AUTH_REVOCATION": "true", "AUTH_REVOCATION_ON_STORE_FAILURE": "allow"},
        {"ROUTES": '[{"path": "/a", "limits": "9/hour by ip", "cost": 5}, {"path": "/b", "limits": "", "cost": 0}]'},
        {"ROUTES": '[{"path": "/a", "limits": "9/hour by ip"}, {"path": "/b", "cost": 0}]'},
        {
            "AUTH_API_KEYS": f'{{"ci": {{"sha256": "{DIGEST}", "plan": "a"}}}}',
            "RATE_PLANS": '{"a": "9/hour by api-key"}',
            "ROUTES": '[{"path": "/a", "cost": 5}]',
        },
        {"HEALTH_READY_PATH": "/ready", "HEALTH_LIVE_PATH": "/live"},
    ],
)
def test_rules_that_hold(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    """Settings that go together are taken."""
    for name, value in environment.items():
        monkeypatch.setenv(f"ASGI_GUARD_{name}", value)
    _, layers = configure()
    assert layers


@pytest.mark.parametrize(
    ("rows", "dead"),
    [
        ('[{"path": "/a", "auth": "none"}, {"path": "/a", "scopes": ["x"]}]', "any method /a"),
        ('[{"path": "/a/*"}, {"path": "/a/b"}]', "any method /a/b"),
        ('[{"path": "/*"}, {"path": "/a/*/c"}]', "any method /a/*/c"),
        ('[{"path": "/a/*"}, {"path": "/a/b/*"}]', "any method /a/b/*"),
        ('[{"path": "/a", "methods": "GET"}, {"path": "/a", "methods": "HEAD"}]', "HEAD /a"),
    ],
)
def test_rows_that_never_hold(rows: str, dead: str) -> None:
    """A row all of whose requests an earlier one takes is refused, with the earlier one."""
    (message,) = problems(AUTH_API_KEYS=KEYS, ROUTES=rows)["ROUTES"]
    assert message.startswith(f"the row {dead} never holds, since ")


@pytest.mark.parametrize(
    "rows",
    [
        '[{"path": "/a", "methods": "GET"}, {"path": "/a", "methods": "GET, POST"}]',
        '[{"path": "/a", "methods": "GET"}, {"path": "/a"}]',
        '[{"path": "/a/b"}, {"path": "/a/*"}, {"path": "/*"}]',
        '[{"path": "/a/*/c"}, {"path": "/a/*"}]',
        '[{"path": "/*"}, {"path": "/"}]',
    ],
)
def test_rows_that_hold_for_some(rows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that is left any request at all is accepted."""
    monkeypatch.setenv("ASGI_GUARD_AUTH_API_KEYS", KEYS)
    monkeypatch.setenv("ASGI_GUARD_ROUTES", rows)
    configure()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("5/second by ip, 60/minute by user", "is parted by a comma: limits are parted by ';'"),
        ("5/second by ip; 60/minut by user", "did you mean '60/minute by user'?"),
        ("5/second by ip; 60/minute by api-key shadwo", "'shadwo' is no option of a limit"),
    ],
)
@pytest.mark.parametrize(
    ("variable", "value"),
    [("RATE_LIMIT", "{}"), ("ROUTES", '[{{"path": "/a", "limits": "{}"}}]'), ("RATE_PLANS", '{{"a": "{}"}}')],
)
def test_limits_that_cannot_be_read(variable: str, value: str, text: str, said: str) -> None:
    """Of limits that cannot be read that is told, and nothing of what they would be if they could."""
    environment = {variable: value.format(text)}
    if variable == "RATE_PLANS":
        environment |= {**ISSUER, "RATE_PLAN_CLAIM": "plan"}
    found = problems(**environment)
    assert list(found) == [variable]
    (message,) = found[variable]
    assert said in message


def test_identities_beside_a_function() -> None:
    """Limits by identities are looked for beside those by a function too, which only the Guard is given."""
    (message,) = problems(RATE_LIMIT="5/second by tenant; 60/minute by user")["RATE_LIMIT"]
    assert "limits identities, and there are none" in message


def test_ids_of_proxies_that_nobody_trusts() -> None:
    """Ids that only proxies are believed about need a proxy that is believed."""
    found = problems(REQUEST_ID_TRUST_INCOMING="proxies")
    assert list(found) == ["REQUEST_ID_TRUST_INCOMING"]
    assert "PROXY_TRUSTED" in found["REQUEST_ID_TRUST_INCOMING"][0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASGI_GUARD_REQUEST_ID_TRUST_INCOMING", "proxies")
        patch.setenv("ASGI_GUARD_PROXY_TRUSTED", "10.0.0.0/8")
        assert configure()[0].request_id.trust_incoming == "proxies"


async def test_ids_of_trusted_proxies() -> None:
    """A whole guard believes the id that its proxy hands on, and no other client's."""
    settings = GuardSettings(
        request_id=RequestIDSettings(trust_incoming="proxies"), proxy=ProxySettings(trusted=("10.0.0.0/8",))
    )
    guard = Guard(Echo(), settings)
    for peer, believed in ((("10.0.0.2", 1), True), (("203.0.113.9", 1), False)):
        answered = await get(guard, headers=[(b"x-request-id", b"r1")], client=peer)
        assert (answered.headers["x-request-id"] == "r1") is believed
