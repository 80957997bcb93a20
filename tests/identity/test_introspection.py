"""Asking an issuer about opaque tokens, over a real socket."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import time
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from asgi_guard.errors import KeysUnavailableError, TokenError
from asgi_guard.identity import introspection
from asgi_guard.identity.introspection import Introspection, Introspector
from asgi_guard.policy.introspection import IntrospectionPolicy, IntrospectionTimes
from tests.introspecting import CLIENT, OpaqueIssuer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


@pytest.fixture
def issuer() -> Iterator[OpaqueIssuer]:
    with OpaqueIssuer() as served:
        yield served


class Now:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Now:
    return Now()


@pytest.fixture
async def asked(issuer: OpaqueIssuer, clock: Now) -> AsyncIterator[Introspector]:
    policy = IntrospectionPolicy(issuer.origin, frozenset({"api"}))
    introspector = Introspector(issuer.url, *CLIENT, policy, clock=clock)
    yield introspector
    await introspector.aclose()


def introspecting(issuer: OpaqueIssuer, **options: Any) -> Introspector:
    return Introspector(issuer.url, *CLIENT, IntrospectionPolicy(issuer.origin, frozenset({"api"})), **options)


async def test_a_token_is_asked_about_once(issuer: OpaqueIssuer, asked: Introspector) -> None:
    """A token that is active names its user, and for a while nobody asks again."""
    token = issuer.token(scope="a b").encode()
    assert asked.peek(token) is None
    for _ in range(3):
        user = await asked.obtain(token)
        assert (user.subject, user.scopes, user.issuer) == ("alice", ("a", "b"), issuer.origin)
    assert asked.peek(token) is user
    assert issuer.asked == {"opaque-token": 1}


async def test_who_was_answered_waits_no_more(
    issuer: OpaqueIssuer, asked: Introspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room is for tokens that are asked about: one that was answered or refused, or sent away, makes room for the next.

    So does one that nobody waits for any more, once it is answered.
    """
    monkeypatch.setattr(introspection, "MAX_WAITING", 1)
    for each in range(3):
        assert (await asked.obtain(issuer.token(f"good {each}").encode())).subject == "alice"
        with pytest.raises(TokenError):
            await asked.obtain(b"unknown %d" % each)
        issuer.slow = 0.2
        leaving = asyncio.create_task(asked.obtain(issuer.token(f"slow {each}").encode()))
        await asyncio.sleep(0.01)
        with pytest.raises(KeysUnavailableError, match="wait to be asked about"):
            await asked.obtain(b"one too many")
        leaving.cancel()
        await asyncio.wait([leaving])
        with pytest.raises(KeysUnavailableError, match="wait to be asked about"):
            await asked.obtain(b"one too many")
        issuer.slow = 0
        assert (await asked.obtain(b"slow %d" % each)).subject == "alice"


async def test_who_waits_while_the_issuer_fails_does_not_ask_it(
    issuer: OpaqueIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens in line when the issuer is found to be away are not asked about one after another: it is left in peace."""
    monkeypatch.setattr(introspection, "MAX_ASKED", 1)
    asked = introspecting(issuer)
    issuer.outage = True
    found = await asyncio.gather(*(asked.obtain(b"token %d" % each) for each in range(10)), return_exceptions=True)
    assert {type(each) for each in found} == {KeysUnavailableError}
    assert sum(issuer.asked.values()) == 3
    await asked.aclose()


async def test_many_who_show_the_same_token_ask_once(issuer: OpaqueIssuer, asked: Introspector) -> None:
    """However many requests wait for the same answer, the issuer is asked once; who leaves takes nobody along."""
    token = issuer.token().encode()
    issuer.slow = 0.1
    tasks = [asyncio.create_task(asked.obtain(token)) for _ in range(50)]
    await asyncio.sleep(0.02)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [getattr(result, "subject", None) for result in results[1::2]] == ["alice"] * 25
    assert issuer.asked == {"opaque-token": 1}


async def test_requests_with_one_token_take_one_place(
    issuer: OpaqueIssuer, clock: Now, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many requests wait with the same token, known or not, they keep no other from being asked about."""
    monkeypatch.setattr(introspection, "MAX_WAITING", 2)
    asked = introspecting(issuer, clock=clock)
    one, another = (issuer.token(name).encode() for name in ("one", "another"))
    for ahead in (0, 61):
        clock.ahead, issuer.slow = ahead, 0.1
        waiting = [asyncio.create_task(asked.obtain(one)) for _ in range(50)]
        await asyncio.sleep(0.01)
        assert (await asked.obtain(another)).subject == "alice"
        assert {user.subject for user in await asyncio.gather(*waiting)} == {"alice"}
    assert issuer.asked == {"one": 2, "another": 2}
    await asked.aclose()


async def test_a_refused_token_is_not_asked_about_again_and_again(
    issuer: OpaqueIssuer, asked: Introspector, clock: Now
) -> None:
    """A token that is not active is refused without asking for ten seconds, and may be active afterwards."""
    for _ in range(3):
        with pytest.raises(TokenError) as caught:
            await asked.obtain(b"unknown")
        assert caught.value.reason == "inactive"
    assert issuer.asked == {"unknown": 1}
    issuer.token("unknown")
    clock.ahead = 11
    assert (await asked.obtain(b"unknown")).subject == "alice"


async def test_a_revoked_token_is_refused_within_a_minute(
    issuer: OpaqueIssuer, asked: Introspector, clock: Now
) -> None:
    """A token that the issuer has taken back is refused when its answer no longer counts."""
    token = issuer.token().encode()
    await asked.obtain(token)
    issuer.tokens.clear()
    clock.ahead = 61
    with pytest.raises(TokenError):
        await asked.obtain(token)


async def test_answers_count_for_as_long_as_is_said(issuer: OpaqueIssuer, clock: Now) -> None:
    """Where other times are said, answers of either sort count for these, and in an outage no longer than that."""
    asked = introspecting(issuer, times=IntrospectionTimes(positive=50, negative=20, stale_for=30), clock=clock)
    token = issuer.token(exp=time.time() + 9999).encode()
    for clock.ahead, count in ((0, 1), (40, 1), (60, 2)):
        await asked.obtain(token)
        assert issuer.asked["opaque-token"] == count
    for clock.ahead, count in ((60, 1), (70, 1), (90, 2)):
        with pytest.raises(TokenError):
            await asked.obtain(b"unknown")
        assert issuer.asked["unknown"] == count
    issuer.outage, clock.ahead = True, 130
    assert (await asked.obtain(token)).subject == "alice"
    clock.ahead = 150
    with pytest.raises(KeysUnavailableError):
        await asked.obtain(token)
    await asked.aclose()


async def test_each_probe_that_fails_doubles_the_wait(issuer: OpaqueIssuer, asked: Introspector) -> None:
    """An issuer that stays away is asked ever more seldom, and who is refused is told when it is asked again."""
    issuer.outage = True
    for index in range(5):
        if asked._breaker.is_open:
            asked._breaker._open_until = 0.0  # the wait is over
        with pytest.raises(KeysUnavailableError) as caught:
            await asked.obtain(b"failing-%d" % index)
    assert 2 < caught.value.retry_after <= 4
    assert sum(issuer.asked.values()) == 5


async def test_an_outage(
    issuer: OpaqueIssuer, asked: Introspector, clock: Now, caplog: pytest.LogCaptureFixture
) -> None:
    """While the issuer cannot be asked, known tokens are served for a while, and no other can be judged.

    It is left alone meanwhile, and the log has a line on the first failure, one when that begins and one when it ends.
    """
    token = issuer.token().encode()
    await asked.obtain(token)
    issuer.outage = True
    clock.ahead = 200
    assert (await asked.obtain(token)).subject == "alice"
    for index in range(20):
        with pytest.raises(KeysUnavailableError) as caught:
            await asked.obtain(b"new-%d" % index)
        assert caught.value.retry_after > 0
    assert sum(issuer.asked.values()) == 1 + 3
    assert (await asked.obtain(token)).subject == "alice"
    clock.ahead = 1000
    with pytest.raises(KeysUnavailableError):
        await asked.obtain(token)

    issuer.outage, clock.ahead = False, 0
    issuer.token("after")
    async with asyncio.timeout(10):
        while True:
            try:
                await asked.obtain(b"after")
                break
            except KeysUnavailableError:
                await asyncio.sleep(0.05)
    assert [record.levelname for record in caplog.records if record.name == "asgi_guard"] == [
        "WARNING", "ERROR", "WARNING"
    ]  # fmt: skip
    assert "opaque-token" not in caplog.text
    assert CLIENT[1] not in caplog.text + repr(asked)


@pytest.mark.parametrize(
    ("status", "raw"),
    [
        (200, b"not json"),
        (200, b"[" * 50_000),
        (200, b" " * (introspection.MAX_BODY + 1)),
        (302, b"{}"),
        (307, b"{}"),
        (500, b'{"active": true, "sub": "alice", "aud": "api", "token_type": "Bearer"}'),
        (200, b"\xff"),
    ],
    ids=["no json", "nested", "too large", "redirect", "redirect of all", "error", "no utf-8"],
)
async def test_answers_that_are_none(issuer: OpaqueIssuer, asked: Introspector, status: int, raw: bytes) -> None:
    """Whatever is no answer judges no token: it is unavailable, and never a refusal, and nobody else is asked."""
    issuer.status, issuer.raw = status, raw
    with pytest.raises(KeysUnavailableError):
        await asked.obtain(b"token")
    assert issuer.asked == {"token": 1}


async def test_an_endpoint_with_a_query(issuer: OpaqueIssuer) -> None:
    """Where tokens are asked about may have a query, which stands in no name of it."""
    given = Introspection(f"{issuer.url}?tenant=secret", *CLIENT, audience="api")
    asked = given.introspector()
    assert (await asked.obtain(issuer.token().encode())).issuer == issuer.origin
    assert "secret" not in repr(asked)
    await asked.aclose()


async def test_a_wrong_secret(issuer: OpaqueIssuer, caplog: pytest.LogCaptureFixture) -> None:
    """An endpoint that does not know this API is told with what to compare, at the first token, and no secret is."""
    policy = IntrospectionPolicy(issuer.origin, frozenset({"api"}))
    asked = Introspector(issuer.url, CLIENT[0], "hunter2", policy)
    with pytest.raises(KeysUnavailableError, match="answered 401: compare ASGI_GUARD_AUTH_INTROSPECTION_CLIENT_ID and"):
        await asked.obtain(issuer.token().encode())
    (record,) = [record for record in caplog.records if record.name == "asgi_guard"]
    assert "could not be asked about a token: it answered 401: compare" in record.getMessage()
    assert not any(secret in caplog.text for secret in ("hunter2", "opaque-token", "Basic"))
    await asked.aclose()


async def test_single_failures_are_told_now_and_then(
    issuer: OpaqueIssuer, asked: Introspector, caplog: pytest.LogCaptureFixture
) -> None:
    """However often an endpoint fails and answers again, the log has one line a minute on it, with the reason."""
    for index in range(5):
        issuer.outage = True
        with pytest.raises(KeysUnavailableError, match=r"cannot be asked: .* answered 503"):
            await asked.obtain(b"failing-%d" % index)
        issuer.outage = False
        await asked.obtain(issuer.token(f"answered-{index}").encode())
    (record,) = [record for record in caplog.records if record.name == "asgi_guard"]
    assert "answered 503" in record.getMessage()


@pytest.mark.parametrize("status", [400, 403, 413, 414, 422])
async def test_an_odd_token_shuts_nobody_out(
    issuer: OpaqueIssuer, asked: Introspector, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A token that the server, or a firewall before it, will not look at is unavailable itself, and no other is."""
    issuer.status = status
    for index in range(9):
        with pytest.raises(KeysUnavailableError, match=f"answered {status}"):
            await asked.obtain(b"..%d" % index)
    issuer.status = 200
    issuer.token("good")
    assert (await asked.obtain(b"good")).subject == "alice"
    (record,) = [record for record in caplog.records if record.name == "asgi_guard"]
    assert f"does not answer for a token: it answered {status}" in record.getMessage()


@pytest.mark.parametrize("status", [400, 403, 413, 414, 422])
async def test_a_known_token_that_is_not_answered_for(
    issuer: OpaqueIssuer, asked: Introspector, clock: Now, status: int
) -> None:
    """Once the issuer was asked and does not answer for a token, what it said of the token before does not count."""
    token = issuer.token().encode()
    await asked.obtain(token)
    clock.ahead, issuer.status = 61, status
    with pytest.raises(KeysUnavailableError, match=f"answered {status}"):
        await asked.obtain(token)
    issuer.outage = True
    assert (await asked.obtain(token)).subject == "alice"


async def test_a_slow_issuer_holds_nobody_longer_than_is_said(
    issuer: OpaqueIssuer, asked: Introspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An issuer that does not answer in time counts as one that does not answer."""
    monkeypatch.setattr(introspection, "TIMEOUT", 0.05)
    issuer.slow = 1
    with pytest.raises(KeysUnavailableError):
        await asked.obtain(b"token")


async def test_a_crowd_of_tokens_is_held_back(
    issuer: OpaqueIssuer, asked: Introspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More tokens than may wait cannot be judged, and those that wait are answered."""
    monkeypatch.setattr(introspection, "MAX_WAITING", 40)
    issuer.slow = 0.02
    results = await asyncio.gather(*(asked.obtain(b"t%d" % index) for index in range(60)), return_exceptions=True)
    kinds = [type(result) for result in results]
    assert kinds.count(TokenError) == 40
    assert sum(issubclass(kind, KeysUnavailableError) for kind in kinds) == 20
    assert len(issuer.asked) == 40


async def test_a_crowd_of_strangers_shuts_nobody_out(
    issuer: OpaqueIssuer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Tokens that wait too long for their turn are no failure of the issuer's, and keep no known token waiting."""
    # Whoever comes as the fortieth waits for longer than answers may take, and these take a tenth of that.
    monkeypatch.setattr(introspection, "MAX_ASKED", 4)
    monkeypatch.setattr(introspection, "TIMEOUT", 3.0)
    asked = introspecting(issuer, times=IntrospectionTimes(positive=0))
    known = issuer.token().encode()
    assert (await asked.obtain(known)).subject == "alice"
    issuer.slow = 0.3
    crowd = asyncio.gather(*(asked.obtain(b"t%d" % index) for index in range(60)), return_exceptions=True)
    await asyncio.sleep(0.05)
    assert (await asked.obtain(known)).subject == "alice"
    assert not crowd.done()
    kinds = [type(result) for result in await crowd]
    assert kinds.count(TokenError) + kinds.count(KeysUnavailableError) == 60
    assert kinds.count(KeysUnavailableError) > 0
    assert "cannot be asked" not in caplog.text
    assert (await asked.obtain(known)).subject == "alice"
    await asked.aclose()


async def test_a_slow_issuer_shuts_no_known_user_out(
    issuer: OpaqueIssuer, clock: Now, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where known tokens cannot all be asked about in time, what was said of them counts as in an outage, no longer."""
    monkeypatch.setattr(introspection, "MAX_ASKED", 1)
    monkeypatch.setattr(introspection, "MAX_WAITING", 8)
    asked = introspecting(issuer, clock=clock)
    tokens = [issuer.token(f"known-{each}", exp=time.time() + 3600).encode() for each in range(12)]
    for token in tokens:
        await asked.obtain(token)
    monkeypatch.setattr(introspection, "TIMEOUT", 1.0)
    clock.ahead, issuer.slow = 61, 0.6  # one is answered, and seven are asked about too late, if at all
    users = await asyncio.gather(*map(asked.obtain, tokens))
    assert [user.subject for user in users] == ["alice"] * 12
    (told,) = (record.getMessage() for record in caplog.records if "said before counts" in record.getMessage())
    assert "too many tokens" in told
    clock.ahead = 500
    late = await asyncio.gather(*map(asked.obtain, tokens), return_exceptions=True)
    assert sum(isinstance(each, KeysUnavailableError) for each in late) >= 4
    await asked.aclose()


async def test_a_token_that_the_issuer_ends_is_refused_though_others_wait(
    issuer: OpaqueIssuer, clock: Now, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the issuer has said that a token has ended, no crowd brings back what it said before."""
    monkeypatch.setattr(introspection, "MAX_WAITING", 1)
    asked = introspecting(issuer, clock=clock)
    ended, other = (issuer.token(name).encode() for name in ("ended", "other"))
    for token in (ended, other):
        await asked.obtain(token)
    del issuer.tokens["ended"]
    clock.ahead = 61
    with pytest.raises(TokenError):
        await asked.obtain(ended)
    issuer.slow = 0.2
    strangers = asyncio.create_task(asked.obtain(b"stranger"))
    waiting = asyncio.create_task(asked.obtain(other))
    await asyncio.sleep(0.01)
    clock.ahead = 72
    with pytest.raises(KeysUnavailableError, match="too many tokens"):
        await asked.obtain(ended)
    await asyncio.gather(strangers, waiting, return_exceptions=True)
    await asked.aclose()


async def test_one_stall_is_one_failure(issuer: OpaqueIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that were under way when the breaker opened do not keep it open for longer."""
    asked = introspecting(issuer)
    monkeypatch.setattr(introspection, "TIMEOUT", 0.1)
    issuer.slow = 0.5
    crowd = (asked.obtain(b"t%d" % index) for index in range(30))
    assert {type(error) for error in await asyncio.gather(*crowd, return_exceptions=True)} == {KeysUnavailableError}
    with pytest.raises(KeysUnavailableError) as caught:
        await asked.obtain(b"another")
    assert caught.value.retry_after <= asked._breaker.first_wait
    await asked.aclose()


async def test_a_token_that_is_too_large_is_not_asked_about(issuer: OpaqueIssuer, asked: Introspector) -> None:
    """A token beyond the size of tokens is refused here."""
    with pytest.raises(TokenError, match="8192"):
        await asked.obtain(b"a" * 9000)
    assert issuer.asked == {}


async def test_a_token_that_cannot_be_sent_is_nobody_elses_matter(
    issuer: OpaqueIssuer, asked: Introspector, caplog: pytest.LogCaptureFixture
) -> None:
    """A token that is not ASCII, as anybody can put one into a cookie, is refused, and is no failure of the issuer."""
    for index in range(9):
        with pytest.raises(TokenError) as caught:
            await asked.obtain(b"\xe9%d" % index)
        assert caught.value.reason == "malformed"
    assert (await asked.obtain(issuer.token().encode())).subject == "alice"
    assert caplog.text == ""


async def test_a_compressed_answer_is_not_inflated(issuer: OpaqueIssuer, asked: Introspector) -> None:
    """An answer that is compressed unasked is none: a small one could grow to any size."""
    issuer.raw, issuer.encoding = (
        gzip.compress(b'{"active": true, "sub": "alice", "aud": "api", "token_type": "Bearer"}'),
        "gzip",
    )
    with pytest.raises(KeysUnavailableError):
        await asked.obtain(b"token")
    issuer.encoding = "identity"
    issuer.raw = gzip.decompress(issuer.raw)
    assert (await asked.obtain(b"token")).subject == "alice"


async def test_an_outage_that_an_odd_token_ends_is_told_of(
    issuer: OpaqueIssuer, asked: Introspector, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever asks first when the issuer is back, the log says that it is."""
    issuer.outage = True
    for index in range(3):
        with pytest.raises(KeysUnavailableError):
            await asked.obtain(b"new-%d" % index)
    issuer.outage, issuer.status, issuer.raw = False, 403, b""
    async with asyncio.timeout(10):
        while "can be asked about tokens again" not in caplog.text:
            with pytest.raises(KeysUnavailableError):
                await asked.obtain(b"odd")
            await asyncio.sleep(0.05)


async def test_closing_gives_up_what_is_asked(issuer: OpaqueIssuer, asked: Introspector) -> None:
    """What is under way when it is closed is given up: who waits is told, and it can be used again."""
    issuer.slow = 0.3
    waiting = asyncio.create_task(asked.obtain(issuer.token().encode()))
    await asyncio.sleep(0.05)
    await asked.aclose()
    with pytest.raises(KeysUnavailableError, match="not asked any more"):
        await waiting
    issuer.slow = 0
    assert (await asked.obtain(b"opaque-token")).subject == "alice"


class Faulty(httpx.AsyncHTTPTransport):
    """A transport that fails as no transport of httpx does, while it is told to."""

    fault: Exception | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.fault is not None:
            raise self.fault
        return await super().handle_async_request(request)


@pytest.mark.parametrize("fault", [anyio.ClosedResourceError(), RuntimeError("odd"), ssl.SSLError("odd")])
async def test_whatever_a_client_fails_with(
    issuer: OpaqueIssuer, clock: Now, fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Any error of a client is an outage: answers of before count, and the issuer is left alone soon."""
    transport = Faulty()
    asked = introspecting(issuer, client=lambda: httpx.AsyncClient(transport=transport), clock=clock)
    token = issuer.token().encode()
    await asked.obtain(token)
    transport.fault, clock.ahead = fault, 61
    assert (await asked.obtain(token)).subject == "alice"
    for index in range(2):
        with pytest.raises(KeysUnavailableError, match="cannot be asked"):
            await asked.obtain(b"new-%d" % index)
    with pytest.raises(KeysUnavailableError, match="has failed lately"):
        await asked.obtain(b"another")
    assert f"cannot be asked about tokens: {type(fault).__name__}" in caplog.text
    assert ("Traceback" in caplog.text) is not isinstance(fault, OSError)  # told unless it is the network's
    await asked.aclose()


async def test_a_client_that_cannot_be_made(issuer: OpaqueIssuer, clock: Now) -> None:
    """That no client can be made is an outage too, until one can."""
    missing = [True, False, True]

    def client() -> httpx.AsyncClient:
        if missing.pop():
            raise FileNotFoundError(2, "No such file", "ca.pem")
        return httpx.AsyncClient()

    asked = introspecting(issuer, client=client, clock=clock)
    token = issuer.token().encode()
    with pytest.raises(KeysUnavailableError):
        await asked.obtain(token)
    assert (await asked.obtain(token)).subject == "alice"
    await asked.aclose()
    clock.ahead = 61
    assert (await asked.obtain(token)).subject == "alice"
    assert missing == []


async def test_a_client_that_is_closed(issuer: OpaqueIssuer, caplog: pytest.LogCaptureFixture) -> None:
    """Where somebody closes the client, another one is made; if that is closed too, the log says what is wrong."""
    made: list[httpx.AsyncClient] = []

    def client() -> httpx.AsyncClient:
        made.append(httpx.AsyncClient())
        return made[-1]

    asked = introspecting(issuer, client=client)
    for name in ("one", "and another"):
        await asked.obtain(issuer.token(name).encode())
    assert len(made) == 1
    await made[0].aclose()
    issuer.token("other")
    assert (await asked.obtain(b"other")).subject == "alice"
    assert len(made) == 2
    await asked.aclose()
    shared = introspecting(issuer, client=lambda: made[0])
    for index in range(3):
        with pytest.raises(KeysUnavailableError):
            await shared.obtain(b"new-%d" % index)
    assert "the client is closed: each call of http_client has to make a new one" in caplog.text


def test_it_serves_in_a_second_event_loop(issuer: OpaqueIssuer) -> None:
    """It is asked in one event loop after the other, each with connections of its own."""
    introspector = Introspector(
        issuer.url,
        *CLIENT,
        IntrospectionPolicy(issuer.origin, frozenset({"api"})),
        times=IntrospectionTimes(positive=0),
    )
    token = issuer.token().encode()

    async def use() -> str:
        user = await introspector.obtain(token)
        await introspector.aclose()
        return user.subject

    assert [asyncio.run(use()) for _ in range(2)] == ["alice", "alice"]


@pytest.mark.parametrize("make", [lambda url: url.replace("http", "ftp"), lambda _: "http://issuer.example/introspect"])
def test_only_https_is_spoken(issuer: OpaqueIssuer, make: Callable[[str], str]) -> None:
    """An endpoint that whoever is on the network could stand in for is refused."""
    with pytest.raises(ValueError, match="https"):
        Introspector(make(issuer.url), *CLIENT, IntrospectionPolicy(issuer.origin, frozenset({"api"})))
