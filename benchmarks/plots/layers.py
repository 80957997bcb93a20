"""Pictures of layers: where the microseconds of a request go, and how its times are spread."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from benchmarks.layers.around import BARE, GUARD, IDLE
from benchmarks.layers.run import ADDS, STACK
from benchmarks.plots.style import GREY, INK, LIGHT, OURS, LackingError, canvas, note

if TYPE_CHECKING:
    from benchmarks.figures import Suite

ANY_LAYER = "having any layer"
SHOWN = (0.01, 0.25, 0.5, 0.75, 0.99, 0.999)


@dataclass(frozen=True, slots=True)
class Spread:
    """How times are spread, as the suite's details have it.

    Attributes:
        quantiles: shares of the requests.
        distribution: by layer, the times that these shares do not exceed.
    """

    quantiles: list[float]
    distribution: dict[str, list[float]]


_SPREAD = TypeAdapter(Spread)


def steps(suite: Suite) -> list[tuple[str, float, float]]:
    """What each layer of the stack adds: its name, where it begins, and where it ends, in microseconds above the app.

    The layers are inside each other: each step is what the stack costs with the layer less what it costs without.
    """
    found: list[tuple[str, float, float]] = []
    before = 0.0
    for name in suite.names(1, STACK):
        value = suite.find(STACK, name, ADDS)
        if value is not None:
            found.append((ANY_LAYER if name == IDLE else name, before, value.median))
            before = value.median
    return found


def waterfall(suite: Suite) -> Any:
    """Where the microseconds of a guarded request go, layer by layer."""
    parts = steps(suite)
    if not parts:
        raise LackingError(f"figures of {STACK}")
    total = parts[-1][2]
    names = [*(name for name, _, _ in parts), GUARD]
    figure, axes = canvas(8, 0.38 * len(names) + 1.3)
    for row, (_, low, high) in enumerate(parts):
        axes.barh(row, high - low, left=low, color=OURS if high >= low else GREY, height=0.68)
        axes.text(max(low, high) + total * 0.012, row, f"{high - low:+.1f}", va="center", fontsize=10)
        axes.plot([high, high], [row + 0.34, row + 0.66], color=GREY, linewidth=0.8)
    axes.barh(len(parts), total, color=INK, height=0.68)
    axes.text(total * 1.012, len(parts), f"{total:.1f} µs", va="center", fontweight="bold")
    axes.set_yticks(range(len(names)), names)
    axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.invert_yaxis()
    axes.set_xlim(0, total * 1.15)
    axes.set_xlabel("microseconds added to a request")
    axes.set_title("Where the microseconds go")
    note(
        figure,
        "CPU time, a mean of many requests, in process around a raw ASGI app: two limits in memory, a token seen "
        "before. What the stack adds with each layer more; the median of interleaved rounds. As turns of their own, "
        "these differ a little from the table's.",
    )
    return figure


def _spread(suite: Suite) -> Spread:
    try:
        found = _SPREAD.validate_python(suite.details)
    except ValidationError:
        raise LackingError("details of how times are spread") from None
    shares, spread = found.quantiles, found.distribution
    if not spread or not {*SHOWN} <= {*shares} or any(len(values) != len(shares) for values in spread.values()):
        raise LackingError("times of all shares of requests")
    return found


def distribution(suite: Suite) -> Any:
    """How the times of single requests are spread, by layer."""
    found = _spread(suite)
    spread = found.distribution
    low, first, middle, third, high, rare = map(found.quantiles.index, SHOWN)
    names = list(spread)
    figure, axes = canvas(8, 0.38 * len(names) + 1.5)
    for row, name in enumerate(names):
        values = spread[name]
        color = INK if name == GUARD else GREY if name in (BARE, IDLE) else OURS
        axes.plot([values[low], values[high]], [row, row], color=color, linewidth=1.6, solid_capstyle="butt")
        axes.plot([values[first], values[third]], [row, row], color=color, linewidth=8, solid_capstyle="butt")
        axes.plot(values[rare], row, marker="|", color=color, markersize=9)
        axes.plot(values[middle], row, marker="o", color="white", markersize=4, markeredgecolor=color)
        told = f"{values[middle]:.1f} µs"
        axes.text(1.01, row, told, transform=axes.get_yaxis_transform(), va="center", fontsize=10, color=color)
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names)
    axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.invert_yaxis()
    ticks = [0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 2000, 10_000]
    most = max(values[rare] for values in spread.values()) * 1.2
    axes.set_xticks([tick for tick in ticks if tick < most], [f"{tick:g}" for tick in ticks if tick < most])
    axes.xaxis.set_minor_locator(_nothing())
    axes.set_xlim(right=most)
    axes.grid(axis="x", color=LIGHT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("microseconds of a request, logarithmic")
    axes.set_title("How long a request takes, by layer")
    note(
        figure,
        "By the clock, each request by itself, the raw app's own time included. Circle, and the figure at the right: "
        "the median. Thick: half of all requests. Line: 98 of 100. Tick: 999 of 1,000 take less.",
    )
    return figure


def _nothing() -> Any:
    ticker: Any = importlib.import_module("matplotlib.ticker")
    return ticker.NullLocator()
