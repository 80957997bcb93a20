"""What the benchmark of limits compares, and how: the parts of it, one by one."""

from __future__ import annotations

import asyncio
import itertools
import math
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import RedisError

from asgi_guard import RedisStore
from benchmarks.interval import Interval
from benchmarks.limits import contenders, exact, faults, outages, peers, rounds, scripts, servers, sizes, suite, tables
from benchmarks.limits.contenders import OURS, Contender, Setup, UnsuitableError, present
from benchmarks.limits.rounds import Place, closed_loop, measure, percentile
from benchmarks.limits.servers import PREFIX, Counters, Target, target
from benchmarks.limits.throughput import Throughput

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asgi_guard.policy.bucket import Charge


@pytest.fixture(scope="module")
def own() -> Iterator[Target]:
    with target(None) as found:
        yield found


def test_where_nobody_could_be_asked_no_rounds_are_told() -> None:
    """A kind of check without a contender, and no kind at all, have no rounds."""
    assert [suite._rounds(kinds) for kinds in ([], [Throughput("one window", [], [])])] == ["0", "0"]


class Failing:
    """A limiter that fails at its `after`th check."""

    def __init__(self, after: int, error: Exception) -> None:
        self._left = after
        self._error = error

    async def check(self, client: str) -> bool:
        self._left -= 1
        if self._left < 0:
            raise self._error
        await asyncio.sleep(0)
        return bool(client)

    async def used(self, client: str) -> int:
        raise NotImplementedError(client)

    async def aclose(self) -> None:
        pass


def failing(name: str, after: int, error: Exception) -> Contender:
    async def opened(_: Setup) -> Failing:
        return Failing(after, error)

    return Contender(name, ("evalsha",), opened)


async def test_every_contender_limits(own: Target) -> None:
    """Each contender admits what its window holds, refuses what is more, and tells how much is used."""
    found, _ = present(contenders.everyone())
    for contender in found:
        limiter = await contender.open(Setup(own.url, count=3, seconds=86400, prefix=f"{PREFIX}{contender.name}:"))
        try:
            assert await limiter.used("client") == 0, contender.name
            assert [await limiter.check("client") for _ in range(4)] == [True, True, True, False], contender.name
            assert await limiter.check("other"), contender.name
            # A fixed window counts a refused hit too, and tells no more than that nothing is left.
            assert await limiter.used("client") == 3, contender.name
        finally:
            await limiter.aclose()


async def test_every_contender_looks_up_the_token(own: Target) -> None:
    """Where a token is looked up, a revoked one is not let in, by whichever contender, and another one is."""
    found, _ = present(contenders.everyone())
    for contender in found:
        setup = Setup(own.url, windows=2, revocation=True, prefix=f"{PREFIX}revocation:{contender.name}:")
        store = RedisStore(own.url, prefix=setup.prefix, timeout=20)
        limiter = await contender.open(setup)
        try:
            await store.revoke("client", 60)
            own.client.set(scripts.revocation_key(setup, "client"), 1)
            assert not await limiter.check("client"), contender.name
            assert await limiter.check("other"), contender.name
        finally:
            await limiter.aclose()
            await store.aclose()


async def test_the_scripts_survive_a_flush(own: Target) -> None:
    """A check right after the server forgot its scripts is decided as any other is."""
    found, _ = present(contenders.everyone())
    for contender in found:
        limiter = await contender.open(Setup(own.url, prefix=f"{PREFIX}forgotten:{contender.name}:"))
        try:
            await limiter.check("client")
            own.client.script_flush()
            assert await limiter.check("client"), contender.name
        finally:
            await limiter.aclose()


@pytest.mark.parametrize(
    ("url", "address", "database"),
    [
        ("unix:///run/redis.sock", {"unix_socket_path": "/run/redis.sock"}, 0),
        ("redis://user:secret@127.0.0.1:7000/3", {"host": "127.0.0.1", "port": 7000}, 3),
    ],
)
async def test_glide_is_set_up_from_the_url(
    monkeypatch: pytest.MonkeyPatch, url: str, address: dict[str, Any], database: int
) -> None:
    """The URL's socket or host, its password and its database reach the client; nothing else is made up."""
    made: list[Any] = []

    async def create(configuration: Any) -> str:
        made.append(configuration)
        return "client"

    def node(host: str | None = None, port: int | None = None, **path: str) -> dict[str, Any]:
        return path or {"host": host, "port": port}

    monkeypatch.setitem(
        sys.modules,
        "glide",
        SimpleNamespace(
            NodeAddress=node,
            ServerCredentials=lambda password, username: (password, username),
            GlideClientConfiguration=lambda addresses, **options: SimpleNamespace(addresses=addresses, **options),
            GlideClient=SimpleNamespace(create=create),
            Script=str,
        ),
    )

    await peers.Glide.open(Setup(url, timeout=0.05))

    (configuration,) = made
    assert configuration.addresses == [address]
    assert configuration.database_id == database
    assert configuration.credentials == (("secret", "user") if "secret" in url else None)
    assert configuration.request_timeout == 50


async def test_glide_says_which_server_it_is_not_set_up_for(monkeypatch: pytest.MonkeyPatch, own: Target) -> None:
    """A URL that the benchmark does not translate for the client leaves the client out, with the reason."""
    monkeypatch.setitem(sys.modules, "glide", SimpleNamespace())
    with pytest.raises(UnsuitableError, match="does not set it up for rediss://"):
        await peers.Glide.open(Setup("rediss://user:secret@127.0.0.1"))

    unsuitable = failing("glide", 0, UnsuitableError("this benchmark does not set it up for rediss://"))
    (found,) = await measure([unsuitable], [Place(Setup(own.url), 1)], own.client, 2, 0.01, lambda _: None)

    assert found.cells == []
    assert [(one.name, one.reason) for one in found.skipped] == [
        ("glide", "at 1 task: this benchmark does not set it up for rediss://")
    ]


async def test_a_contender_that_fails_is_left_out_by_name(own: Target) -> None:
    """One that cannot connect, and one that fails later, are named; the others are measured, and all time is told."""
    told: list[float] = []
    broken = [
        contenders.ours(),
        failing("never", 0, ConnectionError("a password may stand here")),
        failing("later", 3, OSError()),
    ]

    (found,) = await measure(broken, [Place(Setup(own.url), 2)], own.client, 3, 0.01, told.append)

    assert [cell.name for cell in found.cells] == [OURS]
    assert {(one.name, one.reason) for one in found.skipped} == {
        ("never", "at 2 tasks: ConnectionError"),
        ("later", "at 2 tasks: OSError"),
    }
    assert 0.06 < sum(told) <= 0.091


def test_the_share_that_a_flush_breaks_is_of_all_checks(own: Target) -> None:
    """What fails is a part of what was checked, in each turn: all of it is 1, and none 0."""
    who = [failing("all", 0, RedisError("gone")), failing("none", 10**9, RedisError("never"))]
    told: list[float] = []
    found = {one.name: one for one in faults.flush(own, who, 3, 0.05, told.append)}

    assert [(one.share.median, one.share.low, one.share.high, one.share.rounds) for one in found.values()] == [
        (1, 1, 1, 3), (0, 0, 0, 3),
    ]  # fmt: skip
    assert found["all"].failed == found["all"].checks >= 3 * faults.TASKS
    assert found["none"].flushes >= 3
    assert round(sum(told), 6) == 1


def test_a_share_is_told_with_its_interval() -> None:
    """In hundredths; where each turn is the same, or there was but one, once is enough."""
    assert tables.share(Interval.of([0.008, 0.012, 0.01])) == "1.0% (0.8% to 1.2%)"
    assert tables.share(Interval.of([0.0, 0.0])) == "0.0%"
    assert tables.share(Interval.of([0.008])) == "0.8%"


async def test_a_refused_check_is_not_measured(own: Target) -> None:
    """A check that is refused ends the measurement: the figure would be of something else."""
    limiter = await contenders.ours().open(Setup(own.url, count=1, seconds=86400, prefix=f"{PREFIX}refusing:"))
    try:
        with pytest.raises(AssertionError, match="a check was refused"):
            await closed_loop(limiter, len(rounds.CLIENTS) + 1, 1.0, Counters(own.client))
    finally:
        await limiter.aclose()


async def test_without_ours_there_is_no_ratio(own: Target) -> None:
    """A level at which ours could not be measured has no ratios, rather than wrong ones."""
    one_call = scripts.CONTENDERS[:1]
    (found,) = await measure(one_call, [Place(Setup(own.url), 1)], own.client, 2, 0.01, lambda _: None)
    assert math.isnan(found.cells[0].ours.median)


async def test_places_take_turns_in_every_round(own: Target) -> None:
    """What is asked, and how many at once, changes within a round: no place is done before another has begun."""
    turns: list[tuple[int, str]] = []

    class Noting(Failing):
        def __init__(self, windows: int, name: str) -> None:
            super().__init__(1_000_000, OSError())
            self._noted = (windows, name)

        async def check(self, client: str) -> bool:
            if turns[-1:] != [self._noted]:
                turns.append(self._noted)
            return await super().check(client)

    def noting(name: str) -> Contender:
        async def opened(setup: Setup) -> Noting:
            return Noting(setup.windows, name)

        return Contender(name, ("evalsha",), opened)

    places = [Place(Setup(own.url, windows=windows), tasks) for windows in (1, 2) for tasks in (1, 4)]
    found = await measure([noting("a"), noting("b")], places, own.client, 4, 0.001, lambda _: None)

    assert [[(cell.tasks, cell.name) for cell in one.cells] for one in found] == [
        [(tasks, name) for name in ("a", "b")] for tasks in (1, 4, 1, 4)
    ]
    kinds = [windows for windows, _ in turns[4:]]
    assert sum(before != after for before, after in itertools.pairwise(kinds)) > 3


def test_percentiles() -> None:
    """A percentile is a value that was measured."""
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, percent) for percent in (0, 50, 99, 100)] == [1, 51, 100, 100]


def test_what_someone_gave_is_not_harmed(own: Target) -> None:
    """A server that is not ours is neither stopped, nor emptied, nor made to forget its scripts."""
    given = Target(own.url, False, own.client)
    with pytest.raises(AssertionError, match="not stopped"), given.frozen():
        pass
    with pytest.raises(AssertionError, match="not emptied"):
        sizes.measure(given, [], 1, lambda _: None)
    with pytest.raises(AssertionError, match="keeps its scripts"):
        faults.flush(given, [contenders.ours()], 1, 0.01, lambda _: None)


def test_only_keys_of_benchmarks_are_taken_away(own: Target) -> None:
    """Cleaning up takes the keys with the benchmarks' prefix, and no other."""
    own.client.mset({f"{PREFIX}1": 1, f"{PREFIX}2": 1, f"other:{PREFIX}": 1})
    own.clean()
    assert own.client.keys(f"*{PREFIX}*") == [f"other:{PREFIX}".encode()]
    own.client.flushall()


def test_a_generous_policy_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were more admitted than capacity + rate * t, the count would not be 0."""

    def generous(_: Sequence[Charge], states: Sequence[int], now: int) -> Any:
        return True, [max(states[0], now)], ()

    monkeypatch.setattr(exact, "decide", generous)
    found = exact.generate(2000, lambda _: None)
    assert found.above > 0
    assert found.withheld == 0


def test_a_strict_policy_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were something refused that there is room for, the count of that would not be 0."""

    def strict(_: Sequence[Charge], states: Sequence[int], now: int) -> Any:
        return False, [max(states[0], now)], ()

    monkeypatch.setattr(exact, "decide", strict)
    found = exact.generate(2000, lambda _: None)
    assert (found.above, found.admitted) == (0, 0)
    assert found.withheld > 0


async def test_what_comes_of_a_call_is_told_in_words() -> None:
    """A call that is answered, refused, that raises or that hangs is told as just that, and never raised."""

    class Answering(Failing):
        async def check(self, client: str) -> bool:
            if client == "hangs":
                await asyncio.sleep(60)
            return client == "good"

    answering = Answering(9, OSError())
    outcomes = [await outages.attempt(answering, client, 0.05) for client in ("good", "bad", "hangs")]
    assert outcomes == ["admitted", "refused", "given up after 0.05 s"]
    assert await outages.attempt(Failing(0, OSError()), "client", 1) == "raises OSError"


async def test_what_a_limiter_used_is_asked_until_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a limiter cannot be asked it is asked again, and what it raises in the end is raised."""

    class Recovering(Failing):
        async def used(self, client: str) -> int:
            await self.check(client)
            return 7

    class Slow(Recovering):
        async def check(self, client: str) -> bool:
            self._left, before = self._left - 1, self._left
            if before > 0:
                raise self._error
            return bool(client)

    assert await faults._eventually(Slow(1, OSError()), "client") == 7
    monkeypatch.setattr(faults, "SETTLED", 0.0)
    with pytest.raises(OSError, match="for good"):
        await faults._eventually(Recovering(0, OSError("for good")), "client")


def test_a_server_is_told_by_its_name() -> None:
    """A server is told by its own name, and by whose it is."""
    assert servers.describe({"valkey_version": "9.1"}, own=True) == "Valkey 9.1, started for this, on a UNIX socket"
