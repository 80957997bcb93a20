"""The example's service as one replica serves it: the article's numbers, a logout, and what readiness asks."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING

import asyncpg
import httpx
import pytest

from examples.production.service.database import RIGHTS
from tests.production.deployment import APP, VIA_INGRESS, connected, deployment, role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.end_to_end.serving import Served
    from tests.production.deployment import Deployment
    from tests.production.postgres import Postgres
    from tests.stores.server import Server

pytestmark = pytest.mark.long  # two replicas, a database and a store are started for it
PATIENCE = 30.0


@pytest.fixture(scope="module")
def deployed(
    postgres: Postgres, valkey: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Deployment, Served, Served]]:
    """Two replicas of release 2 on a database that is ready for them."""
    with deployment(postgres, valkey, tmp_path_factory.mktemp("service")) as found:
        asyncio.run(found.run("service.migrate", "0002"))
        yield found, found.replica(2), found.replica(2)


@pytest.fixture
def client(deployed: tuple[Deployment, Served, Served]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=deployed[1].url, headers=VIA_INGRESS) as found:
        yield found


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_payment_is_kept_and_seen_by_its_payer(
    deployed: tuple[Deployment, Served, Served], client: httpx.Client
) -> None:
    """Who may pay pays, who may read reads their own, and nobody reads another's."""
    found = deployed[0]
    answer = client.post("/payments", headers=found.headers("ann"), json={"cents": 1250})
    assert answer.status_code == 201
    assert answer.headers["strict-transport-security"] == "max-age=31536000; includeSubDomains"
    assert answer.headers["referrer-policy"] == "strict-origin-when-cross-origin"
    listed = client.get("/payments", headers=found.headers("ann")).json()["payments"]
    assert listed == [{"id": answer.json()["id"], "cents": 1250}]
    assert client.get("/payments", headers=found.headers("bob")).json()["payments"] == []
    assert client.get("/payments").status_code == 401
    reader = found.headers("ann", "payments:read")
    assert client.post("/payments", headers=reader, json={"cents": 1}).status_code == 403


def test_a_token_lives_for_twelve_minutes(deployed: tuple[Deployment, Served, Served], client: httpx.Client) -> None:
    """A token of twelve minutes is accepted, and one that would live longer is not."""
    found = deployed[0]
    assert client.get("/payments", headers=found.headers("ann", lifetime=720)).status_code == 200
    assert client.get("/payments", headers=found.headers("ann", lifetime=900)).status_code == 401


def test_a_logout_ends_the_token_at_every_replica(
    deployed: tuple[Deployment, Served, Served], client: httpx.Client
) -> None:
    """What one replica was told, the other knows."""
    found, _, other = deployed
    headers = found.headers("leaver")
    assert httpx.get(f"{other.url}/payments", headers=headers).status_code == 200
    assert client.post("/logout", headers=headers).status_code == 204
    for url in (client.base_url, other.url):
        assert httpx.get(f"{url}/payments", headers=headers).status_code == 401
    assert client.get("/payments", headers=found.headers("leaver")).status_code == 200


def test_logins_by_address_and_payments_by_user(
    deployed: tuple[Deployment, Served, Served], client: httpx.Client
) -> None:
    """Five logins a minute from an address, two payments a second by a user, whichever replica is asked."""
    found, first, second = deployed
    urls = [first.url, second.url]
    logins = [httpx.post(f"{urls[turn % 2]}/login", headers=VIA_INGRESS) for turn in range(7)]
    assert [answer.status_code for answer in logins] == [303] * 5 + [429] * 2
    assert 1 <= int(logins[-1].headers["retry-after"]) <= 14
    elsewhere = {**VIA_INGRESS, "x-forwarded-for": "203.0.113.10"}
    assert client.post("/login", headers=elsewhere).status_code == 303
    headers = found.headers("buyer")
    statuses: list[int] = []
    while 429 not in statuses and len(statuses) < 60:
        url = f"{urls[len(statuses) % 2]}/payments"
        statuses.append(httpx.post(url, headers=headers, json={"cents": 1}).status_code)
    assert statuses[:2] == [201, 201]
    assert statuses[-1] == 429


def test_pages_of_two_origins_may_call(client: httpx.Client) -> None:
    """Their preflights are answered, with credentials; another origin's is not."""
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization, content-type"}
    for origin, status in ((APP, 204), ("https://admin.example.com", 204), ("https://app.example.com.evil.test", 403)):
        answer = client.options("/payments", headers={**asked, "origin": origin})
        assert answer.status_code == status, origin
        assert answer.headers.get("access-control-allow-origin") == (origin if status == 204 else None)


def test_only_the_ingress_is_believed_and_only_https_served(client: httpx.Client) -> None:
    """Plain http is sent to https, and other names are not answered to."""
    plain = client.get("/payments", headers={"x-forwarded-proto": "http"})
    assert plain.status_code == 308
    assert plain.headers["location"] == "https://api.example.com/payments"
    assert client.get("/payments", headers={"host": "evil.test"}).status_code == 400


def test_every_line_says_how_long_which_route_and_what_came(
    deployed: tuple[Deployment, Served, Served], client: httpx.Client
) -> None:
    """The line of a request can be found by its id."""
    client.get("/payments", headers={**deployed[0].headers("ann"), "x-request-id": "find-me.1"})
    until(lambda: any(line.get("request_id") == "find-me.1" for line in deployed[1].log()))
    (line,) = (line for line in deployed[1].log() if line.get("request_id") == "find-me.1")
    assert line["http.response.status_code"] == 200
    assert line["http.route"] == "/payments"
    assert line["duration_ms"] > 0
    assert line["user.id"] == "ann"


def test_metrics_are_for_the_cluster(deployed: tuple[Deployment, Served, Served]) -> None:
    """Prometheus scrapes a replica itself; who comes through the ingress needs a token there as anywhere."""
    found, replica, _ = deployed
    assert httpx.get(f"{replica.url}/payments", headers=found.headers("ann")).status_code == 200
    scraped = httpx.get(f"{replica.url}/metrics", headers={"host": "10.1.2.3:8000"})
    assert scraped.status_code == 200
    assert 'route="/payments"' in scraped.text
    assert httpx.get(f"{replica.url}/metrics", headers=VIA_INGRESS).status_code == 401


def readiness(replica: Served) -> Callable[[], httpx.Response]:
    """Asks whether a replica is ready."""
    return lambda: httpx.get(f"{replica.url}/health/ready", timeout=10)


async def test_the_service_may_do_what_its_statements_need(deployed: tuple[Deployment, Served, Served]) -> None:
    """Its role reads rows and adds some; it changes none, and no table, and sees nothing of the migrations'."""
    async with connected(deployed[0].environment["DATABASE_URL"]) as connection:
        for statement in (
            "UPDATE payments SET amount = 0",
            "DELETE FROM payments",
            "TRUNCATE payments",
            "ALTER TABLE payments ADD COLUMN more text",
            "CREATE TABLE more (id int)",
            "SELECT FROM alembic_version",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)


@pytest.mark.parametrize("right", ["SELECT", "INSERT"])
def test_a_replica_without_its_rights_is_not_ready(deployed: tuple[Deployment, Served, Served], right: str) -> None:
    """A role that lacks a right on the table keeps a rollout from going on, and the log says why."""
    found, replica, _ = deployed
    ready = readiness(replica)
    asyncio.run(found.query(f"REVOKE {right} ON payments FROM {role('payments')}"))
    try:
        until(lambda: ready().status_code == 503)
        assert ready().json()["checks"]["postgres"] == "failed"
        assert "postgres failed: InsufficientPrivilegeError" in replica.errors()
    finally:
        asyncio.run(found.query(f"GRANT {right} ON payments TO {role('payments')}"))
    until(lambda: ready().status_code == 200)


async def test_a_replica_with_much_to_do_is_ready(deployed: tuple[Deployment, Served, Served]) -> None:
    """While every connection of the pool is busy with a statement that takes long, readiness is asked all the same."""
    found, replica, _ = deployed
    waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'payments'::regclass AND NOT granted"
    async with httpx.AsyncClient(base_url=replica.url, timeout=PATIENCE) as client:
        async with connected(found.database) as holder, holder.transaction():
            await holder.execute("LOCK TABLE payments")
            asked = [
                asyncio.create_task(client.get("/payments", headers=found.headers(f"slow-{n}"))) for n in range(25)
            ]
            await asyncio.to_thread(until, lambda: asyncio.run(found.query(waiting)) == 20)
            for _ in range(3):
                answer = await client.get("/health/ready")
                assert answer.status_code == 200, answer.text
                await asyncio.sleep(1.1)  # longer than an answer is remembered
        assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}


async def asked_by_readiness(database: str) -> list[int]:
    """The server's processes behind the connections on which readiness asks."""
    activity = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query = $1"
    async with connected(database) as connection:
        return [row["pid"] for row in await connection.fetch(activity, RIGHTS)]


def test_a_connection_that_hangs_is_left_for_another(deployed: tuple[Deployment, Served, Served]) -> None:
    """What readiness asks on answers no more: the replica is not ready for a moment, and then asks on another."""
    found, replica, _ = deployed
    ready = readiness(replica)
    until(lambda: ready().status_code == 200)
    stopped = asyncio.run(asked_by_readiness(found.environment["DATABASE_URL"]))
    assert stopped
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: ready().status_code == 503)
        until(lambda: ready().status_code == 200)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


def test_readiness_asks_postgres_and_redis(
    deployed: tuple[Deployment, Served, Served], postgres: Postgres, valkey: Server
) -> None:
    """While the database or Redis is away nobody is sent here, and afterwards all goes on by itself."""
    found, replica, _ = deployed
    ready = readiness(replica)
    until(lambda: ready().status_code == 200)
    assert ready().json()["checks"].keys() == {"postgres", "store", "keys"}
    postgres.stop(signal.SIGQUIT)
    try:
        until(lambda: ready().status_code == 503)
        assert httpx.get(f"{replica.url}/health/live").status_code == 200
    finally:
        postgres.start()
    until(lambda: ready().status_code == 200)
    assert httpx.get(f"{replica.url}/payments", headers=found.headers("ann")).status_code == 200
    pid = valkey.pid
    valkey.signal(pid, signal.SIGSTOP)
    try:
        until(lambda: ready().status_code == 503)
    finally:
        valkey.signal(pid, signal.SIGCONT)
    until(lambda: ready().status_code == 200)
