"""The table as release 1 knows it."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE payments (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            subject text NOT NULL,
            amount numeric(14, 2) NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now()
        )
    """)
    op.execute("CREATE INDEX payments_by_subject ON payments (subject, id DESC)")


def downgrade() -> None:
    op.execute("DROP TABLE payments")
