"""Count, compare with what was recorded, and say whether it has grown.

1. Under valgrind's callgrind, instructions are counted: they are the same from run to run within a thousandth, on
   a busy machine too. They are compared with the figure of this very build of Python, since another compiles to others.
2. Without valgrind, or with a Python that callgrind cannot find its way in, or that has no recorded figure, times are
   compared instead: those of guarded requests beside those of a fixed piece of work, in turns. Machines differ in such
   ratios, and busy ones from themselves, so the margin is wide: only what makes a request twice as slow is found surely
   where the ratio was recorded, and less elsewhere.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.calls import discarded_output
from benchmarks.instructions import hot
from benchmarks.rounds import yardstick

BASELINE = Path(__file__).with_name("baseline.json")
COUNTED = "instructions a guarded request"
TIMED = "time of a guarded request / time of a fixed piece of work"
REQUESTS = 200
MARGIN = 1.15
"""What instructions may grow to."""
RATIO_MARGIN = 2.0
"""What the ratio of times may grow to."""
ROUNDS = 31
TIMEOUT = 600


class UncountedError(Exception):
    """Instructions cannot be counted here. The text is the reason."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found, beside what was recorded.

    Attributes:
        what: the figure's name.
        found: now.
        recorded: in the baseline.
        margin: the factor that it may grow by.
        note: why it is not instructions that are compared; empty if it is they.
    """

    what: str
    found: float
    recorded: float
    margin: float
    note: str = ""

    @property
    def grown(self) -> bool:
        """Whether it is more than it may be."""
        return self.found > self.recorded * self.margin

    def __str__(self) -> str:
        change, most = self.found / self.recorded - 1, self.margin - 1
        verdict = "too much" if self.grown else "good"
        held = f"recorded {_number(self.recorded)}, {change:+.1%}, at most {most:+.0%}: {verdict}"
        return "\n".join(filter(None, [self.note, f"{self.what}: {_number(self.found)}; {held}"]))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value > 100 else f"{value:.2f}"


def build() -> str:
    """This build of Python: its version, and the compiler that it was made with."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{python} {platform.machine()}, {platform.python_compiler()}"


def counted(requests: int = REQUESTS) -> float:
    """Instructions a request."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise UncountedError("valgrind is not installed")
    options = ["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=functools_reduce"]
    process = [sys.executable, "-m", "benchmarks.instructions.hot", str(requests)]
    ended = subprocess.run(
        [valgrind, *options, f"--callgrind-out-file={os.devnull}", *process],
        capture_output=True, text=True, check=False, timeout=TIMEOUT, env={**os.environ, "PYTHONHASHSEED": "0"},
    )  # fmt: skip
    if ended.returncode:
        raise RuntimeError(f"the counted process failed:\n{ended.stderr[-4000:]}")
    return read(ended.stderr, requests)


def read(said: str, requests: int) -> float:
    """Instructions a request, in what callgrind said."""
    found = re.search(r"Collected : (\d+)", said)
    if found is None or int(found[1]) == 0:
        raise UncountedError("callgrind does not find functools_reduce in this Python")
    return int(found[1]) / requests


def timed(rounds: int = ROUNDS, requests: int = REQUESTS) -> float:
    """The time of a guarded request, as a multiple of a fixed piece of work's: the median over interleaved rounds."""
    ratios = []
    with discarded_output():
        serve = hot.prepared()
        for _ in range(rounds):
            started = time.perf_counter()
            for _ in range(requests):
                yardstick()
            middle = time.perf_counter()
            for _ in range(requests):
                serve(None, None)
            ratios.append((time.perf_counter() - middle) / (middle - started))
    return statistics.median(ratios)


def check(baseline: Path = BASELINE) -> Finding:
    """Compare this tree with what was recorded."""
    recorded: dict[str, Any] = json.loads(baseline.read_bytes())
    known = recorded["instructions"].get(build())
    try:
        found = counted()  # without a recorded figure too: whether one can be recorded here is part of the answer
    except UncountedError as error:
        why = str(error)
    else:
        if known is not None:
            return Finding(COUNTED, found, known, MARGIN)
        why = f"no figure is recorded for {build()}"
    return Finding(TIMED, timed(), recorded["ratio"], RATIO_MARGIN, f"{why}: times are compared instead")


def record(baseline: Path = BASELINE) -> Finding:
    """Write down the figures of this tree with this Python; those of other builds stay."""
    found = counted()
    held: dict[str, Any] = json.loads(baseline.read_bytes()) if baseline.exists() else {"instructions": {}}
    held["instructions"][build()] = round(found)
    document = {"schema": 1, "instructions": held["instructions"], "ratio": round(timed(), 2)}
    baseline.write_text(json.dumps(document, indent=2) + "\n")
    return Finding(COUNTED, found, round(found), MARGIN)
