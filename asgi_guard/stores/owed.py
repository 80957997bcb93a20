"""Accounts of requests that are over, which a server could not be told: kept for when it answers again.

Nothing is charged twice: of an account that may have arrived only the ends of requests under way are kept, which may be
told any number of times. Each is kept as it was first told, so that what is left of it is the same however often it is
tried.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from asgi_guard.policy.rates import SECOND
from asgi_guard.stores.wire import Question

if TYPE_CHECKING:
    from asgi_guard.policy.bucket import Charge

logger = logging.getLogger("asgi_guard")

MAX_OWED = 4096
"""Accounts that are kept at most. The oldest leave first: what they end or charge is the first to be over by itself."""
QUIET = 60.0
"""Seconds between two words in the log on accounts that are forgotten."""


class Account(NamedTuple):
    """What a server is to be told of a request that is over.

    Attributes:
        since: when it was first to be told, in seconds of a clock that only moves forward.
        question: how it was told then, or what may be told again of that.
    """

    since: float
    question: Question


class Owed:
    """The accounts that one server has still to be told, in order. Those that it refused wait to be due again."""

    def __init__(self) -> None:
        self._due: deque[Account] = deque()
        self._refused: deque[Account] = deque()
        self._quiet_until = 0.0

    def __len__(self) -> int:
        return len(self._due) + len(self._refused)

    @property
    def is_due(self) -> bool:
        """Whether there is anything to tell as soon as the server answers."""
        return bool(self._due)

    def add(self, account: Account, *, sent: bool = False, refused: bool = False) -> None:
        """Keep an account.

        Args:
            account: the account.
            sent: whether it may have been executed.
            refused: whether the server answers, but refused this: it is not due before `again`.
        """
        if sent:
            ends = _left(account.question, None)
            if ends is None:
                return
            account = account._replace(question=ends)
        (self._refused if refused else self._due).append(account)
        if len(self) > MAX_OWED:
            (self._refused or self._due).popleft()
            self._tell()

    def _tell(self) -> None:
        """Tell the log that accounts are forgotten."""
        if (now := time.monotonic()) >= self._quiet_until:
            self._quiet_until = now + QUIET
            logger.warning(
                "more requests have ended than can be kept for the store: the oldest count as under way for up to a "
                "minute more, and what the app charged for them or gave back is lost"
            )

    def again(self) -> None:
        """Have those that were refused due again."""
        self._due.extendleft(reversed(self._refused))
        self._refused.clear()

    def take(self) -> tuple[Question, Account] | None:
        """Take out the first that is due, as it is to be told now, beside what it is kept as; None if there is none."""
        now = time.monotonic()
        while self._due:
            account = self._due.popleft()
            if (left := _left(account.question, int((now - account.since) * SECOND))) is not None:
                return left, account
        return None

    def put_back(self, account: Account) -> None:
        """Keep one that was taken out and not told, before the others."""
        self._due.appendleft(account)

    def take_all(self) -> list[Account]:
        """Take out all, as they are kept."""
        self.again()
        accounts = list(self._due)
        self._due.clear()
        return accounts


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
            name, cost = next(names), numbers[0]
            left = _still(cost, charge.limit.capacity, age)
            if not left:
                continue
            keys.append(name)
            if left != cost:
                charge = _of(charge, left)
                numbers = (left, *numbers[1:])
        charges.append(charge)
        shape += numbers
    if not charges:
        return None
    request = question.request._replace(charges=tuple(charges))
    return type(question)(request, tuple(shape), keys, question.sets)


def _still(cost: int, capacity: int, age: int | None) -> int:
    """The microseconds by which a charge that is late moves a bucket's state.

    A bucket that would be full again by now is charged nothing. What is given back is less by the time that has passed,
    in which as much came back by itself, since it would else be there twice.
    """
    if age is None or age >= capacity:
        return 0
    return cost if cost > 0 else min(0, cost + age)


def _of(charge: Charge, microseconds: int) -> Charge:
    """A charge that gives back less, to the microsecond: whole units would lose the rest."""
    late = replace(charge, cost=-(-microseconds // charge.limit.interval))
    late.advance = microseconds
    return late
