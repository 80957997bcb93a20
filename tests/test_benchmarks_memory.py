"""The benchmark of memory: its process serves strangers, and its figures are of what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from asgi_guard import Guard
from asgi_guard.testing import LocalIssuer
from benchmarks import subjects
from benchmarks.__main__ import main
from benchmarks.figures import read
from benchmarks.memory import process, run
from tests.asgi import call

if TYPE_CHECKING:
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


def test_slopes() -> None:
    """Two bytes a request are two bytes a request."""
    assert run.slope([(0, 5), (1, 7), (2, 9)]) == pytest.approx(2)


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
