"""The stores under test, one real server for all of them, and one real cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asgi_guard.stores import MemoryStore, Store
from tests.stores.cluster import Cluster
from tests.stores.server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


@pytest.fixture(scope="session")
def valkey_cluster() -> Iterator[Cluster]:
    """A cluster for the session."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(valkey_cluster: Cluster) -> Cluster:
    """That cluster, empty."""
    valkey_cluster.empty()
    return valkey_cluster


@pytest.fixture(params=["memory", "redis", "cluster"])
def make_store(request: pytest.FixtureRequest) -> Callable[[], Store]:
    """Makes a store, of each kind in turn."""
    if request.param == "memory":
        return MemoryStore
    if request.param == "cluster":
        nodes: Cluster = request.getfixturevalue("cluster")
        return nodes.store
    found: Server = request.getfixturevalue("server")
    return found.store


@pytest.fixture
async def store(make_store: Callable[[], Store]) -> AsyncIterator[Store]:
    """A store, of each kind in turn, let go afterwards."""
    made = make_store()
    yield made
    await made.aclose()
