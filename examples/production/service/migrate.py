"""The migration job: brings the schema to a revision, and gives way to requests while it does.

    DATABASE_URL=postgresql://... SERVICE_ROLE=payments python -m service.migrate 0002

It runs as the role that owns the tables; SERVICE_ROLE is the one that the service connects as, which is granted what
its statements need.

A statement that cannot have its lock in `lock_timeout` is given up, so that no request waits behind it for longer, and
the job tries again. Run it as a job before a release is rolled out: in the lifespan of the service every replica would
run it, under the eyes of a liveness probe.
"""

from __future__ import annotations

import logging
import random
import sys
import time
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy.exc import DBAPIError

ATTEMPTS = 60
LOCK_NOT_AVAILABLE = "55P03"

logger = logging.getLogger("service.migrate")


def migrate(revision: str) -> None:
    """Upgrade to a revision; each migration before it is a transaction of its own, and is not undone."""
    config = Config(Path(__file__).parents[1] / "alembic.ini")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            command.upgrade(config, revision)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE or attempt == ATTEMPTS:
                raise
            logger.warning("attempt %d gave way to others who hold the lock; trying again", attempt)
            time.sleep(random.uniform(0.2, 1.0))  # noqa: S311 - no secret: two jobs are not to try in step
        else:
            logger.warning("the schema is at %s", revision)
            return


if __name__ == "__main__":
    logging.basicConfig(format="%(name)s: %(message)s")
    migrate(sys.argv[1])
