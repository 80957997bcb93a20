"""Processes that a benchmark starts for itself, and that are gone when it is."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@contextmanager
def child(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A process that is waited for, or killed where whoever started it breaks off.

    A terminal's interrupt is for the parent alone: it ends its children, which have nothing to say to that.

    Args:
        command: what runs.
        options: of `subprocess.Popen`.
    """
    with subprocess.Popen(command, process_group=0, **options) as process:
        try:
            yield process
        except BaseException:
            process.kill()  # or it would be waited for
            raise
