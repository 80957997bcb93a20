"""What README.md and docs/ hold of the code: `python -m tests.pages` puts it there, and a test sees that it is current.

What stands between `<!-- from the code: NAME -->` and `<!-- end -->` is replaced.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from asgi_guard.cli.env import markdown
from asgi_guard.policy.vocabulary import DETAILS, DETAILS_OF_REQUESTS, DOUBTS, REASONS
from tests.reference import reference

ROOT = Path(__file__).parents[1]
_REGION = re.compile(r"(<!-- from the code: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = (columns, ("---",) * len(columns), *rows)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def reasons() -> str:
    """Every reason of a refusal."""
    rows: list[tuple[str, ...]] = [
        (f"`{reason}`", str(told.status), ", ".join(f"`{layer}`" for layer in told.layers), told.meaning, told.advice)
        for reason, told in REASONS.items()
    ]
    return table(("reason", "status", "layer", "what happened", "what to do"), rows)


def details() -> str:
    """Every word that says why credentials are not accepted."""
    rows: list[tuple[str, ...]] = [
        (f"`{name}`", told.meaning, re.sub(r"(ASGI_GUARD_\S*\w)", r"`\1`", told.advice))
        for name, told in {**DETAILS, **DETAILS_OF_REQUESTS}.items()
        if name != "token_revoked"  # which has a reason of its own
    ]
    return table(("detail", "what is wrong", "what to do"), rows)


def doubts() -> str:
    """Every word that says why a client's address is not known."""
    return table(("doubt", "what the proxies' header says"), [(f"`{name}`", said) for name, said in DOUBTS.items()])


REGIONS: dict[str, Callable[[], str]] = {
    "variables": markdown,
    "reasons": reasons,
    "details": details,
    "doubts": doubts,
    "api": reference,
}


def filled(page: str) -> str:
    """The page with what the code says now."""
    return _REGION.sub(lambda found: f"{found[1]}\n{REGIONS[found[2]]().strip()}\n\n{found[3]}", page)


def regions(page: str) -> list[str]:
    """What a page holds of the code."""
    return [name for _, name, _ in _REGION.findall(page)]


def pages() -> list[Path]:
    """Every page."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


if __name__ == "__main__":
    for path in pages():
        path.write_text(filled(path.read_text("utf-8")), "utf-8")
