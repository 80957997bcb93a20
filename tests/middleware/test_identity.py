"""The Identity layer: who it is, shown to the app, and nobody refused."""

from __future__ import annotations

import asyncio
import math
import time
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from starlette.authentication import requires
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.testclient import TestClient

from asgi_guard import (
    AccessMiddleware,
    APIKey,
    ConfigError,
    IdentityMiddleware,
    Introspection,
    Issuer,
    Route,
    TokenError,
    User,
)
from asgi_guard.errors import KeysUnavailableError
from asgi_guard.policy.revocation import subject_key
from asgi_guard.policy.token import MAX_TOKEN_BYTES
from asgi_guard.testing import JWKS, LocalIssuer, SigningKey
from tests.asgi import Echo, call, get, websocket_scope

if TYPE_CHECKING:
    from asgi_guard.asgi import Header, Receive, Scope, Send

KEY = "key-of-the-robot"
ROBOT = APIKey("robot", sha256(KEY.encode()).hexdigest(), ("items:read",))


def bearer(token: str) -> Header:
    return b"authorization", f"Bearer {token}".encode()


async def who(layer: IdentityMiddleware, *headers: Header, **members: Any) -> Any:
    """The user that the app is shown."""
    app = Echo()
    layer.app, before = app, layer.app
    exchange = await get(layer, headers=headers, **members)
    layer.app = before
    assert (exchange.error, exchange.status) == (None, 200)
    assert app.scopes[0]["auth"].scopes == getattr(app.scopes[0]["user"], "scopes", ())
    return app.scopes[0]["user"]


@pytest.mark.parametrize("known", [False, True])
async def test_a_disputed_path_costs_nothing(known: bool, issuer: LocalIssuer) -> None:
    """Where routers read a path in different ways, which is refused unlimited further in, no token is looked at."""
    routes = [Route("/admin", scopes=("x",)), Route("/*", auth="none")]
    layer = IdentityMiddleware(Echo(), issuers=[issuer.accepted()], routes=routes)
    token = bearer(issuer.token())
    if known:
        assert (await who(layer, token, path="/admin")).is_authenticated
    looked_up = layer.tokens.hits + layer.tokens.misses
    assert not (await who(layer, token, path="//admin")).is_authenticated
    assert layer.tokens.hits + layer.tokens.misses == looked_up


async def test_the_largest_token(issuer: LocalIssuer) -> None:
    """A token of as many bytes as are allowed is verified, and one that is larger is not."""
    spare = MAX_TOKEN_BYTES - len(issuer.token(pad=""))
    # Three characters of a claim are four of the token, so not every length can be met, but the bound can.
    sizes = {len(token): token for more in range(-8, 4) if (token := issuer.token(pad="x" * (spare * 3 // 4 + more)))}
    layer = IdentityMiddleware(Echo(), issuers=[issuer.accepted()])
    assert (await who(layer, bearer(sizes[MAX_TOKEN_BYTES]))).is_authenticated
    assert not (await who(layer, bearer(sizes[max(sizes)]))).is_authenticated
    assert max(sizes) > MAX_TOKEN_BYTES


async def reason(issuer: LocalIssuer, *headers: Header, **options: Any) -> tuple[int, bytes]:
    """What Access makes of it."""
    layer = IdentityMiddleware(AccessMiddleware(Echo()), issuers=[issuer.accepted()], **options)
    exchange = await get(layer, headers=headers)
    return exchange.status, exchange.body


async def test_token(issuer: LocalIssuer) -> None:
    """A token that the issuer signed shows its subject, its scopes and its claims."""
    layer = IdentityMiddleware(Echo(), issuers=[issuer.accepted()])
    for _ in range(2):  # verified, then remembered
        user = await who(layer, bearer(issuer.token("alice", scopes=["a", "b"], extra=1)))
        assert (user.subject, user.scopes, user.issuer, user.claims["extra"]) == ("alice", ("a", "b"), issuer.url, 1)
        assert user.is_authenticated


async def test_what_an_app_reads_of_a_user_is_no_other_requests_to_change(issuer: LocalIssuer) -> None:
    """A remembered token says to each request what the issuer said, whatever the app does with the claims."""
    layer = IdentityMiddleware(Echo(), issuers=[issuer.accepted()])
    header = bearer(issuer.token(realm_access={"roles": ["user"]}))
    roles = (await who(layer, header)).claims["realm_access"]["roles"]
    with pytest.raises(TypeError, match="read-only"):
        roles.append("admin")
    again = await who(layer, header)
    assert layer.tokens.hits == 1
    assert again.claims["realm_access"] == {"roles": ["user"]}
    assert isinstance(again.claims["realm_access"]["roles"], list)


def test_a_route_may_return_the_user(issuer: LocalIssuer) -> None:
    """FastAPI writes a user as JSON, whoever it is, with or without an annotation."""
    api = FastAPI()

    @api.get("/me")
    async def me(request: Request) -> Any:
        return request.user

    @api.get("/user")
    async def user(request: Request) -> User:
        found: User = request.user
        return found

    @api.get("/plain", response_model=None)
    async def plain(request: Request) -> object:
        return request.user

    layer = IdentityMiddleware(api, issuers=[issuer.accepted()], api_keys=[ROBOT], default="optional")
    token = issuer.token(realm_access={"roles": ["user"]})
    with TestClient(layer) as client:
        for path in ("/me", "/user", "/plain"):
            told = client.get(path, headers={"authorization": f"Bearer {token}"}).json()
            assert (told["subject"], told["claims"]["realm_access"]) == ("alice", {"roles": ["user"]})
            told = client.get(path, headers={"x-api-key": KEY}).json()
            assert (told["subject"], told["kind"], told["expires"], told["claims"]) == ("robot", "api-key", None, {})
        assert client.get("/me").json() == client.get("/plain").json() == {}


async def test_nobody(issuer: LocalIssuer) -> None:
    """Without credentials, nobody is shown, and nothing is fetched."""
    layer = IdentityMiddleware(Echo(), issuers=[issuer.accepted()])
    user = await who(layer)
    assert not user.is_authenticated
    assert (user.display_name, user.identity) == ("", "")
    assert issuer.fetches == {}


async def test_starlettes_shape(issuer: LocalIssuer) -> None:
    """`request.user`, `request.auth` and `@requires` of Starlette understand what they are shown."""

    @requires("items:read")
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse(f"{request.user.display_name} {','.join(request.auth.scopes)}")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert HTTPConnection(scope).user.is_authenticated == bool(scope["auth"].scopes)
        response = await endpoint(Request(scope, receive))
        await response(scope, receive, send)

    layer = IdentityMiddleware(app, issuers=[issuer.accepted()])
    granted = await get(layer, headers=[bearer(issuer.token(scopes=["items:read"]))])
    assert (granted.status, granted.body) == (200, b"alice items:read")
    refused = await get(layer)
    assert type(refused.error).__name__ == "HTTPException"


@pytest.mark.parametrize(
    ("claims", "word"),
    [
        ({"lifetime": -3600}, "expired"),
        ({"aud": "another"}, "audience"),
        ({"iss": "https://evil.test"}, "issuer"),
        ({"nbf": 4e9}, "not_yet_valid"),
        ({"sub": ""}, "claim"),
        ({"scope": 5}, "claim"),
        ({"headers": {"kid": "unknown"}}, "unknown_key"),
        ({"headers": {"crit": ["b64"]}}, "unsupported"),
    ],
)
async def test_bad_token(issuer: LocalIssuer, claims: dict[str, Any], word: str) -> None:
    """A token that is not acceptable shows nobody, and the reason stands where the log finds it."""
    value = issuer.token(**claims)
    layer = IdentityMiddleware(Echo(), issuers=[issuer.accepted()])
    assert not (await who(layer, bearer(value))).is_authenticated
    with pytest.raises(TokenError) as caught:
        await layer.tokens.verify(value.encode())
    assert caught.value.reason == word
    status, body = await reason(issuer, bearer(value))
    assert (status, b"credentials_invalid" in body, word.encode() in body) == (401, True, False)


async def test_foreign_signature(issuer: LocalIssuer) -> None:
    """A token that another key signed under the issuer's key id shows nobody."""
    forger = LocalIssuer(issuer.url, key=SigningKey("RS256"))
    value = forger.token(headers={"kid": issuer.published[-1].kid})
    assert (await reason(issuer, bearer(value)))[0] == 401


async def test_algorithm_of_another_issuer(issuer: LocalIssuer) -> None:
    """An algorithm that only another issuer may use is not accepted from this one."""
    other = LocalIssuer("https://other.test", algorithm="ES256")
    layer = IdentityMiddleware(
        Echo(), issuers=[issuer.accepted(algorithms=["RS256"]), other.accepted(algorithms=["ES256"])]
    )
    assert (await who(layer, bearer(issuer.token("a")))).issuer == issuer.url
    assert (await who(layer, bearer(other.token("b")))).issuer == other.url
    issuer.published = other.published
    assert not (await who(layer, bearer(issuer.token("c")))).is_authenticated


async def test_no_key_is_looked_for_of_an_algorithm_that_is_not_allowed(issuer: LocalIssuer) -> None:
    """A token by an algorithm of another issuer's is refused for that, 401, and nobody is asked, there or not."""
    other = LocalIssuer("https://other.test", algorithm="ES256")
    layer = IdentityMiddleware(
        AccessMiddleware(Echo()),
        issuers=[issuer.accepted(algorithms=["RS256"]), other.accepted(algorithms=["ES256"])],
    )
    issuer.published, issuer.outage = other.published, True
    token = issuer.token()
    assert (await get(layer, headers=[bearer(token)])).status == 401
    with pytest.raises(TokenError, match=r"ES256 is not allowed for .* \(allowed: RS256\)") as caught:
        await layer.tokens.verify(token.encode())
    assert caught.value.reason == "algorithm"
    assert issuer.fetches == {}


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer a.b.c"), (b"authorization", b"Bearer a.b.c")],
        [(b"authorization", b"Bearer a.b.c, Bearer d.e.f")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer a.b.c"), (b"x-api-key", b"k")],
        [(b"authorization", b"Bearer a.b.c"), (b"cookie", b"session=a.b.c")],
        [(b"x-api-key", b"k"), (b"x-api-key", b"k")],
        [(b"cookie", b"session=a; session=b")],
    ],
)
async def test_malformed(issuer: LocalIssuer, headers: list[Header]) -> None:
    """Credentials that are repeated, malformed or of several kinds are 400."""
    assert (await reason(issuer, *headers, api_keys=[ROBOT], cookie="session"))[0] == 400


@pytest.mark.parametrize("value", [b"Basic YTpi", b"bear\xffer x", b""])
async def test_foreign_scheme(issuer: LocalIssuer, value: bytes) -> None:
    """Another scheme than Bearer counts as no credentials."""
    status, body = await reason(issuer, (b"authorization", value))
    assert (status, b"credentials_missing" in body) == (401, True)


@pytest.mark.parametrize("scheme", ["Digest ", "Bearer,", "       ", "XXXXXXX"])
async def test_a_foreign_scheme_before_a_token_that_is_remembered(issuer: LocalIssuer, scheme: str) -> None:
    """A token that was just verified is nobody's under another scheme, though that is as long as Bearer."""
    layer, token = IdentityMiddleware(Echo(), issuers=[issuer.accepted()]), issuer.token()
    assert (await who(layer, bearer(token))).is_authenticated
    assert not (await who(layer, (b"authorization", f"{scheme}{token}".encode()))).is_authenticated


async def test_a_valid_token_among_others_is_not_believed(issuer: LocalIssuer) -> None:
    """A token that was just verified does not hide that another credential stands beside it."""
    valid = bearer(issuer.token())
    layer = IdentityMiddleware(
        AccessMiddleware(Echo()), issuers=[issuer.accepted()], api_keys=[ROBOT], cookie="session"
    )
    assert (await get(layer, headers=[valid])).status == 200
    for beside in (valid, (b"x-api-key", KEY.encode()), (b"cookie", b"session=x")):
        assert (await get(layer, headers=[valid, beside])).status == 400
    assert (await get(layer, headers=[valid, (b"cookie", b"other=x")])).status == 200


async def test_api_key() -> None:
    """A key whose hash is known shows its name and its scopes, in the configured header."""
    layer = IdentityMiddleware(Echo(), api_keys=[ROBOT], api_key_header="X-Robot")
    user = await who(layer, (b"x-robot", KEY.encode()))
    assert (user.subject, user.scopes, user.kind) == ("robot", ("items:read",), "api-key")
    assert not (await who(layer, (b"x-robot", b"another"))).is_authenticated
    assert not (await who(layer, (b"x-api-key", KEY.encode()))).is_authenticated


def test_a_key_has_one_name() -> None:
    """One key under several names is refused, as the environment does: whose it is would be the last one's to say."""
    keys = [ROBOT, APIKey("other", "0" * 64), APIKey("admin", ROBOT.sha256, ("admin",))]
    with pytest.raises(ConfigError, match=r"^api_keys: the key of 'robot' has another name too: keep one$"):
        IdentityMiddleware(Echo(), api_keys=keys)


@pytest.mark.parametrize("header", ["Authorization", "cookie", "host", "origin", "sec-fetch-site"])
def test_a_header_of_others(issuer: LocalIssuer, header: str) -> None:
    """API keys come in no header in which something else comes: bearer tokens, where they are taken, first of all."""
    with pytest.raises(ConfigError, match=r"^api_key_header: .* is where something else stands"):
        IdentityMiddleware(Echo(), issuers=[issuer.accepted()], api_keys=[ROBOT], api_key_header=header)
    asked = Introspection("https://id.example/introspect", "api", "secret", audience="api")
    with pytest.raises(ConfigError, match=r"^api_key_header: .* is where something else stands"):
        IdentityMiddleware(Echo(), introspection=asked, api_keys=[ROBOT], api_key_header=header)


@pytest.mark.parametrize("scheme", ["", "Bearer ", "bearer  ", "ApiKey ", "APIKEY\t"])
async def test_keys_alone_may_come_where_tokens_do(scheme: str) -> None:
    """Where nothing else is taken, they may stand in Authorization, with the scheme of a token or of a key, or none."""
    layer = IdentityMiddleware(AccessMiddleware(Echo()), api_keys=[ROBOT], api_key_header="Authorization")
    sent = (b"authorization", f"{scheme}{KEY}".encode())
    assert (await get(layer, headers=[sent])).status == 200
    assert (await get(layer, headers=[sent, sent])).status == 400


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", "Basic {key}", "{key} ApiKey", "Bearer ApiKey {key}", "DPoP {key}"]
)
async def test_a_key_with_anything_else_before_it(value: str) -> None:
    """No other scheme is taken off, and a scheme alone is no key."""
    layer = IdentityMiddleware(AccessMiddleware(Echo()), api_keys=[ROBOT], api_key_header="authorization")
    sent = (b"authorization", value.format(key=KEY).encode())
    assert (await get(layer, headers=[sent])).status == 401


async def test_cookie(issuer: LocalIssuer) -> None:
    """A token in the configured cookie is verified as one in the header is."""
    layer = IdentityMiddleware(Echo(), issuers=[issuer.accepted()], cookie="session")
    value = issuer.token()
    for _ in range(2):  # verified, then remembered
        assert (await who(layer, (b"cookie", f"a=b; session={value}".encode()))).subject == "alice"
    assert not (await who(layer, (b"cookie", b"a=b"))).is_authenticated


async def test_routes(issuer: LocalIssuer) -> None:
    """On a row without authentication credentials are not looked at, and on an optional one they are verified."""
    routes = [Route("/public", auth="none"), Route("/maybe", auth="optional")]
    layer = IdentityMiddleware(Echo(), issuers=[issuer.accepted()], routes=routes)
    header = bearer(issuer.token())
    assert not (await who(layer, header, path="/public")).is_authenticated
    assert (await who(layer, header, path="/maybe")).is_authenticated
    assert (await who(layer, header, path="/public/../x")).is_authenticated
    routes = [Route("/unsaid", cost=2), Route("/asked", auth="required")]
    layer = IdentityMiddleware(Echo(), issuers=[issuer.accepted()], routes=routes, default="none")
    for path in ("/", "/unsaid"):
        for _ in range(2):
            assert not (await who(layer, header, path=path)).is_authenticated
        assert (await who(layer, header, path="/asked")).is_authenticated  # and remembered


def test_a_layer_that_could_know_nobody() -> None:
    """Without issuers, introspection and API keys everybody would be nobody, so that is an error."""
    with pytest.raises(ConfigError, match="give issuers, introspection or api_keys"):
        IdentityMiddleware(Echo())


async def test_websocket(issuer: LocalIssuer) -> None:
    """A handshake's identity is found as a request's is."""
    app = Echo()
    layer = IdentityMiddleware(app, issuers=[issuer.accepted()])
    await call(layer, websocket_scope(headers=[bearer(issuer.token())]))
    assert app.scopes[0]["user"].subject == "alice"


async def test_a_client_cannot_say_who_it_is(issuer: LocalIssuer) -> None:
    """What an outer scope says of the user is replaced."""
    liar = User("root", ("everything",))
    user = await who(IdentityMiddleware(Echo(), issuers=[issuer.accepted()]), user=liar)
    assert not user.is_authenticated


async def test_an_outer_layers_user_is_nobody_here(issuer: LocalIssuer) -> None:
    """Whom a layer further out knows or refused, by what this one does not take, is a stranger here."""
    app = Echo()
    inner = IdentityMiddleware(AccessMiddleware(app), issuers=[issuer.accepted()])
    outer = IdentityMiddleware(inner, issuers=[issuer.accepted()], cookie="session")
    for token in (issuer.token(), issuer.token(lifetime=-3600)):
        refused = await get(outer, headers=[(b"cookie", f"session={token}".encode())])
        assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert app.scopes == []
    assert (await get(outer, headers=[bearer(issuer.token())])).status == 200


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("remembered", [0, 1])
async def test_a_remembered_token_expires(issuer: LocalIssuer, remembered: int) -> None:
    """A token that was verified is refused from the moment it ends, remembered or not."""
    clock = Clock()
    clock.now = time.time()
    layer = IdentityMiddleware(Echo(), issuers=[issuer.accepted(leeway=0)], cache_size=remembered, clock=clock)
    header = bearer(issuer.token(lifetime=30))
    assert (await who(layer, header)).is_authenticated
    clock.now += 29
    assert (await who(layer, header)).is_authenticated
    clock.now += 2
    assert not (await who(layer, header)).is_authenticated


async def test_a_rotated_key_takes_its_tokens_along(issuer: LocalIssuer) -> None:
    """A token that was verified is refused once its key has left the issuer's set."""
    issuer.published = [SigningKey("ES256")]
    layer = IdentityMiddleware(Echo(), issuers=[issuer.accepted()])
    old = bearer(issuer.token())
    assert (await who(layer, old)).is_authenticated
    issuer.rotate()
    (verifier,) = layer.tokens.verifiers.values()
    await verifier.engine.refresh()
    assert not (await who(layer, old)).is_authenticated
    assert (await who(layer, bearer(issuer.token()))).is_authenticated


async def test_outage(issuer: LocalIssuer) -> None:
    """Where the keys cannot be had, a token is 503 with the time to wait, and never 401."""
    issuer.outage = True
    layer = IdentityMiddleware(AccessMiddleware(Echo()), issuers=[issuer.accepted()])
    header = bearer(issuer.token())
    for _ in range(2):  # after a fetch that failed, and while none may be started
        exchange = await get(layer, headers=[header])
        assert exchange.status == 503
        assert int(exchange.headers["retry-after"]) >= 1
        assert b"keys_unavailable" in exchange.body
    with pytest.raises(KeysUnavailableError):
        await layer.tokens.check()


async def test_lifespan(issuer: LocalIssuer) -> None:
    """Start-up fetches the keys, once, and shut-down gives up a fetch that is under way."""
    layer = IdentityMiddleware(Echo(), issuers=[issuer.accepted()])
    await layer.startup()
    await layer.tokens.check()
    assert (await who(layer, bearer(issuer.token()))).is_authenticated
    assert issuer.fetches[JWKS] == 1
    issuer.slow = 3600
    (verifier,) = layer.tokens.verifiers.values()
    waiting = asyncio.create_task(verifier.engine.refresh())
    await asyncio.sleep(0)
    await layer.shutdown()
    await asyncio.gather(waiting, return_exceptions=True)
    assert issuer.fetches[JWKS] == 1


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"issuer": "http://issuer.example"}, {"issuer"}),
        ({"issuer": "issuer.example"}, {"issuer"}),
        ({"issuer": "https://issuer.example?a=b"}, {"issuer"}),
        ({"jwks_url": "http://issuer.example/keys"}, {"jwks_url"}),
        ({"issuer": "", "jwks_url": "https://issuer.example/keys"}, {"issuer"}),
        ({"issuer": "my\nservice", "jwks_url": "https://issuer.example/keys"}, {"issuer"}),
        ({"issuer": "https://a.test, https://b.test", "jwks_url": "https://issuer.example/keys"}, {"issuer"}),
        (
            {"issuer": "https://a.test/.well-known/openid-configuration", "jwks_url": "https://a.test/keys"},
            {"issuer"},
        ),
        ({"jwks_url": "https://user@issuer.example/keys"}, {"jwks_url"}),
        ({"audience": ""}, {"audience"}),
        ({"audience": []}, {"audience"}),
        ({"audience": '["api"'}, {"audience"}),
        *(({"audience": audience}, {"audience"}) for audience in (5, [1], b"api", [None])),
        ({"algorithms": ["HS256", "none"]}, {"algorithms"}),
        ({"algorithms": []}, {"algorithms"}),
        ({"profile": "id"}, {"profile"}),
        ({"required_claims": ["=x"]}, {"required_claims"}),
        *(({"leeway": leeway}, {"leeway"}) for leeway in (-1, 300.5, 30_000, math.nan, math.inf)),
        *(({"max_token_age": age}, {"max_token_age"}) for age in (0, -5, math.nan)),
        ({"max_token_lifetime": 0, "leeway": 301}, {"max_token_lifetime", "leeway"}),
        ({"issuer": "http://a.example", "audience": "", "algorithms": ["none"]}, {"issuer", "audience", "algorithms"}),
    ],
)
def test_bad_issuer(options: dict[str, Any], names: set[str]) -> None:
    """All that is wrong with an issuer is refused at construction, together and by name."""
    with pytest.raises(ConfigError) as caught:
        Issuer(**{"issuer": "https://issuer.example", "audience": "api", **options})
    assert {problem.name for problem in caught.value.problems} == names


async def test_what_an_issuer_is_bound_to(issuer: LocalIssuer) -> None:
    """The type of token, required claims, the longest life and the place of scopes are those of the token's issuer."""
    strict = LocalIssuer("https://strict.test", algorithm="ES256")
    bound = strict.accepted(
        algorithms=["ES256"],
        profile="at+jwt",
        required_claims=["tenant=acme"],
        max_token_lifetime=900,
        scope_claims=["realm.roles"],
    )
    layer = IdentityMiddleware(Echo(), issuers=[issuer.accepted(), bound])
    right: dict[str, Any] = {
        "headers": {"typ": "at+jwt"},
        "client_id": "shop",
        "tenant": "acme",
        "realm": {"roles": ["a", "b"]},
    }

    user = await who(layer, bearer(strict.token(**right)))
    assert (user.issuer, user.scopes) == (strict.url, ("a", "b"))
    assert (await who(layer, bearer(issuer.token(scopes=["c"])))).scopes == ("c",)

    wrongs: tuple[tuple[dict[str, Any], str], ...] = (
        ({"headers": {"typ": "JWT"}}, "type"),
        ({"tenant": "other"}, "claim"),
        ({"client_id": None}, "claim"),
        ({"lifetime": 901}, "too_long"),
        ({"realm": {"roles": 5}}, "claim"),
    )
    for wrong, word in wrongs:
        with pytest.raises(TokenError) as caught:
            await layer.tokens.verify(strict.token(**{**right, **wrong}).encode())
        assert caught.value.reason == word


@pytest.mark.parametrize(
    "name", ["http://adfs.example.com/adfs/services/trust", "accounts.example.com", "my service", "urn:example:id#1"]
)
async def test_an_issuer_whose_keys_are_told_may_have_any_name(name: str) -> None:
    """Nothing is fetched by the name of an issuer whose key set is named: it is what `iss` says, letter by letter."""
    keys = LocalIssuer("https://keys.test")
    accepted = Issuer(name, keys.audience, f"{keys.url}{JWKS}", client=keys.client)
    layer = IdentityMiddleware(Echo(), issuers=[accepted])
    user = await who(layer, bearer(keys.token(iss=name)))
    assert (user.issuer, user.key) == (name, subject_key(name, "alice"))
    assert not (await who(layer, bearer(keys.token(iss=f"{name}/")))).is_authenticated


def test_what_to_do_about_an_issuer_that_is_no_url() -> None:
    """Where keys would have to be looked for at a name that is no URL, what to say instead is told."""
    with pytest.raises(
        ConfigError, match="could put their own keys there; or set jwks_url to an https URL of its keys"
    ):
        Issuer("http://adfs.example.com/adfs/services/trust", "api")


def test_one_text_is_a_list_of_one() -> None:
    """A name by itself is one name, and no list of its letters."""
    made = Issuer("https://a.example", "api", algorithms="ES256", required_claims="tenant", scope_claims="roles, scp")
    found = (made.audience, made.algorithms, made.required_claims, made.scope_claims)
    assert found == (("api",), ("ES256",), ("tenant",), ("roles", "scp"))


def test_keys_behind_a_query() -> None:
    """A key set may stand behind a query, as some issuers have it."""
    url = "https://issuer.example/keys?p=policy"
    assert Issuer("https://issuer.example", "api", jwks_url=url).jwks_url == url


def test_issuer_twice(issuer: LocalIssuer) -> None:
    """An issuer that is named twice is refused: which of its audiences would hold?"""
    with pytest.raises(ConfigError, match="twice"):
        IdentityMiddleware(Echo(), issuers=[issuer.accepted(), issuer.accepted()])
