"""The AccessLog layer: one JSON line at the end of every exchange, refused ones too."""

from __future__ import annotations

import asyncio
import time
from dataclasses import fields
from typing import TYPE_CHECKING

import orjson

from asgi_guard.errors import require_choice
from asgi_guard.layer import Layer
from asgi_guard.log_writer import LineWriter
from asgi_guard.policy.log_record import CLIENT_GONE, Entry, LogFormat, dropped, record, sampled, severity, text
from asgi_guard.policy.routes import NO_ROW, Route, RouteTable, route_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asgi_guard.asgi import ASGIApp
    from asgi_guard.exchange import Exchange
    from asgi_guard.layer import Response
    from asgi_guard.policy.bucket import Verdict


class AccessLogMiddleware(Layer):
    r"""Writes one line of JSON for every HTTP exchange and WebSocket session, when it is over.

    Query values are redacted, no header but the user agent is logged, and no input can make two lines of one.

    Args:
        app: the app within.
        format: the schema: `json` (the same as `otel`: OpenTelemetry's names), `ecs`, `gcp`, `datadog`, or `off`.
        sample: the share of ordinary exchanges that are logged, from 0 to 1, the same for all of one trace. Errors
            (5xx), refusals, slow and aborted exchanges are always logged.
        slow_ms: milliseconds from which an exchange is marked as slow; None marks none.
        quiet: paths whose successes are not logged: the probes.
        gcp_project: the project of Google Cloud whose traces lines in the schema `gcp` are to stand beside; None writes
            the trace's bare id.
        routes: the route table; the path of the matching row is logged as the route, unless the app's router names one.
        write: what takes the lines, each ending in a newline; standard output unless given, which never holds up the
            event loop: lines that a slow reader leaves no room for are dropped, and their number logged.
    """

    name = "access_log"

    def __init__(
        self,
        app: ASGIApp,
        *,
        format: LogFormat = "json",  # noqa: A002 - it is what users call it
        sample: float = 1.0,
        slow_ms: float | None = None,
        quiet: Sequence[str] = (),
        gcp_project: str | None = None,
        routes: Sequence[Route] | RouteTable = (),
        write: Callable[[bytes], object] | None = None,
    ) -> None:
        super().__init__(app)
        require_choice("format", format, LogFormat)
        self._table = RouteTable.of(routes)
        self._format = format
        self._sample = sample
        self._slow = None if slow_ms is None else int(slow_ms * 1e6)
        self._quiet = frozenset(quiet)
        self._project = gcp_project
        self._writer = LineWriter(self._dropped)
        self.write: Callable[[bytes], object] = write or self._writer

    def enter(self, exchange: Exchange) -> None:
        """Start the clock. If an outer layer logs this exchange, this one stays silent."""
        if exchange.logged_by is None:
            exchange.logged_by = self
            exchange.started = time.perf_counter_ns()

    def leave(self, exchange: Exchange, response: Response, error: BaseException | None) -> None:
        """Write the line."""
        if exchange.logged_by is not self or self._format == "off":
            return
        status = response.status
        if status is not None and status < 400 and self._is_quiet(exchange):
            return
        entry = self._entry(exchange, response, error)
        if self._sample < 1 and not self._is_logged(entry):
            return
        try:
            line = orjson.dumps(record(entry, self._format), option=orjson.OPT_APPEND_NEWLINE)
        except TypeError:
            # Text with lone surrogates, as some servers decode paths: what has no encoding is replaced.
            for each in fields(entry):
                value = getattr(entry, each.name)
                if isinstance(value, str):
                    setattr(entry, each.name, value.encode("utf-8", "replace").decode())
            line = orjson.dumps(record(entry, self._format), option=orjson.OPT_APPEND_NEWLINE)
        self.write(line)

    @property
    def dropped(self) -> int:
        """Lines that were dropped for a slow reader."""
        return self._writer.dropped

    async def shutdown(self) -> None:
        """Wait until a slow reader has the last line."""
        await asyncio.to_thread(self._writer.flush)

    def _dropped(self, count: int) -> bytes:
        return orjson.dumps(dropped(count, time.time(), self._format), option=orjson.OPT_APPEND_NEWLINE)

    def _is_logged(self, entry: Entry) -> bool:
        loud = entry.slow or entry.error is not None or entry.reason is not None or severity(entry) == "ERROR"
        return loud or sampled(entry.trace_id, entry.request_id, self._sample)

    def _entry(self, exchange: Exchange, response: Response, error: BaseException | None) -> Entry:
        headers, user, trace = exchange.headers, exchange.user, exchange.trace
        scope, verdict = exchange.scope, exchange.verdict
        agent, host = headers.get(b"user-agent"), headers.get(b"host") if self._format == "gcp" else None
        entry = Entry(
            time.time(),
            exchange.kind,
            exchange.method,
            exchange.path,
            scope.get("query_string") or b"",
            exchange.scheme,
            scope.get("http_version") or "1.1",
            response.status,
            time.perf_counter_ns() - exchange.started,
            response.sent,
            exchange.request_id,
            self._route(exchange),
            exchange.client,
            exchange.client_doubt,
            exchange.peer,
            None if user is None else user.subject,
            None if agent is None else text(agent),
            None if host is None else text(host),
        )
        if trace is not None:
            entry.trace_id, entry.parent_id = trace.trace_id, trace.parent_id
        entry.project, entry.detail = self._project, exchange.detail
        if exchange.answer is not None and exchange.answer.reason is not None:
            entry.refused_by, entry.reason = exchange.answered_by, exchange.answer.reason
        if verdict is not None:
            for reading in verdict.readings:
                if reading.wait != 0:
                    self._add_limits(entry, verdict)
                    break
        self._add_ending(entry, exchange, response, error)
        return entry

    def _add_ending(self, entry: Entry, exchange: Exchange, response: Response, error: BaseException | None) -> None:
        """Add how the exchange went and came to its end."""
        if response.streamed is not None:
            entry.first_byte = response.streamed - exchange.started
        if entry.kind != "http":
            entry.close_code = response.close_code
            if response.status == 101:
                entry.messages_received, entry.messages_sent = response.messages_received, response.messages_sent
        if self._slow is not None:
            entry.slow = entry.duration >= self._slow
        if response.disconnected and not response.finished:
            entry.status = CLIENT_GONE if entry.status is None else entry.status
            entry.error = "client_disconnected" if exchange.kind == "http" else None
        if error is not None and entry.error is None:
            entry.error = type(error).__name__

    def _is_quiet(self, exchange: Exchange) -> bool:
        root = exchange.scope.get("root_path")
        if (route_path(exchange.path, root) if root else exchange.path) not in self._quiet:
            return False
        # What is asked with another method is no probe, whatever its path.
        return exchange.kind == "http" and exchange.method in ("GET", "HEAD")

    def _route(self, exchange: Exchange) -> str | None:
        """The route's pattern: the app's own, where its router leaves it in the scope; never the raw path."""
        if exchange.route is not None:
            route = getattr(exchange.route, "path", None)
            if isinstance(route, str):
                return route
        row = exchange.row(self._table)
        return None if row == NO_ROW else self._table.routes[row].path

    @staticmethod
    def _add_limits(entry: Entry, verdict: Verdict) -> None:
        if not verdict.admitted:
            entry.limit = ",".join(reading.limit.name for reading in verdict.refusing)
        entry.shadow = ",".join(reading.limit.name for reading in verdict.shadowed) or None
