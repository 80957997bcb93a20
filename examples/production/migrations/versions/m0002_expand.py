"""Expand: room for what release 2 writes, which release 1 does not notice. Before release 2 is rolled out."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # Nullable and without a default, so no row is written: the table is locked for a moment.
    op.execute("ALTER TABLE payments ADD COLUMN IF NOT EXISTS amount_cents bigint")
    with op.get_context().autocommit_block():
        # Built without locking out writers. One that was broken off is left behind invalid, and has to go first.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS payments_unfilled")
        op.execute("CREATE INDEX CONCURRENTLY payments_unfilled ON payments (id) WHERE amount_cents IS NULL")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS payments_unfilled")
    op.execute("ALTER TABLE payments DROP COLUMN amount_cents")
