"""Tokens that are bound to a key: with every request, its proof, or nobody."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from asgi_guard import AccessMiddleware, APIKey, IdentityMiddleware, MemoryStore, Route
from asgi_guard.identity.possession import Possession
from asgi_guard.policy.dpop import SeenProofs
from asgi_guard.testing import LocalIssuer, ProofKey
from tests.asgi import Echo, Exchange, call, get, websocket_scope
from tests.leaks import WATCH
from tests.middleware.limiting import Fickle, bearer

if TYPE_CHECKING:
    from asgi_guard import RedisStore
    from asgi_guard.asgi import Header
    from tests.middleware.limiting import Mood
    from tests.stores.server import Server

KEY = ProofKey()
URL = "http://testserver/"
ROBOT = APIKey("robot", sha256(b"k").hexdigest())
MISSING = "Bearer, DPoP algs="
SECRET = "a secret that all workers share, of some length"


def lines(headers: dict[str, str]) -> list[Header]:
    """Headers as they arrive; no proof may be seen anywhere afterwards."""
    WATCH.issued.update(value for name, value in headers.items() if name == "dpop")
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def shown(token: str, method: str = "GET", url: str = URL, key: ProofKey = KEY, **claims: Any) -> list[Header]:
    """A token with a proof."""
    return lines(key.headers(token, method, url, **claims))


class Front:
    """The layers that identities pass, around an app."""

    def __init__(self, issuer: LocalIssuer, dpop: Any = "accept", **options: Any) -> None:
        names = ("issuers", "introspection", "api_keys", "cookie")
        identity = {"issuers": [issuer.accepted()], **{name: options.pop(name) for name in names if name in options}}
        rules = {name: options.pop(name) for name in ("routes",) if name in options}
        self.possession = Possession(dpop=dpop, **options)
        self.echo = Echo()
        access = AccessMiddleware(self.echo, possession=self.possession, **rules)
        self.layer = IdentityMiddleware(access, possession=self.possession, **identity, **rules)

    async def get(self, *headers: Header, path: str = "/", **members: Any) -> Exchange:
        return await get(self.layer, path, headers, **members)

    async def says(self, *headers: Header, **members: Any) -> tuple[int, str]:
        """The status, and the error that the challenges name."""
        exchange = await self.get(*headers, **members)
        assert exchange.error is None
        assert len(self.echo.scopes) == (exchange.status == 200)
        self.echo.scopes.clear()
        return exchange.status, exchange.headers.get("www-authenticate", "").partition('error="')[2].partition('"')[0]


def bound(issuer: LocalIssuer, key: ProofKey = KEY, **claims: Any) -> str:
    return issuer.token(cnf=key.cnf, **claims)


OK, BAD_PROOF, BAD_TOKEN, AWAY = (200, ""), (401, "invalid_dpop_proof"), (401, "invalid_token"), (503, "")


def test_what_tokens_may_be_bound_to() -> None:
    """A token may be bound to what is asked for, and to nothing else."""
    assert Possession().bindings == frozenset()
    assert Possession(dpop="accept").bindings == Possession(dpop="require").bindings == {"jkt"}
    assert Possession(client_cert="tls").bindings == {"x5t#S256"}
    assert Possession(dpop="accept", client_cert="tls").bindings == {"jkt", "x5t#S256"}


async def test_a_store_that_may_forget_proofs_is_told_of_at_start(
    issuer: LocalIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever starts the layer is warned of what its proofs' store is to be warned of."""

    class Forgetful(Possession):
        async def caution(self) -> str | None:
            return "the store forgets"

    forgetful = Forgetful(dpop="accept", store=Fickle())
    await IdentityMiddleware(Echo(), issuers=[issuer.accepted()], possession=forgetful).startup()
    assert caplog.messages == ["the store forgets"]


async def test_a_store_that_cannot_tell_proofs_is_told_of(
    issuer: LocalIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    """The log tells of a store that does not answer, at start and later: what bound tokens meet, and the end of it."""
    store = Fickle(mood="away")
    front = Front(issuer, store=store)
    await front.layer.startup()
    meanwhile = "requests with a token that is bound to a key meet 503"
    assert caplog.messages == [f"away; until it does, {meanwhile}"]
    course: tuple[tuple[Mood, tuple[int, str]], ...] = (("away", AWAY), ("well", OK), ("well", OK), ("deaf", AWAY))
    for mood, answer in course:
        store.mood = mood
        assert await front.says(*shown(bound(issuer))) == answer
    assert caplog.messages[1:] == [
        "the store answers again",
        f"the store did not decide a request: deaf; where that happens, {meanwhile}",
    ]
    await front.layer.shutdown()


async def test_a_proof_shows_who_it_is(issuer: LocalIssuer) -> None:
    """A bound token with its proof shows its subject, when it is verified and when it is remembered."""
    front = Front(issuer)
    token = bound(issuer, sub="carol")
    for _ in range(3):
        await front.get(*shown(token))
    assert [scope["user"].subject for scope in front.echo.scopes] == ["carol"] * 3


async def test_a_proof_is_good_once(issuer: LocalIssuer) -> None:
    """A request that is sent again is refused, though its token was just accepted, and the next proof is good."""
    front = Front(issuer)
    token = bound(issuer)
    request = shown(token)
    assert [await front.says(*request) for _ in range(3)] == [OK, BAD_PROOF, BAD_PROOF]
    assert await front.says(*shown(token)) == OK


async def test_a_proof_is_good_once_for_all_workers(issuer: LocalIssuer, redis_store: RedisStore) -> None:
    """Workers that share a store share what proofs they have seen, whether or not the key was fetched already."""
    workers = [Front(issuer, store=redis_store) for _ in range(3)]
    request = shown(bound(issuer))
    assert [await worker.says(*request) for worker in workers] == [OK, BAD_PROOF, BAD_PROOF]
    assert [await worker.says(*shown(bound(issuer))) for worker in workers] == [OK] * 3
    await workers[0].layer.shutdown()


async def test_proofs_end_in_the_store(issuer: LocalIssuer, redis_store: RedisStore, server: Server) -> None:
    """A proof leaves the store by itself, after the time in which it could come again."""
    assert await Front(issuer, store=redis_store).says(*shown(bound(issuer))) == OK
    (name,) = server.client.keys("*")
    assert b"dpop:" in name
    assert 110_000 < server.client.pttl(name) <= 120_000


@pytest.mark.parametrize("remembered", [False, True])
async def test_remembering_a_token_skips_no_proof(issuer: LocalIssuer, remembered: bool) -> None:
    """However well a bound token is known, it is worth nothing without a proof, or with one for something else."""
    front = Front(issuer, cookie="session")
    token = bound(issuer)
    if remembered:
        assert await front.says(*shown(token)) == OK
    dpop = shown(token)[0]
    assert await front.says(bearer(token)) == BAD_TOKEN
    assert await front.says(bearer(token), shown(token)[1]) == BAD_TOKEN
    assert await front.says((b"cookie", f"session={token}".encode())) == BAD_TOKEN
    assert await front.says((b"cookie", f"session={token}".encode()), shown(token)[1]) == BAD_TOKEN
    assert await front.says(dpop) == BAD_PROOF
    assert await front.says(dpop, (b"dpop", b"")) == BAD_PROOF
    assert await front.says(dpop, shown(token)[1], shown(token)[1]) == BAD_PROOF
    assert await front.says(*shown(token, "POST")) == BAD_PROOF
    assert await front.says(*shown(token, url="https://testserver/")) == BAD_PROOF
    assert await front.says(*shown(token, url="http://testserver/other")) == BAD_PROOF
    assert await front.says(*shown(token, iat=1)) == BAD_PROOF
    assert await front.says(dpop, shown(bound(issuer))[1]) == BAD_PROOF
    assert await front.says(dpop, shown(token, key=ProofKey())[1]) == BAD_TOKEN
    assert await front.says(*shown(token)) == OK


@pytest.mark.parametrize("cnf", [None, {}, {"jkt": ""}, {"jkt": 1}, {"jkt": KEY.cnf["jkt"][1:]}, {"kid": "k"}, "x", []])
async def test_a_token_that_is_bound_to_no_key(issuer: LocalIssuer, cnf: object) -> None:
    """A token whose binding is missing, or says anything but a thumbprint, is proved by nothing."""
    token = issuer.token(cnf=cnf)
    assert await Front(issuer).says(*shown(token)) == BAD_TOKEN


@pytest.mark.parametrize("extra", [{"x5t#S256": "A" * 43}, {"jwk": {}}, {"kid": "k"}, {"new": "A" * 43}])
async def test_a_token_that_is_bound_to_more(issuer: LocalIssuer, extra: dict[str, Any]) -> None:
    """A token that is bound to a key, and to something of which nobody asks for a proof, is refused."""
    token = issuer.token(cnf={**KEY.cnf, **extra})
    assert await Front(issuer).says(*shown(token)) == BAD_TOKEN


@pytest.mark.parametrize(
    ("mode", "proved", "bare", "plain"),
    [
        ("off", (401, ""), BAD_TOKEN, OK),
        ("accept", OK, BAD_TOKEN, OK),
        ("require", OK, BAD_TOKEN, BAD_TOKEN),
    ],
)
async def test_modes(issuer: LocalIssuer, mode: str, proved: Any, bare: Any, plain: Any) -> None:
    """Bound tokens are taken where that is said, others where it is not said otherwise, and API keys in any case."""
    front = Front(issuer, mode, api_keys=[ROBOT])
    unbound = bearer(issuer.token())
    for _ in range(2):  # verified, then remembered
        assert await front.says(*shown(bound(issuer))) == proved
        assert await front.says(bearer(bound(issuer))) == bare
        assert await front.says(unbound) == plain
        assert await front.says((b"x-api-key", b"k")) == OK


@pytest.mark.parametrize("mode", ["off", "accept", "require"])
async def test_both_schemes_at_once(issuer: LocalIssuer, mode: str) -> None:
    """Two schemes in one request, in two lines or in one, are malformed, whichever of them is good."""
    front = Front(issuer, mode)
    token = bound(issuer)
    dpop, proof = shown(token)
    both = [(bearer(token), dpop), (dpop, bearer(token)), ((dpop[0], dpop[1] + b", " + bearer(token)[1]),)]
    both.append(((dpop[0], bearer(token)[1] + b", " + dpop[1]),))
    for headers in both:
        assert await front.says(*headers, proof) == (400, "invalid_request")


@pytest.mark.parametrize("value", [b"DPoP", b"dpop ", b"DPoP a b", b"Basic eA==, DPoP a", b"DPoP\ta", b"DPoP \xff"])
async def test_a_malformed_scheme(issuer: LocalIssuer, value: bytes) -> None:
    """What begins as a bound token, and is none, is malformed where such tokens are taken."""
    assert await Front(issuer).says((b"authorization", value)) == (400, "invalid_request")


async def test_challenges(issuer: LocalIssuer) -> None:
    """Each refusal asks for the schemes that are taken, and names the error with the scheme that was used wrongly."""
    token = bound(issuer)
    front = Front(issuer, routes=[Route("/pay", scopes=("pay",))])
    assert (await front.get()).headers["www-authenticate"].startswith(MISSING)
    required = (await Front(issuer, "require").get()).headers["www-authenticate"]
    assert required.startswith('DPoP algs="RS256 ')
    assert required.endswith(' EdDSA"')
    wrong = (await front.get(shown(token)[0])).headers["www-authenticate"]
    assert wrong.startswith('DPoP error="invalid_dpop_proof", algs="')
    assert "Bearer" not in wrong
    invalid = (await front.get(bearer(token))).headers["www-authenticate"]
    assert invalid.startswith('Bearer error="invalid_token", DPoP error="invalid_token", algs="')
    scope = await front.get(*shown(token, url=URL + "pay"), path="/pay")
    assert scope.status == 403
    assert 'DPoP error="insufficient_scope", scope="pay", algs="' in scope.headers["www-authenticate"]
    assert (await Front(issuer, "off").get()).headers["www-authenticate"] == "Bearer"


async def test_access_alone_says_what_was_wrong(issuer: LocalIssuer) -> None:
    """Where Access was not told of proofs, it says all the same that one was wrong."""
    layer = IdentityMiddleware(
        AccessMiddleware(Echo()),
        issuers=[issuer.accepted()],
        possession=Possession(dpop="accept", dpop_nonce_secret=SECRET),
    )
    exchange = await get(layer, "/", shown(bound(issuer))[:1])
    assert exchange.headers["www-authenticate"] == 'DPoP error="invalid_dpop_proof"'
    exchange = await get(layer, "/", shown(bound(issuer)))
    assert exchange.headers["www-authenticate"] == 'DPoP error="use_dpop_nonce"'
    assert "dpop-nonce" not in exchange.headers


async def test_optional_routes_take_no_bad_proof(issuer: LocalIssuer) -> None:
    """Whoever sends a bound token without a proof is refused, even where a stranger is let in."""
    front = Front(issuer, routes=[Route("/", auth="optional")])
    assert await front.says(shown(bound(issuer))[0]) == BAD_PROOF
    assert await front.says(bearer(bound(issuer))) == BAD_TOKEN
    assert await front.says() == OK


async def test_handshakes(issuer: LocalIssuer) -> None:
    """A WebSocket handshake is proved as a GET, by its own URL or by that of the HTTP request that it is."""
    front = Front(issuer)
    token = bound(issuer)
    for url, accepted in [
        ("ws://testserver/chat", True), ("http://testserver/chat", True), ("wss://testserver/chat", False),
    ]:  # fmt: skip
        request = shown(token, url=url)
        exchange = await call(front.layer, websocket_scope("/chat", request))
        assert (exchange.messages[0]["type"] == "websocket.accept") is accepted
        assert (await call(front.layer, websocket_scope("/chat", request))).status == 401
    assert (await call(front.layer, websocket_scope("/chat", [bearer(token)]))).status == 401


@pytest.mark.parametrize("store", [Fickle(mood="away"), Fickle(mood="deaf")])
async def test_nobody_passes_while_the_store_is_away(issuer: LocalIssuer, store: Fickle) -> None:
    """Where it cannot be told whether a proof was seen before, it counts as seen, and the client may come back."""
    front = Front(issuer, store=store)
    for _ in range(2):  # the key has to be fetched, then it is there
        assert await front.says(*shown(bound(issuer))) == AWAY
    exchange = await front.get(*shown(bound(issuer)))
    assert json.loads(exchange.body)["reason"] == "store_unavailable"
    assert int(exchange.headers["retry-after"]) >= 1
    assert await front.says(bearer(issuer.token())) == OK  # which asks nothing of the store


async def test_proofs_have_room_of_their_own(issuer: LocalIssuer) -> None:
    """A store in memory, which forgets buckets when it is full, is not asked to remember proofs."""
    front = Front(issuer, store=MemoryStore(max_keys=1))
    requests = [shown(bound(issuer)) for _ in range(4)]
    assert [await front.says(*request) for request in requests] == [OK] * 4
    assert [await front.says(*request) for request in requests] == [BAD_PROOF] * 4


async def test_the_store_is_let_go(issuer: LocalIssuer) -> None:
    """The layer closes the store when it shuts down: where there are no limits, nobody else would."""

    class Closing(Fickle):
        closed = 0

        async def aclose(self) -> None:
            self.closed += 1

    store = Closing()
    await Front(issuer, store=store).layer.shutdown()
    assert store.closed == 1
    await Front(issuer, "off", store=store).layer.shutdown()
    assert store.closed == 1


async def test_nobody_passes_while_there_is_no_room(issuer: LocalIssuer) -> None:
    """A worker that cannot remember more proofs takes no more, rather than forget one that could come again."""
    front = Front(issuer)
    front.possession._seen = SeenProofs(120, size=1)
    assert await front.says(*shown(bound(issuer))) == OK
    assert await front.says(*shown(bound(issuer))) == AWAY


async def test_nobody_passes_while_the_keys_are_away(issuer: LocalIssuer) -> None:
    """While the issuer cannot be asked for its keys, a proof is not used up."""
    front = Front(issuer, store=Fickle())
    request = shown(bound(issuer))
    issuer.outage = True
    assert await front.says(*request) == AWAY
    other = Front(issuer, store=front.possession.store)
    issuer.outage = False
    assert await other.says(*request) == OK


async def test_time_is_that_of_the_clock(issuer: LocalIssuer) -> None:
    """A proof is judged by the clock of the wall, and may be remembered no longer than it counts."""
    now = 1_900_000_000.0
    front = Front(issuer, clock=lambda: now)
    token = bound(issuer)
    request = shown(token, iat=now)
    assert await front.says(*shown(token)) == BAD_PROOF
    assert await front.says(*request) == OK
    now += 59
    assert await front.says(*request) == BAD_PROOF
    assert len(front.possession._seen) == 1
    now += 62
    assert await front.says(*shown(token, iat=now)) == OK
    assert len(front.possession._seen) == 1


@pytest.mark.parametrize("raw_path", [b"/a%2Fb", b"/a/b", b"", None])
async def test_a_proof_is_for_the_path_as_it_was_sent(issuer: LocalIssuer, raw_path: bytes | None) -> None:
    """A proof names the path as it stands in the request, or the decoded one where a server keeps no other."""
    front = Front(issuer)
    for url in (b"/a%2Fb", b"/a/b"):
        headers = shown(bound(issuer), url=f"http://testserver{url.decode()}")
        exchange = await get(front.layer, "/a/b", headers, raw_path=raw_path)
        assert exchange.status == (200 if url == (raw_path or b"/a/b") else 401)
