"""A grade for security headers, by the rules that Mozilla's HTTP Observatory publishes.

A response over https begins with 100 points; each test adds or takes some. Points are added only if what is left
without them is 90 or more. What an Observatory finds out beyond one response of the guard's (cookies, integrity of
scripts, redirections, the preload list) is the app's or the operator's, and counts as neither good nor bad here, so
that the most one can have is 150 of 165.

The order of decisions on a Content-Security-Policy: the first that holds counts.

1. There is none, or it cannot be read.
2. Scripts or plugins may come from anywhere, or scripts be inline; a nonce or hash takes `'unsafe-inline'` away, and
   `'strict-dynamic'` with one of them the hosts.
3. Active content may come over plain http. 4. `'unsafe-eval'`. 5. Images or media over plain http.
6. Styles inline or from anywhere. 7. `default-src 'none'` earns more than any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from asgi_guard.policy.csp import DIRECTIVES, NONE, SELF, STRICT_DYNAMIC, UNSAFE_EVAL, UNSAFE_INLINE
from asgi_guard.policy.header_values import CHOICES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from asgi_guard.asgi import Header

BASE = 100
EXTRA_FROM = 90
BEST = 150
GRADES = (
    (100, "A+"), (90, "A"), (85, "A-"), (80, "B+"), (70, "B"), (65, "B-"), (60, "C+"), (50, "C"), (45, "C-"),
    (40, "D+"), (30, "D"), (25, "D-"), (0, "F"),
)  # fmt: skip
SIX_MONTHS = 15_552_000

_BROAD = frozenset({"ftp:", "http:", "https:", "*", "http://*", "http://*.*", "https://*", "https://*.*"})
_INLINE = frozenset({UNSAFE_INLINE, "data:"})
_PRIVATE_REFERRERS = frozenset({"no-referrer", "same-origin", "strict-origin", "strict-origin-when-cross-origin"})
# Where the published rules leave the points of a weaker value open, it counts as nothing here.
_ISOLATION: Mapping[str, tuple[dict[str, int], str, str]] = {
    "cross-origin-resource-policy": (
        {"same-origin": 10, "same-site": 10, "cross-origin": 0}, "same-origin", "resource",
    ),
    "cross-origin-opener-policy": (
        {"same-origin": 10, "same-origin-allow-popups": 0, "noopener-allow-popups": 0, "unsafe-none": 0},
        "same-origin", "opener",
    ),
    "cross-origin-embedder-policy": (
        {"require-corp": 10, "credentialless": 0, "unsafe-none": 0}, "require-corp", "embedder",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Result:
    """What one test found.

    Attributes:
        test: the header that it looks at.
        points: what it adds or takes.
        found: what it found.
        better: what would give more; empty where nothing would.
        option: the option that says so, as `csp` or `hsts`.
    """

    test: str
    points: int
    found: str
    better: str = ""
    option: str = ""


@dataclass(frozen=True, slots=True)
class Grade:
    """The whole judgement: the points, the letter and every test's result."""

    score: int
    letter: str
    results: tuple[Result, ...]


def grade(headers: Iterable[Header]) -> Grade:
    """Grade the headers of a response over https, in any spelling."""
    lines: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        lines[key] = f"{lines[key]}, {text}" if key in lines else text
    csp = _parsed(lines.get("content-security-policy", ""))
    results = (
        _policy(csp, report_only="content-security-policy-report-only" in lines),
        _framing(csp, lines.get("x-frame-options")),
        _hsts(lines.get("strict-transport-security")),
        _sniffing(lines.get("x-content-type-options")),
        _referrer(lines.get("referrer-policy")),
        *(_isolation(name, lines.get(name)) for name in _ISOLATION),
    )
    without_extra = BASE + sum(result.points for result in results if result.points < 0)
    with_extra = BASE + sum(result.points for result in results)
    score = max(0, with_extra if without_extra >= EXTRA_FROM else without_extra)
    return Grade(score, next(letter for least, letter in GRADES if score >= least), results)


def _parsed(text: str) -> dict[str, frozenset[str]]:
    """A policy by directive; one without sources allows none."""
    found: dict[str, frozenset[str]] = {}
    for part in text.lower().split(";"):
        name, *sources = part.split() or [""]
        if name in DIRECTIVES:
            found.setdefault(name, frozenset(sources or ([NONE] if name.endswith("-src") else [])))
    return found


def _policy(csp: dict[str, frozenset[str]], *, report_only: bool) -> Result:
    if not csp:
        found = "only reported, not enforced" if report_only else "there is none"
        return Result("content-security-policy", -25, found, "say one", "csp")
    points, found, better = _policy_points(csp)
    return Result("content-security-policy", points, found, better, "csp" if better else "")


def _policy_points(csp: dict[str, frozenset[str]]) -> tuple[int, str, str]:
    default = csp.get("default-src", frozenset("*"))
    script, style = (_lifted(csp.get(name, default)) for name in ("script-src", "style-src"))
    objects = csp.get("object-src", default)
    passive = [source for name in ("img-src", "media-src") for source in csp.get(name, csp.get("default-src", ()))]
    rest = (sources for name, sources in csp.items() if name not in ("script-src", "img-src", "media-src"))
    active = [*script, *(source for sources in rest for source in sources)]
    if STRICT_DYNAMIC in script and not _has_nonce(script):
        return -25, "'strict-dynamic' without a nonce or a hash", "add 'nonce'"
    if script & (_BROAD | _INLINE) or objects & _BROAD:
        return -20, "scripts may be inline or come from anywhere", "use 'nonce', name hosts, say object-src 'none'"
    if any(source.startswith(("http:", "ftp:")) for source in active):
        return -20, "content may come over plain http", "name https hosts only"
    if UNSAFE_EVAL in script | style:
        return -10, "scripts may make code out of text", "take 'unsafe-eval' away"
    if any(source.startswith(("http:", "ftp:")) for source in passive):
        return -10, "images or media may come over plain http", "name https hosts only"
    if style & (_BROAD | _INLINE):
        return 0, "styles may be inline or come from anywhere", "use 'nonce', or name hosts, in style-src"
    if default == {NONE}:
        return 10, "default-src 'none', and nothing unsafe", ""
    return 5, "nothing unsafe", "begin with default-src 'none', and name what is needed"


def _has_nonce(sources: Iterable[str]) -> bool:
    return any(source.startswith(("'nonce", "'sha256-", "'sha384-", "'sha512-")) for source in sources)


def _lifted(sources: frozenset[str]) -> frozenset[str]:
    """The sources that count where a nonce or a hash makes browsers pass over others."""
    if not _has_nonce(sources):
        return sources
    if STRICT_DYNAMIC in sources:
        ignored = (*_BROAD, SELF, UNSAFE_INLINE)
        return frozenset(source for source in sources if not source.startswith(ignored))
    return sources - {UNSAFE_INLINE}


def _framing(csp: dict[str, frozenset[str]], value: str | None) -> Result:
    test, better = "x-frame-options", "say frame-ancestors in the Content-Security-Policy"
    if "frame-ancestors" in csp:
        return Result(test, 5, "told by frame-ancestors")
    if value is None:
        return Result(test, -20, "any site may frame this one", better, "csp")
    if value.strip().upper() in CHOICES["frame_options"]:
        return Result(test, 0, value, better, "csp")
    return Result(test, -20, f"{value!r} is no value", better, "csp")


def _hsts(value: str | None) -> Result:
    test, option = "strict-transport-security", "hsts"
    if value is None:
        return Result(test, -20, "there is none", "say max-age=63072000; includeSubDomains", option)
    parts = (part.strip().lower() for part in value.split(";"))
    ages = [part.removeprefix("max-age=").strip('"') for part in parts if part.startswith("max-age=")]
    if len(ages) != 1 or not ages[0].isdecimal() or "," in value:
        return Result(test, -20, "it cannot be read", "say max-age=63072000; includeSubDomains", option)
    if int(ages[0]) < SIX_MONTHS:
        return Result(test, -10, "less than six months", "say two years: max-age=63072000", option)
    return Result(test, 0, "six months or more")


def _sniffing(value: str | None) -> Result:
    if value is not None and value.strip().lower() == "nosniff":
        return Result("x-content-type-options", 0, "nosniff")
    return Result("x-content-type-options", -5, "browsers may guess types", "choose a preset", "preset")


def _referrer(value: str | None) -> Result:
    test, better = "referrer-policy", "say strict-origin-when-cross-origin, or less"
    if value is None:
        return Result(test, 0, "there is none", better, "referrer_policy")
    known = [word for part in value.split(",") if (word := part.strip().lower()) in CHOICES["referrer_policy"]]
    if known and known[-1] in _PRIVATE_REFERRERS:
        return Result(test, 5, known[-1])
    return Result(test, -5, known[-1] if known else "it cannot be read", better, "referrer_policy")


def _isolation(name: str, value: str | None) -> Result:
    points, best, kind = _ISOLATION[name]
    option, better = f"{kind}_policy", f"say {best}"
    if value is None:
        return Result(name, 0, "there is none", better, option)
    word = value.partition(";")[0].strip()
    if word not in points:
        return Result(name, -5, f"{word!r} is no value", better, option)
    best_now = points[word] == max(points.values())
    return Result(name, points[word], word, "" if best_now else better, "" if best_now else option)
