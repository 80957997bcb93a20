"""The access log's record, in the names and units of whoever reads it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.policy.log_entry import MAX_TEXT, Entry, Remarks, redact_query, sampled, severity, text
from asgi_guard.policy.log_record import RECORDS, LogFormat, dropped, with_issuer

SCHEMAS: list[LogFormat] = [schema for schema in get_args(LogFormat) if schema != "off"]
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
FULL = Entry(
    time=1_795_000_000_012_500_000,
    method="POST",
    path="/payments/7",
    query=b"token=s3cr3t&page=2",
    scheme="https",
    http_version="1.1",
    status=201,
    duration=12_345_678,
    sent=512,
    request_id="req-1",
    route="/payments/*",
    client="192.0.2.1",
    peer="10.0.0.1",
    user="alice",
    user_agent="curl/8",
    host="api.example.com",
    trace_id=TRACE_ID,
    parent_id="00f067aa0ba902b7",
)
BARE = Entry(
    time=0,
    method="GET",
    path="/",
    query=b"",
    scheme="ws",
    http_version="1.1",
    status=None,
    duration=0,
    sent=0,
)

# Every name of every schema, with the value and unit that stands there for FULL.
ORACLE: dict[LogFormat, dict[str, Any]] = {
    "otel": {
        "timestamp": "2026-11-18T11:06:40.012Z",
        "severity": "INFO",
        "message": "POST /payments/7 201",
        "request_id": "req-1",
        "trace_id": TRACE_ID,
        "span_id": "00f067aa0ba902b7",
        "http.request.method": "POST",
        "url.scheme": "https",
        "url.path": "/payments/7",
        "url.query": "token=[REDACTED]&page=[REDACTED]",
        "http.route": "/payments/*",
        "http.response.status_code": 201,
        "http.response.body.size": 512,
        "network.protocol.version": "1.1",
        "client.address": "192.0.2.1",
        "network.peer.address": "10.0.0.1",
        "user_agent.original": "curl/8",
        "user.id": "alice",
        "duration_ms": 12.346,
    },
    "ecs": {
        "@timestamp": "2026-11-18T11:06:40.012Z",
        "ecs.version": "8.11.0",
        "log.level": "info",
        "message": "POST /payments/7 201",
        "event.kind": "event",
        "event.category": "web",
        "event.duration": 12_345_678,
        "event.outcome": "success",
        "http.request.id": "req-1",
        "http.request.method": "POST",
        "http.response.status_code": 201,
        "http.response.body.bytes": 512,
        "http.version": "1.1",
        "url.scheme": "https",
        "url.path": "/payments/7",
        "url.query": "token=[REDACTED]&page=[REDACTED]",
        "client.ip": "192.0.2.1",
        "source.ip": "10.0.0.1",
        "user_agent.original": "curl/8",
        "user.id": "alice",
        "http.route": "/payments/*",
        "trace.id": TRACE_ID,
        "span.id": "00f067aa0ba902b7",
    },
    "gcp": {
        "time": "2026-11-18T11:06:40.012Z",
        "severity": "INFO",
        "message": "POST /payments/7 201",
        "httpRequest": {
            "requestMethod": "POST",
            "requestUrl": "https://api.example.com/payments/7?token=[REDACTED]&page=[REDACTED]",
            "status": 201,
            "responseSize": "512",
            "userAgent": "curl/8",
            "remoteIp": "192.0.2.1",
            "latency": "0.012346s",
            "protocol": "HTTP/1.1",
        },
        "http.route": "/payments/*",
        "user.id": "alice",
        "network.peer.address": "10.0.0.1",
        "logging.googleapis.com/labels": {"request_id": "req-1"},
        "logging.googleapis.com/trace": TRACE_ID,
        "logging.googleapis.com/spanId": "00f067aa0ba902b7",
    },
    "datadog": {
        "timestamp": "2026-11-18T11:06:40.012Z",
        "status": "info",
        "message": "POST /payments/7 201",
        "http.method": "POST",
        "http.url_details.path": "/payments/7",
        "http.url_details.scheme": "https",
        "url.query": "token=[REDACTED]&page=[REDACTED]",
        "http.status_code": 201,
        "http.useragent": "curl/8",
        "http.request_id": "req-1",
        "http.version": "1.1",
        "network.client.ip": "192.0.2.1",
        "network.peer.address": "10.0.0.1",
        "http.route": "/payments/*",
        "network.bytes_written": 512,
        "duration": 12_345_678,
        "usr.id": "alice",
        "dd.trace_id": TRACE_ID,
        "dd.span_id": "67667974448284343",
    },
}
ORACLE["json"] = ORACLE["otel"]


def record(entry: Entry, schema: LogFormat) -> dict[str, Any]:
    """The record of an entry in this schema."""
    return RECORDS[schema](entry)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_names_and_units(schema: LogFormat) -> None:
    """Each schema's record has its own names and units, and nothing beside them."""
    assert record(FULL, schema) == ORACLE[schema]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_what_is_not_known_is_left_out(schema: LogFormat) -> None:
    """No member of a record, at any depth, is null or empty; a message has a dash in a status's place."""
    assert not {b"null", b'""'} & set(orjson.dumps(record(BARE, schema)).replace(b":", b",").split(b","))
    assert record(BARE, schema)["message"].endswith(" -")
    assert set(record(BARE, schema)) <= set(ORACLE[schema])


@pytest.mark.parametrize("schema", SCHEMAS)
def test_whose_the_user_is(schema: LogFormat) -> None:
    """Where it is asked for, the user's issuer stands beside the user, if there is one."""
    assert with_issuer(RECORDS[schema])(FULL) == ORACLE[schema]
    told = with_issuer(RECORDS[schema])(replace(FULL, issuer="https://id.example"))
    assert told == {**ORACLE[schema], "asgi_guard.issuer": "https://id.example"}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_refusals_and_errors(schema: LogFormat) -> None:
    """The members that no schema names are the same in all; only the error's type has a name of its own in one."""
    remarks = Remarks("ValueError", refused_by="rate_limit", reason="rate_limited", detail="x", limit="ip", slow=True)
    entry = replace(FULL, status=500, remarks=remarks)
    found = record(entry, schema)
    assert {name: value for name, value in found.items() if name.startswith("asgi_guard.")} == {
        "asgi_guard.refused_by": "rate_limit",
        "asgi_guard.reason": "rate_limited",
        "asgi_guard.detail": "x",
        "asgi_guard.limit": "ip",
        "asgi_guard.slow": True,
    }
    assert found["error.kind" if schema == "datadog" else "error.type"] == "ValueError"


@pytest.mark.parametrize("schema", SCHEMAS)
def test_sessions_and_streams(schema: LogFormat) -> None:
    """A WebSocket session has its close code and its messages, a stream the time to its first part, in milliseconds."""
    session = replace(BARE, status=101, remarks=Remarks(close_code=1001, messages_received=3, messages_sent=0))
    found = {name: value for name, value in record(session, schema).items() if name.startswith("asgi_guard.")}
    assert found == {
        "asgi_guard.close_code": 1001,
        "asgi_guard.messages_received": 3,
        "asgi_guard.messages_sent": 0,
    }
    stream = replace(FULL, remarks=Remarks(first_byte=1_234_567))
    assert record(stream, schema) == {**ORACLE[schema], "asgi_guard.first_byte_ms": 1.235}


@pytest.mark.parametrize(
    ("told", "member", "value"),
    [
        ("192.0.2.1", "ip", "192.0.2.1"),
        ("2001:db8::1", "ip", "2001:db8::1"),
        ("fe80::1%eth0", "ip", "fe80::1"),
        ("::ffff:192.0.2.1", "ip", "192.0.2.1"),
        ("testclient", "address", "testclient"),
        ("/run/app.sock", "address", "/run/app.sock"),
    ],
)
def test_addresses_that_elasticsearch_takes(told: str, member: str, value: str) -> None:
    """An `ip` of ECS is one, for Elasticsearch drops a line in which it is none; any other name stands as `address`."""
    found = record(replace(BARE, client=told, peer=told), "ecs")
    assert {name: value for name, value in found.items() if name.startswith(("client.", "source."))} == {
        f"client.{member}": value,
        f"source.{member}": value,
    }


def test_traces_of_a_project() -> None:
    """Google Cloud finds a trace by its full name, once it is told the project."""
    found = record(replace(FULL, project="shop-1"), "gcp")
    assert found["logging.googleapis.com/trace"] == f"projects/shop-1/traces/{TRACE_ID}"


@pytest.mark.parametrize("schema", SCHEMAS)
def test_dropped(schema: LogFormat) -> None:
    """The line that tells of dropped ones has the time and the level where all lines of its schema have them."""
    told, usual = dropped(7, FULL.time, schema), record(replace(FULL, remarks=Remarks(slow=True)), schema)
    assert told.pop("asgi_guard.dropped") == 7
    assert "7 lines" in told.pop("message")
    assert told == {name: usual[name] for name in told}
    assert len(told) == 2


@pytest.mark.parametrize(
    "method", ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"]
)
def test_known_methods(method: str) -> None:
    """A method of OpenTelemetry's set stands for itself."""
    found = record(replace(FULL, method=method), "otel")
    assert found["http.request.method"] == method
    assert "http.request.method_original" not in found


@pytest.mark.parametrize(
    ("method", "named", "original"), [("QUERY", "QUERY", None), ("BREW", "_OTHER", "BREW"), ("get", "_OTHER", "get")]
)
def test_unknown_methods(method: str, named: str, original: str | None) -> None:
    """OpenTelemetry's method is one of a closed set, and any other stands beside it."""
    found = record(replace(FULL, method=method), "otel")
    assert found["http.request.method"] == named
    assert found.get("http.request.method_original") == original


@pytest.mark.parametrize(
    ("status", "error", "slow", "level"),
    [
        (200, None, False, "INFO"),
        (101, None, False, "INFO"),
        (308, None, False, "INFO"),
        (200, None, True, "WARN"),
        (400, None, False, "WARN"),
        (401, None, False, "WARN"),
        (404, None, False, "WARN"),
        (429, None, False, "INFO"),
        (429, None, True, "WARN"),
        (499, "client_disconnected", False, "INFO"),
        (200, "client_disconnected", False, "INFO"),
        (404, "client_disconnected", False, "WARN"),
        (500, None, False, "ERROR"),
        (503, None, True, "ERROR"),
        (200, "ValueError", False, "ERROR"),
        (None, None, False, "ERROR"),
        (None, "CancelledError", False, "ERROR"),
    ],
)
def test_severity(status: int | None, error: str | None, slow: bool, level: str) -> None:
    """A server's fault is an error, a client's a warning, a full bucket or a client that left business as usual."""
    entry = replace(FULL, status=status, remarks=Remarks(error, slow=slow))
    assert severity(entry) == level
    assert record(entry, "otel")["severity"] == level
    assert record(entry, "gcp")["severity"] == {"WARN": "WARNING"}.get(level, level)
    assert record(entry, "ecs")["log.level"] == level.lower()
    assert record(entry, "ecs")["event.outcome"] == ("failure" if level == "ERROR" else "success")
    assert record(entry, "datadog")["status"] == level.lower()


def test_a_drain_is_no_error() -> None:
    """Readiness that is refused is a warning: each rollout has some, and whoever is not ready has said so already."""
    assert severity(replace(BARE, status=503, remarks=Remarks(reason="not_ready"))) == "WARN"
    assert severity(replace(BARE, status=503, remarks=Remarks(reason="store_unavailable"))) == "ERROR"


@pytest.mark.parametrize(
    ("query", "redacted"),
    [
        (b"", ""),
        (b"a=1", "a=[REDACTED]"),
        (b"a=1&b=2&a=3", "a=[REDACTED]&b=[REDACTED]&a=[REDACTED]"),
        (b"a=", "[REDACTED]"),
        (b"czNjcjN0LXRvaw==", "[REDACTED]"),
        (b"a=b=", "a=[REDACTED]"),
        (b"=x", "=[REDACTED]"),
        (b"s3cr3t", "[REDACTED]"),
        (b"a=1&s3cr3t", "a=[REDACTED]&[REDACTED]"),
        (b"a=b=c", "a=[REDACTED]"),
        (b"a%20b=1", "a b=[REDACTED]"),
        (b"a=1;b=2", "a=[REDACTED]"),
        (b"\xff=1", "\ufffd=[REDACTED]"),
        (b"a%3Ds3cr3t", "[REDACTED]"),
    ],
)
def test_redact_query(query: bytes, redacted: str) -> None:
    """A query's keys are logged and its values never, nor a part that could be a bare value."""
    assert redact_query(query) == redacted


@given(st.lists(st.tuples(st.sampled_from(["a", "page", "x%5B%5D"]), st.binary(max_size=8)), max_size=10))
def test_no_value_is_logged(pairs: list[tuple[str, bytes]]) -> None:
    """No value of a query stands in any record."""
    query = b"&".join(name.encode() + b"=S3CR3T" + value.replace(b"&", b"") for name, value in pairs)
    for schema in SCHEMAS:
        assert b"S3CR3T" not in orjson.dumps(record(replace(FULL, query=query), schema))


def test_long_texts_are_bounded() -> None:
    """A record stays small, however long what the client sent is."""
    long = "x" * 1_000_000
    entry = replace(FULL, path="/" + long, method=long, query=b"k" * 1_000_000 + b"=1")
    entry.user_agent = text(long.encode())
    for schema in SCHEMAS:
        assert len(orjson.dumps(record(entry, schema))) < 5 * MAX_TEXT


@pytest.mark.parametrize(
    ("value", "shown"),
    [(b"curl/8", "curl/8"), (b"\xc3\xa4", "ä"), (b"\xff", "\ufffd"), (b"a" * 3000, "a" * MAX_TEXT), (b"", "")],
)
def test_text(value: bytes, shown: str) -> None:
    """A header's bytes are read as UTF-8, and what is not is replaced."""
    assert text(value) == shown


anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(
    st.sampled_from(SCHEMAS),
    anything,
    anything,
    st.binary(max_size=30),
    st.binary(max_size=30),
    st.one_of(st.none(), anything),
)
@example("gcp", "GET\n", '/a\n{"severity":"ERROR"}', b"\r\n=1", b"\x0b\x0c\x85", "\u2028\u2029")
@example("json", "GET", '/"\\', b"%0a=1", b"\x00\x1b[31m", "\x85")
def test_a_record_is_one_line(
    schema: LogFormat, method: str, path: str, query: bytes, agent: bytes, user: str | None
) -> None:
    """Whatever a client sends, its record is one line of JSON and says what was sent."""
    entry = replace(FULL, method=method, path=path, query=query, user_agent=text(agent), user=user, host=text(agent))
    line = orjson.dumps(record(entry, schema))
    assert not set(b"\n\r\x0b\x0c\x1b\0") & set(line)
    assert orjson.loads(line) == record(entry, schema)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("ids", ["trace", "sequential"])
def test_sampled_share(share: float, ids: str) -> None:
    """About the asked share of many traces is logged, whether their ids are random or follow each other."""
    count = 20_000
    step = 0x9E3779B97F4A7C15F39CC0605CEDC835 if ids == "trace" else 1
    found = sum(sampled(f"{index * step % 2**128:032x}", None, share) for index in range(1, count + 1))
    assert abs(found / count - share) < 0.02


ids = st.text("0123456789abcdef-", min_size=1, max_size=40)


@given(ids, st.one_of(st.none(), ids), st.floats(0, 1), st.floats(0, 1))
@example("a", None, 0.0, 1.0)
def test_sampled_is_deterministic(trace: str, request_id: str | None, share: float, other: float) -> None:
    """The same trace gets the same answer, whatever the request's id, and a larger share keeps what a smaller did."""
    answer = sampled(trace, None, share)
    assert sampled(trace, request_id, share) is answer
    if other >= share and answer:
        assert sampled(trace, None, other)


@pytest.mark.parametrize(
    ("trace", "request_id", "share", "logged"),
    [
        ("a", "b", 1.0, True),
        ("a", "b", 0.0, False),
        (None, "b", 0.0, False),
        (None, None, 0.0, False),
        (None, None, 0.1, True),
        (None, None, 1.0, True),
        ("", None, 0.0, False),
    ],
)
def test_sampled_at_the_ends(trace: str | None, request_id: str | None, share: float, logged: bool) -> None:
    """A share of 0 logs none, 1 logs all, and what has no id is logged unless the share is 0."""
    assert sampled(trace, request_id, share) is logged


def test_sampled_by_the_request_id() -> None:
    """Without a trace the request's own id decides."""
    answers = {sampled(None, f"req-{index}", 0.5) for index in range(64)}
    assert answers == {True, False}
    assert all(sampled(None, f"{i}", 0.5) is sampled(f"{i}", "x", 0.5) for i in range(64))
