"""Requests at once: never more than the number, in any order of coming and going, and none that is stuck for ever."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asgi_guard.policy.bucket import Admission, Charge
from asgi_guard.policy.rates import LEASE, SECOND, Limit
from asgi_guard.stores import MemoryStore, RedisStore
from tests.laws import SHARING
from tests.stores.server import PATIENCE, SLOW, Server, ask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import TypeAlias

START = 1_795_000_000 * SECOND
RENEWAL = LEASE // 3


def number(count: int) -> Limit:
    return Limit(f"at-once{count}", "", "ip", LEASE, count, at_once=True)


class Places:
    """A store on a clock that is driven by hand, as requests with names meet it."""

    def __init__(self, server: Server | None) -> None:
        self.now = START
        self.store: MemoryStore | RedisStore
        if server is None:
            self.store = MemoryStore(clock=lambda: self.now)
        else:
            self.store = RedisStore(server.url, timeout=PATIENCE, clock=lambda: self.now)

    async def enter(self, lease: str, *charges: Charge) -> bool:
        return (await self.store.admit(Admission(charges, lease=lease))).admitted

    async def leave(self, lease: str, *charges: Charge) -> None:
        self.store.tell(Admission(charges, lease=lease, settles=True))
        await self.store.admit(Admission(()))

    async def free(self, charge: Charge) -> int:
        """How many more may enter."""
        never = Charge(SLOW, "never", SLOW.burst + 1)
        verdict = await self.store.admit(Admission((charge, never), lease="looks"))
        return verdict.readings[0].remaining


@pytest.fixture(params=["memory", "redis"])
async def places(request: pytest.FixtureRequest) -> AsyncIterator[Places]:
    """Places in each kind of store."""
    made = Places(None if request.param == "memory" else request.getfixturevalue("server"))
    yield made
    await made.store.aclose()


TWO = Charge(number(2), "x")


async def test_a_place_is_free_again_when_its_request_ends(places: Places) -> None:
    """As many requests as the number are under way, one more is refused, and enters once another has left."""
    assert [await places.enter(lease, TWO) for lease in "abc"] == [True, True, False]
    assert await places.free(TWO) == 0
    await places.leave("a", TWO)
    assert await places.free(TWO) == 1
    assert [await places.enter(lease, TWO) for lease in "cd"] == [True, False]


async def test_leaving_twice_or_without_having_come_harms_nothing(places: Places) -> None:
    """A name that is not under way may leave any number of times: nobody else's place is given away."""
    await places.leave("nobody", TWO)
    assert [await places.enter(lease, TWO) for lease in "ab"] == [True, True]
    for lease in ("nobody", "a", "a"):
        await places.leave(lease, TWO)
    assert await places.free(TWO) == 1
    assert [await places.enter(lease, TWO) for lease in "cd"] == [True, False]


async def test_who_does_not_renew_is_no_longer_under_way(places: Places) -> None:
    """A place is held for the lease to the microsecond, and then is free without anyone's doing."""
    assert [await places.enter(lease, TWO) for lease in "ab"] == [True, True]
    places.now += LEASE - 1
    assert not await places.enter("c", TWO)
    places.now += 1
    assert [await places.enter(lease, TWO) for lease in "cde"] == [True, True, False]


async def test_who_renews_keeps_its_place(places: Places) -> None:
    """A request that renews in time keeps its place for hours, is counted once, and one that does not loses its own."""
    assert [await places.enter(lease, TWO) for lease in "ab"] == [True, True]
    for _ in range(600):
        places.now += RENEWAL
        assert await places.enter("a", TWO)
    assert await places.free(TWO) == 1
    assert [await places.enter(lease, TWO) for lease in "cd"] == [True, False]


async def test_who_renewed_late_is_counted_again_if_there_is_room(places: Places) -> None:
    """After its lease has ended a request may renew it where there is a free place, and never takes one too many."""
    assert [await places.enter(lease, TWO) for lease in "ab"] == [True, True]
    places.now += LEASE
    assert await places.enter("c", TWO)
    assert [await places.enter(lease, TWO) for lease in "ab"] == [True, False]
    assert await places.free(TWO) == 0


@pytest.mark.parametrize(("before", "after", "free"), [(5, 2, 0), (2, 5, 3), (3, 3, 1)], ids=["less", "more", "same"])
async def test_a_changed_number_holds_at_once(places: Places, before: int, after: int, free: int) -> None:
    """After the number was lowered nobody enters until enough have left; after it was raised more may enter at once."""
    for lease in "ab":
        assert await places.enter(lease, Charge(number(before), "x"))
    changed = Charge(number(after), "x")
    assert await places.free(changed) == free
    assert await places.enter("c", changed) is (free > 0)
    for lease in "abc":
        await places.leave(lease, changed)
    assert await places.free(changed) == after


async def test_a_place_is_taken_with_all_buckets_or_not_at_all(places: Places) -> None:
    """Where a bucket refuses no place is taken, and where there is no place no bucket is charged."""
    bucket = Charge(SLOW, "b")
    await places.store.admit(ask("b", 4))
    assert await places.enter("a", TWO, bucket)
    assert not await places.enter("c", TWO, bucket)
    assert await places.free(TWO) == 1
    assert await places.enter("d", TWO, Charge(SLOW, "other", 2))
    assert not await places.enter("e", Charge(SLOW, "other", 2), TWO)
    assert (await places.store.admit(ask("other", 0))).readings[0].remaining == 3


async def test_a_number_in_shadow_counts_and_refuses_nothing(places: Places) -> None:
    """In shadow those who would be refused are admitted without being counted, and the others are counted."""
    shadow = replace(TWO, binding=False)
    verdicts = [await places.store.admit(Admission((shadow,), lease=lease)) for lease in "abc"]
    assert [verdict.admitted for verdict in verdicts] == [True] * 3
    assert [bool(verdict.shadowed) for verdict in verdicts] == [False, False, True]
    await places.leave("c", shadow)
    assert await places.free(TWO) == 0


async def test_several_numbers_have_places_of_their_own(places: Places) -> None:
    """A request under two numbers holds a place of each under one name, and leaves both."""
    three = Charge(number(3), "y")
    assert await places.enter("a", TWO, three)
    assert [await places.free(TWO), await places.free(three)] == [1, 2]
    await places.leave("a", TWO, three)
    assert [await places.free(TWO), await places.free(three)] == [2, 3]


@pytest.mark.parametrize("command", [("set", "1795000000000000"), ("rpush", "v"), ("hset", "f", "v"), ("sadd", "m")])
async def test_a_key_of_another_type_heals(server: Server, command: tuple[Any, ...]) -> None:
    """A key of another type, a bucket's too, reads as nobody under way, and fails nothing beside it."""
    places = Places(server)
    getattr(server.client, command[0])("asgi-guard:x", *command[1:])

    entered = await asyncio.gather(*(places.enter(lease, TWO, Charge(SLOW, "b")) for lease in "abc"))

    assert entered == [True, True, False]
    assert server.client.zcard("asgi-guard:x") == 2
    server.client.flushall()
    getattr(server.client, command[0])("asgi-guard:x", *command[1:])
    await places.leave("a", TWO)
    assert await places.enter("a", TWO)
    await places.store.aclose()


async def test_a_number_that_becomes_a_bucket_and_back(places: Places) -> None:
    """A key whose limit changes its sort works as the new sort at once."""
    assert await places.enter("a", TWO)
    assert (await places.store.admit(ask("x", 5))).admitted
    assert not (await places.store.admit(ask("x"))).admitted
    assert await places.enter("b", TWO)


async def test_the_server_forgets_who_never_left(server: Server) -> None:
    """The places of a worker that died are one key, which the server lets go after the lease."""
    places = Places(server)
    for lease in "ab":
        assert await places.enter(lease, TWO)
    assert server.client.keys() == [b"asgi-guard:x"]
    assert 0 < server.client.pttl("asgi-guard:x") <= LEASE // 1000
    await places.leave("a", TWO)
    await places.leave("b", TWO)
    assert server.client.keys() == []
    await places.store.aclose()


async def test_a_clock_that_was_ahead_holds_nobodys_place(server: Server) -> None:
    """Once the clock is set right, who came by the wrong one counts no more, until it renews its lease."""
    places = Places(server)
    places.now += 3600 * SECOND
    assert [await places.enter(lease, TWO) for lease in "ab"] == [True, True]
    places.now -= 3600 * SECOND
    assert [await places.enter(lease, TWO) for lease in "bcd"] == [True, True, False]
    await places.store.aclose()


@pytest.mark.parametrize("apart", [1, 2000, SECOND, 44 * SECOND])
async def test_clocks_that_are_apart_share_the_places(server: Server, apart: int) -> None:
    """Workers whose clocks differ, by less than three renewals, admit no more together than there are places."""
    ahead, behind = Places(server), Places(server)
    ahead.now += apart
    assert await ahead.enter("a", TWO)
    assert await behind.enter("b", TWO)
    for passed in (0, 14 * SECOND):  # the renewals are to come
        for places in (ahead, behind):
            places.now += passed
        for places in (behind, ahead, behind):
            assert await places.free(TWO) == 0
            assert not await places.enter("c", TWO)
    for places, lease in ((behind, "b"), (ahead, "a")):  # who renews takes no other's place away
        assert await places.enter(lease, TWO)
    assert server.client.zcard("asgi-guard:x") == 2
    await behind.leave("a", TWO)
    assert [await behind.enter(lease, TWO) for lease in "cd"] == [True, False]
    for places in (ahead, behind):
        await places.store.aclose()


async def test_a_request_without_a_name_is_an_error(server: Server) -> None:
    """A request that would be counted without a name is an error, since two of them would be one."""
    places = Places(server)
    with pytest.raises(ValueError, match="needs a name"):
        await places.enter("", TWO)
    assert server.client.keys() == []
    await places.store.aclose()


async def test_memory_keeps_nothing_of_those_who_left() -> None:
    """When every request has left, and also where it was refused or its lease had ended, nothing is kept of it."""
    places = Places(None)
    for index in range(100):
        charges = (Charge(number(1), f"x{index % 10}"), Charge(SLOW, f"b{index % 3}"))
        entered = await places.enter(f"l{index}", *charges)
        places.now += LEASE // 7
        if entered:
            await places.enter(f"l{index}", charges[0])
            places.now += LEASE if index % 2 else 0
            await places.free(charges[0])
            await places.leave(f"l{index}", charges[0])
    assert isinstance(places.store, MemoryStore)
    assert not places.store._under_way


Step: TypeAlias = "tuple[str, str, str, int]"
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["enter", "enter", "leave", "pass"]),
        st.sampled_from(["l1", "l2", "l3", "l4", "l5"]),
        st.sampled_from("xy"),
        st.integers(1, 3),
    ),
    max_size=60,
)


@settings(SHARING, max_examples=40)
@given(steps=STEPS, shared=st.booleans())
@example(
    steps=[("enter", "l1", "x", 1), ("pass", "", "x", 3), ("enter", "l2", "x", 1), ("leave", "l1", "x", 1)], shared=True
)
def test_never_more_than_the_number(valkey: Server, steps: list[Step], shared: bool) -> None:
    """In any order of entering, renewing, leaving and expiring, exactly those enter for whom there is a place."""

    async def run() -> None:
        valkey.client.flushall()
        places = Places(valkey if shared else None)
        held: dict[str, dict[str, int]] = {"x": {}, "y": {}}
        for what, lease, key, count in steps:
            if what == "pass":
                places.now += count * RENEWAL
                continue
            leases = held[key] = {name: until for name, until in held[key].items() if until > places.now}
            if what == "leave":
                leases.pop(lease, None)
                await places.leave(lease, Charge(number(count), key))
            else:
                others = len(leases.keys() - {lease})
                assert await places.enter(lease, Charge(number(count), key)) is (others < count)
                if others < count:
                    leases[lease] = places.now + LEASE
                    assert len(leases) <= count
        await places.store.aclose()

    asyncio.run(run())
