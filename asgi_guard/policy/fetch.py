"""What a browser makes of a cross-origin request: the Fetch standard's own checks, over what a server answers.

`preflight_of` tells what a browser asks first, and `judge` whether a page's script may then read the answer. Neither
knows how the answers came about, so both hold for any server. The order of `judge` is that of the standard
(https://fetch.spec.whatwg.org/#http-cors-protocol):

1. A method that scripts may not use is not sent.
2. Where a preflight is needed, its answer passes the CORS check, has a status of success, and names the method and
   every header that is not safelisted. Otherwise the request itself is never sent.
3. The answer is no 407, and passes the CORS check: `Access-Control-Allow-Origin` is the origin, or `*` without
   credentials, and with credentials `Access-Control-Allow-Credentials` is `true`.

Redirects are not followed here: the answer is the one at their end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from asgi_guard.policy.cors_names import (
    FORBIDDEN_METHODS,
    SAFELISTED_METHODS,
    SAFELISTED_RESPONSE_HEADERS,
    is_forbidden_header,
    is_token,
    normalized_method,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asgi_guard.asgi import Header

_UNSAFE_VALUE = re.compile(r'[\x00-\x08\x0a-\x1f"():<>?@\[\\\]{}\x7f]')
_LANGUAGE = re.compile(r"[0-9A-Za-z *,.;=-]*")
_RANGE = re.compile(r"bytes=(?P<first>[0-9]+)-(?P<last>[0-9]*)")
_OVERRIDES = frozenset({"x-http-method", "x-http-method-override", "x-method-override"})
_FORM_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")
MAX_SAFELISTED_VALUE = 128
PROXY_AUTHENTICATION = 407


class Step(StrEnum):
    """Where a browser stops."""

    METHOD_FORBIDDEN = "method_forbidden"
    PREFLIGHT_ORIGIN = "preflight_origin"
    PREFLIGHT_CREDENTIALS = "preflight_credentials"
    PREFLIGHT_STATUS = "preflight_status"
    PREFLIGHT_METHOD = "preflight_method"
    PREFLIGHT_HEADER = "preflight_header"
    PROXY = "proxy"
    ORIGIN = "origin"
    CREDENTIALS = "credentials"


@dataclass(frozen=True, slots=True)
class PageRequest:
    """What a page's script asks for, by `fetch` in the mode `cors`.

    Attributes:
        origin: the page's origin, as browsers write it.
        method: the method, as the script writes it.
        headers: what the script sets, names and values; a value of None stands for one that needs a preflight.
        credentials: whether cookies go along (`credentials: "include"`).
    """

    origin: str
    method: str = "GET"
    headers: tuple[tuple[str, str | None], ...] = ()
    credentials: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answers: the status and the header lines, in any spelling."""

    status: int
    headers: Sequence[Header] = ()

    def value(self, name: str) -> str | None:
        """A header's lines, joined as the standard joins them; None if there is none."""
        wanted = name.encode()
        found = [value.decode("latin-1") for line, value in self.headers if line.lower() == wanted]
        return ", ".join(each.strip(" \t") for each in found) if found else None

    def names(self, name: str) -> tuple[str, ...] | None:
        """A header that lists names (methods, headers); empty where there is none, None where it is no such list."""
        items = [item.strip(" \t") for item in (self.value(name) or "").split(",")]
        named = tuple(item for item in items if item)
        return named if all(map(is_token, named)) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowserVerdict:
    """What the browser does.

    Attributes:
        readable: whether the page's script may read the answer.
        preflighted: whether the browser asks first.
        sent: whether the request itself is sent: a server acts on it then, readable or not.
        step: where the browser stops; None if it does not.
        detail: what it found there.
        exposed: the answer's headers that the script may read, safelisted ones aside; `*` is all.
        ignored: headers that no script can set, which the browser leaves out.
    """

    readable: bool
    preflighted: bool
    sent: bool
    step: Step | None = None
    detail: str = ""
    exposed: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def unsafe_names(headers: Iterable[tuple[str, str | None]]) -> tuple[str, ...]:
    """The headers that need a preflight, as the browser asks for them: lower case, sorted, each once.

    A header that is set more than once is judged by all its values together, as it is sent. So no more than five can
    be safelisted, and the standard's limit for all of them (1024 bytes) is never reached.
    """
    values: dict[str, str | None] = {}
    for name, value in headers:
        lowered = name.lower()
        if not is_left_out(lowered, value):
            before = values.get(lowered, "")
            joined = f"{before}, {value}" if before else value
            values[lowered] = None if value is None or before is None else joined
    return tuple(sorted(name for name, value in values.items() if value is None or not is_safelisted(name, value)))


def is_safelisted(name: str, value: str) -> bool:
    """Tell whether a header may be sent without asking, as a form or a link could send it. `name` is lower case.

    A script's values are bytes, written as the first 256 characters: their length is that of the text.
    """
    if len(value) > MAX_SAFELISTED_VALUE:
        return False
    if name == "accept":
        return not _UNSAFE_VALUE.search(value)
    if name in ("accept-language", "content-language"):
        return _LANGUAGE.fullmatch(value) is not None
    if name == "content-type":
        return not _UNSAFE_VALUE.search(value) and value.partition(";")[0].strip(" \t").lower() in _FORM_TYPES
    if name != "range" or (match := _RANGE.fullmatch(value)) is None:
        return False
    return not match["last"] or int(match["first"]) <= int(match["last"])


def is_left_out(name: str, value: str | None) -> bool:
    """Tell whether a browser passes over a header that a script sets: only itself it may. `name` is lower case."""
    if name in _OVERRIDES and value is not None:
        return any(method.strip(" \t").upper() in FORBIDDEN_METHODS for method in value.split(","))
    return is_forbidden_header(name)


def preflight_of(request: PageRequest) -> tuple[Header, ...] | None:
    """The headers by which the browser asks first; None if it need not."""
    method, names = normalized_method(request.method), unsafe_names(request.headers)
    if method in SAFELISTED_METHODS and not names:
        return None
    asked: list[Header] = [(b"origin", request.origin.encode()), (b"access-control-request-method", method)]
    if names:
        asked.append((b"access-control-request-headers", ",".join(names).encode()))
    return tuple(asked)


def judge(request: PageRequest, preflight: Reply | None, actual: Reply) -> BrowserVerdict:
    """Tell what the browser does.

    Args:
        request: what the page asks for.
        preflight: the answer to what `preflight_of` gives; not looked at where that is None.
        actual: the answer to the request itself, should it be sent.
    """
    ignored = tuple(name for name, value in request.headers if is_left_out(name.lower(), value))
    if request.method.upper() in FORBIDDEN_METHODS:
        detail = f"no script may use {request.method}"
        return _stopped(Step.METHOD_FORBIDDEN, detail, preflighted=False, sent=False, ignored=ignored)
    preflighted = preflight_of(request) is not None
    if preflighted and (found := _preflight(request, preflight or Reply(0))):
        return _stopped(*found, preflighted=True, sent=False, ignored=ignored)
    if actual.status == PROXY_AUTHENTICATION:
        detail = "it is answered by 407, which is between a browser and its proxy"
        return _stopped(Step.PROXY, detail, preflighted=preflighted, sent=True, ignored=ignored)
    if stopped := _cors_check(request, actual):
        by_credentials, detail = stopped
        step = Step.CREDENTIALS if by_credentials else Step.ORIGIN
        return _stopped(step, detail, preflighted=preflighted, sent=True, ignored=ignored)
    exposed = actual.names("access-control-expose-headers") or ()
    told = tuple(name.lower() for name in exposed if name.lower() not in SAFELISTED_RESPONSE_HEADERS)
    if request.credentials:
        told = tuple(name for name in told if name != "*")  # a header of that name, which nobody sends
    return BrowserVerdict(readable=True, preflighted=preflighted, sent=True, exposed=told, ignored=ignored)


def _stopped(step: Step, detail: str, *, preflighted: bool, sent: bool, ignored: tuple[str, ...]) -> BrowserVerdict:
    """What becomes of a request whose answer the page's script may not read."""
    return BrowserVerdict(readable=False, preflighted=preflighted, sent=sent, step=step, detail=detail, ignored=ignored)


def _preflight(request: PageRequest, reply: Reply) -> tuple[Step, str] | None:
    """The step of the preflight at which the browser stops, and what it found."""
    if stopped := _cors_check(request, reply):
        by_credentials, detail = stopped
        return Step.PREFLIGHT_CREDENTIALS if by_credentials else Step.PREFLIGHT_ORIGIN, detail
    if not 200 <= reply.status <= 299:
        return Step.PREFLIGHT_STATUS, f"it is answered by {reply.status}, which is no success"
    methods, headers = (reply.names(f"access-control-allow-{what}") for what in ("methods", "headers"))
    method = normalized_method(request.method)
    any_method = methods is not None and "*" in methods and not request.credentials
    if methods is None or not (any_method or method in SAFELISTED_METHODS or method.decode() in methods):
        return Step.PREFLIGHT_METHOD, f"its answer does not allow the method {method.decode()}"
    allowed = {name.lower() for name in headers or ()}
    any_header = "*" in allowed and not request.credentials
    for name in unsafe_names(request.headers):
        if name not in allowed and (name == "authorization" or not any_header):
            return Step.PREFLIGHT_HEADER, f"its answer does not allow the header {name}"
    return (Step.PREFLIGHT_HEADER, "its answer names headers that are none") if headers is None else None


def _cors_check(request: PageRequest, reply: Reply) -> tuple[bool, str] | None:
    """What the CORS check finds wrong, and whether that is about credentials only."""
    origin = reply.value("access-control-allow-origin")
    if origin is None:
        return False, "the answer has no Access-Control-Allow-Origin"
    if origin == "*" and not request.credentials:
        return None
    if origin == "*":
        return True, "Access-Control-Allow-Origin is '*', which does not hold where cookies go along"
    if origin != request.origin:
        return False, "Access-Control-Allow-Origin is another origin"
    if request.credentials and reply.value("access-control-allow-credentials") != "true":
        return True, "the answer has no Access-Control-Allow-Credentials"
    return None
