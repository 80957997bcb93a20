"""All parts of the benchmark of tokens: cold, cached, hostile, and a rotated key."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from asgi_guard import IdentityMiddleware
from asgi_guard.errors import TokenError
from asgi_guard.policy.keyring import KeyTimes
from asgi_guard.testing import LocalIssuer
from benchmarks.auth import hostile, rotation
from benchmarks.auth.verifiers import PYJWT, SIGNATURE, absences, signature, verifiers
from benchmarks.calls import Idle, timed
from benchmarks.figures import Figure, Suite
from benchmarks.interval import Interval
from benchmarks.rounds import CLOCK, COLLECTOR, interleave, one_core
from benchmarks.sheet import Sheet, asked, both, ends, grid, plain
from benchmarks.subjects import raw, request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asgi_guard.asgi import ASGIApp, Scope
    from benchmarks.auth.verifiers import Verify

ALGORITHMS = ("RS256", "ES256", "EdDSA")
OURS = rotation.OURS
COLD, CACHED = "asgi-guard, a request", "asgi-guard, a request with a token seen before"
IDLE = "idle"
CALLS = 20
CHEAP = 200
"""Calls of what takes a few microseconds."""
OVERSIZED_ASKED = 20.0
"""Microseconds that an oversized token may cost."""
Turn = tuple[str, str, str]


def _verifying(identity: IdentityMiddleware, token: bytes) -> Callable[[], Awaitable[float]]:
    async def turn() -> float:
        started = time.process_time_ns()
        for _ in range(CALLS):
            await identity.tokens.verify(token)
        return (time.process_time_ns() - started) / CALLS / 1000

    return turn


def _calling(call: Callable[[], object]) -> Callable[[], Awaitable[float]]:
    async def turn() -> float:
        started = time.process_time_ns()
        for _ in range(CALLS):
            call()
        return (time.process_time_ns() - started) / CALLS / 1000

    return turn


def _requesting(app: ASGIApp, scope: Scope, calls: int = CALLS) -> Callable[[], Awaitable[float]]:
    return lambda: timed(app, scope, calls)


def _refused(verify: Verify, token: str) -> Callable[[], object]:
    def call() -> None:
        try:
            verify(token)
        except Exception:  # noqa: BLE001 - whatever a library refuses with is its own
            return
        raise AssertionError("a token was accepted that is to be refused")

    return call


async def _cold(algorithm: str) -> dict[Turn, Callable[[], Awaitable[float]]]:
    issuer: Any = LocalIssuer(algorithm=algorithm)  # type: ignore[arg-type]  # one of three names
    token: str = issuer.token(lifetime=3600)
    scope = request(token)
    cold = IdentityMiddleware(raw, issuers=[issuer.accepted()], cache_size=0)
    cached = IdentityMiddleware(raw, issuers=[issuer.accepted()])
    for app in (cold, cached):
        await app.startup()
        assert (await app.tokens.verify(token.encode())).subject == "alice"
        await timed(app, scope, CALLS)
    turns: dict[Turn, Callable[[], Awaitable[float]]] = {
        ("token", OURS, algorithm): _verifying(cold, token.encode()),
        ("token", SIGNATURE, algorithm): _calling(signature(issuer, token)),
        ("token", COLD, algorithm): _requesting(cold, scope),
        ("token", CACHED, algorithm): _requesting(cached, scope, CHEAP),
    }
    for name, verify in verifiers(issuer).items():
        verify(token)
        turns["token", name, algorithm] = _calling(lambda verify=verify: verify(token))  # type: ignore[misc]
    return turns


async def _hostile() -> dict[Turn, Callable[[], Awaitable[float]]]:
    issuer = LocalIssuer(algorithm="ES256")
    identity = IdentityMiddleware(raw, issuers=[issuer.accepted()])
    await identity.startup()
    beside = verifiers(issuer)
    turns: dict[Turn, Callable[[], Awaitable[float]]] = {}
    for what, token in hostile.tokens(issuer).items():
        scope = request(token)
        await _check_refused(identity, token)
        turns["hostile", what, OURS] = _requesting(identity, scope)
        for name, verify in beside.items():
            if what == "an unknown key":
                continue  # which key to take is not theirs to say
            turns["hostile", what, name] = _calling(_refused(verify, token))
    return turns


async def _check_refused(identity: IdentityMiddleware, token: str) -> None:
    """See to it that what will be timed leads to nobody."""
    try:
        await identity.tokens.verify(token.encode())
    except TokenError:
        return
    raise AssertionError("a hostile token was accepted")


async def _measure(seconds: float, rotations: int, advance: Callable[[float], None]) -> list[Figure]:
    turns = {(IDLE, "", ""): _requesting(Idle(raw), request("x"), CHEAP)}
    for algorithm in ALGORITHMS:
        turns |= await _cold(algorithm)
    turns |= await _hostile()
    times = await interleave(turns, seconds, advance)
    idle = times.pop((IDLE, "", ""))
    figures = []
    for name, taken in times.items():
        if name[1] in (COLD, CACHED) or (name[0] == "hostile" and name[2] == OURS):
            # What having any layer costs is no part of it.
            taken = [total - less for total, less in zip(taken, idle, strict=True)]
            times[name] = taken
        limit = OVERSIZED_ASKED if name[1:] == (hostile.OVERSIZED, OURS) else None
        figures.append(Figure(name, "us", Interval.of(taken), limit))
    for algorithm in ALGORITHMS:
        ours = times["token", OURS, algorithm]
        for other in (PYJWT, SIGNATURE):
            ratios = [one / two for one, two in zip(ours, times["token", other, algorithm], strict=True)]
            figures.append(Figure(("ratio", f"{OURS} / {other}", algorithm), "x", Interval.of(ratios)))
    return figures + await rotation.measure(rotations, lambda share: advance(share * rotations * 0.3))


def expected(seconds: float, rotations: int) -> float:
    """About how many seconds it takes."""
    return seconds + rotations * 0.3


def measure(seconds: float, rotations: int, advance: Callable[[float], None]) -> Suite:
    """Measure everything.

    Args:
        seconds: for tokens.
        rotations: of keys.
        advance: is told the seconds that have passed since it was told last.
    """
    with one_core() as core:
        figures = asyncio.run(_measure(seconds, rotations, advance))
    method = {
        "clock": CLOCK,
        "collector": COLLECTOR,
        "cores": core,
        "requests": "through the Identity layer, less a request through a layer that does nothing",
        "rotation": f"an issuer that takes {rotation.SLOW * 1000:.0f} ms to answer, {rotation.WAITING} requests with "
        "the new key and as many with the old one, at once",
    }
    return Suite("auth", figures, method, absences())


def _ends(suite: Suite, name: str) -> str:
    told = ends(figure.value for figure in suite.figures if figure.of[0] == name)
    return f"In parentheses {told}." if told else ""


def sheets(suite: Suite) -> list[Sheet]:
    """The tables."""
    ours = frozenset({OURS})
    told = {name: _ends(suite, name) for name in ("token", "ratio")}
    verified = Sheet(
        "Verifying a token, in microseconds", ("who",), ALGORITHMS, grid(suite, ("token",), ALGORITHMS, both),
        "Signature, issuer, audience and times checked; keys at hand. "
        f"'A request' is what the Identity layer adds to one. {told['token']}".strip(),
        ours,
    )  # fmt: skip
    ratio = Sheet(
        "The same, as ratios of one round", ("",), ALGORITHMS, grid(suite, ("ratio",), ALGORITHMS, both), told["ratio"]
    )
    who = suite.names(2, "hostile")
    refused = Sheet(
        "Refusing a hostile token, in microseconds", ("token",), who, grid(suite, ("hostile",), who),
        "asgi-guard: what the Identity layer adds to the request. PyJWT and joserfc: the call alone.",
    )  # fmt: skip
    asking = suite.names(2, "rotation")
    fetched = [f"{plain(suite.find('rotation', rotation.FETCHES, name))} by {name}" for name in asking]
    rotated = Sheet(
        "A key is rotated, in milliseconds", ("what",), asking,
        [row for row in grid(suite, ("rotation",), asking) if row[0] != rotation.FETCHES],
        f"{suite.method['rotation'].capitalize()}, without the cooldown of {KeyTimes().cooldown:.0f} s that both have "
        f"by default between fetches for unknown keys. {rotation.FETCHES.capitalize()} within it: "
        f"{', '.join(fetched)}; a key that is rotated in is refused within it, too.",
    )  # fmt: skip
    found = [verified, ratio, refused, rotated]
    wanted = asked(suite.figures)
    return [*found, wanted] if wanted else found
