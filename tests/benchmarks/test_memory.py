"""The benchmark of memory: its process serves strangers, and its figures are of what it says."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from asgi_guard import Guard
from asgi_guard.testing import LocalIssuer
from benchmarks import subjects
from benchmarks.__main__ import main
from benchmarks.figures import Figure, Suite, read
from benchmarks.interval import Interval
from benchmarks.limits import memory as stores
from benchmarks.memory import process, run
from tests.asgi import call

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


async def test_strangers() -> None:
    """No two requests are alike, and as many as have a good token are served."""
    issuer = LocalIssuer(algorithm="EdDSA")
    strangers = process.Strangers(issuer)
    app = Guard(subjects.raw, subjects.settings(issuer.url, issuer.audience), http_client=issuer.client)
    made = [strangers.request() for _ in range(100)]
    statuses = [(await call(app, dict(scope))).status for scope in made]

    assert {*statuses} == {200, 401}
    assert 30 < statuses.count(200) < 70
    assert len({scope["path"] for scope in made}) == 100
    assert len({dict(scope["headers"])[b"x-forwarded-for"] for scope in made}) == 100


@pytest.mark.parametrize(
    ("resident", "reached"),
    [
        (lambda number: 110 * 2**20 + 16 * number, ["undecided", "NOT reached"]),
        (lambda number: 110 * 2**20 + 16 * number // 2**20 * 2**20, ["undecided", "NOT reached"]),
        (lambda number: 110 * 2**20 + 64 * number, ["NOT reached", "NOT reached"]),
        (lambda number: (110 if number < 650_000 else 117) * 2**20, ["undecided", "reached"]),
        (lambda number: (110 if number < 650_000 else 114) * 2**20, ["reached", "reached"]),
        (lambda number: 110 * 2**20 + (number % 30_000), ["reached", "reached"]),
        (lambda number: 110 * 2**20 + 40 * max(0, number - 800_000), ["undecided", "NOT reached"]),
        (lambda number: 110 * 2**20 + 16 * number + (number > 650_000) * 2**23, ["NOT reached", "NOT reached"]),
        (lambda number: (110 + 4 * (number > 500_000) + 4 * (number > 800_000)) * 2**20, ["undecided", "NOT reached"]),
    ],
)
def test_a_leak_is_found(resident: Callable[[int], int], reached: list[str]) -> None:
    """Sixteen bytes a request are a leak, also where the allocator takes a mebibyte at a time; a step is not.

    What begins late is one, and so is what goes up by two steps, which nobody can tell from a leak.
    """
    points = [{"requests": number, "resident": resident(number)} for number in range(0, 1_000_001, 10_000)]
    found = run.figures(points, 0.3)
    assert [figure.verdict for figure in found if figure.asked is not None] == reached
    assert [figure.of[1] for figure in found if figure.asked is not None] == [run.GROWN, run.RISING]


def test_a_rise_is_told_with_its_error() -> None:
    """Of memory that goes up and down by a mebibyte the slope is found, and its error holds it, with a step or without.

    Where less is known than what is asked, the verdict is undecided.
    """
    chance = random.Random(1)  # noqa: S311 - nothing is kept secret by it
    noise = [chance.uniform(-1, 1) * 2**20 for _ in range(101)]
    for bytes_each, step, verdict in ((0, 0, "reached"), (0, 8, "reached"), (4, 0, "undecided"), (8, 8, "NOT reached")):
        points = [
            {"requests": at, "resident": (110 + step * (at > 600_000)) * 2**20 + bytes_each * at + up_or_down}
            for at, up_or_down in zip(range(0, 1_000_001, 10_000), noise, strict=True)
        ]
        (rise,) = [figure for figure in run.figures(points, 0.3) if figure.of[1] == run.RISING]
        assert rise.value.low < bytes_each < rise.value.high
        assert 0.5 < rise.value.high - rise.value.low < 4
        assert (rise.value.rounds, rise.verdict) == (71, verdict)


@pytest.mark.parametrize("rising", [True, False])
def test_the_table_tells_of_the_rows_that_it_has(rising: bool) -> None:
    """A quick run, which has too few requests to tell how memory rises, has no row for that, and no word of it."""
    names = (run.AT_FIRST, run.WARM, run.LAST, run.GROWN, *((run.RISING,) if rising else ()))
    found = [Figure((run.STRANGERS, name), "MiB", Interval.of([100.0])) for name in names]
    (sheet, *_) = run.sheets(Suite("memory", found, {"strangers": "100 requests"}))
    assert [row[0] for row in sheet.rows] == [*names]
    assert all(row[-1] for row in sheet.rows)
    assert sheet.caption.endswith("Last row: the growth per request of the run after warm-up.") == rising


def test_the_table_tells_how_a_rise_was_found() -> None:
    """Its interval, and what that is of."""
    rise = Figure((run.STRANGERS, run.RISING), "bytes", Interval(-0.2, -0.8, 0.4, 71), 4.0)
    names = (run.AT_FIRST, run.WARM, run.LAST, run.GROWN)
    found = [Figure((run.STRANGERS, name), "MiB", Interval.of([100.0])) for name in names]
    (sheet, *_) = run.sheets(Suite("memory", [*found, rise], {"strangers": "100 requests"}))
    assert sheet.rows[-1] == [run.RISING, "bytes", "-0.20 (-0.80 to 0.40)"]
    assert sheet.caption.endswith("line of least squares through 71 points, with twice its error to each side.")


@pytest.mark.skipif(not stores.supported(), reason="memory is told in /proc")
def test_bytes_a_key_are_told_only_where_many_are_held() -> None:
    """Small stores are so many that they hold enough; of one that may hold a few, nothing is told of its bytes."""
    budget = run.Budget(process.Plan(100, 10, 20), 0.5, (1_000,), 2_000)
    passed: list[float] = []
    found, _ = run._stores(budget, passed.append)
    held = {figure.of[1]: figure.value.median for figure in found if figure.of[2] == run.HELD}
    assert [*held] == ["1,000 keys"]
    assert all(80 < each < 220 for each in held.values())
    assert [figure.of[1] for figure in found if figure.of[2] == "peak MiB"] == [
        *held, "2,000 keys, 20 held at the most",
    ]  # fmt: skip
    assert round(sum(passed), 6) == round(budget.filling(), 6)


@pytest.mark.long
def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run, as short as can be, tells its memory, fills its store no further than it may, and says what is asked."""
    monkeypatch.setattr(run, "QUICK", run.Budget(process.Plan(100, 10, 20), 0.5, (50,), 100))
    path = tmp_path / "figures.json"
    ran = CliRunner().invoke(main, ["memory", "--quick", "--json", str(path)])

    assert ran.exit_code == 0, ran.output
    suite = read(path).suite("memory")
    assert suite is not None
    assert [point["requests"] for point in suite.details["strangers"]] == [*range(0, 101, 10)]
    assert suite.details["strangers"][-1]["keys"] == 20
    at_first, last = (suite.find(run.STRANGERS, name) for name in (run.AT_FIRST, run.LAST))
    assert at_first is not None
    assert last is not None
    assert 10 < at_first.median < last.median < 1000
    assert [figure.of[1] for figure in suite.figures if figure.asked is not None] == [run.GROWN]
    assert "100 keys, 20 held at the most" in ran.output
    assert [*suite.skipped] == [run.RISING, run.HELD]
