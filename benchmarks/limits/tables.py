"""The figures, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.limits.contenders import OURS
from benchmarks.limits.faults import BETWEEN_FLUSHES, TASKS
from benchmarks.limits.scripts import ONE_CALL
from benchmarks.limits.throughput import ASKED
from benchmarks.sheet import add, say, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console
    from rich.table import Table

    from benchmarks.interval import Interval
    from benchmarks.limits.contenders import Skipped
    from benchmarks.limits.rounds import Cell
    from benchmarks.limits.run import Figures
    from benchmarks.limits.throughput import Throughput


def show_throughput(console: Console, found: Throughput, where: str, asked: Mapping[int, float]) -> None:
    """Print the checks of one kind, and how ours compares with one call a check, and with what is asked of it."""
    headings = ("checks/s", "ours is", "p50 ms", "p95 ms", "p99 ms", "CPU us", "us/call", "us/check", "calls")
    made = table(
        f"A check of {found.asks}", ("tasks", "limiter"), headings,
        f"{where}. One process, asyncio's own loop.\n'ours is': how many times as many checks asgi-guard made in the "
        "same round (median). CPU us: of this process, a check.\nus/call, us/check: in the server. calls: that the "
        "server counted, a check.",
    )  # fmt: skip
    tasks = 0
    for cell in found.cells:
        if cell.tasks != tasks:
            made.add_section()
        add(made, str(cell.tasks), *_cell(cell), style=_bold(cell.name))
        tasks = cell.tasks
    console.print(made)
    show_skipped(console, found.skipped)
    for cell in found.cells:
        if cell.name == ONE_CALL:
            say(console, ratio(cell, asked))


def _bold(name: str) -> str | None:
    return "bold" if name == OURS else None


def _cell(cell: Cell) -> tuple[str, ...]:
    return (
        cell.name,
        f"{cell.per_second.median:,.0f}",
        "" if cell.name == OURS else f"{cell.ours.median:.2f}x",
        f"{cell.p50.median:.2f}",
        f"{cell.p95.median:.2f}",
        f"{cell.p99.median:.2f}",
        f"{cell.client_cpu.median:.0f}",
        f"{cell.server_call.median:.1f}",
        f"{cell.server_check.median:.1f}",
        f"{cell.trips.median:.2f}",
    )


def ratio(cell: Cell, asked: Mapping[int, float]) -> str:
    """How ours compares with this cell, in a line."""
    least = f"; asked: at least {asked[cell.tasks]:g}x" if cell.tasks in asked else ""
    return f"ours / {cell.name} at {cell.tasks} {'task' if cell.tasks == 1 else 'tasks'}: {spread(cell.ours)}{least}"


def spread(values: Interval) -> str:
    """A ratio's median, and the interval that it is in."""
    return f"{values.median:.2f}x" + (f" ({values.low:.2f} to {values.high:.2f})" if values.rounds > 1 else "")


def show_skipped(console: Console, skipped: Sequence[Skipped]) -> None:
    """Print what was not measured, by name."""
    for one in skipped:
        say(console, f"not measured: {one.name}: {one.reason}")


def show(console: Console, figures: Figures) -> None:
    """Print everything."""
    if figures.peers:
        say(console, ", ".join(f"{name} {number}" for name, number in figures.peers.items()))
    show_skipped(console, figures.skipped)
    if any("not installed" in one.reason for one in figures.skipped):
        say(console, "(pip install 'asgi-guard[bench]' brings those that are not installed)")
    for found in figures.throughput:
        show_throughput(console, found, figures.server, ASKED)
    if (delayed := figures.delayed) is not None:
        behind = f"a server behind a proxy that adds {delayed.added:.2f} ms to a PING"
        show_throughput(console, delayed.throughput, behind, {})
    for made in (_sizes, _memory, _refused, _outages, _stalls, _flushes):
        _show(console, made(figures))
    steps = figures.steps
    say(
        console,
        f" in {steps.steps:,} generated steps of the policy ({steps.admitted:,} admitted; {steps.withheld} refused "
        "without need)",
        name=f"Admissions above capacity + rate * t: {steps.above}",
    )
    _show(console, _admitted(figures))
    if figures.own_server is not None:
        say(console, f"Apart from throughput: {figures.own_server}.")


def _show(console: Console, made: Table) -> None:
    """Print a table, if there is anything in it: what is left out is named above."""
    if made.rows:
        console.print(made)


def _sizes(figures: Figures) -> Table:
    clients = next((size.clients for size in figures.sizes), 0)
    made = table(
        "Bytes in the server for one client of one window, after 10 requests",
        ("limiter", "kept as"),
        ("keys", "MEMORY USAGE", f"each of {clients:,}"),
        "each of so many: what they added to used_memory, tables of keys and expiries included. Key names are each "
        "limiter's own.\nA sliding window keeps a second such key once a window has passed.",
    )
    for size in figures.sizes:
        row = (size.name, size.kind, str(size.keys), f"{size.alone}", f"{size.among_many:.0f}")
        add(made, *row, style=_bold(size.name))
    return made


def _memory(figures: Figures) -> Table:
    made = table(
        "The store in memory",
        ("keys",),
        ("may hold", "holds", "first check us", "again us", "bytes a key", "peak MiB"),
        "by resident memory (VmRSS, VmHWM) of a process of its own, the text of the keys included",
    )
    flooded = [] if figures.flooded is None else [figures.flooded]
    for one in (*figures.memory, *flooded):
        add(
            made, f"{one.keys:,}", f"{one.max_keys:,}", f"{one.held:,}", f"{one.first:.1f}", f"{one.again:.1f}",
            f"{one.bytes_per_key:.0f}", f"{one.peak:.1f}" if one in flooded else "",
        )  # fmt: skip
    return made


def _refused(figures: Figures) -> Table:
    made = table(
        "Refusing a client that is over its limit, again and again",
        ("limiter",),
        ("us", "asks of the store", "calls to the server"),
        "asgi-guard: a refused request through the RateLimit layer, the 429 included, less a request through a layer "
        "that does nothing.\nOthers: their check alone. By the clock on the wall.",
    )
    for one in figures.refused:
        asked = "" if one.store_calls is None else f"{one.store_calls:.2f}"
        add(made, one.name, f"{one.microseconds:.1f}", asked, f"{one.trips:.2f}", style=_bold(one.name))
    return made


def _outages(figures: Figures) -> Table:
    made = table(
        "What an outage adds to a request, in ms",
        ("server", "limiter", "what comes of it"),
        ("at first", "max", "later", "p99", "max"),
        "at first: the median of 3 requests of asgi-guard (timeout 50 ms), which then no longer asks but for a probe "
        "now and then; one request of others",
    )
    kind = ""
    for one in figures.outages:
        if one.kind != kind:
            made.add_section()
        later = tuple("" if value is None else f"{value:.3f}" for value in (one.later, one.later_p99, one.later_max))
        add(
            made, one.kind, one.name, one.outcome, f"{one.first:,.1f}", f"{one.first_max:,.1f}", *later,
            style=_bold(one.name),
        )  # fmt: skip
        kind = one.kind
    return made


def _stalls(figures: Figures) -> Table:
    made = table(
        "A server that stands still for a while, with a timeout of 50 ms",
        ("limiter", "what came of the calls"),
        ("calls", "charged", "charged twice", "seconds"),
        "each call is of another client, so that one charged more than once was charged for a call that was repeated",
    )
    for one in figures.stalls:
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in one.outcomes.items())
        add(
            made, one.name, outcomes, str(one.calls), str(one.charged), str(one.twice), f"{one.seconds:.2f}",
            style=_bold(one.name),
        )  # fmt: skip
    return made


def _flushes(figures: Figures) -> Table:
    made = table(
        f"SCRIPT FLUSH under load, at {TASKS} tasks, every {BETWEEN_FLUSHES * 1000:.0f} ms",
        ("limiter",), ("checks", "failed", "flushes", "failed of a turn"),
    )  # fmt: skip
    for one in figures.flushes:
        add(
            made, one.name, f"{one.checks:,}", str(one.failed), str(one.flushes), share(one.share),
            style=_bold(one.name),
        )  # fmt: skip
    return made


def share(value: Interval) -> str:
    """A share in hundredths, and its interval, where it was taken more than once and is not the same each time."""
    spread = f" ({value.low:.1%} to {value.high:.1%})" if value.low < value.high else ""
    return f"{value.median:.1%}{spread}"


def _admitted(figures: Figures) -> Table:
    made = table(
        "Asked as fast as can be, at 10 a second of which 10 at once",
        ("limiter",),
        ("asked", "admitted", "capacity + rate * t"),
        "a fixed window may admit twice its limit where two windows meet; that is how it is meant",
    )
    for one in figures.admitted:
        add(made, one.name, str(one.asked), str(one.admitted), f"{one.allowed:.1f}", style=_bold(one.name))
    return made
