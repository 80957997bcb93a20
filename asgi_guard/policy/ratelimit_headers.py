"""How limits are told to clients.

By `RateLimit` and `RateLimit-Policy` as in draft-ietf-httpapi-ratelimit-headers-11, or by the older `X-RateLimit-*`.

`q` and the older `-Limit` are the bucket's size; `w` the seconds in which it fills, rounded up; `r` what is left; `t`
the seconds until there is more: until the bucket is full, or, for a limit that refused, until the request would be
admitted, which is never later than `Retry-After`. A limit on requests at once has neither `w` nor `t`, and
`qu="concurrent-requests"`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeAlias

from asgi_guard.policy.rates import SECOND

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asgi_guard.asgi import Header
    from asgi_guard.policy.bucket import Verdict
    from asgi_guard.policy.rates import Limit

Style: TypeAlias = Literal["draft", "legacy", "off"]

HEADER_NAMES: dict[Style, tuple[str, ...]] = {
    "draft": ("ratelimit", "ratelimit-policy", "retry-after"),
    "legacy": ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "retry-after"),
    "off": ("retry-after",),
}
"""The headers of each style, which CORS has to expose for a page's script to read them."""


def policy_header(limits: Iterable[Limit]) -> Header:
    """`RateLimit-Policy`: what the limits are, the same on every response of a route but the early refusals."""
    return b"ratelimit-policy", ", ".join(map(_policy, limits)).encode()


def _policy(limit: Limit) -> str:
    if limit.at_once:
        return f'"{limit.name}";q={limit.burst};qu="concurrent-requests"'
    return f'"{limit.name}";q={limit.burst};w={_window(limit)}'


def _window(limit: Limit) -> int:
    """The seconds in which a bucket fills, rounded up, so that nobody is promised more than the limit gives.

    Intervals are whole microseconds, rounded up too. The time that adds, up to a hundredth, makes no further second.
    """
    longer = min(limit.burst - 1, limit.capacity // 100)
    return -(-(limit.capacity - longer) // SECOND)


def state_headers(verdict: Verdict, style: Style) -> tuple[Header, ...]:
    """The headers that change with every request; a refusal names only the limits that refused.

    Limits in shadow are nobody's business.
    """
    if style == "draft":
        states = ", ".join(_allowing(verdict) if verdict.resets else _states(verdict))
        return ((b"ratelimit", states.encode()),) if states else ()
    told = verdict.readings if verdict.admitted else verdict.refusing
    readings = [reading for reading in told if reading.binding]
    if not readings or style == "off":
        return ()
    # The older headers have room for one limit: the one nearest to refusing.
    tightest = min(readings, key=lambda reading: (reading.remaining, -reading.reset))
    return (
        (b"x-ratelimit-limit", b"%d" % tightest.limit.burst),
        (b"x-ratelimit-remaining", b"%d" % tightest.remaining),
        (b"x-ratelimit-reset", b"%d" % -(-(tightest.wait or tightest.reset) // SECOND)),
    )


def _allowing(verdict: Verdict) -> list[str]:
    """What `_states` says of rates that all allowed the request, without a reading for each."""
    states, charges = [], verdict.charges
    for index, reset in enumerate(verdict.resets):
        charge = charges[index]
        if charge.binding:
            limit = charge.limit
            states.append(_state(limit.name, (limit.capacity - reset) // limit.interval, -(-reset // SECOND)))
    return states


@lru_cache(maxsize=4096)
def _state(name: str, remaining: int, seconds: int) -> str:
    """The state of one bucket in words. Most buckets are about as full as many others, and as before."""
    return f'"{name}";r={remaining};t={seconds}'


def _states(verdict: Verdict) -> list[str]:
    states = []
    for limit, remaining, reset, wait, binding in verdict.readings if verdict.admitted else verdict.refusing:
        if binding:
            state = f'"{limit.name}";r={remaining}'
            # When a request that is under way will end is not known.
            states.append(state if limit.at_once else f"{state};t={-(-(wait or reset) // SECOND)}")
    return states
