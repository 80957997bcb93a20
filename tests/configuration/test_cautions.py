"""What works and is probably not meant, and what a limit would silently not do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from asgi_guard import (
    APIKey,
    AuthSettings,
    CORSSettings,
    CSRFSettings,
    Guard,
    GuardSettings,
    HostsSettings,
    MemoryStore,
    MetricsSettings,
    RateSettings,
    RedisStore,
    Route,
    StoreSettings,
)
from asgi_guard.configuration.cautions import IDENTIFYING, OPEN, warnings
from asgi_guard.configuration.variables import PREFIX
from asgi_guard.guard import configure
from asgi_guard.policy.limit_sets import Rules, compile_table
from asgi_guard.settings import variables
from asgi_guard.stores import ClusterStore, SentinelStore
from tests.asgi import Echo
from tests.configuring import DIGEST, problems

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asgi_guard.stores import Store

REDIS = StoreSettings.model_validate({"url": "redis://127.0.0.1:1"})
KEYS = AuthSettings(api_keys=(APIKey("ci", DIGEST),))
TOKENS = AuthSettings(issuer="https://i.example", audience=("a",))
CORS = CORSSettings(allow_origins=("https://app.example",))
REVOKING = AuthSettings(issuer="https://i.example", audience=("a",), revocation=True)
PRO = AuthSettings(issuer="https://i.example", audience=("a",), api_keys=(APIKey("ci", DIGEST, plan="pro"),))
OPAQUE = AuthSettings(
    introspection_url="https://i.example/i",
    introspection_client_id="a",
    introspection_client_secret=SecretStr("s"),
    introspection_unsafe_subject=("username",),
    audience=("a",),
)
HEADER = "1/hour by header:x-tenant"
COUNTING = RateSettings(limit="9/hour by ip")


@pytest.mark.parametrize(
    ("store", "option"),
    [
        (RedisStore("rediss://u:p@h?ssl_cert_reqs=none"), "ssl_cert_reqs=none"),
        (SentinelStore("rediss+sentinel://h/service?ssl_check_hostname=false"), "ssl_check_hostname=false"),
        (ClusterStore("rediss+cluster://h?ssl_cert_reqs=none"), "ssl_cert_reqs=none"),
    ],
)
def test_a_store_in_python_may_be_played(store: Store, option: str, caplog: pytest.LogCaptureFixture) -> None:
    """A store that is made in Python, and has any certificate accepted, is warned of as one that a variable names."""
    Guard(Echo(), GuardSettings(rate=COUNTING), store=store)
    (warned,) = [text for record in caplog.records if "can play it" in (text := record.getMessage())]
    assert f"the URL of the store that is given in Python says {option}; leave that out" in warned


@pytest.mark.parametrize("store", [RedisStore("rediss://u:p@h"), RedisStore("redis://u:p@h"), MemoryStore()])
def test_a_url_in_whose_place_a_store_is_given(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Of a store that is made in Python and sound, nothing is said, nor of the URL that it takes the place of."""
    unread = StoreSettings.model_validate({"url": "rediss://h?ssl_cert_reqs=none"})
    Guard(Echo(), GuardSettings(rate=COUNTING, store=unread), store=store)
    assert "can play it" not in caplog.text


def told(functions: Sequence[str] = (), **sections: Any) -> list[str]:
    """What is said of these settings."""
    settings = GuardSettings(**sections)
    limits = compile_table(settings.rate.limit, settings.routes, Rules(functions=functions), settings.rate.plans)
    return list(warnings(settings, limits, shared=settings.store.shared))


@pytest.mark.parametrize("methods", [("*",), ("PATCH", "patch"), ("delete", "Put", "M-SEARCH"), ()])
def test_methods_that_pages_send(methods: tuple[str, ...]) -> None:
    """A method in the case in which pages send it is not warned of, nor one that is named in both."""
    said = told(cors=CORS.model_copy(update={"allow_methods": methods}))
    assert not any("ALLOW_METHODS" in text for text in said)


@pytest.mark.parametrize(
    ("sections", "text"),
    [
        ({"rate": RateSettings(limit="1/second by ip", workers=4)}, "clients get up to 4 times the limits"),
        ({"rate": RateSettings(workers=2), "routes": (Route("/a", limits="1/second by ip"),)}, "up to 2 times"),
        (
            {"auth": TOKENS.model_copy(update={"dpop": "accept"})},
            "made for another server is taken from whoever names that one: set ASGI_GUARD_HOSTS_ALLOWED",
        ),
        (
            {"auth": TOKENS, "routes": (Route("/a/*", scopes=("x",)),)},
            "any method /a/* asks for scopes, and holds for neither /a/ nor /a: if the app answers there, give",
        ),
        (
            {"auth": TOKENS, "routes": (Route("/a/*"), Route("/*", auth="none"))},
            "any method /a/* asks who it is, and holds for neither /a/ nor /a, which any method /* opens: if the app",
        ),
        (
            {"hosts": HostsSettings(allowed=("a.example",), https_redirect=True)},
            "is redirected to where it came from: name the proxy that ends TLS in ASGI_GUARD_PROXY_TRUSTED",
        ),
        ({"store": REDIS}, "ASGI_GUARD_STORE_URL names a store, and nothing is kept there"),
        (
            {"store": {"url": "rediss://u:p@h?ssl_cert_reqs=none"}, "rate": RateSettings(limit="9/hour by ip")},
            "can play it, and read its password: ASGI_GUARD_STORE_URL says ssl_cert_reqs=none; leave that out",
        ),
        (
            {"store": {"url": "rediss+cluster://h?ssl_check_hostname=False"}, "auth": REVOKING},
            "ASGI_GUARD_STORE_URL says ssl_check_hostname=False; leave that out",
        ),
        (
            {"auth": REVOKING},
            "revocations are kept in this process's memory",
        ),
        (
            {"auth": TOKENS.model_copy(update={"unsafe_websocket_query_token": "t"})},
            "which servers, proxies and browsers write down: ASGI_GUARD_AUTH_UNSAFE_WEBSOCKET_QUERY_TOKEN=t",
        ),
        (
            {"auth": OPAQUE.model_copy(update={"introspection_unsafe_subject": ("username", "client_id")})},
            "all users of a client whose tokens name nobody else are one: ASGI_GUARD_AUTH_INTROSPECTION_UNSAFE_SUBJECT",
        ),
        (
            {"auth": OPAQUE.model_copy(update={"introspection_unsafe_any_type": True})},
            "refresh tokens, which live long, open this API too: ASGI_GUARD_AUTH_INTROSPECTION_UNSAFE_ANY_TYPE is on",
        ),
        ({"auth": TOKENS.model_copy(update={"cookie": "session"})}, "call it __Host-session, and set it with Secure"),
        ({"auth": TOKENS.model_copy(update={"cookie": "__Secure-t"})}, "call it __Host-t, and set"),
        (
            {"auth": TOKENS.model_copy(update={"cookie": "__host-t"})},
            "in an attacker's account: call it __Host-t, and set it",
        ),
        (
            {"cors": CORS.model_copy(update={"allow_methods": ("put", "patch", "Query", "M-SEARCH")})},
            "in capitals as a rule: in ASGI_GUARD_CORS_ALLOW_METHODS, write PATCH and QUERY for patch and Query",
        ),
        ({"csrf": CSRFSettings(mode="log")}, "are only logged: ASGI_GUARD_CSRF_MODE is log"),
        ({"csrf": CSRFSettings(mode="enforce"), "cors": CORS}, "name them in ASGI_GUARD_CSRF_TRUSTED_ORIGINS"),
        ({"rate": RateSettings(limit="1/second by ip", shadow=True)}, "limits refuse nothing"),
        ({"rate": RateSettings(messages="1/second", shadow=True)}, "limits refuse nothing"),
        (
            {"rate": RateSettings(limit="9/second by ip; 5/second by ip; 5/hour by anonymous")},
            "the limit '9/second by ip' refuses nothing that '5/second by ip' does not: leave it out",
        ),
        (
            {"routes": (Route("/a", limits="5/second burst 9 by ip; 5/second burst 9 by ip as twice"),)},
            "the limit '5/second burst 9 by ip as twice' refuses nothing that '5/second burst 9 by ip' does not",
        ),
        (
            {"auth": TOKENS, "routes": (Route("/admin", scopes=("a",)), Route("/*", auth="none"))},
            "the row any method /admin asks for scopes, and holds for nothing below /admin, which any method /* opens",
        ),
        (
            {"auth": TOKENS, "routes": (Route("/admin", auth="required"), Route("/*", auth="none"))},
            "the row any method /admin asks for an identity, and holds for nothing below /admin",
        ),
        (
            {"routes": (Route("/health/live", limits="5/second by ip"),)},
            "the row any method /health/live does not hold for the probe there",
        ),
        (
            {"routes": (Route("/health/live", auth="none", limits="5/second by ip"),)},
            "the row any method /health/live does not hold for the probe there",
        ),
        (
            {"auth": TOKENS, "routes": (Route("/health/ready", scopes=("probe",)),)},
            "the row any method /health/ready does not hold for the probe there",
        ),
        (
            {"auth": TOKENS, "cors": CORS},
            "can send no credentials: name authorization in ASGI_GUARD_CORS_ALLOW_HEADERS",
        ),
        (
            {"auth": TOKENS, "cors": CORS.model_copy(update={"allow_headers": ("*",)})},
            "in ASGI_GUARD_CORS_ALLOW_HEADERS, for * does not mean authorization",
        ),
        ({"auth": KEYS, "cors": CORS}, "can send no credentials: name x-api-key in ASGI_GUARD_CORS_ALLOW_HEADERS"),
        (
            {"auth": TOKENS.model_copy(update={"cookie": "__Host-t"}), "cors": CORS},
            "set ASGI_GUARD_CORS_ALLOW_CREDENTIALS for the cookie __Host-t",
        ),
        (
            {"rate": RateSettings(limit="1/hour by ip", exempt=("::/0",))},
            "ASGI_GUARD_RATE_EXEMPT means everybody: ::/0",
        ),
        (
            {"routes": (Route("/a", limits="1/s by ip; 2/s by ip"), Route("/b", limits="1/s by ip; 2/s by ip"))},
            "the limit '2/s by ip' refuses nothing that '1/s by ip' does not",
        ),
        ({"metrics": MetricsSettings(path="/m", allow=("0.0.0.0/0",))}, "ASGI_GUARD_METRICS_ALLOW means everybody"),
        ({"csrf": CSRFSettings(mode="enforce", exempt=("/*",))}, "ASGI_GUARD_CSRF_EXEMPT means every path"),
        (
            {"auth": TOKENS, "rate": RateSettings(limit="1/hour by user")},
            "those without identity are under no limit, however many tokens they try",
        ),
        (
            {
                "auth": KEYS,
                "rate": RateSettings(limit="9/hour by ip"),
                "routes": (Route("/pay", limits="1/hour by user"), Route("/a", limits="", cost=0)),
            },
            "at any method /pay, whose own limits hold in the place of any other and say nothing of them",
        ),
        ({"rate": RateSettings(limit=HEADER)}, f"the limit {HEADER!r} goes by a header that any client can write"),
        ({"rate": RateSettings(limit=f"{HEADER}; 9/hour by route")}, "goes by a header"),
        (
            {"auth": TOKENS, "rate": RateSettings(limit=f"{HEADER}; 9/hour by user")},
            "put a limit by ip or user beside it",
        ),
        ({"auth": TOKENS, "rate": RateSettings(limit=f"{HEADER}; 9/hour by anonymous")}, "goes by a header"),
        ({"routes": (Route("/a", limits=HEADER),)}, "goes by a header"),
        (
            {"auth": KEYS, "rate": RateSettings(limit="1/hour by user"), "routes": (Route("/a", auth="none"),)},
            "add one by anonymous or by ip, also for what is open: any method /a",
        ),
        (
            {"auth": PRO, "rate": RateSettings(plans={"pro": "1/hour by api-key"}, plan_claim="plan")},
            "a token of the plan 'pro' is under no limit by user",
        ),
    ],
)
def test_what_is_told(sections: dict[str, Any], text: str) -> None:
    """Each of these is told, and nothing else is."""
    (said,) = told(**sections)
    assert text in said


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"rate": RateSettings(limit="1/second by ip")},
        {"auth": KEYS, "routes": (Route("/pay", limits="1/hour by user; 9/hour by ip"),)},
        {"rate": RateSettings(limit="1/second by ip", workers=4), "store": REDIS},
        {"rate": RateSettings(workers=4)},
        {"auth": TOKENS.model_copy(update={"cookie": "__Host-session"})},
        {"store": REDIS, "auth": AuthSettings(issuer="https://i.example", audience=("a",), revocation=True)},
        {"rate": RateSettings(limit="5/second by ip; 100/minute by ip; 9 at once by ip")},
        {"auth": TOKENS, "routes": (Route("/a", scopes=("x",)), Route("/a/*"), Route("/*", auth="none"))},
        {"auth": TOKENS, "routes": (Route("/a", auth="none"), Route("/*", auth="none"))},
        {"auth": TOKENS, "routes": (Route("/a"), Route("/*", auth="none"))},
        {"auth": TOKENS, "routes": (Route("/a", scopes=("x",)), Route("/a/*", auth="none"))},
        {"auth": TOKENS, "routes": (Route("/health/live", auth="none"),)},
        {"auth": TOKENS, "cors": CORS, "routes": (Route("/public", auth="none"),)},
        {"rate": RateSettings(limit="5/second by ip; 9/second by ip shadow")},
        {"auth": TOKENS, "cors": CORS.model_copy(update={"allow_headers": ("Authorization",)})},
        {"auth": KEYS, "cors": CORS.model_copy(update={"allow_headers": ("*",)})},
        {
            "auth": TOKENS.model_copy(update={"cookie": "__Host-t"}),
            "cors": CORS.model_copy(update={"allow_credentials": True}),
        },
        {"rate": RateSettings(limit=f"{HEADER}; 9/hour by ip")},
        {"auth": TOKENS, "rate": RateSettings(limit=f"{HEADER}; 9/hour by ip; 9/hour by user")},
        {"auth": TOKENS, "rate": RateSettings(limit=f"{HEADER}; 9/hour by anonymous; 9/hour by user")},
        {
            "auth": KEYS,
            "rate": RateSettings(limit="1/hour by user; 1/hour by ip"),
            "routes": (Route("/a", auth="none"), Route("/b", auth="none", limits="")),
        },
        {"auth": PRO, "rate": RateSettings(plans={"pro": "1/hour by api-key"})},
        {"auth": PRO, "rate": RateSettings(plans={"pro": "1/hour by user; 9/hour by api-key"}, plan_claim="plan")},
        {"auth": TOKENS, "rate": RateSettings(plans={"unlimited": ""}, plan_claim="plan")},
    ],
)
def test_what_is_as_it_should_be(sections: dict[str, Any]) -> None:
    """Of settings that say what is probably meant, nothing is told."""
    assert told(**sections) == []


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"routes": (Route("/a", methods=("GET", "READ")),)},
         ["the row GET,READ /a is for READ, which is no registered method: did you mean HEAD?"]),
        ({"cors": CORSSettings(allow_origins=("https://app.example",), allow_methods=("PTU", "PUT", "*"))},
         ["ASGI_GUARD_CORS_ALLOW_METHODS names PTU, which is no registered method: did you mean PUT?"]),
        ({"routes": (Route("/a", methods=("PROPFIND", "BREW", "PURGE")),)}, []),
    ],
)  # fmt: skip
def test_a_method_that_looks_like_another(sections: dict[str, Any], said: list[str]) -> None:
    """A method that nobody has registered and that looks like one is asked about; others of one's own are not."""
    assert told(**sections) == said


def test_a_url_that_nobody_reads() -> None:
    """Beside a store that is given in Python a URL may be none, and nothing is said of it."""
    settings = GuardSettings(store=StoreSettings.model_validate({"url": "rediss://["}))
    assert Guard(Echo(), settings, store=MemoryStore()).settings is settings


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ASGI_GAURD_AUTH_ISSUER", "ASGI_GUARD_AUTH_ISSUER"),
        ("ASGI_GUARDRATE_LIMIT", "ASGI_GUARD_RATE_LIMIT"),
        ("ASGIGUARD_STORE_URL_FILE", "ASGI_GUARD_STORE_URL_FILE"),
        ("asgi-guard_app", "ASGI_GUARD_APP"),
        ("GUARD_RATE_LIMIT", None),
        ("ASGI_APP", None),
        ("TF_VAR_ASGI_GUARD_RATE_LIMIT", None),
    ],
)
def test_a_misspelt_prefix(monkeypatch: pytest.MonkeyPatch, name: str, meant: str | None) -> None:
    """A variable that looks like a misspelt one is told of, without its value; it may be somebody else's."""
    monkeypatch.setenv(name, "hunter2")
    said = told()
    assert len(said) == (meant is not None)
    assert all(f"{name} is none of the guard's variables" in each and f"mean {meant}?" in each for each in said)
    assert "hunter2" not in str(said)


@pytest.mark.parametrize("name", sorted(IDENTIFYING))
def test_a_variable_that_was_not_filled_in(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What would have had identity asked for, and is set to nothing, is told of: the app is open to everyone."""
    assert name in {each.name for each in variables()}
    monkeypatch.setenv("ASGI_GUARD_RATE_LIMIT", "9/hour by ip")
    monkeypatch.setenv(name, " ")
    monkeypatch.setenv("ASGI_GUARD_CORS_ALLOW_ORIGINS", "")  # of which nothing follows
    assert told() == [f"{name} is set to nothing, which counts as not set: {OPEN}"]
    assert told(auth=KEYS) == []


def test_variables_that_do_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of a section, or a field, that is given in Python are named, and no others."""
    monkeypatch.setenv("ASGI_GUARD_AUTH_MAX_TOKEN_LIFETIME", "900")
    monkeypatch.setenv("ASGI_GUARD_STORE_URL_FILE", "/nowhere")
    monkeypatch.setenv("ASGI_GUARD_ROUTES", "[]")
    monkeypatch.setenv("ASGI_GUARD_LOG_FORMAT", "ecs")
    (said,) = told(auth=TOKENS, routes=(), store=StoreSettings())
    names = "ASGI_GUARD_ROUTES, ASGI_GUARD_STORE_URL_FILE, ASGI_GUARD_AUTH_MAX_TOKEN_LIFETIME"
    places = "GuardSettings(routes=...), StoreSettings(url=...), AuthSettings(max_token_lifetime=...)"
    assert said == f"{names} will not hold: a section that is given in Python is taken as it is there; say {places}"


@pytest.mark.parametrize("rate", [RateSettings(limit="1/second by ip"), {"limit": "1/second by ip"}])
def test_workers_are_counted_where_python_says_nothing_of_them(monkeypatch: pytest.MonkeyPatch, rate: object) -> None:
    """How many workers there are is said by who starts them, and holds for limits that are given in Python too."""
    monkeypatch.setenv("ASGI_GUARD_RATE_WORKERS", "2")
    (said,), place = told(rate=rate), "say RateSettings(workers=...)"
    assert "2 workers each keep their own buckets in memory" in said
    assert told(rate=RateSettings(limit="1/second by ip", workers=1)) == [
        f"{PREFIX}RATE_WORKERS will not hold: a section that is given in Python is taken as it is there; {place}"
    ]


def test_a_header_that_is_named_twice() -> None:
    """One limit by a header is told of once, however many rows have it, and each other by itself."""
    rate = RateSettings(limit=HEADER)
    rows = (Route("/a"), Route("/b"), Route("/c", limits=HEADER), Route("/d", limits="1/hour by ip"))
    said = told(rate=rate, routes=rows)
    assert len(said) == 2


def test_functions() -> None:
    """Limits by functions are as they should be."""
    assert told(["tenant"], rate=RateSettings(limit="1/hour by tenant")) == []


def test_a_function_whose_name_begins_like_a_key() -> None:
    """A limit by a function is none by identity, though its name begins like one of those."""
    rate = RateSettings(limit="1/hour by user-tier; 1/hour by api-key_group")
    guard = Guard(
        Echo(),
        GuardSettings(rate=rate),
        limit_functions={"user-tier": lambda scope: "gold", "api-key_group": lambda scope: None},
    )
    assert "rate_limit" in [layer.name for layer in guard.layers]


AUTH = {"AUTH_ISSUER": "https://id.example.com", "AUTH_AUDIENCE": "shop"}

LIMIT = {"RATE_LIMIT": "1/second by ip"}

API_KEYS = {"AUTH_API_KEYS": f"ci={DIGEST}"}

PLANNED = {"AUTH_API_KEYS": json.dumps({"ci": {"sha256": DIGEST, "plan": "pro"}})}


@pytest.mark.parametrize(
    ("environment", "variable", "message"),
    [
        ({"RATE_EXEMPT": "10.0.0.1"}, "RATE_EXEMPT", "no effect without ASGI_GUARD_RATE_LIMIT"),
        ({**LIMIT, "RATE_EXEMPT": "user:alice"}, "RATE_EXEMPT", "'user:alice' is a token's subject, and no tokens"),
        ({**LIMIT, **API_KEYS, "RATE_EXEMPT": "user:alice"}, "RATE_EXEMPT", "no tokens are accepted"),
        ({**LIMIT, **AUTH, "RATE_EXEMPT": "api-key:ci"}, "RATE_EXEMPT", "the name of no API key: none"),
        ({**LIMIT, **API_KEYS, "RATE_EXEMPT": "api-key:c1"}, "RATE_EXEMPT", "the name of no API key: ci"),
        (
            {**LIMIT, **AUTH, "RATE_EXEMPT": "user:https://x.example#al"},
            "RATE_EXEMPT",
            "#SUBJECT: https://id.example.com",
        ),
        (
            {**LIMIT, **AUTH, "RATE_PLANS": '{"": "1/hour by user"}', "RATE_PLAN_CLAIM": "plan"},
            "RATE_PLANS",
            "a plan has a name",
        ),
        ({**LIMIT, "RATE_EXEMPT": "everyone"}, "RATE_EXEMPT", "'everyone' is not an address"),
        ({"RATE_MESSAGES": "20"}, "RATE_MESSAGES", "'20' is not a rate"),
        ({**AUTH, "RATE_PLANS": '{"a": "1/hour by user"}'}, "RATE_PLANS", "nobody has a plan"),
        ({"RATE_PLANS": '{"a": "1/hour by user"}'}, "RATE_PLANS", "nobody has a plan"),
        (
            {**AUTH, "RATE_PLANS": '{"a": "1/hour by api-key"}', "RATE_PLAN_CLAIM": "plan"},
            "RATE_PLANS",
            "limits API keys, and there are none",
        ),
        ({**PLANNED}, "AUTH_API_KEYS", "the plan 'pro' of 'ci' is none of ASGI_GUARD_RATE_PLANS: none"),
        ({**AUTH, **LIMIT, "RATE_PLAN_CLAIM": "plan"}, "RATE_PLAN_CLAIM", "no effect without ASGI_GUARD_RATE_PLANS"),
    ],
)
def test_what_would_silently_not_hold(environment: dict[str, str], variable: str, message: str) -> None:
    """What is said of limits, and would concern nobody, is an error, once, at the variable that has to change."""
    found = problems(**environment)
    assert list(found) == [variable]
    (said,) = found[variable]
    assert message in said


@pytest.mark.parametrize(
    "environment",
    [
        {**LIMIT, "RATE_EXEMPT": "10.0.0.0/8, ::1"},
        {"RATE_MESSAGES": "20/second", "RATE_EXEMPT": "10.0.0.0/8"},
        {**LIMIT, **AUTH, "RATE_EXEMPT": "user:alice, user:https://id.example.com#bob"},
        {**LIMIT, **API_KEYS, "RATE_EXEMPT": "api-key:ci"},
        {**PLANNED, "RATE_PLANS": '{"pro": "1/hour by api-key"}'},
        {**AUTH, "RATE_PLANS": '{"pro": "1/hour by user"}', "RATE_PLAN_CLAIM": "plan", "RATE_EXEMPT": "10.0.0.1"},
    ],
)
def test_what_holds(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    """Settings that go together are taken, and turn the layer on."""
    for name, value in environment.items():
        monkeypatch.setenv(f"ASGI_GUARD_{name}", value)
    _, layers = configure()
    assert "rate_limit" in [layer.name for layer in layers]
