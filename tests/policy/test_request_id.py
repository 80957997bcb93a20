"""Request ids and the caller's trace context."""

from __future__ import annotations

from uuid import RFC_4122, UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.policy.request_id import MAX_LENGTH, Trace, accepts, parse_traceparent, uuid4, uuid7

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT_ID = "00f067aa0ba902b7"
GOOD = f"00-{TRACE_ID}-{PARENT_ID}-01".encode()


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


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
@example(0, b"\0" * 10)
@example(2**48 - 1, b"\xff" * 10)
def test_uuid7_layout(milliseconds: int, random: bytes) -> None:
    """A version 7 UUID holds the milliseconds in its first 48 bits, version and variant, and 74 random bits."""
    text = uuid7(milliseconds, random)
    parsed = UUID(text)
    assert text == str(parsed)
    assert (parsed.version, parsed.variant) == (7, RFC_4122)
    assert parsed.int >> 80 == milliseconds
    bits = int.from_bytes(random, "big")
    assert (parsed.int >> 64) & 0xFFF == bits >> 68
    assert parsed.int & (2**62 - 1) == bits & (2**62 - 1)
    assert accepts(text.encode())


def test_uuid7_example() -> None:
    """The UUID of RFC 9562 A.6 comes out of its own time and randomness."""
    random = (0xCC3 << 68 | 0x18C4DC0C0C07398F).to_bytes(10, "big")
    assert uuid7(0x017F22E279B0, random) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


@given(
    st.integers(0, 2**48 - 1),
    st.integers(0, 2**48 - 1),
    st.binary(min_size=10, max_size=10),
    st.binary(min_size=10, max_size=10),
)
@example(255, 256, b"\xff" * 10, b"\0" * 10)
def test_uuid7_sorts_by_time(first: int, second: int, one: bytes, other: bytes) -> None:
    """Ids of different milliseconds sort, as text, as their times do."""
    if first != second:
        assert (uuid7(first, one) < uuid7(second, other)) is (first < second)
    assert uuid7(first, one)[:13] == uuid7(first, other)[:13]


@given(st.binary(min_size=16, max_size=16))
@example(b"\xff" * 16)
def test_uuid4(random: bytes) -> None:
    """A version 4 UUID says so, and keeps the other 122 bits."""
    parsed = UUID(uuid4(random))
    assert (parsed.version, parsed.variant) == (4, RFC_4122)
    kept = ~(0xF << 76 | 0x3 << 62) & (2**128 - 1)
    assert parsed.int & kept == int.from_bytes(random, "big") & kept


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        (GOOD, 1),
        (GOOD[:-2] + b"00", 0),
        (GOOD[:-2] + b"02", 2),
        (GOOD[:-2] + b"03", 3),
        (GOOD[:-2] + b"ff", 3),
        (GOOD[:-2] + b"09", 1),
        (b"cc" + GOOD[2:], 1),
        (b"cc" + GOOD[2:] + b"-what-the-future-will-be-like", 1),
        (b"01" + GOOD[2:] + b"-", 1),
        (b"fe" + GOOD[2:], 1),
    ],
)
def test_traceparent(value: bytes, flags: int) -> None:
    """Version 00 and, by their first four fields, all higher ones are read; only the two known flags are kept."""
    assert parse_traceparent([value]) == Trace(TRACE_ID, PARENT_ID, flags)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [b""],
        [GOOD, GOOD],
        [GOOD, b""],
        [b"ff" + GOOD[2:]],
        [b"0" + GOOD[2:]],
        [b"000" + GOOD[2:]],
        [b".0" + GOOD[2:]],
        [GOOD + b"-"],
        [GOOD + b"-extra"],
        [b"cc" + GOOD[2:] + b".what"],
        [GOOD.upper()],
        [GOOD[:-2] + b"0A"],
        [b"CC" + GOOD[2:]],
        [GOOD[:-3]],
        [GOOD[:-1]],
        [GOOD + b"0"],
        [GOOD[:-2] + b".0"],
        [GOOD.replace(TRACE_ID.encode(), b"0" * 32)],
        [GOOD.replace(PARENT_ID.encode(), b"0" * 16)],
        [GOOD.replace(TRACE_ID.encode(), TRACE_ID[1:].encode())],
        [GOOD.replace(TRACE_ID.encode(), b"." + TRACE_ID[1:].encode())],
        [GOOD.replace(PARENT_ID.encode(), PARENT_ID[1:].encode())],
        [GOOD.replace(PARENT_ID.encode(), b"g" + PARENT_ID[1:].encode())],
        [GOOD.replace(b"-", b"_")],
        [b" " + GOOD],
        [GOOD + b"," + GOOD],
        [b"\xff" * 55],
    ],
)
def test_what_is_no_traceparent(lines: list[bytes]) -> None:
    """None, more than one, a malformed one, version ff, and ids of zeros are no trace."""
    assert parse_traceparent(lines) is None


@given(st.lists(st.one_of(st.binary(max_size=70), st.just(GOOD)), max_size=2))
def test_any_bytes_are_a_trace_or_none(lines: list[bytes]) -> None:
    """Whatever the header's bytes are, nothing is raised, and what is read is hexadecimal."""
    trace = parse_traceparent(lines)
    if trace is not None:
        assert (len(trace.trace_id), len(trace.parent_id)) == (32, 16)
        assert int(trace.trace_id, 16)
        assert int(trace.parent_id, 16)
