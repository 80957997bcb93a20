"""The variables themselves: their names, what they are said to mean, and which names mean nothing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_guard import ConfigError, GuardSettings, IssuerSettings
from asgi_guard.configuration.values import revealed
from asgi_guard.configuration.variables import unknown_variables, written
from asgi_guard.policy.identity import APIKey
from asgi_guard.settings import SettingsError, variables
from tests.configuring import DIGEST, SAID, setting

KNOWN = {variable.name for variable in variables()}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ASGI_GUARD_RATE_LIMITS", "there is no such variable; did you mean ASGI_GUARD_RATE_LIMIT?"),
        ("ASGI_GUARD_AUTH_AUDIENCES", "there is no such variable; did you mean ASGI_GUARD_AUTH_AUDIENCE?"),
        ("asgi_guard_auth_issuer", "there is no such variable; did you mean ASGI_GUARD_AUTH_ISSUER?"),
        ("ASGI_GUARD_CORS_ORIGINS", "there is no such variable; did you mean ASGI_GUARD_CORS_ALLOW_ORIGINS?"),
        ("ASGI_GUARD_XYZZY", "there is no such variable; `asgi-guard env` lists those there are"),
        ("ASGI_GUARD_", "there is no such variable; `asgi-guard env` lists those there are"),
    ],
)
def test_an_unknown_name(monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    """A name that means nothing is an error with the nearest name that does, and its value is not repeated."""
    monkeypatch.setenv(name, "hunter2")
    with pytest.raises(ConfigError) as caught:
        GuardSettings()
    (problem,) = caught.value.problems
    assert (problem.name, problem.message) == (name, message)


@pytest.mark.parametrize(
    "name",
    [
        "ASGI_GUARD_SERVICE_HOST",
        "ASGI_GUARD_SERVICE_PORT",
        "ASGI_GUARD_SERVICE_PORT_HTTP",
        "ASGI_GUARD_PORT",
        "ASGI_GUARD_PORT_8000_TCP",
        "ASGI_GUARD_PORT_8000_TCP_PROTO",
        "ASGI_GUARD_PORT_8000_UDP_PORT",
        "ASGI_GUARD_PORT_8000_SCTP_ADDR",
        "ASGI_GUARDIAN",
        "GUARD_RATE_LIMIT",
        "ASGI_APP",
        "TF_VAR_ASGI_GUARD_RATE_LIMIT",
    ],
)
def test_names_of_others_are_passed_over(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What Kubernetes sets for a Service called asgi-guard, and what others call theirs, is no error."""
    monkeypatch.setenv(name, "tcp://10.0.0.1:8000")
    assert revealed(GuardSettings().store.url) == "memory://"


REDIS = ["REDIS_SERVICE_HOST", "REDIS_SERVICE_PORT", "REDIS_SERVICE_PORT_TCP", "REDIS_PORT", "REDIS_PORT_6379_TCP_ADDR"]


def test_names_of_other_services_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Kubernetes sets for a Service called asgi-guard-redis, by its host's name, is no error; all else is."""
    for ending in REDIS:
        monkeypatch.setenv(f"ASGI_GUARD_{ending}", "tcp://10.0.0.1:6379")
    assert revealed(GuardSettings().store.url) == "memory://"
    for ending in ("REDIS_URL", "REDIS_TIMEOUT_PORT", "RATE_PORT"):
        monkeypatch.setenv(f"ASGI_GUARD_{ending}", "hunter2")
    with pytest.raises(ConfigError) as caught:
        GuardSettings()
    told = [problem.name for problem in caught.value.problems]
    assert told == ["ASGI_GUARD_RATE_PORT", "ASGI_GUARD_REDIS_TIMEOUT_PORT", "ASGI_GUARD_REDIS_URL"]


@pytest.mark.parametrize("ending", REDIS[1:])
def test_names_of_no_service(ending: str) -> None:
    """Without the host's name they are no Service's, and told."""
    name = f"ASGI_GUARD_{ending}"
    assert [problem.name for problem in unknown_variables([name], KNOWN)] == [name]


def test_a_service_hides_no_variable() -> None:
    """No variable is called as one of Kubernetes' could be."""
    assert not [name for name in KNOWN if re.search(r"_SERVICE_|_PORT(_|$)", name)]


@given(st.text().map(lambda text: "ASGI_GUARD_" + text))
def test_every_other_name_is_told(name: str) -> None:
    """A name with the prefix is known, one of Kubernetes', or told, and only once."""
    problems = list(unknown_variables([name], KNOWN))
    assert [problem.name for problem in problems] in ([], [name])
    if not (name.startswith(("ASGI_GUARD_SERVICE_", "ASGI_GUARD_PORT")) or name.endswith("_SERVICE_HOST")):
        assert bool(problems) == (name not in KNOWN)


@pytest.mark.parametrize(
    ("name", "choices", "default"),
    [
        ("ASGI_GUARD_APP", ["text"], ""),
        ("ASGI_GUARD_ROUTES", ["JSON"], ""),
        ("ASGI_GUARD_ROUTES_FILE", ["path"], ""),
        ("ASGI_GUARD_STORE_URL", ["text, or _FILE"], "memory://"),
        ("ASGI_GUARD_CSRF_SECRET", ["text, or _FILE"], ""),
        ("ASGI_GUARD_STORE_TIMEOUT", ["number"], "0.05"),
        ("ASGI_GUARD_AUTH_API_KEYS", ["name=SHA256, ... or JSON"], ""),
        ("ASGI_GUARD_AUTH_ISSUERS", ["JSON"], ""),
        ("ASGI_GUARD_RATE_PLANS", ["JSON"], ""),
        ("ASGI_GUARD_AUTH_ALGORITHMS", ["list"], "RS256, ES256, EdDSA"),
        ("ASGI_GUARD_AUTH_REVOCATION", ["true or false"], "false"),
        ("ASGI_GUARD_RATE_ON_STORE_FAILURE", ["allow", "deny", "local"], "local"),
        ("ASGI_GUARD_RATE_WORKERS", ["whole number"], "1"),
        ("ASGI_GUARD_CORS_MAX_AGE", ["whole number"], ""),
        ("ASGI_GUARD_LOG_SAMPLE", ["number"], "1"),
        ("ASGI_GUARD_LOG_FORMAT", ["json", "otel", "ecs", "gcp", "datadog", "off"], "json"),
        ("ASGI_GUARD_SECURITY_PRESET", ["api", "page", "docs", "off"], "api"),
    ],
)
def test_a_variable_is_described(name: str, choices: list[str], default: str) -> None:
    """A variable says which values it takes and which one it has by default."""
    (variable,) = (each for each in variables() if each.name == name)
    assert (variable.choices, variable.default) == (choices, default)


def test_every_variable_has_a_meaning() -> None:
    """Each variable has a name of its own and a line that says what it is for."""
    found = variables()
    assert len({variable.name for variable in found}) == len(found)
    assert all(variable.meaning and "\n" not in variable.meaning for variable in found)


def test_a_default_is_written_as_it_would_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Setting every variable to the default that is told for it changes nothing."""
    plain = GuardSettings()
    for variable in variables():
        monkeypatch.setenv(variable.name, variable.default)
    assert GuardSettings().model_dump() == plain.model_dump()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "true"),
        (3, "3"),
        (30.0, "30"),
        (0.123456789, "0.123456789"),
        (("a", "b"), "a, b"),
        ((), ""),
        (("a, b", "c"), '["a, b", "c"]'),
        (("[::1]", "c"), '["[::1]", "c"]'),
        (("a ", "c"), '["a ", "c"]'),
        ({}, ""),
        ({"pro": "9/second by user"}, '{"pro": "9/second by user"}'),
        ((IssuerSettings(issuer="https://a.example"),), '[{"issuer": "https://a.example"}]'),
    ],
)
def test_values_as_written(value: object, text: str) -> None:
    """A value is written as its variable would hold it."""
    assert written(value) == text


@pytest.mark.parametrize("name", sorted(SAID.keys() - {"ROUTES", "ROUTES_FILE", "AUTH_API_KEYS"}))
def test_a_value_can_be_put_back(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What is written of a setting is read as the same again; of routes and keys only names are shown."""
    value = SAID[name][1]
    monkeypatch.setenv(f"ASGI_GUARD_{name}", written(value))
    try:
        settings = GuardSettings()
    except SettingsError as error:  # what this option asks for beside it is not there
        settings = error.rest
    assert setting(settings, name) == value


def test_a_keys_hash_is_not_in_its_repr() -> None:
    """The repr of an API key names it and leaves its hash out."""
    assert repr(APIKey("ci", DIGEST)) == "APIKey(name='ci', scopes=(), plan=None)"
