"""The key engine: when it fetches, who waits, and what outages and floods come to."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from asgi_guard.errors import KeysUnavailableError, TokenError
from asgi_guard.identity import jwks
from asgi_guard.identity.jwks import KeyEngine
from asgi_guard.policy.keyring import KeyTimes
from asgi_guard.testing import DISCOVERY, JWKS, LocalIssuer, SigningKey
from tests.clock import Clock

RS256 = frozenset({"RS256"})
TIMES = KeyTimes()


@pytest.fixture
def engine(issuer: LocalIssuer, clock: Clock) -> KeyEngine:
    return KeyEngine(issuer.url, algorithms=RS256, client=issuer.client, clock=clock, random=lambda: 0.0)


def kid(issuer: LocalIssuer) -> str:
    return issuer.published[-1].kid


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


@pytest.mark.parametrize("url", ["https://issuer.test/", "https://issuer.test/tenant", "https://issuer.test/tenant/"])
async def test_where_it_is_discovered(url: str, signing_key: SigningKey) -> None:
    """An issuer whose name ends in a slash is discovered as one whose does not: there is one slash, not two."""
    issuer = LocalIssuer(url, key=signing_key)
    engine = KeyEngine(url, algorithms=RS256, client=issuer.client)
    assert (await engine.obtain(kid(issuer), "RS256")).kid == kid(issuer)


async def unavailable(engine: KeyEngine) -> None:
    with pytest.raises(KeysUnavailableError) as caught:
        await engine.obtain("any", "RS256")
    assert caught.value.retry_after > 0
    with pytest.raises(KeysUnavailableError):
        await engine.check()


async def test_a_fault_of_the_clients(issuer: LocalIssuer, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A client that fails in a way of its own leaves the keys unavailable, and is logged with its traceback, once."""

    def client() -> httpx.AsyncClient:
        raise ZeroDivisionError

    engine = KeyEngine(issuer.url, algorithms=RS256, client=client, clock=clock)
    for _ in range(3):
        await unavailable(engine)
        clock.now += 60
    (record,) = caplog.records
    assert "ZeroDivisionError" in record.getMessage()
    assert record.exc_info is not None


async def test_slow(issuer: LocalIssuer, engine: KeyEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """An issuer that takes too long is given up, and counts as not reached."""
    monkeypatch.setattr(jwks, "TIMEOUT", 0.01)
    issuer.slow = 3600
    await unavailable(engine)
    assert issuer.fetches == {}


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
        with pytest.raises(KeysUnavailableError):
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
    clock.now += TIMES.ttl - TIMES.refresh_ahead - 1
    assert engine.peek(kid(issuer), "RS256") is not None
    await asyncio.sleep(0.01)
    assert issuer.fetches[JWKS] == 1
    clock.now += 1
    assert engine.peek(kid(issuer), "RS256") is not None
    assert engine.peek(kid(issuer), "RS256") is not None
    await engine.refresh()
    assert issuer.fetches[JWKS] == 2


async def test_outage(issuer: LocalIssuer, engine: KeyEngine, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """In an outage the old keys verify for an hour past their life; its stages are logged once each."""
    await engine.obtain(kid(issuer), "RS256")
    keys = engine.keys
    issuer.outage = True
    ends = clock.now + TIMES.ttl + TIMES.stale_for
    while clock.now < ends - 60:
        assert await engine.obtain(kid(issuer), "RS256") is not None
        await engine.check()
        await engine.refresh()
        assert engine.keys is keys  # so that what they verified stays verified
        clock.now += 60
    clock.now = ends
    assert engine.keys is None
    await unavailable(engine)
    issuer.outage = False
    clock.now += TIMES.max_backoff
    assert (await engine.obtain(kid(issuer), "RS256")).kid == kid(issuer)
    records = [record for record in caplog.records if record.name == "asgi_guard"]
    assert [record.levelname for record in records] == ["ERROR", "ERROR", "WARNING"]
    assert not any(record.exc_info for record in records)
    begun, ended, over = [record.getMessage() for record in records]
    assert f"1 key, 0 s old, fresh, of use for 3900 s more; failed tries: 1, the last one: {issuer.url}/" in begun
    assert "3900 s old, expired" in ended
    assert "503" in ended
    assert over.endswith("can be fetched again: 1 key, 0 s old, fresh")


async def test_backoff(issuer: LocalIssuer, engine: KeyEngine, clock: Clock) -> None:
    """While there are no usable keys, tries for a key known of old are made ever more rarely, and the wait is told."""
    await engine.refresh()
    issuer.outage = True
    clock.now += TIMES.ttl + TIMES.stale_for
    for wait in (1, 2, 4, 8, 16, 32, 60, 60):
        before = issuer.fetches[DISCOVERY]
        for _ in range(20):
            with pytest.raises(KeysUnavailableError) as caught:
                await engine.obtain(kid(issuer), "RS256")
            assert caught.value.retry_after == wait
        assert issuer.fetches[DISCOVERY] == before + 1
        clock.now += wait


async def test_backoff_at_start_up(issuer: LocalIssuer, engine: KeyEngine, clock: Clock) -> None:
    """Readiness tries by the backoff before there were any keys, and requests profit once it succeeds."""
    issuer.outage = True
    for number, wait in enumerate((1, 2, 4, 8, 16, 32, 60, 60), start=1):
        for _ in range(20):
            with pytest.raises(KeysUnavailableError) as caught:
                await engine.check()
            assert caught.value.retry_after == wait
        assert issuer.fetches[DISCOVERY] == number
        clock.now += wait
    issuer.outage = False
    await engine.check()
    assert engine.peek(kid(issuer), "RS256") is not None


async def test_readiness_does_not_wait_for_a_slow_issuer(issuer: LocalIssuer, engine: KeyEngine, clock: Clock) -> None:
    """With keys that could serve an outage, readiness asks for new ones in the background, and does not wait."""
    await engine.refresh()
    issuer.slow = 3600
    for later in (TIMES.ttl - TIMES.refresh_ahead, TIMES.stale_for):
        clock.now += later
        for _ in range(3):
            await engine.check()
    assert engine.status().state == "expired"
    await asyncio.sleep(0)
    await engine.aclose()
    assert engine.status().state == "stale"
    assert issuer.fetches[JWKS] == 1


async def test_readiness_keeps_the_keys_of_an_idle_app_fresh(
    issuer: LocalIssuer, engine: KeyEngine, clock: Clock
) -> None:
    """Where nothing but readiness is asked, keys are fetched before their end, so that no request waits for them."""
    await engine.refresh()
    for _ in range(60):
        clock.now += 10
        await engine.check()
        if engine.status().age == TIMES.ttl - TIMES.refresh_ahead:
            await engine.refresh()
        assert engine.status().state == "fresh"
    assert issuer.fetches[JWKS] == 3


async def test_no_cooldown_at_all(issuer: LocalIssuer) -> None:
    """Where every unknown key id may start a fetch, a token waits for one, and is told that its key is unknown."""
    engine = KeyEngine(issuer.url, algorithms=RS256, client=issuer.client, times=KeyTimes(cooldown=0))
    for number in range(1, 4):
        with pytest.raises(TokenError, match="unknown_key"):
            await engine.obtain("other", "RS256")
        assert issuer.fetches[JWKS] == number


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
    """Closing gives up the fetch under way: who waits for it is told so, and the engine can be used again."""
    await engine.aclose()
    issuer.slow = 3600
    waiting = [asyncio.create_task(engine.obtain(kid(issuer), "RS256")) for _ in range(3)]
    for _ in range(3):
        await asyncio.sleep(0)
    await engine.aclose()
    told = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(error) for error in told} == {KeysUnavailableError}
    assert engine.status().failure == "the fetch was given up"
    issuer.slow = 0
    clock.now += TIMES.cooldown
    assert (await engine.obtain(kid(issuer), "RS256")).kid == kid(issuer)


async def obtained(engine: KeyEngine) -> str | None:
    return (await engine.obtain(None, "RS256")).kid


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
    assert asyncio.run(obtained(engine)) == kid(issuer)


def test_another_event_loop_beside(issuer: LocalIssuer, engine: KeyEngine, clock: Clock) -> None:
    """Nor is one that another event loop, as that of another thread, has not come to the end of."""
    issuer.slow = 3600
    waiting: set[asyncio.Task[None]] = set()

    async def begin() -> None:
        waiting.add(asyncio.create_task(engine.refresh()))
        await asyncio.sleep(0)

    with asyncio.Runner() as other:
        other.run(begin())
        issuer.slow = 0
        clock.now += TIMES.cooldown
        assert asyncio.run(obtained(engine)) == kid(issuer)
