"""What the browser's rules add to a request, beside Starlette's: in this process, by raw ASGI, without a server.

Every round calls each app in turn, so that whatever slows the machine down slows them all down. What is told is the
median, over the rounds, of an app's time less the bare app's in the same round.
"""

from __future__ import annotations

import asyncio
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from asgi_guard import CORSMiddleware, CSRFMiddleware, ProxyMiddleware, SecurityHeadersMiddleware
from asgi_guard.chain.layer import Chain, Layer
from benchmarks.calls import Idle, quiet, timed_over
from benchmarks.figures import Figure, Suite
from benchmarks.interval import Interval
from benchmarks.rounds import CLOCK, COLLECTOR, interleave, one_core
from benchmarks.sheet import Sheet, asked, plain
from benchmarks.subjects import not_installed, raw, request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asgi_guard.asgi import ASGIApp, Header

ORIGIN = "https://app.example.com"
BARE = "the app alone"
STARLETTE = "Starlette's CORS"
COMMAS = 64 * 1024
ENTRIES = 1000
CLIENTS = 512
"""Headers of different addresses, in turn: more addresses together than are kept as parsed."""
_ACRM = (b"access-control-request-method", b"PUT")


def scope(method: str, *headers: Header) -> dict[str, Any]:
    """A browser's request, or its preflight, as servers make its scope; these headers in the place of its own."""
    made, names = request("x"), {name for name, _ in headers}
    return {
        **made,
        "method": method,
        "headers": [*(line for line in made["headers"] if line[0] not in names), *headers],
    }


def forwarded(name: bytes, entry: str) -> list[dict[str, Any]]:
    """Requests with a thousand entries in this header, all of trusted proxies, none of them seen before."""
    ahead = ", ".join(entry.format(f"10.255.{number // 250}.{number % 250}") for number in range(ENTRIES - 20))
    tails = (
        ", ".join(entry.format(f"10.{client // 250}.{client % 250}.{number}") for number in range(20))
        for client in range(CLIENTS)
    )
    return [scope("GET", (name, f"{ahead}, {tail}".encode())) for tail in tails]


ACTUAL, PREFLIGHT, OF_COMMAS = "actual request", "preflight", "preflight with 64 KiB of commas"
FORM = "form of its own page"
FORWARDED_FOR, FORWARDED = "1,000 entries of X-Forwarded-For", "1,000 entries of Forwarded"
WALKS = (FORWARDED_FOR, FORWARDED)
REQUESTS = {
    ACTUAL: [scope("GET")],
    PREFLIGHT: [scope("OPTIONS", _ACRM, (b"access-control-request-headers", b"content-type,x-a"))],
    OF_COMMAS: [scope("OPTIONS", _ACRM, (b"access-control-request-headers", b"," * COMMAS))],
    FORM: [scope("POST", (b"sec-fetch-site", b"same-origin"))],
    FORWARDED_FOR: forwarded(b"x-forwarded-for", "{}"),
    FORWARDED: forwarded(b"forwarded", 'for="{}:443";proto=https'),
}
ASKED = {
    (ACTUAL, "CORS"): 5.0, (PREFLIGHT, "CORS"): 5.0, (OF_COMMAS, "CORS"): 50.0, (FORWARDED_FOR, "Proxy"): 100.0,
    (FORWARDED, "Proxy of Forwarded"): 100.0,
}  # fmt: skip
"""What each may add at most, in microseconds."""


def apps() -> dict[str, ASGIApp]:
    """The bare app, and what is measured around it, as far as it is installed."""
    options: dict[str, Any] = {
        "allow_origins": [ORIGIN], "allow_methods": ["PUT"], "allow_headers": ["content-type", "x-a"],
        "allow_credentials": True, "expose_headers": ["x-request-id"], "max_age": 600,
    }  # fmt: skip
    cors, security, idle = CORSMiddleware(raw, **options), SecurityHeadersMiddleware(raw), Idle(raw)
    tokens: dict[str, Any] = {"session_cookie": "session", "secret": "s" * 32}

    def chain(*layers: Layer) -> ASGIApp:
        return Chain(raw, layers)

    return {
        BARE: raw,
        "a layer that does nothing": idle,
        "CORS": cors,
        **_starlettes(options),
        "SecurityHeaders": security,
        "CORS and SecurityHeaders": chain(security, cors),
        "CSRF": CSRFMiddleware(raw),
        "CSRF with tokens": CSRFMiddleware(raw, **tokens),
        "Proxy": ProxyMiddleware(raw, trusted="10.0.0.0/8"),
        "Proxy of Forwarded": ProxyMiddleware(raw, trusted="10.0.0.0/8", header="forwarded"),
    }


def _starlettes(options: dict[str, Any]) -> dict[str, ASGIApp]:
    if absence() is not None:
        return {}
    from starlette.middleware.cors import CORSMiddleware as StarletteCORS

    return {STARLETTE: StarletteCORS(raw, **options)}


def absence() -> str | None:
    """Why Starlette's cannot be measured here, or None if it can."""
    return not_installed(("starlette",))


def is_measured(what: str, name: str) -> bool:
    """Whether this sort of request is sent to this app: to the others it is an ordinary one."""
    if what in (PREFLIGHT, OF_COMMAS):
        return "CORS" in name
    if what in WALKS:
        return name == ("Proxy" if what == FORWARDED_FOR else "Proxy of Forwarded")
    return what == ACTUAL or "CSRF" in name


def _turn(app: ASGIApp, what: str, calls: int) -> Callable[[], Awaitable[float]]:
    # Starlette takes milliseconds for the commas: fewer of those show as much.
    count = max(1, calls // 10) if "commas" in what else calls
    scopes = cycle(REQUESTS[what])
    return lambda: timed_over(app, list(islice(scopes, count)))


async def _measure(seconds: float, calls: int, advance: Callable[[float], None]) -> list[Figure]:
    measured = apps()
    wanted = [(what, name) for what in REQUESTS for name in measured if name == BARE or is_measured(what, name)]
    turns = {(what, name): _turn(measured[name], what, calls) for what, name in wanted}
    times = await interleave(turns, seconds, advance)
    base = {what: times[what, BARE] for what in REQUESTS}
    return [
        Figure(
            (what, name),
            "us",
            Interval.of([a - b for a, b in zip(taken, base[what], strict=True)]),
            ASKED.get((what, name)),
        )
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
    with one_core() as core, quiet():
        figures = asyncio.run(_measure(seconds, calls, advance))
    why = absence()
    skipped = {} if why is None else {STARLETTE: why}
    return Suite("browser", figures, {"clock": CLOCK, "collector": COLLECTOR, "cores": core}, skipped)


def sheets(suite: Suite) -> list[Sheet]:
    """The tables, and what is asked."""
    rules = [what for what in REQUESTS if what not in WALKS]
    rows = [[name, *(plain(suite.find(what, name)) for what in rules)] for name in suite.names(1)]
    title = "What the browser's rules add to a request, in microseconds"
    made = [Sheet(title, ("around the app",), rules, rows)]
    walks = [[name, what, plain(suite.find(what, name))] for what in WALKS for name in suite.names(1, what)]
    title = "What a header with a thousand proxies adds, none seen before and all of them trusted"
    made.append(Sheet(title, ("around the app", "header"), ("us",), walks))
    wanted = asked(suite.figures)
    return made if wanted is None else [*made, wanted]
