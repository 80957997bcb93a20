"""A change of the schema by expand and contract, with the releases side by side, under load: no request fails."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import httpx
import pytest

from tests.production.deployment import Load, connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.end_to_end.serving import Served
    from tests.production.deployment import Deployment

PATIENCE = 60.0
SEEDED = 5000
"""Rows that release 1 wrote before."""
SEED = """
    INSERT INTO payments (subject, amount)
    SELECT 'user-' || n % 600, n / 100.0 FROM generate_series(1, 5000) AS n
"""

pytestmark = pytest.mark.long  # each of them makes the schema, and changes it


async def line_with(job: asyncio.subprocess.Process, words: str) -> None:
    """Wait until a job has said this."""
    assert job.stderr is not None
    said = b""
    while words.encode() not in said:
        line = await job.stderr.readline()
        assert line, f"it ended without {words!r}"
        said += line


def pays(replica: Served, deployment: Deployment, cents: int) -> None:
    """A replica keeps a payment, and lists it."""
    headers = deployment.headers(f"payer-{cents}")
    assert httpx.post(f"{replica.url}/payments", headers=headers, json={"cents": cents}).status_code == 201
    (listed,) = httpx.get(f"{replica.url}/payments", headers=headers).json()["payments"]
    assert listed["cents"] == cents


@pytest.mark.timeout(300)
async def test_the_schema_changes_under_load(deployment: Deployment) -> None:
    """Three releases and four schemas follow each other, with load throughout: 0 failed, and no cent is lost."""
    await deployment.run("service.migrate", "0001")
    await deployment.query(SEED)
    old, new = deployment.replica(1), deployment.replica(2)
    for replica, cents in ((old, 11), (new, 21)):
        pays(replica, deployment, cents)  # each release before the change
    load = Load(deployment)
    for replica in (old, new):
        load.at(replica)
        await load.more(replica)

    # Expand, while somebody reads the table for long: the job gives way, and so does not hold others up.
    reader = await asyncpg.connect(deployment.database)
    reading = reader.transaction()
    await reading.start()
    await reader.fetchval("SELECT count(*) FROM payments")
    job = await deployment.job("service.migrate", "0002")
    await line_with(job, "gave way")
    await reading.rollback()
    await reader.close()
    await line_with(job, "the schema is at 0002")
    assert await job.wait() == 0
    for replica, cents in ((old, 12), (new, 22)):
        pays(replica, deployment, cents)  # and each release after it
        await load.more(replica)

    # Release 1 goes, draining under load; then what it wrote is filled in, under load.
    assert await stopped(old) == 0
    assert f"filled {SEEDED}" not in await deployment.run("service.backfill", "500")
    assert await deployment.query("SELECT count(*) FROM payments WHERE amount_cents IS NULL") == 0
    await deployment.run("service.migrate", "0003")
    pays(new, deployment, 23)
    await load.more(new)

    # Release 3 beside release 2, then alone, then without the old column.
    newest = await asyncio.to_thread(deployment.replica, 3)
    load.at(newest)
    await load.more(newest)
    pays(newest, deployment, 33)
    assert await stopped(new) == 0
    await deployment.run("service.migrate", "0004")
    pays(newest, deployment, 34)
    await load.more(newest)
    await load.end()

    assert load.failed == []
    assert min(load.answered.values()) >= 60
    mine = SEEDED * (SEEDED + 1) // 2 + 11 + 21 + 12 + 22 + 23 + 33 + 34
    assert await deployment.query("SELECT sum(amount_cents)::bigint FROM payments") == mine + load.paid
    assert await stopped(newest) == 0
    for replica in (old, new, newest):
        assert "Traceback" not in replica.errors()


async def stopped(replica: Served) -> int:
    """Stop a replica as an orchestrator does, while its clients go on: the exit code."""
    return await asyncio.to_thread(replica.stop)


@asynccontextmanager
async def migrating(deployment: Deployment, revision: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A migration job that is under way, and does not outlive the context."""
    job = await deployment.job("service.migrate", revision)
    try:
        async with asyncio.timeout(PATIENCE):
            yield job
    finally:
        if job.returncode is None:
            job.kill()
            await job.wait()


async def waits(job: asyncio.subprocess.Process, deployment: Deployment, statement: str) -> None:
    """Wait until a statement of a job's has waited for a lock for three seconds, and so outlasted `lock_timeout`."""
    waiting = f"""
        SELECT FROM pg_stat_activity
        WHERE application_name = 'migrate' AND datname = current_database() AND query LIKE '{statement}%'
        AND wait_event_type = 'Lock' AND clock_timestamp() - query_start > interval '3 s'
    """
    while not await deployment.query(f"SELECT EXISTS ({waiting})"):
        assert job.returncode is None
        await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("before", "revision", "older", "statement"),
    [
        ("0001", "0002", "SELECT FROM elsewhere", "CREATE INDEX CONCURRENTLY"),
        ("0002", "0003", "COMMENT ON INDEX payments_unfilled IS ''", "DROP INDEX CONCURRENTLY"),
    ],
)
async def test_what_is_done_concurrently_waits(
    deployment: Deployment, before: str, revision: str, older: str, statement: str
) -> None:
    """An older transaction is waited for, be it on an unrelated table: no attempt of the job fails on it."""
    await deployment.run("service.migrate", before)
    await deployment.query("CREATE TABLE elsewhere (id int)")
    async with connected(deployment.database) as other:
        transaction = other.transaction(isolation="repeatable_read")  # which keeps its snapshot to its end
        await transaction.start()
        await other.execute(older)
        async with migrating(deployment, revision) as job:
            await waits(job, deployment, statement)
            await transaction.rollback()
            _, said = await job.communicate()
    assert job.returncode == 0, said.decode()
    assert "gave way" not in said.decode()


async def test_what_comes_after_it_gives_way(deployment: Deployment) -> None:
    """The lock timeout is set back: what locks the table after that, in the same job, holds nobody up for long."""
    await deployment.run("service.migrate", "0001")
    async with connected(deployment.database) as other, connected(deployment.database) as reader:
        older, reading = other.transaction(isolation="repeatable_read"), reader.transaction()
        await older.start()
        await other.fetchval("SELECT count(*) FROM alembic_version")
        async with migrating(deployment, "0003") as job:
            await waits(job, deployment, "CREATE INDEX CONCURRENTLY")
            await reading.start()
            await reader.fetchval("SELECT count(*) FROM payments")
            await older.rollback()
            await line_with(job, "gave way")
            await reading.rollback()
            await line_with(job, "the schema is at 0003")
            assert await job.wait() == 0


async def test_one_job_at_a_time(deployment: Deployment) -> None:
    """A second migration job ends at once, and does not stand in the way of the first."""
    connection = await asyncpg.connect(deployment.database)
    await connection.fetchval("SELECT pg_advisory_lock(7041776)")
    job = await deployment.job("service.migrate", "0001")
    _, said = await job.communicate()
    assert job.returncode == 1
    assert b"another migration job is running" in said
    await connection.close()
    await deployment.run("service.migrate", "0001")


async def test_the_way_back(deployment: Deployment) -> None:
    """Until the old column is gone, each schema can be left for the one before it."""
    await deployment.run("service.migrate", "0003")
    await deployment.query("INSERT INTO payments (subject, amount_cents) VALUES ('alice', 1234)")
    for revision in ("0002", "0001"):
        await deployment.run("alembic", "downgrade", revision)
    assert str(await deployment.query("SELECT amount FROM payments")) == "12.34"
