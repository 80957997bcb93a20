"""Request ids: which are accepted from outside, and how new ones are made."""

from __future__ import annotations

MAX_LENGTH = 128

_ID = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
# The two bits that RFC 9562 (4.1) fixes, in front of the two random ones of the same digit.
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
_VARIANTS = bytes.maketrans(bytes(map(ord, _VARIANT)), "".join(_VARIANT.values()).encode())
_TAIL = b"7???-????-???????????? "
_RANDOM = [place for place, character in enumerate(_TAIL) if character == ord("?")]
_VARIANT_PLACE = _RANDOM[3]
TAIL_DIGITS = len(_RANDOM)
"""Random hexadecimal digits of one UUID version 7."""


def accepts(value: bytes) -> bool:
    """Tell whether an incoming request id may be used: 1 to 128 characters of `[A-Za-z0-9._-]`.

    Anything else could forge log lines or grow them; such an id is replaced, without an error and without a log line.
    """
    return 0 < len(value) <= MAX_LENGTH and not value.translate(None, _ID)


def uuid7(milliseconds: int, tail: str) -> str:
    """Make a UUID version 7 (RFC 9562 5.7): 48 bits of time, then 74 of randomness, so that ids sort by time.

    Args:
        milliseconds: since the Unix epoch.
        tail: one of `uuid7_tails`.
    """
    return f"{(milliseconds & 0xFFFF_FFFF_FFFF).to_bytes(6, 'big').hex('-', -4)}-{tail}"


def uuid7_tails(digits: bytes) -> list[str]:
    """Make what stands behind the time of many UUIDs, column by column: a tenth of what each takes by itself.

    Args:
        digits: 19 random hexadecimal digits for each; of the fourth, two bits count.
    """
    count = len(digits) // TAIL_DIGITS
    rows = bytearray(_TAIL * count)
    for index, place in enumerate(_RANDOM):
        rows[place :: len(_TAIL)] = digits[index * count : (index + 1) * count]
    rows[_VARIANT_PLACE :: len(_TAIL)] = rows[_VARIANT_PLACE :: len(_TAIL)].translate(_VARIANTS)
    return rows.decode().split()


def uuid4(digits: str) -> str:
    """Make a UUID version 4 (RFC 9562 5.4) of 32 random hexadecimal digits."""
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:32]}"
