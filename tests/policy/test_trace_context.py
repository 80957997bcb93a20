"""The caller's trace context."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_guard.policy.trace_context import Trace, parse_trace, parse_tracestate

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT_ID = "00f067aa0ba902b7"
GOOD = f"00-{TRACE_ID}-{PARENT_ID}-01".encode()


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
        (b" " + GOOD, 1),
        (b"\t " + GOOD + b"\t ", 1),
    ],
)
def test_traceparent(value: bytes, flags: int) -> None:
    """Version 00 and, by their first four fields, all higher ones are read; only the two known flags are kept."""
    assert parse_trace([value]) == Trace(TRACE_ID, PARENT_ID, flags)


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
        [b"\n" + GOOD],
        [GOOD + b"\x0b"],
        [GOOD + b"," + GOOD],
        [b"\xff" * 55],
    ],
)
def test_what_is_no_traceparent(lines: list[bytes]) -> None:
    """None, more than one, a malformed one, version ff, and ids of zeros are no trace."""
    assert parse_trace(lines) is None


def test_a_long_traceparent_costs_no_more_than_its_length() -> None:
    """However many fields whatever a client sends has, no more than five are looked at."""
    long = b"-" * 1_000_000
    tracemalloc.start()
    assert parse_trace([long]) is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * len(long)


@given(st.lists(st.one_of(st.binary(max_size=70), st.just(GOOD)), max_size=2))
def test_any_bytes_are_a_trace_or_none(lines: list[bytes]) -> None:
    """Whatever the header's bytes are, nothing is raised, and what is read is hexadecimal."""
    trace = parse_trace(lines)
    if trace is not None:
        assert (len(trace.trace_id), len(trace.parent_id)) == (32, 16)
        assert int(trace.trace_id, 16)
        assert int(trace.parent_id, 16)


@pytest.mark.parametrize(
    ("lines", "state"),
    [
        ([], ""),
        ([b""], ""),
        ([b"a=1"], "a=1"),
        ([b"a=1,b=2"], "a=1,b=2"),
        ([b"a=1", b"b=2"], "a=1,b=2"),
        ([b" a=1 ,\tb=2\t"], "a=1,b=2"),
        ([b",a=1,,", b"", b" "], "a=1"),
        ([b"foo=1,foo=2"], "foo=1,foo=2"),
        ([b"foo@=1,bar=2"], "foo@=1,bar=2"),
        ([b"foo@@bar=1"], "foo@@bar=1"),
        ([b"0a_-*/@z=1"], "0a_-*/@z=1"),
        ([b"a=b c"], "a=b c"),
        ([b"a= b"], "a= b"),
        ([b"a=!~;:"], "a=!~;:"),
        ([b"k" * 256 + b"=" + b"v" * 256], "k" * 256 + "=" + "v" * 256),
        ([b",".join(b"k%d=1" % index for index in range(32))], ",".join(f"k{index}=1" for index in range(32))),
    ],
)
def test_tracestate(lines: list[bytes], state: str) -> None:
    """Members are kept in order, over several lines and with the same key twice."""
    assert parse_tracestate(lines) == state
    assert parse_trace([GOOD], lines) == Trace(TRACE_ID, PARENT_ID, 1, state)


@pytest.mark.parametrize(
    "line",
    [
        b"a", b"=1", b"a=", b"A=1", b"a b=1", b"@a=1", b"-a=1", b"a=1=2", b"a=\xff", b"a=1\n", b"a=\x7f", b"\xc3\xa4=1",
        b"k" * 257 + b"=1", b"a=" + b"v" * 257, b",".join(b"k%d=1" % index for index in range(33)),
    ],
)  # fmt: skip
def test_what_is_no_tracestate(line: bytes) -> None:
    """A malformed member, or one too many, drops the whole state and leaves the trace."""
    assert parse_tracestate([line, b"good=1"]) == ""
    assert parse_trace([GOOD], [line]) == Trace(TRACE_ID, PARENT_ID, 1)


def test_the_longest_state() -> None:
    """As many members as there may be, each as long as it may be, are kept; a state that is longer still is dropped."""
    member = b"k" * 256 + b"=" + b"v" * 256
    assert parse_tracestate([b",".join([member] * 32)]) == b",".join([member] * 32).decode()
    longest = 32 * 514
    for lines in ([b"a=1".ljust(longest)], [b"a=1", b" " * (longest - 3)]):
        assert parse_tracestate(lines) == "a=1"
        assert parse_tracestate([*lines, b" "]) == ""


def test_state_without_parent() -> None:
    """Without a valid parent the state counts for nothing."""
    assert parse_trace([], [b"a=1"]) is None
    assert parse_trace([GOOD, GOOD], [b"a=1"]) is None


@given(st.lists(st.binary(max_size=40), max_size=3))
def test_any_state_can_be_handed_on(lines: list[bytes]) -> None:
    """Whatever the bytes are, what is read of them is plain ASCII, and reads the same again."""
    state = parse_tracestate(lines)
    assert state.isascii()
    assert state.isprintable()
    assert parse_tracestate([state.encode()]) == state


def digits(count: int) -> st.SearchStrategy[str]:
    """That many hexadecimal digits, not all of them zero."""
    return st.text("0123456789abcdef", min_size=count, max_size=count).filter(lambda text: set(text) != {"0"})


@given(digits(32), digits(16), st.integers(0, 3))
def test_what_is_handed_on_is_read_as_it_was(trace_id: str, parent_id: str, flags: int) -> None:
    """The headers of a trace are a valid context, of the same trace, with the same flags."""
    trace = Trace(trace_id, parent_id, flags)
    headers = trace.headers()
    assert list(headers) == ["traceparent"]
    assert parse_trace([headers["traceparent"].encode()]) == trace


@pytest.mark.parametrize(("flags", "sampled"), [(0, False), (1, True), (2, False), (3, True)])
def test_whether_the_caller_records(flags: int, sampled: bool) -> None:
    """The lowest flag alone says whether the trace is recorded."""
    assert Trace(TRACE_ID, PARENT_ID, flags).sampled is sampled


def test_headers() -> None:
    """What came is handed on: the ids, the flags and the state."""
    trace = parse_trace([GOOD], [b"a=1 , b=2"])
    assert trace is not None
    assert trace.sampled
    assert trace.headers() == {"traceparent": GOOD.decode(), "tracestate": "a=1,b=2"}
