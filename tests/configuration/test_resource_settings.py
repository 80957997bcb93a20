"""The settings of an API that describes itself: what its metadata say, whom tokens are for, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from asgi_guard import AuthSettings, Guard, GuardSettings
from asgi_guard.guard import configure
from asgi_guard.policy.resource_metadata import WELL_KNOWN
from asgi_guard.testing import LocalIssuer
from tests.asgi import Echo, get
from tests.configuring import DIGEST, problems
from tests.guarded import KEY
from tests.introspecting import CLIENT, OpaqueIssuer

if TYPE_CHECKING:
    from asgi_guard.asgi import Header

RESOURCE = "https://api.example.com/mcp"
PATH = f"{WELL_KNOWN}/mcp"
NAMED = f'resource_metadata="https://api.example.com{PATH}"'


def bearer(token: str) -> Header:
    return b"authorization", f"Bearer {token}".encode()


@pytest.mark.parametrize(
    ("auth", "audience", "accepted"),
    [
        ({}, RESOURCE, True),
        ({}, [RESOURCE, "https://other.example"], True),
        ({}, f"{RESOURCE}/", False),
        ({}, "https://api.example.com", False),
        ({}, "api", False),
        ({"resource": "https://api.example.com"}, "https://api.example.com/", True),
        ({"resource": "https://api.example.com/"}, "https://api.example.com", True),
        ({"audience": "api"}, "api", True),
        ({"audience": "api"}, RESOURCE, False),
        ({"audience": f"api, {RESOURCE}"}, RESOURCE, True),
    ],
)
async def test_whom_tokens_are_for(
    issuer: LocalIssuer, auth: dict[str, Any], audience: str | list[str], accepted: bool
) -> None:
    """A token has to name the resource, unless the audience is said; then that is what it has to name."""
    chosen = GuardSettings(auth=AuthSettings(**{"issuer": issuer.url, "resource": RESOURCE, **auth}))
    guard = Guard(Echo(), chosen, http_client=issuer.client)
    exchange = await get(guard, "/", [bearer(issuer.token(aud=audience))])
    assert exchange.status == (200 if accepted else 401)


async def test_opaque_tokens_are_for_the_resource(issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that is asked about has to name the resource too."""
    with OpaqueIssuer() as opaque:
        for name, value in {
            "ISSUER": issuer.url,
            "RESOURCE": RESOURCE,
            "INTROSPECTION_URL": opaque.url,
            "INTROSPECTION_CLIENT_ID": CLIENT[0],
            "INTROSPECTION_CLIENT_SECRET": CLIENT[1],
        }.items():
            monkeypatch.setenv(f"ASGI_GUARD_AUTH_{name}", value)
        guard = Guard(Echo())
        assert (await get(guard, "/", [bearer(opaque.token("one", aud=RESOURCE))])).status == 200
        assert (await get(guard, "/", [bearer(opaque.token("other", aud="api"))])).status == 401
        for each in guard.layers:
            await each.shutdown()


async def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The document says what the environment does: the issuers in order, and every scope that a row asks for."""
    variables = {
        "AUTH_ISSUER": "https://z.example",
        "AUTH_ISSUERS": '[{"issuer": "https://a.example"}]',
        "AUTH_RESOURCE": RESOURCE,
        "AUTH_RESOURCE_NAME": "The notes",
        "AUTH_RESOURCE_DOCUMENTATION": "https://docs.example.com/notes",
        "ROUTES": '[{"path": "/a", "scopes": ["w", "r"]}, {"path": "/b", "any_scopes": ["a", "r"]}, {"path": "/c"}]',
        "LOG_FORMAT": "off",
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"ASGI_GUARD_{name}", value)
    guard = Guard(Echo())
    assert json.loads((await get(guard, PATH)).body) == {
        "resource": RESOURCE,
        "authorization_servers": ["https://z.example", "https://a.example"],
        "scopes_supported": ["a", "r", "w"],
        "bearer_methods_supported": ["header"],
        "resource_name": "The notes",
        "resource_documentation": "https://docs.example.com/notes",
    }
    assert [each.audience for each in guard.settings.auth.trusted] == [(RESOURCE,), (RESOURCE,)]


@pytest.mark.parametrize(
    ("auth", "members"),
    [
        ({}, set()),
        ({"dpop": "accept"}, {"dpop_signing_alg_values_supported"}),
        ({"dpop": "require"}, {"dpop_signing_alg_values_supported", "dpop_bound_access_tokens_required"}),
        ({"client_cert": "tls"}, {"tls_client_certificate_bound_access_tokens"}),
    ],
)
async def test_clients_are_told_how_tokens_are_bound(
    issuer: LocalIssuer, auth: dict[str, Any], members: set[str]
) -> None:
    """A client that has no token yet learns whether it has to be bound to a key, and by which algorithms."""
    chosen = GuardSettings(auth=AuthSettings(**{"issuer": issuer.url, "resource": RESOURCE, **auth}))
    guard = Guard(Echo(), chosen, http_client=issuer.client)
    told = json.loads((await get(guard, PATH)).body)
    assert {name for name in told if "bound" in name or "dpop" in name} == members
    challenge = (await get(guard, "/")).headers["www-authenticate"]
    if algorithms := told.get("dpop_signing_alg_values_supported"):
        assert f'algs="{" ".join(algorithms)}"' in challenge


async def test_clients_are_told_of_none_whom_they_cannot_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """An issuer that is no https URL is left out of the document, for a client could ask it for nothing."""
    keys = "https://adfs.example.com/adfs/discovery/keys"
    monkeypatch.setenv("ASGI_GUARD_AUTH_ISSUER", "http://adfs.example.com/adfs/services/trust")
    monkeypatch.setenv("ASGI_GUARD_AUTH_JWKS_URL", keys)
    monkeypatch.setenv("ASGI_GUARD_AUTH_RESOURCE", RESOURCE)
    issuers = [{"issuer": "my-service", "jwks_url": keys}, {"issuer": "https://id.example.com", "jwks_url": keys}]
    monkeypatch.setenv("ASGI_GUARD_AUTH_ISSUERS", json.dumps(issuers))
    told = json.loads((await get(Guard(Echo()), PATH)).body)
    assert told["authorization_servers"] == ["https://id.example.com"]


ISSUER = {"AUTH_ISSUER": "https://id.example.com"}
ADFS = {"AUTH_ISSUER": "http://adfs.example.com/adfs/services/trust", "AUTH_JWKS_URL": "https://adfs.example.com/keys"}


@pytest.mark.parametrize(
    ("environment", "variable", "message"),
    [
        ({"AUTH_RESOURCE": RESOURCE}, "AUTH_RESOURCE", "no effect without ASGI_GUARD_AUTH_ISSUER"),
        (
            {"AUTH_API_KEYS": f"ci={DIGEST}", "AUTH_RESOURCE": RESOURCE},
            "AUTH_RESOURCE",
            "no effect without ASGI_GUARD_AUTH_ISSUER",
        ),
        (
            {**ISSUER, "AUTH_AUDIENCE": "api", "AUTH_RESOURCE_NAME": "x"},
            "AUTH_RESOURCE_NAME",
            "no effect without ASGI_GUARD_AUTH_RESOURCE",
        ),
        (
            {**ISSUER, "AUTH_AUDIENCE": "api", "AUTH_RESOURCE_DOCUMENTATION": "https://d.example"},
            "AUTH_RESOURCE_DOCUMENTATION",
            "no effect without ASGI_GUARD_AUTH_RESOURCE",
        ),
        (
            {**ADFS, "AUTH_RESOURCE": RESOURCE},
            "AUTH_RESOURCE",
            "could ask none of http://adfs.example.com/adfs/services/trust, which is no https URL: leave it out,",
        ),
        ({**ISSUER, "AUTH_RESOURCE": "http://[api"}, "AUTH_RESOURCE", "write the URL that clients call"),
        ({**ISSUER, "AUTH_RESOURCE": "http://api.example.com"}, "AUTH_RESOURCE", "use https"),
        (
            {**ISSUER, "AUTH_RESOURCE": RESOURCE, "AUTH_RESOURCE_DOCUMENTATION": "docs"},
            "AUTH_RESOURCE_DOCUMENTATION",
            "write the whole URL of a page",
        ),
    ],
)
def test_settings_that_cannot_be_used(environment: dict[str, str], variable: str, message: str) -> None:
    """What is wrong with the resource is told once, by the variable that has to change."""
    found = problems(**environment)
    assert list(found) == [variable]
    (told,) = found[variable]
    assert message in told


def test_all_problems_with_it_at_once() -> None:
    """A bad resource hides no bad issuer, and the other way round."""
    found = problems(AUTH_ISSUER="http://id.example.com", AUTH_RESOURCE="api", AUTH_RESOURCE_DOCUMENTATION="docs")
    assert set(found) == {"AUTH_ISSUER", "AUTH_RESOURCE", "AUTH_RESOURCE_DOCUMENTATION"}


async def test_keys_beside_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where API keys are taken too, the challenge still leads to the issuer."""
    monkeypatch.setenv("ASGI_GUARD_AUTH_ISSUER", "https://id.example.com")
    monkeypatch.setenv("ASGI_GUARD_AUTH_RESOURCE", RESOURCE)
    monkeypatch.setenv("ASGI_GUARD_AUTH_API_KEYS", f"ci={DIGEST}")
    chosen, _ = configure()
    exchange = await get(Guard(Echo(), chosen), "/", [(b"x-api-key", KEY)])
    assert exchange.headers["www-authenticate"] == f'Bearer error="invalid_token", {NAMED}'
