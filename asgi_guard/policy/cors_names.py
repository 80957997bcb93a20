"""Methods and headers, as the Fetch standard sorts them: safelisted, forbidden, and what a configuration may name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from asgi_guard.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

SAFELISTED_METHODS = frozenset({b"GET", b"HEAD", b"POST"})
FORBIDDEN_METHODS = frozenset({"CONNECT", "TRACE", "TRACK"})
SAFELISTED_RESPONSE_HEADERS = frozenset(
    {"cache-control", "content-language", "content-length", "content-type", "expires", "last-modified", "pragma"}
)
FORBIDDEN_REQUEST_HEADERS = frozenset(
    {
        "accept-charset", "accept-encoding", "access-control-request-headers", "access-control-request-method",
        "connection", "content-length", "cookie", "cookie2", "date", "dnt", "expect", "host", "keep-alive", "origin",
        "referer", "set-cookie", "te", "trailer", "transfer-encoding", "upgrade", "via",
    }
)  # fmt: skip
FORBIDDEN_RESPONSE_HEADERS = frozenset({"set-cookie", "set-cookie2"})

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def is_token(text: str) -> bool:
    """Tell whether this could be the name of a method or a header (RFC 9110 5.6.2)."""
    return _TOKEN.fullmatch(text) is not None


def is_forbidden_header(name: str) -> bool:
    """Tell whether only the browser itself sets this request header. `name` is lower case."""
    return name in FORBIDDEN_REQUEST_HEADERS or name.startswith(("proxy-", "sec-"))


def normalized_method(method: str) -> bytes:
    """Browsers upper-case a handful of methods and send the others as they were written (Fetch, normalize a method)."""
    upper = method.upper()
    return (upper if upper in ("DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT") else method).encode()


def is_method(method: bytes) -> bool:
    """Tell whether a browser could ask for this method."""
    text = method.decode("latin-1")
    return is_token(text) and text.upper() not in FORBIDDEN_METHODS


def method_problems(method: str) -> Iterator[Problem]:
    """What is wrong with a method that is to be allowed."""
    if method == "*":
        return
    if not is_token(method):
        hint = ": names are parted by ','" if " " in method.strip() else ""
        yield Problem("allow_methods", f"{method!r} is not a method's name{hint}", "invalid")
    elif method.upper() in FORBIDDEN_METHODS:
        yield Problem("allow_methods", f"{method!r} is a method that browsers never send", "forbidden")


def header_problems(name: str) -> Iterator[Problem]:
    """What is wrong with a request header that scripts are to be allowed."""
    lowered = name.lower()
    if name == "*":
        return
    if not is_token(name):
        yield Problem("allow_headers", f"{name!r} is not a header's name", "invalid")
    elif is_forbidden_header(lowered):
        yield Problem("allow_headers", f"{name!r} is a header that a page's script cannot set", "forbidden")
    elif lowered.startswith("access-control-"):
        yield Problem("allow_headers", f"{name!r} is a header of responses, not of requests", "prohibited")


def exposed_problems(name: str, *, credentials: bool) -> Iterator[Problem]:
    """What is wrong with a response header that scripts are to be shown."""
    lowered = name.lower()
    if name == "*":
        if credentials:
            yield Problem(
                "expose_headers", "'*' is taken literally where credentials are sent: name the headers", "wildcard"
            )
    elif not is_token(name):
        yield Problem("expose_headers", f"{name!r} is not a header's name", "invalid")
    elif lowered in FORBIDDEN_RESPONSE_HEADERS:
        yield Problem(
            "expose_headers", f"{name!r} is a header that browsers never show to a page's script", "forbidden"
        )
    elif lowered.startswith("access-control-") or lowered == "origin":
        yield Problem(
            "expose_headers",
            f"{name!r} is a header of the protocol itself, which scripts have no use for",
            "prohibited",
        )
