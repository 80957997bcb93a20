"""What holds for every store, whatever it keeps its buckets in."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import pytest

from asgi_guard.policy.bucket import Admission, Charge, Verdict
from asgi_guard.policy.rates import SECOND, Limit
from asgi_guard.policy.revocation import EVER, Marks
from asgi_guard.stores import ClusterStore, MemoryStore, RedisStore, SentinelStore, Store, open_store
from tests.stores.server import PATIENCE, SLOW, VAST, ask, limit, until

if TYPE_CHECKING:
    from collections.abc import Callable

HOUR = 3600 * SECOND
# A connection that nobody closed before its event loop ended cannot be closed any more.
LEFT_OPEN = pytest.mark.filterwarnings("ignore:(unclosed|loop is closed):ResourceWarning")


async def test_a_full_bucket_admits_its_burst_and_no_more(store: Store) -> None:
    """A bucket admits exactly as many units as it holds."""
    verdicts = [await store.admit(ask("a")) for _ in range(7)]

    assert [verdict.admitted for verdict in verdicts] == [True] * 5 + [False] * 2
    assert [verdict.readings[0].remaining for verdict in verdicts] == [4, 3, 2, 1, 0, 0, 0]


async def test_buckets_of_different_keys_are_apart(store: Store) -> None:
    """One client's requests take nothing from another's bucket."""
    for _ in range(6):
        await store.admit(ask("a"))

    assert (await store.admit(ask("b"))).readings[0].remaining == 4


async def test_readings_tell_when_the_bucket_is_full_and_when_a_charge_fits(store: Store) -> None:
    """A reading names the limit, the units left, the time to full and the time to the next unit."""
    first = (await store.admit(ask("a"))).readings[0]
    assert (first.limit, first.remaining, first.reset, first.wait) == (SLOW, 4, HOUR, 0)

    await store.admit(ask("a", 4))
    refused = (await store.admit(ask("a", 2))).readings[0]
    assert refused.remaining == 0
    assert refused.wait is not None
    assert 5 * HOUR - 60 * SECOND < refused.reset <= 5 * HOUR
    assert 2 * HOUR - 60 * SECOND < refused.wait <= 2 * HOUR


@pytest.mark.parametrize("refusing", [0, 1, 2])
async def test_all_buckets_are_charged_or_none(store: Store, refusing: int) -> None:
    """Where one bucket of several refuses, whichever it is, none of them is charged."""
    await store.admit(ask(f"k{refusing}", 5))
    charges = tuple(Charge(SLOW, f"k{index}") for index in range(3))

    verdict = await store.admit(Admission(charges))

    assert not verdict.admitted
    assert [reading.wait == 0 for reading in verdict.readings] == [index != refusing for index in range(3)]
    after = [(await store.admit(ask(f"k{index}", 0))).readings[0].remaining for index in range(3)]
    assert after == [0 if index == refusing else 5 for index in range(3)]


async def test_each_of_several_limits_has_a_reading_in_order(store: Store) -> None:
    """A request under several limits gets one reading a limit, in the order it asked."""
    rules = (limit("1/day burst 3 by ip"), limit("7/hour by user"), limit("1/minute burst 100 by api-key"))

    verdict = await store.admit(Admission(tuple(Charge(rule, rule.key, 2) for rule in rules)))

    assert [reading.limit for reading in verdict.readings] == list(rules)
    assert [reading.remaining for reading in verdict.readings] == [1, 5, 98]
    assert [reading.reset for reading in verdict.readings] == [2 * rule.interval for rule in rules]


@pytest.mark.parametrize(
    ("spent", "cost", "admitted", "remaining"),
    [
        pytest.param(0, 0, True, 5, id="cost 0 of a full bucket"),
        pytest.param(5, 0, True, 0, id="cost 0 of an empty bucket"),
        pytest.param(0, 5, True, 0, id="all of a full bucket"),
        pytest.param(1, 5, False, 4, id="all of a bucket that is not full"),
        pytest.param(0, 6, False, 5, id="more than it holds"),
        pytest.param(2, 3, True, 0, id="exactly the rest"),
    ],
)
async def test_costs_at_the_edges(store: Store, spent: int, cost: int, admitted: bool, remaining: int) -> None:
    """A cost of 0 only looks, a cost of all that is there fits, and one unit more does not."""
    await store.admit(ask("a", spent))

    verdict = await store.admit(ask("a", cost))

    assert (verdict.admitted, verdict.readings[0].remaining) == (admitted, remaining)
    assert (verdict.readings[0].wait is None) == (cost > SLOW.burst)


async def test_looking_makes_no_difference(store: Store) -> None:
    """Looking at a bucket any number of times leaves it as it was."""
    await store.admit(ask("a", 2))

    seen = {(await store.admit(ask("a", 0))).readings[0].remaining for _ in range(10)}

    assert seen == {3}


async def test_units_come_back(store: Store) -> None:
    """A bucket that was emptied admits again, without anyone's doing, once a unit has come back."""
    quick = limit("50/second burst 1 by ip")
    assert (await store.admit(ask("a", rule=quick))).admitted

    async def admitted() -> bool:
        return (await store.admit(ask("a", rule=quick))).admitted

    await until(admitted)


async def test_revocation_is_told_in_the_same_call(store: Store) -> None:
    """A call that charges a bucket also says whether the token is among the revoked, and only that token is."""
    await store.revoke("t1", 600)

    assert (await store.admit(ask("a", token_id="t1"))).revoked
    assert not (await store.admit(ask("a", token_id="t2"))).revoked
    verdict = await store.admit(ask("a"))
    assert (verdict.revoked, verdict.readings[0].remaining) == (False, 2)


async def test_revocation_is_told_to_the_refused_too(store: Store) -> None:
    """A request that is over its limit still learns that its token is revoked."""
    await store.revoke("t1", 600)
    await store.admit(ask("a", 5))

    verdict = await store.admit(ask("a", token_id="t1"))

    assert (verdict.admitted, verdict.revoked) == (False, True)


async def test_revocation_without_limits(store: Store) -> None:
    """A request under no limit can still look a token up."""
    await store.revoke("t1", 600)

    assert await store.admit(Admission((), "t1")) == Verdict(True, (), True)
    assert await store.admit(Admission((), "t2")) == Verdict(True, (), False)
    assert await store.admit(Admission(())) == Verdict(True, (), False)


async def test_revocation_ends_with_the_tokens_life(store: Store) -> None:
    """A token is forgotten when its life is over, and revoking it again remembers it again."""
    await store.revoke("t1", 0.001)

    async def forgotten() -> bool:
        return not (await store.admit(Admission((), "t1"))).revoked

    await until(forgotten)

    await store.revoke("t1", 600)
    assert (await store.admit(Admission((), "t1"))).revoked


async def test_no_revocation_is_cut_short(store: Store) -> None:
    """Whoever revokes again, for a shorter time or up to an earlier instant, ends nothing that was revoked before."""
    for ttl in (600, 0.001):
        await store.revoke("t1", ttl)
    for ttl, instant in ((600, 2_000), (0.001, 1_000)):
        await store.revoke("bob", ttl, instant)
    for instant in (EVER, 1_000):
        await store.revoke("eve", 600, instant)
    await asyncio.sleep(0.01)

    assert (await store.admit(Admission((), "t1"))).revoked
    told = [(await store.admit(Admission((), marks=Marks(None, "bob", issued)))).revoked for issued in (2_000, 2_001)]
    assert told == [True, False]
    assert (await store.admit(Admission((), marks=Marks(None, "eve", 2_000)))).revoked


async def test_a_revocation_that_has_ended_counts_no_more(store: Store) -> None:
    """What was revoked up to a later instant, and is forgotten, does not come back with the next revocation."""
    await store.revoke("bob", 0.001, 2_000)
    await asyncio.sleep(0.01)
    await store.revoke("bob", 600, 1_000)

    told = [(await store.admit(Admission((), marks=Marks(None, "bob", issued)))).revoked for issued in (1_000, 1_001)]
    assert told == [True, False]


async def test_a_session_and_a_subject_are_looked_up_in_the_same_call(store: Store) -> None:
    """A call that charges also says whether the token's session is revoked, or its subject up to when it was issued."""
    await store.revoke("s1", 600)
    await store.revoke("bob", 600, 1_000)

    async def revoked(marks: Marks, named: str | None = "t1") -> bool:
        verdict = await store.admit(Admission(ask("a").charges, named, marks=marks))
        assert verdict.readings
        assert (await store.admit(Admission((), named, marks=marks))).revoked is verdict.revoked
        return verdict.revoked

    assert await revoked(Marks("s1", "alice", 2_000))
    assert not await revoked(Marks("s2", "alice", 2_000))
    assert [await revoked(Marks("s2", "bob", issued)) for issued in (0, 999, 1_000, 1_001)] == [True, True, True, False]
    assert await revoked(Marks(None, "bob", 1_000), None)
    await store.revoke("t1", 600)
    assert await revoked(Marks(None, "bob", 1_001))


async def test_a_later_instant_takes_the_place_of_an_earlier_one(store: Store) -> None:
    """Revoking a subject again revokes what was issued in between."""
    for instant in (1_000, 2_000):
        await store.revoke("bob", 600, instant)

    assert (await store.admit(Admission((), marks=Marks(None, "bob", 1_500)))).revoked
    assert not (await store.admit(Admission((), marks=Marks(None, "bob", 2_001)))).revoked


async def test_a_token_and_a_bucket_of_one_name_are_apart(store: Store) -> None:
    """A token's name cannot be mistaken for a bucket's."""
    await store.revoke("a", 600)
    await store.admit(ask("revoked", 1))

    assert (await store.admit(ask("a", token_id="revoked"))) == (await store.admit(ask("b", token_id="x")))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(limit("1/hour burst 5 by ip"), limit("1/hour burst 8 by ip"), id="raised"),
        pytest.param(limit("1/day burst 300 by ip"), limit("20/second by ip"), id="much quicker"),
        pytest.param(limit("1/hour burst 5 by ip"), limit("1/day burst 5 by ip"), id="slower"),
    ],
)
async def test_a_changed_limit_takes_hold(store: Store, before: Limit, after: Limit) -> None:
    """A bucket that was emptied under one limit admits again under another as soon as that one allows."""
    assert (await store.admit(ask("a", before.burst, before))).admitted

    async def admitted() -> bool:
        verdict = await store.admit(ask("a", 1, after))
        assert verdict.readings[0].remaining < after.burst
        return verdict.admitted

    await until(admitted)


async def test_a_lowered_limit_is_never_exceeded(store: Store) -> None:
    """After a limit is lowered, a bucket holds at most what the new limit lets it hold."""
    await store.admit(ask("a", 1, limit("1/hour burst 100 by ip")))

    admitted = [(await store.admit(ask("a", 1, limit("1/hour burst 3 by ip")))).admitted for _ in range(5)]

    assert admitted == [True, True, False, False, False]


async def test_concurrent_calls_are_counted_exactly(store: Store) -> None:
    """Of many calls at once, more than any pool has connections, exactly the burst is admitted."""
    rule = limit("200/day by ip")

    verdicts = await asyncio.gather(*(store.admit(ask("a", rule=rule)) for _ in range(300)))

    assert sum(verdict.admitted for verdict in verdicts) == 200
    assert sorted(verdict.readings[0].remaining for verdict in verdicts if verdict.admitted) == list(range(200))


async def test_cancelled_callers_disturb_nobody(store: Store) -> None:
    """Callers that give up, at whatever point, leave every other caller with its own answer."""
    tasks = [asyncio.create_task(store.admit(ask(f"k{index}", index % 6))) for index in range(120)]
    for index, task in enumerate(tasks):
        await asyncio.sleep(0)
        if index % 3 == 0:
            task.cancel()

    results = await asyncio.gather(*tasks, return_exceptions=True)

    for index, result in enumerate(results):
        if isinstance(result, Verdict):
            assert result.readings[0].remaining == 5 - index % 6
        else:
            assert index % 3 == 0
            assert isinstance(result, asyncio.CancelledError)
    assert (await store.admit(ask("other", 2))).readings[0].remaining == 3


async def test_ping_tells_seconds(store: Store) -> None:
    """A store that is there says in how many seconds it answered."""
    assert 0 <= await store.ping() < PATIENCE


async def test_used_again_after_closing(store: Store) -> None:
    """A store that was closed, even twice, serves again and has forgotten nothing."""
    await store.admit(ask("a", 2))
    await store.revoke("t", 600)
    await store.aclose()
    await store.aclose()

    verdict = await store.admit(ask("a", token_id="t"))

    assert (verdict.readings[0].remaining, verdict.revoked) == (2, True)


@LEFT_OPEN
@pytest.mark.parametrize("closes", [True, False], ids=["closed", "not closed"])
def test_used_from_a_second_event_loop(make_store: Callable[[], Store], closes: bool) -> None:
    """A store serves in a second event loop, whether or not it was closed in the first, and remembers."""
    store = make_store()

    async def use(*, close: bool) -> list[int]:
        verdicts = await asyncio.gather(*(store.admit(ask("a")) for _ in range(2)))
        if close:
            await store.aclose()
        return sorted(verdict.readings[0].remaining for verdict in verdicts)

    assert asyncio.run(use(close=closes)) == [3, 4]
    assert asyncio.run(use(close=True)) == [1, 2]
    gc.collect()  # so that Python complains of connections left open here, and in no other test


@LEFT_OPEN
def test_closing_from_a_foreign_event_loop(make_store: Callable[[], Store]) -> None:
    """Closing a store in another event loop than it was used in harms nothing."""
    store = make_store()

    async def use() -> int:
        return (await store.admit(ask("a"))).readings[0].remaining

    async def use_and_close() -> int:
        remaining = await use()
        await store.aclose()
        return remaining

    assert asyncio.run(use()) == 4
    asyncio.run(store.aclose())

    assert asyncio.run(use_and_close()) == 3
    gc.collect()


async def test_big_numbers_stay_exact(store: Store) -> None:
    """Buckets at the bounds of the grammar are counted to the unit."""
    rule = limit("100000/second burst 999999999 by ip")

    first = (await store.admit(ask("a", 999_999_998, rule))).readings[0]

    assert (first.reset, first.wait) == (999_999_998 * 10, 0)
    year = limit("1/day burst 366 by ip")
    assert [(await store.admit(ask("y", cost, year))).admitted for cost in (365, 1, 1)] == [True, True, False]
    assert (await store.admit(ask("v", 10**15, VAST))).readings[0].wait is None


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("memory://", MemoryStore),
        ("redis://127.0.0.1/1", RedisStore),
        ("rediss://user:p%40ss@example.com:6380/0", RedisStore),
        ("unix:///run/redis.sock?db=2", RedisStore),
        ("redis+sentinel://user:p%40ss@a,b:26380/service/1", SentinelStore),
        (f"rediss+sentinel://a/service?ssl_ca_certs={__file__}&sentinel_password=p", SentinelStore),
        ("redis+cluster://user:p%40ss@a,b:7000,[::1]:7001", ClusterStore),
        (f"rediss+cluster://a/0?ssl_certfile={__file__}&ssl_keyfile={__file__}", ClusterStore),
    ],
)
def test_a_url_names_a_store(url: str, kind: type) -> None:
    """The scheme of a URL says which store it is, and making the store connects to nothing."""
    made = open_store(url, max_keys=7)

    assert type(made) is kind
    assert made.shared is (kind is not MemoryStore)


@pytest.mark.parametrize(
    "url", ["", "cluster://:hunter2@h", "postgres://h", "http://:hunter2@h", "redis", "hunter2", "user:hunter2@h"]
)
def test_a_url_of_no_store_is_refused(url: str) -> None:
    """A URL that names no store is refused with the schemes that there are, and without its password."""
    with pytest.raises(ValueError, match=r"memory://, redis://, rediss://, unix://, .*cluster://$") as caught:
        open_store(url)
    assert "hunter2" not in str(caught.value)
