"""Expand: room for what release 2 writes, which release 1 does not notice. Before release 2 is rolled out."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # Nullable and without a default, so no row is written: the table is locked for a moment.
    op.execute("ALTER TABLE payments ADD COLUMN IF NOT EXISTS amount_cents bigint")
    with op.get_context().autocommit_block():
        # Built without locking out writers, and done when every older transaction in the database has ended, whatever
        # it reads: a dump may take an hour. That wait holds up nobody, and who gives it up has to build anew.
        op.execute("SET lock_timeout = 0")
        # An index that was broken off is left behind invalid, and has to go first.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS payments_unfilled")
        op.execute("CREATE INDEX CONCURRENTLY payments_unfilled ON payments (id) WHERE amount_cents IS NULL")
        op.execute("RESET lock_timeout")  # to what the job has begun with


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS payments_unfilled")
        op.execute("RESET lock_timeout")
    op.execute("ALTER TABLE payments DROP COLUMN amount_cents")
