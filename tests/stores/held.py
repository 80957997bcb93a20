"""A link that answers when it is told to, so that a test may look at who waits for what."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from asgi_guard.policy.breaker import Breaker
from asgi_guard.policy.bucket import Admission, Charge, Verdict
from asgi_guard.stores import MemoryStore
from asgi_guard.stores.batching import Line
from asgi_guard.stores.wire import question
from tests.stores.server import PATIENCE, SLOW

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asgi_guard.stores.wire import Question


@dataclass
class Held:
    """A link to buckets in memory that answers when it is told to, one call after the other.

    Attributes:
        free: whether it answers without being told.
        asked: the questions of each call.
        dropped: how often its connection was dropped.
    """

    free: bool = True
    memory: MemoryStore = field(default_factory=MemoryStore)
    asked: list[list[Question]] = field(default_factory=list)
    dropped: int = 0
    turns: deque[asyncio.Future[None]] = field(default_factory=deque)

    is_open: bool = True

    async def open(self) -> None:
        """It is there."""
        self.is_open = True

    async def ask(self, questions: Sequence[Question]) -> list[Verdict | Exception | None]:
        self.asked.append(list(questions))
        if not self.free or self.turns:
            turn = asyncio.get_running_loop().create_future()
            self.turns.append(turn)
            await turn
        verdicts: list[Verdict | Exception | None] = []
        for each in questions:
            if each.request.settles:
                self.memory.tell(each.request)
            verdicts.append(None if each.request.settles else self.memory.decide(each.request))
        return verdicts

    def close(self) -> None:
        """What was not answered is lost."""
        self.dropped += 1
        while self.turns:
            self.go_on(ConnectionError("dropped"))

    def go_on(self, error: Exception | None = None) -> None:
        """Answer the call that has waited for the longest, if there is one, or fail it."""
        if self.turns:
            turn = self.turns.popleft()
            if turn.done():
                return
            if error is None:
                turn.set_result(None)
            else:
                turn.set_exception(error)

    def let_all_go_on(self) -> None:
        """Answer all calls, and those to come without being told."""
        self.free = True
        while self.turns:
            self.go_on()


def line(link: Held, breaker: Breaker | None = None) -> Line:
    return Line(link, breaker or Breaker(), PATIENCE)


def ready(key: str, cost: int = 1, *, settles: bool = False) -> Question:
    return question(Admission((Charge(SLOW, key, cost),), settles=settles), "")


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)
