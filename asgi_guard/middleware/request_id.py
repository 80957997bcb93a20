"""The RequestID layer: one id a request, from the caller or new, for the app, the log and the response."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Literal, TypeAlias

from asgi_guard.chain.exchange import RELAYING, Exchange, trusts_nobody
from asgi_guard.chain.layer import Layer
from asgi_guard.configuration.arguments import typed
from asgi_guard.errors import ConfigError, Problem, require_choice
from asgi_guard.policy.cors_names import (
    FORBIDDEN_REQUEST_HEADERS,
    FORBIDDEN_RESPONSE_HEADERS,
    SAFELISTED_RESPONSE_HEADERS,
)
from asgi_guard.policy.request_id import TAIL_DIGITS, accepts, uuid4, uuid7, uuid7_tails
from asgi_guard.policy.security import SECURITY_HEADERS
from asgi_guard.policy.trace_context import parse_trace
from asgi_guard.randomness import Stock, random_digits

if TYPE_CHECKING:
    from collections.abc import Callable

    from asgi_guard.asgi import ASGIApp, Head

Generator: TypeAlias = Literal["uuid7", "uuid4"]
Trusted: TypeAlias = Literal["anyone", "proxies", "nobody"]

_tail = Stock(TAIL_DIGITS, uuid7_tails).take
_OF_OTHERS = (
    FORBIDDEN_REQUEST_HEADERS
    | FORBIDDEN_RESPONSE_HEADERS
    | SAFELISTED_RESPONSE_HEADERS
    | {"accept", "allow", "authorization", "etag", "location", "retry-after", "user-agent", "vary", "www-authenticate"}
    | {"dpop", "traceparent", "tracestate", "x-api-key", "x-csrf-token"}
    | {name.decode() for name in RELAYING}
    | SECURITY_HEADERS
)
"""Headers that an id would take the place of, in a request or in a response."""
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")


class RequestIDMiddleware(Layer):
    """Gives every request an id, and reads the caller's trace context.

    The id stands in `scope["state"]["request_id"]`, in `asgi_guard.request_id()`, and in the response's header, whoever
    gives the response. A valid `traceparent` with its `tracestate` (W3C Trace Context) stands in
    `scope["state"]["trace"]` and `asgi_guard.trace()`, and in the log.

    Args:
        app: the app within.
        header: the header that ids come in and go out by.
        trust_incoming: whose ids and trace contexts are taken over: `anyone`'s, those that trusted `proxies` hand on,
            or `nobody`'s. An id is 1 to 128 characters of `[A-Za-z0-9._-]`; any other is replaced silently.
        generator: how new ids are made: `uuid7` (they sort by time) or `uuid4`.
        trusts_proxy: tells which peers are proxies to be trusted; none unless said.

    Raises:
        ConfigError: the header's name is not one, or there is no such choice.
    """

    name = "request_id"

    @typed
    def __init__(
        self,
        app: ASGIApp,
        *,
        header: str = "x-request-id",
        trust_incoming: Trusted = "anyone",
        generator: Generator = "uuid7",
        trusts_proxy: Callable[[str], bool] = trusts_nobody,
    ) -> None:
        super().__init__(app)
        require_choice("generator", generator, Generator)
        require_choice("trust_incoming", trust_incoming, Trusted)
        if not _HEADER.fullmatch(header):
            raise ConfigError([Problem("header", f"{header!r} is not a header's name")])
        if header.lower() in _OF_OTHERS or header.lower().startswith(("access-control-", "ratelimit", "x-ratelimit-")):
            raise ConfigError([Problem("header", f"{header!r} says something else already: take x-request-id")])
        self._header = header.lower().encode()
        self._header_name = header.lower()
        self._trusted = trust_incoming
        self._trusts_proxy = trusts_proxy
        self._uuid7 = generator == "uuid7"

    def enter(self, exchange: Exchange) -> None:
        """Find or make the id. An outer layer's id stays."""
        found = exchange.request_id
        if found is None:
            headers = exchange.headers
            if (self._header in headers or b"traceparent" in headers) and self._trusts(exchange.peer):
                found = self._take_over(exchange)
            if found is None:
                found = uuid7(time.time_ns() // 1_000_000, _tail()) if self._uuid7 else uuid4(random_digits())
            exchange.request_id, exchange.id_header = found, self._header_name
        scope = exchange.scope
        state = scope.get("state")
        if state is None or "app" not in scope:
            # A copy: some servers hand every request the same state. A framework's own is the request's, and middleware
            # further out reads there what the app notes.
            state = scope["state"] = {**(state or {})}
        state["request_id"] = found
        if exchange.trace is not None:
            state["trace"] = exchange.trace

    def _trusts(self, peer: str | None) -> bool:
        if self._trusted == "proxies":
            return peer is not None and self._trusts_proxy(peer)
        return self._trusted == "anyone"

    def _take_over(self, exchange: Exchange) -> str | None:
        """Read the caller's trace context, and its id if that can be used."""
        exchange.trace = parse_trace(exchange.lines(b"traceparent"), exchange.lines(b"tracestate"))
        lines = exchange.lines(self._header)
        if len(lines) != 1:
            return None
        found = lines[0].strip(b" \t")  # which is none of a value, and which uvicorn leaves at its end with httptools
        return found.decode() if accepts(found) else None

    def mark(self, exchange: Exchange, head: Head) -> None:
        """Set the id, once: a second one, of the app's or of an inner layer's, would leave the caller guessing."""
        found = exchange.request_id
        if found is None:
            return
        if self._header in head.names:
            head.set(self._header, found.encode())
        else:
            head.lines.append((self._header, found.encode()))
            head.names.add(self._header)
