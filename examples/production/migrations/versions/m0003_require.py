"""Contract, first half: every row has cents, and none needs an amount. After the backfill, before release 3."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # Each statement commits by itself. SET NOT NULL alone would read the whole table under a lock that nobody
        # passes; a constraint is validated under one that everybody passes, and then SET NOT NULL believes it.
        op.execute("ALTER TABLE payments DROP CONSTRAINT IF EXISTS payments_have_cents")
        op.execute("ALTER TABLE payments ADD CONSTRAINT payments_have_cents CHECK (amount_cents IS NOT NULL) NOT VALID")
        op.execute("ALTER TABLE payments VALIDATE CONSTRAINT payments_have_cents")
        op.execute("ALTER TABLE payments ALTER COLUMN amount_cents SET NOT NULL, ALTER COLUMN amount DROP NOT NULL")
        op.execute("ALTER TABLE payments DROP CONSTRAINT payments_have_cents")
        # This waits for whoever reads the table, as long as it takes, and nobody waits behind it.
        op.execute("SET lock_timeout = 0")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS payments_unfilled")
        op.execute("RESET lock_timeout")


def downgrade() -> None:
    # Rows of release 3 have no amount, and release 2 still writes it: give them theirs before it is required again.
    op.execute("UPDATE payments SET amount = amount_cents / 100.0 WHERE amount IS NULL")
    op.execute("ALTER TABLE payments ALTER COLUMN amount_cents DROP NOT NULL, ALTER COLUMN amount SET NOT NULL")
    op.execute("CREATE INDEX payments_unfilled ON payments (id) WHERE amount_cents IS NULL")
