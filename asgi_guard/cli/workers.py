"""Several workers of uvicorn below one parent, whose exit code tells whether they could start.

uvicorn's own way of running them returns as from a stop where a worker cannot start. Before 0.50 it did not even that:
its workers' exit codes did not tell, and it started others in their place for ever.
"""

from __future__ import annotations

import inspect
import logging
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from socket import socket

logger = logging.getLogger("asgi_guard")

STARTUP_FAILURE = 3
"""The exit code by which uvicorn says that it could not start, whose log tells why."""


def run_workers(uvicorn: Any, config: Any) -> None:
    """Serve with several workers until a signal stops them, or one of them cannot start.

    Args:
        uvicorn: the module.
        config: its configuration, with the number of workers.

    Raises:
        SystemExit: a worker could not start.
    """
    try:
        parent = _parent(uvicorn, config)
        parent.run()
    finally:
        if config.uds:
            Path(config.uds).unlink(missing_ok=True)
    if parent.has_failed():
        sys.exit(STARTUP_FAILURE)


def _parent(uvicorn: Any, config: Any) -> Any:
    from uvicorn.supervisors import Multiprocess

    base: Any = Multiprocess

    class Parent(base):  # type: ignore[misc]  # the base is known at run time only, being an extra
        def has_failed(self) -> bool:
            return any(each.process.exitcode == STARTUP_FAILURE for each in self.processes)

        def keep_subprocess_alive(self) -> None:
            if not self.should_exit.is_set() and self.has_failed():
                logger.error("a worker has said by its exit code (%d) that it cannot start: all end", STARTUP_FAILURE)
                self.should_exit.set()
            super().keep_subprocess_alive()

    sockets = [config.bind_socket()]
    if "target" in inspect.signature(base).parameters:  # before 0.51
        return Parent(config, target=partial(_serve, uvicorn.Server(config)), sockets=sockets)
    return Parent(config, sockets=sockets)


def _serve(server: Any, sockets: list[socket] | None) -> None:
    """Serve in a worker's process."""
    server.run(sockets)
    if not server.started:
        sys.exit(STARTUP_FAILURE)
