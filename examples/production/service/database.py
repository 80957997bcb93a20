"""What the service keeps in PostgreSQL, as each of its releases writes and reads it.

Amounts were kept in units (`amount numeric`), and are to be kept in cents (`amount_cents bigint`). In your repository
the releases are three commits; here they stand side by side, so that they can be run side by side:

    release  writes        reads                              runs against the schema of
    1        amount        amount                             0001, 0002
    2        both          cents, or the amount without them  0001, 0002, 0003
    3        amount_cents  cents                              0003, 0004

All of them name the columns that they mean: `SELECT *` changes with the schema, and statements that were prepared
before fail then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import asyncpg


@dataclass(frozen=True)
class Statements:
    """How one release adds a payment ($1 subject, $2 cents), and lists those of a subject ($1)."""

    insert: str
    select: str


RELEASES = {
    1: Statements(
        "INSERT INTO payments (subject, amount) VALUES ($1, $2::bigint / 100.0) RETURNING id",
        "SELECT id, (amount * 100)::bigint AS cents FROM payments WHERE subject = $1 ORDER BY id DESC LIMIT 50",
    ),
    2: Statements(
        "INSERT INTO payments (subject, amount, amount_cents) VALUES ($1, $2::bigint / 100.0, $2::bigint) RETURNING id",
        "SELECT id, coalesce(amount_cents, (amount * 100)::bigint) AS cents FROM payments WHERE subject = $1"
        " ORDER BY id DESC LIMIT 50",
    ),
    3: Statements(
        "INSERT INTO payments (subject, amount_cents) VALUES ($1, $2::bigint) RETURNING id",
        "SELECT id, amount_cents AS cents FROM payments WHERE subject = $1 ORDER BY id DESC LIMIT 50",
    ),
}

RIGHTS = "SELECT has_table_privilege('payments', 'SELECT') AND has_table_privilege('payments', 'INSERT')"
"""Whether the role that asks has what these statements need; an error where there is no table."""


class Payments:
    """Payments, by the statements of one release.

    Release 2 may be rolled out before the job that adds its column has run: it then does as release 1 does.
    """

    def __init__(self, pool: Any, release: int) -> None:
        self._pool = pool
        self._now = RELEASES[release]
        self._before = RELEASES[1] if release == 2 else None

    async def add(self, subject: str, cents: int) -> int:
        """Keep a payment: its id."""
        (row,) = await self._fetch("insert", subject, cents)
        return int(row["id"])

    async def of(self, subject: str) -> list[dict[str, int]]:
        """The last payments of a subject."""
        return [dict(row) for row in await self._fetch("select", subject)]

    async def _fetch(self, statement: str, *arguments: object) -> Any:
        try:
            return await self._pool.fetch(getattr(self._now, statement), *arguments)
        except asyncpg.UndefinedColumnError:
            if self._before is None:
                raise
            return await self._pool.fetch(getattr(self._before, statement), *arguments)


class Probe:
    """Asks the database whether the service could do its work, on a connection of its own.

    On one of the pool's it would wait behind the requests, and say of a replica that has much to do that it is not
    ready: the others get its share, and follow it. The connection is kept, since a new one each time could be refused
    for want of slots while the pool has all that it needs. Whatever goes wrong with it, the next question makes
    another; one that is late is cancelled by the guard.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Any = None

    async def ask(self) -> None:
        """Ask whether the statements may be executed; fails by raising.

        The catalogue is asked, and not the table: whoever reads that waits behind everybody who has it locked.
        """
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(self._url)
        try:
            granted = await self._connection.fetchval(RIGHTS)
        except BaseException:  # when it is cancelled, too: the connection is in the middle of an answer
            self.close()
            raise
        if not granted:
            raise asyncpg.InsufficientPrivilegeError("the service's role lacks a right on payments")

    def close(self) -> None:
        """Drop the connection, if there is one."""
        if self._connection is not None:
            self._connection.terminate()
