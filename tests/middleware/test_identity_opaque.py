"""Opaque tokens, through the Identity layer and the whole guard."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import SecretStr

from asgi_guard import (
    AccessMiddleware,
    AuthSettings,
    Guard,
    GuardSettings,
    IdentityMiddleware,
    Issuer,
    RateLimitMiddleware,
)
from asgi_guard.errors import ConfigError
from asgi_guard.guard import configure
from asgi_guard.identity.introspection import Introspection
from asgi_guard.policy.revocation import subject_key
from asgi_guard.revocation import Revocations, lives_of
from asgi_guard.testing import LocalIssuer
from tests.asgi import Echo, get
from tests.configuring import problems
from tests.introspecting import CLIENT, OpaqueIssuer
from tests.middleware.limiting import Fickle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_guard.asgi import Header

ASKED = {
    "AUTH_INTROSPECTION_URL": "https://id.example.com/introspect",
    "AUTH_INTROSPECTION_CLIENT_ID": "shop",
    "AUTH_INTROSPECTION_CLIENT_SECRET": "hunter2",
}


@pytest.fixture
def opaque() -> Iterator[OpaqueIssuer]:
    with OpaqueIssuer() as served:
        yield served


def bearer(token: str) -> Header:
    return b"authorization", f"Bearer {token}".encode()


async def who(layer: IdentityMiddleware, token: str) -> Any:
    echo = layer.app
    assert isinstance(echo, Echo)
    await get(layer, "/", [bearer(token)])
    return echo.scopes[-1]["user"]


async def test_both_kinds_of_token(opaque: OpaqueIssuer) -> None:
    """Beside an issuer of signed tokens, opaque ones are asked about and signed ones are verified here."""
    signed = LocalIssuer()
    asked = Introspection(opaque.url, *CLIENT, audience="api")
    layer = IdentityMiddleware(Echo(), issuers=[signed.accepted()], introspection=asked)
    assert (await who(layer, opaque.token())).issuer == opaque.origin
    assert (await who(layer, opaque.token())).subject == "alice"
    assert (await who(layer, signed.token("bob"))).issuer == signed.url
    assert not (await who(layer, "unknown")).is_authenticated
    assert not (await who(layer, signed.token(iss="https://evil.test"))).is_authenticated
    assert opaque.asked == {"opaque-token": 1, "unknown": 1}
    await layer.shutdown()


async def test_every_token_is_asked_about_where_there_is_no_issuer(opaque: OpaqueIssuer) -> None:
    """Where nothing can be verified here, signed tokens are asked about too."""
    asked = Introspection(opaque.url, *CLIENT, issuer="https://id.test", audience="api")
    layer = IdentityMiddleware(Echo(), introspection=asked)
    for name in ("a.b.c", LocalIssuer().token("bob")):
        token = opaque.token(name, sub="carol")
        assert (await who(layer, token)).issuer == "https://id.test"
        assert (await layer.tokens.verify(token.encode())).subject == "carol"
    await layer.shutdown()


async def test_through_the_guard(opaque: OpaqueIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that is not active is 401, one that cannot be asked about is 503 with a time to come back."""
    for name, value in {
        "AUTH_INTROSPECTION_URL": opaque.url,
        "AUTH_INTROSPECTION_CLIENT_ID": CLIENT[0],
        "AUTH_INTROSPECTION_CLIENT_SECRET": CLIENT[1],
        "AUTH_AUDIENCE": "api",
        "ROUTES": '[{"path": "/admin", "scopes": ["admin"]}]',
    }.items():
        monkeypatch.setenv(f"ASGI_GUARD_{name}", value)
    guard = Guard(Echo())
    token = opaque.token(scope="read")

    assert (await get(guard, "/", [bearer(token)])).status == 200
    assert (await get(guard, "/admin", [bearer(token)])).status == 403
    assert (await get(guard, "/", [bearer("unknown")])).status == 401
    assert (await get(guard, "/", [bearer(opaque.token("other", aud="elsewhere"))])).status == 401
    challenged = await get(guard, "/")
    assert (challenged.status, challenged.headers["www-authenticate"]) == (401, "Bearer")
    opaque.outage = True
    unavailable = await get(guard, "/", [bearer("new")])
    assert unavailable.status == 503
    assert int(unavailable.headers["retry-after"]) >= 1
    assert (await get(guard, "/", [bearer(token)])).status == 200
    for layer in guard.layers:
        await layer.shutdown()


async def test_the_users_of_one_client_are_not_one(opaque: OpaqueIssuer) -> None:
    """Of an endpoint that says no `sub`, users are known by what the operator names, and refused where he does not.

    So django-oauth-toolkit answers: `username` for users, and for a client that acts for itself `client_id` alone.
    """
    said = {"sub": None, "aud": None, "scope": "read", "client_id": "shop"}
    tokens = [opaque.token("1", username="alice", **said), opaque.token("2", username="shop", **said)]
    tokens.append(opaque.token("3", **said))
    seen = {}
    for members in ("", "username", "username, client_id"):
        asked = Introspection(opaque.url, *CLIENT, unsafe_subject=members, unsafe_any_audience=True)
        layer = IdentityMiddleware(Echo(), introspection=asked)
        users = [await who(layer, token) for token in tokens]
        seen[members] = [user.subject for user in users]
        await layer.shutdown()
    assert seen == {
        "": ["", "", ""],
        "username": ["alice", "shop", ""],
        "username, client_id": ["alice", "shop", "client:shop"],
    }
    assert len({user.key for user in users}) == 3


def test_nobody_is_called_by_another_ones_subject() -> None:
    """What stands in the place of `sub` is not taken of an issuer whose JWTs name their users by it."""
    asked = Introspection("https://id.test/i", *CLIENT, audience="api", unsafe_subject="username")
    with pytest.raises(ConfigError, match="introspection: the JWTs of https:"):
        IdentityMiddleware(Echo(), issuers=[Issuer("https://id.test", "api")], introspection=asked)
    IdentityMiddleware(Echo(), issuers=[Issuer("https://other.test", "api")], introspection=asked)


@pytest.mark.parametrize("limit", ["", "100/second by user"])
async def test_one_without_an_id_is_looked_up_by_its_subject(opaque: OpaqueIssuer, limit: str) -> None:
    """An opaque token that names no id is looked up all the same: 401 once its subject's are revoked, else 503."""
    store = Fickle()
    limited = RateLimitMiddleware(AccessMiddleware(Echo()), limit=limit, store=store, revocation=True)
    layer = IdentityMiddleware(limited, introspection=Introspection(opaque.url, *CLIENT, audience="api"))
    alice, bob = bearer(opaque.token("of-alice")), bearer(opaque.token("of-bob", sub="bob"))
    assert (await get(layer, headers=[alice])).status == 200
    store.mood = "away"
    refused = await get(layer, headers=[alice])
    assert (refused.status, refused.headers["retry-after"]) == (503, "3")
    store.mood = "well"
    await Revocations(store, lives_of(layer)).subject("alice", None, None)
    assert [(await get(layer, headers=[each])).status for each in (alice, bob)] == [401, 200]
    await layer.shutdown()


async def asked_of(opaque: OpaqueIssuer, token: str, **settings: Any) -> Any:
    """The user of an opaque token, as a guard of these settings has it; None if there is none."""
    section = AuthSettings(
        introspection_url=opaque.url,
        introspection_client_id=CLIENT[0],
        introspection_client_secret=SecretStr(CLIENT[1]),
        **{"audience": ("api",), **settings},
    )
    echo = Echo()
    guard = Guard(echo, GuardSettings(auth=section))
    await get(guard, "/", [bearer(token)])
    for layer in guard.layers:
        await layer.shutdown()
    return echo.scopes[-1]["user"] if echo.scopes else None


async def test_whose_user_it_is_beside_other_issuers(opaque: OpaqueIssuer) -> None:
    """An opaque token is of the issuer that was asked, whether the answer names it or not, and of no other."""
    others: dict[str, Any] = {"issuer": "https://a.test", "issuers": ({"issuer": opaque.origin},)}
    for members in ({}, {"iss": opaque.origin}):
        user = await asked_of(opaque, opaque.token(**members), **others)
        assert (user.issuer, user.key) == (opaque.origin, subject_key(opaque.origin, "alice"))
    assert await asked_of(opaque, opaque.token(iss="https://a.test"), **others) is None
    of_a_third = await asked_of(opaque, opaque.token(), introspection_issuer="https://c.test", **others)
    assert of_a_third.issuer == "https://c.test"


async def test_what_holds_for_one_of_several_issuers(opaque: OpaqueIssuer) -> None:
    """What an entry of the issuers says of itself holds for its opaque tokens, too."""
    entry = {"issuer": opaque.origin, "audience": "own", "required_claims": "tenant=acme"}
    others: dict[str, Any] = {"issuer": "https://a.test", "issuers": (entry,)}
    assert await asked_of(opaque, opaque.token(aud="api", tenant="acme"), **others) is None
    assert await asked_of(opaque, opaque.token(aud="own"), **others) is None
    assert (await asked_of(opaque, opaque.token(aud="own", tenant="acme"), **others)).subject == "alice"


async def test_an_endpoint_that_tells_no_sort_of_token(opaque: OpaqueIssuer) -> None:
    """Of one that says neither `exp` nor `token_type`, as Gitea's, tokens are taken where a variable says so."""
    token = opaque.token(exp=None, iss=opaque.origin, sub="17")
    assert await asked_of(opaque, token) is None
    user = await asked_of(opaque, token, introspection_unsafe_any_type=True)
    assert (user.subject, user.expires) == ("17", None)


async def test_an_issuer_with_a_path(opaque: OpaqueIssuer) -> None:
    """An issuer whose identifier is more than its endpoint's origin is named by a variable."""
    realm = f"{opaque.origin}/realms/acme"
    token = opaque.token(iss=realm)
    assert await asked_of(opaque, token) is None
    assert (await asked_of(opaque, token, introspection_issuer=realm)).issuer == realm


async def test_a_client_that_cannot_be_made(opaque: OpaqueIssuer) -> None:
    """That the client for the questions cannot be made is 503, as for keys, and no error of the server."""

    def client() -> httpx.AsyncClient:
        raise FileNotFoundError(2, "No such file", "ca.pem")

    section = AuthSettings(
        introspection_url=opaque.url,
        introspection_client_id=CLIENT[0],
        introspection_client_secret=SecretStr(CLIENT[1]),
        audience=("api",),
    )
    guard = Guard(Echo(), GuardSettings(auth=section), http_client=client)
    refused = await get(guard, "/", [bearer(opaque.token())])
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")


def test_exemptions_go_by_the_issuer_that_is_asked() -> None:
    """Users that no limit applies to are those of the issuer that the endpoint tells of."""
    environment = {**ASKED, "AUTH_AUDIENCE": "a", "RATE_LIMIT": "1/hour by ip", "RATE_EXEMPT": "user:https://c.test#al"}
    assert "of none of the issuers" in problems(**environment)["RATE_EXEMPT"][0]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**environment, "AUTH_INTROSPECTION_ISSUER": "https://c.test"}.items():
            patch.setenv(f"ASGI_GUARD_{name}", value)
        _, layers = configure()
    (identity,) = (layer for layer in layers if isinstance(layer, IdentityMiddleware))
    assert list(lives_of(identity)) == ["https://c.test"]


@pytest.mark.parametrize(
    ("members", "accepted"),
    [
        ({}, True),
        ({"tenant": "evil"}, False),
        ({"iat": time.time() - 400}, False),
        ({"exp": time.time() + 2000}, False),
        ({"iat": 1, "exp": 4e9}, False),
    ],
)
async def test_what_every_token_has_to_be(opaque: OpaqueIssuer, members: dict[str, Any], accepted: bool) -> None:
    """Required claims and the bounds on age and life hold for opaque tokens as they do for others."""
    token = opaque.token(**{"tenant": "acme", "iat": time.time() - 10, **members})
    bounds = {"required_claims": ("tenant=acme",), "max_token_age": 300, "max_token_lifetime": 900}
    assert (await asked_of(opaque, token, **bounds) is not None) is accepted


@pytest.mark.parametrize(
    ("signed", "asked", "life"),
    [
        ({}, {}, None),
        ({}, {"max_token_age": 300}, None),
        ({"max_token_age": 300}, {}, None),
        ({"max_token_lifetime": 900}, {"max_token_age": 300}, 960),
        ({"max_token_age": 300}, {"max_token_lifetime": 900, "leeway": 10}, 920),
        (None, {"max_token_age": 300, "max_token_lifetime": 900}, 360),
    ],
)
def test_how_long_they_may_live(signed: dict[str, float] | None, asked: dict[str, Any], life: float | None) -> None:
    """A revocation has to last as long as either kind of an issuer's tokens may, where both are bounded."""
    name = "https://id.test"
    layer = IdentityMiddleware(
        Echo(),
        issuers=[] if signed is None else [Issuer(name, "api", **signed)],  # type: ignore[arg-type]
        introspection=Introspection(f"{name}/introspect", *CLIENT, audience="api", **asked),
    )
    assert lives_of(layer) == {name: life}


@pytest.mark.parametrize(
    ("environment", "variable", "message"),
    [
        (
            {**ASKED, "AUTH_AUDIENCE": "a", "AUTH_ISSUERS": '["https://a.test", "https://b.test"]'},
            "AUTH_INTROSPECTION_ISSUER",
            "say whose tokens the endpoint tells of, which its origin does not tell: one of https://a.test, ",
        ),
        ({"AUTH_INTROSPECTION_ISSUER": "https://a.test"}, "AUTH_INTROSPECTION_ISSUER", "no effect without"),
        (
            {**ASKED, "AUTH_AUDIENCE": "a", "AUTH_INTROSPECTION_URL": "https://["},
            "AUTH_INTROSPECTION_URL",
            "Invalid IPv6 URL",
        ),
        ({**ASKED, "AUTH_AUDIENCE": "a", "AUTH_PROFILE": "at+jwt"}, "AUTH_PROFILE", "without ASGI_GUARD_AUTH_ISSUER"),
        ({**ASKED, "AUTH_AUDIENCE": "a", "AUTH_ALGORITHMS": "ES256"}, "AUTH_ALGORITHMS", "no effect without"),
        (
            {**ASKED, "AUTH_AUDIENCE": "a", "AUTH_REQUIRED_CLAIMS": "a==b"},
            "AUTH_REQUIRED_CLAIMS",
            "two signs of equality",
        ),
        (
            {**ASKED, "AUTH_AUDIENCE": "a", "AUTH_INTROSPECTION_CLIENT_ID": ""},
            "AUTH_INTROSPECTION_CLIENT_ID",
            "needs it",
        ),
        (
            {**ASKED, "AUTH_AUDIENCE": "a", "AUTH_INTROSPECTION_CLIENT_SECRET": ""},
            "AUTH_INTROSPECTION_CLIENT_SECRET",
            "needs it",
        ),
        (ASKED, "AUTH_AUDIENCE", "name this API"),
        (
            {**ASKED, "AUTH_AUDIENCE": "a", "AUTH_INTROSPECTION_URL": "http://id.example.com/"},
            "AUTH_INTROSPECTION_URL",
            "use https",
        ),
        ({"AUTH_INTROSPECTION_CLIENT_ID": "shop"}, "AUTH_INTROSPECTION_CLIENT_ID", "no effect without"),
        (
            {
                **ASKED,
                "AUTH_ISSUER": "https://id.example.com/realm",
                "AUTH_AUDIENCE": "a",
                "AUTH_INTROSPECTION_UNSAFE_SUBJECT": "username",
            },
            "AUTH_INTROSPECTION_UNSAFE_SUBJECT",
            "the JWTs of https://id.example.com/realm name their users by sub, so whoever is called what that of ",
        ),
        ({"AUTH_INTROSPECTION_UNSAFE_SUBJECT": "username"}, "AUTH_INTROSPECTION_UNSAFE_SUBJECT", "no effect without"),
        ({"AUTH_INTROSPECTION_UNSAFE_ANY_TYPE": "1"}, "AUTH_INTROSPECTION_UNSAFE_ANY_TYPE", "no effect without"),
        (
            {"AUTH_INTROSPECTION_UNSAFE_ANY_AUDIENCE": "1"},
            "AUTH_INTROSPECTION_UNSAFE_ANY_AUDIENCE",
            "no effect without",
        ),
    ],
)
def test_what_is_not_told_whole(environment: dict[str, str], variable: str, message: str) -> None:
    """Introspection that cannot work is an error at the variable that is missing, and no secret is told."""
    found = problems(**environment)
    assert list(found) == [variable]
    assert message in found[variable][0]
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    ("options", "option", "message"),
    [
        ({}, "audience", "name this API"),
        ({"audience": ()}, "audience", "name this API"),
        ({"audience": " , "}, "audience", "name this API"),
        ({"audience": ("api", "")}, "audience", "name this API"),
        ({"audience": "api", "leeway": 301}, "leeway", "none of 0 to 300 seconds"),
        ({"audience": "api", "leeway": math.nan}, "leeway", "none of 0 to 300 seconds"),
        ({"audience": "api", "max_token_age": 0}, "max_token_age", "no token would be taken"),
        ({"audience": "api", "unsafe_any_audience": True}, "unsafe_any_audience", "leave it out, or the audience"),
    ],
)
def test_what_tokens_are_to_be_held_to(options: dict[str, Any], option: str, message: str) -> None:
    """Tokens for any API are taken only where that is said, and nothing else; bounds are those of the environment."""
    with pytest.raises(ConfigError, match=message) as caught:
        Introspection("https://id.example.com/introspect", *CLIENT, **options)
    assert [problem.name for problem in caught.value.problems] == [option]


async def test_tokens_for_any_api(opaque: OpaqueIssuer) -> None:
    """Where that is said, a token is taken that was made for another API, or for none."""
    asked = Introspection(opaque.url, *CLIENT, unsafe_any_audience=True)
    layer = IdentityMiddleware(Echo(), introspection=asked)
    for audience in ("elsewhere", None):
        assert (await who(layer, opaque.token(f"for {audience}".replace(" ", "-"), aud=audience))).subject == "alice"
    await layer.shutdown()


def test_a_secret_is_not_in_a_repr() -> None:
    """Neither the configuration nor what asks tells the secret."""
    asked = Introspection("https://id.example.com/introspect", "shop", "hunter2", audience="api")
    assert "hunter2" not in repr(asked) + repr(asked.introspector())
    with pytest.raises(ConfigError, match="https"):
        Introspection("ftp://id.example.com", "shop", "hunter2", audience="api")
