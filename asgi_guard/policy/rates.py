"""The grammar of rates: `COUNT/PERIOD [burst N] by KEY`, several with `;`.

    10/second burst 20 by anonymous; 60/second burst 120 by user; 5/15m by ip

PERIOD is `second`, `minute`, `hour`, `day`, or a number with `s`, `m`, `h` or `d`. `burst` is how many units may be
taken at once, COUNT unless said. KEY is what is counted:

- `ip`: the address of any client;
- `anonymous`: the address of a client without a verified identity;
- `user`: the verified subject, of whatever kind, unless a limit `by api-key` stands beside it for those with a key;
- `api-key`: the name of the API key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, get_args

KeyKind: TypeAlias = Literal["ip", "anonymous", "user", "api-key"]
KEY_KINDS: tuple[KeyKind, ...] = get_args(KeyKind)

SECOND = 1_000_000
"""Microseconds in a second: the unit of all the arithmetic on limits."""

_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "s": 1, "m": 60, "h": 3600, "d": 86400}
_RATE = re.compile(
    r"(?P<count>\d{1,9})\s*/\s*(?:(?P<word>second|minute|hour|day)|(?P<many>\d{1,6})(?P<unit>[smhd]))"
    r"(?:\s+burst\s+(?P<burst>\d{1,9}))?\s+by\s+(?P<key>[a-z-]+)",
    re.ASCII,
)
_EXPECTED = "expected COUNT/PERIOD [burst N] by KEY, as in '60/second burst 120 by user'"
MAX_SPAN = 366 * 86400 * SECOND
"""The longest time a bucket may take to fill: beyond it, integers of microseconds would not stay exact in Lua."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit, as a token bucket.

    Attributes:
        name: its id in the `RateLimit` headers, in logs and in the store.
        text: the rate as it was written.
        key: what is counted.
        interval: microseconds in which one unit comes back, rounded up to a whole one, so never more than was asked.
        burst: units that a full bucket holds.
        capacity: microseconds in which an empty bucket becomes full.
    """

    name: str
    text: str
    key: KeyKind
    interval: int
    burst: int
    capacity: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "capacity", self.interval * self.burst)


def parse_limits(text: str, prefix: str = "") -> tuple[Limit, ...]:
    """Parse rates. An empty text is no limit.

    Args:
        text: the rates, in the grammar above.
        prefix: put before the names, to tell the limits of one route from those of another.

    Raises:
        ValueError: a rate is malformed; the text names it and says what was expected.
    """
    limits: list[Limit] = []
    for part in (part.strip() for part in text.split(";")):
        if not part:
            continue
        limit = _parse(part)
        taken = sum(1 for other in limits if other.key == limit.key)
        name = prefix + limit.key + (f"-{taken + 1}" if taken else "")
        limits.append(replace(limit, name=name))
    return tuple(limits)


def _parse(text: str) -> Limit:
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a rate: {_EXPECTED}")
    key = next((kind for kind in KEY_KINDS if kind == match["key"]), None)
    if key is None:
        raise ValueError(f"{text!r}: there is no key {match['key']!r}; it is one of {', '.join(KEY_KINDS)}")
    count = int(match["count"])
    burst = int(match["burst"] or count)
    seconds = _UNITS[match["word"]] if match["word"] else int(match["many"]) * _UNITS[match["unit"]]
    if not count or not burst or not seconds:
        raise ValueError(f"{text!r}: the count, the period and the burst are at least 1")
    if count > seconds * 100_000:
        raise ValueError(f"{text!r} is more than 100000 a second, which a microsecond clock cannot count")
    limit = Limit("", text, key, -(-seconds * SECOND // count), burst)
    if limit.capacity > MAX_SPAN:
        raise ValueError(f"{text!r}: the burst takes more than a year to come back")
    return limit


def slug(path: str) -> str:
    """A short name of a path for the names of its limits: `/payments/*` is `payments`."""
    return re.sub(r"[^a-z0-9]+", "-", path.lower()).strip("-")[:40].rstrip("-") or "root"
