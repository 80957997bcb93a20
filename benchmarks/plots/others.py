"""Pictures of whole requests, of limits, of scale and of memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from benchmarks.limits.contenders import OURS as US
from benchmarks.limits.suite import RATE as CHECKS
from benchmarks.limits.throughput import ONE, TWO
from benchmarks.memory.run import STRANGERS
from benchmarks.plots.style import GREY, INK, LIGHT, OTHERS, OURS, LackingError, canvas, line, note
from benchmarks.scale.run import SLOPE, WORKERS, slope_of
from benchmarks.server.tables import BARE, GUARD, LEAST, NAMES, RATE, RATIO

if TYPE_CHECKING:
    from benchmarks.figures import Suite

COLORS = {BARE: GREY, GUARD: OURS, LEAST: GREY}


def throughput(suite: Suite) -> Any:
    """Requests a second of a whole server, bare, guarded and with others' stacks."""
    settings = {
        setting: {name: of.median for name in suite.names(1, setting) if (of := suite.find(setting, name, RATE))}
        for setting in suite.names(0)
    }
    if not settings or not all(settings.values()):
        raise LackingError(f"{RATE} of every setting")
    tallest = max(map(len, settings.values()))
    figure, panels = canvas(4.3 * len(settings), 3.3, len(settings), squeeze=False)
    figure.suptitle("Requests a second of a whole server", x=0.01, ha="left", fontweight="bold")
    for axes, (setting, rates) in zip(panels[0], settings.items(), strict=True):
        most = max(rates.values())
        for row, (name, rate) in enumerate(rates.items()):
            ratio = suite.find(setting, name, RATIO)
            told = f"{rate:,.0f}" if ratio is None else f"{rate:,.0f}  ({ratio.median:.2f})"
            axes.barh(row, rate, color=COLORS.get(name, OTHERS), height=0.66)
            inside = rate > most * 0.55
            axes.text(
                rate + most * (-0.02 if inside else 0.02), row, told, va="center", fontsize=10,
                ha="right" if inside else "left", color="white" if inside else INK,
            )  # fmt: skip
        axes.set_yticks(range(len(rates)), [NAMES.get(name, name) for name in rates])
        axes.invert_yaxis()
        axes.set_ylim(tallest - 0.4, -0.6)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        axes.set_title(f"{setting}\n(a full bar is {most:,.0f})", fontsize=11, fontweight="normal")
    note(
        figure,
        f"One uvicorn worker on one core, {suite.method.get('load', 'by an unknown load')}. Each panel has a scale of "
        "its own. In parentheses: bare app's CPU time per request / this stack's (1 = free).",
    )
    return figure


def concurrency(suite: Suite) -> Any:
    """Checks a second against checks under way at once."""
    kinds = [kind for kind in (ONE, TWO) if suite.names(1, kind)]
    if not kinds:
        raise LackingError("checks of one window or of two")
    figure, panels = canvas(4.9 * len(kinds) + 2.2, 5.4, len(kinds), squeeze=False, sharey=True)
    figure.suptitle("Checks a second in Redis, by how many are under way at once", x=0.01, ha="left", fontweight="bold")
    who = list(
        dict.fromkeys(name for kind in kinds for tasks in suite.names(1, kind) for name in suite.names(2, kind, tasks))
    )
    for axes, kind in zip(panels[0], kinds, strict=True):
        levels = suite.names(1, kind)
        for number, name in enumerate(who):
            found = [(place, suite.find(kind, tasks, name, CHECKS)) for place, tasks in enumerate(levels)]
            points = [(place, value) for place, value in found if value is not None]
            if not points:
                continue
            xs, ys = [place for place, _ in points], [value.median for _, value in points]
            look = line(number)
            axes.plot(
                xs,
                ys,
                linewidth=2.6 if name == US else 1.4,
                markersize=7.5,
                markeredgecolor="white",
                markeredgewidth=0.5,
                label=name,
                **look,
            )
            low, high = [value.low for _, value in points], [value.high for _, value in points]
            axes.fill_between(xs, low, high, color=look["color"], alpha=0.08, linewidth=0)
        axes.set_xticks(range(len(levels)), levels)
        axes.set_xlabel("checks under way at once (steps, not to scale)")
        axes.set_title(f"A check of {kind}", fontsize=11, fontweight="normal")
        axes.grid(axis="y", color=LIGHT, linewidth=0.6)
    axes = panels[0][0]
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    ticks = [tick for tick in (500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000) if low < tick < high]
    axes.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.yaxis.set_minor_formatter(lambda *_: "")
    axes.set_ylabel("checks a second, logarithmic")
    panels[0][-1].legend(frameon=False, fontsize=10, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    note(figure, f"One process, {suite.method.get('server', 'an unknown server')}. Shade: least to most of all rounds.")
    return figure


def scale(suite: Suite) -> Any:
    """What the guard adds, by how much there is of something."""
    axes_found = [name for name in suite.names(1, SLOPE) if name != WORKERS]
    if not axes_found:
        raise LackingError("slopes")
    figure, axes = canvas(8, 4.4)
    most, least = 0.0, float("inf")
    for number, name in enumerate(axes_found):
        sizes = suite.names(1, name)
        values = [suite.find(name, size) for size in sizes]
        slope = slope_of(suite, name)
        told = "" if slope is None else f"  (slope {slope.median:.3f})"
        xs = [int(size.replace(",", "")) for size in sizes]
        ys = [value.median for value in values if value is not None]
        most, least = max(most, *ys), min(least, *ys)
        axes.plot(xs, ys, markersize=6, linewidth=1.8, label=f"{name}{told}", **line(number))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_ylim(least / 1.6, most * 3)
    ticks = [tick for tick in (5, 10, 20, 50, 100, 200, 500, 1000, 2000) if least / 1.6 < tick < most * 3]
    axes.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.yaxis.set_minor_formatter(lambda *_: "")
    axes.set_xlabel("how many there are, logarithmic")
    axes.set_ylabel("microseconds added, logarithmic")
    axes.set_title("What the whole guard adds, by how much there is of something")
    axes.grid(color=LIGHT, linewidth=0.6)
    axes.legend(frameon=False, fontsize=10)
    return figure


@dataclass(frozen=True, slots=True)
class Point:
    """How much memory there is after so many requests: bytes that are resident."""

    requests: int
    resident: float


@dataclass(frozen=True, slots=True)
class Points:
    """What the suite's details have of requests of strangers."""

    strangers: list[Point]


_POINTS = TypeAdapter(Points)


def memory(suite: Suite) -> Any:
    """Resident memory while a process serves strangers."""
    try:
        points = _POINTS.validate_python(suite.details).strangers
    except ValidationError:
        points = []
    if not points:
        raise LackingError("details of requests and memory")
    figure, axes = canvas(8, 3.0)
    xs, ys = [point.requests for point in points], [point.resident / 2**20 for point in points]
    axes.plot(xs, ys, color=OURS, linewidth=2)
    warm = suite.find(STRANGERS, "after warm-up")
    if warm is not None:
        axes.axhline(warm.median, color=GREY, linewidth=0.8, linestyle="--", label="after warm-up")
        axes.legend(frameon=False, fontsize=10, loc="lower right")
    axes.set_ylim(0, max(ys) * 1.15)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("requests, no two alike")
    axes.set_ylabel("resident memory, MiB")
    axes.set_title("Memory, over requests of strangers")
    return figure
