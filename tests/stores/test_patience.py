"""Who has waited for too long is looked for as long as anybody waits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from asgi_guard.stores.patience import Patience
from tests.stores.server import PATIENCE


async def test_a_look_that_fails_is_not_the_last() -> None:
    """Where a look fails, the loop is told, and the next one comes all the same, until nobody waits."""
    outcomes: Iterator[Exception | float | None] = iter([KeyError("a defect"), 0.001, IndexError("another"), None])
    told: list[dict[str, Any]] = []
    over = asyncio.Event()

    def look() -> float | None:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        if outcome is None:
            over.set()
        return outcome

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context))
    patience = Patience(loop, 0.01, look)
    patience.attend()
    async with asyncio.timeout(PATIENCE):
        await over.wait()
    assert [type(context["exception"]) for context in told] == [KeyError, IndexError]


async def test_one_looks_for_all_who_wait() -> None:
    """However many ask for it, there is one look at a time, until nobody waits; and one again for who comes then."""
    looks = 0
    over = asyncio.Event()

    def look() -> float | None:
        nonlocal looks
        looks += 1
        if looks % 3:
            return 0.001
        over.set()
        return None

    patience = Patience(asyncio.get_running_loop(), 0.01, look)
    for expected in (3, 6):
        over.clear()
        for _ in range(50):
            patience.attend()
        async with asyncio.timeout(PATIENCE):
            await over.wait()
        await asyncio.sleep(0.02)  # in which others would look, if there were any
        assert looks == expected
