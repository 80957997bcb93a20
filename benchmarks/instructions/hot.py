"""The process that is counted: `python -m benchmarks.instructions.hot REQUESTS`, under callgrind.

The requests are made inside functools.reduce, which callgrind is told to count in: neither the start of the process nor
the making of keys is in the figure. No event loop runs, for nothing here waits.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from functools import reduce
from typing import TYPE_CHECKING, Any

from asgi_guard import Guard
from asgi_guard.testing import LocalIssuer
from benchmarks import subjects
from benchmarks.calls import discarded_output

if TYPE_CHECKING:
    from collections.abc import Callable

    from asgi_guard.asgi import ASGIApp, Message, Scope

WARM_UP = 50


async def _send(message: Message) -> None:
    """Take a message, as a server would."""


def once(app: ASGIApp, scope: Scope) -> Callable[[Any, Any], None]:
    """A function that serves one request, whatever it is given."""

    def serve(_: Any, __: Any) -> None:
        running: Any = app(dict(scope), subjects.receive, _send)
        try:
            running.send(None)
        except StopIteration:
            return
        raise RuntimeError("the request had to wait, so it cannot be counted")

    return serve


def prepared() -> Callable[[Any, Any], None]:
    """A guard around the least of apps, with its keys fetched, its token cached and all paths taken before."""
    issuer = LocalIssuer(algorithm="ES256")  # its keys are made the fastest, and the token is cached
    settings = subjects.settings(issuer.url, issuer.audience)
    app = Guard(subjects.raw, settings, http_client=issuer.client)
    scope = subjects.request(issuer.token(lifetime=3600))
    asyncio.run(_warm_up(app, scope))
    return once(app, scope)


async def _warm_up(app: ASGIApp, scope: Scope) -> None:
    statuses = []

    async def send(message: Message) -> None:
        statuses.append(message.get("status", 200))

    for _ in range(WARM_UP):
        await app(dict(scope), subjects.receive, send)
    assert set(statuses) == {200}, statuses


def main(requests: int) -> None:
    """Serve them, with the access log going nowhere."""
    with discarded_output():
        serve = prepared()
        gc.collect()
        gc.disable()
        reduce(serve, range(requests), None)


if __name__ == "__main__":
    main(int(sys.argv[1]))
