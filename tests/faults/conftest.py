"""What tests of faults share."""

from __future__ import annotations

import pytest

from tests.clock import Clock


class ClockModule:
    """What a line uses of the module `time`."""

    def __init__(self, clock: Clock) -> None:
        self.monotonic = self.perf_counter = clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock by which lines tell when the breaker may be asked; it stands still until it is told."""
    clock = Clock()
    for module in ("batching", "owed"):
        monkeypatch.setattr(f"asgi_guard.stores.{module}.time", ClockModule(clock))
    return clock
