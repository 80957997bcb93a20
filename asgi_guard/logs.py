"""The request in hand, on every record that the app logs: by `logging`, and by structlog."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from asgi_guard.chain.exchange import current

FIELDS = ("request_id", "trace_id", "user")


def _facts() -> tuple[str | None, str | None, str | None]:
    exchange = current.get()
    if exchange is None:
        return None, None, None
    trace, user = exchange.trace, exchange.user
    return exchange.request_id, None if trace is None else trace.trace_id, None if user is None else user.subject


class RequestContextFilter(logging.Filter):
    """Puts `request_id`, `trace_id` and `user` of the request in hand on every record. It filters nothing.

        handler.addFilter(RequestContextFilter())
        handler.setFormatter(logging.Formatter("%(levelname)s %(request_id)s %(user)s %(message)s"))

    It belongs on handlers: on a logger it would not see the records of the loggers below. A `QueueHandler` needs it
    itself, for what stands behind it runs in another thread. What a record says itself, by `extra`, stays. Of a user
    whose name has line ends or other controls, these are escaped: no name makes two lines of a log of one.

    Args:
        missing: what stands where there is no request, no trace, or no verified identity.
    """

    def __init__(self, missing: str | None = "-") -> None:
        super().__init__()
        self._missing = missing

    def filter(self, record: logging.LogRecord) -> bool:
        """Put the facts on the record."""
        for name, value in zip(FIELDS, _facts(), strict=True):
            if not hasattr(record, name):
                setattr(record, name, self._missing if value is None else _on_one_line(value))
        return True


def _on_one_line(value: str) -> str:
    return value if value.isprintable() else ascii(value)[1:-1]


def add_request_context(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The same as a processor of structlog: what is known of the request in hand stands in the event.

    structlog.configure(processors=[add_request_context, structlog.processors.JSONRenderer()])
    """
    for name, value in zip(FIELDS, _facts(), strict=True):
        if value is not None:
            event.setdefault(name, value)
    return event
