"""How many messages a WebSocket may send: a token bucket of one connection, of which nobody else has to know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_guard.policy.bucket import Charge, Reading, take

if TYPE_CHECKING:
    from asgi_guard.policy.rates import Limit


class Meter:
    """The messages of one connection.

    Args:
        limit: how many there may be.
        binding: whether the connection is closed at one too many; in shadow it is only told.

    Attributes:
        exceeded: what is told of the limit once there was one too many.
    """

    __slots__ = ("_charge", "_state", "exceeded")

    def __init__(self, limit: Limit, *, binding: bool = True) -> None:
        self._charge = Charge(limit, "", 1, binding)
        self._state = 0
        self.exceeded = Reading(limit, 0, limit.capacity, limit.interval, binding)

    def admits(self, now: int) -> bool:
        """Count a message; False if it is one too many.

        Args:
            now: microseconds.
        """
        state, wait = take(self._state, now, self._charge)
        if wait == 0:
            self._state = state
        return wait == 0
