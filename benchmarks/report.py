"""The figures, as tables for people and as JSON for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import orjson
from rich.table import Table

from benchmarks.layers import BARE, GUARD

if TYPE_CHECKING:
    from rich.console import Console

    from benchmarks.layers import Cost
    from benchmarks.limits import Measured
    from benchmarks.machine import Machine


@dataclass(frozen=True, slots=True)
class Report:
    """All that one run found."""

    machine: Machine
    layers: list[Cost]
    limits: Measured

    def json(self) -> bytes:
        """The report as JSON. Times of layers are in microseconds, latencies in milliseconds."""
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    def show(self, console: Console) -> None:
        """Print the tables."""
        machine = self.machine
        console.print(f"[bold]{machine.cpu}[/], {machine.cores} cores (load {machine.load}), {machine.system}")
        versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
        console.print(f"{machine.python}, {versions}")
        console.print(_layers(self.layers))
        console.print(_limits(self.limits))
        console.print(
            "These figures are of this machine, at this moment. Compare them with figures of the same run only."
        )


def _layers(costs: list[Cost]) -> Table:
    table = Table(
        "layer", title="What a layer adds to a request, in microseconds", title_justify="left", title_style="bold"
    )
    for heading in ("takes", "adds", "quartiles"):
        table.add_column(heading, justify="right", no_wrap=True)
    for cost in costs:
        if cost.name == GUARD:
            table.add_section()
        added = ("", "") if cost.name == BARE else (f"{cost.added:.1f}", f"{cost.low:.1f} - {cost.high:.1f}")
        table.add_row(cost.name, f"{cost.total:.1f}", *added, style="bold" if cost.name == GUARD else None)
    table.caption = "each layer alone around the app, then all ten in one Guard; raw ASGI calls, no server"
    table.caption_justify = "left"
    return table


def _limits(measured: Measured) -> Table:
    table = Table(title="A check of two limits and a revocation", title_justify="left", title_style="bold")
    headings = ("tasks", "checks/s", "p50 ms", "p95 ms", "p99 ms", "client CPU us", "in server us")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for latency in measured.latencies:
        table.add_row(
            str(latency.tasks),
            f"{latency.per_second:,.0f}",
            f"{latency.p50:.2f}",
            f"{latency.p95:.2f}",
            f"{latency.p99:.2f}",
            f"{latency.client_cpu:.0f}",
            f"{latency.server:.1f}",
        )
    table.caption = f"one process; {measured.server}"
    table.caption_justify = "left"
    return table
