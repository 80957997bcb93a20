"""`asgi-guard check --headers`: the effective security headers, graded."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from asgi_guard.cli.output import table
from asgi_guard.configuration.variables import PREFIX
from asgi_guard.middleware import SecurityHeadersMiddleware
from asgi_guard.policy.observatory import BEST, Grade, Result, grade

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asgi_guard.chain.layer import Layer


def graded(layers: Sequence[Layer]) -> dict[str, Grade]:
    """The grade of each set of headers that the guard sends over https: the default's, and that of rows with others."""
    for layer in layers:
        if isinstance(layer, SecurityHeadersMiddleware):
            rows = {str(route): policy for route, policy in layer.of_rows if policy is not layer.policy}
            return {"every path": grade(layer.policy.secure)} | {row: grade(each.secure) for row, each in rows.items()}
    return {"every path": grade(())}


def grades_as_json(layers: Sequence[Layer]) -> dict[str, Any]:
    """The grades for programs."""
    return {where: {**asdict(each), "best": BEST} for where, each in graded(layers).items()}


def show_grades(layers: Sequence[Layer]) -> None:
    """Print a table for each set of headers, with what each point costs."""
    for where, each in graded(layers).items():
        rows = [
            (result.test, f"{result.points:+d}" if result.points else "0", result.found, _advice(result))
            for result in each.results
        ]
        title = f"{where}: {each.score} of {BEST}, {each.letter}, by the rules of the HTTP Observatory, over https"
        table(("header", "points", "found", "for more"), rows, title)


def _advice(result: Result) -> str:
    return f"{PREFIX}SECURITY_{result.option.upper()}: {result.better}" if result.better else ""
