"""Cross-origin resource sharing, as the Fetch standard defines it (https://fetch.spec.whatwg.org/#http-cors-protocol).

`CORSPolicy.of` validates a configuration once, with everything that is wrong reported together; `preflight` and
`actual` then decide by dict look-ups. The order of decisions for a preflight:

1. The origin is not allowed: refused.
2. The method is not CORS-safelisted (GET, HEAD, POST) and not allowed: refused.
3. A header is asked for that is not allowed, or the list is not one that a browser would send: refused.
4. Otherwise allowed, and only what was asked for is named in the answer.

A refusal carries no CORS header at all: it tells a stranger nothing about the configuration. With `unsafe_debug`, an
allowed origin is answered with success, and with headers that do not allow what it asks for: its browser then refuses,
and says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from asgi_guard.errors import ConfigError, Problem
from asgi_guard.policy.cors_names import (
    SAFELISTED_METHODS,
    SAFELISTED_RESPONSE_HEADERS,
    exposed_problems,
    header_problems,
    is_method,
    is_token,
    method_problems,
    normalized_method,
)
from asgi_guard.policy.origins import OriginPatterns, origin_problems

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asgi_guard.asgi import Header

MAX_MAX_AGE = 86400
MAX_REQUESTED_HEADERS = 64
"""A browser asks for the headers that a page's script sets; a longer list is an attack on whoever parses it."""
MAX_REQUESTED_BYTES = 4096
MAX_EMPTY_ELEMENTS = 16
"""RFC 9110 5.6.1.2 asks to pass over a reasonable number of empty elements in a list."""

_PREFLIGHT_VARY = (b"vary", b"access-control-request-headers, access-control-request-method, origin")
_PRIVATE_NETWORK = (b"access-control-allow-private-network", b"true")


@dataclass(frozen=True, slots=True, kw_only=True)
class CORSOptions:
    """What is said of CORS, before it is known to make sense.

    Attributes:
        allow_origins: `https://app.example.com`, `https://*.example.com`, `http://localhost:*`, `tauri://localhost`, or
            `*` alone.
        allow_methods: beyond GET, HEAD and POST; `*` for all.
        allow_headers: that a script may set, beyond the safelisted ones; `*` for all, though for `authorization`
            without credentials only if it is named beside it.
        allow_credentials: whether cookies are sent and answers to them may be read; not with `*` origins.
        expose_headers: that a script may read, beyond the safelisted ones.
        max_age: seconds for which a browser may remember a preflight: 0 to 86400, -1 for never; None says nothing
            (browsers then take 5).
        preflight_status: the status of an allowed preflight, for clients that take 204 amiss.
        unsafe_insecure_origins: allow credentials for origins that anyone on the network can imitate.
        unsafe_public_suffixes: allow `*.` before names under which anyone can register, such as `github.io`.
        unsafe_private_network: let public pages reach this server in a private network, in browsers that still ask
            by `Access-Control-Request-Private-Network`; the Fetch standard has dropped it.
        unsafe_debug: tell allowed origins what is allowed where their preflight is refused; it is the browser that
            refuses then.
    """

    allow_origins: Sequence[str]
    allow_methods: Sequence[str] = ()
    allow_headers: Sequence[str] = ()
    allow_credentials: bool = False
    expose_headers: Sequence[str] = ()
    max_age: int | None = None
    preflight_status: int = 204
    unsafe_insecure_origins: bool = False
    unsafe_public_suffixes: bool = False
    unsafe_private_network: bool = False
    unsafe_debug: bool = False

    def problems(self) -> Iterator[Problem]:
        """All that is wrong with them."""
        yield from origin_problems(
            self.allow_origins,
            credentials=self.allow_credentials,
            insecure=self.unsafe_insecure_origins,
            public_suffixes=self.unsafe_public_suffixes,
        )
        for method in self.allow_methods:
            yield from method_problems(method)
        for name in self.allow_headers:
            yield from header_problems(name)
        for name in self.expose_headers:
            yield from exposed_problems(name, credentials=self.allow_credentials)
        if self.max_age is not None and not -1 <= self.max_age <= MAX_MAX_AGE:
            said = f"{self.max_age} is not within -1..{MAX_MAX_AGE} seconds"
            yield Problem("max_age", said, "out_of_bounds")
        if not 200 <= self.preflight_status <= 299:
            said = f"{self.preflight_status} is no success (200..299)"
            yield Problem("preflight_status", said, "out_of_bounds")


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
        preflight_status: the status of an allowed preflight.
        private_network: whether pages of the public web may reach into a private network.
        debug: whether refused preflights of allowed origins say what is allowed.
    """

    any_origin: bool
    origins: frozenset[bytes]
    patterns: OriginPatterns
    methods: frozenset[bytes] | None
    headers: frozenset[bytes] | None
    authorization: bool
    credentials: bool
    actual_headers: tuple[Header, ...]
    preflight_headers: tuple[Header, ...]
    preflight_status: int
    private_network: bool
    debug: bool

    @classmethod
    def of(cls, options: CORSOptions) -> Self:
        """Compile.

        Raises:
            ConfigError: with all that is wrong.
        """
        if problems := list(options.problems()):
            raise ConfigError(problems)
        origins, allowed = options.allow_origins, options.allow_headers
        credentials: tuple[Header, ...] = ()
        if options.allow_credentials:
            credentials = ((b"access-control-allow-credentials", b"true"),)
        exposed = [name.lower() for name in options.expose_headers]
        expose = ", ".join(dict.fromkeys(name for name in exposed if name not in SAFELISTED_RESPONSE_HEADERS)).encode()
        seconds = None if options.max_age is None else max(options.max_age, 0)
        return cls(
            any_origin="*" in origins,
            origins=frozenset(origin.encode() for origin in origins if "*" not in origin),
            patterns=OriginPatterns(origin for origin in origins if "*" in origin and origin != "*"),
            methods=None if "*" in options.allow_methods else frozenset(map(normalized_method, options.allow_methods)),
            headers=None if "*" in allowed else frozenset(name.lower().encode() for name in allowed),
            authorization=options.allow_credentials or any(name.lower() == "authorization" for name in allowed),
            credentials=options.allow_credentials,
            actual_headers=credentials + (((b"access-control-expose-headers", expose),) if expose else ()),
            preflight_headers=credentials
            + (((b"access-control-max-age", b"%d" % seconds),) if seconds is not None else ()),
            preflight_status=options.preflight_status,
            private_network=options.unsafe_private_network,
            debug=options.unsafe_debug,
        )

    def allows_origin(self, origin: bytes) -> bool:
        """Tell whether pages of this origin (the header's value) may read answers."""
        if self.any_origin or origin in self.origins:
            return True
        if not self.patterns or len(origin) > 512:
            return False
        return self.patterns.match(origin.decode("latin-1"))

    def names_origin(self, origin: bytes) -> bool:
        """Tell whether this origin was named, exactly or by a pattern: `*` names nobody, and lends no one's cookies."""
        return not self.any_origin and self.allows_origin(origin)

    def preflight(
        self, origin: bytes, method: bytes, headers: Sequence[bytes], *, private_network: bool = False
    ) -> tuple[Header, ...] | None:
        """Answer a preflight: its CORS headers, or None to refuse. For debugging, these may be such as refuse.

        Args:
            origin: the `Origin` header.
            method: the `Access-Control-Request-Method` header.
            headers: every line of `Access-Control-Request-Headers`.
            private_network: whether `Access-Control-Request-Private-Network` is `true`.
        """
        if not self.allows_origin(origin):
            return None
        answer: list[Header] = [self._allow_origin(origin), *self.preflight_headers]
        if method not in SAFELISTED_METHODS:
            if not self.allows_method(method):
                return self._explained(origin, headers=False)
            answer.append((b"access-control-allow-methods", method))
        if headers:
            asked = self._asked(headers)
            if asked is None:
                return self._explained(origin, headers=True)
            if asked:
                answer.append((b"access-control-allow-headers", b",".join(asked)))
        if private_network and self.private_network:
            answer.append(_PRIVATE_NETWORK)
        answer.append(_PREFLIGHT_VARY)
        return tuple(answer)

    def _explained(self, origin: bytes, *, headers: bool) -> tuple[Header, ...] | None:
        """The answer by which a browser can say what failed, where that is not kept secret."""
        if not self.debug:
            return None
        told = [self._allow_origin(origin)]
        if headers and self.headers:
            told += (*self.preflight_headers, (b"access-control-allow-headers", b",".join(sorted(self.headers))))
        elif self.credentials:
            told.append((b"access-control-allow-credentials", b"true"))
        return (*told, _PREFLIGHT_VARY)

    def allows_method(self, method: bytes) -> bool:
        """Tell whether a method beyond the safelisted ones is allowed, as the browser writes it."""
        return (self.methods is None or method in self.methods) and is_method(method)

    def allows_header(self, name: bytes) -> bool:
        """Tell whether a script may set this request header. `name` is lower case."""
        if self.headers is not None:
            return name in self.headers
        return is_token(name.decode("latin-1")) and (name != b"authorization" or self.authorization)

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
        return asked if all(self.allows_header(name.lower()) for name in asked) else None

    def actual(self, origin: bytes) -> tuple[Header, ...] | None:
        """The CORS headers of a response to this origin, or None if it may not read it."""
        return (self._allow_origin(origin), *self.actual_headers) if self.allows_origin(origin) else None

    def _allow_origin(self, origin: bytes) -> Header:
        return b"access-control-allow-origin", b"*" if self.any_origin else origin


_OF_NOBODY = CORSOptions(allow_origins=("https://nobody.invalid",))
"""What stands for a configuration that names no origin, which is none (RFC 6761 6.4)."""


def obstacles(
    policy: CORSPolicy | None, origin: bytes, method: bytes, names: Sequence[str], *, credentials: bool
) -> tuple[Problem, ...]:
    """Every option that keeps a page from reading an answer, and what it would have to say.

    Args:
        policy: the configuration; None where there is none.
        origin: the page's origin.
        method: the method that it uses.
        names: the headers that it sets, lower case, the safelisted ones aside.
        credentials: whether its cookies go along.
    """
    found: list[Problem] = []
    named = policy is not None
    policy = policy or CORSPolicy.of(_OF_NOBODY)
    if not policy.allows_origin(origin):
        found.append(Problem("allow_origins", _advice_on(origin, named=named, credentials=credentials)))
    if credentials and policy.any_origin:
        found.append(Problem("allow_origins", "write the origins that may send cookies in the place of '*'"))
    if credentials and not policy.credentials:
        found.append(Problem("allow_credentials", "write true, so that cookies may go along"))
    sent = normalized_method(method.decode("latin-1"))
    if sent not in SAFELISTED_METHODS and not policy.allows_method(sent):
        wanted = sent.decode("latin-1")
        as_written = "" if wanted.isupper() else f", or have the page write {wanted.upper()}, for it is sent as written"
        found.append(Problem("allow_methods", f"add {wanted}{as_written}"))
    if missing := [name for name in names if not policy.allows_header(name.encode("latin-1", "replace"))]:
        found.append(Problem("allow_headers", f"add {', '.join(missing)}"))
    return tuple(found)


def _advice_on(origin: bytes, *, named: bool, credentials: bool) -> str:
    """What to do for a page of an origin that is not allowed, where others are named or none is."""
    text = origin.decode("latin-1")
    if text == "null":
        advice = "'null' cannot be named, for frames and files of anyone have it: give the page an origin of its own"
        return advice if credentials else f"{advice}, or write '*' for everyone"
    return f"add {text}" if named else f"it is empty, so no page may call: write {text}"
