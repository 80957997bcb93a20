"""What a server tells that lets nothing be written, since it is full or a replica: who is revoked, all the same."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest

from asgi_guard import (
    AccessMiddleware,
    Guard,
    IdentityMiddleware,
    RateLimitMiddleware,
    RateSettings,
    RedisStore,
    StoreSettings,
)
from asgi_guard.errors import StoreUnavailableError
from asgi_guard.policy.breaker import Breaker
from asgi_guard.policy.bucket import Admission, Charge, Verdict
from asgi_guard.policy.revocation import Marks, subject_key
from asgi_guard.stores.batching import can_be_read
from asgi_guard.stores.server_link import ServerLink
from asgi_guard.stores.wire import Unwritten, pack, question, read
from tests.asgi import Echo, get
from tests.guarded import settings
from tests.middleware.limiting import bearer
from tests.stores.cluster import PREFIX, Cluster, name
from tests.stores.server import PATIENCE, SLOW, Server, limit, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_guard.stores import Store
    from asgi_guard.testing import LocalIssuer
    from tests.clock import Clock

FEW = limit("2 at once by ip")
STATES = ("full", "a replica", "alone")


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that the test may break."""
    with Server() as started:
        yield started


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A cluster that the test may break."""
    with Cluster() as started:
        yield started


def unwritable(server: Server, state: str = "full") -> None:
    """Have a server let nothing be written, in one of three ways."""
    if state == "a replica":
        server.client.replicaof("127.0.0.1", 1)
    elif state == "alone":
        server.client.config_set("min-replicas-to-write", 2)
    else:
        server.client.config_set("maxmemory", 1)


async def counted(store: Store, token: str, *keys: str, lease: str = "") -> bool | None:
    """What is told of a token where the request beside it cannot be counted."""
    charges = [Charge(SLOW, key) for key in keys]
    if lease:
        charges.append(Charge(FEW, f"{keys[0]}-way"))
    with pytest.raises(StoreUnavailableError) as caught:
        await store.admit(Admission(tuple(charges), token, lease))
    return caught.value.revoked


@pytest.mark.parametrize("state", STATES)
async def test_who_is_revoked_is_told_all_the_same(server: Server, state: str) -> None:
    """Nobody is counted, and of every token it is told whether it is revoked, also once the breaker is open."""
    breaker = Breaker(first_wait=600, max_wait=600)
    store = server.store(breaker=breaker)
    await store.revoke("gone", 600)
    before = server.client.keys()
    unwritable(server, state)

    for _ in range(6):
        for lease in ("", "l"):
            told = await asyncio.gather(*(counted(store, token, token, lease=lease) for token in ("gone", "kept")))
            assert told == [True, False]
        looked_up = await asyncio.gather(*(store.admit(Admission((), token)) for token in ("gone", "kept")))
        assert [verdict.revoked for verdict in looked_up] == [True, False]
        assert (await store.admit(Admission((), marks=Marks("gone", None)))).revoked
        with pytest.raises(StoreUnavailableError) as uncounted:
            await store.admit(Admission((Charge(SLOW, "a"),)))
        assert not uncounted.value.sent

    assert breaker.is_open
    assert server.client.keys() == before
    with pytest.raises(StoreUnavailableError) as refused:
        await store.admit(Admission((Charge(SLOW, "a"),)))
    assert (refused.value.sent, refused.value.revoked) == (False, None)
    await store.aclose()


async def test_what_a_full_server_cannot_take_is_told_later(server: Server) -> None:
    """What an app charged for a request that ends while the server is full is taken once there is room."""
    store = server.store()
    assert (await store.admit(Admission((Charge(SLOW, "a"),)))).admitted
    unwritable(server)
    store.tell(Admission((Charge(SLOW, "a", 2),), settles=True))
    await store._line.settled()
    server.client.config_set("maxmemory", 0)

    async def taken() -> bool:
        return (await store.admit(Admission((Charge(SLOW, "a", 0),)))).readings[0].remaining == SLOW.burst - 3

    await until(taken)
    await store.aclose()


async def test_look_ups_end_no_outage(server: Server, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """That tokens are looked up neither closes the breaker nor is its probe; the log tells one outage, and its end."""
    store = server.store(breaker=Breaker(threshold=1, first_wait=10, max_wait=10))
    unwritable(server)
    assert await counted(store, "t", "a") is False
    clock.now += 10
    for _ in range(3):
        assert not (await store.admit(Admission((), "t"))).revoked
    assert [each.is_open for each in store.breakers] == [True]
    server.client.config_set("maxmemory", 0)
    assert (await store.admit(Admission((Charge(SLOW, "a"),), "t"))).admitted  # so nothing else was the probe
    assert not store.is_away
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert "OOM command not allowed" in caplog.text
    await store.aclose()


async def test_a_refusal_ends_no_outage(server: Server, clock: Clock) -> None:
    """Whoever is over a limit, for whom nothing is written, does not show that a full server is well again."""
    store = server.store(breaker=Breaker(threshold=1, first_wait=10, max_wait=10))
    over = Admission((Charge(SLOW, "over", SLOW.burst),))
    assert (await store.admit(over)).admitted
    unwritable(server)
    assert await counted(store, "t", "a") is False
    for _ in range(3):
        clock.now += 10
        assert not (await store.admit(over)).admitted
        assert store.is_away
    await store.aclose()


@pytest.mark.parametrize("state", STATES)
async def test_a_revocation_that_fails_stops_no_look_up(server: Server, state: str) -> None:
    """That a log-out cannot be written is told to the app, and whoever is revoked already goes on to be refused."""
    store = server.store(breaker=Breaker(threshold=1, first_wait=600, max_wait=600))
    await store.revoke("gone", 600)
    unwritable(server, state)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError):
            await store.revoke("late", 600)
        assert [await counted(store, token, "a") for token in ("gone", "kept")] == [True, False]
        assert (await store.admit(Admission((), "gone"))).revoked
    await store.aclose()


async def test_readiness_leaves_a_connection_that_leads_to_no_master(server: Server) -> None:
    """Whoever pings a replica takes another connection the next time, which leads to the master where one is named."""
    store = server.store()
    await store.ping()
    before = server.client.info("stats")["total_connections_received"]
    unwritable(server, "a replica")
    for more in (0, 1, 2):  # the first one finds out
        with pytest.raises(StoreUnavailableError):
            await store.ping()
        assert server.client.info("stats")["total_connections_received"] == before + more
    await store.aclose()


async def test_a_server_that_is_gone_after_all_is_not_asked(server: Server) -> None:
    """Once a server that was full does not answer at all, nobody waits for it on account of a token."""
    store = RedisStore(server.url, timeout=0.2, breaker=Breaker(threshold=1, first_wait=600, max_wait=600))
    unwritable(server)
    assert await counted(store, "t", "a") is False
    pid = server.pid
    server.signal(pid, signal.SIGSTOP)
    try:
        assert await counted(store, "t", "a") is None
        async with asyncio.timeout(PATIENCE):
            for _ in range(500):
                assert await counted(store, "t", "a") is None
        with pytest.raises(StoreUnavailableError, match="is not asked"):
            await store.admit(Admission((), "t"))
    finally:
        server.signal(pid, signal.SIGCONT)
    await store.aclose()


@pytest.mark.parametrize("state", STATES)
async def test_who_is_asked_behind_a_refusal_is_answered(server: Server, state: str) -> None:
    """A full server keeps its connection; what may be no master loses it once all that it was asked is answered."""
    store = server.store()
    await store.revoke("gone", 600)
    await store.ping()  # so that the script is known
    unwritable(server, state)
    link = ServerLink(store.client(), None)
    await link.open()
    look, charge = (question(Admission(charges, "gone"), PREFIX) for charges in ((), (Charge(SLOW, "a"),)))

    refused = asyncio.create_task(link.ask([charge]))
    await asyncio.sleep(0)
    waits = link.call([pack(b"XREAD", b"BLOCK", b"200", b"STREAMS", b"nothing", b"$")])
    looked_up, late = (asyncio.create_task(link.ask([each])) for each in (look, charge))

    assert [type(answer) for answer in await refused] == [Unwritten]
    assert link.is_open is (state == "full")
    if not link.is_open:
        await link.open()
    assert not waits.done()
    (verdict,) = await looked_up
    assert isinstance(verdict, Verdict)
    assert verdict.revoked
    assert [type(answer) for answer in await late] == [Unwritten]
    assert link.is_open  # for it was the last one that refused, and this one has refused nothing
    link.close()
    await store.aclose()


OLD = b"@user_script: 172: -OOM command not allowed"


@pytest.mark.parametrize("said", [b"OOM command not allowed", b"-OOM command not allowed\r\n", OLD])
async def test_the_words_of_old_servers(said: bytes) -> None:
    """Servers before 7 give a script an error as they would send it, and mean the same."""
    asked = question(Admission((Charge(SLOW, "a"),), "t"), "")
    (answer,) = read([b"1,1,1,0", said], [asked])
    assert isinstance(answer, Unwritten)
    assert (str(answer.error), answer.revoked) == ("OOM command not allowed", True)
    assert can_be_read(answer.error)


@pytest.mark.parametrize("allows", [True, False])
async def test_tokens_in_front_of_a_full_server(
    server: Server, issuer: LocalIssuer, allows: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Limits meet what they say, whoever is revoked is refused, and nobody else, whatever was chosen for an outage."""
    store = server.store()
    access = AccessMiddleware(Echo(), deny_unknown_revocation=not allows)
    limited = RateLimitMiddleware(access, limit="1000/hour by user", store=store, revocation=True)
    app = IdentityMiddleware(limited, issuers=[issuer.accepted()])
    kept, gone = (issuer.token(subject) for subject in ("alice", "mallory"))
    assert [(await get(app, headers=[bearer(token)])).status for token in (kept, gone)] == [200, 200]
    await store.revoke(subject_key(issuer.url, "mallory"), 600, 2**52)
    caplog.clear()
    unwritable(server)
    for _ in range(8):
        assert [(await get(app, headers=[bearer(token)])).status for token in (kept, gone)] == [200, 401]
    first, second = (record.getMessage() for record in caplog.records)
    assert first.endswith("where that happens, limits meet 'local'")
    assert 'so it is not asked for a while: ResponseError: "OOM' in second
    await store.aclose()


@pytest.mark.parametrize(("limit", "status"), [("9/second by user", 200), ("9/second by user on-failure deny", 503)])
async def test_readiness_in_front_of_a_full_server(
    server: Server, issuer: LocalIssuer, limit: str, status: int
) -> None:
    """A process that has to ask a full server who is revoked is ready, unless limits refuse without being counted."""

    async def ready() -> int:
        rate, store = RateSettings(limit=limit), StoreSettings.model_validate({"url": server.url, "timeout": 5})
        guard = Guard(Echo(), settings(issuer, rate=rate, store=store), http_client=issuer.client)
        answer = await get(guard, "/health/ready")
        assert guard.store is not None
        await guard.store.aclose()
        return answer.status

    assert await ready() == 200
    unwritable(server)
    assert await ready() == status
    server.kill()
    assert await ready() == 503


def token(master: int) -> str:
    """The name of a token whose slot, among the revoked, is a master's."""
    return name(master, prefix="revoked:")


async def test_a_full_node_tells_who_is_revoked(cluster: Cluster) -> None:
    """Where one node of a cluster is full, what it knows of the revoked is told, and so is what the others know."""
    store = cluster.store(breaker=Breaker(first_wait=600, max_wait=600))
    for master in range(2):
        await store.revoke(token(master), 600)
    cluster.nodes[0].client.config_set("maxmemory", 1)
    for _ in range(5):
        for master, revoked in ((0, True), (1, True), (2, False)):
            assert await counted(store, token(master), name(0), name(1)) is revoked
            assert (await store.admit(Admission((), token(master)))).revoked is revoked
    assert [breaker.is_open for breaker in store.breakers].count(True) == 1
    # What the other nodes took was given back.
    assert (await store.admit(Admission((Charge(SLOW, name(1), 0),)))).readings[0].remaining == SLOW.burst
    await store.aclose()


async def test_a_node_that_lets_nothing_be_written_keeps_its_connection(cluster: Cluster) -> None:
    """What refuses to write for want of replicas is the same node by any connection, so none is opened anew."""
    store = cluster.store(breaker=Breaker(threshold=20))
    node = cluster.nodes[0].client
    assert (await store.admit(Admission((Charge(SLOW, name(0)),)))).admitted
    node.config_set("min-replicas-to-write", 2)
    opened = node.info("stats")["total_connections_received"]
    for _ in range(10):
        assert await counted(store, token(0), name(0)) is False
    assert node.info("stats")["total_connections_received"] == opened
    node.config_set("min-replicas-to-write", 0)
    assert (await store.admit(Admission((Charge(SLOW, name(0)),)))).admitted
    await store.aclose()


@pytest.mark.parametrize("looked_up", [True, False])
async def test_one_request_tries_a_full_node(cluster: Cluster, clock: Clock, looked_up: bool) -> None:
    """Once the time has come to try a full node again one request does, and the others are turned away meanwhile."""
    store = cluster.store(breaker=Breaker(threshold=1, first_wait=10, max_wait=10))
    cluster.nodes[0].client.config_set("maxmemory", 1)
    assert await counted(store, token(0), name(0)) is False
    clock.now += 10

    async def is_asked(number: int) -> bool:
        charges = (Charge(SLOW, name(0)), Charge(SLOW, name(1)))
        with pytest.raises(StoreUnavailableError) as caught:
            await store.admit(Admission(charges, token(0) if looked_up else None))
        return "is not asked" not in str(caught.value)

    assert [await each for each in asyncio.as_completed(map(is_asked, range(20)))].count(True) == 1
    await store.aclose()


@pytest.mark.parametrize("stuck", [True, False], ids=["stuck", "gone"])
async def test_a_node_that_is_out_takes_no_revocation_along(cluster: Cluster, stuck: bool) -> None:
    """While a node is out, what the others tell of the revoked counts, also once that node is not asked any more."""
    store = cluster.store(timeout=0.3, breaker=Breaker(first_wait=600, max_wait=600))
    lost, held, kept = (token(master) for master in range(3))
    await store.revoke(held, 600)
    if stuck:
        cluster.nodes[0].signal(signal.SIGSTOP)
    else:
        cluster.nodes[0].kill()
    for _ in range(5):
        told = [await counted(store, each, name(0)) for each in (held, kept, lost)]
        assert told == [True, False, None]
        with pytest.raises(StoreUnavailableError) as caught:
            await store.admit(Admission((), lost, marks=Marks(held, kept)))
        assert caught.value.revoked is True
    with pytest.raises(StoreUnavailableError, match="is not asked"):
        await store.admit(Admission((Charge(SLOW, name(0)),)))
    await store.aclose()
