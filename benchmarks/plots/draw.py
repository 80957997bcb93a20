"""Which pictures there are, and of which suite each is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.plots import layers, others
from benchmarks.plots.style import LackingError, missing, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.figures import Results, Suite

PICTURES: dict[str, tuple[str, Callable[[Suite], Any]]] = {
    "throughput": ("server", others.throughput),
    "waterfall": ("layers", layers.waterfall),
    "latency": ("layers", layers.distribution),
    "concurrency": ("limits", others.concurrency),
    "scale": ("scale", others.scale),
    "memory": ("memory", others.memory),
}
"""By name: of which suite, and what draws it."""


class UndrawableError(Exception):
    """Nothing can be drawn here. The text says what is missing."""


def draw(results: Results, folder: Path) -> tuple[list[Path], dict[str, str]]:
    """Draw every picture whose suite was measured: the files, and why of such a suite a picture is not drawn, by name.

    Raises:
        UndrawableError: matplotlib is not installed.
    """
    why = missing()
    if why is not None:
        raise UndrawableError(why)
    paths: list[Path] = []
    lacking: dict[str, str] = {}
    for name, (of, picture) in PICTURES.items():
        suite = results.suite(of)
        if suite is None or not suite.figures:
            continue
        try:
            paths += write(picture(suite), folder, name)
        except LackingError as error:
            lacking[name] = f"the results of {of} have no {error}"
    return paths, lacking
