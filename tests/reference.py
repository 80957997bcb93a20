"""The reference of the public names, docs/api.md, made of their signatures and docstrings."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import asgi_guard
from asgi_guard import IssuerSettings
from asgi_guard.configuration.section_base import Section
from asgi_guard.settings import GuardSettings, variables

WIDTH = 125
LONG = 500
"""Characters of a docstring's prose beyond which its first paragraph is enough here."""

GROUPS: dict[str, tuple[str, ...]] = {
    "The guard": ("Guard", "Check"),
    "Settings": (
        "GuardSettings", "StoreSettings", "AuthSettings", "IssuerSettings", "RateSettings", "CORSSettings",
        "CSRFSettings", "SecuritySettings", "HostsSettings", "ProxySettings", "RequestIDSettings", "LogSettings",
        "MetricsSettings", "HealthSettings", "Route", "APIKey", "SecurityHeaders",
    ),
    "What the app sees": ("User", "Anonymous", "Auth", "Trace"),
    "What the app calls": (
        "request_id", "trace", "draining", "revoke", "limits", "csp", "csrf", "propagate", "propagation_headers",
        "RequestContextFilter", "add_request_context",
    ),
    "Layers": (
        "DrainMiddleware", "HealthMiddleware", "MetricsMiddleware", "ProxyMiddleware", "RequestIDMiddleware",
        "AccessLogMiddleware", "SecurityHeadersMiddleware", "HostMiddleware", "CORSMiddleware", "CSRFMiddleware",
        "ResourceMetadataMiddleware", "IdentityMiddleware", "Issuer", "KeyTimes", "Introspection", "IntrospectionTimes",
        "Possession", "RateLimitMiddleware", "AccessMiddleware",
    ),
    "Stores": ("Store", "MemoryStore", "RedisStore", "SentinelStore", "ClusterStore", "Breaker"),
    "Errors": (
        "AsgiGuardError", "ConfigError", "Problem", "TokenError", "KeysUnavailableError", "StoreUnavailableError",
        "UnknownScopeError",
    ),
}  # fmt: skip
"""Every public name, by what it is for."""

METHODS = {
    "Guard": ("revoke", "revoke_session", "revoke_subject"),
    "Store": ("ping", "aclose"),
}
"""Methods that users call."""

_PART = re.compile(r"^(Args|Attributes|Raises|Returns):\n", re.MULTILINE)


def reference() -> str:
    """The whole page, but for its beginning."""
    return "\n\n".join(block for title, names in GROUPS.items() for block in (f"## {title}", *_entries(names)))


def _entries(names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        thing = getattr(asgi_guard, name)
        if isinstance(thing, ModuleType):
            yield from _module(name, thing)
        elif thing is IssuerSettings:  # which no variable says by itself
            yield from (f"### {name}", *_told(inspect.getdoc(thing) or ""))
        elif thing is GuardSettings or (isinstance(thing, type) and issubclass(thing, Section)):
            yield from _settings(name, thing)
        else:
            yield from _entry("###", name, thing)


def _entry(level: str, name: str, thing: Any) -> Iterator[str]:
    """A class or a function: its signature, what it is, and its arguments."""
    yield f"{level} {name.rpartition('.')[2] if level == '####' else name}"
    if (signature := _signature(name, thing)) is not None:
        yield f"```\n{signature}\n```"
    yield from _told(inspect.getdoc(thing) or "")
    for method in METHODS.get(name, ()):
        yield from _entry("####", f"{name}.{method}", getattr(thing, method))


def _told(text: str) -> Iterator[str]:
    """A docstring: its prose, of which long ones give their first paragraph, and its parts, as one list."""
    prose, *parts = _PART.split(text)
    paragraphs = prose.strip().split("\n\n")
    further = [] if len(prose) > LONG else paragraphs[1:]
    yield from map(_wrapped, (paragraphs[0], *(each for each in further if each.endswith("."))))  # the others are code
    bullets: list[str] = []
    for kind, part in zip(parts[::2], parts[1::2], strict=True):
        if kind == "Attributes" and bullets:
            continue  # of what is made of the arguments, which few need
        for item in _items(part):
            name, _, meaning = item.partition(": ")
            said = f"`{name}`: {meaning}"
            if item == "app: the app within.":
                continue
            bullets.append({"Raises": f"raises {said}", "Returns": f"returns {item}"}.get(kind, said))
    if bullets:
        yield "\n".join(_wrapped(f"- {bullet}", "  ") for bullet in bullets)


def _items(part: str) -> list[str]:
    """The items of a docstring's part, each in one line; what follows without indentation is none of it."""
    text = textwrap.dedent(part.split("\n\n")[0])
    return [" ".join(item.split()) for item in re.split(r"\n(?=\S)", text.strip())]


def _module(name: str, module: ModuleType) -> Iterator[str]:
    """A module: its constants, and what it can do."""
    yield f"### {name}"
    yield _wrapped((module.__doc__ or "").split("\n\n")[0])
    public = getattr(module, "__all__", None) or [
        key for key, value in vars(module).items() if inspect.isfunction(value) and key[0] != "_"
    ]
    constants = [f"`{name}.{each}`" for each in public if each.isupper() and isinstance(getattr(module, each), str)]
    if constants:
        yield _wrapped(f"Constants: {', '.join(constants)}.")
    for each in public:
        if callable(getattr(module, each)):
            yield from _entry("####", f"{name}.{each}", getattr(module, each))


def _settings(name: str, section: type) -> Iterator[str]:
    """A section: a row for each field."""
    yield f"### {name}"
    yield from _told(inspect.getdoc(section) or "")
    rows = []
    for variable in variables():
        kind = type(GuardSettings.model_fields[variable.section].default) if variable.section else GuardSettings
        if kind is section:
            default = f"`{variable.default}`" if variable.default else ""
            rows.append(f"| `{variable.field}` | `{variable.name}` | {variable.meaning} | {default} |")
    if section is GuardSettings:
        for field, info in GuardSettings.model_fields.items():
            if isinstance(info.default, Section):
                rows.append(f"| `{field}` | those of [{type(info.default).__name__}](#{_anchor(info.default)}) | | |")
    yield "\n".join(("| field | variable | meaning | default |", "|---|---|---|---|", *rows))


def _anchor(section: Section) -> str:
    return type(section).__name__.lower()


def _signature(name: str, thing: Any) -> str | None:
    """How it is called; None for what is called by nobody."""
    plain = isinstance(thing, type) and issubclass(thing, Exception) and not inspect.isfunction(thing.__init__)
    if plain or getattr(thing, "_is_protocol", False):
        return None
    found = inspect.signature(thing)
    written: list[str] = []
    keyword_only = False
    for parameter in found.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            written.append("*")
        written.append(_parameter(parameter))
    kind = "" if isinstance(thing, type) else _type(found.return_annotation)
    returned = f" -> {kind}" if kind and kind[0] != "_" else ""
    waits = "await " if inspect.iscoroutinefunction(thing) else ""
    short = f"{waits}{name}({', '.join(written)}){returned}"
    if len(short) <= WIDTH:
        return short
    return "\n".join((f"{waits}{name}(", *_filled(written), f"){returned}"))


def _filled(written: list[str]) -> Iterator[str]:
    """Arguments in as few lines as hold them."""
    line = "   "
    for each in written:
        if len(line) + len(each) > WIDTH - 2 and line.strip():
            yield line
            line = "   "
        line += f" {each},"
    yield line


def _parameter(parameter: inspect.Parameter) -> str:
    default, kind = parameter.default, _type(parameter.annotation)
    if default is parameter.empty:
        return f"{parameter.name}: {kind}" if kind[:1] != "_" else parameter.name
    shown = repr(default)
    if shown.startswith("<"):  # a function, or what makes a value: its meaning is told below
        shown = "..."
    return f"{parameter.name}: {kind} = {shown}"


def _type(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__forward_arg__", repr(annotation))
    return text.strip("'\"") if text[:1] in "'\"" else text


def _wrapped(text: str, indent: str = "") -> str:
    whole = " ".join(text.split())
    return textwrap.fill(whole, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
