"""What options have in common: which of them were said, and values that are none."""

from __future__ import annotations

from math import isfinite
from typing import Any

import click


def said(ctx: click.Context, *names: str) -> list[str]:
    """Those of these parameters that were said and not left to their defaults, as they are written."""
    options = {each.name: each.opts[0] for each in ctx.command.params}
    default = click.core.ParameterSource.DEFAULT
    return [options[name] for name in names if ctx.get_parameter_source(name) is not default]


class Seconds(click.FloatRange):
    """A number of seconds, 0 or more, that ends."""

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the number."""
        seconds = float(super().convert(value, param, ctx))
        if not isfinite(seconds):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return seconds
