"""What becomes of a breaker where the network takes so long that a connection is opened later than requests wait."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from asgi_guard.errors import StoreUnavailableError
from asgi_guard.policy.breaker import Breaker
from asgi_guard.stores import RedisStore
from benchmarks.limits.delay import Proxy
from tests.stores.server import PATIENCE, Server, ask, until

if TYPE_CHECKING:
    from collections.abc import Iterator

ONE_WAY = 0.09
"""Seconds. To connect takes several round trips, and no longer than `CONNECT_TIMEOUT`; an answer takes one."""
TIMEOUT = 0.5


@pytest.fixture
def far(server: Server) -> Iterator[str]:
    """The URL of a server that is far away."""
    proxy = Proxy(str(server.socket), ONE_WAY)
    owner, theirs = socket.socketpair()
    serving = threading.Thread(target=proxy.serve, args=(time.monotonic() + 60, theirs))
    serving.start()
    yield f"redis://127.0.0.1:{proxy.port}"
    owner.close()
    serving.join(PATIENCE)
    proxy.close()
    theirs.close()


async def test_a_connection_that_comes_too_late_for_its_probe(server: Server, far: str) -> None:
    """Once there is a connection, the next request probes at once, though the breaker's wait is not over."""
    near = server.store()
    await near.ping()  # the script is known
    store = RedisStore(far, timeout=TIMEOUT, breaker=Breaker(threshold=1, first_wait=600, max_wait=600))

    async def answered() -> bool:
        try:
            return (await store.admit(ask("a", 0))).admitted
        except StoreUnavailableError:
            return False

    assert not await answered()
    assert [breaker.is_open for breaker in store.breakers] == [True]
    await until(answered)
    assert [breaker.is_open for breaker in store.breakers] == [False]
    await store.aclose()
    await near.aclose()
