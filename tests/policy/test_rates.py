"""The grammar of rates."""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_guard.policy.rates import (
    KEY_KINDS,
    LEASE,
    MAX_SPAN,
    SECOND,
    Limit,
    holds_limits,
    parse_limits,
    parse_rate,
    slug,
)


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
        ("6/s by ip", "ip", 166_667, 6),
        ("6/m by ip", "ip", 10 * SECOND, 6),
        ("6/2 hours by ip", "ip", 1_200 * SECOND, 6),
        ("5/15minutes burst 7 by ip", "ip", 180 * SECOND, 7),
        ("1/d by ip", "ip", 86_400 * SECOND, 1),
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


@pytest.mark.parametrize("text", ["", " ", ";", " ; ;", "\n", "\t;\r\n", ";\u00a0"])
def test_nothing_is_no_limit(text: str) -> None:
    """An empty text is no limit, and neither is what parts them, with white space of any sort."""
    assert parse_limits(text) == ()
    assert not holds_limits(text)
    assert not holds_limits(None)
    assert holds_limits(f"{text};1/second by ip{text}")


def test_several_have_names_of_their_own() -> None:
    """Limits of one key are numbered from the second on, after the prefix."""
    text = "1/second by user; 2/minute by user;3/hour by ip; 4/day by user;"
    assert [limit.name for limit in parse_limits(text)] == ["user", "user-2", "ip", "user-3"]
    assert [limit.name for limit in parse_limits(text, "login-")][:2] == ["login-user", "login-user-2"]


def test_no_limit_is_lost_behind_an_empty_one() -> None:
    """What parts limits may stand there twice, and in front: those behind it hold all the same."""
    assert [limit.name for limit in parse_limits(";1/second by ip; ;2/minute by user")] == ["ip", "user"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("10/second", "does not say by what it counts: write '10/second by ip', or by another"),
        ("5/15m burst 9", "write '5/15m burst 9 by ip'"),
        ("10 by ip", "is not a limit"),
        ("ten/second by ip", "is not a limit"),
        ("-1/second by ip", "is not a limit"),
        ("1.5/second by ip", "is not a limit"),
        ("10/fortnight by ip", "is not a limit"),
        ("10/15 by ip", "is not a limit"),
        ("10/15w by ip", "is not a limit"),
        ("10/ms by ip", "is not a limit"),
        ("10/sec by ip", "did you mean '10/second by ip'?"),
        ("10/second burst by ip", "is not a limit"),
        ("10/second by ip, 5/second by user", "is parted by a comma: limits are parted by ';'"),
        ("1\N{ARABIC-INDIC DIGIT FOUR}/second by ip", "is not a limit"),
        ("9999999999/second by ip", "a number is too large"),
        ("10/second by IP", "there is no key 'IP'"),
        ("10/second by path", "there is no key 'path'; it is one of ip, anonymous, user, api-key, route, header:NAME"),
        ("0/second by ip", "at least 1"),
        ("0/second burst 5 by ip", "at least 1"),
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


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("20 at once by user", Limit("user-at-once", "", "user", LEASE, 20, at_once=True)),
        ("1  at  once  by  ip", Limit("ip-at-once", "", "ip", LEASE, 1, at_once=True)),
        ("5 at once by route as reports", Limit("reports", "", "route", LEASE, 5, at_once=True)),
        ("5/second by header:X-Tenant", Limit("header-x-tenant", "", "header:x-tenant", 200_000, 5)),
        ("5/second by HEADER:a", Limit("header-a", "", "header:a", 200_000, 5)),
        ("5/second by header:x_y.z", Limit("header-x-y-z", "", "header:x_y.z", 200_000, 5)),
        ("5/second by header:x_", Limit("header-x", "", "header:x_", 200_000, 5)),
        ("5/second by tenant", Limit("tenant", "", "tenant", 200_000, 5)),
        ("2 at once by tenant shadow", Limit("tenant-at-once", "", "tenant", LEASE, 2, at_once=True, enforced=0)),
        ("5/second by ip as a", Limit("a", "", "ip", 200_000, 5)),
        ("5/second by ip as 5-x-5", Limit("5-x-5", "", "ip", 200_000, 5)),
        ("5/second by ip shadow", Limit("ip", "", "ip", 200_000, 5, enforced=0)),
        ("5/second by ip enforce 0%", Limit("ip", "", "ip", 200_000, 5, enforced=0)),
        ("5/second by ip enforce 25%", Limit("ip", "", "ip", 200_000, 5, enforced=25)),
        ("5/second by ip enforce 100%", Limit("ip", "", "ip", 200_000, 5)),
        ("5/second by route enforce 100%", Limit("route", "", "route", 200_000, 5)),
        ("5/second by route enforce 0%", Limit("route", "", "route", 200_000, 5, enforced=0)),
        ("5/second by route shadow", Limit("route", "", "route", 200_000, 5, enforced=0)),
        ("5/second by ip on-failure deny", Limit("ip", "", "ip", 200_000, 5, on_failure="deny")),
        (
            "5/second burst 9 by ip  on-failure  allow enforce 1%  as  a-1",
            Limit("a-1", "", "ip", 200_000, 9, enforced=1, on_failure="allow"),
        ),
    ],
)
def test_keys_and_options(text: str, limit: Limit) -> None:
    """Limits on requests at once, headers and functions, with options in any order, are what they say."""
    assert parse_limits(text, functions=["tenant"]) == (replace(limit, text=text),)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0 at once by ip", "at least 1"),
        ("5 at once", "is not a limit"),
        ("5 at once burst 6 by ip", "is not a limit"),
        ("5/second at once by ip", "is not a limit"),
        ("5 atonce by ip", "is not a limit"),
        ("9999999999 at once by ip", "a number is too large, 999999999 is the most"),
        ("100000000000/second by ip", "a number is too large, 999999999 is the most"),
        ("5/second burst 1000000000 by ip", "a number is too large, 999999999 is the most"),
        ("5/min by ip", "is not a limit: did you mean '5/minute by ip'?"),
        ("5/15 mins by ip shadow", "is not a limit: did you mean '5/15 minutes by ip shadow'?"),
        ("5/secs burst 9 by ip", "is not a limit: did you mean '5/seconds burst 9 by ip'?"),
        ("5/hrs by ip", "is not a limit: did you mean '5/hours by ip'?"),
        ("5/dai by ip", "is not a limit: did you mean '5/day by ip'?"),
        ("5/Second by ip", "is not a limit: did you mean '5/second by ip'?"),
        ("5/SECOND BY USER", "is not a limit: did you mean '5/second by user'?"),
        ("5/week by ip", "is not a limit: expected COUNT/PERIOD"),
        ("5/second by IP", "there is no key 'IP'; did you mean ip?"),
        ("5/second by apikey", "there is no key 'apikey'; did you mean api-key?"),
        ("5/second by tenant", "there is no key 'tenant'; it is one of ip"),
        ("5/second by header:", "there is no key 'header:'"),
        ("5/second by header:a:b", "there is no key 'header:a:b'"),
        ("5/second by header:" + "x" * 65, "there is no key 'header:"),
        ("5/second by header:\N{LATIN SMALL LETTER U WITH DIAERESIS}", "there is no key 'header:"),
        ("5/second by ip burst 9", "'burst 9' is no option of a limit: 'burst' stands before 'by'"),
        ("5/second by ip as", "'as' is no option of a limit: after the key may stand 'as NAME', 'shadow'"),
        ("5/second by ip as Upper", "'as Upper' is no option"),
        ("5/second by ip as -x", "'as -x' is no option"),
        ("5/second by ip as x-", "'as x-' is no option"),
        ("5/second by ip as " + "x" * 65, "is no option"),
        ('5/second by ip as x"y', "is no option"),
        ("5/second by ip enforce", "'enforce' is no option"),
        ("5/second by ip enforce 50", "'enforce 50' is no option"),
        ("5/second by ip enforce 101%", "'enforce 101%' is no option"),
        ("5/second by ip enforce -1%", "'enforce -1%' is no option"),
        ("5/second by ip on-failure maybe", "'on-failure maybe' is no option"),
        ("5/second by route enforce 1%", "'5/second by route enforce 1%': all clients of a route share its bucket"),
        ("2 at once by route enforce 99%", "it is enforced for all of them or for none"),
        ("5/second by ip softly please", "'softly please' is no option"),
        ("5/second by ip softly", "'softly' is no option"),
        ("5/second by ip softly 50%", "'softly 50%' is no option"),
        ("5/second by ip softly deny", "'softly deny' is no option"),
        ("5/second by ip enforce 50%x", "'enforce 50%x' is no option"),
        ("5/second by ip shadow shadow", "'enforce' is said twice"),
        ("5/second by ip shadow enforce 5%", "'enforce' is said twice"),
        ("5/second by ip as a as b", "'as' is said twice"),
        ("5/second by ip on-failure deny on-failure deny", "'on-failure' is said twice"),
        (
            "1/second by ip as a; 2/second by user as a",
            "'2/second by user as a': there is another limit of the name 'a'",
        ),
        ("1/second by user; 2/second by ip as user", "there is another limit of the name 'user'"),
    ],
)
def test_malformed_keys_and_options(text: str, says: str) -> None:
    """A key or an option that there is not, or one that is said twice, is an error that quotes it."""
    with pytest.raises(ValueError, match=re.escape(says)):
        parse_limits(text)


def test_unsaid_names_give_way() -> None:
    """A name that is said is the whole name; one that is not takes the prefix, and gives way to those before it."""
    text = "1/second by ip as user; 2/minute by user; 3 at once by user; 4 at once by user"
    names = [limit.name for limit in parse_limits(text, "p-")]
    assert names == ["user", "p-user-2", "p-user-at-once", "p-user-at-once-2"]


@pytest.mark.parametrize(
    ("one", "other", "covers"),
    [
        ("5/second by ip", "5/second by ip", True),
        ("5/second by ip", "1000/minute by ip", True),
        ("5/second by ip", "100/minute by ip", False),
        ("5/second by ip", "5/second burst 4 by ip", False),
        ("5/second by ip", "5/second by user", False),
        ("5 at once by ip", "6 at once by ip", True),
        ("6 at once by ip", "5 at once by ip", False),
        ("5/second by ip", "9 at once by ip", False),
        ("5/second by ip shadow", "9/second by ip", False),
        ("5/second by ip enforce 99%", "9/second by ip", False),
        ("5/second by ip", "9/second by ip shadow", True),
        ("5/second by ip", "9/second by ip on-failure deny", False),
    ],
)
def test_covers(one: str, other: str, covers: bool) -> None:
    """A limit covers those of the same key that are no stricter in anything, unless it lets some through."""
    ((one_limit,), (other_limit,)) = parse_limits(one), parse_limits(other)
    assert one_limit.covers(other_limit) is covers


@given(
    st.lists(
        st.tuples(st.sampled_from([*KEY_KINDS, "header:x-a", "header:x.a", "header:x-a-2", "f"]), st.booleans()),
        max_size=12,
    )
)
@example([("header:x-a-2", False), ("header:x-a", False), ("header:x.a", False)])
def test_names_are_distinct_and_well_formed(kinds: list[tuple[str, bool]]) -> None:
    """However many limits stand in one text, no two have one name, and every name is fit for headers and keys."""
    text = "; ".join(f"{'3 at once' if at_once else '3/hour'} by {key}" for key, at_once in kinds)
    names = [limit.name for limit in parse_limits(text, functions=["f"])]
    assert len(set(names)) == len(kinds)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in names)


@pytest.mark.parametrize(
    ("text", "interval", "burst"),
    [("20/second burst 40", 50_000, 40), (" 1 / 15m ", 900 * SECOND, 1), ("7/second", 142_858, 7)],
)
def test_rate_without_a_key(text: str, interval: int, burst: int) -> None:
    """A rate that counts one thing only needs no key."""
    assert parse_rate(text, "messages") == Limit("messages", text, "connection", interval, burst)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "'' is not a rate: expected COUNT/PERIOD [burst N]"),
        ("20/second by ip", "is not a rate"),
        ("20 at once", "is not a rate"),
        ("20/second; 3/hour", "is not a rate"),
        ("20/sec", "is not a rate: did you mean '20/second'?"),
        ("10000000000/hour", "a number is too large, 999999999 is the most"),
        ("0/second", "'0/second': the count, the period and the burst are at least 1"),
        ("1/day burst 367", "more than a year"),
    ],
)
def test_malformed_rate(text: str, says: str) -> None:
    """A rate that is none is an error that quotes it and says what was expected."""
    with pytest.raises(ValueError, match=re.escape(says)):
        parse_rate(text, "messages")


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
