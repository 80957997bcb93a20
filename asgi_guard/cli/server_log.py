"""The log of uvicorn, on standard error, without what clients sent: their tokens may be in it.

uvicorn writes the address of each WebSocket handshake, with its query, even with its access log off; at the level
`debug`, its WebSocket library writes every header line and frame. The guard's access log tells of handshakes, redacted.

Nor is said again what the guard has said: an exception that came through it, which it logs with the request's id and
hands on, and that a handshake was refused, which uvicorn takes for an app's fault. What was raised around the guard is
the server's to tell.

What no handler of the app's takes, of the guard's warnings too, is written in the same form.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from asgi_guard.chain.told import is_told

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_OF_CLIENTS = ('%s - "WebSocket %s"', "< ", "> ")
"""How the formats of such records begin."""
_RAISED = "Exception in ASGI application"
_REFUSED = "ASGI callable returned without completing handshake"
"""How those begin that may repeat what the guard has logged, and that do."""


class WithoutRequests(logging.Filter):
    """Passes records that tell of the server, and none that repeats a request, or what the guard has logged of one."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the record is written."""
        text = str(record.msg)
        if text.startswith(_RAISED):
            error = record.exc_info[1] if record.exc_info else None
            # Of what it cancels, when it has no more time to stop in, the server says how much there was.
            return not (isinstance(error, asyncio.CancelledError) or is_told(error))
        return not text.startswith((*_OF_CLIENTS, _REFUSED))


class Untold(logging.Filter):
    """Passes what was not said before: guards are made again, in workers and by frameworks.

    Args:
        texts: what was said before.
    """

    def __init__(self, texts: Collection[str]) -> None:
        super().__init__()
        self._texts = frozenset(texts)

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the record is written."""
        return record.getMessage() not in self._texts


def _leave_out(texts: Collection[str]) -> logging.Filter:
    """Have the guard not say again what it has said. A section for its logger would take the app's handlers from it."""
    untold = Untold(texts)
    logging.getLogger("asgi_guard").addFilter(untold)
    return untold


@contextmanager
def listening(logger: logging.Logger) -> Iterator[list[str]]:
    """Give what a logger says meanwhile."""
    texts: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        texts.append(record.getMessage())
        return True

    logger.addFilter(keep)
    try:
        yield texts
    finally:
        logger.removeFilter(keep)


def _last_resort() -> logging.Handler:
    """The handler of what no other takes."""
    return logging.lastResort or logging.NullHandler()


def log_config(told: Collection[str] = ()) -> dict[str, Any]:
    """What uvicorn logs by, in each of its processes: with the filter on every handler of its own.

    Args:
        told: what the guard has said already, and does not say again in any of them.
    """
    from uvicorn.config import LOGGING_CONFIG

    config: dict[str, Any] = copy.deepcopy(LOGGING_CONFIG)
    config["filters"] = {"without_requests": {"()": WithoutRequests}}
    for handler in config["handlers"].values():
        handler["filters"] = ["without_requests"]
    if told:
        config["filters"]["untold"] = {"()": _leave_out, "texts": [*told]}
    config["handlers"]["last_resort"] = {"()": _last_resort, "formatter": "default"}
    return config
