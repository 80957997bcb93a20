"""Security headers: presets, and the exact lines that a response gets.

The values are those of the OWASP Secure Headers project where it recommends one. A header that the app set itself is
left as it is. `Strict-Transport-Security` and `upgrade-insecure-requests` are said only over https (RFC 6797 7.2), as
a trusted proxy or the server itself says it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from asgi_guard.policy.faults import Fault, FaultsError

if TYPE_CHECKING:
    from asgi_guard.asgi import Header
    from asgi_guard.policy.routes import Preset

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
    "x-permitted-cross-domain-policies": "none",
    "permissions-policy": _PERMISSIONS,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_PRESETS: dict[Preset, dict[str, str]] = {
    "api": {
        **_COMMON,
        "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        "cross-origin-embedder-policy": "require-corp",
        "referrer-policy": "no-referrer",
        "x-frame-options": "DENY",
    },
    "page": {
        **_COMMON,
        "content-security-policy": "default-src 'self'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'; "
        "object-src 'none'",
        "referrer-policy": "strict-origin-when-cross-origin",
        "x-frame-options": "DENY",
    },
    # Swagger UI and ReDoc, as FastAPI serves them: an inline start script, their code and styles from one CDN, fonts of
    # another, pictures in data: URLs, and a worker made of a blob.
    "docs": {
        **_COMMON,
        "content-security-policy": "default-src 'none'; base-uri 'none'; connect-src 'self'; "
        "font-src 'self' https://fonts.gstatic.com; form-action 'self'; frame-ancestors 'none'; "
        "img-src 'self' data: https://fastapi.tiangolo.com https://cdn.redoc.ly; "
        "script-src 'self' 'unsafe-inline' https://cdn.jsdelivr.net; "
        "style-src 'self' 'unsafe-inline' https://cdn.jsdelivr.net https://fonts.googleapis.com; worker-src blob:",
        "referrer-policy": "no-referrer",
        "x-frame-options": "DENY",
    },
    "off": {},
}

DEFAULT_HSTS = "max-age=63072000; includeSubDomains"
PRELOAD_MIN_AGE = 31_536_000
_MAX_AGE = re.compile(r'\s*max-age\s*=\s*(?P<quote>"?)(?P<seconds>\d{1,10})(?P=quote)\s*', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SecurityPolicy:
    """The lines that a response gets, ready to be appended.

    Attributes:
        plain: over http.
        secure: over https.
        names: the names of either, to see at a glance whether the app set any of them.
    """

    plain: tuple[Header, ...]
    secure: tuple[Header, ...]
    names: frozenset[bytes]

    @classmethod
    def of(
        cls,
        preset: Preset = "api",
        *,
        csp: str | None = None,
        csp_report_only: str | None = None,
        hsts: str | None = None,
        referrer_policy: str | None = None,
        permissions_policy: str | None = None,
    ) -> Self:
        """Compile a preset and what is said otherwise. For each value: None keeps the preset's, `off` leaves it out.

        Args:
            preset: `api` for answers that are no pages, `page` for pages, `docs` for Swagger UI and ReDoc, `off` for
                none.
            csp: the `Content-Security-Policy`.
            csp_report_only: the `Content-Security-Policy-Report-Only`, beside the enforced one.
            hsts: the `Strict-Transport-Security`; two years with subdomains unless said.
            referrer_policy: the `Referrer-Policy`.
            permissions_policy: the `Permissions-Policy`.

        Raises:
            FaultsError: values that cannot stand in a header, or `hsts` not as RFC 6797 and the preload list ask for.
        """
        _check(csp=csp, csp_report_only=csp_report_only, referrer_policy=referrer_policy,
               permissions_policy=permissions_policy, hsts=hsts)  # fmt: skip
        chosen = dict(_PRESETS[preset])
        said = {
            "content-security-policy": csp,
            "content-security-policy-report-only": csp_report_only,
            "referrer-policy": referrer_policy,
            "permissions-policy": permissions_policy,
        }
        for name, value in said.items():
            if value == "off":
                chosen.pop(name, None)
            elif value is not None:
                chosen[name] = value
        strict = DEFAULT_HSTS if hsts is None else hsts
        secure = dict(chosen)
        policy = secure.get("content-security-policy")
        if policy and preset in ("page", "docs") and csp is None:
            # Over plain http this would make Safari rewrite the page's own requests to localhost.
            secure["content-security-policy"] = policy + "; upgrade-insecure-requests"
        if strict != "off" and (preset != "off" or hsts is not None):
            secure["strict-transport-security"] = strict
        names = frozenset(name.encode() for name in (*chosen, *secure))
        return cls(_lines(chosen), _lines(secure), names)


def _lines(headers: dict[str, str]) -> tuple[Header, ...]:
    return tuple((name.encode(), value.encode()) for name, value in headers.items())


def _check(**values: str | None) -> None:
    faults: list[Fault] = []
    for field, value in values.items():
        if value is None or value == "off":
            continue
        if not value.strip() or not value.isascii() or not value.isprintable():
            faults.append(Fault(field, "the value is empty or holds characters that cannot stand in a header"))
        elif field == "hsts" and (message := _hsts_fault(value)):
            faults.append(Fault(field, message))
    if faults:
        raise FaultsError(faults)


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
