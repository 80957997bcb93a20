"""What the key engine promises, each promise by the fetches that an issuer counts."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import httpx
import pytest

from asgi_guard import (
    AccessMiddleware,
    AuthSettings,
    Guard,
    GuardSettings,
    IdentityMiddleware,
    LogSettings,
)
from asgi_guard.errors import AsgiGuardError, KeysUnavailableError, TokenError
from asgi_guard.identity.jwks import KeyEngine
from asgi_guard.policy.keyring import KeyTimes
from asgi_guard.testing import DISCOVERY, JWKS, LocalIssuer
from tests.asgi import Echo, Exchange, get
from tests.clock import Clock
from tests.end_to_end.serving import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from asgi_guard.asgi import ASGIApp

RS256 = frozenset({"RS256"})
TIMES = KeyTimes()
DAY = 86_400


def made_up(issuer: LocalIssuer) -> Callable[[int], str]:
    """Makes tokens with made-up key ids, by their number; signing each would tell nothing."""
    _, payload, signature = issuer.token(lifetime=DAY).split(".")

    def token(number: int) -> str:
        header = json.dumps({"alg": "RS256", "kid": f"made-up-{number}"}).encode()
        return f"{base64.urlsafe_b64encode(header).rstrip(b'=').decode()}.{payload}.{signature}"

    return token


async def ask(app: ASGIApp, token: str) -> Exchange:
    """What an app answers to a token."""
    return await get(app, headers=[(b"authorization", f"Bearer {token}".encode())])


def guarded(issuer: LocalIssuer) -> Guard:
    """A guard as the environment would make it, which reaches the issuer over its socket."""
    auth = AuthSettings(issuer=issuer.url, audience=(issuer.audience,))
    return Guard(Echo(), GuardSettings(auth=auth, log=LogSettings(format="off")))


def layered(issuer: LocalIssuer, clock: Clock, times: KeyTimes = TIMES) -> IdentityMiddleware:
    """The layers of identity around an app, with the keys' time told by a clock."""
    layer = IdentityMiddleware(AccessMiddleware(Echo()), issuers=[issuer.accepted()])
    engine = KeyEngine(issuer.url, algorithms=RS256, client=issuer.client, clock=clock, times=times)
    layer.tokens.verifiers[issuer.url] = replace(layer.tokens.verifiers[issuer.url], engine=engine)
    return layer


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("outage", ["never", "always", "now and then"])
async def test_made_up_key_ids_over_time(issuer: LocalIssuer, clock: Clock, warm: bool, outage: str) -> None:
    """Of 10,000 requests with made-up key ids, one in 30 s starts a fetch at most, with keys or without, up or down."""
    tries: list[float] = []

    def client() -> httpx.AsyncClient:
        tries.append(clock.now)
        return issuer.client()

    engine = KeyEngine(issuer.url, algorithms=RS256, client=client, clock=clock)
    if warm:
        await engine.refresh()
    begun = clock.now
    issuer.outage = outage == "always"
    for number in range(10_000):
        if outage == "now and then" and number % 700 == 0:
            issuer.outage = not issuer.outage
        with pytest.raises(AsgiGuardError) as caught:
            await engine.obtain(f"made-up-{number}", "RS256")
        judged = engine.keys is not None and not engine.status().failures
        assert isinstance(caught.value, TokenError if judged else KeysUnavailableError)
        clock.now += 0.5
    assert all(later - earlier >= TIMES.cooldown for earlier, later in pairwise(tries))
    assert len(tries) <= (clock.now - begun) / TIMES.cooldown + 1
    assert issuer.fetches[DISCOVERY] == len(tries) > 80


@pytest.mark.parametrize(("warm", "status"), [(True, 401), (False, 503)])
async def test_made_up_key_ids_in_an_outage(issuer: LocalIssuer, warm: bool, status: int) -> None:
    """Of 2,000 requests to a guarded app in an outage, one starts a fetch at most, until the cooldown is over."""
    with issuer.serve():
        guard, token, begun = guarded(issuer), made_up(issuer), time.monotonic()
        if warm:
            assert (await ask(guard, issuer.token())).status == 200
        issuer.outage = True
        seen: dict[int, int] = {}
        for number in range(2000):
            answered = (await ask(guard, token(number))).status
            seen[answered] = seen.get(answered, 0) + 1
        assert seen == {status: 2000}
        assert issuer.fetches[DISCOVERY] <= 1 + (time.monotonic() - begun) // TIMES.cooldown


async def test_made_up_key_ids_beside_real_users(issuer: LocalIssuer, clock: Clock) -> None:
    """A flood of made-up key ids gets no valid token refused, and no more fetches than the real users' refreshes."""
    layer, token, valid = layered(issuer, clock), made_up(issuer), issuer.token(lifetime=DAY)
    begun = clock.now
    for number in range(1000):
        assert (await ask(layer, valid)).status == 200
        assert (await ask(layer, token(number))).status == 401
        clock.now += 1
    assert issuer.fetches[JWKS] <= (clock.now - begun) / TIMES.cooldown + 1


async def test_a_cold_herd(issuer: LocalIssuer) -> None:
    """A thousand requests at once to a guarded app that has no keys yet start one fetch, and are all answered."""
    with issuer.serve():
        guard, token = guarded(issuer), issuer.token()
        exchanges = await asyncio.gather(*(ask(guard, token) for _ in range(1000)))
        assert {exchange.status for exchange in exchanges} == {200}
        assert issuer.fetches == {DISCOVERY: 1, JWKS: 1}


async def test_a_cold_herd_whose_waiters_leave(issuer: LocalIssuer) -> None:
    """Half of a thousand that wait may leave, the first one too: the others are answered by the one fetch."""
    layer, token = IdentityMiddleware(AccessMiddleware(Echo()), issuers=[issuer.accepted()]), issuer.token()
    issuer.slow = 0.05
    waiting = [asyncio.create_task(ask(layer, token)) for _ in range(1000)]
    await asyncio.sleep(0)
    for task in waiting[::2]:
        task.cancel()
    exchanges = await asyncio.gather(*waiting[1::2])
    assert {exchange.status for exchange in exchanges} == {200}
    assert all(task.cancelled() for task in waiting[::2])
    assert issuer.fetches == {DISCOVERY: 1, JWKS: 1}


async def test_an_outage_of_an_hour(issuer: LocalIssuer, clock: Clock) -> None:
    """With the issuer down until 59 min past the keys' life, no valid token is refused, and tries are few."""
    layer, valid = layered(issuer, clock), issuer.token(lifetime=DAY)
    assert (await ask(layer, valid)).status == 200
    issuer.outage = True
    ends = clock.now + TIMES.ttl + 59 * 60
    while clock.now <= ends:
        exchange = await ask(layer, issuer.token(lifetime=DAY) if clock.now % 600 == 0 else valid)
        assert (exchange.error, exchange.status) == (None, 200)
        await layer.tokens.check()
        clock.now += 10
    assert issuer.fetches[DISCOVERY] < 2 + (59 + 1) * 60 / TIMES.max_backoff * 2 + 6
    clock.now = ends + 60
    for _ in range(3):
        exchange = await ask(layer, valid)
        assert exchange.status == 503
        assert 1 <= int(exchange.headers["retry-after"]) <= TIMES.max_backoff
    issuer.outage = False
    clock.now += TIMES.max_backoff
    assert (await ask(layer, valid)).status == 200


async def test_no_stale_keys(issuer: LocalIssuer, clock: Clock) -> None:
    """Where stale keys are not to be used, a valid token is 503 from the moment that the keys' life is over."""
    layer, valid = layered(issuer, clock, KeyTimes(stale_for=0)), issuer.token(lifetime=DAY)
    assert (await ask(layer, valid)).status == 200
    issuer.outage = True
    clock.now += TIMES.ttl - 1
    assert (await ask(layer, valid)).status == 200
    clock.now += 1
    assert (await ask(layer, valid)).status == 503


async def test_a_quiet_hour(issuer: LocalIssuer, clock: Clock) -> None:
    """A key that was withdrawn while nobody asked is not used once more because its set is still at hand."""
    layer, valid = layered(issuer, clock), issuer.token(lifetime=DAY)
    assert (await ask(layer, valid)).status == 200
    issuer.rotate()
    clock.now += TIMES.ttl
    assert (await ask(layer, valid)).status == 401
    assert (await ask(layer, issuer.token())).status == 200


async def test_rotation(issuer: LocalIssuer, clock: Clock) -> None:
    """After the issuer has a new key, the first request off the cooldown is accepted, and so are all beside it."""
    layer, old = layered(issuer, clock), issuer.token(lifetime=DAY)
    assert (await ask(layer, old)).status == 200
    issuer.rotate(keep=True)
    new = issuer.token(lifetime=DAY)
    clock.now += TIMES.cooldown - 0.1
    assert (await ask(layer, new)).status == 401
    clock.now += 0.1
    exchanges = await asyncio.gather(*(ask(layer, new) for _ in range(100)))
    assert {exchange.status for exchange in exchanges} == {200}
    assert (await ask(layer, old)).status == 200
    assert issuer.fetches[JWKS] == 2


async def test_a_rotation_in_an_outage(issuer: LocalIssuer, clock: Clock) -> None:
    """While a new key cannot be fetched, a token by it is 503 with the time to wait, and never 401; others are good."""
    layer, old = layered(issuer, clock), issuer.token(lifetime=DAY)
    assert (await ask(layer, old)).status == 200
    issuer.rotate(keep=True)
    new, forged = issuer.token(lifetime=DAY), made_up(issuer)
    issuer.outage = True
    clock.now += TIMES.cooldown
    for later in range(10):
        for token in (new, forged(later)):
            exchange = await ask(layer, token)
            assert (exchange.status, "www-authenticate" in exchange.headers) == (503, False)
            assert b"keys_unavailable" in exchange.body
            assert int(exchange.headers["retry-after"]) == TIMES.cooldown - later
        assert (await ask(layer, old)).status == 200
        clock.now += 1
    assert issuer.fetches == {DISCOVERY: 2, JWKS: 1}
    issuer.outage = False
    clock.now += TIMES.cooldown - 10
    assert (await ask(layer, new)).status == 200
    assert (await ask(layer, forged(10))).status == 401


async def test_a_key_that_cannot_be_looked_for(issuer: LocalIssuer, clock: Clock) -> None:
    """What is said of such a token tells that the key may be new, and why it could not be looked for."""
    layer = layered(issuer, clock)
    await layer.startup()
    issuer.rotate()
    issuer.outage = True
    clock.now += TIMES.cooldown
    with pytest.raises(KeysUnavailableError, match=r"whether .* has a key of that kid .*: 1 key, 30 s old, .*503"):
        await layer.tokens.verify(issuer.token(lifetime=DAY).encode())


async def test_a_slow_issuer_does_not_stall_the_loop(issuer: LocalIssuer) -> None:
    """While an issuer takes five seconds to answer, the event loop goes on, and shut-down does not wait for it."""
    with issuer.serve():
        issuer.slow = 5
        guard = guarded(issuer)
        waiting = [asyncio.create_task(ask(guard, issuer.token())) for _ in range(10)]
        pauses = []
        before = begun = time.perf_counter()
        while before - begun < 1:
            await asyncio.sleep(0.001)
            pauses.append((now := time.perf_counter()) - before)
            before = now
        assert not any(task.done() for task in waiting)
        for layer in guard.layers:
            await layer.shutdown()
        assert {(await task).status for task in waiting} == {503}
    longest, middle = max(pauses) * 1000, sorted(pauses)[len(pauses) // 2] * 1000
    print(f"longest pause of the loop {longest:.1f} ms, median {middle:.1f} ms")  # noqa: T201 - for whoever asks by -s
    assert max(pauses) < 1, "a fetch that blocks would have stalled it for as long as it may take"


@pytest.mark.parametrize("failing", ["refused", "slow", "outage"])
async def test_unreachable(issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    """Without keys because the issuer cannot be reached, any token is 503 with the time to wait, and never 401."""
    monkeypatch.setattr("asgi_guard.identity.jwks.TIMEOUT", 0.05 if failing == "slow" else 3.0)
    with issuer.serve():
        issuer.slow = 5 if failing == "slow" else 0
        issuer.outage = failing == "outage"
        if failing == "refused":
            issuer.url = f"http://127.0.0.1:{free_port()}"
        guard = guarded(issuer)
        for token in (issuer.token(), made_up(issuer)(1), issuer.token(headers={"kid": None}), issuer.token()):
            exchange = await ask(guard, token)
            assert (exchange.error, exchange.status) == (None, 503)
            assert 1 <= int(exchange.headers["retry-after"]) <= TIMES.cooldown
            assert "www-authenticate" not in exchange.headers
            assert b"keys_unavailable" in exchange.body
        ready = await get(guard, "/health/ready")
        assert ready.status == 503


async def test_workers_do_not_ask_together(issuer: LocalIssuer, clock: Clock) -> None:
    """Engines that start in one moment find their keys due at moments of their own."""
    engines = [KeyEngine(issuer.url, algorithms=RS256, client=issuer.client, clock=clock) for _ in range(50)]
    await asyncio.gather(*(engine.refresh() for engine in engines))
    begun, started = clock.now, []
    for later in (239, 255, 270):
        clock.now = begun + later
        for engine in engines:
            assert engine.peek(None, "RS256") is not None
        fetches = [task for task in asyncio.all_tasks() if task.get_name() == "asgi-guard key fetch"]
        started.append(len(fetches))
        await asyncio.gather(*fetches)
    assert started[0] == 0
    assert 0 < started[1] < len(engines)
    assert sum(started) == len(engines)
