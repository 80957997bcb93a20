"""The instructions of whole requests: counted once a server has started, and told as they were found."""

from __future__ import annotations

import shutil

import pytest

from benchmarks.figures import Figure, Suite
from benchmarks.interval import Interval
from benchmarks.server import counted
from benchmarks.server.tables import BARE, GUARD, LEAST, RATIO


def once(value: float) -> Interval:
    return Interval.of([value])


def test_what_callgrind_wrote_down_is_read() -> None:
    """The total is that of the whole dump, under either of its names."""
    assert counted.read("# callgrind format\nevents: Ir\nfn=(1)\n3 17\n\ntotals: 1234\n") == 1234
    assert counted.read("events: Ir\nsummary: 99\n\nfn=(1)\n3 17\n") == 99


def test_tables() -> None:
    """Each stack has what it takes, what that is beyond the bare app, and the ratio."""
    figures = [
        Figure(("FastAPI", BARE, counted.COUNT), "instructions", once(500_000)),
        Figure(("FastAPI", LEAST, counted.COUNT), "instructions", once(600_000)),
        Figure(("FastAPI", LEAST, RATIO), "x", once(5 / 6), more=True),
        Figure(("FastAPI", GUARD, counted.COUNT), "instructions", once(1_000_000)),
        Figure(("FastAPI", GUARD, RATIO), "x", once(0.5), more=True),
    ]
    (sheet,) = counted.sheets(Suite("counted", figures))
    assert sheet.rows == [
        ["the app alone", "500,000", "", ""],
        ["its headers alone", "600,000", "100,000", "0.833"],
        ["asgi-guard", "1,000,000", "500,000", "0.500"],
    ]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_headers_cost_a_server_something(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that sends more lines has more to do; without valgrind it is said that nothing is counted."""
    monkeypatch.setattr(counted, "STACKS", {"raw": (BARE, LEAST)})
    monkeypatch.setattr(counted, "COUNTED", 8)
    told: list[str] = []
    suite = counted.measure(("raw",), lambda name, seconds: told.append(name))
    if shutil.which("valgrind") is None:
        assert suite.skipped == {"instructions": "valgrind is not installed"}
        return
    assert told == ["counted: raw ASGI app"] * 2
    bare, least = (suite.find("raw ASGI app", name, counted.COUNT) for name in (BARE, LEAST))
    assert bare is not None
    assert least is not None
    assert bare.median < least.median < 3 * bare.median
