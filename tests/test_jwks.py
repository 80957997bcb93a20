"""The key engine: what it fetches, when, and what it refuses to believe."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from asgi_guard import jwks
from asgi_guard.errors import KeysUnavailableError, TokenError
from asgi_guard.jwks import MAX_BODY, KeyEngine, check_url
from asgi_guard.policy.keyring import KeyTimes
from asgi_guard.testing import DISCOVERY, JWKS, LocalIssuer, SigningKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RS256 = frozenset({"RS256"})
TIMES = KeyTimes()


class Clock:
    """Seconds, as they are told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(issuer: LocalIssuer, clock: Clock) -> KeyEngine:
    return KeyEngine(issuer.url, algorithms=RS256, client=issuer.client, clock=clock)


def kid(issuer: LocalIssuer) -> str:
    return issuer.published[-1].kid


class Site(ThreadingHTTPServer):
    """A server on loopback with one answer a path: a status, headers and a body."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.asked: list[str] = []

    def put(self, path: str, document: Any, status: int = 200, **headers: str) -> str:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[path] = status, named, body
        return self.url + path


class _Answer(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        status, headers, body = self.server.answers.get(self.path, (404, {}, b"{}"))
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Say nothing."""


@contextmanager
def serving() -> Iterator[Site]:
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as server:
        yield server


async def test_discovery(issuer: LocalIssuer, engine: KeyEngine) -> None:
    """The keys are found by discovery, fetched once, and then at hand without a wait."""
    assert engine.keys is None
    key = await engine.obtain(kid(issuer), "RS256")
    assert engine.peek(kid(issuer), "RS256") is key
    assert key.kid == kid(issuer)
    assert issuer.fetches == {DISCOVERY: 1, JWKS: 1}
    await engine.check()
    assert issuer.fetches == {DISCOVERY: 1, JWKS: 1}


async def test_served(issuer: LocalIssuer) -> None:
    """Over a socket, with the client that is used unless another is given, it is the same."""
    with issuer.serve():
        engine = KeyEngine(issuer.url, algorithms=RS256)
        assert (await engine.obtain(kid(issuer), "RS256")).kid == kid(issuer)
        assert issuer.fetches == {DISCOVERY: 1, JWKS: 1}


async def test_jwks_url(site: Site, signing_key: SigningKey) -> None:
    """With the keys' address given, nothing is discovered; it may have a query."""
    url = site.put("/keys?p=policy", {"keys": [signing_key.jwk]})
    engine = KeyEngine(site.url, url, algorithms=RS256)
    assert (await engine.obtain(None, "RS256")).kid == signing_key.kid
    assert site.asked == ["/keys?p=policy"]


async def unavailable(engine: KeyEngine) -> None:
    with pytest.raises(KeysUnavailableError) as caught:
        await engine.obtain("any", "RS256")
    assert caught.value.retry_after > 0
    with pytest.raises(KeysUnavailableError):
        await engine.check()


JWK: dict[str, Any] = {"keys": []}


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"issuer": "https://evil.example", "jwks_uri": "KEYS"}, "another issuer"),
        ({"issuer": "ISSUER/", "jwks_uri": "KEYS"}, "another issuer"),
        ({"jwks_uri": "KEYS"}, "another issuer"),
        ([], "another issuer"),
        ({"issuer": "ISSUER"}, "no jwks_uri"),
        ({"issuer": "ISSUER", "jwks_uri": 5}, "no jwks_uri"),
        ({"issuer": "ISSUER", "jwks_uri": "http://keys.example/jwks"}, "use https"),
        ({"issuer": "ISSUER", "jwks_uri": "file:///etc/passwd"}, "plain URL"),
        ({"issuer": "ISSUER", "jwks_uri": "https://user:secret@keys.example/jwks"}, "plain URL"),
    ],
)
async def test_bad_discovery(site: Site, document: Any, told: str, caplog: pytest.LogCaptureFixture) -> None:
    """A discovery document that names another issuer, or keys where none may be, leads to no fetch of keys."""
    text = json.dumps(document).replace("ISSUER", site.url).replace("KEYS", f"{site.url}/keys")
    site.put(DISCOVERY, text.encode())
    await unavailable(KeyEngine(site.url, algorithms=RS256))
    assert site.asked == [DISCOVERY]
    assert told in caplog.text
    assert "secret" not in caplog.text


def big(jwk: dict[str, Any]) -> bytes:
    return json.dumps({"keys": [jwk], "padding": "x" * MAX_BODY}).encode()


@pytest.mark.parametrize(
    ("make", "status", "told"),
    [
        (big, 200, "more than"),
        (lambda jwk: b"<html>", 200, "JSONDecodeError"),
        (lambda jwk: b"\xff\xfe\xff", 200, "UnicodeDecodeError"),
        (lambda jwk: b"", 200, "JSONDecodeError"),
        (lambda jwk: b"[" * 100_000, 200, "nested too deep"),
        (lambda jwk: json.dumps([jwk]).encode(), 200, "not a JWK set"),
        (lambda jwk: json.dumps({"keys": [jwk] * 101}).encode(), 200, "101 keys"),
        (lambda jwk: b'{"keys": []}', 200, "it is empty"),
        (lambda jwk: json.dumps({"keys": [{**jwk, "use": "enc"}]}).encode(), 200, "use"),
        (lambda jwk: json.dumps({"keys": [jwk]}).encode(), 500, "answered 500"),
        (lambda jwk: json.dumps({"keys": [jwk]}).encode(), 201, "answered 201"),
    ],
)
async def test_bad_keys(
    site: Site,
    signing_key: SigningKey,
    make: Callable[[dict[str, Any]], bytes],
    status: int,
    told: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is no set of usable keys, of a bounded size, leaves the keys unavailable, and the log says why."""
    url = site.put("/keys", make(signing_key.jwk), status)
    await unavailable(KeyEngine(site.url, url, algorithms=RS256))
    assert told in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_a_redirect_is_not_followed(site: Site, signing_key: SigningKey) -> None:
    """A redirect is a failure, and its target is not asked."""
    target = site.put("/real", {"keys": [signing_key.jwk]})
    engine = KeyEngine(site.url, site.put("/keys", b"", 302, location=target), algorithms=RS256)
    await unavailable(engine)
    assert site.asked == ["/keys"]


async def test_a_connection_refused() -> None:
    """A server that is not there leaves the keys unavailable."""
    with serving() as site:
        url = site.url
    await unavailable(KeyEngine(url, algorithms=RS256))


async def test_a_fault_of_the_clients(issuer: LocalIssuer, caplog: pytest.LogCaptureFixture) -> None:
    """A client that fails in a way of its own leaves the keys unavailable, and is logged with its traceback."""

    def client() -> httpx.AsyncClient:
        raise ZeroDivisionError

    await unavailable(KeyEngine(issuer.url, algorithms=RS256, client=client))
    assert "ZeroDivisionError" in caplog.text


async def test_slow(issuer: LocalIssuer, engine: KeyEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """An issuer that takes too long is given up, and counts as not reached."""
    monkeypatch.setattr(jwks, "TIMEOUT", 0.01)
    issuer.slow = 3600
    await unavailable(engine)
    assert issuer.fetches == {}


async def test_an_odd_key_does_not_take_the_others_down(
    site: Site, signing_key: SigningKey, caplog: pytest.LogCaptureFixture
) -> None:
    """A key that cannot be used is passed over and reported."""
    url = site.put("/keys", {"keys": [{"kty": "oct", "k": "secret"}, signing_key.jwk]})
    engine = KeyEngine(site.url, url, algorithms=RS256)
    assert (await engine.obtain(None, "RS256")).kid == signing_key.kid
    assert "not used: key 1" in caplog.text


@pytest.mark.parametrize(
    ("control", "life"),
    [
        ("", TIMES.ttl),
        ("max-age=600", 600),
        ("public, max-age=600, must-revalidate", 600),
        ("max-age=1", TIMES.min_ttl),
        ("max-age=999999999", TIMES.max_ttl),
        ("s-maxage=600", TIMES.ttl),
        ("max-age=soon", TIMES.ttl),
    ],
)
async def test_cache_control(site: Site, signing_key: SigningKey, clock: Clock, control: str, life: float) -> None:
    """Keys live as long as the issuer says, within bounds."""
    url = site.put("/keys", {"keys": [signing_key.jwk]}, cache_control=control)
    engine = KeyEngine(site.url, url, algorithms=RS256, clock=clock)
    await engine.obtain(None, "RS256")
    clock.now += life - TIMES.refresh_ahead / 2 - 1 if life == TIMES.min_ttl else life - TIMES.refresh_ahead - 1
    assert engine.peek(None, "RS256") is not None
    assert len(site.asked) == 1
    clock.now += 1
    assert engine.peek(None, "RS256") is not None
    await engine.refresh()
    assert len(site.asked) == 2


async def test_cold_herd(issuer: LocalIssuer, engine: KeyEngine) -> None:
    """However many requests come before there are keys, they are fetched once."""
    keys = await asyncio.gather(*(engine.obtain(kid(issuer), "RS256") for _ in range(200)))
    assert {key.kid for key in keys} == {kid(issuer)}
    assert issuer.fetches[JWKS] == 1


async def test_flood_of_unknown_keys(issuer: LocalIssuer, engine: KeyEngine, clock: Clock) -> None:
    """A flood of made-up key ids costs one fetch a cooldown, and keeps nobody else from being verified."""
    await engine.obtain(kid(issuer), "RS256")
    clock.now += TIMES.cooldown
    for number in range(1000):
        with pytest.raises(TokenError) as caught:
            await engine.obtain(f"made-up-{number}", "RS256")
        assert caught.value.reason == "unknown_key"
    assert issuer.fetches[JWKS] == 2
    assert (await engine.obtain(kid(issuer), "RS256")).kid == kid(issuer)


async def test_flood_during_an_outage(issuer: LocalIssuer, engine: KeyEngine, clock: Clock) -> None:
    """The same flood while the issuer is away costs no more, for failed tries count."""
    await engine.obtain(kid(issuer), "RS256")
    issuer.outage = True
    clock.now += TIMES.cooldown
    for number in range(1000):
        with pytest.raises(TokenError):
            await engine.obtain(f"made-up-{number}", "RS256")
    assert issuer.fetches[DISCOVERY] == 2


async def test_rotation(issuer: LocalIssuer, engine: KeyEngine, clock: Clock) -> None:
    """A token of a key that was just rotated in is verified once the cooldown is over, and the old keys are gone."""
    first = await engine.obtain(kid(issuer), "RS256")
    before = engine.keys
    old = kid(issuer)
    issuer.rotate()
    clock.now += TIMES.cooldown
    assert (await engine.obtain(kid(issuer), "RS256")).kid == kid(issuer) != first.kid
    assert engine.keys is not before
    with pytest.raises(TokenError):
        await engine.obtain(old, "RS256")


async def test_the_same_keys_again(issuer: LocalIssuer, engine: KeyEngine) -> None:
    """Keys that have not changed stay the same object, so that what they verified stays verified."""
    await engine.refresh()
    keys = engine.keys
    await engine.refresh()
    assert issuer.fetches[JWKS] == 2
    assert engine.keys is keys


async def test_refresh_in_the_background(issuer: LocalIssuer, engine: KeyEngine, clock: Clock) -> None:
    """Keys that are due are used at once, while they are fetched anew."""
    await engine.obtain(kid(issuer), "RS256")
    clock.now += TIMES.ttl - TIMES.refresh_ahead
    assert engine.peek(kid(issuer), "RS256") is not None
    assert engine.peek(kid(issuer), "RS256") is not None
    await engine.refresh()
    assert issuer.fetches[JWKS] == 2


async def test_outage(issuer: LocalIssuer, engine: KeyEngine, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """In an outage the old keys verify for an hour past their life, and its beginning and end are logged once each."""
    await engine.obtain(kid(issuer), "RS256")
    issuer.outage = True
    ends = clock.now + TIMES.ttl + TIMES.stale_for
    while clock.now < ends - 60:
        assert await engine.obtain(kid(issuer), "RS256") is not None
        await engine.check()
        await engine.refresh()
        clock.now += 60
    clock.now = ends
    assert engine.keys is None
    await unavailable(engine)
    issuer.outage = False
    clock.now += TIMES.max_backoff
    assert (await engine.obtain(kid(issuer), "RS256")).kid == kid(issuer)
    levels = [record.levelname for record in caplog.records if record.name == "asgi_guard"]
    assert levels == ["ERROR", "WARNING"]


async def test_backoff(issuer: LocalIssuer, engine: KeyEngine, clock: Clock) -> None:
    """While there are no keys, tries are made ever more rarely, and the wait is told."""
    issuer.outage = True
    for wait in (1, 2, 4, 8, 16, 32, 60, 60):
        before = issuer.fetches.get(DISCOVERY, 0)
        for _ in range(20):
            with pytest.raises(KeysUnavailableError) as caught:
                await engine.obtain(kid(issuer), "RS256")
            assert 0 < caught.value.retry_after <= wait
        assert issuer.fetches[DISCOVERY] == before + 1
        clock.now += wait


async def test_no_backoff_at_all(issuer: LocalIssuer) -> None:
    """A request waits for one failed fetch only, even where the next one is due at once."""
    issuer.outage = True
    engine = KeyEngine(issuer.url, algorithms=RS256, client=issuer.client, times=KeyTimes(first_backoff=0))
    with pytest.raises(KeysUnavailableError):
        await engine.obtain(kid(issuer), "RS256")
    assert issuer.fetches[DISCOVERY] == 1


async def test_a_cancelled_waiter(issuer: LocalIssuer, engine: KeyEngine) -> None:
    """A request that is cancelled while it waits leaves the fetch to the others."""
    leaving, staying = (asyncio.create_task(engine.obtain(kid(issuer), "RS256")) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await staying).kid == kid(issuer)
    assert leaving.cancelled()
    assert issuer.fetches[JWKS] == 1


async def test_close(issuer: LocalIssuer, engine: KeyEngine, clock: Clock) -> None:
    """Closing gives up the fetch under way; the engine can be used again."""
    await engine.aclose()
    issuer.slow = 3600
    waiting = asyncio.create_task(engine.obtain(kid(issuer), "RS256"))
    await asyncio.sleep(0)
    await engine.aclose()
    await asyncio.gather(waiting, return_exceptions=True)
    issuer.slow = 0
    clock.now += TIMES.first_backoff
    assert (await engine.obtain(kid(issuer), "RS256")).kid == kid(issuer)


def test_another_event_loop(issuer: LocalIssuer, engine: KeyEngine, clock: Clock) -> None:
    """A fetch that was left behind in another event loop is waited for by nobody."""
    issuer.slow = 3600

    async def leave_behind() -> None:
        engine.peek(None, "RS256")
        task = asyncio.create_task(engine.refresh())
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(leave_behind())
    issuer.slow = 0
    clock.now += TIMES.max_backoff

    async def again() -> str | None:
        return (await engine.obtain(None, "RS256")).kid

    assert asyncio.run(again()) == kid(issuer)


async def test_ambiguous(site: Site, signing_key: SigningKey) -> None:
    """A token that two keys fit is refused rather than tried by both."""
    url = site.put("/keys", {"keys": [signing_key.jwk, {**signing_key.jwk, "kid": "other"}]})
    engine = KeyEngine(site.url, url, algorithms=RS256)
    with pytest.raises(TokenError, match="ambiguous_key"):
        await engine.obtain(None, "RS256")


@pytest.mark.parametrize(
    "url",
    [
        "https://issuer.example",
        "https://issuer.example:8443/realms/a",
        "http://localhost:8080",
        "http://issuer.localhost",
        "http://127.0.0.1:1",
        "http://[::1]:1/a",
    ],
)
def test_url(url: str) -> None:
    """Keys come over https, and over http from this machine."""
    assert check_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "issuer.example",
        "https://",
        "https:///path",
        "http://issuer.example",
        "http://127.0.0.1.example",
        "http://localhost.example",
        "http://10.0.0.1",
        "ftp://issuer.example",
        "https://user@issuer.example",
        "https://user:pw@issuer.example",
        "https://issuer.example/#a",
        "https://issuer.example/?a=b",
        "https://[::1",
    ],
)
def test_bad_url(url: str) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError, match=r"."):
        check_url(url)
