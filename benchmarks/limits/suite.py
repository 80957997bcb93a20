"""The benchmark of limits as a suite: its figures by name, and the tables that are short enough for a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.figures import Figure, Suite
from benchmarks.interval import Interval
from benchmarks.limits import tables
from benchmarks.limits.contenders import OURS
from benchmarks.limits.faults import BETWEEN_FLUSHES, TASKS
from benchmarks.limits.run import Brief, Figures
from benchmarks.limits.scripts import ONE_CALL
from benchmarks.limits.throughput import ASKED
from benchmarks.sheet import Sheet, asked, plain, spread, warned

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from benchmarks.limits.contenders import Skipped
    from benchmarks.limits.rounds import Cell
    from benchmarks.limits.throughput import Throughput

RATE, P50, P99, CPU = "checks a second", "p50 ms", "p99 ms", "CPU us a check"
SIZE, REFUSED, MEMORY, OUTAGE = "bytes in the server", "refusing", "the store in memory", "an outage adds"
LATER, FLUSHED = "an outage adds, later", "failed while scripts are flushed"


def of(found: Figures | Brief) -> Suite:
    """What a run found."""
    if isinstance(found, Brief):
        skipped = {"other limiters, and all but the checks": "left out of what is quick; `limits` has them"}
        return Suite("limits", list(_throughput([found.checks])), {"server": found.server}, skipped, found)
    figures = [*_throughput([*found.throughput]), *_others(found)]
    method = {"server": found.server, "packages": _listed(found.peers), "rounds": _rounds(found.throughput)}
    if found.own_server is not None:
        method["all but throughput"] = found.own_server
    return Suite("limits", figures, method, _reasons(found.skipped), found)


def _rounds(kinds: Sequence[Throughput]) -> str:
    few, *more = sorted({cell.per_second.rounds for kind in kinds for cell in kind.cells}) or [0]
    return f"{few}" + "".join(f", and {each} of those whose ratio is asked, at its levels" for each in more)


def _reasons(skipped: Sequence[Skipped]) -> dict[str, str]:
    return {one.name: one.reason for one in skipped}


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def _throughput(kinds: Sequence[Throughput]) -> Iterator[Figure]:
    for kind in kinds:
        for cell in kind.cells:
            yield from _cell(kind.asks, cell)


def times(asks: str, tasks: str, who: str) -> tuple[str, str]:
    """The name of the figure that tells how many times as many checks ours makes as this contender."""
    return f"{asks}, {tasks} {'task' if tasks == '1' else 'tasks'}", f"{OURS}'s checks/s / those of {who}"


def _cell(asks: str, cell: Cell) -> Iterator[Figure]:
    name = (asks, str(cell.tasks), cell.name)
    yield Figure((*name, RATE), "1/s", cell.per_second, more=True)
    if cell.name != OURS:
        least = ASKED.get(cell.tasks) if cell.name == ONE_CALL else None
        yield Figure(times(*name), "x", cell.ours, least, more=True)
    for what, value in ((P50, cell.p50), (P99, cell.p99)):
        yield Figure((*name, what), "ms", value)
    yield Figure((*name, CPU), "us", cell.client_cpu)


def _others(found: Figures) -> Iterator[Figure]:
    for size in found.sizes:
        yield Figure((SIZE, size.name), "bytes", Interval.of([size.among_many]))
    for one in found.refused:
        yield Figure((REFUSED, one.name), "us", Interval.of([one.microseconds]))
    for held in found.memory:
        yield Figure((MEMORY, f"{held.keys:,} keys", "again"), "us", Interval.of([held.again]))
    for outage in found.outages:
        yield Figure((OUTAGE, outage.kind, outage.name), "ms", Interval.of([outage.first]))
        if outage.later is not None:
            yield Figure((LATER, outage.kind, outage.name), "ms", Interval.of([outage.later]))
    for flush in found.flushes:
        yield Figure((FLUSHED, flush.name), "x", flush.share)


def sheets(suite: Suite) -> list[Sheet]:
    """The tables that are short."""
    kinds = [name for name in suite.names(0) if suite.find(name, "1", OURS, RATE)]
    found = [_sheet(suite, kind) for kind in kinds]
    found += [made for made in (_bytes(suite), _outages(suite)) if made.rows]
    wanted = asked(suite.figures)
    return [*found, wanted] if wanted else found


def _sheet(suite: Suite, kind: str) -> Sheet:
    rows = []
    rates = [figure.value for figure in suite.figures if figure.of[0] == kind and figure.of[-1] == RATE]
    for tasks in suite.names(1, kind):
        for who in suite.names(2, kind, tasks):
            name = (kind, tasks, who)
            ours = suite.find(*times(*name))
            rows.append([
                who, tasks, plain(suite.find(*name, RATE)), spread(suite.find(*name, RATE)),
                "" if ours is None else f"{ours.median:.2f}x", plain(suite.find(*name, P50)),
                plain(suite.find(*name, P99)), plain(suite.find(*name, CPU)),
            ])  # fmt: skip
    return Sheet(
        f"A check of {kind}", ("limiter", "tasks"), ("checks/s", "interval", "ours is", P50, P99, "CPU us"), rows,
        "'Ours is': how many times as many checks asgi-guard made in the same round, the median. CPU us: of the "
        f"client's process, a check. {suite.method['server']}. {warned(rates)}".strip(), frozenset({OURS}),
    )  # fmt: skip


def _bytes(suite: Suite) -> Sheet:
    columns = (SIZE, REFUSED, FLUSHED)
    who = list(dict.fromkeys(name for column in columns for name in suite.names(1, column)))
    return Sheet(
        "What a client holds, what a refusal takes, and what a flush breaks", ("limiter",),
        ("bytes in the server", "a refusal, us", "failed checks"),
        [
            [name, plain(suite.find(SIZE, name)), plain(suite.find(REFUSED, name)), _share(suite.find(FLUSHED, name))]
            for name in who
        ],
        "Bytes: of one client of one window. A refusal: of a client that is known to be over its limit, by the wall's "
        f"clock; asgi-guard's with its answer, others' the check alone. Failed checks: of those at {TASKS} tasks while "
        f"SCRIPT FLUSH is called every {BETWEEN_FLUSHES * 1000:.0f} ms: more, the busier the machine, since a "
        "script has to be loaded and called before it is forgotten again. "
        f"{warned(suite.find(FLUSHED, name) for name in who)}".strip(),
        frozenset({OURS}),
    )  # fmt: skip


def _share(value: Interval | None) -> str:
    return "" if value is None else tables.share(value)


def _outages(suite: Suite) -> Sheet:
    rows = [
        [kind, name, plain(suite.find(OUTAGE, kind, name)), _thousandths(suite.find(LATER, kind, name))]
        for kind in suite.names(1, OUTAGE)
        for name in suite.names(2, OUTAGE, kind)
    ]
    return Sheet(
        "What an outage adds to a request, in ms", ("server", "limiter"), ("at first", "later"), rows,
        "At first: the median of 3 requests of asgi-guard, whose timeout is 50 ms; one request of others. Later: when "
        "asgi-guard no longer asks but for a probe now and then.",
    )  # fmt: skip


def _thousandths(value: Interval | None) -> str:
    return "" if value is None else f"{value.median:.3f}"


def show(console: Console, suite: Suite) -> None:
    """Print every table of a run that was made just now."""
    found = suite.details
    if isinstance(found, Brief):
        tables.show_throughput(console, found.checks, found.server, ASKED)
    else:
        tables.show(console, found)
