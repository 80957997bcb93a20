"""The table as release 1 knows it, and what the service may do with it."""

from __future__ import annotations

import os

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
    # A table is its owner's alone until it is granted. These are all that the service's statements need: the identity
    # column asks for no right of its own, and the backfill is a job, which the owner runs.
    service = op.get_context().dialect.identifier_preparer.quote_identifier(os.environ["SERVICE_ROLE"])
    op.execute(f"GRANT SELECT, INSERT ON payments TO {service}")


def downgrade() -> None:
    op.execute("DROP TABLE payments")
