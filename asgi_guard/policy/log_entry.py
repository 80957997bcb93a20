"""What one exchange was, for the access log: facts, how loud they are, and which of them are hidden.

Query strings are logged by their keys; every value becomes `[REDACTED]`. No other header than the user agent is logged,
and the host where the schema is `gcp`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal
from urllib.parse import unquote_to_bytes
from zlib import crc32

from asgi_guard.policy.answer import FAULTS, Reason

MAX_TEXT = 2048
MAX_LINE = 4096
"""Bytes that a pipe takes whole on Linux (PIPE_BUF), however many workers write to it: a longer line may be torn."""
SHORTER = (512, 64)
"""To what the texts of a longer line are cut: the second for those whose characters take many bytes each in JSON."""
CLIENT_GONE = 499
"""The status of an exchange whose client left before it had an answer. It stands in logs and metrics only."""
_LOGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://).*@", re.DOTALL)


@dataclass(slots=True)
class Remarks:
    """What few exchanges have: one in a thousand is refused, slow or broken off, and the others pay nothing for it.

    Attributes:
        error: the exception's type; `client_disconnected`, or `response_unfinished` where it is the app that broke off.
        refused_by: the layer that refused, with `reason` and a word more in `detail`.
        limit: the limits that refused.
        shadow: the limits that would have, were they not in shadow.
        csrf_shadow: why the CSRF layer would have, did it not only log.
        client_doubt: why the client is only the peer, where a proxy was to name another.
        slow: whether it took longer than it should.
        first_byte: nanoseconds from the start to the first part of a body that was sent in several.
        from_file: whether the server has read some of the body from a file by itself, so that its size is not known.
        close_code: what a WebSocket was closed with.
        messages_received: messages of a WebSocket's client, and
        messages_sent: those of the app; None for anything but a session.
    """

    error: str | None = None
    refused_by: str | None = None
    reason: str | None = None
    detail: str | None = None
    limit: str | None = None
    shadow: str | None = None
    csrf_shadow: str | None = None
    client_doubt: str | None = None
    slow: bool = False
    first_byte: int | None = None
    from_file: bool = False
    close_code: int | None = None
    messages_received: int | None = None
    messages_sent: int | None = None


@dataclass(slots=True)
class Entry:
    """The facts of one exchange, free of any schema. Times are in nanoseconds, sizes in bytes of body.

    Attributes:
        time: when it ended, since the Unix epoch.
        method: in upper case, however it was sent; `GET` for a WebSocket.
        path: decoded.
        status: as sent; 499 where the client left first, None where nothing was sent.
        remarks: what else is to be said, if anything.
        project: Google Cloud's, in whose traces this one is.
        issuer: whose the user is, where the name alone does not tell.
    """

    time: int
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
    peer: str | None = None
    user: str | None = None
    user_agent: str | None = None
    remarks: Remarks | None = None
    trace_id: str | None = None
    parent_id: str | None = None
    host: str | None = None
    project: str | None = None
    issuer: str | None = None


def severity(entry: Entry) -> Literal["INFO", "WARN", "ERROR"]:
    """How loud the line is: a server's fault is an error, a client's a warning, a full bucket business as usual."""
    status, remarks = entry.status, entry.remarks
    error, reason, slow = (None, None, False) if remarks is None else (remarks.error, remarks.reason, remarks.slow)
    if status is not None and status < 400 and error is None:
        return "WARN" if slow else "INFO"
    if reason == Reason.NOT_READY:
        return "WARN"  # a drain, as in every rollout, or what readiness has logged itself
    if status is None or status >= 500 or error not in (None, "client_disconnected") or reason in FAULTS:
        return "ERROR"
    if slow or (status >= 400 and status not in (429, CLIENT_GONE)):
        return "WARN"
    return "INFO"


def redact_query(query: bytes) -> str:
    """The query with its keys and without its values. Keys may be secrets' neighbours, values may be secrets."""
    if not query:
        return ""
    shown = []
    for pair in query[:MAX_TEXT].split(b"&"):
        key, _, value = pair.partition(b"=")
        # What has no value could be a bare secret (`?s3cr3t`, or base64 that ends in `=`), so it counts as one.
        shown.append(_key(key) if value.strip(b"=") else "[REDACTED]")
    return "&".join(shown)


@lru_cache(maxsize=256)
def _key(key: bytes) -> str:
    """A key as it is shown. An app has few of them, and whoever sends many others evicts but theirs."""
    return text(unquote_to_bytes(key) if b"%" in key else key) + "=[REDACTED]"


def without_login(path: str, root_path: str) -> str:
    """A path as it is shown: where it is a whole address, as proxies are asked for, without the login in it.

    What is decoded does not tell where a login ends, so all goes that may belong to it. Some servers put the root path
    before the address, too.
    """
    found = _LOGIN.match(path, len(root_path) if path.startswith(root_path) else 0)
    return path if found is None else f"{path[: found.end(1)]}[REDACTED]@{path[found.end() :]}"


def text(value: bytes) -> str:
    """Bytes of a header as text that any log reader takes, bounded."""
    return (value if len(value) <= MAX_TEXT else value[:MAX_TEXT]).decode("utf-8", "replace")


def shorten(entry: Entry, most: int) -> None:
    """Cut, in place, what a client may make long: each to so many characters, of the query as it was sent."""
    entry.path, entry.query = entry.path[:most], entry.query[:most]
    for name in ("user", "user_agent", "host", "client", "peer"):
        if value := getattr(entry, name):
            setattr(entry, name, value[:most])


def sampled(trace_id: str | None, request_id: str | None, share: float) -> bool:
    """Tell whether an ordinary exchange is logged: the same answer for the same trace, whoever asks.

    Args:
        trace_id: the caller's trace, if there is one.
        request_id: else the request's id.
        share: from 0 (none) to 1 (all). An exchange with neither id is logged unless the share is 0.
    """
    # The checksum of nothing is 0: below any share but that of 0, as it is to be without an id.
    return crc32((trace_id or request_id or "").encode()) < share * 2**32
