"""The access log's record: what one exchange was, in the names *and units* of the schema that reads it.

- json, otel: `duration_ms`, milliseconds
- ecs: `event.duration`, nanoseconds
- gcp: `httpRequest.latency`, seconds as "0.012s"
- datadog: `duration`, nanoseconds

Query strings are logged by their keys; every value becomes `[REDACTED]`. No other header than the user agent is logged.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import unquote_to_bytes
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Callable

LogFormat: TypeAlias = Literal["json", "otel", "ecs", "gcp", "datadog", "off"]

KNOWN_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
MAX_TEXT = 2048
CLIENT_GONE = 499
"""The status of an exchange whose client left before anything was sent. It stands in the log only."""


@dataclass(slots=True)
class Entry:
    """The facts of one exchange, free of any schema. Durations are in nanoseconds, sizes in bytes of body.

    Attributes:
        time: when it ended, seconds since the Unix epoch.
        kind: `http` or `websocket`.
        method: as sent.
        path: decoded.
        client_doubt: why the client is only the peer, where a proxy was to name another.
        status: as sent; 499 where the client left first, None where nothing was sent.
        error: the exception's type, or `client_disconnected`.
        refused_by: the layer that refused, with `reason` and a word more in `detail`.
        limit: the limits that refused.
        shadow: the limits that would have, were they not in shadow.
        first_byte: from the start to the first part of a body that was sent in several.
        close_code: what a WebSocket was closed with.
        messages_received: messages of a WebSocket's client, and
        messages_sent: those of the app; None for anything but a session.
        project: Google Cloud's, in whose traces this one is.
    """

    time: float
    kind: str
    method: str
    path: str
    query: bytes
    scheme: str
    http_version: str
    status: int | None
    duration: int
    sent: int
    request_id: str | None = None
    route: str | None = None
    client: str | None = None
    client_doubt: str | None = None
    peer: str | None = None
    user: str | None = None
    user_agent: str | None = None
    host: str | None = None
    trace_id: str | None = None
    parent_id: str | None = None
    error: str | None = None
    refused_by: str | None = None
    reason: str | None = None
    detail: str | None = None
    limit: str | None = None
    shadow: str | None = None
    slow: bool = False
    first_byte: int | None = None
    close_code: int | None = None
    messages_received: int | None = None
    messages_sent: int | None = None
    project: str | None = None


def severity(entry: Entry) -> Literal["INFO", "WARN", "ERROR"]:
    """How loud the line is: a server's fault is an error, a client's a warning, a full bucket business as usual."""
    status = entry.status
    if status is not None and status < 400 and entry.error is None:
        return "WARN" if entry.slow else "INFO"
    if status is None or status >= 500 or (entry.error not in (None, "client_disconnected")):
        return "ERROR"
    if entry.slow or (status >= 400 and status not in (429, CLIENT_GONE)):
        return "WARN"
    return "INFO"


def redact_query(query: bytes) -> str:
    """The query with its keys and without its values. Keys may be secrets' neighbours, values may be secrets."""
    if not query:
        return ""
    shown = []
    for pair in query[:MAX_TEXT].split(b"&"):
        key, equals, _ = pair.partition(b"=")
        # What has no value could be a bare secret (`?s3cr3t`), so it counts as one.
        shown.append(_key(key) if equals else "[REDACTED]")
    return "&".join(shown)


@lru_cache(maxsize=256)
def _key(key: bytes) -> str:
    """A key as it is shown. An app has few of them, and whoever sends many others evicts but theirs."""
    return text(unquote_to_bytes(key) if b"%" in key else key) + "=[REDACTED]"


def text(value: bytes) -> str:
    """Bytes of a header as text that any log reader takes, bounded."""
    return (value if len(value) <= MAX_TEXT else value[:MAX_TEXT]).decode("utf-8", "replace")


def record(entry: Entry, schema: LogFormat) -> dict[str, Any]:
    """Make the record of an entry. What is not known has no member."""
    return _SCHEMAS[schema](entry)


def _bounded(value: str) -> str:
    return value if len(value) <= MAX_TEXT else value[:MAX_TEXT]


def _message(entry: Entry, path: str) -> str:
    status = "-" if entry.status is None else entry.status
    return f"{entry.method[:16]} {path} {status}"


def dropped(count: int, seconds: float, schema: LogFormat) -> dict[str, Any]:
    """Make the record that tells of lines that were dropped, since whoever reads them is too slow."""
    time, level, warning = _HEADS[schema]
    message = f"{count} lines of the access log were dropped: they are read too slowly"
    return {time: _timestamp(seconds), level: warning, "message": message, "asgi_guard.dropped": count}


_HEADS = {
    "json": ("timestamp", "severity", "WARN"),
    "otel": ("timestamp", "severity", "WARN"),
    "ecs": ("@timestamp", "log.level", "warn"),
    "gcp": ("time", "severity", "WARNING"),
    "datadog": ("timestamp", "status", "warn"),
}
_MILLISECONDS = tuple(f".{count:03d}Z" for count in range(1000))


def _timestamp(seconds: float) -> str:
    milliseconds = int(seconds * 1000)
    second = milliseconds // 1000
    return _second(second) + _MILLISECONDS[milliseconds - second * 1000]


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    """The lines of one second share all of their time but the milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _url(entry: Entry, path: str) -> str:
    query = "?" + redact_query(entry.query) if entry.query else ""
    return f"{entry.scheme}://{entry.host or ''}{path}{query}"


def _add_guard(entry: Entry, members: dict[str, Any]) -> None:
    """Add the members that no schema has a name for."""
    if entry.reason is not None:
        members["asgi_guard.reason"] = entry.reason
        if entry.refused_by is not None:
            members["asgi_guard.refused_by"] = entry.refused_by
    if entry.limit is not None:
        members["asgi_guard.limit"] = entry.limit
    if entry.detail is not None:
        members["asgi_guard.detail"] = entry.detail
    if entry.shadow is not None:
        members["asgi_guard.limit_shadow"] = entry.shadow
    if entry.client_doubt is not None:
        members["asgi_guard.client_doubt"] = entry.client_doubt
    if entry.slow:
        members["asgi_guard.slow"] = True
    if entry.first_byte is not None:
        members["asgi_guard.first_byte_ms"] = (entry.first_byte + 500) // 1000 / 1000
    if entry.kind != "http":
        _add_session(entry, members)


def _add_session(entry: Entry, members: dict[str, Any]) -> None:
    """Add what is known of a WebSocket session."""
    if entry.close_code is not None:
        members["asgi_guard.close_code"] = entry.close_code
    if entry.messages_received is not None:
        members["asgi_guard.messages_received"] = entry.messages_received
        members["asgi_guard.messages_sent"] = entry.messages_sent


# The members that every exchange has are made at once, and what is known beside them is added: an exchange in a
# thousand is refused, slow or broken off, and every one pays for what is asked of it here.


def _otel(entry: Entry) -> dict[str, Any]:
    method, path = entry.method, _bounded(entry.path)
    members: dict[str, Any] = {
        "timestamp": _timestamp(entry.time),
        "severity": severity(entry),
        "message": _message(entry, path),
        "http.request.method": method if method in KNOWN_METHODS else "_OTHER",
        "url.scheme": entry.scheme,
        "url.path": path,
        "http.response.body.size": entry.sent,
        "network.protocol.version": entry.http_version,
        "duration_ms": (entry.duration + 500) // 1000 / 1000,
    }
    if entry.request_id is not None:
        members["request_id"] = entry.request_id
    if entry.trace_id is not None:
        members["trace_id"] = entry.trace_id
        members["span_id"] = entry.parent_id
    if method not in KNOWN_METHODS:
        members["http.request.method_original"] = method[:32]
    if entry.query:
        members["url.query"] = redact_query(entry.query)
    if entry.route is not None:
        members["http.route"] = entry.route
    if entry.status is not None:
        members["http.response.status_code"] = entry.status
    if entry.client is not None:
        members["client.address"] = entry.client
    if entry.peer is not None:
        members["network.peer.address"] = entry.peer
    if entry.user_agent is not None:
        members["user_agent.original"] = entry.user_agent
    if entry.user is not None:
        members["user.id"] = entry.user
    if entry.error is not None:
        members["error.type"] = entry.error
    _add_guard(entry, members)
    return members


def _ecs(entry: Entry) -> dict[str, Any]:
    level, path = severity(entry), _bounded(entry.path)
    members: dict[str, Any] = {
        "@timestamp": _timestamp(entry.time),
        "ecs.version": "8.11.0",
        "log.level": level.lower(),
        "message": _message(entry, path),
        "event.kind": "event",
        "event.category": "web",
        "event.duration": entry.duration,
        "event.outcome": "failure" if level == "ERROR" else "success",
        "http.request.method": entry.method[:32],
        "http.response.body.bytes": entry.sent,
        "http.version": entry.http_version,
        "url.scheme": entry.scheme,
        "url.path": path,
    }
    if entry.request_id is not None:
        members["http.request.id"] = entry.request_id
    if entry.status is not None:
        members["http.response.status_code"] = entry.status
    if entry.query:
        members["url.query"] = redact_query(entry.query)
    if entry.client is not None:
        members["client.ip"] = entry.client
    if entry.peer is not None:
        members["source.ip"] = entry.peer
    if entry.user_agent is not None:
        members["user_agent.original"] = entry.user_agent
    if entry.user is not None:
        members["user.id"] = entry.user
    if entry.trace_id is not None:
        members["trace.id"] = entry.trace_id
        members["span.id"] = entry.parent_id
    if entry.error is not None:
        members["error.type"] = entry.error
    _add_guard(entry, members)
    return members


def _gcp(entry: Entry) -> dict[str, Any]:
    level, path = severity(entry), _bounded(entry.path)
    request: dict[str, Any] = {
        "requestMethod": entry.method[:32],
        "requestUrl": _url(entry, path),
        "responseSize": str(entry.sent),
        "latency": f"{entry.duration / 1e9:.6f}s",
        "protocol": f"HTTP/{entry.http_version}",
    }
    if entry.status is not None:
        request["status"] = entry.status
    if entry.user_agent is not None:
        request["userAgent"] = entry.user_agent
    if entry.client is not None:
        request["remoteIp"] = entry.client
    members: dict[str, Any] = {
        "time": _timestamp(entry.time),
        "severity": "WARNING" if level == "WARN" else level,
        "message": _message(entry, path),
        "httpRequest": request,
    }
    if entry.request_id is not None:
        members["logging.googleapis.com/labels"] = {"request_id": entry.request_id}
    if entry.trace_id is not None:
        prefix = "" if entry.project is None else f"projects/{entry.project}/traces/"
        members["logging.googleapis.com/trace"] = prefix + entry.trace_id
        members["logging.googleapis.com/spanId"] = entry.parent_id
    if entry.error is not None:
        members["error.type"] = entry.error
    _add_guard(entry, members)
    return members


def _datadog(entry: Entry) -> dict[str, Any]:
    path = _bounded(entry.path)
    members: dict[str, Any] = {
        "timestamp": _timestamp(entry.time),
        "status": severity(entry).lower(),
        "message": _message(entry, path),
        "http.method": entry.method[:32],
        "http.url_details.path": path,
        "http.url_details.scheme": entry.scheme,
        "http.version": entry.http_version,
        "network.bytes_written": entry.sent,
        "duration": entry.duration,
    }
    if entry.status is not None:
        members["http.status_code"] = entry.status
    if entry.user_agent is not None:
        members["http.useragent"] = entry.user_agent
    if entry.request_id is not None:
        members["http.request_id"] = entry.request_id
    if entry.client is not None:
        members["network.client.ip"] = entry.client
    if entry.user is not None:
        members["usr.id"] = entry.user
    if entry.trace_id is not None:
        members["dd.trace_id"] = entry.trace_id
        members["dd.span_id"] = entry.parent_id
    if entry.error is not None:
        members["error.kind"] = entry.error
    _add_guard(entry, members)
    return members


_SCHEMAS: dict[LogFormat, Callable[[Entry], dict[str, Any]]] = {
    "json": _otel,
    "otel": _otel,
    "ecs": _ecs,
    "gcp": _gcp,
    "datadog": _datadog,
}


def sampled(trace_id: str | None, request_id: str | None, share: float) -> bool:
    """Tell whether an ordinary exchange is logged: the same answer for the same trace, whoever asks.

    Args:
        trace_id: the caller's trace, if there is one.
        request_id: else the request's id.
        share: from 0 (none) to 1 (all). An exchange with neither id is logged unless the share is 0.
    """
    if share >= 1:
        return True
    if trace_id is None and request_id is None:
        return share > 0
    return crc32((trace_id or request_id or "").encode()) < share * 2**32
