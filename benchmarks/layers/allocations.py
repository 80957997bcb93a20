"""What a request allocates.

Three things are counted, each less what the app alone has:

- `held`: blocks of Python's own allocator that are in use when the response begins: what a request keeps while it is
  under way. Objects that came and went before that are not in it, nor is what C libraries allocate by themselves.
- `peak`: the most bytes in use at any moment of the request, by tracemalloc, which sees what goes through Python's
  allocators.
- `left`: blocks that are still there after the request with the garbage collector off: what only the collector frees,
  or nobody. It is averaged over many requests.

How often something is allocated is in none of them: Python does not count that. The instructions that it takes are in
`python -m benchmarks instructions`.
"""

from __future__ import annotations

import gc
import statistics
import sys
import tracemalloc
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.calls import send
from benchmarks.subjects import receive

if TYPE_CHECKING:
    from asgi_guard.asgi import ASGIApp, Message, Scope

HELD, PEAK, LEFT = "blocks held", "peak bytes", "blocks left"
SAMPLES = 21
REPEATS = 200


@dataclass(frozen=True, slots=True)
class Allocated:
    """Of one app."""

    held: float
    peak: float
    left: float


async def allocated(app: ASGIApp, scope: Scope) -> Allocated:
    """Count what a request to the app allocates. It has been called before."""
    gc.disable()
    try:
        held = statistics.median([await _held(app, scope) for _ in range(SAMPLES)])
        await _repeat(app, scope)  # free lists fill, and buffers reach their size
        before = sys.getallocatedblocks()
        await _repeat(app, scope)
        left = (sys.getallocatedblocks() - before) / REPEATS
        return Allocated(held, await _peak(app, scope), left)
    finally:
        gc.enable()


async def _repeat(app: ASGIApp, scope: Scope) -> None:
    for _ in range(REPEATS):
        await app(dict(scope), receive, send)


async def _held(app: ASGIApp, scope: Scope) -> int:
    found = 0

    async def look(message: Message) -> None:
        nonlocal found
        if message["type"] == "http.response.start":
            found = sys.getallocatedblocks()

    asked = dict(scope)
    before = sys.getallocatedblocks()
    await app(asked, receive, look)
    return found - before


async def _peak(app: ASGIApp, scope: Scope) -> float:
    found = []
    tracemalloc.start()
    try:
        for _ in range(SAMPLES):
            asked = dict(scope)
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            await app(asked, receive, send)
            found.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    return statistics.median(found)
