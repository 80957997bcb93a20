"""What holds for the store in Redis alone: its calls, its keys, its script, and its silence about passwords."""

from __future__ import annotations

import asyncio
import math
import traceback
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asgi_guard.errors import StoreUnavailableError
from asgi_guard.middleware import RateLimitMiddleware
from asgi_guard.policy.bucket import Admission, Charge, decide
from asgi_guard.policy.rates import SECOND, Limit
from asgi_guard.policy.revocation import LONGEST_TTL, Marks
from asgi_guard.stores import MemoryStore, RedisStore
from asgi_guard.stores.base import Watch
from asgi_guard.stores.server_link import SCRIPT, SCRIPT_SHA1
from asgi_guard.stores.wire import encode, question
from tests.asgi import Echo
from tests.laws import SHARING
from tests.stores.server import PATIENCE, SLOW, VAST, Server, ask, limit, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import TypeAlias

HOUR_MS = 3_600_000


@pytest.fixture
async def store(server: Server) -> AsyncIterator[RedisStore]:
    made = server.store()
    yield made
    await made.aclose()


async def test_one_call_a_request(server: Server, store: RedisStore) -> None:
    """A request costs one EVALSHA, however many limits it is under, with the revocation looked up inside."""
    await store.admit(ask("a"))
    server.client.config_resetstat()
    charges = tuple(Charge(VAST, f"k{index}") for index in range(4))

    for _ in range(20):
        assert (await store.admit(Admission(charges, "token"))).admitted

    assert server.calls("evalsha") == 20
    assert [server.calls(name) for name in ("eval", "script|load", "script|exists", "multi")] == [0] * 4
    assert (server.calls("mget"), server.calls("psetex"), server.calls("time")) == (20, 80, 20)


async def test_the_script_goes_along_once(server: Server, store: RedisStore) -> None:
    """A server that does not know the script is sent it with the first request, and never again."""
    server.client.script_flush()
    server.client.config_resetstat()

    for _ in range(5):
        await store.admit(ask("a"))

    assert (server.calls("eval"), server.calls("evalsha")) == (1, 5)
    assert server.client.script_exists(SCRIPT_SHA1) == [True]


async def test_a_bucket_is_one_integer_that_goes_when_it_is_full(server: Server, store: RedisStore) -> None:
    """A bucket is a string of digits that expires when the bucket is full, and a full bucket is no key at all."""
    await store.admit(Admission((Charge(SLOW, "a", 2), Charge(SLOW, "full", 0))))

    assert server.client.keys() == [b"asgi-guard:a"]
    seconds, microseconds = server.client.time()
    ahead = int(server.client.get("asgi-guard:a")) - (seconds * SECOND + microseconds)
    assert 2 * 3600 * SECOND - 60 * SECOND < ahead <= 2 * 3600 * SECOND
    assert 2 * HOUR_MS - 60_000 < server.client.pttl("asgi-guard:a") <= 2 * HOUR_MS


async def test_the_shortest_life_is_a_millisecond(server: Server, store: RedisStore) -> None:
    """A bucket that is full again within less than a millisecond is written all the same, and soon gone."""
    tiny = limit("100000/second burst 100 by ip")

    assert (await store.admit(ask("a", 1, tiny))).readings[0].remaining == 99

    assert server.client.pttl("asgi-guard:a") <= 1


async def test_an_instant_that_is_none_revokes_all(server: Server, store: RedisStore) -> None:
    """A text that someone else left in the place of an instant revokes whatever was issued, rather than nothing."""
    for text in ("soon", "-5", "1e3", "", "9" * 17):
        server.client.set("asgi-guard:revoked:bob", text)
        assert (await store.admit(Admission((), marks=Marks(None, "bob", 10**15)))).revoked, text


async def test_a_first_revocation_needs_no_more_than_requests_do(server: Server) -> None:
    """A user of the server who may not ask how long a key has left can revoke all the same, but nothing twice."""
    allowed = "+evalsha +eval +mget +psetex +time +client|setname"
    server.client.acl_setuser("few", enabled=True, nopass=True, keys=["*"], commands=allowed.split())
    store = RedisStore(server.url.replace("unix://", "unix://few:any@"), timeout=PATIENCE)
    await store.revoke("t", 60)
    assert (await store.admit(Admission((), "t"))).revoked
    with pytest.raises(StoreUnavailableError):
        await store.revoke("t", 60)
    await store.aclose()
    server.client.acl_deluser("few")


async def test_a_revocation_is_one_key_with_an_end(server: Server, store: RedisStore) -> None:
    """A revoked token is one key that expires with the token, after a millisecond at least."""
    await store.revoke("t", 90.5)
    await store.revoke("ended", -3)

    assert 30_000 < server.client.pttl("asgi-guard:revoked:t") <= 90_500
    assert server.client.pttl("asgi-guard:revoked:ended") <= 1


async def test_the_longer_of_two_revocations_holds(server: Server, store: RedisStore) -> None:
    """A key keeps its end if a later revocation would end sooner, and is given a later one."""
    for ttl, kept in ((600, 600), (60, 600), (900, 900)):
        await store.revoke("t", ttl)
        assert 1000 * (kept - 30) < server.client.pttl("asgi-guard:revoked:t") <= 1000 * kept


async def test_a_revocation_over_what_someone_else_left(server: Server, store: RedisStore) -> None:
    """A text that is no instant goes on revoking all, for ten years if it had no end; a list is no revocation."""
    for text in ("soon", "-5", "1e3", "", "9" * 17):
        server.client.set("asgi-guard:revoked:bob", text)
        await store.revoke("bob", 60, 1_000)
        assert (await store.admit(Admission((), marks=Marks(None, "bob", 10**15)))).revoked, text
        assert server.client.pttl("asgi-guard:revoked:bob") > 1000 * (LONGEST_TTL - 60)
    server.client.delete("asgi-guard:revoked:bob")
    server.client.rpush("asgi-guard:revoked:bob", "list")
    await store.revoke("bob", 60, 1_000)
    assert server.client.get("asgi-guard:revoked:bob") == b"1000"
    assert server.client.pttl("asgi-guard:revoked:bob") <= 60_000


async def test_revocations_of_one_moment(server: Server, store: RedisStore) -> None:
    """Whoever of many is the last to revoke a subject, the latest instant and the latest end hold."""
    other = server.store()
    instants = [10**15 + number for number in range(40)]
    told = (
        each.revoke("bob", 60 + at % 7, at) for each in (store, other) for at in sorted(instants, key=lambda at: at % 7)
    )
    await asyncio.gather(*told)
    await other.aclose()
    assert server.client.get("asgi-guard:revoked:bob") == b"%d" % instants[-1]
    assert 63_000 < server.client.pttl("asgi-guard:revoked:bob") <= 66_000


async def test_prefixes_keep_guards_apart(server: Server, store: RedisStore) -> None:
    """Guards with different prefixes share a server and nothing else; those with the same share everything."""
    other, same = server.store(prefix="other:"), server.store()
    await store.admit(ask("a", 3))
    await store.revoke("t", 600)

    theirs, ours = await other.admit(ask("a", 0, token_id="t")), await same.admit(ask("a", 0, token_id="t"))
    await other.aclose()
    await same.aclose()

    assert (theirs.readings[0].remaining, theirs.revoked) == (5, False)
    assert (ours.readings[0].remaining, ours.revoked) == (2, True)


@pytest.mark.parametrize("command", [("rpush", "x"), ("hset", "f", "v"), ("sadd", "m"), ("zadd", {"m": 1})])
async def test_a_key_of_another_type_heals(server: Server, store: RedisStore, command: tuple[Any, ...]) -> None:
    """A key of another type reads as a full bucket, becomes one with the next charge, and fails nothing beside it."""
    getattr(server.client, command[0])("asgi-guard:a", *command[1:])

    verdicts = [await store.admit(Admission((Charge(SLOW, "b"), Charge(SLOW, "a")))) for _ in range(6)]

    assert [verdict.admitted for verdict in verdicts] == [True] * 5 + [False]
    assert server.client.get("asgi-guard:a").isdigit()


@pytest.mark.parametrize("text", ["", "nan", "-nan", "inf", "-5", "0x10", "1e300", "1.5", "007", "garbage", "9" * 30])
async def test_a_text_that_is_no_state_heals(server: Server, store: RedisStore, text: str) -> None:
    """A key with a text that is no state reads as a full bucket, and becomes one with the next charge."""
    server.client.set("asgi-guard:a", text)

    admitted = [(await store.admit(ask("a"))).admitted for _ in range(7)]

    assert admitted == [True] * 5 + [False] * 2
    assert server.client.pttl("asgi-guard:a") > 0


@pytest.mark.parametrize("ahead", [86_400, 7_000_000_000], ids=["a day", "beyond exact numbers"])
async def test_a_servers_clock_that_was_ahead_is_healed(server: Server, store: RedisStore, ahead: int) -> None:
    """A bucket from a server whose clock was ahead is refused for as long as its limit says, not until then."""
    quick = limit("50/second burst 5 by ip")
    seconds, _ = server.client.time()
    server.client.set("asgi-guard:a", (seconds + ahead) * SECOND)

    async def admitted() -> bool:
        return (await store.admit(ask("a", 1, quick))).admitted

    await until(admitted)

    assert server.client.pttl("asgi-guard:a") <= 100


async def test_looking_writes_nothing(server: Server, store: RedisStore) -> None:
    """Looking at a bucket, and being refused by it, write nothing to the server."""
    await store.admit(ask("a", 5))
    server.client.config_resetstat()

    await store.admit(ask("a", 0))
    await store.admit(ask("a", 1))

    assert server.calls("evalsha") == 2
    assert server.calls("psetex") == 0


async def test_flushing_scripts_under_load_loses_no_request(server: Server, store: RedisStore) -> None:
    """While someone keeps flushing the server's scripts, every request is answered and charged exactly once."""
    done = asyncio.Event()

    async def flush() -> int:
        times = 0
        while not done.is_set():
            server.client.script_flush()
            times += 1
            await asyncio.sleep(0.001)
        return times

    async def load() -> None:
        for _ in range(60):
            assert (await store.admit(ask("a", rule=rule))).admitted

    rule = limit("1/hour burst 1000 by ip")
    flusher = asyncio.create_task(flush())
    await asyncio.gather(*(load() for _ in range(8)))
    done.set()

    assert await flusher > 1
    assert server.calls("eval") > 1
    assert (await store.admit(ask("a", 0, rule))).readings[0].remaining == 1000 - 480


RULES = (limit("1/hour burst 5 by ip"), limit("2/day burst 3 by user"), limit("1/hour burst 20 by api-key"))
STEPS = st.lists(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(RULES), st.integers(0, 6)),
        min_size=1,
        max_size=3,
        unique_by=lambda charge: charge[0],
    ),
    min_size=1,
    max_size=40,
)
Steps: TypeAlias = "list[list[tuple[str, Limit, int]]]"


@settings(SHARING, max_examples=40)
@given(steps=STEPS)
@example(steps=[[("a", RULES[2], 6)], [("a", RULES[0], 1)], [("a", RULES[0], 1)], [("a", RULES[2], 1)]])
def test_the_transcript_is_that_of_the_store_in_memory(valkey: Server, steps: Steps) -> None:
    """The same requests get the same answers from Redis and from memory, but for the time that passes on the way."""
    memory = MemoryStore(clock=lambda: SECOND)

    async def run() -> None:
        store = valkey.store()
        for step in steps:
            request = Admission(tuple(Charge(rule, key, cost) for key, rule, cost in step))
            here, there = memory.decide(request), await store.admit(request)
            assert there.admitted == here.admitted
            for ours, theirs in zip(here.readings, there.readings, strict=True):
                assert theirs.remaining == ours.remaining
                assert (theirs.wait is None, theirs.wait == 0) == (ours.wait is None, ours.wait == 0)
                assert -600 * SECOND < theirs.reset - ours.reset <= 0
                assert -600 * SECOND < (theirs.wait or 0) - (ours.wait or 0) <= 0
        await store.aclose()

    valkey.client.flushall()
    asyncio.run(run())


OFFSETS = st.one_of(st.none(), st.integers(-10 * SECOND, 40 * SECOND), st.integers(-(10**12), 10**13))
BUCKETS = st.lists(
    st.tuples(OFFSETS, st.integers(10, 10 * SECOND), st.integers(1, 1000), st.integers(0, 1001)),
    min_size=1,
    max_size=4,
)
Buckets: TypeAlias = "list[tuple[int | None, int, int, int]]"


@settings(SHARING, max_examples=150)
@given(buckets=BUCKETS)
@example(buckets=[(None, 10, 1, 1), (10**12, SECOND, 5, 1)])
@example(buckets=[(10**13, SECOND, 5, 0)])
def test_lua_and_python_agree_to_the_microsecond(valkey: Server, buckets: Buckets) -> None:
    """For whatever state, limit and cost, the script decides and writes exactly what the policy computes from them."""
    valkey.client.flushall()
    seconds, _ = valkey.client.time()
    charges = []
    for index, (offset, interval, burst, cost) in enumerate(buckets):
        charges.append(Charge(Limit(f"l{index}", "", "ip", interval, burst), f"k{index}", cost))
        if offset is not None:
            valkey.client.set(f"k{index}", seconds * SECOND + offset)
    before = [int(value or 0) for value in valkey.client.mget([charge.key for charge in charges])]

    answer = valkey.client.eval(SCRIPT, *encode([question(Admission(tuple(charges)), "")]))

    now, admitted, revoked, *states = map(int, answer.split(b","))
    assert (states, revoked) == (before, 0)
    expected, after, _ = decide(tuple(charges), states, now)
    assert admitted == expected
    for charge, old, new in zip(charges, before, after, strict=True):
        healed = min(new, now + charge.limit.capacity)
        stored = valkey.client.get(charge.key)
        if healed > now and healed != old:
            left = -(-(healed - now) // 1000)
            assert stored is None or int(stored) == healed  # it may have expired by now
            assert valkey.client.pttl(charge.key) <= left
            assert stored is not None or left < 10_000
        else:
            assert int(stored or 0) == old


SECRET = "s3cr3t"
UNREADABLE = [
    f"redis://:{SECRET}@host:99999",
    f"redis://:{SECRET}/x@host:6379/0",
    f"redis://:{SECRET}#x@host",
    f"redis://:12{SECRET}?x@host",
    f"redis://user:12/{SECRET}@host",
    f"redis://user:12?{SECRET}@host",
    f"redis://user:12#{SECRET}@host",
    f"redis://:{SECRET}@[::1",
    f"redis://:{SECRET}@host/zero",
    f"redis://:{SECRET}@host?db=zero",
    f"redis://:{SECRET}@host?no_such_option=1",
    f"redis://:{SECRET}@host?protocol=9",
    f"redis://:{SECRET}@host?socket_timeout=soon",
    f"rediss://:{SECRET}@host?ssl_cert_reqs=maybe",
    f"unix://relative/path?password={SECRET}",
    f"unix://?password={SECRET}",
    f"http://:{SECRET}@host",
]


@pytest.mark.parametrize("url", UNREADABLE)
def test_a_malformed_url_is_an_error_at_once_without_the_password(url: str) -> None:
    """A URL that cannot be meant is a ValueError when the store is made, and the password is in no part of it."""
    with pytest.raises(ValueError, match="cannot be read") as caught:
        RedisStore(url)

    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{SECRET}@127.0.0.1:1/0",
        f"redis://user:{SECRET}@127.0.0.1:1",
        f"redis://127.0.0.1:1/0?username=user&password={SECRET}",
        f"rediss://user:{SECRET}@127.0.0.1:1?ssl_ca_certs={__file__}",
        f"unix://user:{SECRET}@/nowhere/redis.sock?db=3",
        f"unix:///nowhere/redis.sock?password={SECRET}",
    ],
)
async def test_the_password_is_never_told(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Where the server cannot be reached, neither the error nor its causes, the log nor the repr holds the password."""
    store = RedisStore(url, timeout=20)
    caplog.set_level("DEBUG")

    for call in (store.admit(ask("a")), store.revoke("t", 1), store.ping()):
        with pytest.raises(StoreUnavailableError) as caught:
            await call
        assert SECRET not in "".join(traceback.format_exception(caught.value))

    assert [record.levelname for record in caplog.records if record.name == "asgi_guard"] == ["ERROR"]
    assert SECRET not in caplog.text
    assert SECRET not in repr(store)
    assert math.isfinite(caught.value.retry_after)
    await store.aclose()


@pytest.mark.parametrize(
    "rules",
    [["+ping"], ["~asgi-guard:*", "+ping", "+mget"], ["~other:*", "+@all"]],
    ids=["ping", "no script", "no keys"],
)
async def test_a_server_that_answers_but_may_not_decide(server: Server, rules: list[str]) -> None:
    """A sign of life is what requests need: a user that may not run the script, or not on our keys, has none."""
    server.client.execute_command("ACL", "SETUSER", "few", "reset", "on", f">{SECRET}", *rules)
    store = RedisStore(f"{server.url}?username=few&password={SECRET}", timeout=PATIENCE)
    with pytest.raises(StoreUnavailableError) as caught:
        await store.ping()
    assert "permissions" in str(caught.value.__cause__)
    await store.aclose()
    server.client.execute_command("ACL", "DELUSER", "few")


FIRST_LINE = "+evalsha +eval +mget +psetex +time +client|setname"
AT_ONCE = "+zcount +zscore +zadd +zremrangebyscore +pexpire +zrem +del"


@pytest.mark.parametrize(("limit", "allowed"), [("9/hour by ip", FIRST_LINE), ("2 at once by ip", AT_ONCE)])
async def test_a_sign_of_life_is_what_limits_ask(server: Server, limit: str, allowed: str) -> None:
    """Where limits count requests at once, a sign of life needs the commands for that, and where none does, no more."""
    client = server.client
    client.flushall()
    client.execute_command("ACL", "SETUSER", "few", "reset", "on", f">{SECRET}", "~asgi-guard:*", *FIRST_LINE.split())
    store = RedisStore(f"{server.url}?username=few&password={SECRET}", timeout=PATIENCE)
    RateLimitMiddleware(Echo(), limit=limit, store=store)
    for rule in allowed.split():
        if rule not in (*FIRST_LINE.split(), "+del"):  # what another type of value takes
            with pytest.raises(StoreUnavailableError) as caught:
                await store.ping()
            assert f"'{rule[1:]}'" in str(caught.value.__cause__)
        client.execute_command("ACL", "SETUSER", "few", rule)
    for _ in range(2):
        assert await store.ping() > 0
    await asyncio.sleep(0.01)
    assert client.keys() == []
    await store.aclose()
    client.execute_command("ACL", "DELUSER", "few")


@pytest.mark.parametrize("known", [False, True], ids=["a new server", "the script is known"])
@pytest.mark.parametrize("missing", ["+evalsha", "+eval", "+mget", "+psetex", "+time"])
async def test_a_sign_of_life_asks_as_requests_do(server: Server, missing: str, known: bool) -> None:
    """Whatever of the first line a user lacks, there is no sign of life, whether or not the server knows the script."""
    server.client.script_flush()
    if known:
        server.client.script_load(SCRIPT)
    rules = [rule for rule in FIRST_LINE.split() if rule != missing]
    server.client.execute_command("ACL", "SETUSER", "few", "reset", "on", f">{SECRET}", "~asgi-guard:*", *rules)
    store = RedisStore(f"{server.url}?username=few&password={SECRET}", timeout=PATIENCE)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError) as caught:
            await store.ping()
        assert f"'{missing[1:]}'" in str(caught.value.__cause__)
    await store.aclose()
    server.client.execute_command("ACL", "DELUSER", "few")


async def test_a_server_that_answers_but_may_not_write(server: Server) -> None:
    """Where buckets can only be read, on a replica or in a server that is full, there is no sign of life."""
    store = server.store()
    client = server.client
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreUnavailableError) as full:
            await store.ping()
    finally:
        client.config_set("maxmemory", 0)
    client.replicaof("127.0.0.1", 1)
    try:
        with pytest.raises(StoreUnavailableError) as replica:
            await store.ping()
    finally:
        client.replicaof("no", "one")
    assert "maxmemory" in str(full.value.__cause__)
    assert "read only replica" in str(replica.value.__cause__)
    assert await store.ping() > 0
    await store.aclose()


async def test_a_sign_of_life_leaves_nothing(server: Server) -> None:
    """It needs no script to be known, and what it writes is gone within milliseconds."""
    server.client.flushall()
    server.client.script_flush()
    store = server.store()
    for _ in range(2):
        assert await store.ping() > 0
    await asyncio.sleep(0.01)
    assert server.client.keys() == []
    await store.aclose()


async def test_a_refused_password_is_not_told(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Where the server refuses the password, neither the error nor the log holds it."""
    store = RedisStore(f"{server.url}?username=nobody&password={SECRET}", timeout=20)

    for _ in range(3):
        with pytest.raises(StoreUnavailableError) as caught:
            await store.admit(ask("a"))
        assert SECRET not in "".join(traceback.format_exception(caught.value))

    assert "invalid username-password pair" in caplog.text
    assert SECRET not in caplog.text
    await store.aclose()


def test_how_long_calls_take(server: Server) -> None:
    """The seconds of a call are told as exactly under a loop whose clock counts in milliseconds, as uvloop's does."""
    told: list[float] = []

    async def ask_often() -> None:
        store = server.store()
        store.watch(Watch(lambda seconds, _: told.append(seconds)))
        for _ in range(20):
            await store.admit(ask("timed", 0))
        await store.aclose()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ask_often())
    assert len(told) == 20
    assert all(seconds > 0 and abs(seconds * 1000 - round(seconds * 1000)) > 1e-6 for seconds in told)
