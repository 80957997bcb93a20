"""The whole guard: its layers in their order, its settings, and what it lets through."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from asgi_guard import (
    APIKey,
    AuthSettings,
    ConfigError,
    CORSSettings,
    DrainMiddleware,
    Guard,
    GuardSettings,
    HealthSettings,
    HostsSettings,
    IdentityMiddleware,
    LogSettings,
    MemoryStore,
    ProxySettings,
    RateSettings,
    RedisStore,
    RequestIDSettings,
    Route,
    SecuritySettings,
    StoreSettings,
    request_id,
)
from asgi_guard.testing import LocalIssuer
from tests.asgi import Echo, call, get, http_scope
from tests.guarded import KEY, LAYERS, PAGE, Recorded, settings

if TYPE_CHECKING:
    from asgi_guard.asgi import Header, Receive, Scope, Send
    from asgi_guard.policy.rates import OnStoreFailure

ORIGIN = (b"origin", PAGE.encode())


def bearer(token: str) -> Header:
    return b"authorization", f"Bearer {token}".encode()


def names(guard: Guard) -> list[str]:
    return [layer.name for layer in guard.layers]


def test_order(issuer: LocalIssuer) -> None:
    """With everything configured but CSRF, the layers stand in the documented order: limits that are known first."""
    assert names(Guard(Echo(), settings(issuer), http_client=issuer.client)) == LAYERS


@pytest.mark.parametrize(("deny_cache", "asked_first"), [(1.0, True), (0.0, False)])
def test_who_is_known_to_be_over_a_limit(issuer: LocalIssuer, deny_cache: float, asked_first: bool) -> None:
    """Who is known to be over a limit is refused before it is found out who it is, where that is remembered."""
    rate = RateSettings(limit="1/second by ip", deny_cache=deny_cache)
    guard = Guard(Echo(), settings(issuer, rate=rate), http_client=issuer.client)
    expected = list(LAYERS)
    if not asked_first:
        expected.remove("rate_limit")
    assert names(guard) == expected


@pytest.mark.parametrize("rate", [{"limit": "1/second by user"}, {"limit": "1/second by ip", "exempt": ("user:a",)}])
def test_nobody_is_known_to_be_over_a_limit(issuer: LocalIssuer, rate: dict[str, Any]) -> None:
    """Where limits go by who it is, or spare somebody, that is found out first."""
    chosen = settings(issuer, rate=RateSettings(**rate), routes=())
    guard = Guard(Echo(), chosen, http_client=issuer.client)
    assert names(guard).count("rate_limit") == 1


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (GuardSettings.model_construct(), ["health", "proxy", "request_id", "access_log", "security"]),
        ({"log": LogSettings(format="off")}, ["health", "proxy", "request_id", "security"]),
        ({"security": SecuritySettings(preset="off")}, ["health", "proxy", "request_id", "access_log"]),
        (
            {"security": SecuritySettings(preset="off", csp="default-src 'self'")},
            ["health", "proxy", "request_id", "access_log", "security"],
        ),
    ],
)
def test_what_is_on(chosen: Any, expected: list[str]) -> None:
    """A layer that needs no setting is on unless it is turned off, and one that does is off."""
    assert names(Guard(Echo(), GuardSettings(**chosen) if isinstance(chosen, dict) else chosen)) == expected


def test_a_store_that_is_given_is_used() -> None:
    """Though it holds nothing yet, which makes it false."""
    store = MemoryStore()
    assert Guard(Echo(), GuardSettings(rate=RateSettings(limit="1/second by ip")), store=store).store is store


async def test_several_issuers_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of several issuers is bound to its own audience, and has the rest from the first's settings."""
    with LocalIssuer(audience="a").serve() as one, LocalIssuer(audience="b", algorithm="ES256").serve() as two:
        variables = {
            "AUTH_ISSUER": one.url,
            "AUTH_AUDIENCE": "a",
            "AUTH_MAX_TOKEN_LIFETIME": "600",
            "AUTH_ISSUERS": json.dumps([{"issuer": two.url, "audience": "b, c"}]),
        }
        for name, value in variables.items():
            monkeypatch.setenv(f"ASGI_GUARD_{name}", value)
        guard = Guard(Echo())
        answers = {
            "one": await get(guard, "/", headers=[bearer(one.token())]),
            "two": await get(guard, "/", headers=[bearer(two.token())]),
            "another audience": await get(guard, "/", headers=[bearer(one.token(aud="b"))]),
            "too long": await get(guard, "/", headers=[bearer(two.token(lifetime=601))]),
        }
    assert {name: answer.status for name, answer in answers.items()} == {
        "one": 200, "two": 200, "another audience": 401, "too long": 401,
    }  # fmt: skip


async def test_from_the_environment(monkeypatch: pytest.MonkeyPatch, issuer: LocalIssuer) -> None:
    """Without settings, the environment says what to do."""
    variables = {
        "AUTH_ISSUER": issuer.url,
        "AUTH_AUDIENCE": "api",
        "RATE_LIMIT": "100/second by ip",
        "CORS_ALLOW_ORIGINS": PAGE,
        "HOSTS_ALLOWED": "testserver",
        "ROUTES": '[{"path": "/public", "auth": "none"}]',
        "LOG_FORMAT": "off",
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"ASGI_GUARD_{name}", value)
    app = Echo()
    guard = Guard(app, http_client=issuer.client)
    assert names(guard) == [name for name in LAYERS if name != "access_log"]
    assert guard.settings.auth.issuer == issuer.url
    assert (await get(guard, "/public")).status == 200
    assert (await get(guard, "/private")).status == 401
    assert (await get(guard, "/private", headers=[bearer(issuer.token())])).status == 200
    assert len(app.scopes) == 2


def test_all_problems_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is wrong with the environment is told together, by the variable's name."""
    variables = {
        "AUTH_ISSUER": "http://issuer.example",
        "RATE_LIMIT": "lots",
        "CORS_ALLOW_ORIGINS": "https://a.example/",
        "CORS_ALLOW_METHODS": "CONNECT",
        "HOSTS_ALLOWED": "https://a.example",
        "PROXY_TRUSTED": "everyone",
        "REQUEST_ID_HEADER": "x request",
        "HEALTH_LIVE_PATH": "live",
        "SECURITY_HSTS": "for ever",
        "STORE_URL": "mysql://u:secret@host",
        "LOG_FORMAT": "xml",
        "AUHT_ISSUER": "x",
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"ASGI_GUARD_{name}", value)
    with pytest.raises(ConfigError) as caught:
        Guard(Echo())
    told = {problem.name.removeprefix("ASGI_GUARD_") for problem in caught.value.problems}
    assert set(variables) <= told
    assert "AUTH_AUDIENCE" in told
    assert "secret" not in str(caught.value)


def test_all_problems_of_settings() -> None:
    """Settings that are given in Python are held to the same, all at once."""
    chosen = GuardSettings(
        auth=AuthSettings(issuer="http://issuer.example", audience=("api",)),
        rate=RateSettings(limit="lots"),
        cors=CORSSettings(allow_origins=("null",)),
        hosts=HostsSettings(https_redirect=True),
        proxy=ProxySettings(trusted=("x",)),
        request_id=RequestIDSettings(header=""),
        health=HealthSettings(live_path="/same", ready_path="/same"),
    )
    with pytest.raises(ConfigError) as caught:
        Guard(Echo(), chosen)
    assert {problem.name for problem in caught.value.problems} == {
        "ASGI_GUARD_AUTH_ISSUER", "ASGI_GUARD_RATE_LIMIT", "ASGI_GUARD_CORS_ALLOW_ORIGINS",
        "ASGI_GUARD_HOSTS_ALLOWED", "ASGI_GUARD_PROXY_TRUSTED", "ASGI_GUARD_REQUEST_ID_HEADER",
        "ASGI_GUARD_HEALTH_READY_PATH",
    }  # fmt: skip


@pytest.mark.parametrize("app", [Guard(Echo(), GuardSettings.model_construct()), None, "myapp:app"])
def test_bad_app(app: Any) -> None:
    """A guard around a guard, or around what is no app, is refused."""
    with pytest.raises(ConfigError, match="app: "):
        Guard(app, GuardSettings())


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"rate": RateSettings(limit="1/second by ip", workers=4)}, "4 workers"),
        ({"auth": AuthSettings(issuer="https://i.example", audience=("a",), revocation=True)}, "revocations"),
        ({"rate": RateSettings(limit="1/second by ip", shadow=True)}, "refuse nothing"),
        ({"store": StoreSettings.model_validate({"url": "redis://127.0.0.1:1"})}, "nothing is kept there"),
        (
            {
                "auth": AuthSettings(api_keys=(APIKey("ci", "a" * 64),)),
                "rate": RateSettings(limit="1/second by user"),
                "routes": (Route("/login", auth="none"),),
            },
            "those without identity are under no limit",
        ),
    ],
)
def test_warnings(sections: dict[str, Any], told: str, caplog: pytest.LogCaptureFixture) -> None:
    """What works and is probably not meant is said at the start."""
    Guard(Echo(), GuardSettings(**sections))
    assert told in caplog.text


def test_a_store_that_is_given_in_python_counts(caplog: pytest.LogCaptureFixture) -> None:
    """Workers that share a store which no variable names are not taken for workers that share none."""
    settings = GuardSettings(rate=RateSettings(limit="1/second by ip", workers=4))
    Guard(Echo(), settings, store=RedisStore("redis://127.0.0.1:1"))
    assert "4 workers" not in caplog.text
    Guard(Echo(), settings)
    assert "4 workers" in caplog.text


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/public", []),
        ("/maybe", []),
        ("/docs", []),
        ("/", [(b"x-api-key", KEY)]),
        ("/pay/1", ["payments:write"]),
        ("/anything", [""]),
    ],
)
async def test_allowed(issuer: LocalIssuer, path: str, headers: list[Any]) -> None:
    """The app is reached on public routes, and elsewhere with what they ask for; its answer bears the guard's marks."""
    app = Echo()
    guard = Recorded(app, issuer)
    shown = [bearer(issuer.token(scopes=[each])) if isinstance(each, str) else each for each in headers]
    exchange = await get(guard.guard, path, headers=[*shown, ORIGIN])
    assert (exchange.error, exchange.status, exchange.body) == (None, 200, b"ok")
    assert {"x-request-id", "x-content-type-options", "access-control-allow-origin"} <= set(exchange.headers)
    assert app.scopes[0]["user"].is_authenticated is bool(headers)
    assert guard.record["http.response.status_code"] == 200


async def test_probes_are_quiet(issuer: LocalIssuer) -> None:
    """Probes need no credentials and are not logged while they succeed; one that fails is."""
    guard = Recorded(Echo(), issuer)
    evil = [(b"host", b"10.0.0.1:8000")]
    for path in ("/health/live", "/health/ready"):
        assert (await call(guard.guard, {**http_scope(path=path), "headers": evil})).status == 200
    assert guard.lines == []
    issuer.outage = True
    failing = Recorded(Echo(), issuer)
    exchange = await get(failing.guard, "/health/ready", client=("127.0.0.1", 1))
    assert (exchange.status, json.loads(exchange.body)["checks"]) == (503, {"keys": "failed"})
    assert failing.record["asgi_guard.reason"] == "not_ready"


async def test_own_checks(issuer: LocalIssuer) -> None:
    """Readiness asks the checks that are given, and a shared store if requests cannot do without it."""

    async def database() -> None:
        raise OSError

    chosen = settings(
        issuer,
        store=StoreSettings.model_validate({"url": "redis://127.0.0.1:1/0"}),
        rate=RateSettings(limit="1/second by ip", on_store_failure="deny"),
    )
    guard = Guard(Echo(), chosen, checks={"database": database}, http_client=issuer.client)
    checks = json.loads((await get(guard, "/health/ready", client=("127.0.0.1", 1))).body)["checks"]
    assert checks == {"database": "failed", "store": "failed", "keys": "ok"}


EVERYWHERE = Route("/*", limits="1/second by ip")
OPEN_TO_ALL = Route("/*", auth="optional")


@pytest.mark.parametrize(
    ("limit", "default", "rows", "required"),
    [
        ("1/second by ip", "deny", (), True),
        ("1/second by ip", "local", (), False),
        ("1/second by ip on-failure deny", "local", (), True),
        ("1/second by ip; 1/second by route on-failure deny", "allow", (), True),
        ("1/second by header:x-a on-failure deny", "allow", (), True),
        ("1/second by ip on-failure allow", "deny", (), False),
        ("1/second by ip on-failure deny shadow", "local", (), False),
        ("1/second by ip on-failure deny enforce 50%", "local", (), False),
        ("1/second by ip", "local", (Route("/login", limits="1/second by ip on-failure deny"),), False),
        ("1/second by ip", "deny", (Route("/login", limits="1/second by ip on-failure allow"),), True),
        ("", "deny", (EVERYWHERE,), True),
        ("1/second by ip on-failure allow", "deny", (Route("/login"), EVERYWHERE), True),
        # Whom else there is than identities is refused with or without a store.
        ("1/second by anonymous", "deny", (), False),
        ("1/second by user", "deny", (), True),
        ("1/second by user", "deny", (OPEN_TO_ALL,), False),
        ("1/second by user; 1/second by anonymous", "deny", (OPEN_TO_ALL,), True),
        ("1/second by user; 1/second by api-key on-failure allow", "deny", (), False),
    ],
)
async def test_whether_requests_need_the_store(
    issuer: LocalIssuer, limit: str, default: OnStoreFailure, rows: tuple[Route, ...], required: bool
) -> None:
    """Readiness requires the store where the limits of requests in general refuse them without it, and no else."""
    chosen = settings(
        issuer,
        auth=settings(issuer).auth.model_copy(update={"revocation_on_store_failure": "allow"}),
        store=StoreSettings.model_validate({"url": "redis://127.0.0.1:1/0"}),
        rate=RateSettings(limit=limit, on_store_failure=default),
        routes=rows,
    )
    guard = Guard(Echo(), chosen, http_client=issuer.client)
    exchange = await get(guard, "/health/ready", client=("127.0.0.1", 1))
    assert json.loads(exchange.body)["checks"]["store"] == "failed"
    assert exchange.status == (503 if required else 200)
    assert guard.store is not None
    await guard.store.aclose()


async def test_whether_strangers_need_the_store() -> None:
    """Where nobody is asked who they are, it is the limits of those without identity that decide."""
    for limit, status in (("1/second by anonymous", 503), ("1/second by anonymous on-failure local", 200)):
        chosen = GuardSettings(
            store=StoreSettings.model_validate({"url": "redis://127.0.0.1:1/0"}),
            rate=RateSettings(limit=limit, on_store_failure="deny"),
        )
        assert (await get(Guard(Echo(), chosen), "/health/ready")).status == status


@pytest.mark.parametrize(
    ("given", "name", "message"),
    [
        ({"store": "redis://127.0.0.1"}, "store", "it is of the type str: give RedisStore(url), or the address as"),
        ({"checks": [asyncio.sleep]}, "checks", "it is of the type function: give Check(name, function)"),
        (
            {"checks": asyncio.sleep},
            "checks",
            "it is of the type function: give a list of Check(name, function), or a dict",
        ),
        ({"checks": "database"}, "checks", "it is of the type str: give a list of Check(name, function), or a dict"),
        (
            {"checks": {"database": asyncio.sleep}},
            "checks",
            "'database' asks a function that cannot be called without arguments",
        ),
        ({"checks": {"database": 3}}, "checks", "'database' asks a int: name a coroutine function"),
        ({"store": MemoryStore}, "store", "it is the class MemoryStore: give one that is made, as in MemoryStore(...)"),
        (
            {"http_client": httpx.AsyncClient()},
            "http_client",
            "it is of the type AsyncClient: give a function that makes a client",
        ),
        ({"limit_functions": {"ip": len}}, "limit_functions", "'ip' is one of the grammar's own words"),
    ],
)
def test_arguments_that_cannot_be(given: dict[str, Any], name: str, message: str) -> None:
    """What could never be asked is refused at construction, by the argument's name, and with what to give."""
    with pytest.raises(ConfigError) as caught:
        Guard(Echo(), GuardSettings(rate=RateSettings(limit="1/second by ip")), **given)
    (problem,) = caught.value.problems
    assert problem.name == name
    assert message in problem.message


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ([1], "it is of the type list: give a dict of functions by their names"),
        ({"tenant": 1}, "'tenant' is no function"),
        ({"Tenant": len}, "'Tenant' is no name of a function"),
        ({"ip": len}, "'ip' is one of the grammar's own words"),
    ],
)
def test_functions_of_no_limit(functions: Any, message: str) -> None:
    """Functions that no limit could go by are refused where no limit is set, too."""
    with pytest.raises(ConfigError) as caught:
        Guard(Echo(), GuardSettings(), limit_functions=functions)
    (problem,) = caught.value.problems
    assert problem.name == "limit_functions"
    assert message in problem.message


def test_an_issuer_that_is_none() -> None:
    """An issuer's address alone is no issuer."""
    with pytest.raises(ConfigError, match="issuers: it is of the type str: give Issuer"):
        IdentityMiddleware(Echo(), issuers=["https://id.example.com"])  # type: ignore[list-item]  # as a user may


async def test_paths_can_be_turned_off() -> None:
    """Probes whose paths are empty are the app's."""
    app = Echo()
    guard = Guard(app, GuardSettings(health=HealthSettings(live_path="", ready_path=""), log=LogSettings(format="off")))
    await get(guard, "/health/live")
    assert len(app.scopes) == 1


async def test_concurrent_requests(issuer: LocalIssuer) -> None:
    """Many requests at once on one guard keep their ids, their users and their lines apart."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
            assert request_id() == scope["state"]["request_id"] == scope["user"].subject
        await Echo()(scope, receive, send)

    guard = Recorded(app, issuer)
    names = [f"user-{number}" for number in range(100)]
    exchanges = await asyncio.gather(
        *(
            get(guard.guard, f"/{name}", [bearer(issuer.token(name)), (b"x-request-id", name.encode())])
            for name in names
        )
    )
    assert [exchange.error for exchange in exchanges] == [None] * len(names)
    assert [exchange.headers["x-request-id"] for exchange in exchanges] == names
    records = [json.loads(line) for line in guard.lines]
    told = {(each["request_id"], each["user.id"], each["url.path"]) for each in records}
    assert told == {(name, name, f"/{name}") for name in names}
    assert issuer.fetches["/jwks.json"] == 1


async def test_lifespan(issuer: LocalIssuer) -> None:
    """The guard completes the lifespan of an app that has none, with the keys fetched before any request."""
    sent: list[str] = []
    incoming = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Any:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError(scope["type"])

    await Recorded(app, issuer).guard({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert issuer.fetches["/jwks.json"] == 1


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((lambda: Echo(),), "app"),
        ((Echo,), "app"),
        ((lambda environ, start_response: [],), "app"),
        ((Echo(), AuthSettings()), "settings"),
        ((Echo(), {"auth": {}}), "settings"),
    ],
)
def test_what_is_no_app_or_no_settings(arguments: tuple[Any, ...], name: str) -> None:
    """What could serve no request, and what settings are not, is refused before the server starts."""
    with pytest.raises(ConfigError) as caught:
        Guard(*arguments)
    assert [problem.name for problem in caught.value.problems] == [name]


def test_an_app_that_does_not_tell_its_arguments() -> None:
    """An app that is compiled, and tells nothing of its arguments, is taken as it is."""
    app: Any = min
    assert Guard(app).app is app


@pytest.mark.parametrize("identified", [False, True])
async def test_a_slash_slips_from_no_limit_of_an_open_row(issuer: LocalIssuer, identified: bool) -> None:
    """Routers may serve a path with a slash at its end too: where that is open, the row's limit holds for both."""
    login = Route("/login", methods=("POST",), auth="none", limits="2/hour by ip")
    auth = AuthSettings(issuer=issuer.url, audience=(issuer.audience,)) if identified else AuthSettings()
    routes = (login, Route("/*", auth="none")) if identified else (login,)
    front = Guard(
        Echo(),
        GuardSettings(auth=auth, rate=RateSettings(limit="9/hour by ip"), routes=routes),
        http_client=issuer.client,
    )
    paths = ("/login", "/login/", "/login", "/login/")
    assert [(await call(front, http_scope("POST", path))).status for path in paths] == [200, 200, 429, 429]
    assert (await call(front, http_scope("POST", "/login/x"))).status == 200


@pytest.mark.parametrize("draining", [False, True])
async def test_what_is_lost_of_an_apps_headers(draining: bool) -> None:
    """Of an app's headers are lost what servers say of themselves, credentials for no origin, and another id."""
    names = (
        "server", "x-powered-by", "access-control-allow-credentials", "x-request-id", "connection", "via", "etag",
        "cache-control", "content-security-policy", "x-frame-options", "ratelimit", "traceparent",
        "strict-transport-security", "access-control-expose-headers",
    )  # fmt: skip
    told = GuardSettings(
        cors=CORSSettings(allow_origins=(PAGE,)),
        rate=RateSettings(limit="9/second by ip"),
        log=LogSettings(format="off"),
    )
    front = DrainMiddleware(Guard(Echo(headers=[(name.encode(), b"own") for name in names]), told))
    await front.startup()
    if draining:
        front.draining.begin()
    exchange = await get(front, headers=[ORIGIN], http_version="1.1")
    await front.shutdown()
    lost = {name for name in names if (name.encode(), b"own") not in exchange.starts[0]["headers"]}
    lost_always = {"server", "x-powered-by", "access-control-allow-credentials", "x-request-id"}
    assert lost == (lost_always | {"connection"} if draining else lost_always)
