"""The figures of whole requests, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.limits.tables import COMPARE, show_machine, table

if TYPE_CHECKING:
    from rich.console import Console

    from benchmarks.server.run import Cell, Compared, Figures

NAMES = {
    "bare": "the app alone",
    "guard": "asgi-guard",
    "assembly": "packages of today",
    "article": "the article's stack",
}
"""The stacks, as people read them."""


def show(console: Console, figures: Figures) -> None:
    """Print everything."""
    show_machine(console, figures.machine)
    console.print(", ".join(f"{name} {number}" for name, number in figures.packages.items()))
    pinned = "the server on one core, the load on the others" if figures.pinned else "nothing is pinned to cores"
    console.print(
        f"Load by {figures.load}, {figures.budget.connections} connections; {pinned}; garbage collector "
        f"{figures.collector}; {figures.store}.",
        highlight=False,
    )
    for compared in figures.settings:
        console.print(_table(compared, figures.budget.rounds))
    for name, reason in figures.skipped.items():
        console.print(f"not measured: {NAMES[name]}: {reason} (pip install 'asgi-guard\\[bench]')", highlight=False)
    console.print(COMPARE)


def _table(compared: Compared, rounds: int) -> object:
    made = table(
        compared.name, ("stack",), ("CPU us", "bare / it", "95 %", "requests/s", "p50 ms", "p95 ms", "p99 ms"),
        "CPU us: of the server's process, a request. bare / it: the median ratio over\n"
        f"{rounds} interleaved rounds, and its bootstrap interval.\n"
        f"Asked of asgi-guard: at least {compared.asked:.2f}.",
    )  # fmt: skip
    for cell in compared.cells:
        made.add_row(*_row(cell), style="bold" if cell.stack == "guard" else None)
    return made


def _row(cell: Cell) -> tuple[str, ...]:
    ratio = (
        ("", "")
        if cell.stack == "bare"
        else (f"{cell.ratio.median:.2f}", f"{cell.ratio.low:.2f}-{cell.ratio.high:.2f}")
    )
    speed = (f"{cell.per_second:,.0f}", f"{cell.p50:.1f}", f"{cell.p95:.1f}", f"{cell.p99:.1f}")
    return (NAMES[cell.stack], f"{cell.cpu:.0f}", *ratio, *speed)
