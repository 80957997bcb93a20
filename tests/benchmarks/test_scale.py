"""The benchmark of scale measures every axis, and its slopes are slopes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from asgi_guard import Guard
from asgi_guard.chain.exchange import current
from asgi_guard.testing import LocalIssuer
from benchmarks import calls, subjects
from benchmarks.__main__ import main
from benchmarks.figures import read
from benchmarks.limits.memory import address
from benchmarks.scale import axes, run

if TYPE_CHECKING:
    from pathlib import Path

    from asgi_guard.asgi import Receive, Scope, Send

TINY = run.Budget(
    quick=True, seconds=0, workers=(1, 2), rounds=1, each=0.05,
    axes=tuple(replace(axis, quick=(2, 4)) for axis in axes.AXES),
)  # fmt: skip


@pytest.mark.parametrize(
    ("costs", "found"), [([5, 5, 5], 0), ([1, 10, 100], 1), ([1, 100, 10_000], 2), ([3, 3, 30], 0.5)]
)
def test_slopes(costs: list[float], found: float) -> None:
    """What costs the same has none; what costs ten times as much for ten times as many has 1."""
    assert run.slope([1, 10, 100], costs) == pytest.approx(found)


def test_a_slope_is_named_by_its_sizes_and_judged_over_those_of_a_full_run() -> None:
    """Over fewer sizes the same costs have another slope: it has another name, and nothing is asked of it."""
    (axis,) = [axis for axis in axes.AXES if axis.name == "origins"]
    costs = dict(zip(axis.sizes, (10.0, 10.0, 10.0, 40.0, 40.0), strict=True))
    slopes = {}
    for sizes in (axis.sizes, axis.quick):
        times = {(run.BARE, 0): [1.0], **{(axis.name, size): [1.0 + costs[size]] for size in sizes}}
        found = run._figures(axis, sizes, times)[-1]
        slopes[found.of[2]] = (round(found.value.median, 3), found.asked)
    assert slopes == {"1 / 10 / 100 / 1,000 / 10,000": (0.181, axes.ASKED), "1 / 10,000": (0.151, None)}


async def test_nothing_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """Limits that refuse nothing are meant here: no warning of the guard's tears the progress bar."""
    few = tuple(replace(axis, quick=(2, 4)) for axis in axes.AXES if axis.name == "limits on a request")
    await run._turns(replace(TINY, axes=few), lambda _: None)
    assert "refuses nothing" in caplog.text
    caplog.clear()
    await run._measure(replace(TINY, axes=few), lambda _: None)
    assert caplog.text == ""


async def test_every_key_may_ask_next() -> None:
    """Clients are those whose buckets the store holds, and no proxies: else all of them would share one bucket."""
    issuer = LocalIssuer(algorithm="ES256")
    guard, make = await axes._keys(50, issuer, issuer.token(lifetime=3600))
    assert isinstance(guard, Guard)
    seen: list[str | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = current.get()
        assert exchange is not None
        assert exchange.client_doubt is None
        seen.append(exchange.client)
        await subjects.raw(scope, receive, send)

    guard.app = app
    held = len(guard.store)  # type: ignore[arg-type]  # the store in memory, which counts its buckets
    for _ in range(100):
        await calls.check(guard, make())
    assert set(seen) <= {address(number) for number in range(50)}
    assert len(set(seen)) > 30
    assert len(guard.store) == held + 1  # type: ignore[arg-type]  # the one by user


@pytest.mark.long
def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run, as short as can be, has a figure for every size, a slope for every axis, and says which are asked."""
    monkeypatch.setattr(run, "QUICK", TINY)
    monkeypatch.setattr(axes, "CALLS", 3)
    path = tmp_path / "figures.json"
    ran = CliRunner().invoke(main, ["scale", "--quick", "--json", str(path)])

    assert ran.exit_code == 0, ran.output
    suite = read(path).suite("scale")
    assert suite is not None
    assert suite.names(1, run.SLOPE) == [*(axis.name for axis in axes.AXES), run.WORKERS]
    assert not [figure for figure in suite.figures if figure.asked is not None]
    for axis in TINY.axes:
        assert suite.names(1, axis.name) == [str(size) for size in axis.quick]
        assert suite.names(2, run.SLOPE, axis.name) == ["2 / 4"]
        assert axis.name in ran.output
    assert suite.names(1, run.WORKERS) == ["1", "2"]
    assert all(figure.value.median > 0 for figure in suite.figures if figure.unit != "slope")
