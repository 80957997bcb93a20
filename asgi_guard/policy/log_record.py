"""The access log's record: what one exchange was, in the names *and units* of the schema that reads it.

- json, otel: `duration_ms`, milliseconds
- ecs: `event.duration`, nanoseconds
- gcp: `httpRequest.latency`, seconds as "0.012s"
- datadog: `duration`, nanoseconds

Where a schema has no name of its own for the route, the peer, the user or the query, OpenTelemetry's stands:
`http.route`, `network.peer.address`, `user.id`, `url.query`. Datadog's `http.url_details.queryString` is an object.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from asgi_guard.policy.address import parse_address
from asgi_guard.policy.log_entry import MAX_TEXT, redact_query, severity
from asgi_guard.policy.methods import KNOWN_METHODS

if TYPE_CHECKING:
    from collections.abc import Callable

    from asgi_guard.policy.log_entry import Entry, Remarks

LogFormat: TypeAlias = Literal["json", "otel", "ecs", "gcp", "datadog", "off"]


def dropped(count: int, nanoseconds: int, schema: LogFormat) -> dict[str, Any]:
    """Make the record that tells of lines that were dropped, since whoever reads them is too slow.

    Args:
        count: how many.
        nanoseconds: when, since the Unix epoch.
        schema: for whom.
    """
    time, level, warning = _HEADS[schema]
    message = f"{count} lines of the access log were dropped: they are read too slowly"
    return {time: _timestamp(nanoseconds), level: warning, "message": message, "asgi_guard.dropped": count}


_HEADS = {
    "json": ("timestamp", "severity", "WARN"),
    "otel": ("timestamp", "severity", "WARN"),
    "ecs": ("@timestamp", "log.level", "warn"),
    "gcp": ("time", "severity", "WARNING"),
    "datadog": ("timestamp", "status", "warn"),
}
_MILLISECONDS = tuple(f".{count:03d}Z" for count in range(1000))


def _timestamp(nanoseconds: int) -> str:
    second, millisecond = divmod(nanoseconds // 1_000_000, 1000)
    return _second(second) + _MILLISECONDS[millisecond]


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    """The lines of one second share all of their time but the milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _url(entry: Entry, path: str) -> str:
    query = "?" + redact_query(entry.query) if entry.query else ""
    return f"{entry.scheme}://{entry.host or ''}{path}{query}"


def _add_remarks(members: dict[str, Any], remarks: Remarks, error_type: str = "error.type") -> None:
    """Add what few exchanges have; but for the error, no schema has a name for it."""
    if remarks.error is not None:
        members[error_type] = remarks.error
    if remarks.reason is not None:
        members["asgi_guard.reason"] = remarks.reason
        if remarks.refused_by is not None:
            members["asgi_guard.refused_by"] = remarks.refused_by
    if remarks.limit is not None:
        members["asgi_guard.limit"] = remarks.limit
    if remarks.detail is not None:
        members["asgi_guard.detail"] = remarks.detail
    if remarks.shadow is not None:
        members["asgi_guard.limit_shadow"] = remarks.shadow
    if remarks.csrf_shadow is not None:
        members["asgi_guard.csrf_shadow"] = remarks.csrf_shadow
    if remarks.client_doubt is not None:
        members["asgi_guard.client_doubt"] = remarks.client_doubt
    if remarks.slow:
        members["asgi_guard.slow"] = True
    if remarks.first_byte is not None:
        members["asgi_guard.first_byte_ms"] = (remarks.first_byte + 500) // 1000 / 1000
    if remarks.from_file:
        _take_size(members)
    _add_session(members, remarks)


def _take_size(members: dict[str, Any]) -> None:
    """Take away what would be the size of a body, under whichever name."""
    for name in ("http.response.body.size", "http.response.body.bytes", "network.bytes_written"):
        members.pop(name, None)
    members.get("httpRequest", {}).pop("responseSize", None)


def _add_session(members: dict[str, Any], remarks: Remarks) -> None:
    """Add what is known of a WebSocket session."""
    if remarks.close_code is not None:
        members["asgi_guard.close_code"] = remarks.close_code
    if remarks.messages_received is not None:
        members["asgi_guard.messages_received"] = remarks.messages_received
        members["asgi_guard.messages_sent"] = remarks.messages_sent


# The members that every exchange has are made at once, and what is known beside them is added: an exchange in a
# thousand is refused, slow or broken off, and every one pays for what is asked of it here.


def _otel(entry: Entry) -> dict[str, Any]:
    method, path, status = entry.method, entry.path[:MAX_TEXT], entry.status
    members: dict[str, Any] = {
        "timestamp": _timestamp(entry.time),
        "severity": severity(entry),
        "message": f"{method[:16]} {path} {'-' if status is None else status}",
        "http.request.method": method,
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
        members["http.request.method"], members["http.request.method_original"] = "_OTHER", method[:32]
    if entry.query:
        members["url.query"] = redact_query(entry.query)
    if entry.route is not None:
        members["http.route"] = entry.route
    if status is not None:
        members["http.response.status_code"] = status
    if entry.client is not None:
        members["client.address"] = entry.client
    if entry.peer is not None:
        members["network.peer.address"] = entry.peer
    if entry.user_agent is not None:
        members["user_agent.original"] = entry.user_agent
    if entry.user is not None:
        members["user.id"] = entry.user
    if entry.remarks is not None:
        _add_remarks(members, entry.remarks)
    return members


def _ecs(entry: Entry) -> dict[str, Any]:
    method, path, status, level = entry.method, entry.path[:MAX_TEXT], entry.status, severity(entry)
    members: dict[str, Any] = {
        "@timestamp": _timestamp(entry.time),
        "ecs.version": "8.11.0",
        "log.level": level.lower(),
        "message": f"{method[:16]} {path} {'-' if status is None else status}",
        "event.kind": "event",
        "event.category": "web",
        "event.duration": entry.duration,
        "event.outcome": "failure" if level == "ERROR" else "success",
        "http.request.method": method[:32],
        "http.response.body.bytes": entry.sent,
        "http.version": entry.http_version,
        "url.scheme": entry.scheme,
        "url.path": path,
    }
    if entry.request_id is not None:
        members["http.request.id"] = entry.request_id
    if entry.route is not None:
        members["http.route"] = entry.route
    if status is not None:
        members["http.response.status_code"] = status
    if entry.query:
        members["url.query"] = redact_query(entry.query)
    if entry.client is not None:
        _add_address(members, "client", entry.client)
    if entry.peer is not None:
        _add_address(members, "source", entry.peer)
    if entry.user_agent is not None:
        members["user_agent.original"] = entry.user_agent
    if entry.user is not None:
        members["user.id"] = entry.user
    if entry.trace_id is not None:
        members["trace.id"] = entry.trace_id
        members["span.id"] = entry.parent_id
    if entry.remarks is not None:
        _add_remarks(members, entry.remarks)
    return members


def _add_address(members: dict[str, Any], whose: str, told: str) -> None:
    """Add an address under the name that ECS has for it: Elasticsearch drops a line whose `ip` is a name."""
    address = parse_address(told)
    if address is None:
        members[f"{whose}.address"] = told
    else:
        members[f"{whose}.ip"] = address.text


def _gcp(entry: Entry) -> dict[str, Any]:
    method, path, status, level = entry.method, entry.path[:MAX_TEXT], entry.status, severity(entry)
    request: dict[str, Any] = {
        "requestMethod": method[:32],
        "requestUrl": _url(entry, path),
        "responseSize": str(entry.sent),
        "latency": f"{entry.duration / 1e9:.6f}s",
        "protocol": f"HTTP/{entry.http_version}",
    }
    if status is not None:
        request["status"] = status
    if entry.user_agent is not None:
        request["userAgent"] = entry.user_agent
    if entry.client is not None:
        request["remoteIp"] = entry.client
    members: dict[str, Any] = {
        "time": _timestamp(entry.time),
        "severity": "WARNING" if level == "WARN" else level,
        "message": f"{method[:16]} {path} {'-' if status is None else status}",
        "httpRequest": request,
    }
    if entry.request_id is not None:
        members["logging.googleapis.com/labels"] = {"request_id": entry.request_id}
    if entry.route is not None:
        members["http.route"] = entry.route
    if entry.user is not None:
        members["user.id"] = entry.user
    if entry.peer is not None:
        members["network.peer.address"] = entry.peer
    if entry.trace_id is not None:
        prefix = "" if entry.project is None else f"projects/{entry.project}/traces/"
        members["logging.googleapis.com/trace"] = prefix + entry.trace_id
        members["logging.googleapis.com/spanId"] = entry.parent_id
    if entry.remarks is not None:
        _add_remarks(members, entry.remarks)
    return members


def _datadog(entry: Entry) -> dict[str, Any]:
    method, path, status = entry.method, entry.path[:MAX_TEXT], entry.status
    members: dict[str, Any] = {
        "timestamp": _timestamp(entry.time),
        "status": severity(entry).lower(),
        "message": f"{method[:16]} {path} {'-' if status is None else status}",
        "http.method": method[:32],
        "http.url_details.path": path,
        "http.url_details.scheme": entry.scheme,
        "http.version": entry.http_version,
        "network.bytes_written": entry.sent,
        "duration": entry.duration,
    }
    if entry.query:
        members["url.query"] = redact_query(entry.query)
    if entry.route is not None:
        members["http.route"] = entry.route
    if status is not None:
        members["http.status_code"] = status
    if entry.user_agent is not None:
        members["http.useragent"] = entry.user_agent
    if entry.request_id is not None:
        members["http.request_id"] = entry.request_id
    if entry.client is not None:
        members["network.client.ip"] = entry.client
    if entry.peer is not None:
        members["network.peer.address"] = entry.peer
    if entry.user is not None:
        members["usr.id"] = entry.user
    if entry.trace_id is not None:
        members["dd.trace_id"] = entry.trace_id
    if entry.parent_id is not None:
        members["dd.span_id"] = str(int(entry.parent_id, 16))  # the form in which its spans are looked up
    if entry.remarks is not None:
        _add_remarks(members, entry.remarks, "error.kind")
    return members


RECORDS: dict[LogFormat, Callable[[Entry], dict[str, Any]]] = {
    "json": _otel,
    "otel": _otel,
    "ecs": _ecs,
    "gcp": _gcp,
    "datadog": _datadog,
}
"""What makes the record of an entry, by schema. What is not known has no member."""


def with_issuer(record: Callable[[Entry], dict[str, Any]]) -> Callable[[Entry], dict[str, Any]]:
    """What makes the record of a schema, with the user's issuer, for which none has a name."""

    def made(entry: Entry) -> dict[str, Any]:
        members = record(entry)
        if entry.issuer is not None:
            members["asgi_guard.issuer"] = entry.issuer
        return members

    return made


_UNPRINTABLE = re.compile("[\x80-\x9f\u2028-\u202e\u2066-\u2069]")


def one_line(line: bytes) -> bytes:
    """Escape what some readers do not show as it is: ends of lines beside the newline, and what terminals heed.

    Those are Unicode's line boundaries, the control characters from U+0080, of which one begins commands to a terminal,
    and what turns around the direction of text. Those below U+0020 JSON has escaped already.
    """
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", line.decode()).encode()
