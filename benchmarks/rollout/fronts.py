"""What stands between clients and the processes that are replaced, and how one replaces them there."""

from __future__ import annotations

import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, TypeAlias

from benchmarks.rollout.processes import alive, answers, free_ports, get, wait_for

if TYPE_CHECKING:
    import subprocess

    from benchmarks.rollout.load import Load
    from benchmarks.rollout.processes import Processes

Side: TypeAlias = Literal["alone", "article", "guarded"]
"""The app alone; with a readiness probe and a graceful timeout, as the article has it; behind the guard."""
Roll: TypeAlias = Callable[["Load"], None]
"""Replaces every process."""
APP = "benchmarks.rollout.app:app"
DRAIN_SECONDS = 2
"""Longer than haproxy takes to notice: `inter` x `fall`, and the time of an answer."""
GRACEFUL_SECONDS = "30"
REPLICAS = 3
WORKERS = 2
MIN_READY_SECONDS = 1.0
"""That a new replica has been ready before an old one goes, so that the balancer has noticed: minReadySeconds."""
GUARDED = {"ASGI_GUARD_APP": APP, "ASGI_GUARD_HEALTH_DRAIN_SECONDS": str(DRAIN_SECONDS)}
HAPROXY = """
global
    maxconn 1000
defaults
    mode {mode}
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout check 2s
    option redispatch
    {check}
frontend clients
    bind 127.0.0.1:{port}
    default_backend replicas
backend replicas
    default-server inter 500ms fall 2 rise 1 init-addr none
{servers}
"""
NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/errors;
worker_processes 1;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000;
    upstream replicas {{
        server 127.0.0.1:{upstream} max_fails=0;
        keepalive 16;
        keepalive_time 2s;
        keepalive_timeout 1s;
        keepalive_requests 1000000;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://replicas;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Front:
    """A way to be reached, and to be replaced.

    Attributes:
        name: for people.
        needs: programs and Python packages, and
        install: how to get them.
        open: starts it with one side's processes behind it; gives the port, and what replaces them all.
    """

    name: str
    needs: tuple[str, ...]
    install: str
    open: Callable[[Processes, Side], AbstractContextManager[tuple[int, Roll]]]

    def missing(self) -> str | None:
        """What is not here, and how to install it; None where nothing is missing."""
        absent = [name for name in self.needs if not shutil.which(name) and find_spec(name) is None]
        return f"{' and '.join(absent)} missing: {self.install}" if absent else None


def _server(running: Processes, side: Side, port: int) -> subprocess.Popen[bytes]:
    """One replica, as each side would start it."""
    if side == "guarded":
        return running.python("asgi_guard", "run", APP, "--port", str(port), environ=GUARDED)
    return running.python("uvicorn", APP, "--port", str(port), *_uvicorn(side))


def _uvicorn(side: Side) -> tuple[str, ...]:
    """The options of uvicorn itself. Connections are kept for as long as by `asgi-guard run`: that is not compared."""
    graceful = () if side == "alone" else ("--timeout-graceful-shutdown", GRACEFUL_SECONDS)
    return ("--no-access-log", "--log-level", "warning", "--timeout-keep-alive", "75", *graceful)


def _wrapped(side: Side) -> tuple[str, dict[str, str]]:
    """The app for a server that is started by its own command, and its environment."""
    return ("asgi_guard.wrapped:app", GUARDED) if side == "guarded" else (APP, {})


def haproxy_config(mode: str, side: Side, port: int, ports: list[int]) -> str:
    """Of a balancer that asks each replica twice a second; the app alone is asked for a connection only."""
    check = "" if side == "alone" else "option httpchk GET /health/ready"
    servers = "\n".join(f"    server r{number} 127.0.0.1:{each} check" for number, each in enumerate(ports))
    return HAPROXY.format(mode=mode, check=check, port=port, servers=servers)


def _haproxy(mode: str) -> Callable[[Processes, Side], AbstractContextManager[tuple[int, Roll]]]:
    @contextmanager
    def opened(running: Processes, side: Side) -> Iterator[tuple[int, Roll]]:
        port, *ports = free_ports(REPLICAS + 2)
        replicas = [(each, _server(running, side, each)) for each in ports[:REPLICAS]]
        spare = ports[REPLICAS:]
        for each, _ in replicas:
            _ready(each)
        config = running.folder / "haproxy.cfg"
        config.write_text(haproxy_config(mode, side, port, ports))
        running.start(["haproxy", "-f", str(config)])

        def roll(_load: Load) -> None:
            for _ in range(REPLICAS):
                new = spare.pop(0)
                replicas.append((new, _server(running, side, new)))
                _ready(new)
                time.sleep(MIN_READY_SECONDS)
                old, process = replicas.pop(0)
                running.stop(process)
                spare.append(old)

        yield port, roll

    return opened


def _ready(port: int) -> None:
    wait_for(f"readiness on port {port}", lambda: answers(port, "/health/ready"))


@contextmanager
def _uvicorn_workers(running: Processes, side: Side) -> Iterator[tuple[int, Roll]]:
    (port,) = free_ports(1)
    app, environ = _wrapped(side)
    options = ("--port", str(port), "--workers", str(WORKERS), *_uvicorn(side))
    yield port, _hangup(port, running.python("uvicorn", app, *options, environ=environ))


@contextmanager
def _gunicorn(running: Processes, side: Side) -> Iterator[tuple[int, Roll]]:
    (port,) = free_ports(1)
    app, environ = _wrapped(side)
    options = (
        "-k",
        "uvicorn_worker.UvicornWorker",
        "-w",
        str(WORKERS),
        "-b",
        f"127.0.0.1:{port}",
        "--keep-alive",
        "75",
    )
    graceful = () if side == "alone" else ("--graceful-timeout", GRACEFUL_SECONDS)
    yield port, _hangup(port, running.python("gunicorn", *options, *graceful, app, environ=environ))


def _hangup(port: int, parent: subprocess.Popen[bytes]) -> Roll:
    """Replace the workers by SIGHUP; it is done when none of those that answered before is left."""

    def roll(_: Load) -> None:
        old: set[int] = set()
        wait_for("answers of every worker", lambda: len(_seen(port, old)) >= WORKERS)
        parent.send_signal(signal.SIGHUP)
        wait_for("the end of the old workers", lambda: not any(map(alive, old)))

    return roll


def _seen(port: int, pids: set[int]) -> set[int]:
    """Add the process that a new connection meets: clients that keep theirs may all be with one."""
    pids.update(int(body) for body in (get(port, "/quick"),) if body)
    return pids


@contextmanager
def _nginx(running: Processes, side: Side) -> Iterator[tuple[int, Roll]]:
    """A supervisor keeps the listening socket and hands it down, so that whoever connects is always heard.

    nginx renews its connections (`keepalive_time`): else it may keep those to the other processes for ever, and a new
    one is never asked.
    """
    (port,) = free_ports(1)
    config = running.folder / "nginx.conf"
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        # uvicorn takes what it is handed for a UNIX socket, and so leaves this off; accepted sockets inherit it.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        config.write_text(NGINX.format(folder=running.folder, upstream=listener.getsockname()[1], port=port))
        app, environ = _wrapped(side)
        inherited = listener.fileno()

        def server() -> subprocess.Popen[bytes]:
            return running.python(
                "uvicorn", app, "--fd", str(inherited), *_uvicorn(side), environ=environ, inherited=[inherited]
            )

        replicas = [server() for _ in range(WORKERS)]
        running.start(["nginx", "-c", str(config), "-e", str(running.folder / "errors")])

        def roll(load: Load) -> None:
            for _ in range(WORKERS):
                new = server()
                load.counts.pids.clear()
                replicas.append(new)
                wait_for("answers of the new process", lambda new=new: new.pid in load.counts.pids)  # type: ignore[misc]
                running.stop(replicas.pop(0))

        yield port, roll


FRONTS = (
    Front("haproxy, http", ("haproxy",), "apt-get install haproxy", _haproxy("http")),
    Front("haproxy, tcp", ("haproxy",), "apt-get install haproxy", _haproxy("tcp")),
    Front("uvicorn --workers, HUP", ("uvicorn",), "pip install 'asgi-guard[server]'", _uvicorn_workers),
    Front(
        "gunicorn + uvicorn_worker, HUP",
        ("gunicorn", "uvicorn_worker"),
        "pip install gunicorn uvicorn-worker",
        _gunicorn,
    ),
    Front("nginx, inherited socket", ("nginx",), "apt-get install nginx-light", _nginx),
)
"""In the order in which they are measured."""
