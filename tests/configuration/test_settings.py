"""Settings, as they are read from the environment and given in Python."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard import AuthSettings, ConfigError, Guard, GuardSettings
from asgi_guard.configuration.values import revealed
from asgi_guard.configuration.variables import written
from asgi_guard.guard import configure
from asgi_guard.policy.identity import APIKey
from asgi_guard.settings import environment, variables
from tests.asgi import Echo, get
from tests.configuring import DIGEST, OTHER_DIGEST, SAID, problems, setting

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_each_variable_has_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every variable there is reaches its own setting, and all of them go together."""
    assert set(SAID) == {variable.name.removeprefix("ASGI_GUARD_") for variable in variables()}
    for name, (text, _) in SAID.items():
        monkeypatch.setenv(f"ASGI_GUARD_{name}", text)
    settings, layers = configure()
    assert {name: setting(settings, name) for name in SAID} == {name: value for name, (_, value) in SAID.items()}
    assert len(layers) == 14


def test_defaults_without_an_environment() -> None:
    """With nothing set, the settings are the defaults that `asgi-guard env` tells, and a guard can be made of them."""
    settings, _ = configure()
    assert environment() == {}
    assert settings == GuardSettings.model_construct(
        **{name: getattr(settings, name) for name in type(settings).model_fields}
    )
    assert revealed(settings.store.url) == "memory://"
    assert not settings.auth.on
    assert settings.log.format == "json"


@pytest.mark.parametrize("text", ["a,b", " a , b ", "a, b,", '["a", "b"]', '\n["a",\n "b"]\n'])
def test_lists(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A list is written with commas or as JSON, and white space around its items is none of them."""
    monkeypatch.setenv("ASGI_GUARD_PROXY_TRUSTED", text)
    assert GuardSettings().proxy.trusted == ("a", "b")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AUTH_AUDIENCE", '"my-api"'),
        ("AUTH_SCOPE_CLAIMS", "'scope'"),
        ("RATE_PLAN_CLAIM", '"plan"'),
        ("ROUTES", '\'[{"path": "/x"}]\''),
        ("AUTH_ISSUER", '"https://id.example.com"'),
    ],
)
def test_a_value_in_quotes(name: str, value: str) -> None:
    """Quotes that no shell took away are told, and nothing else is, though they would make other values of these."""
    beside = {"AUTH_ISSUER": "https://id.example.com", "AUTH_AUDIENCE": "api", "RATE_PLAN_CLAIM": "plan"}
    beside["RATE_PLANS"] = '{"a": "1/hour by user"}'
    found = problems(**{**beside, name: value})
    assert found == {name: ["the quotes are part of the value, as of one in an env file of Docker: leave them out"]}


def test_a_secret_may_be_in_quotes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret is taken as it stands."""
    secret = '"' + "s" * 32 + '"'
    for name, value in {"MODE": "enforce", "SESSION_COOKIE": "session", "SECRET": secret}.items():
        monkeypatch.setenv(f"ASGI_GUARD_CSRF_{name}", value)
    assert setting(GuardSettings(), "CSRF_SECRET") == secret


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "AUTH_COOKIE",
            "__Host-token; Secure",
            "without spaces and quotes; its meaning: a cookie that may hold the token",
        ),
        ("LOG_GCP_PROJECT", "p", "this is no such name, which stands alone"),
        (
            "STORE_TIMEOUT",
            "50",
            "write a number less than or equal to 10; its meaning: seconds until an answer of the store",
        ),
        ("AUTH_LEEWAY", "30000", "its meaning: seconds by which the issuer's clock may differ"),
        (
            "AUTH_REVOCATION",
            "maybe",
            "write true or false; its meaning: whether tokens are looked up among the revoked",
        ),
        ("AUTH_SCOPE_CLAIMS", ",", "name at least one; its meaning: where scopes are"),
        ("RATE_WORKERS", "1.5", "write a whole number; its meaning: processes that share the store"),
        ("RATE_PLANS", "5", "write an object, as {...}; its meaning: limits of identities by plan"),
        ("STORE_PREFIX", "x" * 65, "write at most 64 characters"),
        ("LOG_FORMAT", "xml", "write 'json', 'otel', 'ecs', 'gcp', 'datadog' or 'off'"),
        ("ROUTES", "[5]", "number 1: write an object of its fields, as {...}, or in Python Route(...)"),
        ("STORE_URL", "valkey://localhost", "write redis:// in its place: the scheme 'valkey' is none of"),
        ("STORE_URL", "localhost:6379", "write redis:// in front of the address"),
        ("AUTH_ALGORITHMS", "rs256, eddsa", "rs256, eddsa cannot be allowed; did you mean RS256, EdDSA?"),
        ("AUTH_ALGORITHMS", "HS256", "HS256 cannot be allowed; choose among "),
        ("RATE_LIMIT", "60/second by user, 10/second by anonymous", "limits are parted by ';'"),
        ("AUTH_AUDIENCE", "a b", """names are parted by ',': write a, b, or ["a b"] if that is meant"""),
        ("AUTH_AUDIENCE", "a;b; c, d", """write a, b, c, d, or ["a;b; c", "d"] if that is meant"""),
        ("AUTH_AUDIENCE", "a\n  b", """write a, b, or ["a\\n  b"] if"""),
        ("AUTH_AUDIENCE", "a;", """write a, or ["a;"] if that is meant"""),
        ("AUTH_AUDIENCE", ";", """names are parted by ',': write [";"] if that is meant"""),
        ("RATE_EXEMPT", "user:alice user:bob", """write user:alice, user:bob, or ["user:alice user:bob"] if that"""),
        ("RATE_EXEMPT", "user:alice; user:bob", "names are parted by ',': write user:alice, user:bob, or "),
        ("RATE_EXEMPT", "user:alice;10.0.0.0/8", "names are parted by ',': write user:alice, 10.0.0.0/8, or "),
        ("CSRF_EXEMPT", "/hooks;/pay", "names are parted by ',': write /hooks, /pay, or "),
        ("HOSTS_EXEMPT", "/healthz /ready", "names are parted by ',': write /healthz, /ready, or "),
        ("AUTH_SCOPE_CLAIMS", "scope roles", "names are parted by ',': write scope, roles, or "),
        ("AUTH_REQUIRED_CLAIMS", "client_id tenant=acme", "names are parted by ',': write client_id, tenant=acme, or "),
        (
            "AUTH_ISSUERS",
            '[{"issuer": "https://b.example", "audience": "a", "scope_claims": "scp roles"}]',
            "number 1, scope_claims: names are parted by ',': write scp, roles, or ",
        ),
        (
            "AUTH_ISSUERS",
            '[{"issuer": "https://b.example", "audience": "a b"}]',
            """number 1, audience: names are parted by ',': write a, b, or ["a b"]""",
        ),
        ("AUTH_ISSUER", "https://id.example.com:443x", "a port is a number from 1 to 65535; or set jwks_url"),
        ("AUTH_JWKS_URL", "https://id.example.com:0/keys", "a port is a number from 1 to 65535"),
        ("AUTH_INTROSPECTION_URL", "https://id.example.com:65536/ask", "a port is a number from 1 to 65535"),
    ],
)
def test_what_to_write_instead(name: str, value: str, said: str) -> None:
    """An error says what a value is for, and not only what it should look like."""
    extra = {"AUTH_ISSUER": "https://id.example.com", "AUTH_AUDIENCE": "api"} if name.startswith("AUTH") else {}
    assert any(said in message for message in problems(**{**extra, name: value})[name])


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("RATE_EXEMPT", '["user:alice smith", "10.0.0.0/8"]', ("user:alice smith", "10.0.0.0/8")),
        ("CSRF_EXEMPT", '["/a b"]', ("/a b",)),
        ("AUTH_REQUIRED_CLAIMS", '["tenant=Acme Ltd"]', ("tenant=Acme Ltd",)),
    ],
)
def test_a_name_that_has_a_space(monkeypatch: pytest.MonkeyPatch, name: str, text: str, said: tuple[str, ...]) -> None:
    """What would look like several names is written as JSON."""
    others = {"AUTH_ISSUER": "https://id.example.com", "AUTH_AUDIENCE": "a", "RATE_LIMIT": "1/second by ip"}
    for other, value in {**others, "CSRF_MODE": "log", name: text}.items():
        monkeypatch.setenv(f"ASGI_GUARD_{other}", value)
    settings, _ = configure()
    assert setting(settings, name) == said


@pytest.mark.parametrize(
    ("text", "audience"),
    [
        ("urn:example:api:1, https://api.example.com/", ("urn:example:api:1", "https://api.example.com/")),
        ('["my api", "a;b"]', ("my api", "a;b")),
    ],
)
def test_an_audience_may_be_any_text(monkeypatch: pytest.MonkeyPatch, text: str, audience: tuple[str, ...]) -> None:
    """One with white space or a semicolon in it is written as JSON, and so it is told."""
    monkeypatch.setenv("ASGI_GUARD_AUTH_ISSUER", "https://id.example.com")
    monkeypatch.setenv("ASGI_GUARD_AUTH_AUDIENCE", text)
    settings, _ = configure()
    assert settings.auth.audience == audience
    assert written(audience) == text
    assert AuthSettings(audience=audience).audience == audience


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_an_empty_value_is_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A variable that is set to nothing counts as not set."""
    monkeypatch.setenv("ASGI_GUARD_AUTH_ISSUER", text)
    monkeypatch.setenv("ASGI_GUARD_RATE_WORKERS", text)
    settings = GuardSettings()
    assert settings.auth.issuer is None
    assert settings.rate.workers == 1


async def test_no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable can say that there is no probe, whose path is the app's then, and an empty one leaves the default."""
    monkeypatch.setenv("ASGI_GUARD_HEALTH_LIVE_PATH", "off")
    monkeypatch.setenv("ASGI_GUARD_HEALTH_READY_PATH", "")
    app = Echo()
    guard = Guard(app)
    assert (guard.settings.health.live_path, guard.settings.health.ready_path) == ("", "/health/ready")
    for path in ("/health/live", "/off", "/health/ready"):
        await get(guard, path)
    assert [scope["path"] for scope in app.scopes] == ["/health/live", "/off"]


@pytest.mark.parametrize("name", sorted(set(SAID) - {"ROUTES_FILE"}))
def test_white_space_around_a_value_is_none_of_it(name: str) -> None:
    """The newline at the end of a mounted file changes no value: an issuer with it would fit no token."""
    text, expected = SAID[name]
    with pytest.MonkeyPatch.context() as patch:
        for other, (value, _) in SAID.items():
            patch.setenv(f"ASGI_GUARD_{other}", value)
        patch.setenv(f"ASGI_GUARD_{name}", f" {text}\n")
        assert setting(GuardSettings(), name) == expected


def test_a_variable_at_fault_is_told_of_once() -> None:
    """What is wrong with a variable stands alone: that nothing is set in its place is no second fault."""
    found = problems(AUTH_ISSUER="https://id.example.com", AUTH_AUDIENCE="a b")
    assert {name: len(told) for name, told in found.items()} == {"AUTH_AUDIENCE": 1}


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (f"ci={DIGEST}, cd = {OTHER_DIGEST}", [APIKey("ci", DIGEST), APIKey("cd", OTHER_DIGEST)]),
        (f'{{"ci": "{DIGEST}"}}', [APIKey("ci", DIGEST)]),
        (f'{{"ci": {{"sha256": "{DIGEST}", "scopes": ["deploy"]}}}}', [APIKey("ci", DIGEST, ("deploy",))]),
    ],
)
def test_api_keys(monkeypatch: pytest.MonkeyPatch, text: str, keys: list[APIKey]) -> None:
    """API keys are written short, or as JSON where they have scopes."""
    monkeypatch.setenv("ASGI_GUARD_AUTH_API_KEYS", text)
    settings = GuardSettings()
    assert list(settings.auth.api_keys) == keys
    assert settings.auth.on


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hunter2", "write name=SHA256, several with commas"),
        ("ci=hunter2", "number 1: an API key is not given as name and SHA-256"),
        (f"ci={DIGEST[:-1]}Z", "number 1: an API key is not given as name and SHA-256"),
        ('{"ci": hunter2}', "this is not JSON"),
        ('{"a":' * 100_000, "this is not JSON"),
        ('{"ci": ["hunter2"]}', "number 1"),
        ('{"ci": {"sha256": "hunter2", "scope": "x"}}', "number 1, scope: there is no such field"),
        (f"ci={DIGEST}, cd={DIGEST}", "the key of 'ci' has another name too"),
    ],
)
def test_api_keys_that_cannot_be_read(text: str, message: str) -> None:
    """A problem with API keys is told without the key or its hash."""
    found = problems(AUTH_API_KEYS=text)
    told = " ".join(found.pop("AUTH_API_KEYS"))
    assert not found
    assert message in told
    assert "hunter2" not in told
    assert DIGEST[:-1] not in told


EMPTY = {"list": [",", " , ", "[]", " [ ] "], "JSON": ["[]"], "name=SHA256, ... or JSON": [",", "{}", "[]"]}
"""What holds nothing, by the sort of value."""

SOME = [
    (variable.name.removeprefix("ASGI_GUARD_"), text)
    for variable in variables()
    if not variable.default
    for text in (["{}"] if variable.field == "plans" else EMPTY.get(variable.choices[0], []))
]


@pytest.mark.parametrize(("name", "text"), SOME)
def test_a_list_that_holds_nothing(name: str, text: str) -> None:
    """A list without an item turns nothing off by its being there: it is an error, as is one among others."""
    assert problems(**{name: text})[name] == ["it holds nothing: leave it out if none is meant"]


@pytest.mark.parametrize("name", ["METRICS_ALLOW", "HEALTH_DETAILS"])
def test_a_list_that_is_to_hold_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the default names somebody, an empty list says that it is to be nobody."""
    monkeypatch.setenv("ASGI_GUARD_METRICS_PATH", "/metrics")
    monkeypatch.setenv(f"ASGI_GUARD_{name}", "[]")
    settings, _ = configure()
    assert setting(settings, name) == ()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("ROUTES", '[{"path": "/admin", "methods": ","}]', "methods: it holds nothing"),
        ("ROUTES", '[{"path": "/admin", "scopes": " , "}]', "scopes: it holds nothing"),
        ("ROUTES", '[{"path": "/admin", "scopes": ""}]', "scopes: it holds nothing"),
        ("ROUTES", '[{"path": "/login", "methods": "", "auth": "none"}]', "methods: it holds nothing"),
        ("AUTH_API_KEYS", f'{{"ci": {{"sha256": "{DIGEST}", "scopes": ", "}}}}', "scopes: it holds nothing"),
        ("AUTH_ISSUERS", '[{"issuer": "https://id.example.com", "audience": ","}]', "audience: it holds nothing"),
    ],
)
def test_a_list_within_a_value_that_holds_nothing(name: str, text: str, message: str) -> None:
    """A row for no method would hold for all, and one without its scopes would ask for none."""
    assert message in " ".join(problems(**{name: text})[name])


@pytest.mark.parametrize(
    ("name", "text", "twice"),
    [
        ("ROUTES", '[{"path": "/admin", "scopes": ["admin"], "scopes": []}]', "scopes"),
        ("ROUTES", '[{"path": "/", "security": {"csp": "off", "hsts": "off", "csp": "off"}}]', "csp"),
        ("AUTH_ISSUERS", '[{"issuer": "https://id.example.com", "audience": "a", "audience": "b"}]', "audience"),
        ("RATE_PLANS", '{"pro": "1/second by user", "pro": "9/second by user"}', "pro"),
    ],
)
def test_a_name_that_stands_twice(name: str, text: str, twice: str) -> None:
    """Of two members of one name JSON keeps the last, so a row would lose its scopes unseen: it is an error."""
    (told,) = problems(**{name: text})[name]
    assert told == f"{twice!r} stands twice in one object, and only the last would hold: leave one out"


@pytest.mark.parametrize("text", [f'{{"ci": "{DIGEST}", "ci": "{OTHER_DIGEST}"}}', '{"sk-live": "ci", "sk-live": "b"}'])
def test_an_api_key_that_stands_twice(text: str) -> None:
    """What names two API keys is an error that does not repeat it: it may be a key, written the wrong way round."""
    (told,) = problems(AUTH_API_KEYS=text)["AUTH_API_KEYS"]
    assert told == "a name stands twice in one object, and only the last would hold: leave one out"


@pytest.mark.parametrize("name", ["HEALTH_LIVE_PATH", "HEALTH_READY_PATH", "HEALTH_DRAIN_PATH", "METRICS_PATH"])
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("livez", "'livez' does not start with '/'"),
        ("/livez?full=1", "'/livez?full=1': it is matched decoded, without query"),
        ("/live%2fz", "'/live%2fz': it is matched decoded, without query"),
        ("/{name}", "'/{name}': it is matched decoded, without query"),
        ("/*", "'/*': it is a single path, so nothing stands for others in it"),
        ("/a/../b", "'/a/../b' has an empty, '.' or '..' segment, a backslash or a control character: no request"),
    ],
)
def test_a_path_of_the_guards_own_that_no_request_has(name: str, path: str, message: str) -> None:
    """A probe, a scrape or a drain at a path that cannot be asked for is refused, as a row for it is."""
    (said,) = problems(**{name: path})[name]
    assert said.startswith(message)


def test_all_problems_at_once() -> None:
    """Every variable that is wrong is named, those that pydantic finds and those that a layer or a combination does."""
    found = problems(
        RATE_LIMITS="x",
        RATE_LIMIT="sometimes",
        RATE_WORKERS="many",
        CORS_ALLOW_ORIGINS="example.com",
        STORE_URL="http://cache",
        PROXY_TRUSTED="everyone",
        AUTH_ISSUER="http://id.example.com",
        AUTH_LEEWAY="-1",
        LOG_FORMAT="xml",
        HOSTS_ALLOWED="https://shop.example",
        HEALTH_LIVE_PATH="livez",
        REQUEST_ID_HEADER="x id",
        SECURITY_HSTS="soon",
        ROUTES='[{"path": "/", "limits": "rarely"}]',
    )
    assert set(found) == {
        *("RATE_LIMITS", "RATE_LIMIT", "RATE_WORKERS", "CORS_ALLOW_ORIGINS", "STORE_URL", "PROXY_TRUSTED"),
        *("AUTH_ISSUER", "AUTH_AUDIENCE", "AUTH_LEEWAY", "LOG_FORMAT", "HOSTS_ALLOWED", "HEALTH_LIVE_PATH"),
        *("REQUEST_ID_HEADER", "SECURITY_HSTS", "ROUTES"),
    }
    assert all(len(messages) == len(set(messages)) for messages in found.values())


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))

LIKELY = st.sampled_from(
    ["nan", "inf", "-1", "0", "1e400", "9" * 5000, "true", "off", "*", "[", "{}", "[null]", '{"a": null}', "a=b", "/",
     '["\\ud800"]', "redis://", "redis://[", "redis://h:x", "unix://", "memory://x", "https://[", "https://h", "/x",
     "1/second by user", "1/second by api-key", "1/second by ip", '[{"path": "/", "limits": "x"}]', '[{"path": 1}]']
)  # fmt: skip


# A value may be right in itself and ask for another variable, which is then the one that is named.
ASKED_FOR = {
    "AUTH_ISSUER": "AUTH_AUDIENCE",
    "AUTH_INTROSPECTION_URL": "AUTH_AUDIENCE",
    "HOSTS_HTTPS_REDIRECT": "HOSTS_ALLOWED",
}


@given(st.sampled_from(sorted(SAID)), TEXT | LIKELY)
@example("ROUTES", "[" * 100_000)
@example("AUTH_API_KEYS", '{"a":' * 100_000)
@example("LOG_SLOW_MS", "inf")
@example("STORE_URL", "redis://[")
@example("AUTH_ISSUER", "https://[")
@example("REQUEST_ID_HEADER", "\udcff")
@example("CORS_MAX_AGE", "9" * 5000)
@example("RATE_WORKERS", "9" * 4000)
@example("AUTH_INTROSPECTION_URL", "HTTPS://0")
@example("AUTH_INTROSPECTION_URL", "https://[")
def test_any_text_in_any_variable(name: str, text: str) -> None:
    """Whatever a variable holds, there are settings and layers, or an error that names it, and never another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(f"ASGI_GUARD_{name}", text)
        try:
            settings, layers = configure()
        except ConfigError as error:
            named = {problem.name for problem in error.problems}
            assert named & {f"ASGI_GUARD_{name}", f"ASGI_GUARD_{ASKED_FOR.get(name)}"}
            assert named <= {variable.name for variable in variables()}
        else:
            assert layers
            assert repr(settings)


@pytest.mark.parametrize("name", sorted(SAID.keys() - {"ROUTES_FILE", "HEALTH_DRAIN_FILE"}))
def test_bytes_that_are_no_text(name: str) -> None:
    """A value that is not UTF-8 is told as that, and not repeated: it would end in another error, or match nothing."""
    assert problems(**{name: os.fsdecode(b"hunter2\xff")})[name] == ["it is not UTF-8 text"]


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a repr of the settings nor one of a layer holds the store's password or a key's hash."""
    monkeypatch.setenv("ASGI_GUARD_STORE_URL", "redis://guard:hunter2@cache:6379/0")
    monkeypatch.setenv("ASGI_GUARD_RATE_LIMIT", "1/second by ip")
    monkeypatch.setenv("ASGI_GUARD_AUTH_API_KEYS", f"ci={DIGEST}")
    settings, layers = configure()
    shown = f"{settings!r} {settings} {layers!r} {settings.model_dump()} {[vars(layer) for layer in layers]!r}"
    assert "hunter2" not in shown
    assert DIGEST not in repr(settings)
    assert DIGEST not in repr(settings.auth)


@pytest.mark.parametrize(
    "url", ["redis://:hunter2@cache:x", "http://:hunter2@cache", "hunter2", "redis://u:hun/ter2@c"]
)
def test_a_wrong_store_url_is_not_repeated(url: str) -> None:
    """An error about the store's URL does not repeat it, for it may hold a password."""
    (messages,) = problems(STORE_URL=url).values()
    assert "hunter2" not in " ".join(messages)
    assert "ter2" not in " ".join(messages)


@pytest.mark.parametrize("issuer", ["https://u:hunter2@id.example", "https://id.example?key=hunter2"])
@pytest.mark.parametrize(("name", "written"), [("AUTH_ISSUER", "{}"), ("AUTH_ISSUERS", '["{}"]')])
def test_a_wrong_issuer_is_not_repeated(issuer: str, name: str, written: str) -> None:
    """Nor does one about an issuer that is no plain URL, be it the only one or one of several."""
    found = problems(**{name: written.format(issuer), "AUTH_AUDIENCE": "a"})
    assert "write a plain URL" in found[name][0]
    assert "hunter2" not in str(found)


def test_a_wrong_port_of_one_of_several_issuers_is_not_repeated() -> None:
    """What stands where a port does may be a password, whose @ is missing: it is not repeated."""
    found = problems(AUTH_ISSUERS='["https://u:hunter2", "https://[x"]', AUTH_AUDIENCE="a")
    assert "a port is a number from 1 to 65535" in str(found)
    assert "hunter2" not in str(found)


def test_combinations_are_told_beside_wrong_values(tmp_path: Path) -> None:
    """A value that is wrong hides neither a combination of others that is, nor what is wrong in the file of routes."""
    file = tmp_path / "routes.toml"
    file.write_text('[[routes]]\npath = "login"\n')
    found = problems(LOG_FORMAT="xml", CORS_MAX_AGE="5", ROUTES_FILE=str(file))
    assert set(found) == {"LOG_FORMAT", "CORS_MAX_AGE", "ROUTES_FILE"}


def test_a_wrong_value_is_not_taken_for_a_missing_one() -> None:
    """API keys that cannot be read do not make a rule about API keys look wrong."""
    assert set(problems(AUTH_API_KEYS="ci=x", RATE_LIMIT="1/second by api-key")) == {"AUTH_API_KEYS"}


def test_a_number_that_is_none_is_told_with_what_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes a unit behind a number learns which one it has."""
    monkeypatch.setenv("ASGI_GUARD_AUTH_LEEWAY", "5m")
    with pytest.raises(ConfigError, match="write a number; its meaning: seconds by which the issuer's"):
        GuardSettings()


def test_issuers_and_scopes_in_a_few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """An issuer that says nothing but its name may be a text, and so may the scopes of an API key."""
    monkeypatch.setenv("ASGI_GUARD_AUTH_ISSUER", "https://a.example")
    monkeypatch.setenv("ASGI_GUARD_AUTH_AUDIENCE", "api")
    monkeypatch.setenv("ASGI_GUARD_AUTH_ISSUERS", '["https://b.example"]')
    monkeypatch.setenv("ASGI_GUARD_AUTH_API_KEYS", f'{{"ci": {{"sha256": "{DIGEST}", "scopes": "a b, c"}}}}')
    auth = GuardSettings().auth
    assert [each.issuer for each in auth.trusted] == ["https://a.example", "https://b.example"]
    assert auth.api_keys[0].scopes == ("a", "b", "c")


@pytest.mark.parametrize("scopes", ["a b", "a, b", '["a", "b"]', ["a", "b"]])
def test_scopes_of_keys(scopes: object) -> None:
    """Scopes of an API key are written as lists are, and as in a token."""
    keys: Any = {"ci": {"sha256": DIGEST, "scopes": scopes}}
    assert AuthSettings(api_keys=keys).api_keys[0].scopes == ("a", "b")


@pytest.fixture
def unwritable(tmp_path: Path) -> Iterator[Path]:
    """A folder that this process may not write in, even if root runs the tests."""
    folder = tmp_path / "measures"
    folder.mkdir(mode=0o555)
    if os.getuid() != 0:
        yield folder
        return
    os.setreuid(65534, -1)  # whoever is asked about is the real user, and the effective one goes on
    try:
        yield folder
    finally:
        os.setreuid(0, -1)


@pytest.mark.skipif(sys.platform == "win32", reason="its folders have no such modes")
def test_a_folder_of_measures_that_cannot_be_written(unwritable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where prometheus_client could make no file, its variable is named before it raises."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(unwritable))
    GuardSettings()
    monkeypatch.setenv("ASGI_GUARD_METRICS_PATH", "/metrics")
    with pytest.raises(ConfigError) as caught:
        GuardSettings()
    (problem,) = caught.value.problems
    assert problem.name == "PROMETHEUS_MULTIPROC_DIR"
    assert problem.message.startswith(f"this process may not read and write in {unwritable}: name a folder")
