"""Request ids: which are accepted from outside, and how new ones are made."""

from __future__ import annotations

MAX_LENGTH = 128

_ID = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
# The two bits that RFC 9562 (4.1) fixes, in front of the two random ones of the same digit.
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def accepts(value: bytes) -> bool:
    """Tell whether an incoming request id may be used: 1 to 128 characters of `[A-Za-z0-9._-]`.

    Anything else could forge log lines or grow them; such an id is replaced, without an error and without a log line.
    """
    return 0 < len(value) <= MAX_LENGTH and not value.translate(None, _ID)


def uuid7(milliseconds: int, digits: str) -> str:
    """Make a UUID version 7 (RFC 9562 5.7): 48 bits of time, then 74 of randomness, so that ids sort by time.

    Args:
        milliseconds: since the Unix epoch.
        digits: at least 19 random hexadecimal digits; of the fourth, two bits count.
    """
    time = f"{milliseconds & 0xFFFF_FFFF_FFFF:012x}"
    return f"{time[:8]}-{time[8:]}-7{digits[:3]}-{_VARIANT[digits[3]]}{digits[4:7]}-{digits[7:19]}"


def uuid4(digits: str) -> str:
    """Make a UUID version 4 (RFC 9562 5.4) of 32 random hexadecimal digits."""
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:32]}"
