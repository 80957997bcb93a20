"""Cross-origin resource sharing, as the Fetch standard defines it (https://fetch.spec.whatwg.org/#http-cors-protocol).

`CORSPolicy.of` validates a configuration once, with everything that is wrong reported together; `preflight` and
`actual` then decide by dict look-ups. The order of decisions for a preflight:

1. The origin is not allowed: refused.
2. The method is not CORS-safelisted (GET, HEAD, POST) and not allowed: refused.
3. A header is asked for that is not allowed, or the list is not one that a browser would send: refused.
4. Otherwise allowed, and only what was asked for is named in the answer.

A refusal carries no CORS header at all: it tells a stranger nothing about the configuration.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Self

from asgi_guard.policy.faults import Fault, FaultsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asgi_guard.asgi import Header

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
MAX_MAX_AGE = 86400
MAX_REQUESTED_HEADERS = 64
"""A browser asks for the headers that a page's script sets; a longer list is an attack on whoever parses it."""
MAX_REQUESTED_BYTES = 4096
MAX_EMPTY_ELEMENTS = 16
"""RFC 9110 5.6.1.2 asks to pass over a reasonable number of empty elements in a list."""

_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>\*|[0-9]+))?")
_LOOPBACK = re.compile(r"127(\.[0-9]{1,3}){3}")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LABELS = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_PREFLIGHT_VARY = (b"vary", b"access-control-request-headers, access-control-request-method, origin")


@dataclass(frozen=True, slots=True)
class _Pattern:
    """An origin with a wildcard: `https://*.example.com`, `https://example.com:*`, or both."""

    scheme: str
    suffix: str
    subdomains: bool
    any_port: bool
    port: str

    def matches(self, origin: str) -> bool:
        scheme, separator, rest = origin.partition("://")
        if scheme != self.scheme or not separator:
            return False
        host, port = _split_port(rest)
        if port == "*" or not (self.any_port or port == self.port):
            return False
        if not self.subdomains:
            return host == self.suffix
        return host.endswith(self.suffix) and _LABELS.fullmatch(host) is not None


@dataclass(frozen=True, slots=True)
class CORSPolicy:
    """A validated CORS configuration. Make it with `of`.

    Attributes:
        any_origin: `*` was said: everyone may read, without credentials.
        origins: the exact origins.
        patterns: those with a wildcard.
        methods: allowed beyond the safelisted ones; None means all.
        headers: allowed request headers, lower case; None means all but perhaps `authorization`.
        authorization: whether that header is allowed too, where all are.
        credentials: whether browsers may send and read with cookies.
        actual_headers: what stands on every allowed response besides the origin.
        preflight_headers: what stands on every allowed preflight besides what was asked for.
    """

    any_origin: bool
    origins: frozenset[bytes]
    patterns: tuple[_Pattern, ...]
    methods: frozenset[bytes] | None
    headers: frozenset[bytes] | None
    authorization: bool
    credentials: bool
    actual_headers: tuple[Header, ...]
    preflight_headers: tuple[Header, ...]

    @classmethod
    def of(
        cls,
        *,
        allow_origins: Sequence[str],
        allow_methods: Sequence[str] = (),
        allow_headers: Sequence[str] = (),
        allow_credentials: bool = False,
        expose_headers: Sequence[str] = (),
        max_age: int | None = None,
    ) -> Self:
        """Validate and compile.

        Args:
            allow_origins: `https://app.example.com`, `https://*.example.com`, `http://localhost:*`, or `*` alone.
            allow_methods: beyond GET, HEAD and POST; `*` for all.
            allow_headers: that a script may set, beyond the safelisted ones; `*` for all, though for `authorization`
                without credentials only if it is named beside it.
            allow_credentials: whether cookies are sent and answers to them may be read; not with `*` origins.
            expose_headers: that a script may read, beyond the safelisted ones.
            max_age: seconds for which a browser may remember a preflight: 0 to 86400, -1 for never; None says nothing
                (browsers then take 5).

        Raises:
            FaultsError: with all that is wrong.
        """
        faults = [
            *_origin_faults(allow_origins, credentials=allow_credentials),
            *(fault for method in allow_methods for fault in _method_faults(method)),
            *(fault for name in allow_headers for fault in _header_faults(name)),
            *(fault for name in expose_headers for fault in _exposed_faults(name, credentials=allow_credentials)),
        ]
        if max_age is not None and not -1 <= max_age <= MAX_MAX_AGE:
            faults.append(Fault("max_age", f"{max_age} is not within -1..{MAX_MAX_AGE} seconds"))
        if faults:
            raise FaultsError(faults)
        credentials: tuple[Header, ...] = ((b"access-control-allow-credentials", b"true"),) if allow_credentials else ()
        exposed = [name.lower() for name in expose_headers if name.lower() not in SAFELISTED_RESPONSE_HEADERS]
        expose = ", ".join(dict.fromkeys(exposed)).encode()
        seconds = None if max_age is None else max(max_age, 0)
        return cls(
            any_origin="*" in allow_origins,
            origins=frozenset(origin.encode() for origin in allow_origins if "*" not in origin),
            patterns=tuple(_compile(origin) for origin in allow_origins if "*" in origin and origin != "*"),
            methods=None if "*" in allow_methods else frozenset(_normalized(method) for method in allow_methods),
            headers=None if "*" in allow_headers else frozenset(name.lower().encode() for name in allow_headers),
            authorization=allow_credentials or any(name.lower() == "authorization" for name in allow_headers),
            credentials=allow_credentials,
            actual_headers=credentials + (((b"access-control-expose-headers", expose),) if expose else ()),
            preflight_headers=credentials
            + (((b"access-control-max-age", b"%d" % seconds),) if seconds is not None else ()),
        )

    def allows_origin(self, origin: bytes) -> bool:
        """Tell whether pages of this origin (the header's value) may read answers."""
        if self.any_origin or origin in self.origins:
            return True
        if not self.patterns or len(origin) > 512:
            return False
        text = origin.decode("latin-1")
        return any(pattern.matches(text) for pattern in self.patterns)

    def names_origin(self, origin: bytes) -> bool:
        """Tell whether this origin was named, exactly or by a pattern: `*` names nobody, and lends no one's cookies."""
        return not self.any_origin and self.allows_origin(origin)

    def preflight(self, origin: bytes, method: bytes, headers: Sequence[bytes]) -> tuple[Header, ...] | None:
        """Answer a preflight: its CORS headers, or None to refuse.

        Args:
            origin: the `Origin` header.
            method: the `Access-Control-Request-Method` header.
            headers: every line of `Access-Control-Request-Headers`.
        """
        if not self.allows_origin(origin):
            return None
        answer: list[Header] = [self._allow_origin(origin), *self.preflight_headers]
        if method not in SAFELISTED_METHODS:
            if not _is_method(method) or not (self.methods is None or method in self.methods):
                return None
            answer.append((b"access-control-allow-methods", method))
        if headers:
            asked = self._asked(headers)
            if asked is None:
                return None
            if asked:
                answer.append((b"access-control-allow-headers", b",".join(asked)))
        return (*answer, _PREFLIGHT_VARY)

    def _asked(self, lines: Sequence[bytes]) -> list[bytes] | None:
        """The headers that a preflight asks for, if all are allowed."""
        if sum(map(len, lines)) > MAX_REQUESTED_BYTES:
            return None
        items = [item.strip(b" \t") for line in lines for item in line.split(b",")]
        asked = [item for item in items if item]
        if len(asked) > MAX_REQUESTED_HEADERS:
            return None
        if self.headers is not None and len(items) - len(asked) > MAX_EMPTY_ELEMENTS:
            return None
        for name in asked:
            lowered = name.lower()
            if self.headers is not None:
                if lowered not in self.headers:
                    return None
            elif not _TOKEN.fullmatch(name.decode("latin-1")) or (
                lowered == b"authorization" and not self.authorization
            ):
                return None
        return asked

    def actual(self, origin: bytes) -> tuple[Header, ...] | None:
        """The CORS headers of a response to this origin, or None if it may not read it."""
        return (self._allow_origin(origin), *self.actual_headers) if self.allows_origin(origin) else None

    def _allow_origin(self, origin: bytes) -> Header:
        return b"access-control-allow-origin", b"*" if self.any_origin else origin


def _origin_faults(origins: Sequence[str], *, credentials: bool) -> Iterator[Fault]:
    field = "allow_origins"
    if not origins:
        yield Fault(field, "no origin is named: write the origins of your pages, such as https://app.example.com")
    if "*" in origins:
        if len(origins) > 1:
            yield Fault(field, "'*' already means every origin: write it alone, or leave it out")
        if credentials:
            yield Fault(field, "'*' with credentials would let every site act as your users: name the origins")
    for origin in origins:
        if origin != "*" and (fault := _origin_fault(origin, credentials=credentials)):
            yield Fault(field, fault)


def _origin_fault(origin: str, *, credentials: bool) -> str | None:
    if origin.lower() == "null":
        return "'null' is the origin of sandboxed frames and local files, which anyone can make: it cannot be allowed"
    scheme, separator, rest = origin.partition("://")
    host, port = _split_port(rest)
    if not separator or scheme not in ("http", "https") or rest != rest.strip() or set(rest) & set("/?#@\\ "):
        return f"{origin!r} is not an origin: write scheme://host[:port], in lower case, without path or trailing slash"
    subdomains = host.startswith("*.")
    name = host.removeprefix("*.")
    if not _is_host(name) or (port and port != "*" and not _is_port(port, scheme)):
        return f"{origin!r} is not an origin as browsers send it: lower case, '*.' only in front, no default port"
    if subdomains and (name.startswith("[") or "." not in name or name.replace(".", "").isdecimal()):
        return f"{origin!r} is too wide: '*.' needs a registered domain behind it"
    if credentials and scheme == "http" and not _is_local(name):
        return f"{origin!r} with credentials: whoever is on the network could act as your users; use https"
    return None


def _is_host(name: str) -> bool:
    if name.startswith("["):
        try:
            return IPv6Address(name[1:-1]).compressed == name[1:-1] and "%" not in name
        except ValueError:
            return False
    return len(name) <= 253 and _LABELS.fullmatch(name) is not None


def _is_port(port: str, scheme: str) -> bool:
    default = {"http": "80", "https": "443"}[scheme]
    return port[0] != "0" and int(port) <= 65535 and port != default


def _is_local(name: str) -> bool:
    return name in ("localhost", "[::1]") or name.endswith(".localhost") or _LOOPBACK.fullmatch(name) is not None


def _split_port(authority: str) -> tuple[str, str]:
    """The host and the port, empty where there is none, of an authority; two empty texts for what is none."""
    match = _AUTHORITY.fullmatch(authority)
    return (match["host"], match["port"] or "") if match else ("", "")


def _compile(origin: str) -> _Pattern:
    scheme, _, rest = origin.partition("://")
    host, port = _split_port(rest)
    subdomains = host.startswith("*.")
    return _Pattern(scheme, host[1:] if subdomains else host, subdomains, port == "*", port)


def _normalized(method: str) -> bytes:
    """Browsers upper-case a handful of methods and send the others as they were written (Fetch, normalize a method)."""
    upper = method.upper()
    return (upper if upper in ("DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT") else method).encode()


def _is_method(method: bytes) -> bool:
    text = method.decode("latin-1")
    return _TOKEN.fullmatch(text) is not None and text.upper() not in FORBIDDEN_METHODS


def _method_faults(method: str) -> Iterator[Fault]:
    if method == "*":
        return
    if not _TOKEN.fullmatch(method):
        yield Fault("allow_methods", f"{method!r} is not a method's name")
    elif method.upper() in FORBIDDEN_METHODS:
        yield Fault("allow_methods", f"{method!r} is a method that browsers never send")


def _header_faults(name: str) -> Iterator[Fault]:
    lowered = name.lower()
    if name == "*":
        return
    if not _TOKEN.fullmatch(name):
        yield Fault("allow_headers", f"{name!r} is not a header's name")
    elif lowered in FORBIDDEN_REQUEST_HEADERS or lowered.startswith(("proxy-", "sec-")):
        yield Fault("allow_headers", f"{name!r} is a header that a page's script cannot set")
    elif lowered.startswith("access-control-"):
        yield Fault("allow_headers", f"{name!r} is a header of responses, not of requests")


def _exposed_faults(name: str, *, credentials: bool) -> Iterator[Fault]:
    lowered = name.lower()
    if name == "*":
        if credentials:
            yield Fault("expose_headers", "'*' is taken literally where credentials are sent: name the headers")
    elif not _TOKEN.fullmatch(name):
        yield Fault("expose_headers", f"{name!r} is not a header's name")
    elif lowered in FORBIDDEN_RESPONSE_HEADERS:
        yield Fault("expose_headers", f"{name!r} is a header that browsers never show to a page's script")
    elif lowered.startswith("access-control-") or lowered == "origin":
        yield Fault("expose_headers", f"{name!r} is a header of the protocol itself, which scripts have no use for")
