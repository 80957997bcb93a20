"""What a request waits for while there is no server to ask."""

from __future__ import annotations

import asyncio
import socket
import statistics
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asgi_guard import RateLimitMiddleware, RedisStore
from benchmarks import calls, subjects
from benchmarks.limits import peers, scripts
from benchmarks.limits.contenders import OURS, Contender, Limiter, Setup, named
from benchmarks.limits.rounds import percentile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

AT_FIRST = 3
"""Requests that meet the outage before the breaker of the store opens."""
TIMEOUT = 0.05


@dataclass(frozen=True, slots=True)
class Outage:
    """What an outage adds to requests, in milliseconds.

    Attributes:
        name: the contender.
        kind: what the server does.
        requests: how many were made.
        first: the median of the first requests, and
        first_max: the longest of them.
        later: the median of the others; None where only one request was made. So too
        later_p99: what 99 of 100 of those took at most, and
        later_max: the longest of them.
        outcome: what came of the first request.
    """

    name: str
    kind: str
    requests: int
    first: float
    first_max: float
    later: float | None
    later_p99: float | None
    later_max: float | None
    outcome: str


@contextmanager
def refusing() -> Iterator[str]:
    """The URL of a port that refuses connections, as a server does that has ended."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"redis://127.0.0.1:{taken.getsockname()[1]}"


@contextmanager
def silent() -> Iterator[str]:
    """The URL of a port that takes connections and never says anything, as a server does that hangs."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"


KINDS = {"refuses connections": refusing, "never answers": silent}


def measure(
    contenders: Sequence[Contender], seconds: float, patience: float, passed: Callable[[float], None]
) -> list[Outage]:
    """Measure both kinds of outage.

    Args:
        contenders: all that are present.
        seconds: for how long requests are made to our layer, of each kind.
        patience: seconds until the one request to each of the others is given up. They wait at the same time.
        passed: is told which share of this part is done, each time.
    """
    others = [scripts.WITH_DEFAULTS, *named(contenders, peers.FIXED.name, peers.THROTTLED.name)]
    with calls.quiet(), ExitStack() as stack:
        urls = {kind: stack.enter_context(opened()) for kind, opened in KINDS.items()}
        ours = []
        for kind, url in urls.items():
            ours.append(asyncio.run(_ours(kind, url, seconds)))
            passed(0.3)
        theirs = asyncio.run(_others(urls, others, patience))
        passed(0.4)
    return [outage for kind in KINDS for outage in (*ours, *theirs) if outage.kind == kind]


async def _ours(kind: str, url: str, seconds: float) -> Outage:
    scope = subjects.request("none")
    idle = calls.Idle(subjects.raw)
    await calls.timed(idle, scope, AT_FIRST)
    least = statistics.median([await calls.timed(idle, scope, 1, time.perf_counter_ns) for _ in range(100)]) / 1000
    store = RedisStore(url, timeout=TIMEOUT)
    limited = RateLimitMiddleware(subjects.raw, limit="1000000/minute by ip", store=store, on_store_failure="local")
    added: list[float] = []
    try:
        started = time.perf_counter()
        while len(added) <= AT_FIRST or time.perf_counter() - started < seconds:
            added.append(await calls.timed(limited, scope, 1, time.perf_counter_ns) / 1000 - least)
            await asyncio.sleep(0)
    finally:
        await store.aclose()
    first, later = added[:AT_FIRST], sorted(added[AT_FIRST:])
    middle, p99, longest = statistics.median(later), percentile(later, 99), later[-1]
    outcome = "served, with limits of this process"
    return Outage(OURS, kind, len(added), statistics.median(first), max(first), middle, p99, longest, outcome)


async def _others(urls: dict[str, str], contenders: Sequence[Contender], patience: float) -> list[Outage]:
    waiting = [_other(kind, url, contender, patience) for kind, url in urls.items() for contender in contenders]
    return list(await asyncio.gather(*waiting))


async def _other(kind: str, url: str, contender: Contender, patience: float) -> Outage:
    limiter = await contender.open(Setup(url))
    try:
        started = time.perf_counter()
        outcome = await attempt(limiter, "client-000000", patience)
        taken = (time.perf_counter() - started) * 1000
    finally:
        await limiter.aclose()
    return Outage(contender.name, kind, 1, taken, taken, None, None, None, outcome)


async def attempt(limiter: Limiter, client: str, patience: float) -> str:
    """Make one check; what came of it, in words. It is given up after a while."""
    task = asyncio.ensure_future(limiter.check(client))
    done, _ = await asyncio.wait({task}, timeout=patience)
    if not done:
        # Not `wait_for`: before Python 3.12, a client's own deadline can swallow a cancellation.
        task.cancel()
        await asyncio.wait({task}, timeout=1)
        return f"given up after {patience:g} s"
    error = task.exception()
    if error is None:
        return "admitted" if task.result() else "refused"
    return f"raises {type(error).__name__}"
