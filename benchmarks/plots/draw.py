"""Which pictures there are, and of which suite each is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.plots import layers, others
from benchmarks.plots.style import missing, write

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


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw every picture whose suite was measured.

    Raises:
        UndrawableError: matplotlib is not installed.
    """
    why = missing()
    if why is not None:
        raise UndrawableError(why)
    paths: list[Path] = []
    for name, (of, picture) in PICTURES.items():
        suite = results.suite(of)
        if suite is not None and suite.figures:
            paths += write(picture(suite), folder, name)
    return paths
