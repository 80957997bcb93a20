"""Values of security headers that browsers would pass over, found before they are sent."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from asgi_guard.errors import Problem
from asgi_guard.policy.listing import one_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

DEFAULT_HSTS = "max-age=63072000; includeSubDomains"
PRELOAD_MIN_AGE = 31_536_000
_MAX_AGE = re.compile(r'\s*max-age\s*=\s*(?P<quote>"?)(?P<seconds>\d{1,10})(?P=quote)\s*', re.IGNORECASE)
_ALLOWLIST = r'(?:\*|self|\(\s*(?:(?:\*|self|"https?://[^"\s]+")\s*)*\))'
_PERMISSION = re.compile(rf"[a-z][a-z0-9-]*={_ALLOWLIST}(;report-to=[a-z][a-z0-9_-]*)?")
_ENDPOINT = re.compile(r"(?P<name>[a-z*][a-z0-9_.*-]*)=(?P<url>\S+)")

_UNQUOTED_COMMA = re.compile(r',(?=(?:[^"]*"[^"]*")*[^"]*$)')
_SECONDS = frozenset({"max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"})
_CACHE_WORDS = frozenset(
    {
        "public", "private", "no-cache", "no-store", "no-transform", "must-revalidate", "proxy-revalidate",
        "must-understand", "immutable",
    }
)  # fmt: skip
"""Directives of a response's Cache-Control that take seconds, and those that take nothing (RFC 9111, 5861, 8246)."""

CHOICES: Mapping[str, frozenset[str]] = {
    "referrer_policy": frozenset(
        {
            "no-referrer", "no-referrer-when-downgrade", "origin", "origin-when-cross-origin", "same-origin",
            "strict-origin", "strict-origin-when-cross-origin", "unsafe-url",
        }
    ),
    "frame_options": frozenset({"DENY", "SAMEORIGIN"}),
    "opener_policy": frozenset({"same-origin", "same-origin-allow-popups", "noopener-allow-popups", "unsafe-none"}),
    "embedder_policy": frozenset({"require-corp", "credentialless", "unsafe-none"}),
    "resource_policy": frozenset({"same-origin", "same-site", "cross-origin"}),
}  # fmt: skip
"""The words that a header takes, by option. A Referrer-Policy may list several, the last that is known counts."""


def value_problems(field: str, value: str) -> Iterator[Problem]:
    """What is wrong with the value of an option other than a Content-Security-Policy."""
    if not is_sendable(value):
        yield Problem(field, "the value is empty or holds characters that cannot stand in a header")
    elif field == "hsts":
        if message := _hsts_fault(value):
            yield Problem(field, message)
    elif field == "permissions_policy":
        for part in map(str.strip, value.split(",")):
            if not _PERMISSION.fullmatch(part):
                yield Problem(field, f'{part!r} is no permission: write camera=() or camera=(self "https://a.example")')
    elif field == "cache_control":
        yield from _cache_problems(value)
    elif field in CHOICES:
        words = map(str.strip, value.split(",")) if field == "referrer_policy" else (value,)
        for word in words:
            if word not in CHOICES[field]:
                yield Problem(field, f"{word!r} is none of {', '.join(sorted(CHOICES[field]))}")


def is_sendable(value: str) -> bool:
    """Tell whether this can stand in a header: visible ASCII and blanks, and not nothing."""
    return bool(value.strip()) and value.isascii() and value.isprintable()


def endpoints(values: Sequence[str]) -> dict[str, str]:
    """The endpoints of `Reporting-Endpoints` by name; see `endpoint_problems` for what is none."""
    matches = (_ENDPOINT.fullmatch(value) for value in values)
    return {match["name"]: match["url"] for match in matches if match}


def endpoint_problems(values: Sequence[str]) -> Iterator[Problem]:
    """What is wrong with endpoints that are written `name=https://...`."""
    field = "reporting_endpoints"
    if fault := one_text(reporting_endpoints=values):
        yield Problem(field, fault)
        return
    for value in values:
        match = _ENDPOINT.fullmatch(value)
        if match is None or not is_sendable(value) or set(value) & set('"\\,;'):
            yield Problem(field, f"{value!r} is no endpoint: write default=https://reports.example.com/csp")
        elif not _is_https(match["url"]):
            yield Problem(field, f"{value!r}: browsers send reports to https URLs only")
    if len(endpoints(values)) < len(values) and all(map(_ENDPOINT.fullmatch, values)):
        yield Problem(field, "an endpoint is named twice")


def _is_https(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # is looked at only when it is asked for
    except ValueError:
        return False
    return parts.scheme == "https" and bool(parts.hostname)


def _takes_value(directive: str) -> bool:
    """Whether a directive may have a value: two of the known ones, and extensions, which some caches know."""
    known = directive in _CACHE_WORDS
    return directive in ("no-cache", "private") if known else re.fullmatch(r"[a-z0-9-]+", directive) is not None


def _cache_problems(value: str) -> Iterator[Problem]:
    """What caches would not understand, and so pass over."""
    for part in filter(None, map(str.strip, _UNQUOTED_COMMA.split(value))):
        name, equals, argument = part.lower().partition("=")
        if name in _SECONDS and not re.fullmatch(r'"?[0-9]+"?', argument):
            yield Problem("cache_control", f"{part!r} says no seconds: write {name}=60")
        elif name not in _SECONDS and not (_takes_value(name) if equals else name in _CACHE_WORDS):
            known = ", ".join((*sorted(_CACHE_WORDS), *(f"{each}=SECONDS" for each in sorted(_SECONDS))))
            yield Problem("cache_control", f"{part!r} is no directive: {known}")


def _hsts_fault(value: str) -> str | None:
    directives = [directive.strip().lower() for directive in value.split(";")]
    ages = [match for directive in directives if (match := _MAX_AGE.fullmatch(directive))]
    if len(ages) != 1:
        return f"write one max-age in seconds, as in '{DEFAULT_HSTS}', or 'off'"
    names = [directive.partition("=")[0].strip() for directive in directives if directive]
    if len(set(names)) != len(names):
        return "a directive stands there twice, so browsers pass over the whole header"
    if "preload" in directives and (int(ages[0]["seconds"]) < PRELOAD_MIN_AGE or "includesubdomains" not in directives):
        return f"'preload' needs includeSubDomains and a max-age of at least {PRELOAD_MIN_AGE}"
    return None
