"""Instructions of whole requests: what a server process executes for one, bare, guarded and with others' stacks.

They are the same from run to run within a thousandth, on a busy machine too, where times move by a tenth. So they tell
what times only suggest: how much of a stack's cost is the server's own, for lines of headers that somebody adds. What
the kernel does is not in them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from asgi_guard.testing import LocalIssuer
from benchmarks import peers, subjects
from benchmarks.figures import Figure, Suite
from benchmarks.interval import Interval
from benchmarks.server.load import Connection, request_of
from benchmarks.server.process import NEEDED, serving
from benchmarks.server.serve import Served
from benchmarks.server.tables import BARE, GUARD, HEADERS_ALONE, LEAST, NAMES, RATIO
from benchmarks.sheet import Sheet, number

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

COUNT: Literal["instructions"] = "instructions"
CONNECTIONS = 32
WARM, COUNTED = 4, 32
"""Requests of each connection that are not counted, and that are."""
STACKS = {"raw": (BARE, LEAST, GUARD), "fastapi": (BARE, LEAST, GUARD, "assembly")}
"""Without the article's: so slow a process cannot make its client in the time that this has for its first fetch."""
APPS = {"raw": "raw ASGI app", "fastapi": "FastAPI"}
SECONDS = {"raw": 30.0, "fastapi": 80.0}
"""That a stack around it takes."""


def expected(apps: Sequence[str]) -> float:
    """About how many seconds it takes."""
    return sum(len(STACKS[app]) * SECONDS[app] for app in apps)


def measure(apps: Sequence[str], advance: Callable[[str, float], None]) -> Suite:
    """Count.

    Args:
        apps: around which apps, by their names in `subjects.BARE`.
        advance: is told what is counted, and the seconds that it took.
    """
    if shutil.which("valgrind") is None:
        return Suite("counted", [], skipped={"instructions": "valgrind is not installed"})
    if (why := subjects.not_installed(NEEDED)) is not None:
        return Suite("counted", [], skipped={"servers": why})
    figures: list[Figure] = []
    skipped = {NAMES[name]: why for app in apps for name in STACKS[app] if (why := peers.absence(name)) is not None}
    skipped |= {APPS[app]: why for app in apps if (why := subjects.absence(app)) is not None}
    issuer = LocalIssuer()
    with issuer.serve():
        token = issuer.token(lifetime=24 * 3600)
        for app in (app for app in apps if APPS[app] not in skipped):
            bare = 0.0
            for stack in (each for each in STACKS[app] if peers.absence(each) is None):
                started = time.monotonic()
                found = _of_a_request(Served(app, stack, None, issuer.url, issuer.audience, None), token)
                advance(f"counted: {APPS[app]}", time.monotonic() - started)
                bare = bare or found
                figures.append(Figure((APPS[app], stack, COUNT), COUNT, Interval.of([found])))
                if stack != BARE:
                    figures.append(Figure((APPS[app], stack, RATIO), "x", Interval.of([bare / found]), more=True))
    method = {
        "counter": "valgrind's callgrind, the whole process: the kernel's part is not in it",
        "load": f"a process in Python, {CONNECTIONS} connections; {CONNECTIONS * COUNTED} requests are counted",
    }
    return Suite("counted", figures, method, skipped)


def _of_a_request(served: Served, token: str) -> float:
    """Instructions of a request, once the server has started and warmed up."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        counting = [_found("valgrind"), "--tool=callgrind", f"--callgrind-out-file={out}", f"--log-file={folder}/log"]
        with serving(served, token, under=counting) as server, ExitStack() as stack:
            request = request_of(f"{subjects.PATH}?{subjects.QUERY}", subjects.headers(token))
            opened = [Connection(server.port, request) for _ in range(CONNECTIONS)]
            for each in opened:
                stack.callback(each.socket.close)
            _ask(opened, WARM)
            _tell(server.pid, "zero")
            _ask(opened, COUNTED)
            _tell(server.pid, "dump")
            (dumped,) = out.parent.glob("out.*")
            return read(dumped.read_text()) / (CONNECTIONS * COUNTED)


def _ask(opened: Sequence[Connection], rounds: int) -> None:
    """Take the answers that are due, and ask again, so many times."""
    for _ in range(rounds):
        for each in opened:
            each.finish()
            each.send()


def _tell(pid: int, command: str) -> None:
    """Have callgrind forget what it has counted, or write it down."""
    subprocess.run([_found("vgdb"), f"--pid={pid}", command], check=True, capture_output=True, timeout=60)


def _found(program: str) -> str:
    """Where it is: valgrind brings both of them."""
    path = shutil.which(program)
    assert path is not None, f"{program} is not installed"
    return path


def read(dump: str) -> int:
    """The number of instructions, in what callgrind wrote down."""
    found = re.search(r"^(?:totals|summary): (\d+)", dump, re.MULTILINE)
    assert found, dump[-2000:]
    return int(found[1])


def sheets(suite: Suite) -> list[Sheet]:
    """The tables: one an app."""
    return [_sheet(suite, app) for app in suite.names(0)]


def _sheet(suite: Suite, app: str) -> Sheet:
    rows = []
    bare = suite.find(app, BARE, COUNT)
    for stack in suite.names(1, app):
        found, ratio = suite.find(app, stack, COUNT), suite.find(app, stack, RATIO)
        added = None if found is None or bare is None or stack == BARE else found.median - bare.median
        rows.append(
            [
                NAMES[stack],
                "" if found is None else number(found.median),
                "" if added is None else number(added),
                "" if ratio is None else f"{ratio.median:.3f}",
            ]
        )
    return Sheet(
        f"Instructions of whole requests: {app}, embedded store", ("stack",), (COUNT, "more than bare", RATIO), rows,
        f"Of the server's process, a request; the kernel's are not counted. {HEADERS_ALONE}",
        frozenset({NAMES[GUARD]}),
    )  # fmt: skip
