"""What the browser's rules add to a request, beside Starlette's: in this process, by raw ASGI, without a server.

Every round calls each app in turn, so that whatever slows the machine down slows them all down. What is told is the
median, over the rounds, of an app's time less the bare app's in the same round.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from starlette.middleware.cors import CORSMiddleware as StarletteCORS

from asgi_guard import CORSMiddleware, SecurityHeadersMiddleware
from asgi_guard.layer import Chain, Layer
from benchmarks.calls import Idle, timed
from benchmarks.figures import Figure, Suite
from benchmarks.interval import Interval
from benchmarks.rounds import CLOCK, COLLECTOR, interleave, one_core
from benchmarks.sheet import Sheet, plain
from benchmarks.subjects import raw, request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asgi_guard.asgi import ASGIApp, Header

ORIGIN = "https://app.example.com"
BARE = "the app alone"
COMMAS = 64 * 1024
_ACRM = (b"access-control-request-method", b"PUT")


def scope(method: str, *headers: Header) -> dict[str, Any]:
    """A browser's request, or its preflight, as servers make its scope."""
    made = request("x")
    return {**made, "method": method, "headers": [*made["headers"], *headers]}


REQUESTS = {
    "actual request": scope("GET"),
    "preflight": scope("OPTIONS", _ACRM, (b"access-control-request-headers", b"content-type,x-a")),
    "preflight with 64 KiB of commas": scope("OPTIONS", _ACRM, (b"access-control-request-headers", b"," * COMMAS)),
}


def apps() -> dict[str, ASGIApp]:
    """The bare app, and what is measured around it."""
    options: dict[str, Any] = {
        "allow_origins": [ORIGIN], "allow_methods": ["PUT"], "allow_headers": ["content-type", "x-a"],
        "allow_credentials": True, "expose_headers": ["x-request-id"], "max_age": 600,
    }  # fmt: skip
    cors, security, idle = CORSMiddleware(raw, **options), SecurityHeadersMiddleware(raw), Idle(raw)

    def chain(*layers: Layer) -> ASGIApp:
        return Chain(raw, layers)

    return {
        BARE: raw,
        "a layer that does nothing": idle,
        "CORS": cors,
        "Starlette's CORS": StarletteCORS(raw, **options),
        "SecurityHeaders": security,
        "CORS and SecurityHeaders": chain(security, cors),
    }


def _turn(app: ASGIApp, what: str, calls: int) -> Callable[[], Awaitable[float]]:
    # Starlette takes milliseconds for the commas: fewer of those show as much.
    count = max(1, calls // 10) if "commas" in what else calls
    return lambda: timed(app, REQUESTS[what], count)


async def _measure(seconds: float, calls: int, advance: Callable[[float], None]) -> list[Figure]:
    measured = apps()
    wanted = [(what, name) for what in REQUESTS for name in measured if what == "actual request" or "CORS" in name]
    wanted += [(what, BARE) for what in REQUESTS if (what, BARE) not in wanted]
    turns = {(what, name): _turn(measured[name], what, calls) for what, name in wanted}
    times = await interleave(turns, seconds, advance)
    base = {what: times[what, BARE] for what in REQUESTS}
    return [
        Figure((what, name), "us", Interval.of([a - b for a, b in zip(taken, base[what], strict=True)]))
        for (what, name), taken in times.items()
        if name != BARE
    ]


def measure(seconds: float, calls: int, advance: Callable[[float], None]) -> Suite:
    """Measure every app with every sort of request.

    Args:
        seconds: for how long; three rounds are made at the least.
        calls: requests to each app in a round.
        advance: is told the seconds that have passed since it was told last.
    """
    with one_core() as core:
        figures = asyncio.run(_measure(seconds, calls, advance))
    return Suite("browser", figures, {"clock": CLOCK, "collector": COLLECTOR, "cores": core})


def sheets(suite: Suite) -> list[Sheet]:
    """The table."""
    who = suite.names(1)
    return [
        Sheet(
            "What the browser's rules add to a request, in microseconds", ("around the app",), list(REQUESTS),
            [[name, *(plain(suite.find(what, name)) for what in REQUESTS)] for name in who],
        )
    ]  # fmt: skip
