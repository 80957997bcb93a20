"""Settings that are given in Python, in the place of the environment or beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from asgi_guard import (
    AuthSettings,
    ConfigError,
    CORSSettings,
    CSRFSettings,
    GuardSettings,
    IssuerSettings,
    RateSettings,
    StoreSettings,
)
from asgi_guard.policy.identity import APIKey
from asgi_guard.policy.routes import Route
from tests.configuring import DIGEST

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("given", [AuthSettings(api_keys=(APIKey("ci", DIGEST),)), {"api_keys": {"ci": DIGEST}}])
def test_a_section_given_in_python_is_taken_whole(monkeypatch: pytest.MonkeyPatch, given: Any) -> None:
    """Nothing of the environment is mixed into a section that Python gives; the other sections come from there."""
    monkeypatch.setenv("ASGI_GUARD_AUTH_ISSUER", "https://id.example.com")
    monkeypatch.setenv("ASGI_GUARD_AUTH_LEEWAY", "not a number")
    monkeypatch.setenv("ASGI_GUARD_RATE_LIMIT", "1/second by ip")
    settings = GuardSettings(auth=given)
    assert settings.auth == AuthSettings(api_keys=(APIKey("ci", DIGEST),))
    assert settings.rate == RateSettings(limit="1/second by ip")


def test_what_is_natural_to_write_is_typed() -> None:
    """Lists, one text where several belong, and secrets as texts are taken, by type checkers as well."""
    partner = IssuerSettings(issuer="https://partner.example", audience="api")
    natural = GuardSettings(
        store=StoreSettings(url="redis://cache"),
        auth=AuthSettings(audience="api", algorithms=["ES256"], issuers=[partner], api_keys=[APIKey("ci", DIGEST)]),
        cors=CORSSettings(allow_origins=["https://app.example"], allow_methods="PUT, DELETE"),
        csrf=CSRFSettings(mode="enforce", session_cookie="session", secret=DIGEST),
        routes=[Route("/login", auth="none")],
    )
    assert natural == GuardSettings(
        store=StoreSettings(url=SecretStr("redis://cache")),
        auth=AuthSettings(
            audience=("api",), algorithms=("ES256",), issuers=(partner,), api_keys=(APIKey("ci", DIGEST),)
        ),
        cors=CORSSettings(allow_origins=("https://app.example",), allow_methods=("PUT", "DELETE")),
        csrf=CSRFSettings(mode="enforce", session_cookie="session", secret=SecretStr(DIGEST)),
        routes=(Route("/login", auth="none"),),
    )
    with pytest.raises(ConfigError, match="did you mean auth"):
        GuardSettings(aut=AuthSettings())  # type: ignore[call-arg]


def test_a_wrong_field_in_python_is_named() -> None:
    """A misspelt field or section is an error in Python too."""
    given: Any = {"auth": {"isuer": "x", "issuers": [{"audiance": "a"}]}, "corse": {}, "hosts": {"zzz": 1}}
    with pytest.raises(ConfigError) as caught:
        GuardSettings(**given)
    assert {str(problem) for problem in caught.value.problems} == {
        "GuardSettings.auth.isuer: there is no such field; did you mean issuer?",
        "GuardSettings.auth.issuers: number 1, issuer: it is missing",
        "GuardSettings.auth.issuers: number 1, audiance: there is no such field; did you mean audience?",
        "GuardSettings.corse: there is no such field; did you mean cors?",
        "GuardSettings.hosts.zzz: there is no such field; there are allowed, https_redirect, exempt",
    }


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"auth_issuer": "x"},
            "GuardSettings.auth_issuer: there is no such field; did you mean auth=AuthSettings(issuer=...)?",
        ),
        (
            {"proxy_hop": 1},
            "GuardSettings.proxy_hop: there is no such field; did you mean proxy=ProxySettings(hops=...)?",
        ),
        ({"authh": {}}, "GuardSettings.authh: there is no such field; did you mean auth?"),
        (
            {"auth": "https://x"},
            "GuardSettings.auth: write an object of its fields, as {...}, or in Python AuthSettings(...)",
        ),
        (
            {"security": {"preset": "x"}},
            "GuardSettings.security.preset: write 'api', 'page', 'docs' or 'off'",
        ),
    ],
)
def test_what_is_given_in_python_is_named_so(monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], told: str) -> None:
    """What came by keyword is told by that, and what came by a variable beside it by the variable."""
    monkeypatch.setenv("ASGI_GUARD_LOG_SLOW_MS", "x")
    with pytest.raises(ConfigError) as caught:
        GuardSettings(**given)
    found = [str(problem) for problem in caught.value.problems]
    assert told in found
    assert len(found) == 2
    assert any(each.startswith("ASGI_GUARD_LOG_SLOW_MS: write a number") for each in found)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: AuthSettings(isuer="x"), "AuthSettings.isuer: there is no such field; did you mean issuer?"),  # type: ignore[call-arg]  # that is what is tested
        (
            lambda: AuthSettings(issuers=({"isuer": "x"},)),  # type: ignore[arg-type]  # as above
            "AuthSettings.issuers: number 1, isuer: there is no such field; did you mean issuer?",
        ),
        (
            lambda: StoreSettings(timeout=50),
            "StoreSettings.timeout: write a number less than or equal to 10; its meaning: seconds until an answer",
        ),
        (lambda: RateSettings(limit=60), "RateSettings.limit: write a text; its meaning: the default limits"),  # type: ignore[arg-type]  # likewise
        (lambda: StoreSettings(timeout=-1, prefix="x" * 99), "StoreSettings.timeout: write a number greater than 0"),
    ],
)
def test_a_section_in_python(make: Callable[[], object], told: str) -> None:
    """What is wrong with a section that is made in Python is an error of ours, with the field, and the nearest name."""
    with pytest.raises(ConfigError) as caught:
        make()
    assert told in str(caught.value)


@pytest.mark.parametrize("written", [["https://b.example"], ("https://b.example",)])
def test_issuers_in_a_few_words_in_python(written: Any) -> None:
    """So may one in Python."""
    auth = AuthSettings(issuer="https://a.example", audience=("api",), issuers=written)
    assert [each.issuer for each in auth.trusted] == ["https://a.example", "https://b.example"]
