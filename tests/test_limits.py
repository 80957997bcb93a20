"""What an app says about the limits of its request."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from asgi_guard import RateLimitMiddleware, limits
from asgi_guard.chain.exchange import SCOPE_KEY, Exchange
from tests.asgi import Echo, get, http_scope


def test_a_scope_that_passed_no_guard() -> None:
    """A charge on a scope that passed no guard is an error that says what to do."""
    with pytest.raises(LookupError, match="wrap the app in Guard or RateLimitMiddleware"):
        limits.charge(http_scope(), 1)


async def test_a_request_that_is_over() -> None:
    """What is charged after the end would be lost, so it is an error; a task that runs to the end before it is none."""
    app = Echo()
    guard = RateLimitMiddleware(app, limit="5/hour by ip")
    await get(guard)
    with pytest.raises(RuntimeError, match="the request is over"):
        limits.charge(app.scopes[0], 1)


@pytest.mark.parametrize("cost", ["three", None, float("nan"), 2.5, "3"])
def test_what_is_no_number_of_units(cost: object) -> None:
    """A cost that is no whole number is an error, and charges nothing."""
    scope = http_scope()
    scope[SCOPE_KEY] = exchange = Exchange(scope)
    with pytest.raises(TypeError):
        limits.charge(scope, cost)  # type: ignore[arg-type]  # as an app may
    assert exchange.extra_cost == 0


def test_what_counts_as_a_whole_number() -> None:
    """Numbers of other types are taken where they are whole."""

    class Rows:
        def __index__(self) -> int:
            return 3

    scope = http_scope()
    scope[SCOPE_KEY] = exchange = Exchange(scope)
    limits.charge(scope, Rows())  # type: ignore[arg-type]  # as numpy's integers
    limits.charge(scope, True)
    assert exchange.extra_cost == 4


class Yielding(Exchange):
    """An exchange at whose sum threads take turns, as they may between any two steps."""

    units = 0

    @property
    def extra_cost(self) -> int:
        units = self.units
        time.sleep(0)  # another thread's turn
        return units

    @extra_cost.setter
    def extra_cost(self, units: int) -> None:
        self.units = units


def test_many_threads() -> None:
    """What several threads charge adds up, whichever way they take turns."""
    scope = http_scope()
    scope[SCOPE_KEY] = exchange = Yielding(scope)

    def work() -> None:
        for _ in range(250):
            limits.charge(scope, 1)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work) for _ in range(4)]:
            done.result()
    assert exchange.extra_cost == 1000
