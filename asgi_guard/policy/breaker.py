"""A circuit breaker: after failures in a row, do not ask for a while; then let one ask, and see."""

from __future__ import annotations

from dataclasses import dataclass, field

from asgi_guard.errors import ConfigError, Problem
from asgi_guard.policy.plain_types import require_fields


@dataclass(slots=True)
class Breaker:
    """Decides whether a service that has failed may be asked again.

    Closed, everyone asks. After `threshold` failures in a row it opens: nobody asks for `first_wait` seconds,
    doubling with each further failure up to `max_wait`. Then one asks, while the others still do not; its success
    closes the breaker. A sign of life lets the next one ask at once. What has failed is counted in it, so each store is
    given one of its own.

    Attributes:
        threshold: failures in a row that open it.
        first_wait: seconds until the first probe.
        max_wait: the longest wait between probes.

    Raises:
        ConfigError: no number of failures would open it, or a wait is negative or no number.
    """

    threshold: int = 3
    first_wait: float = 0.5
    max_wait: float = 10.0
    _failures: int = field(default=0, init=False)
    _open_until: float | None = field(default=None, init=False)
    _hastened: int = field(default=-1, init=False)  # how many failures there were when the last sign of life was heeded

    def __post_init__(self) -> None:
        require_fields(self)
        if self.threshold < 1:
            raise ConfigError([Problem("threshold", f"{self.threshold} is no number of failures: 1 opens it at once")])
        for name, wait in (("first_wait", self.first_wait), ("max_wait", self.max_wait)):
            if not wait >= 0:  # written so that it holds for NaN, too
                raise ConfigError([Problem(name, "it is negative, or no number")])

    @property
    def is_open(self) -> bool:
        """Whether callers are turned away, probes excepted."""
        return self._open_until is not None

    def allows(self, now: float) -> bool:
        """Tell whether this caller may ask. Where the breaker is open, a yes makes the caller the probe."""
        if self._open_until is None:
            return True
        if now < self._open_until:
            return False
        # Until the probe is back, the others wait as if it had failed.
        self._open_until = now + self._wait()
        return True

    def retry_after(self, now: float) -> float:
        """Seconds until the next probe."""
        return 0.0 if self._open_until is None else max(0.0, self._open_until - now)

    def hasten(self, now: float) -> None:
        """Note a sign of life, which is no answer yet: whoever is next may probe.

        That is so for one in two failures, so that a service that shows no more than such signs is asked seldom.
        """
        if self._open_until is not None and self._failures >= self._hastened + 2:
            self._hastened = self._failures
            self._open_until = now

    def succeeded(self) -> bool:
        """Note a success; True if it closed the breaker."""
        closed = self._open_until is not None
        self._failures, self._open_until, self._hastened = 0, None, -1
        return closed

    def failed(self, now: float) -> bool:
        """Note a failure; True if it opened the breaker."""
        self._failures += 1
        if self._failures < self.threshold:
            return False
        opened = self._open_until is None
        self._open_until = now + self._wait()
        return opened

    def _wait(self) -> float:
        return float(min(self.first_wait * 2 ** min(max(self._failures - self.threshold, 0), 16), self.max_wait))
