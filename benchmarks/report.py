"""The figures of the short run, as tables for people and as JSON for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import orjson
from rich.table import Table

from benchmarks.layers import BARE, GUARD
from benchmarks.limits import tables

if TYPE_CHECKING:
    from rich.console import Console

    from benchmarks.layers import Cost
    from benchmarks.limits.run import Brief
    from benchmarks.machine import Machine

SCHEMA = 1
"""Of the JSON. It goes up when a figure changes its name or its meaning."""


@dataclass(frozen=True, slots=True)
class Report:
    """All that one run found."""

    machine: Machine
    layers: list[Cost]
    limits: Brief

    def json(self) -> bytes:
        """The report as JSON. Times of layers are in microseconds, latencies in milliseconds."""
        return to_json({"schema": SCHEMA, **asdict(self)})

    def show(self, console: Console) -> None:
        """Print the tables."""
        tables.show_machine(console, self.machine)
        console.print(_layers(self.layers))
        tables.show_throughput(console, self.limits.checks, self.limits.server)
        console.print(tables.COMPARE)


def to_json(document: object) -> bytes:
    """A document for people to read too."""
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


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
