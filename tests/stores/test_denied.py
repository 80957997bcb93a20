"""A deny cache before the real server: it refuses nothing that the server, asked at the same moment, would admit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from hypothesis import example, given, settings
from hypothesis import strategies as st

from asgi_guard.policy.bucket import Admission, Charge
from asgi_guard.policy.deny_cache import DenyCache
from asgi_guard.policy.rates import SECOND, Limit
from asgi_guard.stores import RedisStore
from tests.laws import SHARING
from tests.stores.server import PATIENCE, Server, ask, limit

if TYPE_CHECKING:
    from typing import TypeAlias

START = 1_795_000_000 * SECOND
TICK = 20 * SECOND
RULE = limit("1/hour burst 3 by ip")
LIFE = 100 * 3600 * SECOND
Step: TypeAlias = "tuple[int, str, int, int]"
"""Ticks that pass, a key, a cost, and what is taken afterwards, or given back."""
STEPS = st.lists(
    st.tuples(st.integers(0, 400), st.sampled_from("ab"), st.integers(0, 4), st.sampled_from([0, 0, 1, -1, -5])),
    max_size=25,
)


@settings(SHARING, max_examples=30)
@given(steps=STEPS)
@example(steps=[(0, "a", 3, 0), (1, "a", 1, 0), (1, "a", 1, -1), (0, "a", 1, 0)])
@example(steps=[(0, "a", 3, 0), (0, "a", 2, 0), (180, "a", 1, 0), (180, "a", 2, 0)])
@example(steps=[(0, "a", 2, -1), (0, "a", 3, 0)])
def test_never_refuses_what_the_server_admits(valkey: Server, steps: list[Step]) -> None:
    """On one clock, what the cache refuses the server refuses with the same words, until the moment that it admits."""

    async def run() -> None:
        valkey.client.flushall()
        now, given_back = START, 0
        store, cache = RedisStore(valkey.url, timeout=PATIENCE, clock=lambda: now), DenyCache(LIFE)
        for ticks, key, cost, settled in steps:
            now += ticks * TICK
            request = ask(key, cost, RULE)
            known = cache.refuse(request.charges, now)
            verdict = await store.admit(request)
            if known is not None:
                assert not verdict.admitted
                assert known.readings[0].reset <= verdict.readings[0].reset
                assert (known.readings[0].wait or 0) <= (verdict.readings[0].wait or 0)
            if not verdict.admitted:
                cache.note(request.charges, verdict, now)
                believed = cache.refuse(request.charges, now)
                # What was asked when units were given back may have been asked before.
                assert believed == (verdict if cost <= RULE.burst and given_back < now else known)
            if settled:
                account = Charge(RULE, key, settled)
                if settled < 0:
                    cache.forget([key], now)
                    given_back = now
                store.tell(Admission((account,), settles=True))
                await store.admit(Admission(()))
        await store.aclose()

    asyncio.run(run())


async def test_a_server_with_a_clock_of_its_own(server: Server) -> None:
    """Where the server's clock is years from ours, the cache refuses by our own, and no longer than the server does."""
    store = server.store()
    quick = Limit("quick", "", "ip", SECOND // 20, 1)
    ours = 0
    cache = DenyCache(LIFE)
    admitted = 0
    while admitted < 3:
        verdict = await store.admit(ask("a", 1, quick))
        admitted += verdict.admitted
        if not verdict.admitted:
            wait = verdict.readings[0].wait
            assert wait is not None
            cache.note(ask("a", 1, quick).charges, verdict, ours)
            assert cache.refuse(ask("a", 1, quick).charges, ours + wait - 1) is not None
            ours += wait
            assert cache.refuse(ask("a", 1, quick).charges, ours) is None
    await store.aclose()
