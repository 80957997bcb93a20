"""Tokens that are bound to a key, through the whole guard, and what is asked of its settings."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse

from asgi_guard import (
    APIKey,
    AuthSettings,
    ConfigError,
    CORSSettings,
    Guard,
    GuardSettings,
    IdentityMiddleware,
    ProxySettings,
    RateSettings,
)
from asgi_guard.chain.exchange import CHAIN_KEY, SCOPE_KEY, Exchange
from asgi_guard.identity.introspection import Introspection
from asgi_guard.identity.possession import Possession
from asgi_guard.testing import LocalIssuer, ProofKey
from tests.asgi import Echo, call, get, http_scope
from tests.configuring import problems
from tests.guarded import Recorded
from tests.introspecting import CLIENT, OpaqueIssuer
from tests.laws import SHARING
from tests.middleware.limiting import Fickle, bearer
from tests.middleware.test_dpop import BAD_TOKEN, KEY, OK, SECRET, URL, Front, bound, lines, shown

if TYPE_CHECKING:
    from asgi_guard.asgi import ASGIApp, Header, Receive, Scope, Send

ISSUER = {"AUTH_ISSUER": "https://id.example.com", "AUTH_AUDIENCE": "shop"}


def guarded(issuer: LocalIssuer, *, sections: dict[str, Any] | None = None, **auth: Any) -> Guard:
    """A guard that takes bound tokens."""
    section = AuthSettings(issuer=issuer.url, audience=(issuer.audience,), **{"dpop": "accept", **auth})
    return Guard(Echo(), GuardSettings(auth=section, **(sections or {})), http_client=issuer.client)


async def test_a_client_of_a_framework(issuer: LocalIssuer) -> None:
    """The helpers for tests make requests that ordinary clients send."""
    app = guarded(issuer)
    token = issuer.token("alice", cnf=KEY.cnf)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://shop.example") as client:
        url = "https://shop.example/caf%C3%A9/a b?page=1"
        headers = KEY.headers(token, "POST", "https://SHOP.example:443/caf%c3%a9/a%20b")
        lines(headers)
        assert (await client.post(url, headers=headers)).status_code == 200
        assert (await client.post(url, headers=headers)).status_code == 401


PROXIED = {"proxy": ProxySettings(trusted=("203.0.113.0/24",))}


@pytest.mark.parametrize(
    ("sections", "url", "status"),
    [
        (PROXIED, "https://testserver/", 200),
        (PROXIED, "http://testserver/", 401),
        ({}, "https://testserver/", 401),
        ({}, "http://testserver/", 200),
    ],
)
async def test_the_url_is_the_clients(issuer: LocalIssuer, sections: dict[str, Any], url: str, status: int) -> None:
    """Behind a proxy the URL has the scheme that the proxy tells, if the proxy is trusted."""
    forwarded = [(b"x-forwarded-proto", b"https"), (b"x-forwarded-for", b"198.51.100.7")]
    exchange = await get(guarded(issuer, sections=sections), "/", [*forwarded, *shown(bound(issuer), url=url)])
    assert exchange.status == status


@pytest.mark.parametrize(
    ("root_path", "path", "url", "status"),
    [
        ("/api", "/items", "http://testserver/api/items", 200),
        ("/api", "/items", "http://testserver/items", 401),
        ("/api", "/api/items", "http://testserver/api/items", 200),
        ("/api/", "/api/items", "http://testserver/api/items", 200),
        ("/api", "/apis", "http://testserver/api/apis", 200),
        ("/caf\u00e9 1", "/items", "http://testserver/caf%C3%A9%201/items", 200),
        ("/", "/items", "http://testserver/items", 200),
    ],
)
@pytest.mark.parametrize("own", [False, True])
async def test_a_prefix_that_the_proxy_takes_away(
    issuer: LocalIssuer, own: bool, root_path: str, path: str, url: str, status: int
) -> None:
    """The URL begins with the root path, the server's or the app's own, where the path does not."""
    section = AuthSettings(issuer=issuer.url, audience=(issuer.audience,), dpop="accept")
    app = FastAPI()
    app.root_path = root_path if own else ""
    app.add_route("/{rest:path}", lambda _: PlainTextResponse("served"))
    guard = Guard(app, GuardSettings(auth=section), http_client=issuer.client)
    members = {"root_path": "" if own else root_path}
    assert (await get(guard, path, shown(bound(issuer), url=url), **members)).status == status
    unkept = {**members, "raw_path": None}
    assert (await get(guard, path, shown(bound(issuer), url=url), **unkept)).status == status


async def test_a_path_that_a_mount_takes_apart(issuer: LocalIssuer) -> None:
    """A root path that the path as sent has already is not put before it again."""
    members = {"root_path": "/api", "raw_path": b"/%61pi/items"}
    headers = shown(bound(issuer), url="http://testserver/api/items")
    assert (await get(guarded(issuer), "/items", headers, **members)).status == 200


@pytest.mark.parametrize(
    ("claim", "root_path", "url"),
    [
        (("", "/api"), "/api", "http://testserver/items"),
        (("/api", "/evil"), "/evil", "http://testserver/api/items"),
        (("/api", ""), "/v1", "http://testserver/api/v1/items"),
    ],
)
async def test_a_prefix_that_a_client_names(
    issuer: LocalIssuer, claim: tuple[str, str], root_path: str, url: str
) -> None:
    """The URL has the prefix that the server was told, and none that a client chose: a proof is for one URL alone."""
    guard = guarded(issuer)
    for tried, status in ((url, 200), (f"http://testserver{root_path}/items", 401)):
        scope = http_scope(path="/items", root_path=root_path, headers=shown(bound(issuer), url=tried))
        scope[SCOPE_KEY] = Exchange(scope, claim=claim)
        scope[CHAIN_KEY] = scope[SCOPE_KEY].innermost
        assert (await call(guard, scope)).status == status


async def test_nothing_of_a_proof_is_told(issuer: LocalIssuer, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the log nor an answer holds a part of a proof or of a token, whatever is wrong with them."""
    auth = AuthSettings(issuer=issuer.url, audience=(issuer.audience,), dpop="accept")
    front = Recorded(Echo(), issuer, GuardSettings(auth=auth))
    token = bound(issuer)
    good = shown(token)
    dpop, proof = good
    found = []
    with caplog.at_level(logging.DEBUG):
        for headers in (
            good, good, [dpop], [dpop, proof, proof], [dpop, (b"dpop", proof[1] + b"x")], [bearer(token), proof],
            shown(token, jti="secret-jti-of-the-proof"), shown(token, url="http://testserver/secret-url"),
            shown(token, iat=1), shown(token, key=ProofKey()), [dpop, (b"dpop", proof[1].split(b".")[0])],
        ):  # fmt: skip
            exchange = await get(front.guard, "/", headers)
            assert exchange.error is None
            line = json.dumps(front.record)
            for told in (line, exchange.body.decode(), str(exchange.headers), caplog.text):
                assert not any(part in told for part in ("secret-", KEY.cnf["jkt"], proof[1].split(b".")[0].decode()))
            found.append(exchange.status)
    assert found == [200, 401, 401, 401, 401, 401, 200, 401, 401, 401, 401]


async def test_a_nonce_is_told_and_then_demanded(issuer: LocalIssuer) -> None:
    """A proof without the nonce is refused with one; with it the next is good, for every worker with the secret."""
    workers = [guarded(issuer, dpop_nonce_secret=SECRET) for _ in range(2)]
    token = bound(issuer)
    refused = await get(workers[0], "/", shown(token))
    assert refused.status == 401
    assert refused.headers["www-authenticate"].startswith('DPoP error="use_dpop_nonce", algs="')
    nonce = refused.headers["dpop-nonce"]
    for worker in workers:
        assert (await get(worker, "/", shown(token, nonce=nonce))).status == 200
        assert (await get(worker, "/", shown(token, nonce=nonce[::-1]))).headers["dpop-nonce"]
    stranger = guarded(issuer, dpop_nonce_secret=SECRET[::-1])
    assert (await get(stranger, "/", shown(token, nonce=nonce))).status == 401
    assert "dpop-nonce" not in (await get(workers[0], "/", shown(token, iat=1, nonce=nonce))).headers


@pytest.mark.parametrize(("secret", "told"), [(None, False), (SECRET, True)])
async def test_pages_may_read_the_nonce(issuer: LocalIssuer, secret: str | None, told: bool) -> None:
    """A script on a page can read the nonce that it has to use, where there is one."""
    sections = {"cors": CORSSettings(allow_origins=("https://page.example",))}
    app = guarded(issuer, sections=sections, dpop_nonce_secret=secret)
    exchange = await get(app, "/", [(b"origin", b"https://page.example"), *shown(bound(issuer))])
    exposed = exchange.headers["access-control-expose-headers"].split(", ")
    assert ("dpop-nonce" in exposed) is told
    assert ("dpop-nonce" in exchange.headers) is told


async def test_guards_within_guards(issuer: LocalIssuer) -> None:
    """Guards in one another each count the proof of a request that passes them, and each refuses its replay."""
    store, echo = Fickle(), Echo()
    fronts = [Front(issuer, store=store) for _ in range(3)]

    def mount(front: Front, within: ASGIApp) -> None:
        async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
            await within({**scope}, receive, send)

        front.layer.app.app = mounted  # type: ignore[attr-defined]  # the app is AccessMiddleware, which has one

    inner, middle, outer = fronts
    mount(inner, echo)
    mount(middle, inner.layer)
    mount(outer, middle.layer)
    request = shown(bound(issuer))
    assert [(await outer.get(*request)).status for _ in range(2)] == [200, 401]
    assert (await inner.get(*request)).status == 401
    direct = shown(bound(issuer))
    assert [(await front.get(*direct)).status for front in (inner, middle, outer)] == [200, 401, 401]
    assert len(echo.scopes) == 2


async def test_opaque_tokens_are_bound_to_nothing(issuer: LocalIssuer) -> None:
    """A token that the issuer is asked about is taken without a proof only, and only where none is required."""
    with OpaqueIssuer() as opaque:
        asked = {"introspection": Introspection(opaque.url, *CLIENT, audience="api")}
        front, required = Front(issuer, **asked), Front(issuer, "require", **asked)
        token, other = opaque.token(), opaque.token("other", cnf=KEY.cnf)
        for _ in range(2):  # asked about, then remembered
            assert await front.says(bearer(token)) == OK
            assert await front.says(*shown(token)) == BAD_TOKEN
            assert await front.says(*shown(other)) == BAD_TOKEN
            assert await front.says(bearer(other)) == BAD_TOKEN
            assert await required.says(bearer(token)) == BAD_TOKEN
            assert await required.says(*shown(bound(issuer))) == OK
        for each in (front, required):
            await each.layer.shutdown()


@pytest.mark.parametrize(("mode", "required"), [("off", None), ("accept", True), ("require", True)])
async def test_readiness_asks_the_store(issuer: LocalIssuer, mode: str, required: bool | None) -> None:
    """A worker whose store is away cannot tell replays, and so is not ready where proofs are taken."""
    section = AuthSettings(issuer=issuer.url, audience=(issuer.audience,), dpop=mode)  # type: ignore[arg-type]  # a choice
    away = Fickle(mood="away")
    guard = Guard(Echo(), GuardSettings(auth=section), store=away, http_client=issuer.client)
    exchange = await get(guard, "/health/ready", client=("127.0.0.1", 1))
    assert exchange.status == (503 if required else 200)
    assert (b"store" in exchange.body) is bool(required)


async def test_limits_and_proofs_share_a_store(issuer: LocalIssuer) -> None:
    """Limits are told as ever, a replay takes from no limit by user, and the bucket of a proof is no one's limit."""
    rates = RateSettings(limit="3/hour by user")
    section = AuthSettings(issuer=issuer.url, audience=(issuer.audience,), dpop="accept")
    guard = Guard(Echo(), GuardSettings(auth=section, rate=rates), store=Fickle(), http_client=issuer.client)
    request = shown(bound(issuer))
    first = await get(guard, "/", request)
    assert first.headers["ratelimit"].startswith('"user";r=2')
    assert "dpop" not in first.headers["ratelimit"] + first.headers["ratelimit-policy"]
    statuses = [(await get(guard, "/", each)).status for each in (request, request, request)]
    assert statuses == [401] * 3
    later = [(await get(guard, "/", shown(bound(issuer)))).status for _ in range(3)]
    assert later == [200, 200, 429]


@pytest.mark.parametrize(
    ("environment", "variable", "message"),
    [
        ({"AUTH_DPOP": "accept"}, "AUTH_DPOP", "no effect without ASGI_GUARD_AUTH_ISSUER"),
        ({"AUTH_CLIENT_CERT": "tls"}, "AUTH_CLIENT_CERT", "no effect without ASGI_GUARD_AUTH_ISSUER"),
        ({**ISSUER, "AUTH_DPOP": "on"}, "AUTH_DPOP", "'off', 'accept' or 'require'"),
        ({**ISSUER, "AUTH_DPOP_NONCE_SECRET": SECRET}, "AUTH_DPOP_NONCE_SECRET", "without ASGI_GUARD_AUTH_DPOP"),
        ({**ISSUER, "AUTH_DPOP": "accept", "AUTH_DPOP_NONCE_SECRET": "short"}, "AUTH_DPOP_NONCE_SECRET", "too short"),
        ({**ISSUER, "AUTH_DPOP": "require", "AUTH_COOKIE": "s"}, "AUTH_COOKIE", "come without a proof"),
        ({**ISSUER, "AUTH_CLIENT_CERT": "client-cert"}, "AUTH_CLIENT_CERT", "set ASGI_GUARD_PROXY_TRUSTED"),
    ],
)
def test_settings_that_do_not_fit(environment: dict[str, str], variable: str, message: str) -> None:
    """Each setting that would not hold is told by its name, and a secret is not repeated."""
    found = problems(**environment)
    assert list(found) == [variable]
    assert message in found[variable][0]
    assert "short'" not in found[variable][0]


def test_a_malformed_network_is_told_once() -> None:
    """A network that cannot be read is a problem of the proxies only, and keeps no certificate from being checked."""
    assert list(problems(**ISSUER, AUTH_CLIENT_CERT="client-cert", PROXY_TRUSTED="everyone")) == ["PROXY_TRUSTED"]


@pytest.mark.parametrize("options", [{"dpop": "on"}, {"client_cert": "header"}, {"dpop_nonce_secret": "x" * 31}])
def test_arguments_that_cannot_be_used(options: dict[str, Any]) -> None:
    """What a layer is given in Python is checked as settings are."""
    with pytest.raises(ConfigError) as caught:
        Possession(**options)
    assert caught.value.problems[0].name in options


LAYER = IdentityMiddleware(Echo(), api_keys=[APIKey("ci", "0" * 64)], possession=Possession(dpop="accept"))
BYTES = st.binary(max_size=60)


@given(st.lists(st.tuples(st.sampled_from([b"authorization", b"dpop", b"host"]), BYTES), max_size=4), BYTES)
@example([(b"authorization", b"DPoP x"), (b"dpop", b"\xff")], b"")
async def test_no_headers_raise(headers: list[Header], raw_path: bytes) -> None:
    """Whatever a client sends, it is nobody, and nothing fails."""
    exchange = await call(LAYER, http_scope("GET", "/", headers, raw_path=raw_path))
    assert (exchange.error, exchange.status) == (None, 200)


@settings(SHARING, max_examples=40)
@given(proof=BYTES, host=BYTES, raw_path=BYTES)
@example(proof=b"", host=b"testserver", raw_path=b"")
async def test_no_bytes_beside_a_good_token_raise(
    issuer: LocalIssuer, proof: bytes, host: bytes, raw_path: bytes
) -> None:
    """Beside a good token, no bytes are a proof, and none raise."""
    front = Front(issuer)
    token = bound(issuer)
    headers = [(b"host", host), shown(token)[0], (b"dpop", proof)]
    exchange = await call(front.layer, http_scope("GET", "/", raw_path=raw_path) | {"headers": headers})
    assert (exchange.error, exchange.status) == (None, 401)
    good = [(b"host", host), *shown(token, url="http://testserver/")]
    exchange = await call(front.layer, http_scope("GET", "/", raw_path=raw_path) | {"headers": good})
    assert exchange.error is None
    assert exchange.status == (200 if host.lower() in (b"testserver", b"testserver:80") and raw_path == b"" else 401)


async def test_a_server_without_raw_paths(issuer: LocalIssuer) -> None:
    """Where the server keeps no raw path, the URL is that of the decoded one."""
    scope = http_scope("GET", "/café", shown(bound(issuer), url=URL + "caf%C3%A9"))
    del scope["raw_path"]
    assert (await call(Front(issuer).layer, scope)).status == 200
