"""What becomes of those who wait together when the server is stuck, their callers leave, or their event loop ends."""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from typing import TYPE_CHECKING

import pytest

from asgi_guard.errors import StoreUnavailableError
from asgi_guard.policy.breaker import Breaker
from asgi_guard.policy.bucket import Admission, Charge, Verdict
from asgi_guard.stores import RedisStore
from asgi_guard.stores.batching import MAX_KEYS
from tests.stores.held import turns
from tests.stores.server import PATIENCE, SLOW, VAST, Server, ask, until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that the test may stop."""
    with Server() as started:
        yield started


async def test_who_was_not_sent_before_the_deadline_is_never_charged(server: Server) -> None:
    """Behind a stuck server everyone fails by the deadline, and of those only the few that were sent may be charged."""
    store = RedisStore(server.url, timeout=0.3, breaker=Breaker(threshold=1000))
    await store.admit(ask("warm"))
    pid = server.pid
    server.signal(pid, signal.SIGSTOP)
    try:
        asked = [asyncio.create_task(store.admit(ask(f"k{index}", rule=VAST))) for index in range(500)]
        async with asyncio.timeout(PATIENCE):
            results = await asyncio.gather(*asked, return_exceptions=True)
    finally:
        server.signal(pid, signal.SIGCONT)
    assert all(isinstance(result, StoreUnavailableError) for result in results)

    later = server.store()
    verdicts = await asyncio.gather(*(later.admit(ask(f"k{index}", 0, VAST)) for index in range(500)))
    taken = [VAST.burst - verdict.readings[0].remaining for verdict in verdicts]
    assert set(taken) <= {0, 1}
    assert not any(taken[MAX_KEYS:])
    await later.aclose()
    await store.aclose()


async def test_cancelled_callers_of_a_stuck_server_cost_nobody_an_answer(server: Server) -> None:
    """Callers who leave while the server is stuck are gone at once, and when it goes on all others are answered."""
    store = server.store()
    await store.admit(ask("warm"))
    pid = server.pid
    server.signal(pid, signal.SIGSTOP)
    try:
        tasks = [asyncio.create_task(store.admit(ask(f"k{index}"))) for index in range(300)]
        await turns(20)
        for task in tasks[::2]:
            task.cancel()
        gone = await asyncio.gather(*tasks[::2], return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in gone)
        assert not any(task.done() for task in tasks[1::2])
    finally:
        server.signal(pid, signal.SIGCONT)

    verdicts = await asyncio.gather(*tasks[1::2])

    assert [verdict.readings[0].remaining for verdict in verdicts] == [4] * 150
    await store.aclose()


async def test_probes_whose_callers_leave_do_not_keep_a_server_out(server: Server) -> None:
    """While the server is stuck every probe's caller leaves; once it goes on, the next probe brings everyone back."""
    store = RedisStore(server.url, timeout=PATIENCE, breaker=Breaker(threshold=1, first_wait=0.01, max_wait=0.01))
    await store.admit(ask("a"))
    server.kill()
    with pytest.raises(StoreUnavailableError):
        await store.admit(ask("a"))
    await asyncio.to_thread(server.start)
    pid = server.pid
    server.signal(pid, signal.SIGSTOP)
    left = 0

    async def left_often() -> bool:
        nonlocal left
        probe = asyncio.create_task(store.admit(ask("a")))
        await turns(left % 7 + 1)
        probe.cancel()
        (result,) = await asyncio.gather(probe, return_exceptions=True)
        left += isinstance(result, asyncio.CancelledError)
        return left >= 5

    try:
        await until(left_often)
    finally:
        server.signal(pid, signal.SIGCONT)

    async def answered() -> bool:
        try:
            return (await store.admit(ask("b", 0))).admitted
        except StoreUnavailableError:
            return False

    await until(answered)
    await store.aclose()


@pytest.mark.filterwarnings("ignore:(unclosed|loop is closed):ResourceWarning")
def test_event_loops_that_end_in_the_middle(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Event loops that end while requests wait for a stuck server leave no task behind, and the next one is served."""
    store = server.store()
    pid = server.pid

    async def left() -> list[asyncio.Task[Verdict]]:
        tasks = [asyncio.create_task(store.admit(ask("a", rule=VAST))) for _ in range(300)]
        store.tell(Admission((Charge(VAST, "a", 1),), settles=True))
        await turns(20)
        return tasks

    async def served() -> Verdict:
        verdict = await store.admit(ask("b"))
        await store.aclose()
        return verdict

    for remaining in (4, 3):
        server.signal(pid, signal.SIGSTOP)
        try:
            tasks = asyncio.run(left())
        finally:
            server.signal(pid, signal.SIGCONT)
        assert all(task.cancelled() for task in tasks)
        assert asyncio.run(served()).readings[0].remaining == remaining
        gc.collect()  # so that Python complains of tasks left behind here, and in no other test
    assert [record.getMessage() for record in caplog.records] == []


async def test_nobody_waits_longer_than_the_deadline(server: Server) -> None:
    """Callers that come one after the other to a stuck server fail by their own deadlines, in order."""
    store = RedisStore(server.url, timeout=0.2, breaker=Breaker(threshold=1000))
    await store.admit(ask("warm", rule=SLOW))
    pid = server.pid
    ends: list[int] = []

    async def one(index: int) -> None:
        with pytest.raises(StoreUnavailableError):
            await store.admit(ask("a"))
        ends.append(index)

    server.signal(pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            for index in range(6):
                group.create_task(one(index))
                started = time.monotonic()

                async def later(since: float = started) -> bool:
                    return time.monotonic() - since > 0.03

                await until(later)
    finally:
        server.signal(pid, signal.SIGCONT)
    assert ends == list(range(6))
    await store.aclose()


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_a_loop_that_was_held_up_is_no_failure_of_the_store(server: Server, turns: int) -> None:
    """Requests that wait while other work holds the event loop up, sent or not, get their answers all the same."""
    store = server.store(timeout=0.05)
    await store.ping()
    before = server.client.info("stats")["total_connections_received"]
    for _ in range(5):
        waiting = asyncio.ensure_future(store.admit(ask("a", 0)))
        for _ in range(turns):
            await asyncio.sleep(0)
        for _ in range(3):
            time.sleep(0.1)  # noqa: ASYNC251 - that is what holds the loop up
            await asyncio.sleep(0)
        assert (await waiting).admitted
    assert server.client.info("stats")["total_connections_received"] == before
    await store.aclose()


def test_a_stall_under_uvloop(server: Server) -> None:
    """Under a loop that runs timers before the tasks that it woke, a stall ends no look at who has waited too long.

    It does so where those who are let go keep the loop busy.
    """
    uvloop = pytest.importorskip("uvloop")
    told: list[dict[str, object]] = []

    async def one(store: RedisStore, name: str) -> bool:
        try:
            return (await store.admit(ask(name, rule=VAST))).admitted
        except StoreUnavailableError:
            time.sleep(0.002)  # noqa: ASYNC251 - that is what keeps it busy
            return False

    async def stalls() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        store = RedisStore(server.url, timeout=0.05, breaker=Breaker(threshold=1000_000))
        await store.ping()
        pid = server.pid
        for _ in range(8):
            server.signal(pid, signal.SIGSTOP)
            try:
                async with asyncio.timeout(PATIENCE):
                    asked = []
                    for index in range(80):
                        asked.append(asyncio.create_task(one(store, f"k{index}")))
                        await asyncio.sleep(0.001)
                    assert not any(await asyncio.gather(*asked))
            finally:
                server.signal(pid, signal.SIGCONT)
            await until(lambda: one(store, "warm"))
        await store.aclose()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(stalls())
    assert told == []
