"""What else one could put around an app: complete stacks of others' parts, around the same endpoint.

None of their packages is needed: a stack whose packages are not installed is left out, by name.
"""

from __future__ import annotations

import importlib
from typing import Any

from benchmarks.subjects import not_installed

STACKS = {
    "assembly": {
        "asgi_correlation_id": "asgi-correlation-id",
        "asgi_logger": "asgi-logger",
        "fastapi": "fastapi",
        "limits": "limits",
        "secure": "secure",
    },
    "article": {"fastapi": "fastapi"},
    "article_one_client": {"fastapi": "fastapi"},
}
"""By name, which is their module's here: the modules that each needs, with the packages that bring them."""


def absence(stack: str) -> str | None:
    """Why a stack cannot be measured here, or None if it can."""
    needs = STACKS.get(stack, {})
    return not_installed(needs, needs)


def build(stack: str, issuer: str, audience: str, store: str | None) -> Any:
    """One of the stacks, around FastAPI's endpoint.

    Args:
        stack: its name.
        issuer: the URL of the tokens' issuer.
        audience: the tokens' audience.
        store: the URL of a Redis; None counts in memory and looks up no revocation.
    """
    return importlib.import_module(f"{__name__}.{stack}").build(issuer, audience, store)
