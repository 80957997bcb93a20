"""The backfill job: fills the new column of rows that were written before it, in small transactions.

    DATABASE_URL=postgresql://... python -m service.backfill

It runs as the role that owns the tables: the service's may not change rows. Run it when no release 1 runs any more, for
it writes rows without the column. It may be stopped and started at any
time, and two at once do not wait for each other.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys

import asyncpg

BATCH = 1000
"""Rows a transaction: few enough that their locks are held for milliseconds."""
PAUSE = 0.02
"""Seconds between transactions, for everybody else, and for replicas to keep up."""

FILL = """
    WITH batch AS (
        SELECT id FROM payments WHERE amount_cents IS NULL AND id <= $2 ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED
    )
    UPDATE payments SET amount_cents = (amount * 100)::bigint FROM batch WHERE payments.id = batch.id
"""
LAST = "SELECT max(id) FROM payments WHERE amount_cents IS NULL"
LEFT = "SELECT EXISTS (SELECT FROM payments WHERE amount_cents IS NULL AND id <= $1)"

logger = logging.getLogger("service.backfill")


async def backfill(url: str, batch: int = BATCH) -> int:
    """Fill every row that lacks the column when it begins: how many there were."""
    connection = await asyncpg.connect(url, server_settings={"lock_timeout": "2s", "statement_timeout": "30s"})
    filled = 0
    try:
        last = await connection.fetchval(LAST)
        while last is not None and await connection.fetchval(LEFT, last):
            filled += int((await connection.execute(FILL, batch, last)).removeprefix("UPDATE "))
            await asyncio.sleep(PAUSE)
    finally:
        await connection.close()
    return filled


if __name__ == "__main__":
    logging.basicConfig(format="%(name)s: %(message)s")
    rows = asyncio.run(backfill(os.environ["DATABASE_URL"], *map(int, sys.argv[1:2])))
    logger.warning("filled %d rows", rows)
