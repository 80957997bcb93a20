"""A real master, its replica, and three sentinels that watch over them."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from asgi_guard.stores import SentinelStore
from tests.stores.processes import Process, free_ports, wait_for
from tests.stores.server import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Sequence

SERVICE = "service"
QUORUM = 2


class Watched:
    """A master and a replica, and who watches them.

    Args:
        password: of the servers.
        sentinel_password: of the sentinels.
    """

    def __init__(self, password: str = "", sentinel_password: str = "") -> None:
        master, replica, *ports = free_ports(5)
        self._stack = ExitStack()
        plain: tuple[str, ...] = ("--save", "", "--repl-diskless-sync-delay", "0")
        if password:
            plain += ("--requirepass", password, "--primaryauth", password)
        self.servers = [
            self._stack.enter_context(Process(master, *plain, password=password)),
            self._stack.enter_context(
                Process(replica, *plain, "--replicaof", f"127.0.0.1 {master}", password=password)
            ),
        ]
        for server in self.servers:
            wait_for(server.client.ping)
        wait_for(lambda: self.servers[1].client.info("replication")["master_link_status"] == "up")
        self.sentinels = [
            self._stack.enter_context(
                Process(
                    port,
                    files={"sentinel.conf": _config(port, ports, self.servers, password, sentinel_password)},
                    password=sentinel_password,
                    first=("sentinel.conf", "--sentinel"),
                )
            )
            for port in ports
        ]
        for sentinel in self.sentinels:
            wait_for(partial(self.well, sentinel))

    def well(self, sentinel: Process) -> bool:
        """Whether a sentinel knows of all that there is, and finds it well."""
        state = sentinel.client.sentinel_master(SERVICE)
        return bool(state["flags"] == "master" and state["num-slaves"] == 1 and state["num-other-sentinels"] == QUORUM)

    @property
    def url(self) -> str:
        return f"redis+sentinel://{self.hosts}/{SERVICE}"

    @property
    def hosts(self) -> str:
        return ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)

    def store(self, *, timeout: float = PATIENCE, **options: Any) -> SentinelStore:
        return SentinelStore(self.url, timeout=timeout, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self._stack.close()


def _config(port: int, ports: Sequence[int], servers: Sequence[Process], password: str, sentinel_password: str) -> str:
    """What a sentinel is started with. It is told of the others, since hearing of them would take seconds."""
    master, replica = servers
    lines = [
        f"sentinel myid {port:040x}",
        f"sentinel monitor {SERVICE} 127.0.0.1 {master.port} {QUORUM}",
        f"sentinel down-after-milliseconds {SERVICE} 400",
        f"sentinel failover-timeout {SERVICE} 2000",
        f"sentinel known-replica {SERVICE} 127.0.0.1 {replica.port}",
        *(f"sentinel known-sentinel {SERVICE} 127.0.0.1 {other} {other:040x}" for other in ports if other != port),
    ]
    if password:
        lines.append(f"sentinel auth-pass {SERVICE} {password}")
    if sentinel_password:
        lines += [f"requirepass {sentinel_password}", f"sentinel sentinel-pass {sentinel_password}"]
    return "\n".join([*lines, ""])
