"""The grammar of limits: `COUNT/PERIOD [burst N] by KEY`, or `N at once by KEY`, several with `;`.

    10/second burst 20 by anonymous; 60/second burst 120 by user; 5/15m by ip; 20 at once by user

PERIOD is `second`, `minute`, `hour` or `day`, or `s`, `m`, `h` or `d` for short, with a number before it if there are
several, as in `15m` or `15 minutes`. `burst` is how many units may be taken at once, COUNT unless said. KEY is what is
counted:

- `ip`: the address of any client;
- `anonymous`: the address of a client without a verified identity;
- `user`: the verified subject, of whatever kind, unless a limit `by api-key` stands beside it for those with a key;
- `api-key`: the name of the API key;
- `route`: all clients of a row of the route table together, and of the requests that no row names;
- `header:NAME`: the value of a request header, or the address where it is not sent. Whoever can write the header can
  write another value: put a limit by `ip` or `user` beside it;
- any other word: what the function of that name gives for the request, in Python only.

After KEY may stand, in any order:

- `as NAME`: its name in headers, logs and the store;
- `shadow`: it refuses nothing, and is only counted and logged;
- `enforce N%`: it refuses for that share of its clients, always the same ones, and is in shadow for the others (not
  `by route`, where all are one);
- `on-failure allow|deny|local`: what its requests meet when the store does not answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal, TypeAlias, cast, get_args

from asgi_guard.errors import meant

if TYPE_CHECKING:
    from collections.abc import Collection

OnStoreFailure: TypeAlias = Literal["allow", "deny", "local"]

KEY_KINDS = ("ip", "anonymous", "user", "api-key", "route")
"""What is counted, `header:NAME` and functions aside."""

SECOND = 1_000_000
"""Microseconds in a second: the unit of all the arithmetic on limits."""
LEASE = 60 * SECOND
"""Microseconds for which a request under way counts, unless it is renewed: how long the loss of a worker is felt."""
MAX_SPAN = 366 * 86400 * SECOND
"""The longest time a bucket may take to fill: beyond it, integers of microseconds would not stay exact in Lua."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_RATE = (
    r"(?P<count>\d{1,9})\s*/\s*(?P<many>\d{1,6})?\s*(?P<unit>seconds?|minutes?|hours?|days?|[smhd])"
    r"(?:\s+burst\s+(?P<burst>\d{1,9}))?"
)
_LIMIT = re.compile(
    rf"(?:{_RATE}|(?P<at_once>\d{{1,9}})\s+at\s+once)\s+by\s+(?P<key>\S+)(?P<options>(?:\s+\S+)*)", re.ASCII
)
_BARE_RATE = re.compile(_RATE, re.ASCII)
_HEADER = re.compile(r"header:[a-z0-9!#$&'*+.^_`|~-]{1,64}")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_PERCENT = re.compile(r"(\d{1,3})%", re.ASCII)
_PERIODS = tuple(unit + ending for unit in ("second", "minute", "hour", "day") for ending in ("", "s"))
_PERIOD = re.compile(r"(/\s*\d*\s*)([a-z]+)")
_TOO_LARGE = re.compile(r"\d{10,}", re.ASCII)
_EXPECTED = (
    "expected COUNT/PERIOD [burst N] by KEY, as in '60/second burst 120 by user' or, in s, m, h and d, '5/15m by ip'; "
    "or 'N at once by KEY'"
)
_OPTIONS = "after the key may stand 'as NAME', 'shadow', 'enforce N%' and 'on-failure allow|deny|local'"


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit: a token bucket, or a number of requests at once.

    Attributes:
        name: its id in the `RateLimit` headers and in logs.
        text: the limit as it was written.
        key: what is counted.
        interval: microseconds in which one unit comes back, rounded up to a whole one, so never more than was asked;
            for requests at once, how long each counts unless it is renewed.
        burst: units that a full bucket holds; how many requests there may be at once.
        at_once: whether it counts requests under way.
        enforced: the percentage of clients whom it refuses; it is in shadow for the others.
        on_failure: what its requests meet when the store does not answer; None leaves it to the default.
        capacity: microseconds in which an empty bucket becomes full.
        bucket: what its buckets are called in the store, behind whom they count. It holds the rate and the burst, since
            a state means nothing by another rate: two limits of one name, of workers before and after a change or of
            services that share a store, would fill or empty each other's buckets.
    """

    name: str
    text: str
    key: str
    interval: int
    burst: int
    at_once: bool = False
    enforced: int = 100
    on_failure: OnStoreFailure | None = None
    capacity: int = field(init=False)
    bucket: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "capacity", self.interval * self.burst)
        object.__setattr__(self, "bucket", f"{self.name}:{self.interval}x{self.burst}")

    def covers(self, other: Limit) -> bool:
        """Whether this limit refuses everything that the other one does, when both are asked of every request."""
        alike = (self.key, self.at_once, self.on_failure) == (other.key, other.at_once, other.on_failure)
        stricter = self.burst <= other.burst and self.interval >= other.interval
        return alike and stricter and self.enforced == 100


def parse_limits(text: str, prefix: str = "", functions: Collection[str] = ()) -> tuple[Limit, ...]:
    """Parse limits. An empty text is no limit.

    Args:
        text: the limits, in the grammar above.
        prefix: put before the names, to tell the limits of one route from those of another, but for those of `as`.
        functions: the names of functions that a limit may go by.

    Raises:
        ValueError: a limit is malformed; the text names it and says what was expected.
    """
    limits: list[Limit] = []
    names: set[str] = set()
    for part in (part.strip() for part in text.split(";")):
        if not part:
            continue
        limit = _parse(part, functions)
        base = limit.name or re.sub(r"[^a-z0-9]+", "-", limit.key).strip("-") + ("-at-once" if limit.at_once else "")
        name, number = base, 1
        while name in names:
            if limit.name:
                raise ValueError(f"{part!r}: there is another limit of the name {name!r}")
            number += 1
            name = f"{base}-{number}"
        names.add(name)
        limits.append(replace(limit, name=name if limit.name else prefix + name))
    return tuple(limits)


def _parse(text: str, functions: Collection[str]) -> Limit:
    match = _LIMIT.fullmatch(text)
    if match is None and _BARE_RATE.fullmatch(text):
        raise ValueError(f"{text!r} does not say by what it counts: write '{text} by ip', or by another of its keys")
    if match is None:
        raise ValueError(_nearly(text, _LIMIT) or f"{text!r} is not a limit: {_EXPECTED}")
    key = match["key"].lower() if match["key"].lower().startswith("header:") else match["key"]
    if key.endswith(","):
        raise ValueError(f"{text!r} is parted by a comma: limits are parted by ';'")
    if key not in KEY_KINDS and key not in functions and not _HEADER.fullmatch(key):
        known = ", ".join([*KEY_KINDS, "header:NAME", *functions])
        function = "a function that Guard is given (which commands look at with --app)"
        hint = meant(key.lower(), [*KEY_KINDS, *functions]) or f"; it is one of {known}, or {function}"
        raise ValueError(f"{text!r}: there is no key {key!r}{hint}")
    try:
        interval, burst = _rate(match) if match["at_once"] is None else _at_once(match)
        name, enforced, on_failure = _options(match["options"].split())
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None
    if key == "route" and 0 < enforced < 100:
        why = "all clients of a route share its bucket, so it is enforced for all of them or for none"
        raise ValueError(f"{text!r}: {why}")
    return Limit(name, text, key, interval, burst, match["at_once"] is not None, enforced, on_failure)


def _nearly(text: str, grammar: re.Pattern[str]) -> str:
    """What is wrong with a text that would be in the grammar but for one thing; empty where that cannot be told."""
    if grammar.fullmatch(_TOO_LARGE.sub("1", text)):
        return f"{text!r}: a number is too large, 999999999 is the most"
    lower = text.lower()
    period = _PERIOD.search(lower)
    close = get_close_matches(period[2], _PERIODS, n=1) if period else []
    for better in (lower, _PERIOD.sub(rf"\1{close[0]}", lower, count=1) if close else lower):
        if grammar.fullmatch(better):
            return f"{text!r} is not a {'rate' if grammar is _BARE_RATE else 'limit'}: did you mean {better!r}?"
    return ""


def _rate(match: re.Match[str]) -> tuple[int, int]:
    """The interval of one unit, and the burst."""
    count = int(match["count"])
    burst = int(match["burst"] or count)
    seconds = int(match["many"] or 1) * _UNITS[match["unit"][0]]
    if not count or not burst or not seconds:
        raise ValueError("the count, the period and the burst are at least 1")
    if count > seconds * 100_000:
        raise ValueError("this is more than 100000 a second, which a microsecond clock cannot count")
    interval = -(-seconds * SECOND // count)
    if interval * burst > MAX_SPAN:
        raise ValueError("the burst takes more than a year to come back")
    return interval, burst


def _at_once(match: re.Match[str]) -> tuple[int, int]:
    """How long a request counts, and how many there may be."""
    burst = int(match["at_once"])
    if not burst:
        raise ValueError("the count is at least 1")
    return LEASE, burst


def _options(words: list[str]) -> tuple[str, int, OnStoreFailure | None]:
    """What stands after the key: the name, the percentage of enforcement, and what holds without the store."""
    name, enforced, on_failure = "", 100, None
    seen: set[str] = set()
    rest = iter(words)
    for word in rest:
        value = "" if word == "shadow" else next(rest, "")
        percent = _PERCENT.fullmatch(value)
        if word == "as" and _NAME.fullmatch(value):
            name = value
        elif word == "shadow":
            enforced = 0
        elif word == "enforce" and percent is not None and int(percent[1]) <= 100:
            enforced = int(percent[1])
        elif word == "on-failure" and value in get_args(OnStoreFailure):
            on_failure = cast("OnStoreFailure", value)
        else:
            hint = "'burst' stands before 'by'" if word == "burst" else _OPTIONS
            raise ValueError(f"{f'{word} {value}'.strip()!r} is no option of a limit: {hint}")
        what = "enforce" if word == "shadow" else word
        if what in seen:
            raise ValueError(f"{what!r} is said twice")
        seen.add(what)
    return name, enforced, on_failure


def holds_limits(text: str | None) -> bool:
    """Whether there is a limit in a text of limits; None is no text. What parts them may stand there alone."""
    return any(part.strip() for part in (text or "").split(";"))


def parse_rate(text: str, name: str) -> Limit:
    """Parse a rate that needs no key, as in `20/second burst 40`.

    Raises:
        ValueError: it is malformed; the text says what was expected.
    """
    match = _BARE_RATE.fullmatch(text.strip())
    if match is None:
        expected = f"{text!r} is not a rate: expected COUNT/PERIOD [burst N], as in '20/second burst 40'"
        raise ValueError(_nearly(text.strip(), _BARE_RATE) or expected)
    try:
        return Limit(name, text, "connection", *_rate(match))
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None


def slug(path: str) -> str:
    """A short name of a path for the names of its limits: `/payments/*` is `payments`."""
    return re.sub(r"[^a-z0-9]+", "-", path.lower()).strip("-")[:40].rstrip("-") or "root"
