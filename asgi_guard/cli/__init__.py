"""The command line: `asgi-guard run | check | explain | env | demo | token | revoke | limits`.

A problem with the configuration is told in full, by variable name, on standard error, with exit code 2 and without
a traceback.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import click

from asgi_guard.cli.check import check
from asgi_guard.cli.demo import demo
from asgi_guard.cli.env import env
from asgi_guard.cli.explain import explain
from asgi_guard.cli.limits import limits
from asgi_guard.cli.output import open_closed_streams, report_problems
from asgi_guard.cli.revoke import revoke
from asgi_guard.cli.run import run
from asgi_guard.cli.token import token
from asgi_guard.errors import ConfigError


class _Group(click.Group):
    def main(self, *args: Any, **options: Any) -> Any:
        open_closed_streams()
        return super().main(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            report_problems(error)
            ctx.exit(2)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version("asgi-guard"), "-V", "--version")
def main() -> None:
    """A production front around any ASGI app, configured by ASGI_GUARD_* variables.

    Try `asgi-guard demo`, then `asgi-guard check` in your own environment, then `asgi-guard run myapp:app`.
    """


for command in (run, check, explain, env, demo, token, revoke, limits):
    main.add_command(command)
