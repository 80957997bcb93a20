"""What each server needs for a drain: a table, each row of which is held to a run of that server."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

ServerName: TypeAlias = Literal[
    "uvicorn", "uvicorn-workers", "gunicorn-uvicorn", "gunicorn-asgi", "hypercorn", "granian", "daphne"
]


class Server(NamedTuple):
    """How a server goes together with draining.

    Attributes:
        started: the command that starts it.
        sigterm: whether SIGTERM drains; else the server takes it itself, and another trigger has to come before it.
        several: whether several processes serve: a signal and a POST then reach one of them, a file all.
        note: what else there is to know.
        reserved: a signal that means something else to the server, and reaches all of its workers; None for none.
    """

    started: str
    sigterm: bool
    several: bool
    note: str
    reserved: str | None = None


SERVERS: Mapping[ServerName, Server] = MappingProxyType(
    {
        "uvicorn": Server(
            started="uvicorn",
            sigterm=True,
            several=False,
            note="`asgi-guard run` is this",
        ),
        "uvicorn-workers": Server(
            started="uvicorn --workers N",
            sigterm=True,
            several=True,
            note="the parent hands SIGTERM on to its workers",
        ),
        "gunicorn-uvicorn": Server(
            started="gunicorn -k uvicorn_worker.UvicornWorker",
            sigterm=True,
            several=True,
            note="--graceful-timeout counts from SIGTERM on; SIGUSR1 reopens logs",
            reserved="SIGUSR1",
        ),
        "gunicorn-asgi": Server(
            started="gunicorn -k asgi",
            sigterm=False,
            several=True,
            note="SIGTERM is the event loop's, and stops it at once; SIGUSR1 reopens logs",
            reserved="SIGUSR1",
        ),
        "hypercorn": Server(
            started="hypercorn",
            sigterm=False,
            several=True,
            note="the parent takes SIGTERM and stops its workers at once",
        ),
        "granian": Server(
            started="granian --interface asgi",
            sigterm=False,
            several=True,
            note="the parent takes SIGTERM and stops its workers",
        ),
        "daphne": Server(
            started="daphne",
            sigterm=True,
            several=False,
            note="there is no lifespan: triggers work from the first request on",
        ),
    }
)


def drain_problem(name: ServerName, seconds: float, *, on_signal: str | None, file: bool, path: bool) -> str | None:
    """What keeps a server from draining as it is configured; None if nothing does.

    Args:
        name: the server.
        seconds: how long to serve on after SIGTERM.
        on_signal: the name of the signal that begins draining; None for none.
        file: whether a file begins it.
        path: whether a POST does.
    """
    server = SERVERS[name]
    if on_signal is not None and on_signal == server.reserved:
        harm = "reopens the logs of all workers, which would drain for good"
        return f"{on_signal} {harm}: set ASGI_GUARD_HEALTH_DRAIN_SIGNAL=SIGUSR2"
    if server.sigterm:
        return None if seconds > 0 else "SIGTERM ends it without a drain: set ASGI_GUARD_HEALTH_DRAIN_SECONDS"
    if server.several and not file:
        others = "a signal or a POST reaches one process of several" if on_signal or path else "it takes SIGTERM itself"
        return f"{others}: set ASGI_GUARD_HEALTH_DRAIN_FILE, and make that file before SIGTERM comes"
    return None
