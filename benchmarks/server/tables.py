"""The figures of whole requests, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.sheet import Sheet, asked, number, plain, spread, warned

if TYPE_CHECKING:
    from benchmarks.figures import Suite

BARE, GUARD, LEAST = "bare", "guard", "headers"
NAMES = {
    BARE: "the app alone",
    GUARD: "asgi-guard",
    LEAST: "its headers alone",
    "assembly": "packages of today",
    "article": "the article's stack",
    "article_one_client": "the same with one client",
}
"""The stacks, as people read them."""
HEADERS_ALONE = (
    "Its headers alone: a wrapper that adds the very lines that the guard adds, and does nothing else: a guard with "
    "these headers can hardly reach more."
)
CPU, RATIO, RATE, P50, P95, P99 = "CPU us", "bare / it", "requests/s", "p50 ms", "p95 ms", "p99 ms"


def sheets(suite: Suite) -> list[Sheet]:
    """The tables."""
    found = [_sheet(suite, setting) for setting in suite.names(0)]
    wanted = asked(suite.figures)
    return [*found, wanted] if wanted else found


def _sheet(suite: Suite, setting: str) -> Sheet:
    rows, ratios = [], []
    for stack in suite.names(1, setting):
        ratio = suite.find(setting, stack, RATIO)
        told = ["", ""] if ratio is None else [f"{ratio.median:.2f}", spread(ratio, "{:.2f}".format)]
        ratios.append(ratio)
        rest = [plain(suite.find(setting, stack, what)) for what in (RATE, P50, P95, P99)]
        cpu = suite.find(setting, stack, CPU)
        rows.append([NAMES[stack], "" if cpu is None else number(cpu.median), *told, *rest])
    rounds = max((ratio.rounds for ratio in ratios if ratio is not None), default=0)
    return Sheet(
        f"Whole requests: {setting}", ("stack",), (CPU, RATIO, "interval", RATE, P50, P95, P99), rows,
        "CPU us: of the server's process, a request. bare / it: the median ratio of the bare app's CPU time to it over "
        f"{rounds} interleaved rounds; 1 would cost nothing. {HEADERS_ALONE} {warned(ratios)}".strip(),
        frozenset({NAMES[GUARD]}),
    )  # fmt: skip
