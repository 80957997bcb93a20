"""Security headers: presets, and the exact lines that a response gets.

The values are those of the OWASP Secure Headers project where it recommends one. A header that the app set itself is
left as it is. `Strict-Transport-Security` and `upgrade-insecure-requests` are said only over https (RFC 6797 7.2), as
a trusted proxy or the server itself says it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, get_args

from asgi_guard.errors import ConfigError, Problem
from asgi_guard.policy.csp import NONCE, csp_problems, directives, in_lower_case, without_nonce, written
from asgi_guard.policy.header_values import DEFAULT_HSTS, endpoint_problems, endpoints, is_sendable, value_problems

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asgi_guard.asgi import Header

Preset: TypeAlias = Literal["api", "page", "docs", "off"]

# OWASP's list, but for clipboard-write, which the copy buttons of pages need, and interest-cohort, which is no more.
DENIED_FEATURES = (
    "accelerometer", "autoplay", "camera", "cross-origin-isolated", "display-capture", "encrypted-media", "fullscreen",
    "geolocation", "gyroscope", "keyboard-map", "magnetometer", "microphone", "midi", "payment", "picture-in-picture",
    "publickey-credentials-get", "screen-wake-lock", "sync-xhr", "usb", "web-share", "xr-spatial-tracking",
    "clipboard-read", "gamepad", "hid", "idle-detection", "serial", "unload",
)  # fmt: skip

_PERMISSIONS = ", ".join(f"{feature}=()" for feature in DENIED_FEATURES)
_COMMON = {
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
# What is said of features and plug-ins is for documents that run something. An answer of an API runs nothing, by its
# Content-Security-Policy, and half a kilobyte on each of them is what a server written in Python takes longest to send.
_OF_PAGES = {**_COMMON, "x-permitted-cross-domain-policies": "none", "permissions-policy": _PERMISSIONS}
_PRESETS: dict[Preset, dict[str, str]] = {
    "api": {
        **_COMMON,
        "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        "cross-origin-embedder-policy": "require-corp",
        "referrer-policy": "no-referrer",
        "x-frame-options": "DENY",
    },
    "page": {
        **_OF_PAGES,
        "content-security-policy": "default-src 'self'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'; "
        "object-src 'none'; script-src 'self' 'nonce'; style-src 'self' 'nonce'; upgrade-insecure-requests",
        "referrer-policy": "strict-origin-when-cross-origin",
        "x-frame-options": "DENY",
    },
    # Swagger UI and ReDoc, as FastAPI serves them: an inline start script, their code and styles from one CDN, fonts of
    # another, pictures in data: URLs, and a worker made of a blob. Swagger UI logs in by a popup that calls its opener.
    "docs": {
        **_OF_PAGES,
        "cross-origin-opener-policy": "same-origin-allow-popups",
        "content-security-policy": "default-src 'none'; base-uri 'none'; connect-src 'self'; "
        "font-src 'self' https://fonts.gstatic.com; form-action 'self'; frame-ancestors 'none'; "
        "img-src 'self' data: https://fastapi.tiangolo.com https://cdn.redoc.ly; "
        "script-src 'self' 'unsafe-inline' https://cdn.jsdelivr.net; "
        "style-src 'self' 'unsafe-inline' https://cdn.jsdelivr.net https://fonts.googleapis.com; worker-src blob:; "
        "upgrade-insecure-requests",
        "referrer-policy": "no-referrer",
        "x-frame-options": "DENY",
    },
    "off": {},
}

_NAMES = {
    "csp": "content-security-policy",
    "csp_report_only": "content-security-policy-report-only",
    "referrer_policy": "referrer-policy",
    "permissions_policy": "permissions-policy",
    "frame_options": "x-frame-options",
    "opener_policy": "cross-origin-opener-policy",
    "embedder_policy": "cross-origin-embedder-policy",
    "resource_policy": "cross-origin-resource-policy",
    "cache_control": "cache-control",
}
"""The header of each option that replaces one, whatever the preset."""
_CSP = _NAMES["csp"].encode()
_OF_HOST = "strict-transport-security"
_FRAMING = {b"DENY": b"frame-ancestors 'none'", b"SAMEORIGIN": b"frame-ancestors 'self'"}
"""What each X-Frame-Options is in a Content-Security-Policy. Where that says who may frame, browsers go by it alone."""
SECURITY_HEADERS = frozenset({_OF_HOST, *_NAMES.values(), *(name for preset in _PRESETS.values() for name in preset)})
"""Every header that a preset or an option makes."""
TELLING = frozenset({b"server", b"x-powered-by"})
"""What tells an attacker which software answers."""


@dataclass(frozen=True, slots=True)
class SecurityHeaders:
    """What is said of security headers: a preset, and what is said otherwise.

    For each value, None keeps the preset's and `off` leaves the header out.

    Attributes:
        preset: `api` for answers that are no pages, `page` for pages, `docs` for Swagger UI and ReDoc, `off` for none;
            in a row, None is that of the whole guard, with all that is said beside it.
        csp: the `Content-Security-Policy`; `'nonce'` in it stands for that of the response.
        csp_report_only: the `Content-Security-Policy-Report-Only`, beside the enforced one.
        hsts: the `Strict-Transport-Security`; two years with subdomains unless said.
        referrer_policy: the `Referrer-Policy`.
        permissions_policy: the `Permissions-Policy`.
        frame_options: the `X-Frame-Options`; with `SAMEORIGIN`, the preset's policy lets the app's own pages frame it.
        opener_policy: the `Cross-Origin-Opener-Policy`.
        embedder_policy: the `Cross-Origin-Embedder-Policy`.
        resource_policy: the `Cross-Origin-Resource-Policy`.
        cache_control: the `Cache-Control` of responses that have none of their own.
        reporting_endpoints: where browsers send reports, `name=https://...`; policies report to the first.
    """

    # Read by pydantic where a row comes from the environment: a misspelt name is an error.
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - pydantic asks for a plain dict

    preset: Preset | None = None
    csp: str | None = None
    csp_report_only: str | None = None
    hsts: str | None = None
    referrer_policy: str | None = None
    permissions_policy: str | None = None
    frame_options: str | None = None
    opener_policy: str | None = None
    embedder_policy: str | None = None
    resource_policy: str | None = None
    cache_control: str | None = None
    reporting_endpoints: Sequence[str] = ()

    def problems(self, *, in_row: bool = False) -> Iterator[Problem]:
        """Everything that cannot be sent, or would not do what it says. A row may report to the guard's endpoints."""
        if self.preset not in (None, *get_args(Preset)):
            message = f"{self.preset!r} is none of {', '.join(map(repr, get_args(Preset)))}"
            yield Problem("preset", message)
        for field, value in asdict(self).items():
            if field in ("preset", "reporting_endpoints") or value is None or value == "off":
                continue
            if not field.startswith("csp") or not is_sendable(value):
                yield from value_problems(field, value)
                continue
            yield from csp_problems(value, field)
            to = directives(value).get("report-to", ())
            if to and not in_row and to[0] not in endpoints(self.reporting_endpoints):
                yield Problem(field, f"report-to {to[0]}: no reporting endpoint has this name")
        yield from endpoint_problems(self.reporting_endpoints)

    def over(self, default: SecurityHeaders) -> SecurityHeaders:
        """What holds in a row that says this, where `default` holds elsewhere.

        A preset of its own leaves behind what was said beside the other, but for what is of the whole host.
        """
        if self.preset is not None:
            kept = {name: getattr(self, name) or getattr(default, name) for name in ("hsts", "reporting_endpoints")}
            return replace(self, **kept)
        return replace(default, **self._said())

    def _said(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in values.items() if value is not None and value != ()}

    def __str__(self) -> str:
        return "; ".join(f"{name}: {value}" for name, value in self._said().items())


_Template: TypeAlias = tuple[bytes, tuple[bytes, ...]]
"""A header's name, and the parts of its value between which the nonce stands."""


@dataclass(frozen=True, slots=True)
class SecurityPolicy:
    """The lines that a response gets, ready to be appended.

    Attributes:
        plain: over http.
        secure: over https.
        names: the names of either, and of what is taken away: to see at a glance whether the app set any of them.
        nonces: the lines that take a nonce, by scheme; none if there is none to take.
        unchanged: over https, on a 304. What caches have stored keeps the headers that it came with, the app's own
            among them and the nonce of its scripts, so that there stands what is of the whole host alone.
        taken: the names of what is taken away; nothing under the preset `off`.
        no_store: whether responses to identified users are kept from caches; not under `off` either, unless something
            is said of caching beside it, which is for all others.
        frames_by_preset: whether it is the preset alone that says in the Content-Security-Policy who may frame.
    """

    plain: tuple[Header, ...]
    secure: tuple[Header, ...]
    names: frozenset[bytes]
    nonces: dict[bool, tuple[_Template, ...]] | None = None
    unchanged: tuple[Header, ...] = ()
    taken: frozenset[bytes] = TELLING
    no_store: bool = True
    frames_by_preset: bool = False

    @classmethod
    def of(cls, headers: SecurityHeaders | None = None) -> Self:
        """Compile what is said; of nothing, the preset `api`.

        Raises:
            ConfigError: with everything that cannot be sent, or would not do what it says.
        """
        said = headers or SecurityHeaders()
        if problems := list(said.problems()):
            raise ConfigError(problems)
        preset = said.preset or "api"
        chosen = dict(_PRESETS[preset])
        for option, name in _NAMES.items():
            value = getattr(said, option)
            if value == "off":
                chosen.pop(name, None)
            elif value is not None:
                chosen[name] = in_lower_case(value) if option.startswith("csp") else value
        if said.csp is None and said.frame_options == "SAMEORIGIN" and preset != "off":
            chosen[_NAMES["csp"]] = _framed(chosen[_NAMES["csp"]].encode(), b"SAMEORIGIN").decode()
        named = endpoints(said.reporting_endpoints)
        secure = {name: _reporting(name, value, named, secure=True) for name, value in chosen.items()}
        if named:
            secure["reporting-endpoints"] = ", ".join(f'{name}="{url}"' for name, url in named.items())
        strict = DEFAULT_HSTS if said.hsts is None else said.hsts
        if strict != "off" and (preset != "off" or said.hsts is not None):
            secure[_OF_HOST] = strict
        plain = {
            name: _without_upgrade(name, _reporting(name, value, named, secure=False)) for name, value in chosen.items()
        }
        taken = TELLING if preset != "off" else frozenset()
        nonces = {False: _templates(plain), True: _templates(secure)}
        return cls(
            plain=_lines(plain),
            secure=_lines(secure),
            names=frozenset(name.encode() for name in (*plain, *secure)) | taken,
            nonces=nonces if nonces[True] else None,
            unchanged=_lines({name: value for name, value in secure.items() if name == _OF_HOST}),
            taken=taken,
            no_store=preset != "off" or "cache-control" in chosen,
            frames_by_preset=said.csp is None and preset != "off",
        )

    def framed_by(self, lines: tuple[Header, ...], own: Iterable[Header]) -> tuple[Header, ...]:
        """The lines beside the app's own `X-Frame-Options`: what the preset says of frames is to be the same.

        Args:
            lines: those that the response would get.
            own: the app's, in any spelling.
        """
        said = {value.strip().upper() for name, value in own if name.lower() == b"x-frame-options"}
        if len(said) != 1 or not self.frames_by_preset:
            return lines
        (word,) = said
        return tuple((name, _framed(value, word) if name == _CSP else value) for name, value in lines)

    def with_nonce(self, nonce: str, *, secure: bool) -> tuple[Header, ...]:
        """The lines of a response whose app has asked for a nonce."""
        lines = self.secure if secure else self.plain
        if self.nonces is None:
            return lines
        source = f"'nonce-{nonce}'".encode()
        filled = {name: source.join(parts) for name, parts in self.nonces[secure]}
        return tuple((name, filled.get(name, value)) for name, value in lines)


def _framed(policy: bytes, frame_options: bytes) -> bytes:
    """A preset's policy with what this `X-Frame-Options` says; one that browsers do not know changes nothing."""
    wanted = _FRAMING.get(frame_options)
    if wanted is not None:
        for other in _FRAMING.values():
            policy = policy.replace(other, wanted)
    return policy


def _reporting(name: str, value: str, named: dict[str, str], *, secure: bool) -> str:
    """A policy that says where to report, both to browsers that know endpoints and to others.

    Endpoints are known over https only. Over http a browser that knows `report-to` would report to nobody, for then it
    passes over `report-uri`.
    """
    parsed = directives(value) if named and name.startswith("content-security-policy") else {}
    if not parsed or "report-to" in parsed or "report-uri" in parsed:
        return value
    endpoint, url = next(iter(named.items()))
    return written({**parsed, "report-uri": (url,)} | ({"report-to": (endpoint,)} if secure else {}))


def _without_upgrade(name: str, value: str) -> str:
    """Over plain http, upgrading would make Safari rewrite the page's own requests to localhost."""
    if not name.startswith("content-security-policy") or "upgrade-insecure-requests" not in value.lower():
        return value
    return written({each: values for each, values in directives(value).items() if each != "upgrade-insecure-requests"})


def _lines(headers: dict[str, str]) -> tuple[Header, ...]:
    return tuple((name.encode(), without_nonce(value).encode()) for name, value in headers.items() if value)


def _templates(headers: dict[str, str]) -> tuple[_Template, ...]:
    return tuple(
        (name.encode(), tuple(value.encode().split(NONCE.encode())))
        for name, value in headers.items()
        if name.startswith("content-security-policy") and NONCE in value
    )
