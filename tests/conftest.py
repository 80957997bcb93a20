"""What every test gets: an environment without the guard's variables, and shared real parts."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from asgi_guard.testing import LocalIssuer, SigningKey
from tests import laws, leaks
from tests.clock import Clock
from tests.stores.server import Server

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

laws.install()
leaks.install()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Laws are not traced: coverage doubles the time of every step of Hypothesis, and tables pass the same lines."""
    traced_by = sys.gettrace()
    if pyfuncitem.get_closest_marker("hypothesis") is None:
        return (yield)
    sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(traced_by)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test is told anything by the environment that it did not set itself."""
    for name in os.environ:
        if name.startswith("ASGI_GUARD_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _no_token_leaks() -> Iterator[None]:
    """Nothing that the package emits during a test holds a part of a token that the test used."""
    leaks.WATCH.clear()
    yield
    assert leaks.WATCH.leaked() == []


@pytest.fixture(scope="session")
def signing_key() -> SigningKey:
    """An RSA key: making one takes a tenth of a second, so the tests that need any key share it."""
    return SigningKey("RS256")


@pytest.fixture(scope="session")
def valkey() -> Iterator[Server]:
    """A real server for the session, started when the first test asks for it."""
    with Server() as server:
        yield server


@pytest.fixture
def server(valkey: Server) -> Server:
    """That server, empty."""
    valkey.client.flushall()
    valkey.client.config_resetstat()
    return valkey


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still until it is told."""
    return Clock()


@pytest.fixture
def issuer(signing_key: SigningKey) -> LocalIssuer:
    """A local issuer, in this process."""
    return LocalIssuer(key=signing_key)
