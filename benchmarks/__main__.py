"""Measure what the guard costs on this machine, beside nothing, beside others and beside itself.

Without the name of a suite all of them are measured: about thirty-five minutes, or with --quick less than one. Nothing
but this machine is asked. Peers that are not installed are left out, by name: pip install 'asgi-guard[bench]'.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks import compare, figures, pages, rounds
from benchmarks.figures import Results, Suite, Yardstick
from benchmarks.instructions import check as instructions
from benchmarks.interval import Interval
from benchmarks.limits.servers import NoServerError, target
from benchmarks.machine import code
from benchmarks.plots.draw import PICTURES, UndrawableError, draw
from benchmarks.rollout import run as rollout
from benchmarks.sheet import say
from benchmarks.suites import KINDS, ROLLOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.machine import Machine
    from benchmarks.suites import Kind, Pace

WIDTH = 140
"""Of what is printed to something that is no terminal, and so has no width."""
COMPARE = "These figures are of this machine, at this moment. Compare with figures of the same run only."
FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
STORE = "A Redis or Valkey to ask; one is started unless given."
MIXED = click.option(
    "--mixed",
    is_flag=True,
    help=f"Put files together though the machine was more than {figures.APART:g} times as slow for some as for others.",
)


@contextmanager
def bar(console: Console | None = None) -> Iterator[Progress]:
    """A progress bar, on standard error unless something else is given."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console or Console(stderr=True), transient=True) as progress:
        yield progress


def run(
    kinds: Sequence[Kind],
    pace: Pace,
    store: str | None = None,
    console: Console | None = None,
    keep: Callable[[Results], object] = lambda _: None,
) -> Results:
    """Measure suites, one after the other, with a progress bar. One that breaks off keeps no other from its turn.

    Args:
        kinds: the suites.
        pace: how much time is taken.
        store: the URL of a Redis or Valkey to measure against; None starts one.
        console: where the progress bar goes; standard error unless given.
        keep: is given what there is after each suite, so that nothing is lost with a later one.
    """
    found: list[Suite] = []
    results = Results.of(found, quick=pace != "full")
    with bar(console) as progress:
        task = progress.add_task("", total=sum(kind.seconds(pace) for kind in kinds))

        def told(name: str, passed: float) -> None:
            progress.update(task, description=name, advance=passed)

        for kind in kinds:
            told(kind.name, 0)
            found.append(_suite(kind, pace, store, told))
            results = Results.of(found, quick=pace != "full")
            keep(results)
    return results


def _suite(kind: Kind, pace: Pace, store: str | None, advance: Callable[[str, float], object]) -> Suite:
    """Measure a suite, and the yardstick between its rounds; one that needs what is not here is left out, by name."""
    began, commit = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {'in full' if pace == 'full' else pace}", code()
    yards = rounds.Yards()
    yards.take()

    def told(name: str, passed: float) -> None:
        advance(name, passed)
        yards.take()

    try:
        suite = kind.measure(pace, store, told)
    except NoServerError as error:
        return Suite(kind.name, [], skipped={kind.name: str(error)})
    except Exception as error:  # noqa: BLE001 - whatever a suite raises, the others are measured
        return Suite(kind.name, [], skipped={kind.name: f"it broke off: {_told(error)}"}, failed=True)
    yardstick = Yardstick(Interval.of(yards.cpu), Interval.of(yards.wall))
    method = {
        **suite.method,
        "yardstick": f"{yardstick.cpu} us of CPU time, {yardstick.wall} us by the clock on the wall",
        "taken": f"{began}; the code is of {commit}",
    }
    return replace(suite, method=method, yardstick=yardstick)


def _told(error: Exception) -> str:
    """What was wrong, and where."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"{text} ({Path(where.filename).name}, line {where.lineno})"


def show(console: Console, results: Results) -> None:
    """Print everything that was measured just now."""
    show_machine(console, results.machine)
    for kind in (*KINDS, ROLLOUT):
        suite = results.suite(kind.name)
        if suite is None:
            continue
        console.rule(suite.name, align="left")
        if suite.figures and kind.show is not None:
            kind.show(console, suite)
        elif suite.figures:
            for sheet in kind.sheets(suite):
                console.print(sheet.rich())
        for name, reason in suite.skipped.items():
            say(console, f"not measured: {name}: {reason}")
        for name, text in suite.method.items():
            say(console, f": {text}", name=name)
    say(console, COMPARE)


def show_machine(console: Console, machine: Machine) -> None:
    """Print of what the figures are."""
    say(console, f", {machine.cores} cores (load {machine.load}), {machine.system}", name=machine.cpu)
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    say(console, f"{machine.python}, {versions}")


@click.group(help=__doc__, invoke_without_command=True)
@click.option("--quick", is_flag=True, help="Take less than a minute, for figures that are less steady.")
@click.option("--json", "path", type=FILE, help="Write the figures here too.")
@click.option("--store", metavar="URL", help=STORE)
@click.pass_context
def main(context: click.Context, *, quick: bool, path: Path | None, store: str | None) -> None:
    """Run from the command line."""
    for name in tuple(os.environ):
        if name.startswith("ASGI_GUARD_"):
            del os.environ[name]  # what is measured shall not depend on the caller's configuration
    if context.invoked_subcommand is None:
        _measure(KINDS, "brief" if quick else "full", path, store)
    elif quick or path is not None or store is not None:
        raise click.UsageError(f"options of {context.invoked_subcommand!r} stand after its name")


class _Kept:
    """The results of this run so far, kept in a file if one is given.

    Attributes:
        results: so far; None before the first suite is done.
        written: whether the file has results of this run.
        problem: why it has not all of them; empty if it has.
    """

    def __init__(self, path: Path | None) -> None:
        self.results: Results | None = None
        self.written = False
        self.problem = ""
        self._path = path

    def __call__(self, results: Results) -> None:
        """Keep these in the place of those before."""
        self.results = results
        if self._path is None:
            return
        try:
            self._path.write_bytes(results.json())
        except OSError as error:
            self.problem = f"{self._path}: {error.strerror}"
        else:
            self.written, self.problem = True, ""


def _measure(kinds: Sequence[Kind], pace: Pace, path: Path | None, store: str | None) -> Results:
    """Measure suites, and print and keep what they found: all of it, however it ends."""
    _check(path, store)
    kept = _Kept(path)
    try:
        results = run(kinds, pace, store, keep=kept)
    except KeyboardInterrupt:
        if kept.results is not None:
            show(printer(), kept.results)
        if kept.written:
            click.echo(f"{path} has the suites that were measured until then", err=True)
        raise
    show(printer(), results)
    failed = ", ".join(suite.name for suite in results.suites if suite.failed)
    problems = [f"suites that broke off: {failed}" if failed else "", kept.problem]
    if any(problems):
        raise click.ClickException("; ".join(filter(None, problems)))
    return results


def _check(path: Path | None, store: str | None) -> None:
    """Say before anything is measured that a file cannot be written, or that a store does not answer."""
    if path is not None:
        if not path.parent.is_dir():
            raise click.UsageError(f"--json: there is no folder {path.parent}")
        there = path.exists()
        try:
            path.open("ab").close()
            if not there:
                path.unlink()
        except OSError as error:
            raise click.UsageError(f"--json: {path}: {error.strerror}") from error
    if store is not None:
        try:
            with target(store):
                pass
        except (NoServerError, ValueError) as error:
            raise click.UsageError(f"--store: {error}") from error


def _command(kind: Kind) -> click.Command:
    times = f"Take about {kind.seconds('quick'):.0f} s, where else it is {kind.seconds('full'):.0f}."

    @click.command(kind.name, help=kind.help)
    @click.option("--quick", is_flag=True, help=times)
    @click.option("--json", "path", type=FILE, help="Write the figures here too.")
    @click.option("--store", metavar="URL", help=STORE)
    def command(*, quick: bool, path: Path | None, store: str | None) -> None:
        _measure([kind], "quick" if quick else "full", path, store)

    return command


for _kind in KINDS:
    main.add_command(_command(_kind))


@main.command("rollout", help=ROLLOUT.help)
@click.option("--quick", is_flag=True, help="One roll of each, in about two minutes.")
@click.option("--check", is_flag=True, help="One roll of the guarded side, and fail where a request does.")
@click.option("--json", "path", type=FILE, help="Write the figures here too.")
def rollout_command(*, quick: bool, check: bool, path: Path | None) -> None:
    """Count what fails while processes are replaced."""
    results = _measure([ROLLOUT], "brief" if check else "quick" if quick else "full", path, None)
    suite = results.suites[0]
    if check and (lost := rollout.lost(suite)):
        raise click.ClickException(f"requests were lost, or none answered: {', '.join(lost)}")


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


@main.command("compare")
@click.argument("before", type=FILE)
@click.argument("after", type=FILE)
@click.option(
    "--noise",
    type=click.FloatRange(0, 1),
    default=compare.NOISE,
    show_default=True,
    help="The share of a figure that is no difference.",
)
@click.option("--all", "everything", is_flag=True, help="Show every figure, not only those that differ.")
def compare_command(*, before: Path, after: Path, noise: float, everything: bool) -> None:
    """Say which figures of two JSON files differ by more than noise."""
    first, second = _read(before), _read(after)
    found = list(compare.differences(first, second, noise))
    if not found:
        raise click.ClickException(f"{before} and {after} have no figure in common")
    if everything or any(each.beyond for each in found):
        printer().print(compare.sheet(found, everything=everything).rich())
    for line in compare.notes(first, second, found, noise):
        click.echo(line)


@main.command("plot")
@click.argument("results", type=FILE, nargs=-1, required=True)
@click.option("--to", "folder", type=FOLDER, default="plots", show_default=True, help="Where the pictures go.")
@MIXED
def plot_command(*, results: tuple[Path, ...], folder: Path, mixed: bool) -> None:
    """Draw the figures of JSON files, as PNG and SVG: of a suite that is in several, the last. It needs matplotlib."""
    found = _read(*results, mixed=mixed)
    if not _draw(found, folder):
        pictured = ", ".join(sorted({suite for suite, _ in PICTURES.values()}))
        measured = ", ".join(suite.name for suite in found.suites if suite.figures) or "none"
        raise click.ClickException(f"nothing is drawn: there are pictures of {pictured}, and figures of {measured}")


def _draw(results: Results, folder: Path) -> int:
    """Draw, and say which files were written, and what is not drawn; how many files."""
    try:
        paths, lacking = draw(results, folder)
    except UndrawableError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error
    for path in paths:
        click.echo(path)
    for name, why in lacking.items():
        click.echo(f"not drawn: {name}: {why}", err=True)
    return len(paths)


@main.command("pages")
@click.argument("results", type=FILE, nargs=-1, required=True)
@click.option("--root", type=FOLDER, default=".", show_default=True, help="The checkout.")
@MIXED
def pages_command(*, results: tuple[Path, ...], root: Path, mixed: bool) -> None:
    """Put the figures of JSON files into README.md and docs/benchmarks.md, and the pictures into docs/plots.

    The figures themselves are kept in docs/benchmarks.json. Suites that are kept there and are in none of these files
    stay, if they are of the same machine, and it is as fast as it was.
    """
    try:
        found = pages.joined(_read(*results, mixed=mixed), root, mixed=mixed)
        for name in pages.hastened([figures.read(path) for path in results], root):
            click.echo(f"{name}: a quick run takes the place of a full one", err=True)
        for path in pages.write(found, root):
            click.echo(path)
    except figures.UnreadableError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error
    _draw(found, root / "docs" / "plots")


def _read(*paths: Path, mixed: bool = False) -> Results:
    try:
        return figures.merged([figures.read(path) for path in paths], mixed=mixed)
    except figures.UnreadableError as error:
        raise click.ClickException(str(error)) from error


def printer() -> Console:
    """Standard output, wide enough for the tables where it is a file or a pipe."""
    return Console(width=None if sys.stdout.isatty() else WIDTH)


def leave_on_signals() -> None:
    """Let what ends the process end what it started too: servers, and folders.

    That is SIGTERM, and SIGHUP as of a terminal that is closed, unless `nohup` has it ignored.
    """
    ends = [each for name in ("SIGTERM", "SIGHUP") if (each := getattr(signal, name, None)) is not None]

    def leave(number: int, _: object) -> None:
        for each in ends:  # a shell and its terminal may both tell of the same end, each in its way
            signal.signal(each, signal.SIG_IGN)
        sys.exit(128 + number)

    for each in ends:
        if each is signal.SIGTERM or signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, leave)


if __name__ == "__main__":
    leave_on_signals()
    main()
