"""One real server for the layers that have a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.stores.server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from asgi_guard import RedisStore


@pytest.fixture(scope="session")
def valkey() -> Iterator[Server]:
    """A server for the session."""
    with Server() as server:
        yield server


@pytest.fixture
def server(valkey: Server) -> Server:
    """That server, empty."""
    valkey.client.flushall()
    valkey.client.config_resetstat()
    return valkey


@pytest.fixture
async def redis_store(server: Server) -> AsyncIterator[RedisStore]:
    """A store in that server, let go afterwards."""
    store = server.store()
    yield store
    await store.aclose()
