"""How limits are told to clients."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_guard.policy.bucket import Charge, Reading, Verdict, decide, retry_after
from asgi_guard.policy.ratelimit_headers import HEADER_NAMES, Style, policy_header, state_headers
from asgi_guard.policy.rates import LEASE, SECOND, Limit, parse_limits

NOW = 1_795_000_000 * SECOND
MINUTE = Limit("user", "", "user", SECOND, 60)
HOUR = Limit("ip", "", "ip", 10 * SECOND, 360)
JOBS = Limit("jobs", "", "user", LEASE, 3, at_once=True)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("60/minute by user", b'"user";q=60;w=60'),
        ("10/second burst 20 by ip", b'"ip";q=20;w=2'),
        ("100/minute by user; 1000/day by user", b'"user";q=100;w=60, "user-2";q=1000;w=86400'),
        ("1000/second burst 1 by ip", b'"ip";q=1;w=1'),
        ("7/second by ip", b'"ip";q=7;w=1'),
        ("7/minute by ip", b'"ip";q=7;w=60'),
        ("9999/second by ip", b'"ip";q=9999;w=1'),
        ("30000/second by ip", b'"ip";q=30000;w=2'),  # a unit takes 34 us, so that 29411 come back in a second
        ("100/second burst 101 by ip", b'"ip";q=101;w=2'),
        ("100/second burst 149 by ip", b'"ip";q=149;w=2'),
        ("60/minute burst 61 by ip", b'"ip";q=61;w=61'),
        ("3 at once by user as jobs", b'"jobs";q=3;qu="concurrent-requests"'),
    ],
)
def test_policy(text: str, value: bytes) -> None:
    """RateLimit-Policy names each limit with its bucket's size and the whole seconds, at least one, that fill it."""
    assert policy_header(parse_limits(text)) == (b"ratelimit-policy", value)


@given(interval=st.integers(10, 86_400 * SECOND), burst=st.integers(1, 100_000))
def test_the_policy_promises_no_more_than_the_limit_gives(interval: int, burst: int) -> None:
    """What comes back in `w` seconds is `q`, to a hundredth, and `w` is not a second longer than that takes."""
    _, value = policy_header([Limit("a", "", "ip", interval, burst)])
    window = int(value.rpartition(b"w=")[2])
    assert interval * burst * 99 <= window * SECOND * 100
    assert (window - 1) * SECOND < interval * burst


@pytest.mark.parametrize(
    ("verdict", "draft", "legacy"),
    [
        (Verdict(True, (Reading(MINUTE, 59, SECOND, 0),)), b'"user";r=59;t=1', (60, 59, 1)),
        (Verdict(True, (Reading(MINUTE, 60, 0, 0),)), b'"user";r=60;t=0', (60, 60, 0)),
        (Verdict(True, (Reading(MINUTE, 0, 60 * SECOND - 1, 0),)), b'"user";r=0;t=60', (60, 0, 60)),
        (
            Verdict(True, (Reading(MINUTE, 59, SECOND, 0), Reading(HOUR, 12, 3480 * SECOND, 0))),
            b'"user";r=59;t=1, "ip";r=12;t=3480',
            (360, 12, 3480),
        ),
        (
            Verdict(True, (Reading(MINUTE, 9, 51 * SECOND, 0), Reading(HOUR, 9, 3510 * SECOND, 0))),
            b'"user";r=9;t=51, "ip";r=9;t=3510',
            (360, 9, 3510),
        ),
        (Verdict(False, (Reading(MINUTE, 0, 60 * SECOND, 1),)), b'"user";r=0;t=1', (60, 0, 1)),
        (
            Verdict(False, (Reading(MINUTE, 59, SECOND, 0), Reading(HOUR, 2, 3580 * SECOND, 20 * SECOND + 1))),
            b'"ip";r=2;t=21',
            (360, 2, 21),
        ),
        (
            Verdict(False, (Reading(JOBS, 1, 0, 0), Reading(HOUR, 3, 3570 * SECOND, 20 * SECOND))),
            b'"ip";r=3;t=20',
            (360, 3, 20),
        ),
        (Verdict(False, (Reading(MINUTE, 58, 2 * SECOND, None),)), b'"user";r=58;t=2', (60, 58, 2)),
        (Verdict(True, (Reading(JOBS, 2, 0, 0),)), b'"jobs";r=2', (3, 2, 0)),
        (Verdict(False, (Reading(JOBS, 0, 0, SECOND),)), b'"jobs";r=0', (3, 0, 1)),
        (
            Verdict(True, (Reading(HOUR, 0, 3600 * SECOND, SECOND, binding=False), Reading(MINUTE, 59, SECOND, 0))),
            b'"user";r=59;t=1',
            (60, 59, 1),
        ),
        (
            Verdict(False, (Reading(HOUR, 0, 0, SECOND, binding=False), Reading(MINUTE, 0, 60 * SECOND, SECOND))),
            b'"user";r=0;t=1',
            (60, 0, 1),
        ),
    ],
    ids=[
        "one",
        "full",
        "rounded up",
        "two",
        "as near",
        "refused",
        "one of two refused",
        "refused with more left",
        "never",
        "at once",
        "too many at once",
        "one in shadow",
        "refused, and one in shadow",
    ],
)
def test_state(verdict: Verdict, draft: bytes, legacy: tuple[int, int, int]) -> None:
    """What is left and the whole seconds until there is more are told of all limits, or of those that refused."""
    assert state_headers(verdict, "draft") == ((b"ratelimit", draft),)
    names = (b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset")
    assert state_headers(verdict, "legacy") == tuple(zip(names, (b"%d" % number for number in legacy), strict=True))
    assert state_headers(verdict, "off") == ()


@pytest.mark.parametrize("style", ["draft", "legacy", "off"])
def test_nothing_is_said_of_no_limits(style: Style) -> None:
    """A request without limits, or with limits in shadow only, gets no header."""
    assert state_headers(Verdict(True), style) == ()
    assert state_headers(Verdict(True, (Reading(MINUTE, 0, 60 * SECOND, SECOND, binding=False),)), style) == ()
    assert state_headers(Verdict(False), style) == ()


limits = st.builds(
    lambda interval, burst: Limit("user", "", "user", interval, burst), st.integers(1, 90 * SECOND), st.integers(1, 50)
)


@given(st.lists(st.tuples(limits, st.integers(-SECOND, 4000 * SECOND)), min_size=1, max_size=4), st.integers(1, 60))
def test_consistent(buckets: list[tuple[Limit, int]], cost: int) -> None:
    """Numbers are whole and not negative, never exceed the policy's, and no `t` of a refusal is after Retry-After."""
    charges = [Charge(limit, "key", cost) for limit, _ in buckets]
    admitted, _, readings = decide(charges, [NOW + ahead for _, ahead in buckets], NOW)
    verdict = Verdict(admitted, readings)
    ((_, line),) = state_headers(verdict, "draft")
    items = re.findall(rb'"user";r=(\d+);t=(\d+)', line)
    assert b", ".join(b'"user";r=%s;t=%s' % item for item in items) == line
    told = [reading for reading in readings if admitted or reading.wait != 0]
    assert len(items) == len(told)
    for (remaining, _), reading in zip(items, told, strict=True):
        assert int(remaining) <= reading.limit.burst
    seconds = retry_after(readings)
    if not admitted and seconds is not None:
        assert max(int(until) for _, until in items) <= seconds
    numbers = [int(value) for _, value in state_headers(verdict, "legacy")]
    assert (b"%d" % numbers[1], b"%d" % numbers[2]) in items
    assert numbers[1] == min(int(remaining) for remaining, _ in items)


@pytest.mark.parametrize("style", ["draft", "legacy", "off"])
def test_exposed_names(style: Style) -> None:
    """Every header that a style sends is among those that CORS has to expose."""
    verdict = Verdict(True, (Reading(MINUTE, 1, 1, 0),))
    sent = {name.decode() for name, _ in state_headers(verdict, style)} | {"retry-after"}
    if style == "draft":
        sent.add(policy_header((MINUTE,))[0].decode())
    assert sent == set(HEADER_NAMES[style])
