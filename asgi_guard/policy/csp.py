"""Content-Security-Policy (https://www.w3.org/TR/CSP3/): built from typed directives or read from text, and checked.

The source `'nonce'`, which is no source of the standard, stands for the nonce of the response at hand: `script-src
'self' 'nonce'` becomes `script-src 'self' 'nonce-...'` where the app has asked for one (`asgi_guard.csp.nonce`), and
`script-src 'self'` where it has not. `'unsafe-inline'` beside it is for browsers that know no nonces, and goes with it:
others pass over it only where a nonce stands.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Self

from asgi_guard.errors import ConfigError, Problem, meant
from asgi_guard.policy.listing import one_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NONE = "'none'"
SELF = "'self'"
NONCE = "'nonce'"
STRICT_DYNAMIC = "'strict-dynamic'"
REPORT_SAMPLE = "'report-sample'"
UNSAFE_INLINE = "'unsafe-inline'"
UNSAFE_EVAL = "'unsafe-eval'"
UNSAFE_HASHES = "'unsafe-hashes'"
WASM_UNSAFE_EVAL = "'wasm-unsafe-eval'"

_KEYWORDS = frozenset(
    {
        NONE, SELF, NONCE, STRICT_DYNAMIC, REPORT_SAMPLE, UNSAFE_INLINE, UNSAFE_EVAL, UNSAFE_HASHES, WASM_UNSAFE_EVAL,
        "'inline-speculation-rules'", "'report-sha256'", "'report-sha384'", "'report-sha512'", "'script'",
        "'allow-duplicates'", "'trusted-types-eval'",
    }
)  # fmt: skip
_BARE = frozenset(word.strip("'") for word in _KEYWORDS) - {"script"}
_WEBRTC = ("'allow'", "'block'")
_WRITTEN_LOWER = _KEYWORDS.union(_WEBRTC)
_QUOTED = re.compile(r"(?<![^\s;])'[A-Za-z0-9-]+'(?![^\s;])")
_HASH = re.compile(r"'sha(256|384|512)-[A-Za-z0-9+/_-]+={0,2}'")
_SOURCE = re.compile(r"[!-+\--:<-~]+")
"""Visible ASCII without `,` and `;`, which end a policy and a directive."""


def sha256(script: str) -> str:
    """The source that allows this inline script or style, exactly as it stands between its tags."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"'sha256-{digest}'"


@dataclass(frozen=True, slots=True, kw_only=True)
class CSP:
    """A policy, directive by directive, in the order in which it is written here.

    Each directive takes sources: `SELF`, `NONE`, `NONCE`, hashes (`sha256`), schemes (`https:`) and hosts; `webrtc`
    takes `'allow'` or `'block'`. `str` gives the header's value.

    Raises:
        ValueError: with everything that is wrong.
    """

    default_src: tuple[str, ...] = ()
    base_uri: tuple[str, ...] = ()
    child_src: tuple[str, ...] = ()
    connect_src: tuple[str, ...] = ()
    font_src: tuple[str, ...] = ()
    form_action: tuple[str, ...] = ()
    frame_ancestors: tuple[str, ...] = ()
    frame_src: tuple[str, ...] = ()
    img_src: tuple[str, ...] = ()
    manifest_src: tuple[str, ...] = ()
    media_src: tuple[str, ...] = ()
    object_src: tuple[str, ...] = ()
    script_src: tuple[str, ...] = ()
    script_src_attr: tuple[str, ...] = ()
    script_src_elem: tuple[str, ...] = ()
    style_src: tuple[str, ...] = ()
    style_src_attr: tuple[str, ...] = ()
    style_src_elem: tuple[str, ...] = ()
    worker_src: tuple[str, ...] = ()
    webrtc: tuple[str, ...] = ()
    require_trusted_types_for: tuple[str, ...] = ()
    trusted_types: tuple[str, ...] | None = None
    sandbox: tuple[str, ...] | None = None
    report_uri: tuple[str, ...] = ()
    report_to: tuple[str, ...] = ()
    upgrade_insecure_requests: bool = False

    def __post_init__(self) -> None:
        if fault := one_text(**{each.name: getattr(self, each.name) for each in fields(self)}):
            raise ConfigError([Problem("csp", fault)])
        if problems := list(csp_problems(str(self), "csp")):
            raise ConfigError(problems)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a policy from text."""
        if problems := list(csp_problems(text, "csp")):
            raise ConfigError(problems)
        parsed = {name.replace("-", "_"): sources for name, sources in directives(text).items()}
        flag = {"upgrade_insecure_requests": True} if "upgrade_insecure_requests" in parsed else {}
        return cls(**{**parsed, **flag})  # type: ignore[arg-type]  # the one flag is replaced by what it means

    def __str__(self) -> str:
        written = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value is True:
                written.append(field.name.replace("_", "-"))
            elif value or (value == () and field.default is None):
                written.append(" ".join((field.name.replace("_", "-"), *value)))
        return "; ".join(written)


DIRECTIVES = frozenset(field.name.replace("_", "-") for field in fields(CSP))
_NO_SOURCES = frozenset({"sandbox", "trusted-types", "require-trusted-types-for", "report-uri", "report-to"})


def in_lower_case(text: str) -> str:
    """A policy with its keywords as they are looked for here: to browsers they are the same in any case."""

    def lowered(found: re.Match[str]) -> str:
        word = found[0].lower()
        return word if word in _WRITTEN_LOWER else found[0]

    return _QUOTED.sub(lowered, text)


def directives(text: str) -> dict[str, tuple[str, ...]]:
    """A policy by directive, the first of each name, as browsers read it; keywords are in lower case."""
    found: dict[str, tuple[str, ...]] = {}
    for part in in_lower_case(text).split(";"):
        name, *values = part.split() or [""]
        if name:
            found.setdefault(name.lower(), tuple(values))
    return found


def written(parsed: Mapping[str, tuple[str, ...]]) -> str:
    """The text of a policy."""
    return "; ".join(" ".join((name, *values)) for name, values in parsed.items())


def without_nonce(text: str) -> str:
    """The policy for a response whose app has not asked for a nonce."""
    parsed = directives(text)
    if not any(NONCE in values for values in parsed.values()):
        return text
    return written({name: _without_nonce(values) if NONCE in values else values for name, values in parsed.items()})


def _without_nonce(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(each for each in values if each not in (NONCE, UNSAFE_INLINE)) or (NONE,)


def csp_problems(text: str, field: str) -> Iterator[Problem]:
    """What browsers would pass over in a policy, or read otherwise than it is meant.

    Args:
        text: the policy, perhaps with `'nonce'`.
        field: the option that it stands in.
    """
    names = [part.split()[0].lower() for part in text.split(";") if part.strip()]
    if not names:
        yield Problem(field, "the policy has no directive")
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        yield Problem(field, f"{name} stands there twice, and browsers pass over the second")
    for name, values in directives(text).items():
        if name not in DIRECTIVES:
            yield Problem(field, f"there is no directive {name!r}{meant(name, DIRECTIVES)}")
            continue
        if name == "upgrade-insecure-requests" and values:
            yield Problem(field, f"{name} takes no value: is a ';' missing?")
        if name == "webrtc":
            if len(values) != 1 or values[0] not in _WEBRTC:
                yield Problem(field, f"{name} is {' or '.join(_WEBRTC)}, and nothing else")
            continue
        for value in values:
            if message := _value_fault(name, value):
                yield Problem(field, message)
        if NONE in values and len(values) > 1:
            yield Problem(field, f"{name}: 'none' beside other sources is passed over")
        allowed = (value for value in values if value == NONCE or _HASH.fullmatch(value))
        if STRICT_DYNAMIC in values and not any(allowed):
            yield Problem(field, f"{name}: 'strict-dynamic' lets nothing run without 'nonce' or a hash beside it")


def _value_fault(name: str, value: str) -> str | None:
    if not _SOURCE.fullmatch(value):
        return f"{name}: {value!r} holds characters that cannot stand in a policy"
    if value in DIRECTIVES:
        return f"{name}: {value} is a directive itself: is a ';' missing before it?"
    if name in _NO_SOURCES:
        return None
    lowered = value.lower()
    if lowered in _BARE:
        return f"{name}: {value} without quotes is a host of that name: write '{lowered}'"
    if lowered.startswith("'nonce-"):
        return f"{name}: a nonce that is the same for every response protects nothing: write 'nonce'"
    if value.startswith("'") and lowered not in _KEYWORDS and not _HASH.fullmatch(value):
        return f"{name}: {value} is no keyword and no hash"
    return None
