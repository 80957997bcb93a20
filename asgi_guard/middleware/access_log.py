"""The AccessLog layer: one JSON line at the end of every exchange, refused ones too."""

from __future__ import annotations

import asyncio
import time
from dataclasses import fields
from typing import TYPE_CHECKING

import orjson

from asgi_guard.chain.layer import Layer
from asgi_guard.configuration.arguments import typed
from asgi_guard.errors import ConfigError, Problem, require_choice
from asgi_guard.operations.log_writer import LineWriter
from asgi_guard.policy.listing import all_listed
from asgi_guard.policy.log_entry import (
    CLIENT_GONE,
    MAX_LINE,
    SHORTER,
    Entry,
    Remarks,
    sampled,
    severity,
    shorten,
    text,
    without_login,
)
from asgi_guard.policy.log_record import RECORDS, LogFormat, dropped, one_line, with_issuer
from asgi_guard.policy.path_index import NO_ROW
from asgi_guard.policy.routes import Route, RouteTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from asgi_guard.asgi import ASGIApp
    from asgi_guard.chain.exchange import Exchange
    from asgi_guard.chain.response import Response
    from asgi_guard.policy.bucket import Reading


class AccessLogMiddleware(Layer):
    r"""Writes one line of JSON for every HTTP exchange and WebSocket session, when it is over.

    Query values are redacted, no header but the user agent (and in `gcp` the host) is logged, and no input can make two
    lines of one. A line is 4096 bytes at most, which a pipe takes whole beside other workers' lines: of a longer one
    the path, the query, the host, the user agent and the user are cut.

    Args:
        app: the app within.
        format: the schema: `json` (the same as `otel`: OpenTelemetry's names), `ecs`, `gcp`, `datadog`, or `off`.
        sample: the share of ordinary exchanges that are logged, from 0 to 1, the same for all of one trace. Errors
            (5xx), refusals, slow and aborted exchanges are always logged, and what would be refused were it not only
            logged: by limits in shadow, and by the CSRF layer.
        slow_ms: milliseconds from which an exchange is marked as slow; None marks none. A body in several parts is
            judged by its first one, and a WebSocket that was accepted not at all: they last as long as they are wanted.
            What an app does when all was sent, as in background tasks, counts for nothing.
        quiet: paths whose successes are not logged: the probes. Scrapes that the Metrics layer answers are not either.
        issuer: whether the issuer of a user's token is logged beside the user, for where there are several, or API keys
            too: each may have an `alice`.
        gcp_project: the project of Google Cloud whose traces lines in the schema `gcp` are to stand beside; None writes
            the trace's bare id.
        routes: the route table; the path of the matching row is logged as the route, unless the app's router names one.
        write: what takes the lines, each ending in a newline; standard output unless given, which never holds up the
            event loop: lines that a slow reader leaves no room for are dropped, and their number logged. So are those
            that cannot be written, since the disk is full or nobody reads any more; that fails no request.
    """

    name = "access_log"

    @typed
    def __init__(
        self,
        app: ASGIApp,
        *,
        format: LogFormat = "json",  # noqa: A002 - it is what users call it
        sample: float = 1.0,
        slow_ms: float | None = None,
        quiet: str | Sequence[str] = (),
        issuer: bool = False,
        gcp_project: str | None = None,
        routes: Sequence[Route] | RouteTable = (),
        write: Callable[[bytes], object] | None = None,
    ) -> None:
        super().__init__(app)
        require_choice("format", format, LogFormat)
        if not 0 <= sample <= 1:
            raise ConfigError([Problem("sample", f"{sample!r} is no share from 0 to 1")])
        self._table = RouteTable.of(routes)
        self._format = format
        self._record = RECORDS.get(format, RECORDS["json"])
        if issuer:
            self._record = with_issuer(self._record)
        self._sample = sample
        self._slow = None if slow_ms is None else int(slow_ms * 1e6)
        self._quiet = all_listed(quiet=quiet)["quiet"]
        self._issuer, self._project = issuer, gcp_project
        self._writer = LineWriter(self._dropped)
        self.write: Callable[[bytes], object] = write or self._writer.write

    def enter(self, exchange: Exchange) -> None:
        """Start the clock. If an outer layer logs this exchange, this one stays silent."""
        if exchange.logged_by is None:
            exchange.logged_by = self
            exchange.started = time.perf_counter_ns()
            if self._slow is not None:
                exchange.timed = True

    def leave(self, exchange: Exchange, response: Response, error: BaseException | None) -> None:
        """Write the line."""
        if exchange.logged_by is not self or self._format == "off":
            return
        if exchange.answered_by == "metrics":
            return
        status = response.status
        if exchange.path.endswith(self._quiet) and status is not None and status < 400 and self._is_probe(exchange):
            return
        entry = self._entry(exchange, response, error)
        if self._sample < 1 and not self._is_logged(entry):
            return
        try:
            line = orjson.dumps(self._record(entry), option=orjson.OPT_APPEND_NEWLINE)
        except TypeError:
            # Text with lone surrogates, as some servers decode paths: what has no encoding is replaced.
            for each in fields(entry):
                value = getattr(entry, each.name)
                if isinstance(value, str):
                    setattr(entry, each.name, value.encode("utf-8", "replace").decode())
            line = orjson.dumps(self._record(entry), option=orjson.OPT_APPEND_NEWLINE)
        if not line.isascii():
            line = one_line(line)
        if len(line) > MAX_LINE:
            line = self._shorter(entry)
        self.write(line)

    @property
    def dropped(self) -> int:
        """Lines that were dropped: a slow reader left no room for them, or they could not be written."""
        return self._writer.dropped

    async def startup(self) -> None:
        """Find out where standard output leads, before the app captures what is printed."""
        self._writer.open()

    async def shutdown(self) -> None:
        """Wait until a slow reader has the last line."""
        await asyncio.to_thread(self._writer.flush)

    def _shorter(self, entry: Entry) -> bytes:
        """The line once more, so short that no other worker's is written into it."""
        line = b""
        for most in SHORTER:
            shorten(entry, most)
            line = one_line(orjson.dumps(self._record(entry), option=orjson.OPT_APPEND_NEWLINE))
            if len(line) <= MAX_LINE:
                break
        return line

    def _dropped(self, count: int) -> bytes:
        return orjson.dumps(dropped(count, time.time_ns(), self._format), option=orjson.OPT_APPEND_NEWLINE)

    def _is_logged(self, entry: Entry) -> bool:
        remarks = entry.remarks
        loud = remarks is not None and (
            remarks.slow
            or any(each is not None for each in (remarks.error, remarks.reason, remarks.shadow, remarks.csrf_shadow))
        )
        return loud or severity(entry) == "ERROR" or sampled(entry.trace_id, entry.request_id, self._sample)

    def _entry(self, exchange: Exchange, response: Response, error: BaseException | None) -> Entry:
        headers, user, trace, scope = exchange.headers, exchange.user, exchange.trace, exchange.scope
        now, agent = time.perf_counter_ns(), headers.get(b"user-agent")
        path, root_path = exchange.path, exchange.root_path
        entry = Entry(
            time.time_ns(),
            exchange.method,
            path if path[:1] == "/" and not root_path else without_login(path, root_path),
            scope.get("query_string") or b"",
            exchange.scheme,
            scope.get("http_version") or "1.1",
            response.status,
            now - exchange.started,
            0 if exchange.method == "HEAD" else response.sent,  # servers keep back what an app sends as its body
            exchange.request_id,
            self._route(exchange),
            exchange.client,
            exchange.peer or None,
            None if user is None else user.subject,
            None if agent is None else text(agent),
        )
        if self._issuer and user is not None:
            entry.issuer = user.issuer
        if trace is not None:
            entry.trace_id, entry.parent_id = trace.trace_id, trace.parent_id
        if self._format == "gcp":
            host = headers.get(b"host")
            entry.host, entry.project = None if host is None else text(host.rpartition(b"@")[2]), self._project
        if error is not None or not self._is_ordinary(exchange, response, entry.duration):
            self._remark(entry, exchange, response, error)
        return entry

    def _is_ordinary(self, exchange: Exchange, response: Response, duration: int) -> bool:
        """Whether nothing is to be said beyond what every exchange has."""
        if not response.finished or response.streamed is not None or response.unheard or exchange.kind != "http":
            return False
        if exchange.answer is not None or exchange.detail is not None or exchange.client_doubt is not None:
            return False
        if exchange.csrf_shadow is not None or response.from_file:
            return False
        verdict = exchange.verdict
        if verdict is not None and not verdict.resets and any(reading.wait != 0 for reading in verdict.readings):
            return False
        return self._slow is None or duration < self._slow

    def _remark(self, entry: Entry, exchange: Exchange, response: Response, error: BaseException | None) -> None:
        """Add how the exchange went and came to its end."""
        remarks = entry.remarks = Remarks(
            detail=exchange.detail, csrf_shadow=exchange.csrf_shadow, client_doubt=exchange.client_doubt
        )
        answer, verdict = exchange.answer, exchange.verdict
        if answer is not None and answer.reason is not None:
            remarks.refused_by, remarks.reason = exchange.answered_by, answer.reason
        if verdict is not None:
            if not verdict.admitted:
                remarks.limit = _names(verdict.refusing)
            remarks.shadow = _names(verdict.shadowed) or None
        if response.streamed is not None:
            remarks.first_byte = response.streamed - exchange.started
        remarks.from_file = response.from_file and exchange.method != "HEAD"
        if exchange.kind != "http":
            remarks.close_code = response.close_code
            if response.status == 101:
                remarks.messages_received, remarks.messages_sent = response.messages_received, response.messages_sent
        remarks.slow = self._is_slow(exchange, response, entry.duration)
        if response.is_left:
            entry.status = CLIENT_GONE if entry.status is None or response.unheard else entry.status
        remarks.error = response.failure(error)

    def _is_slow(self, exchange: Exchange, response: Response, duration: int) -> bool:
        """Whether the answer was long in coming; how long a stream, a session or what follows lasts says nothing."""
        if self._slow is None or response.status == 101:
            return False
        came = response.streamed or response.ended
        return (duration if came is None else came - exchange.started) >= self._slow

    def _is_probe(self, exchange: Exchange) -> bool:
        # What is asked with another method is no probe, whatever its path.
        if exchange.kind != "http" or exchange.method not in ("GET", "HEAD"):
            return False
        return exchange.below in self._quiet and exchange.claimed_root_path is None

    def _route(self, exchange: Exchange) -> str | None:
        """The route's pattern: the app's own, where its router leaves it in the scope; never the raw path."""
        if exchange.route is not None:
            route = getattr(exchange.route, "path", None)
            if isinstance(route, str):
                return route
        row, _ = exchange.find(self._table)
        return None if row == NO_ROW else self._table.routes[row].path


def _names(readings: Iterable[Reading]) -> str:
    return ",".join(reading.limit.name for reading in readings)
