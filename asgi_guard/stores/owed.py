"""Accounts of requests that are over, which a server could not be told: kept for when it answers again.

Nothing is charged twice: of an account that may have arrived only the ends of requests under way are kept, which may be
told any number of times.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from asgi_guard.policy.rates import SECOND

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_guard.policy.bucket import Charge
    from asgi_guard.stores.wire import Question

MAX_OWED = 4096
"""Accounts that are kept at most. The oldest leave first: what they end or charge is the first to be over by itself."""


class Owed:
    """The accounts that one server has still to be told, in order."""

    def __init__(self) -> None:
        self._accounts: deque[tuple[float, Question]] = deque(maxlen=MAX_OWED)

    def __bool__(self) -> bool:
        return bool(self._accounts)

    def add(self, question: Question, *, sent: bool) -> None:
        """Keep what is to be told again of a question that nobody waits for.

        Args:
            question: an account; of any other one nothing is kept, since it is asked anew.
            sent: whether it may have been executed.
        """
        if question.request.settles and (left := _left(question, None if sent else 0)) is not None:
            self._accounts.append((time.monotonic(), left))

    def take(self) -> Iterator[Question]:
        """Take out all that there are, as they are to be told now."""
        now = time.monotonic()
        for _ in range(len(self._accounts)):
            since, question = self._accounts.popleft()
            if (left := _left(question, int((now - since) * SECOND))) is not None:
                yield left


def _left(question: Question, age: int | None) -> Question | None:
    """What there is to tell of an account that comes late; None for nothing.

    Args:
        question: the account.
        age: by how many microseconds it is late; None if all but ends of requests may have arrived.
    """
    charges, shape, keys = [], [*question.shape[:3]], []
    names = iter(question.keys)
    for place, charge in enumerate(question.request.charges):
        numbers = question.shape[3 + 4 * place : 7 + 4 * place]
        if not charge.limit.at_once:
            name = next(names)
            cost = _still(charge, age)
            if not cost:
                continue
            keys.append(name)
            if cost != charge.cost:
                charge = replace(charge, cost=cost)
                numbers = (cost * charge.limit.interval, *numbers[1:])
        charges.append(charge)
        shape += numbers
    if not charges:
        return None
    request = question.request._replace(charges=tuple(charges))
    return type(question)(request, tuple(shape), keys, question.sets)


def _still(charge: Charge, age: int | None) -> int:
    """The units of a charge that is late.

    A bucket that would be full again by now is charged nothing. Units given back are fewer by those that came back by
    themselves in the meantime, since these would else be there twice.
    """
    limit = charge.limit
    if age is None or age >= limit.capacity:
        return 0
    return charge.cost if charge.cost > 0 else min(0, charge.cost + -(-age // limit.interval))
