"""What the browser's rules add to a request, beside Starlette's: in this process, by raw ASGI, without a server.

Every round calls each app in turn, so that whatever slows the machine down slows them all down. What is told is the
median, over the rounds, of an app's time less the bare app's in the same round.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table
from starlette.middleware.cors import CORSMiddleware as StarletteCORS

from asgi_guard import CORSMiddleware, SecurityHeadersMiddleware
from asgi_guard.layer import Chain, Layer
from benchmarks.layers import Idle, bare, request, timed

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from asgi_guard.asgi import ASGIApp, Header

ORIGIN = "https://app.example.com"
COMMAS = 64 * 1024
_ACRM = (b"access-control-request-method", b"PUT")


@dataclass(frozen=True, slots=True)
class Figure:
    """What one app adds to one sort of request, in microseconds.

    Attributes:
        what: the sort of request.
        app: whose middleware is around the app.
        added: the median of what it takes more than the app alone.
    """

    what: str
    app: str
    added: float


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
    cors, security, idle = CORSMiddleware(bare, **options), SecurityHeadersMiddleware(bare), Idle(bare)

    def chain(*layers: Layer) -> ASGIApp:
        return Chain(bare, layers)

    return {
        "the app alone": bare,
        "a layer that does nothing": idle,
        "CORS": cors,
        "Starlette's CORS": StarletteCORS(bare, **options),
        "SecurityHeaders": security,
        "CORS and SecurityHeaders": chain(security, cors),
    }


async def _measure(seconds: float, calls: int, advance: Callable[[float], None]) -> list[Figure]:
    measured = apps()
    wanted = [(what, name) for what in REQUESTS for name in measured if what == "actual request" or "CORS" in name]
    wanted += [(what, "the app alone") for what in REQUESTS if (what, "the app alone") not in wanted]
    times: dict[tuple[str, str], list[float]] = {each: [] for each in wanted}
    gc.collect()
    gc.disable()
    try:
        started = told = time.perf_counter()
        while told - started < seconds or len(times[wanted[0]]) < 3:
            for what, name in wanted:
                # Starlette takes milliseconds for the commas: fewer of those show as much.
                count = max(1, calls // 10) if "commas" in what else calls
                times[what, name].append(await timed(measured[name], REQUESTS[what], count))
            wanted.append(wanted.pop(0))
            gc.collect()
            now = time.perf_counter()
            advance(now - told)
            told = now
    finally:
        gc.enable()
    base = {what: times[what, "the app alone"] for what in REQUESTS}
    return [
        Figure(what, name, statistics.median(a - b for a, b in zip(taken, base[what], strict=True)))
        for (what, name), taken in times.items()
        if name != "the app alone"
    ]


def measure(seconds: float, calls: int, advance: Callable[[float], None]) -> list[Figure]:
    """Measure every app with every sort of request.

    Args:
        seconds: for how long; three rounds are made at the least.
        calls: requests to each app in a round.
        advance: is told the seconds that have passed since it was told last.
    """
    return asyncio.run(_measure(seconds, calls, advance))


def show(console: Console, figures: list[Figure]) -> None:
    """Print the figures as a table."""
    table = Table("request", "around the app", title="What the browser's rules add, in microseconds")
    table.add_column("adds", justify="right")
    for figure in figures:
        table.add_row(figure.what, figure.app, f"{figure.added:.1f}")
    console.print(table)
