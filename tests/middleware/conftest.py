"""What the tests of layers share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.middleware.log_lines import Lines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asgi_guard import RedisStore
    from tests.stores.server import Server


@pytest.fixture
async def redis_store(server: Server) -> AsyncIterator[RedisStore]:
    """A store in that server, let go afterwards."""
    store = server.store()
    yield store
    await store.aclose()


@pytest.fixture
def lines() -> Lines:
    """What the access log writes."""
    return Lines()
