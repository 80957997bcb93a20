"""Measure what the guard costs on this machine, in well under a minute. Nothing but this machine is asked.

`limits` measures limits in depth, beside other limiters, in a few minutes; `server` whole requests,
beside other stacks.
"""

from __future__ import annotations

import asyncio
import os
import platform
import sys
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks import browser, layers, rounds
from benchmarks.figures import Results
from benchmarks.instructions import check as instructions
from benchmarks.limits import run as limits
from benchmarks.limits import tables
from benchmarks.machine import Machine
from benchmarks.report import Report, to_json
from benchmarks.server import run as server
from benchmarks.server import tables as server_tables
from benchmarks.suites import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.suites import Kind

LAYERS_SHARE = 0.6
"""The part of the time that the layers get; the limits get the rest."""
WIDTH = 120
"""Of what is printed to something that is no terminal, and so has no width."""


@contextmanager
def bar(console: Console | None = None) -> Iterator[Progress]:
    """A progress bar, on standard error unless something else is given."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console or Console(stderr=True), transient=True) as progress:
        yield progress


def run(seconds: float, *, store: str | None = None, calls: int = 200, console: Console | None = None) -> Report:
    """Measure the layers, and limits briefly, with a progress bar.

    Args:
        seconds: for about how long.
        store: the URL of the server to measure limits against; None starts one.
        calls: requests to each app in a round.
        console: where the progress bar goes; standard error unless given.
    """
    with bar(console) as progress:
        task = progress.add_task("layers", total=seconds)

        def advance(passed: float) -> None:
            progress.advance(task, passed)

        costs = asyncio.run(layers.measure(seconds * LAYERS_SHARE, calls, advance))
        progress.update(task, description="limits")
        brief = limits.brief(store, seconds * (1 - LAYERS_SHARE), advance)
    return Report(Machine.here(), costs, brief)


def run_limits(store: str | None, budget: limits.Budget, console: Console | None = None) -> limits.Figures:
    """Measure limits in depth, with a progress bar.

    Args:
        store: the URL of the server to measure throughput against; None starts one.
        budget: how much is measured.
        console: where the progress bar goes; standard error unless given.
    """
    with bar(console) as progress:

        def begin(seconds: float) -> Callable[[str, float], None]:
            task = progress.add_task("limits", total=seconds)
            return lambda name, passed: progress.update(task, description=name, advance=passed)

        return limits.measure(store, budget, begin)


@click.group(help=__doc__, invoke_without_command=True)
@click.option("--quick", is_flag=True, help="Take about ten seconds, for figures that are less steady.")
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here too.")
@click.option("--store", metavar="URL", help="A Redis or Valkey to measure against; one is started unless given.")
@click.pass_context
def main(context: click.Context, *, quick: bool, path: Path | None, store: str | None) -> None:
    """Run from the command line."""
    for name in tuple(os.environ):
        if name.startswith("ASGI_GUARD_"):
            del os.environ[name]  # what is measured shall not depend on the caller's configuration
    if context.invoked_subcommand is not None:
        if quick or path is not None or store is not None:
            raise click.UsageError(f"options of {context.invoked_subcommand!r} stand after its name")
        return
    report = run(9 if quick else 36, store=store)
    report.show(printer())
    if path is not None:
        path.write_bytes(report.json())


@main.command("limits")
@click.option("--quick", is_flag=True, help="Take less than a minute, for figures that are less steady.")
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here too.")
@click.option("--store", metavar="URL", help="A Redis or Valkey for the throughput; one is started unless given.")
def limits_command(*, quick: bool, path: Path | None, store: str | None) -> None:
    """Measure limits beside other limiters: throughput, memory, refusals, faults.

    Those that are not installed are left out, by name. A server given by --store is asked for checks only: it is never
    emptied, stopped or filled, and every key is taken away again.
    """
    figures = run_limits(store, limits.QUICK if quick else limits.FULL)
    tables.show(printer(), figures)
    if path is not None:
        path.write_bytes(to_json(asdict(figures)))


@main.command("server")
@click.option("--quick", is_flag=True, help="Take about a minute, for figures that are less steady.")
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here too.")
@click.option("--store", metavar="URL", help="A Redis or Valkey; one is started unless given.")
def server_command(*, quick: bool, path: Path | None, store: str | None) -> None:
    """Measure whole requests under uvicorn: the app alone, guarded, and with others' stacks."""
    if platform.system() != "Linux":
        raise click.UsageError("it reads the CPU time of other processes, which it can do on Linux only")
    budget = server.QUICK if quick else server.FULL
    with bar() as progress:
        task = progress.add_task("server", total=budget.total())
        figures = server.measure(
            store, budget, lambda name, passed: progress.update(task, description=name, advance=passed)
        )
    server_tables.show(printer(), figures)
    if path is not None:
        path.write_bytes(to_json(asdict(figures)))


@main.command("instructions")
@click.option("--record", is_flag=True, help="Write this Python's figures down, in place of comparing.")
def instructions_command(*, record: bool) -> None:
    """Count the instructions of a guarded request, and fail where they have grown by more than 15 %."""
    try:
        found = instructions.record() if record else instructions.check()
    except instructions.UncountedError as error:
        raise click.ClickException(f"{error}: nothing can be recorded here") from error
    click.echo(found)
    if found.grown:
        raise click.ClickException("a request costs more than it did: make it cheaper, or record what it is worth")


@main.command("browser")
@click.option("--quick", is_flag=True, help="Take some seconds, for figures that are less steady.")
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here too.")
def browser_command(*, quick: bool, path: Path | None) -> None:
    """Measure CORS and security headers, beside Starlette's CORS."""
    seconds = 3.0 if quick else 15.0
    with bar() as progress:
        task = progress.add_task("browser", total=seconds)
        figures = browser.measure(seconds, 200, lambda passed: progress.advance(task, passed))
    browser.show(printer(), figures)
    if path is not None:
        path.write_bytes(to_json([asdict(figure) for figure in figures]))


def run_suites(
    kinds: Sequence[Kind], *, quick: bool, store: str | None = None, console: Console | None = None
) -> Results:
    """Measure suites, one after the other, with a progress bar.

    Args:
        kinds: the suites.
        quick: whether to take little time, for figures that are less steady.
        store: the URL of a Redis or Valkey to measure against; None starts one.
        console: where the progress bar goes; standard error unless given.
    """
    yards = rounds.yards()
    with bar(console) as progress:
        task = progress.add_task("", total=sum(kind.seconds(quick) for kind in kinds))
        found = []
        for kind in kinds:
            found.append(
                kind.measure(quick, store, lambda name, passed: progress.update(task, description=name, advance=passed))
            )
            yards += rounds.yards()
    return Results.of(found, yards, quick=quick)


def show(console: Console, results: Results) -> None:
    """Print the tables of everything that was measured."""
    tables.show_machine(console, results.machine)
    for kind in KINDS:
        suite = results.suite(kind.name)
        if suite is None:
            continue
        for sheet in kind.sheets(suite):
            console.print(sheet.rich())
        for name, reason in suite.skipped.items():
            console.print(f"not measured: {name}: {reason} (pip install 'asgi-guard\\[bench]')", highlight=False)
        console.print(f"{suite.name}: {'; '.join(f'{name}: {text}' for name, text in suite.method.items())}.")
    console.print(tables.COMPARE)


def _command(kind: Kind) -> click.Command:
    def command(*, quick: bool, path: Path | None, store: str | None) -> None:
        results = run_suites([kind], quick=quick, store=store)
        show(printer(), results)
        if path is not None:
            path.write_bytes(results.json())

    options = (
        click.option(
            "--quick", is_flag=True, help=f"Take about {kind.seconds(True):.0f} s and not {kind.seconds(False):.0f}."
        ),
        click.option(
            "--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here too."
        ),
        click.option(
            "--store", metavar="URL", help="A Redis or Valkey to measure against; one is started unless given."
        ),
    )
    for option in options:
        command = option(command)
    return click.command(kind.name, help=kind.help)(command)


for _kind in KINDS:
    main.add_command(_command(_kind))


def printer() -> Console:
    """Standard output, wide enough for the tables where it is a file or a pipe."""
    return Console(width=None if sys.stdout.isatty() else WIDTH)


if __name__ == "__main__":
    main()
