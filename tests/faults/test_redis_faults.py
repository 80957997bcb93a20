"""What becomes of requests when Redis is gone, stuck, restarted, or refuses: each on a server of its own."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from asgi_guard import RateLimitMiddleware
from asgi_guard.errors import StoreUnavailableError
from asgi_guard.policy.breaker import Breaker
from asgi_guard.policy.bucket import Admission, Charge
from asgi_guard.stores import RedisStore
from tests.asgi import Echo, get
from tests.stores.server import PATIENCE, SLOW, VAST, Server, ask, limit, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from asgi_guard.policy.rates import OnStoreFailure

NOWHERE = "unix:///nowhere/redis.sock"


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that the test may break."""
    with Server() as started:
        yield started


@pytest.fixture
def paused(server: Server) -> Iterator[Server]:
    """A server that accepts connections and answers nothing, until the test lets it go on."""
    pid = server.pid
    server.signal(pid, signal.SIGSTOP)
    yield server
    server.signal(pid, signal.SIGCONT)


def brief() -> Breaker:
    """A breaker that opens at the third failure and probes often."""
    return Breaker(first_wait=0.02, max_wait=0.02)


async def failures(store: RedisStore, calls: int, key: str = "a") -> int:
    """Make calls one after the other; how many the store did not answer. None may hang, and none may fail otherwise."""
    failed = 0
    async with asyncio.timeout(PATIENCE):
        for _ in range(calls):
            try:
                await store.admit(ask(key, rule=VAST))
            except StoreUnavailableError as error:
                failed += 1 if error.retry_after > 0 else 1000
    return failed


async def answers(store: RedisStore) -> None:
    """Ask until the store answers."""

    async def answered() -> bool:
        return await failures(store, 1, "other") == 0

    await until(answered)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.levelname for record in caplog.records if record.name == "asgi_guard"]


@pytest.mark.parametrize("scheme", ["redis", "rediss", "unix"])
async def test_nobody_listens(scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    """Where nobody listens, every call fails as unavailable, the breaker opens, and the log says it once."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))  # bound and not listened on: connections are refused
        url = NOWHERE if scheme == "unix" else f"{scheme}://127.0.0.1:{free.getsockname()[1]}"
        store = RedisStore(url, timeout=PATIENCE)

        assert await failures(store, 50) == 50
        with pytest.raises(StoreUnavailableError, match="is not asked"):
            await store.admit(ask("a"))
        with pytest.raises(StoreUnavailableError):
            await store.revoke("t", 60)
        with pytest.raises(StoreUnavailableError):
            await store.ping()
    assert told(caplog) == ["ERROR"]
    await store.aclose()


async def test_killed_and_started_again(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """A server that is killed costs answers until it is back, no restart of ours, and one log line a transition."""
    store = server.store(breaker=brief())
    assert await failures(store, 3) == 0

    server.kill()
    assert await failures(store, 20) == 20
    assert told(caplog) == ["ERROR"]
    await asyncio.to_thread(server.start)
    await answers(store)

    assert await failures(store, 20) == 0
    assert told(caplog) == ["ERROR", "WARNING"]
    await store.aclose()


async def test_stuck_server_holds_nobody_up(paused: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Where the server is stuck, calls end at their deadline, and once the breaker is open they do not wait at all."""
    store = RedisStore(paused.url, timeout=0.05, breaker=Breaker(first_wait=600, max_wait=600))

    assert await failures(store, 500) == 500

    assert told(caplog) == ["ERROR"]
    with pytest.raises(StoreUnavailableError, match="is not asked"):
        await store.admit(ask("a"))
    await store.aclose()


async def test_nothing_is_charged_twice_after_a_stall(server: Server) -> None:
    """Calls that a stuck server did not answer are charged once at most when it goes on, and those not sent never."""
    store = RedisStore(server.url, timeout=PATIENCE)
    assert await failures(store, 3) == 0  # the script is known
    server.client.config_resetstat()
    hasty = RedisStore(server.url, timeout=0.1, breaker=Breaker(threshold=5, first_wait=600, max_wait=600))
    pid = server.pid
    await hasty.ping()
    server.signal(pid, signal.SIGSTOP)
    try:
        lost = await failures(hasty, 200)
    finally:
        server.signal(pid, signal.SIGCONT)
    assert await failures(store, 10) == 0

    assert lost == 200
    assert 10 <= server.calls("psetex") <= 15
    await store.aclose()
    await hasty.aclose()


async def test_one_stall_is_one_failure_however_many_wait(paused: Server) -> None:
    """A stall that fails many calls at once opens the breaker for its first wait, not for its longest."""
    breaker = Breaker(first_wait=30, max_wait=3000)
    store = RedisStore(paused.url, timeout=0.2, breaker=breaker)

    results = await asyncio.gather(*(store.admit(ask("a")) for _ in range(60)), return_exceptions=True)

    assert all(isinstance(result, StoreUnavailableError) for result in results)
    with pytest.raises(StoreUnavailableError) as caught:
        await store.admit(ask("a"))
    assert 0 < caught.value.retry_after <= 30
    await store.aclose()


async def test_no_call_outlives_its_deadline(paused: Server) -> None:
    """However many calls end at their deadlines at once, none of them hangs on in the client."""
    for _ in range(6):
        store = RedisStore(paused.url, timeout=0.05)
        async with asyncio.timeout(4):
            results = await asyncio.gather(*(store.admit(ask("a")) for _ in range(60)), return_exceptions=True)
        assert all(isinstance(result, StoreUnavailableError) for result in results)
        await store.aclose()


async def test_a_ping_tells_and_closes_the_breaker(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """A ping asks even where the breaker is open, and its answer closes it."""
    store = server.store(breaker=Breaker(first_wait=600, max_wait=600))
    server.kill()
    assert await failures(store, 5) == 5
    with pytest.raises(StoreUnavailableError):
        await store.ping()
    await asyncio.to_thread(server.start)
    with pytest.raises(StoreUnavailableError, match="is not asked"):
        await store.admit(ask("a"))

    await store.ping()

    assert await failures(store, 5) == 0
    assert told(caplog) == ["ERROR", "WARNING"]
    await store.aclose()


async def test_connections_closed_while_idle_cost_no_request(server: Server) -> None:
    """Connections that the server closed while nobody used them are opened anew without a failure."""
    store = server.store()
    await asyncio.gather(*(store.admit(ask("a", rule=VAST)) for _ in range(8)))

    async def alone() -> bool:
        return len(server.client.client_list()) == 1

    for _ in range(5):
        server.client.client_kill_filter(_type="normal", skipme=True)
        await until(alone)
        await asyncio.sleep(0.001)  # the event loop hears of it
        assert await failures(store, 4) == 0
    await store.aclose()


async def test_no_connection_is_kept_that_was_left(server: Server) -> None:
    """However often the connection is lost, or leads to no master, the client has no other beside that in use."""
    store = RedisStore(f"{server.url}?max_connections=2", timeout=PATIENCE, breaker=Breaker(threshold=1000))

    async def alone(others: int = 0) -> bool:
        return len(server.client.client_list()) == 1 + others

    for _ in range(4):
        assert await failures(store, 1) == 0
        server.client.client_kill_filter(_type="normal", skipme=True)
        await until(alone)
        await asyncio.sleep(0.001)  # the event loop hears of it
    for _ in range(4):
        server.client.replicaof("127.0.0.1", "1")
        assert await failures(store, 1) == 1
        server.client.replicaof("no", "one")
        assert await failures(store, 1) == 0
    await until(lambda: alone(1))
    await store.aclose()


async def test_connections_killed_under_load_lose_only_what_was_under_way(server: Server) -> None:
    """Where connections are killed under load, calls are answered or unavailable, and all is well afterwards."""
    store = server.store(breaker=brief())
    done = asyncio.Event()

    async def kill() -> int:
        killed = 0
        while not done.is_set():
            killed += server.client.client_kill_filter(_type="normal", skipme=True)
            await asyncio.sleep(0.01)
        return killed

    killer = asyncio.create_task(kill())
    failed = sum(await asyncio.gather(*(failures(store, 50, f"k{index}") for index in range(8))))
    done.set()

    assert await killer > 0
    await answers(store)
    assert await failures(store, 20) == 0
    left = [(await store.admit(ask(f"k{index}", 0, VAST))).readings[0].remaining for index in range(8)]
    assert failed <= 400
    assert all(VAST.burst - 50 <= remaining for remaining in left)
    await store.aclose()


NEEDED = "+evalsha +eval +mget +psetex +time +client|setname"


async def test_the_least_permissions(server: Server) -> None:
    """A user who may run these commands on keys of the prefix only can do all that a store does."""
    rules = f"{NEEDED} +pttl".split()
    server.client.execute_command("ACL", "SETUSER", "guard", "on", ">p@ss/word", "~asgi-guard:*", *rules)
    store = RedisStore(f"unix://guard:p%40ss%2Fword@{server.socket}", timeout=PATIENCE)

    await store.ping()
    await store.revoke("t", 60)
    verdict = await store.admit(ask("a", token_id="t"))

    assert (verdict.admitted, verdict.revoked, verdict.readings[0].remaining) == (True, True, 4)
    await store.aclose()


@pytest.mark.parametrize("missing", NEEDED.split())
async def test_a_missing_permission_never_admits(server: Server, missing: str) -> None:
    """A user who lacks a permission gets an error, never an answer that ignores the limit."""
    rules = [rule for rule in NEEDED.split() if rule != missing]
    server.client.execute_command("ACL", "SETUSER", "guard", "on", "nopass", "~asgi-guard:*", *rules)
    server.client.eval("return 1", 0)
    store = RedisStore(f"unix://guard:x@{server.socket}", timeout=PATIENCE)

    verdicts = []
    for _ in range(8):
        try:
            verdicts.append(await store.admit(ask("a", token_id="t")))
        except StoreUnavailableError:
            continue

    assert verdicts == []
    await store.aclose()


async def test_what_is_forbidden_is_told_at_start_up(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Start-up tells what a server says that answers, and refuses, and that it decides once it does."""
    allow = ("ACL", "SETUSER", "guard", "on", "nopass", "~asgi-guard:*", *NEEDED.split())
    server.client.execute_command(*allow, "-evalsha")
    store = RedisStore(f"unix://guard:x@{server.socket}", timeout=PATIENCE)
    app = RateLimitMiddleware(Echo(), limit="4/hour by ip", store=store)
    await app.startup()
    (record,) = [record for record in caplog.records if record.name == "asgi_guard"]
    assert re.fullmatch(
        r"the store does not answer \(\w+\): .*evalsha.*; until it does, limits meet 'local'", record.getMessage()
    )
    server.client.execute_command(*allow)
    assert (await get(app)).status == 200
    assert told(caplog) == ["WARNING"] * 2
    assert caplog.messages[-1] == "the store answers again"
    await store.aclose()


async def test_an_outage_since_start_up_is_over_once(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """An outage that start-up meets, and requests after it, is told by both, and its end by one line."""
    store = RedisStore(server.url, timeout=PATIENCE, breaker=brief())
    server.kill()
    app = RateLimitMiddleware(Echo(), limit="1000/hour by ip", store=store, on_store_failure="deny")
    await app.startup()
    assert [(await get(app)).status for _ in range(4)] == [503] * 4
    await asyncio.to_thread(server.start)

    async def served() -> bool:
        return (await get(app)).status == 200

    await until(served)
    assert [(await get(app)).status for _ in range(3)] == [200] * 3
    assert told(caplog) == ["WARNING", "ERROR", "WARNING"]
    await store.aclose()


async def test_keys_outside_of_the_permitted_prefix(server: Server) -> None:
    """A user who may not touch the guard's keys gets an error, and nothing is charged."""
    server.client.execute_command("ACL", "SETUSER", "guard", "on", "nopass", "~other:*", "+@all")
    store = RedisStore(f"unix://guard:x@{server.socket}", timeout=PATIENCE)

    assert await failures(store, 4) == 4

    assert server.client.keys() == []
    await store.aclose()


@pytest.mark.parametrize(
    ("password", "served"), [("s3cr3t", True), ("wrong", False), (None, False)], ids=["right", "wrong", "none"]
)
async def test_a_server_with_a_password(password: str | None, served: bool) -> None:
    """A server with a password serves those who have it."""
    with Server() as server:
        server.client.config_set("requirepass", "s3cr3t")
        url = server.url if password is None else f"{server.url}?password={password}"
        store = RedisStore(url, timeout=PATIENCE)
        assert (await failures(store, 4) == 0) is served
        await store.aclose()


async def test_a_full_or_read_only_server_is_unavailable(server: Server) -> None:
    """A server that may not write is as good as none: the charge is not made, and that is said."""
    store = server.store()
    assert await failures(store, 1) == 0
    server.client.config_set("maxmemory", "1")
    assert await failures(store, 1) == 1
    server.client.config_set("maxmemory", "0")
    assert await failures(store, 1) == 0
    server.client.execute_command("REPLICAOF", "127.0.0.1", "1")
    assert await failures(store, 1) == 1
    await store.aclose()


FEW = limit("2 at once by ip")


def under_way(lease: str, key: str = "way", *, settles: bool = False) -> Admission:
    return Admission((Charge(SLOW, f"{key}-rate", 1), Charge(FEW, key, 0)), lease=lease, settles=settles)


@pytest.fixture
async def full(server: Server) -> AsyncIterator[RedisStore]:
    """The store of a server that is full, with one request under way."""
    store = server.store()
    assert (await store.admit(under_way("first"))).admitted
    # Of a worker that died, so that there is something to remove.
    server.client.zadd("asgi-guard:way", {"dead": 1})
    server.client.config_set("maxmemory", "1")
    yield store
    await store.aclose()


@pytest.mark.parametrize(
    "request_", [under_way("second"), under_way("second", "another"), Admission((Charge(FEW, "way"),), lease="second")]
)
async def test_a_full_server_counts_nobody_at_once(server: Server, full: RedisStore, request_: Admission) -> None:
    """A server that is full refuses who would be counted among those under way, too, and keeps nothing of it."""
    before = {key: server.client.dump(key) for key in server.client.scan_iter()}
    with pytest.raises(StoreUnavailableError) as caught:
        await full.admit(request_)
    assert "OOM" in str(caught.value.__cause__)
    assert {key: server.client.dump(key) for key in server.client.scan_iter()} == before
    with pytest.raises(StoreUnavailableError):
        await full.ping()


async def test_a_full_server_is_told_who_is_gone(server: Server, full: RedisStore) -> None:
    """Who ends gives the place back though the server is full, and lets nobody in who is asked about beside it."""
    full.tell(under_way("first", settles=True)._replace(charges=(Charge(FEW, "way", 0),)))
    with pytest.raises(StoreUnavailableError):
        await full.admit(under_way("second"))
    full.tell(under_way("first", settles=True)._replace(charges=(Charge(FEW, "way", 0),)))

    async def gone() -> bool:
        return server.client.zscore("asgi-guard:way", "first") is None

    await until(gone)
    server.client.config_set("maxmemory", "0")
    verdict = await full.admit(under_way("second"))
    assert (verdict.admitted, verdict.readings[1].remaining) == (True, 1)
    assert server.client.zrange("asgi-guard:way", 0, -1) == [b"second"]


async def test_limits_of_a_full_server_meet_what_they_say(server: Server) -> None:
    """With a limit on requests at once, too, a server that is full is one that does not answer, as limits go."""
    store = server.store(breaker=Breaker(threshold=10_000))
    app = RateLimitMiddleware(Echo(), limit="20 at once by ip; 5/hour by ip", store=store, on_store_failure="deny")
    assert (await get(app)).status == 200
    server.client.config_set("maxmemory", "1")
    statuses = {(await get(app, client=(f"192.0.2.{number}", 1))).status for number in range(20)}
    assert statuses == {503}
    assert server.client.keys("*192.0.2.*") == []
    await store.aclose()


@pytest.mark.parametrize(
    ("choice", "workers", "statuses"),
    [
        pytest.param("allow", 1, [200] * 6, id="allow"),
        pytest.param("deny", 1, [503] * 6, id="deny"),
        pytest.param("local", 1, [200, 200, 200, 200, 429, 429], id="local, one worker"),
        pytest.param("local", 2, [200, 200, 429, 429, 429, 429], id="local, two workers"),
        pytest.param("local", 100, [200, 429, 429, 429, 429, 429], id="local, more workers than units"),
    ],
)
async def test_what_requests_meet_without_a_store(choice: OnStoreFailure, workers: int, statuses: list[int]) -> None:
    """Where the store is gone, requests meet what the operator chose, before and after the breaker has opened."""
    store = RedisStore(NOWHERE, timeout=PATIENCE)
    echo = Echo()
    app = RateLimitMiddleware(echo, limit="4/hour by ip", store=store, on_store_failure=choice, workers=workers)

    exchanges = [await get(app) for _ in range(6)]

    assert [exchange.status for exchange in exchanges] == statuses
    assert [exchange.error for exchange in exchanges] == [None] * 6
    assert len(echo.scopes) == statuses.count(200)
    for exchange in exchanges:
        assert ("ratelimit" in exchange.headers) is (choice == "local")
        assert ("retry-after" in exchange.headers) is (exchange.status != 200)
    await store.aclose()


async def test_the_store_takes_over_again(server: Server) -> None:
    """When the store is back, its buckets count again, as they were before."""
    store = server.store(breaker=brief())
    app = RateLimitMiddleware(Echo(), limit="4/hour by ip", store=store, on_store_failure="deny")
    assert [(await get(app)).status for _ in range(3)] == [200] * 3
    before = {key: server.client.get(key) for key in server.client.scan_iter()}

    server.kill()
    assert [(await get(app)).status for _ in range(4)] == [503] * 4
    await asyncio.to_thread(server.start)
    for key, value in before.items():
        server.client.set(key, value)  # this server keeps nothing over a restart
    await answers(store)

    assert [(await get(app)).status for _ in range(2)] == [200, 429]
    await store.aclose()
