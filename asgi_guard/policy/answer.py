"""What the guard itself answers: refusals as RFC 9457 problems, and the closed vocabulary of reasons for them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from asgi_guard.asgi import Header

PROBLEM_JSON = b"application/problem+json"
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


class Reason(StrEnum):
    """Why a request was refused: the words that stand in logs, and nothing else stands there.

    What each means, and what to do about it, is told in `asgi_guard.policy.vocabulary`.
    """

    NOT_READY = "not_ready"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    PATH_AMBIGUOUS = "path_ambiguous"
    HOST_NOT_ALLOWED = "host_not_allowed"
    HTTPS_REQUIRED = "https_required"
    ORIGIN_NOT_ALLOWED = "origin_not_allowed"
    PREFLIGHT_REFUSED = "preflight_refused"
    CREDENTIALS_MALFORMED = "credentials_malformed"
    CREDENTIALS_MISSING = "credentials_missing"
    CREDENTIALS_INVALID = "credentials_invalid"
    TOKEN_REVOKED = "token_revoked"  # noqa: S105 - a reason's name, not a password
    SCOPE_MISSING = "scope_missing"
    CROSS_SITE = "cross_site"
    CSRF_TOKEN_MISSING = "csrf_token_missing"  # noqa: S105 - a reason's name, not a password
    CSRF_TOKEN_INVALID = "csrf_token_invalid"  # noqa: S105 - likewise
    RATE_LIMITED = "rate_limited"
    KEYS_UNAVAILABLE = "keys_unavailable"
    STORE_UNAVAILABLE = "store_unavailable"
    GUARD_ERROR = "guard_error"
    APP_ERROR = "app_error"


FAULTS = frozenset({Reason.APP_ERROR, Reason.GUARD_ERROR})
"""The reasons that are nobody's but the app's or the guard's: an error, whatever the status."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response of the guard's own.

    Attributes:
        status: the HTTP status.
        headers: its header lines, `content-length` excepted, which is added when it is sent.
        body: its bytes; not sent in answer to HEAD.
        reason: why this is a refusal; None where it is not one (a probe, a preflight, a redirect).
        path: the guard's own path that it is given at, as configured: a probe's, say. It is the route in metrics.
    """

    status: int
    headers: tuple[Header, ...] = ()
    body: bytes = b""
    reason: Reason | None = None
    path: str | None = None


def problem(
    status: int,
    reason: Reason,
    detail: str,
    *,
    request_id: str | None = None,
    headers: tuple[Header, ...] = (),
    type_: str = "about:blank",
    **members: Any,
) -> Answer:
    """Make a refusal as `application/problem+json` (RFC 9457).

    Its members are `type`, `title` (the status's own phrase, as `about:blank` asks), `status`, `detail`, `reason`, the
    request id where there is one, and `members`. Nothing that the client sent is echoed.
    """
    body = {
        "type": type_,
        "title": _PHRASES[status],
        "status": status,
        "detail": detail,
        "reason": reason.value,
        **members,
    }
    if request_id is not None:
        body["request_id"] = request_id
    return Answer(
        status,
        ((b"content-type", PROBLEM_JSON), (b"cache-control", b"no-store"), *headers),
        orjson.dumps(body),
        reason,
    )


def ambiguous_path(request_id: str | None) -> Answer:
    """Refuse a path that routers could take for those of different rows of the route table (`RouteTable.find`)."""
    return problem(400, Reason.PATH_AMBIGUOUS, "The path can be read in more than one way.", request_id=request_id)
