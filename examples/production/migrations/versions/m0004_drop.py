"""Contract, second half: the old column goes. When no release 2 runs any more; there is no way back."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.execute("ALTER TABLE payments DROP COLUMN IF EXISTS amount")


def downgrade() -> None:
    raise NotImplementedError("the amounts are gone: restore a backup, or go on with release 3")
