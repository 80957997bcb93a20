"""Measure what the guard costs on this machine, in well under a minute. Nothing but this machine is asked."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks import layers, limits
from benchmarks.machine import Machine
from benchmarks.report import Report

LAYERS_SHARE = 0.6
"""The part of the time that the layers get; the limits get the rest."""


def run(seconds: float, *, store: str | None = None, calls: int = 200, console: Console | None = None) -> Report:
    """Measure everything, with a progress bar.

    Args:
        seconds: for about how long.
        store: the URL of the server to measure limits against; None starts one.
        calls: requests to each app in a round.
        console: where the progress bar goes; standard error unless given.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console or Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("layers", total=seconds)

        def advance(passed: float) -> None:
            progress.advance(bar, passed)

        costs = asyncio.run(layers.measure(seconds * LAYERS_SHARE, calls, advance))
        progress.update(bar, description="limits")
        measured = limits.measure(store, seconds * (1 - LAYERS_SHARE), advance)
    return Report(Machine.here(), costs, measured)


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="Take about ten seconds, for figures that are less steady.")
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here too.")
@click.option("--store", metavar="URL", help="A Redis or Valkey to measure against; one is started unless given.")
def main(*, quick: bool, path: Path | None, store: str | None) -> None:
    """Run from the command line."""
    for name in tuple(os.environ):
        if name.startswith("ASGI_GUARD_"):
            del os.environ[name]  # what is measured shall not depend on the caller's configuration
    report = run(9 if quick else 36, store=store)
    report.show(Console())
    if path is not None:
        path.write_bytes(report.json())


if __name__ == "__main__":
    main()
