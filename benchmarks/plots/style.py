"""How pictures look, and how they are written: as PNG and as SVG, the same bytes for the same figures."""

from __future__ import annotations

import importlib
import importlib.util
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

OURS, OTHERS, GREY, LIGHT, INK = "#0072b2", "#d55e00", "#8a8f98", "#d9dce1", "#1f2328"
LINES = (OURS, OTHERS, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#882255")
"""Colours that are told apart by people who see fewer colours, too: those of Okabe and Ito; ours first.

Their yellow is too pale on white, and a red of Tol's stands in its place.
"""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":")
LETTERS = 13.5
"""Of a note, in an inch."""
SETTINGS = {
    "font.family": "sans-serif", "font.size": 11, "axes.titlesize": 13, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY,
    "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK, "axes.grid": False,
    "figure.facecolor": "white", "savefig.facecolor": "white", "svg.fonttype": "none", "svg.hashsalt": "asgi-guard",
    "figure.constrained_layout.use": True,
}  # fmt: skip


class LackingError(Exception):
    """The results have not what a picture shows. The text says what is missing."""


def missing() -> str | None:
    """Why nothing can be drawn here, or None if it can."""
    if importlib.util.find_spec("matplotlib") is None:
        return "matplotlib is not installed: pip install 'asgi-guard[bench]'"
    return None


def canvas(width: float, height: float, columns: int = 1, **options: Any) -> tuple[Any, Any]:
    """A figure of so many inches, with its axes beside each other."""
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("agg")
    matplotlib.rcParams.update(SETTINGS)
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    return pyplot.subplots(1, columns, figsize=(width, height), **options)  # type: ignore[no-any-return]


def line(number: int) -> dict[str, Any]:
    """How the line of this number looks: none but by its colour only."""
    return {
        "color": LINES[number % len(LINES)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number % len(DASHES)],
    }


def note(figure: Any, text: str) -> None:
    """Some words below the picture, in as many lines as it is wide for."""
    wide = int(figure.get_figwidth() * LETTERS)
    figure.supxlabel("\n".join(textwrap.wrap(text, wide)), fontsize=9, color=GREY, x=0.01, ha="left")


def write(figure: Any, folder: Path, name: str) -> list[Path]:
    """Write a picture, and let it go."""
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{kind}" for kind in ("png", "svg")]
    figure.savefig(paths[0], dpi=110, metadata={"Software": None})
    figure.savefig(paths[1], metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    return paths
