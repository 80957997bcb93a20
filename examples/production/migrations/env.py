"""How Alembic reaches the database: with timeouts on every lock, and one job at a time."""

from __future__ import annotations

import asyncio
import os

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

JOBS = 7_041_776
"""The number of the lock that jobs take; any that nothing else in the database uses."""


def run(connection: Connection) -> None:
    # To wait for the lock would be to stand in a transaction, and CREATE INDEX CONCURRENTLY waits for all of those.
    alone = connection.execute(text("SELECT pg_try_advisory_lock(:jobs)"), {"jobs": JOBS}).scalar_one()
    connection.commit()
    if not alone:
        raise SystemExit("another migration job is running")
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


async def main() -> None:
    url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://", 1)
    # A statement that waits for a lock makes everybody behind it wait too: it gives up, and the job tries again. What
    # is done CONCURRENTLY holds up nobody while it waits, maybe for long: its migration turns this off around it.
    # A job that is killed while it waits would keep its advisory lock until that wait is over, and no other could run:
    # so PostgreSQL (14 and later) looks whether its client is still there.
    settings = {"lock_timeout": "1s", "application_name": "migrate", "client_connection_check_interval": "5s"}
    engine = create_async_engine(url, poolclass=NullPool, connect_args={"server_settings": settings})
    async with engine.connect() as connection:
        await connection.run_sync(run)


asyncio.run(main())
