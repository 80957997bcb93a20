"""The RequestID layer: one id a request, from the caller or new, for the app, the log and the response."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Literal, TypeAlias

from asgi_guard.errors import ConfigError, Problem, require_choice
from asgi_guard.layer import Layer
from asgi_guard.policy.request_id import accepts, parse_traceparent, uuid4, uuid7

if TYPE_CHECKING:
    from asgi_guard.asgi import ASGIApp, Head
    from asgi_guard.exchange import Exchange

Generator: TypeAlias = Literal["uuid7", "uuid4"]

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")


class RequestIDMiddleware(Layer):
    """Gives every request an id, and reads the caller's trace context.

    The id stands in `scope["state"]["request_id"]`, in `asgi_guard.request_id()`, and in the response's header.
    A valid `traceparent` (W3C Trace Context) is read as well, for the log.

    Args:
        app: the app within.
        header: the header that ids come in and go out by.
        trust_incoming: whether a caller's id is taken over if it is 1 to 128 characters of `[A-Za-z0-9._-]`; any
            other is replaced silently.
        generator: how new ids are made: `uuid7` (they sort by time) or `uuid4`.

    Raises:
        ConfigError: the header's name is not one, or there is no such generator.
    """

    name = "request_id"

    def __init__(
        self,
        app: ASGIApp,
        *,
        header: str = "x-request-id",
        trust_incoming: bool = True,
        generator: Generator = "uuid7",
    ) -> None:
        super().__init__(app)
        require_choice("generator", generator, Generator)
        if not _HEADER.fullmatch(header):
            raise ConfigError([Problem("header", f"{header!r} is not a header's name")])
        self._header = header.lower().encode()
        self._trust_incoming = trust_incoming
        self._uuid7 = generator == "uuid7"

    def enter(self, exchange: Exchange) -> None:
        """Find or make the id. An outer layer's id stays."""
        if exchange.request_id is None:
            exchange.request_id = self._incoming(exchange) or self._new()
            if b"traceparent" in exchange.headers:
                exchange.trace = parse_traceparent(exchange.lines(b"traceparent"))
        exchange.scope["state"] = {**(exchange.scope.get("state") or {}), "request_id": exchange.request_id}

    def _incoming(self, exchange: Exchange) -> str | None:
        if not self._trust_incoming or self._header not in exchange.headers:
            return None
        lines = exchange.lines(self._header)
        return lines[0].decode() if len(lines) == 1 and accepts(lines[0]) else None

    def _new(self) -> str:
        if self._uuid7:
            return uuid7(time.time_ns() // 1_000_000, os.urandom(10))
        return uuid4(os.urandom(16))

    def mark(self, exchange: Exchange, head: Head) -> None:
        """Set the id, once: a second one, of the app's or of an inner layer's, would leave the caller guessing."""
        if exchange.request_id is not None:
            head.set(self._header, exchange.request_id.encode())
