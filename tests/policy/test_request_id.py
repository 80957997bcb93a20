"""Request ids."""

from __future__ import annotations

from uuid import RFC_4122, UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.policy.request_id import MAX_LENGTH, TAIL_DIGITS, accepts, uuid4, uuid7, uuid7_tails

digits = st.text("0123456789abcdef", min_size=32, max_size=32)


def of_one(milliseconds: int, random: str) -> str:
    """A UUID version 7 of these digits."""
    (tail,) = uuid7_tails(random[:TAIL_DIGITS].encode())
    return uuid7(milliseconds, tail)


@pytest.mark.parametrize(
    "value",
    [b"a", b"7f3c", b"req_1.2-3", b"A" * MAX_LENGTH, b"-", b"0197a5c2-9e2b-7cc3-98c4-dc0c0c07398f", b"0" * 32],
)
def test_accepts(value: bytes) -> None:
    """An id is 1 to 128 letters, digits, dots, underscores and hyphens."""
    assert accepts(value)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"A" * (MAX_LENGTH + 1),
        b"a b",
        b" a",
        b"a\n",
        b"a\r\nx-evil: 1",
        b"a\0",
        b"a,b",
        b"a/b",
        b"a%20",
        b'a"',
        b"urn:uuid:1",
        b"{a}",
        b"\xe9",
        "\N{FULLWIDTH LATIN SMALL LETTER A}".encode(),
    ],
)
def test_refuses(value: bytes) -> None:
    """Whatever could forge or grow a log line is not accepted."""
    assert not accepts(value)


@given(st.binary(max_size=MAX_LENGTH + 2))
@example(b"a" * 128)
@example(b"\x7f")
def test_accepted_ids_are_plain(value: bytes) -> None:
    """An accepted id is plain ASCII that needs no escape anywhere, and nothing else is accepted."""
    text = value.decode("latin-1")
    plain = all(character.isascii() and (character.isalnum() or character in "._-") for character in text)
    assert accepts(value) is (plain and 1 <= len(value) <= MAX_LENGTH)


@given(st.integers(0, 2**48 - 1), digits)
@example(0, "0" * 32)
@example(2**48 - 1, "f" * 32)
def test_uuid7_layout(milliseconds: int, random: str) -> None:
    """A version 7 UUID holds the milliseconds in its first 48 bits, version and variant, and 74 random bits."""
    text = of_one(milliseconds, random)
    parsed = UUID(text)
    assert text == str(parsed)
    assert (parsed.version, parsed.variant) == (7, RFC_4122)
    assert parsed.int >> 80 == milliseconds
    bits = int(random[:19], 16)
    assert (parsed.int >> 64) & 0xFFF == bits >> 64
    assert parsed.int & (2**62 - 1) == bits & (2**62 - 1)
    assert accepts(text.encode())


def test_uuid7_example() -> None:
    """The UUID of RFC 9562 A.6 comes out of its own time and randomness."""
    assert of_one(0x017F22E279B0, "cc3" + "18c4dc0c0c07398f") == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**48 - 1), digits, digits)
@example(255, 256, "f" * 32, "0" * 32)
def test_uuid7_sorts_by_time(first: int, second: int, one: str, other: str) -> None:
    """Ids of different milliseconds sort, as text, as their times do."""
    if first != second:
        assert (of_one(first, one) < of_one(second, other)) is (first < second)
    assert of_one(first, one)[:13] == of_one(first, other)[:13]


def test_uuid7_tails() -> None:
    """Made together, each is made of digits of its own, and all of them are used."""
    tails = uuid7_tails(b"01" * TAIL_DIGITS)
    assert tails == ["7000-8000-000000000000", "7111-9111-111111111111"]


@given(digits)
@example("f" * 32)
def test_uuid4(random: str) -> None:
    """A version 4 UUID says so, and keeps the other 122 bits."""
    parsed = UUID(uuid4(random))
    assert (parsed.version, parsed.variant) == (4, RFC_4122)
    kept = ~(0xF << 76 | 0x3 << 62) & (2**128 - 1)
    assert parsed.int & kept == int(random, 16) & kept
