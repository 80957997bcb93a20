"""The Drain layer, where a process has several: in guards within each other, or under a server each."""

from __future__ import annotations

import asyncio
import os
import signal
from time import monotonic
from typing import TYPE_CHECKING

import pytest

from asgi_guard import DrainMiddleware, HealthMiddleware
from tests.asgi import get
from tests.middleware.draining import Server, made, readiness

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server() -> Iterator[Server]:
    with Server.in_place() as server:
        yield server


async def test_within_another(server: Server) -> None:
    """A mounted layer, which has no lifespan, drains with the one around it, and takes no signal over for itself."""
    inner = made(seconds=3600)
    outer = DrainMiddleware(HealthMiddleware(inner, ready_path="/ready"), seconds=0.05)
    await outer.startup()
    taken = signal.getsignal(signal.SIGTERM)
    await get(outer, "/")
    assert signal.getsignal(signal.SIGTERM) == taken
    os.kill(os.getpid(), signal.SIGTERM)
    assert (await readiness(outer), (await get(outer, "/ready")).status) == (503, 503)
    assert await asyncio.to_thread(server.stopped.wait, 30)
    await outer.shutdown()
    await get(outer, "/")
    assert signal.getsignal(signal.SIGTERM) == server.handle


@pytest.mark.parametrize("last_first", [False, True])
async def test_several_drain_as_one(server: Server, last_first: bool) -> None:
    """All layers of a process begin at once, and the server has SIGTERM once, after the longest wait."""
    layers = [made(seconds=seconds) for seconds in (0.05, 0.2, 0)]
    for layer in layers:
        await layer.startup()
    begun = monotonic()
    os.kill(os.getpid(), signal.SIGTERM)
    assert [await readiness(layer) for layer in layers] == [503] * 3
    assert await asyncio.to_thread(server.stopped.wait, 30)
    assert monotonic() - begun >= 0.2
    for layer in reversed(layers) if last_first else layers:
        await layer.shutdown()
    assert (server.signals, signal.getsignal(signal.SIGTERM)) == (1, server.handle)


@pytest.mark.parametrize("last_first", [False, True])
async def test_several_give_the_signals_back(server: Server, last_first: bool) -> None:
    """Signals are given back with the last layer that has taken them."""
    before = signal.getsignal(signal.SIGUSR1)
    layers = [made(seconds=3600, on_signal="SIGUSR1") for _ in range(2)]
    for layer in layers:
        await layer.startup()
    for layer in reversed(layers) if last_first else layers:
        assert signal.getsignal(signal.SIGTERM) != server.handle
        await layer.shutdown()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)) == (server.handle, before)


async def test_any_trigger_begins_all(server: Server) -> None:
    """What begins one layer begins the others of its process, also those that start later, and SIGTERM then ends it."""
    layers = [made(seconds=3600), made(seconds=3600, path="/drain"), made(seconds=3600)]
    for layer in layers[:2]:
        await layer.startup()
    layers[1].draining.begin()
    await layers[2].startup()
    assert [await readiness(layer) for layer in layers] == [503] * 3
    os.kill(os.getpid(), signal.SIGTERM)
    assert server.stopped.is_set()
    for layer in layers:
        await layer.shutdown()


async def test_two_servers_of_one_app(server: Server) -> None:
    """A layer that two servers start drains once, and gives the signals back when the second has shut down."""
    before = signal.getsignal(signal.SIGUSR1)
    layer = made(seconds=0.05, on_signal="SIGUSR1")
    await layer.startup()
    event = layer.draining.event
    await layer.startup()
    await layer.shutdown()
    assert signal.getsignal(signal.SIGTERM) != server.handle
    await layer.startup()
    assert layer.draining.event is event
    os.kill(os.getpid(), signal.SIGUSR1)
    assert await readiness(layer) == 503
    os.kill(os.getpid(), signal.SIGTERM)
    assert server.stopped.is_set()
    await layer.shutdown()
    await layer.shutdown()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)) == (server.handle, before)


@pytest.mark.parametrize("shared", [False, True])
async def test_a_server_after_another(server: Server, shared: bool) -> None:
    """A server that came later ends after the drain, and with it the earlier one, to which it gives the signal back."""
    first = made(seconds=0.05)
    await first.startup()
    found = signal.getsignal(signal.SIGTERM)
    later = Server()
    signal.signal(signal.SIGTERM, later.handle)
    second = first if shared else made(seconds=0.05)
    await second.startup()
    os.kill(os.getpid(), signal.SIGTERM)
    assert [await readiness(first), await readiness(second)] == [503, 503]
    assert await asyncio.to_thread(later.stopped.wait, 30)
    assert not server.stopped.is_set()
    await second.shutdown()
    signal.signal(signal.SIGTERM, found)  # as uvicorn does when it has ended, and then has the signal come again
    signal.raise_signal(signal.SIGTERM)
    assert server.stopped.is_set()
    await first.shutdown()
