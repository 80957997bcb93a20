"""What an app may say about the limits of the request that it serves."""

from __future__ import annotations

from operator import index
from threading import Lock
from typing import TYPE_CHECKING

from asgi_guard.chain.exchange import SCOPE_KEY

if TYPE_CHECKING:
    from asgi_guard.asgi import Scope
    from asgi_guard.chain.exchange import Exchange

_lock = Lock()
"""Threads that charge one request take turns: adding up is no single step."""


def charge(scope: Scope, cost: int) -> None:
    """Charge a request for work that is known only now, or give back what it did not need.

    The units are taken from every bucket that the request was charged to, when it ends, whatever is left in them: a
    bucket becomes empty at most. Limits on requests at once are not concerned. It may be called from any thread, and
    several times; what is called for adds up.

    Args:
        scope: the ASGI scope of the request; `request.scope` in Starlette and FastAPI.
        cost: units beyond the route's `cost`, a whole number; negative gives back.

    Raises:
        LookupError: the scope did not pass a guard.
        RuntimeError: the request is over, and its accounts are settled: a task that outlives it cannot charge it.
        TypeError: the cost is no whole number.
    """
    exchange: Exchange | None = scope.get(SCOPE_KEY)
    if exchange is None:
        raise LookupError("this scope did not pass a guard: wrap the app in Guard or RateLimitMiddleware")
    if SCOPE_KEY not in exchange.scope:  # that is the server's own again
        raise RuntimeError("the request is over, so it can no longer be charged: charge it before the app returns")
    units = index(cost)
    with _lock:
        exchange.extra_cost += units
