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
