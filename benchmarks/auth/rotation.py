"""What a rotated key holds up: requests that meet the new key, and everyone else in the same event loop meanwhile.

The issuer is a real server that takes its time. Beside ours PyJWT's own client of a JWK set, called in a coroutine, as
it mostly is: it fetches in the event loop's thread. Neither waits here before it looks for a key that it does not know.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import jwt

from asgi_guard import IdentityMiddleware
from asgi_guard.identity.issuer import Issuer
from asgi_guard.policy.keyring import KeyTimes
from asgi_guard.testing import LocalIssuer
from benchmarks import subjects
from benchmarks.auth.verifiers import PYJWT
from benchmarks.calls import send
from benchmarks.figures import Figure
from benchmarks.interval import Interval

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

OURS = "asgi-guard"
SLOW = 0.05
"""Seconds that the issuer takes to answer."""
WAITING = 32
"""Requests that come with the new key at once."""
UNKNOWN = 50
"""Tokens of as many key ids that nobody has."""
FETCHES = f"fetches for {UNKNOWN} unknown keys"
STILL, NEW, OLD = WHAT = (
    "the event loop stands still", "a request with the new key takes", "a request with the old key takes",
)  # fmt: skip
WAIT = {(OURS, NEW), (PYJWT, STILL), (PYJWT, NEW), (PYJWT, OLD)}
"""Whose time has the issuer's in it."""


async def _ours(issuer: LocalIssuer) -> Callable[[str], Awaitable[None]]:
    times = KeyTimes(cooldown=0)  # or the second round would have to wait for it
    accepted = Issuer(issuer.url, issuer.audience, jwks_url=f"{issuer.url}/jwks.json", times=times)
    app = IdentityMiddleware(subjects.raw, issuers=[accepted], cache_size=0)
    await app.startup()

    async def ask(token: str) -> None:
        await app(subjects.request(token), subjects.receive, send)

    return ask


async def _pyjwt(issuer: LocalIssuer, **options: Any) -> Callable[[str], Awaitable[None]]:
    keys = jwt.PyJWKClient(f"{issuer.url}/jwks.json", cache_keys=True, **options)

    async def ask(token: str) -> None:
        key = keys.get_signing_key_from_jwt(token)
        jwt.decode(token, key, algorithms=["ES256"], audience=issuer.audience, issuer=issuer.url)

    return ask


ASKING: dict[str, Any] = {OURS: _ours, PYJWT: partial(_pyjwt, cooldown_duration=0)}  # as for ours


async def _gap(until: asyncio.Event) -> float:
    """The longest time, in milliseconds, that the event loop did not come round."""
    longest, before = 0.0, time.perf_counter()
    while not until.is_set():
        await asyncio.sleep(0)
        now = time.perf_counter()
        longest, before = max(longest, now - before), now
    return longest * 1000


async def _rotated(issuer: LocalIssuer, ask: Callable[[str], Awaitable[None]]) -> tuple[float, float, float]:
    """Rotate, and let requests with both keys come: the loop's longest gap, and how long each sort took."""
    old = issuer.token(lifetime=3600)
    await ask(old)
    issuer.rotate(keep=True)
    new, over = issuer.token(lifetime=3600), asyncio.Event()
    gap = asyncio.create_task(_gap(over))
    await asyncio.sleep(0)
    began = time.perf_counter()

    async def taken(token: str) -> float:
        await ask(token)
        return (time.perf_counter() - began) * 1000

    pairs = [asyncio.create_task(taken(token)) for _ in range(WAITING) for token in (new, old)]
    times = await asyncio.gather(*pairs)
    over.set()
    return await gap, statistics.median(times[::2]), statistics.median(times[1::2])


async def _fetches(name: str) -> float:
    """Fetches that tokens of unknown key ids cause, once the keys are there."""
    issuer = LocalIssuer(algorithm="ES256")
    with issuer.serve():
        if name == OURS:
            accepted = Issuer(issuer.url, issuer.audience, jwks_url=f"{issuer.url}/jwks.json")
            app = IdentityMiddleware(subjects.raw, issuers=[accepted])
            await app.startup()
        else:
            ask = await _pyjwt(issuer)
        for number in range(UNKNOWN):
            token = issuer.token(headers={"kid": f"nobody's {number}"})
            if name == OURS:
                await app(subjects.request(token), subjects.receive, send)
            else:
                try:
                    await ask(token)
                except jwt.PyJWKClientError:
                    continue
    return issuer.fetches["/jwks.json"] - 1


async def measure(rounds: int, passed: Callable[[float], None]) -> list[Figure]:
    """Measure everyone, in turns.

    Args:
        rounds: how many keys are rotated.
        passed: is told which share is done, each time.
    """
    found: dict[tuple[str, str], list[float]] = {(name, what): [] for name in ASKING for what in WHAT}
    for number in range(rounds + 1):
        for name, make in ASKING.items():
            issuer = LocalIssuer(algorithm="ES256")
            with issuer.serve():
                ask = await make(issuer)
                await ask(issuer.token())
                issuer.slow = SLOW
                times = await _rotated(issuer, ask)
            if number:  # the first round warms up: imports, certificates, threads
                for what, value in zip(WHAT, times, strict=True):
                    found[name, what].append(value)
        passed(1 / (rounds + 1))
    figures = [
        Figure(("rotation", what, name), "ms", Interval.of(values), waits=SLOW * 1000 if (name, what) in WAIT else 0.0)
        for (name, what), values in found.items()
    ]
    fetched = {name: await _fetches(name) for name in ASKING}
    return figures + [
        Figure(("rotation", FETCHES, name), "calls", Interval.of([count])) for name, count in fetched.items()
    ]
