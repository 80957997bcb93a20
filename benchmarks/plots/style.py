"""How pictures look, and how they are written: as PNG and as SVG, the same bytes for the same figures."""

from __future__ import annotations

import importlib
import importlib.util
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

OURS, OTHERS, GREY, LIGHT, INK = "#0b6e99", "#c9782b", "#8a8f98", "#d9dce1", "#1f2328"
LINES = ("#0b6e99", "#c9782b", "#5b8c3a", "#8e5ea2", "#b23a48", "#6b7280", "#b59b00", "#2f4b7c")
"""Colours that are told apart by people who see fewer colours, too; ours first."""
LETTERS = 13.5
"""Of a note, in an inch."""
SETTINGS = {
    "font.family": "sans-serif", "font.size": 11, "axes.titlesize": 13, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY,
    "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK, "axes.grid": False,
    "figure.facecolor": "white", "savefig.facecolor": "white", "svg.fonttype": "none", "svg.hashsalt": "asgi-guard",
    "figure.constrained_layout.use": True,
}  # fmt: skip


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
