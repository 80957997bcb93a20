"""Request ids and W3C Trace Context: what is accepted from outside, and how new ids are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_LENGTH = 128

_ID = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
_LOWER_HEX = frozenset(b"0123456789abcdef")


def accepts(value: bytes) -> bool:
    """Tell whether an incoming request id may be used: 1 to 128 characters of `[A-Za-z0-9._-]`.

    Anything else could forge log lines or grow them; such an id is replaced, without an error and without a log line.
    """
    return 0 < len(value) <= MAX_LENGTH and not value.translate(None, _ID)


def uuid7(milliseconds: int, random: bytes) -> str:
    """Make a UUID version 7 (RFC 9562 5.7): 48 bits of time, then 74 of randomness, so that ids sort by time.

    Args:
        milliseconds: since the Unix epoch.
        random: 10 random bytes.
    """
    bits = int.from_bytes(random, "big")
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80 | 0x7 << 76 | (bits >> 68) << 64 | 0b10 << 62 | bits & (1 << 62) - 1
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def uuid4(random: bytes) -> str:
    """Make a UUID version 4 (RFC 9562 5.4) of 16 random bytes."""
    return str(UUID(bytes=random, version=4))


@dataclass(frozen=True, slots=True)
class Trace:
    """The caller's trace context (W3C Trace Context, `traceparent`).

    Attributes:
        trace_id: 32 lower-case hexadecimal digits.
        parent_id: 16 of them: the caller's span.
        flags: bit 0 sampled, bit 1 random; other bits are not kept.
    """

    trace_id: str
    parent_id: str
    flags: int


def parse_traceparent(lines: Sequence[bytes]) -> Trace | None:
    """Parse the `traceparent` header's lines; None for none, more than one, or a malformed one.

    Version `ff` is invalid, version `00` has exactly four fields, a higher version is read by its first four, and ids
    of only zeros are invalid.
    """
    if len(lines) != 1:
        return None
    fields = lines[0].split(b"-")
    if len(fields) < 4 or [len(field) for field in fields[:4]] != [2, 32, 16, 2]:
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
    return Trace(trace_id.decode(), parent_id.decode(), int(flags, 16) & 0b11)
