"""`asgi-guard env`: every variable."""

from __future__ import annotations

import click

from asgi_guard.cli.output import dump, table
from asgi_guard.settings import variables


def markdown() -> str:
    """The table of variables as the README shows it."""
    lines = ["| variable | meaning | values | default |", "|---|---|---|---|"]
    for variable in variables():
        default = f"`{variable.default}`" if variable.default else ""
        values = r" \| ".join(variable.choices)
        lines.append(f"| `{variable.name}` | {variable.meaning} | {values} | {default} |")
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the table of the README.")
def env(*, as_json: bool, as_markdown: bool) -> None:
    """List every ASGI_GUARD_* variable: meaning, values, default."""
    if as_json and as_markdown:
        raise click.UsageError("--json and --markdown are asked one at a time")
    if as_json:
        dump(
            [
                {"name": each.name, "meaning": each.meaning, "values": each.choices, "default": each.default}
                for each in variables()
            ]
        )
    elif as_markdown:
        click.echo(markdown(), nl=False)
    else:
        rows = [
            (each.name, " | ".join(each.choices), each.default or "-", each.meaning.replace("`", ""))
            for each in variables()
        ]
        table(("variable", "values", "default", "meaning"), rows)
