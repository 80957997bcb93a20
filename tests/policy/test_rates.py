"""The grammar of rates."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.policy.rates import KEY_KINDS, MAX_SPAN, SECOND, Limit, parse_limits, slug


@pytest.mark.parametrize(
    ("text", "key", "interval", "burst"),
    [
        ("10/second by ip", "ip", 100_000, 10),
        ("10/second burst 20 by anonymous", "anonymous", 100_000, 20),
        ("60/second burst 120 by user", "user", 16_667, 120),
        ("1/minute by api-key", "api-key", 60 * SECOND, 1),
        ("5/15m by ip", "ip", 180 * SECOND, 5),
        ("3/second by user", "user", 333_334, 3),
        ("7/30s by user", "user", 4_285_715, 7),
        ("2/hour by user", "user", 1_800 * SECOND, 2),
        ("24/day by user", "user", 3_600 * SECOND, 24),
        ("1/2h burst 3 by ip", "ip", 7_200 * SECOND, 3),
        ("1/366d by ip", "ip", MAX_SPAN, 1),
        ("100000/second by ip", "ip", 10, 100_000),
        ("  10 / second   burst  20   by   ip  ", "ip", 100_000, 20),
    ],
)
def test_parse(text: str, key: str, interval: int, burst: int) -> None:
    """A rate is an interval in whole microseconds, rounded up, and a burst, which is the count unless said."""
    assert parse_limits(text) == (Limit(key, text.strip(), key, interval, burst),)


@pytest.mark.parametrize("text", ["", " ", ";", " ; ;"])
def test_nothing_is_no_limit(text: str) -> None:
    """An empty text is no limit."""
    assert parse_limits(text) == ()


def test_several_have_names_of_their_own() -> None:
    """Limits of one key are numbered from the second on, after the prefix."""
    text = "1/second by user; 2/minute by user;3/hour by ip; 4/day by user;"
    assert [limit.name for limit in parse_limits(text)] == ["user", "user-2", "ip", "user-3"]
    assert [limit.name for limit in parse_limits(text, "login-")][:2] == ["login-user", "login-user-2"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("10/second", "is not a limit"),
        ("10 by ip", "is not a limit"),
        ("ten/second by ip", "is not a limit"),
        ("-1/second by ip", "is not a limit"),
        ("1.5/second by ip", "is not a limit"),
        ("10/fortnight by ip", "is not a limit"),
        ("10/15 by ip", "is not a limit"),
        ("10/15w by ip", "is not a limit"),
        ("10/second burst by ip", "is not a limit"),
        ("10/second by ip, 5/second by user", "there is no key 'ip,'"),
        ("1\N{ARABIC-INDIC DIGIT FOUR}/second by ip", "is not a limit"),
        ("9999999999/second by ip", "is not a limit"),
        ("10/second by IP", "there is no key 'IP'"),
        ("10/second by path", "there is no key 'path'; it is one of ip, anonymous, user, api-key, route, header:NAME"),
        ("0/second by ip", "at least 1"),
        ("1/0s by ip", "at least 1"),
        ("1/second burst 0 by ip", "at least 1"),
        ("100001/second by ip", "more than 100000 a second"),
        ("1/367d by ip", "more than a year"),
        ("1/day burst 367 by ip", "more than a year"),
        ("1/second by ip; 2/never by ip", "'2/never by ip' is not a limit"),
    ],
)
def test_malformed(text: str, says: str) -> None:
    """A malformed rate is an error that quotes it and says what was expected."""
    with pytest.raises(ValueError, match=re.escape(says)):
        parse_limits(text)


@given(
    st.integers(1, 10**6),
    st.one_of(
        st.sampled_from([("second", 1), ("minute", 60), ("hour", 3600), ("day", 86400)]),
        st.builds(
            lambda many, unit: (f"{many}{unit[0]}", many * unit[1]),
            st.integers(1, 400),
            st.sampled_from([("s", 1), ("m", 60), ("h", 3600), ("d", 86400)]),
        ),
    ),
    st.one_of(st.none(), st.integers(1, 10**6)),
    st.sampled_from(KEY_KINDS),
)
@example(99_999, ("second", 1), None, "user")
def test_never_faster_than_asked(count: int, period: tuple[str, int], burst: int | None, key: str) -> None:
    """What is parsed never gives back more than was asked for, and less than a microsecond a unit late."""
    word, seconds = period
    said = "" if burst is None else f" burst {burst}"
    try:
        (limit,) = parse_limits(f"{count}/{word}{said} by {key}")
    except ValueError:
        assert count > 100_000 * seconds or -(-seconds * SECOND // count) * (burst or count) > MAX_SPAN
        return
    assert 0 <= limit.interval * count - seconds * SECOND < count
    assert limit.burst == (burst or count)
    assert limit.key == limit.name == key
    assert limit.capacity == limit.interval * limit.burst <= MAX_SPAN


@given(st.text(max_size=60))
@example("1/second by " + "a" * 10_000)
def test_any_text_is_limits_or_a_value_error(text: str) -> None:
    """Whatever is written is limits, or a ValueError."""
    with contextlib.suppress(ValueError):
        assert len(parse_limits(text)) <= text.count(";") + 1


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/", "root"),
        ("/*", "root"),
        ("/payments/*", "payments"),
        ("/users/*/keys", "users-keys"),
        ("/API/v1.0/Über", "api-v1-0-ber"),
        ("/" + "x" * 39 + "/y", "x" * 39),
        ("/" + "x" * 60, "x" * 40),
    ],
)
def test_slug(path: str, name: str) -> None:
    """A path's short name holds lower-case letters, digits and single hyphens, at most 40."""
    assert slug(path) == name
