"""W3C Trace Context: the caller's `traceparent` and `tracestate`, as they are read and as they are handed on.

The guard records no spans, so it hands the caller's context on as it came: what is called next is then a child of a
span that exists. An app that records spans itself does this itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

TRACE_HEADERS = ("traceparent", "tracestate")
"""The headers of one context, which belong together."""
MAX_MEMBERS = 32
"""The members of a `tracestate` (3.3.1.1)."""
MAX_STATE = MAX_MEMBERS * 514
"""Bytes of the longest `tracestate` that is looked at: its members at their longest, with the commas."""

_LOWER_HEX = frozenset(b"0123456789abcdef")
# A key of level 2: level 1 knew an `@` in one place only. A value: printable ASCII without `,` and `=`, no space last.
_MEMBER = re.compile(rb"[a-z0-9][a-z0-9_*/@-]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace context.

    Attributes:
        trace_id: 32 lower-case hexadecimal digits.
        parent_id: 16 of them: the caller's span.
        flags: bit 0 sampled, bit 1 random; other bits are not kept.
        state: what tracing systems want to be handed on (`tracestate`); empty for nothing.
    """

    trace_id: str
    parent_id: str
    flags: int
    state: str = ""

    @property
    def sampled(self) -> bool:
        """Whether the caller records this trace."""
        return bool(self.flags & 1)

    def headers(self) -> dict[str, str]:
        """The headers that hand this context on."""
        found = {"traceparent": f"00-{self.trace_id}-{self.parent_id}-{self.flags:02x}"}
        if self.state:
            found["tracestate"] = self.state
        return found


def parse_trace(parents: Sequence[bytes], states: Sequence[bytes] = ()) -> Trace | None:
    """Parse the lines of `traceparent` and `tracestate`.

    None where there is no `traceparent`, more than one, or a malformed one; `tracestate` then counts for nothing. A
    malformed `tracestate` is dropped, and the trace stays (3.3.1).

    Version `ff` is invalid, version `00` has exactly four fields, a higher version is read by its first four, and ids
    of only zeros are invalid. Space at the ends is none of a header's value, wherever a server leaves it there.
    """
    if len(parents) != 1:
        return None
    fields = parents[0].strip(b" \t").split(b"-", 4)
    if [len(field) for field in fields[:4]] != [2, 32, 16, 2]:
        return None
    version, trace_id, parent_id, flags = fields[:4]
    if not _LOWER_HEX.issuperset(version + trace_id + parent_id + flags):
        return None
    if (
        version == b"ff"
        or (version == b"00" and len(fields) != 4)
        or not trace_id.strip(b"0")
        or not parent_id.strip(b"0")
    ):
        return None
    return Trace(trace_id.decode(), parent_id.decode(), int(flags, 16) & 0b11, parse_tracestate(states))


def parse_tracestate(lines: Sequence[bytes]) -> str:
    """Parse the lines of `tracestate`: its members in order, or nothing if one is malformed or there are over 32.

    Several lines are one list, empty members are passed over, and a key may come twice: whose it is has to know.
    """
    if sum(map(len, lines)) > MAX_STATE:
        return ""
    members = [member for line in lines for each in line.split(b",") if (member := each.strip(b" \t"))]
    if len(members) > MAX_MEMBERS or not all(map(_MEMBER.fullmatch, members)):
        return ""
    return b",".join(members).decode()
