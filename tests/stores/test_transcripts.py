"""The same requests get the same answers from every store: in memory, in Redis one by one, and in Redis all at once.

All of them go by one clock that is driven by hand, so their answers are compared to the microsecond. The clock moves in
steps of 20 seconds and the intervals are half hours less 7 microseconds, so that no bucket comes nearer than seconds to
being full without being it: Redis lets keys go by its own clock.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from hypothesis import example, given, settings
from hypothesis import strategies as st

from asgi_guard.policy.bucket import Admission, Charge, Verdict
from asgi_guard.policy.rates import LEASE, SECOND, Limit
from asgi_guard.policy.revocation import Marks
from asgi_guard.stores import MemoryStore, RedisStore, Store
from tests.laws import SHARING
from tests.stores.server import PATIENCE, Server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

TICK = 20 * SECOND
HALF_HOUR = 1800 * SECOND - 7
TEN_YEARS = 3652 * 86_400 * SECOND
START = 1_795_000_000 * SECOND + 123_457
FOREVER = 10**10
"""Seconds that no history here outlasts, however often ten years pass."""

BUCKETS = tuple(
    Limit(f"bucket{burst}", "", "ip", halves * HALF_HOUR, burst) for halves, burst in ((1, 1), (2, 5), (1, 12), (48, 3))
)
NUMBERS = tuple(Limit(f"at-once{number}", "", "ip", LEASE, number, at_once=True) for number in (1, 2, 5))
TOKENS = (None, "kept", "gone")
MARKS = (
    None,
    Marks(None, "carol", START),
    Marks("open", "carol", START + 5),
    Marks("over", "carol", START + 5),
    Marks("open", "dave", START + 5),
    Marks(None, "dave", START + 6),
    Marks("open", "dave"),
)
"""Of these, the session `over` is revoked, and `dave` up to the instant `START + 5`."""
REVOKED = MARKS[3], MARKS[4], MARKS[6]

Moment: TypeAlias = "tuple[int, list[Admission]]"
"""Ticks that pass, then what is asked at that moment, in order."""


class Told(Protocol):
    """Tells a store all that is asked at one moment, and gives the verdicts; None for accounts."""

    def __call__(self, store: Store, requests: list[Admission]) -> Awaitable[list[Verdict | None]]: ...


def charges(*, settles: bool) -> st.SearchStrategy[tuple[Charge, ...]]:
    binding = st.sampled_from([True, True, False])

    def costs(limit: Limit) -> st.SearchStrategy[int]:
        edges = st.sampled_from([0, 1, limit.burst, limit.burst + 1, 10**30])
        return st.one_of(edges, st.integers(-limit.burst - 1, 5), st.just(-(10**30))) if settles else edges

    def bucket(limit: Limit) -> st.SearchStrategy[Charge]:
        return st.builds(Charge, st.just(limit), st.sampled_from("abc"), costs(limit), binding)

    buckets = st.sampled_from(BUCKETS).flatmap(bucket)
    numbers = st.builds(Charge, st.sampled_from(NUMBERS), st.sampled_from("xy"), st.just(1), binding)
    return st.lists(st.one_of(buckets, numbers), max_size=4, unique_by=lambda charge: charge.key).map(tuple)


LEASES = st.sampled_from(["l1", "l2", "l3", "l4"])
REQUESTS = st.one_of(
    st.builds(
        Admission, charges(settles=False), st.sampled_from(TOKENS), LEASES, st.just(False), st.sampled_from(MARKS)
    ),
    st.builds(Admission, charges(settles=True), st.none(), LEASES, st.just(True)),
)
TICKS = st.one_of(st.integers(0, 4), st.integers(0, 400), st.sampled_from([90, 91, 180, TEN_YEARS // TICK]))
MOMENTS = st.lists(st.tuples(TICKS, st.lists(REQUESTS, max_size=8)), max_size=12)


async def one_by_one(store: Store, requests: list[Admission]) -> list[Verdict | None]:
    verdicts: list[Verdict | None] = []
    for request in requests:
        if request.settles:
            store.tell(request)
            verdicts.append(None)
        else:
            verdicts.append(await store.admit(request))
    await store.admit(Admission(()))  # what was told is decided
    return verdicts


async def all_at_once(store: Store, requests: list[Admission]) -> list[Verdict | None]:
    async def one(request: Admission) -> Verdict | None:
        if request.settles:
            store.tell(request)
            return None
        return await store.admit(request)

    *verdicts, _ = await asyncio.gather(*map(one, requests), store.admit(Admission(())))
    return verdicts


async def transcript(
    make: Callable[[Callable[[], int]], Store], tell: Told, moments: list[Moment]
) -> list[list[Verdict | None]]:
    """The verdicts of a store on a clock of its own that is driven by hand."""
    now = START
    store = make(lambda: now)
    await store.revoke("gone", FOREVER)
    await store.revoke("over", FOREVER)
    await store.revoke("dave", FOREVER, START + 5)
    verdicts = []
    for ticks, requests in moments:
        now += ticks * TICK
        verdicts.append(await tell(store, requests))
    await store.aclose()
    return verdicts


def compared(valkey: Server, moments: list[Moment]) -> list[list[Verdict | None]]:
    def memory(clock: Callable[[], int]) -> Store:
        return MemoryStore(clock=clock)

    def redis(clock: Callable[[], int]) -> Store:
        valkey.client.flushall()
        return RedisStore(valkey.url, timeout=PATIENCE, clock=clock)

    async def run() -> list[list[Verdict | None]]:
        remembered = await transcript(memory, one_by_one, moments)
        assert await transcript(redis, one_by_one, moments) == remembered
        assert await transcript(redis, all_at_once, moments) == remembered
        return remembered

    return asyncio.run(run())


def bucket(key: str, cost: int, rule: int = 1, *, binding: bool = True) -> Charge:
    return Charge(BUCKETS[rule], key, cost, binding)


def number(key: str, rule: int = 1, *, binding: bool = True) -> Charge:
    return Charge(NUMBERS[rule], key, 1, binding)


def account(*charged: Charge, lease: str = "l1") -> Admission:
    return Admission(charged, None, lease, settles=True)


@settings(SHARING, max_examples=40)
@given(moments=MOMENTS)
@example(moments=[(0, [Admission((bucket("a", 5),)), Admission((bucket("a", 1),), "gone"), account(bucket("a", -2))])])
@example(
    moments=[(0, [Admission((bucket("a", 12, 2),)), Admission((bucket("a", 1, 0),)), account(bucket("a", 10**30))])]
)
@example(moments=[(0, [Admission((bucket("a", 5),)), Admission((bucket("a", 1, binding=False), bucket("b", 1)))])])
@example(
    moments=[
        (
            0,
            [
                Admission((number("x"), bucket("a", 5)), None, "l1"),
                Admission((number("x"), bucket("a", 1)), None, "l2"),
            ],
        ),
        (2, [Admission((number("x"),), None, "l1"), Admission((number("x"),), None, "l3")]),
        (1, [Admission((number("x"),), None, "l4"), account(number("x"), lease="l1")]),
        (2, [Admission((number("x", 0),), None, "l2"), Admission((number("x", 0),), None, "l4")]),
    ]
)
@example(
    moments=[
        (0, [Admission((bucket("a", 3, 3),))]),
        (1, [Admission((bucket("a", 1, 0),)), Admission((bucket("a", 0, 3),)), account(bucket("a", -1, 0))]),
        (90, [Admission((bucket("a", 1, 0),)), Admission((bucket("a", 1, 0),))]),
    ]
)
@example(moments=[(0, [Admission((), None), Admission((), "gone"), Admission((), "kept"), account()])])
@example(moments=[(0, [Admission((bucket("a", 1),), "kept", marks=marks) for marks in MARKS])])
@example(moments=[(0, [Admission((), marks=marks) for marks in MARKS])])
def test_every_store_gives_the_same_answers(valkey: Server, moments: list[Moment]) -> None:
    """Memory, Redis asked one by one, and Redis asked all at once agree on every verdict, reading and revocation."""
    verdicts = compared(valkey, moments)

    for (_, requests), answers in zip(moments, verdicts, strict=True):
        for request, verdict in zip(requests, answers, strict=True):
            assert (verdict is None) is request.settles
            if verdict is not None:
                assert verdict.revoked is (request.token_id == "gone" or request.marks in REVOKED)
                assert len(verdict.readings) == len(request.charges)


def test_the_transcripts_tell_of_refusals(valkey: Server) -> None:
    """A history with every sort of refusal has exactly these verdicts, in each store."""
    l1, l2 = "l1", "l2"
    moments: list[Moment] = [
        (0, [Admission((bucket("a", 5), number("x", 0)), "gone", l1), Admission((bucket("a", 1),), "kept")]),
        (
            1,
            [Admission((number("x", 0), bucket("b", 1)), None, l2), account(bucket("a", -1), number("x", 0), lease=l1)],
        ),
        (0, [Admission((bucket("a", 1), number("x", 0), bucket("b", 0)), None, l2), Admission((bucket("b", 6),))]),
        (TEN_YEARS // TICK, [Admission((bucket("a", 5), bucket("b", 5)))]),
    ]

    verdicts = compared(valkey, moments)

    told = [[verdict and (verdict.admitted, verdict.revoked) for verdict in answers] for answers in verdicts]
    yes, no = (True, False), (False, False)
    assert told == [[(True, True), no], [no, None], [yes, no], [yes]]
    remaining = [
        [[reading.remaining for reading in verdict.readings] for verdict in answers if verdict] for answers in verdicts
    ]
    assert remaining == [[[0, 0], [0]], [[0, 5]], [[0, 0, 5], [5]], [[0, 0]]]


def test_a_batch_of_hundreds_is_decided_as_one_after_the_other(valkey: Server) -> None:
    """More requests at one moment than one call holds get the answers that they would have got one by one."""
    requests = [
        Admission(
            (bucket(f"k{index % 7}", index % 3, 2), number("x", 2)), "gone" if index % 5 == 0 else None, f"l{index}"
        )
        for index in range(400)
    ]
    requests[50::50] = [account(number("x", 2), lease=f"l{index}") for index in range(len(requests[50::50]))]

    (verdicts,) = compared(valkey, [(0, requests)])

    admitted = [index for index, verdict in enumerate(verdicts) if verdict and verdict.admitted]
    assert len(admitted) > 5
    assert len(admitted) < 100
