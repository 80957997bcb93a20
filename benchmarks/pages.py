"""Tables in pages: what stands between `<!-- figures: NAME -->` and `<!-- end -->` is replaced by what was measured."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks import figures
from benchmarks.figures import UnreadableError, merged, read, suites_in
from benchmarks.layers.around import GUARD as WHOLE
from benchmarks.layers.run import ADDS, TITLES
from benchmarks.limits import peers
from benchmarks.limits import suite as limits
from benchmarks.limits.contenders import OURS
from benchmarks.limits.faults import BETWEEN_FLUSHES
from benchmarks.limits.tables import share
from benchmarks.server.tables import BARE, CPU, GUARD, LEAST, NAMES, RATIO
from benchmarks.sheet import Sheet, asked, both, number, plain, warned
from benchmarks.suites import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from benchmarks.figures import Results, Suite

PAGES = ("README.md", "docs/benchmarks.md")
KEPT = "docs/benchmarks.json"
_REGION = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def write(results: Results, root: Path) -> Iterator[Path]:
    """Write the figures into the pages of a checkout, and as they are beside them; tell which files those are."""
    for name in PAGES:
        path = root / name
        path.write_text(filled(path.read_text("utf-8"), results), "utf-8")
        yield path
    kept = root / KEPT
    kept.write_bytes(replace(results, suites=[_short(suite) for suite in results.suites]).json(short=True))
    yield kept


def joined(results: Results, root: Path, *, mixed: bool = False) -> Results:
    """These results, and beside them the suites that are kept and that they lack.

    Args:
        results: just measured.
        root: of the checkout.
        mixed: whether what is kept may be of a machine that was not as fast.

    Raises:
        UnreadableError: what is kept cannot stand beside these, and would vanish.
    """
    kept = root / KEPT
    if not kept.exists():
        return results
    try:
        return merged([read(kept), results], mixed=mixed)
    except UnreadableError as error:
        measured = {suite.name for suite in results.suites if suite.figures}
        lost = [name for name in suites_in(kept) if name not in measured]
        if lost:
            text = f"these would take the place of {KEPT}, and lack what is there of {', '.join(lost)}: {error}"
            raise UnreadableError(text) from error
        return results


def hastened(results: Sequence[Results], root: Path) -> list[str]:
    """The suites of which a quick run would take the place of a full one, in the pages or among these results."""
    try:
        return figures.hastened([read(root / KEPT), *results])
    except UnreadableError:
        return figures.hastened(results)


def _short(suite: Suite) -> Suite:
    """The suite without what neither tables nor pictures need."""
    return replace(suite, details=None) if suite.name == "limits" else suite


def filled(page: str, results: Results) -> str:
    """The page with the figures of these results; what was not measured stays as it is."""

    def fill(found: re.Match[str]) -> str:
        text = _text(found[2], results)
        return found[0] if text is None else f"{found[1]}\n{text}\n\n{found[3]}"

    return _REGION.sub(fill, page)


def _text(name: str, results: Results) -> str | None:
    if name == "machine":
        return _machine(results)
    if name == "asked":
        return _asked(results)
    if name == "headers":
        return _headers(results)
    if name == "summary":
        return _summary(results)
    if name == "faults":
        return _faults(results)
    suite = results.suite(name)
    if suite is None or not suite.figures:
        return None
    (kind,) = (kind for kind in KINDS if kind.name == name)
    parts = [sheet.markdown() for sheet in kind.sheets(suite)]
    parts += [f"Not measured: {who}: {why}." for who, why in suite.skipped.items()]
    parts.append("\n".join(f"- {what}: {text}" for what, text in suite.method.items()))
    return "\n\n".join(parts)


def _machine(results: Results) -> str:
    machine = results.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    hurried = results.hurried()
    pace = f" Of a quick run, so less steady: {', '.join(hurried)}." if hurried else ""
    return (
        f"{machine.cpu}, {machine.cores} cores, {machine.system}, {machine.python}; {versions}. The yardstick, a fixed "
        f"piece of work, took {_yards(results)} µs.{pace}"
    )


def _yards(results: Results) -> str:
    found = [suite.yardstick.cpu.median for suite in results.suites if suite.yardstick is not None]
    return f"from {min(found):.1f} to {max(found):.1f}, suite by suite," if found else "an unknown number of"


def _asked(results: Results) -> str | None:
    every = [replace(figure, of=(suite.name, *figure.of)) for suite in results.suites for figure in suite.figures]
    sheet = asked(every)
    if sheet is None:
        return None
    verdicts = [row[-1] for row in sheet.rows]
    return (
        f"{sheet.markdown()}\n\nOf {len(verdicts)} figures that are asked, {verdicts.count('NOT reached')} are not "
        f"reached, and {verdicts.count('undecided')} undecided: the target lies inside the figure's interval."
    )


def _headers(results: Results) -> str | None:
    """How near its headers alone come to what is asked of the guard, in time, what they leave, and in instructions."""
    server, counted = results.suite("server"), results.suite("counted")
    if server is None or counted is None:
        return None
    found = [
        f"- {figure.of[0]}: {both(alone)} of the CPU time, where {number(figure.asked)} is asked of the guard"
        f"{_room(server, figure.of[0], figure.asked)}"
        for figure in server.figures
        if figure.asked is not None and (alone := server.find(figure.of[0], LEAST, RATIO)) is not None
    ]
    found += [
        f"- {app}: {alone.median:.3f} of the instructions"
        for app in counted.names(0)
        if (alone := counted.find(app, LEAST, RATIO)) is not None
    ]
    return "\n".join(found)


def _room(server: Suite, setting: str, asked: float) -> str:
    """What its headers alone leave of the time that the guard may take, by the medians; and whether chance decides."""
    bare, alone, ratio = (server.find(setting, *of) for of in ((BARE, CPU), (LEAST, CPU), (LEAST, RATIO)))
    if bare is None or alone is None or ratio is None:
        return ""
    room = bare.median / asked - alone.median
    left = f"{number(room)} µs are left for all else" if room > 0 else f"{number(-room)} µs too many without all else"
    chance = "; its interval holds what is asked" if ratio.low < asked < ratio.high else ""
    may = f"where the guard may take {number(bare.median / asked)}"
    return f": by the medians {number(alone.median)} µs, {may}, so {left}{chance}"


def _summary(results: Results) -> str | None:
    server, layers = results.suite("server"), results.suite("layers")
    if server is None or layers is None:
        return None
    added = [
        f"{number(value.median)} to {TITLES[app]}"
        for app in TITLES
        if (value := layers.find(app, WHOLE, ADDS)) is not None
    ]
    return (
        f"{_ratios(server).markdown()}\n\nTaken {server.method['taken']}.\n\nIn process, without a server, the whole "
        f"Guard adds, in microseconds of CPU time, as a mean of many requests: {', '.join(added)}. "
        f"Taken {layers.method['taken']}."
    )


def _faults(results: Results) -> str | None:
    """What becomes of a check while Redis is not well, beside the packages that one would take instead."""
    suite = results.suite("limits")
    if suite is None or not suite.names(1, limits.OUTAGE):
        return None
    who = (OURS, peers.FIXED.name, peers.THROTTLED.name)
    rows = [
        [f"Redis {kind}: a check waits, ms", *(_waited(suite, kind, name) for name in who)]
        for kind in reversed(suite.names(1, limits.OUTAGE))
    ]
    flushed = [suite.find(limits.FLUSHED, name) for name in who]
    if any(flushed):
        shares = ["" if value is None else share(value) for value in flushed]
        rows.append([f"scripts are flushed every {BETWEEN_FLUSHES * 1000:.0f} ms: checks that fail", *shares])
    taken = f"asgi-guard: the first checks, then those once it is known. {warned(flushed)}".strip()
    taken = f"{taken} Taken {suite.method['taken']}."
    return Sheet("While Redis is not well", ("what happens",), who, rows, taken).markdown()


def _waited(suite: Suite, kind: str, name: str) -> str:
    first, later = suite.find(limits.OUTAGE, kind, name), suite.find(limits.LATER, kind, name)
    return f"{plain(first)}, then {plain(later)}" if later is not None else plain(first)


def _ratios(server: Suite) -> Sheet:
    stacks = [name for name in NAMES if name != BARE]
    rows = []
    for setting in server.names(0):
        cpu = [server.find(setting, name, CPU) for name in (BARE, GUARD)]
        times = " / ".join(number(value.median) for value in cpu if value is not None)
        ratios = [server.find(setting, name, RATIO) for name in stacks]
        rows.append([setting, times, *("" if value is None else f"{value.median:.2f}" for value in ratios)])
    return Sheet(
        "The bare app's CPU time for a request, as a share of the stack's (1 would cost nothing)",
        ("one uvicorn worker",), ("µs, bare / guarded", *(NAMES[name] for name in stacks)), rows,
    )  # fmt: skip
