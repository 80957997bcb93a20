"""The Drain layer: how a process leaves without losing a request."""

from __future__ import annotations

import asyncio
import signal
from random import randint
from typing import TYPE_CHECKING

import orjson

from asgi_guard.chain.exchange import RELAYING
from asgi_guard.chain.layer import Decision, Layer
from asgi_guard.configuration.arguments import typed
from asgi_guard.configuration.variables import PREFIX
from asgi_guard.errors import ConfigError, Problem, require_choice
from asgi_guard.operations.draining import SCOPE_KEY, Draining, DrainSignal
from asgi_guard.policy.answer import Answer
from asgi_guard.policy.routes import path_faults

if TYPE_CHECKING:
    from asgi_guard.asgi import ASGIApp, Head
    from asgi_guard.chain.exchange import Exchange

SPREAD = 0.1
"""By how much of their number of requests workers differ."""
OWN_PEERS = frozenset({"127.0.0.1", "::1", "::ffff:127.0.0.1"})
OWN_HOSTS = (b"127.0.0.1", b"localhost", b"[::1]")
"""Where the operator's own command comes from, and which host it asks for: fewer than `is_loopback` holds of, since who
asks here has the process drain."""
FROM_ELSEWHERE = (*RELAYING, b"origin", b"sec-fetch-site")
"""What proxies and browsers add: a request with one of these does not come from the operator's own command."""


class DrainMiddleware(Layer):
    """Drains on SIGTERM, and on what else is named, for servers that take SIGTERM themselves.

    While it drains, readiness is 503 (`HealthMiddleware`, within this layer), requests are served on, HTTP/1 clients
    are asked to connect anew, and the event in `scope["asgi_guard.draining"]` is set, which `asgi_guard.draining()`
    finds too. SIGTERM is handed on to the server after `seconds`; on any other trigger nothing ends by itself, and
    SIGTERM then ends the process at once. Which server needs what is told in `asgi_guard.policy.servers`.

    A process drains as one: what begins one layer begins all, and SIGTERM is handed on after the longest of their
    waits. A layer within another counts no requests, and where it has no lifespan, as in an app that is mounted, the
    triggers of the one around it are all there are, beside its own path.

    Args:
        app: the app within.
        seconds: how long to serve on after SIGTERM; 0 leaves that to the server.
        on_signal: the name of a signal that begins draining: `SIGUSR1` or `SIGUSR2`.
        file: a file that begins it, once it is there; every process that looks for it drains.
        max_requests: after about so many requests (up to a tenth more, so that workers do not leave at once) this
            process drains and ends, to be started anew by whoever supervises it; 0 for never.
        siblings: whether other workers meanwhile take the requests of one that has served its number, so that readiness
            stays as it is.
        path: where a POST begins it, which is answered after `seconds`. Only this machine's own processes may ask:
            the connection comes from 127.0.0.1 or ::1, the host asked for is that too, and no header is there that
            a proxy or a browser adds. For everyone else the path is the app's. A proxy on this machine that adds no
            header at all cannot be told from them.

    Raises:
        ConfigError: the path can be no request's, or a process is to end without draining.
    """

    name = "drain"

    @typed
    def __init__(
        self,
        app: ASGIApp,
        *,
        seconds: float = 0,
        on_signal: DrainSignal | None = None,
        file: str | None = None,
        path: str | None = None,
        max_requests: int = 0,
        siblings: bool = False,
    ) -> None:
        super().__init__(app)
        problems = []
        if on_signal is not None:
            require_choice("on_signal", on_signal, DrainSignal)
            if not hasattr(signal, on_signal):
                problems.append(Problem("on_signal", f"there is no {on_signal} on this system"))
        if path is not None:
            problems += (Problem("path", fault) for fault in path_faults(path, pattern=False))
        if max_requests < 0:
            problems.append(Problem("max_requests", f"{max_requests} is no number of requests"))
        if max_requests and not seconds:
            said = f"a process that ends by itself drains first: give seconds ({PREFIX}HEALTH_DRAIN_SECONDS)"
            problems.append(Problem("max_requests", said))
        if problems:
            raise ConfigError(problems)
        self._max_requests = self._left = max_requests
        self._seconds = seconds
        self._path = path
        self.draining = Draining(seconds, on_signal, file, siblings=siblings)

    async def startup(self) -> None:
        """Take the signals over, and look for the file."""
        self._set_up()

    async def shutdown(self) -> None:
        """Give the signals back."""
        self.draining.take_down()

    def without_lifespan(self) -> None:
        """Take the signals over with the first request."""
        self.draining.allow_late()

    def _set_up(self, *, late: bool = False) -> None:
        self.draining.set_up(late=late)
        # Not before: workers that are forked off a loaded app would all have the same number.
        self._left = self._max_requests + randint(0, int(self._max_requests * SPREAD))  # noqa: S311 - it only spreads

    def _meet(self) -> None:
        """Make ready for an event loop that no request has come in yet."""
        if self.draining.is_set_up:
            self.draining.follow()
        else:
            self._set_up(late=True)

    def enter(self, exchange: Exchange) -> None:
        """Put the event where the app finds it. A server without lifespan is met here for the first time."""
        draining = exchange.draining
        if draining is None:  # else a layer further out has the triggers, and counts
            draining = exchange.draining = self.draining
            if draining.event_loop is not asyncio.get_running_loop():
                self._meet()
            if self._max_requests:
                self._left -= 1
                if self._left == 0:
                    draining.recycle()
        exchange.scope[SCOPE_KEY] = draining.event

    def decide(self, exchange: Exchange) -> Decision:
        """Begin, where this machine asks for it."""
        if self._path is None or exchange.method != "POST" or not exchange.asks_for(self._path):
            return None
        if not _is_own(exchange):
            return None
        self.draining.begin()
        return self._drained()

    async def _drained(self) -> Answer:
        await asyncio.sleep(self._seconds)
        headers = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
        return Answer(200, headers, orjson.dumps({"status": "draining"}), path=self._path)

    def mark(self, exchange: Exchange, head: Head) -> None:
        """Ask HTTP/1 clients to connect anew, elsewhere, while draining."""
        if self.draining.begun and exchange.kind == "http" and exchange.scope.get("http_version", "").startswith("1"):
            head.set(b"connection", b"close")


def _is_own(exchange: Exchange) -> bool:
    if exchange.peer not in OWN_PEERS or any(name in exchange.headers for name in FROM_ELSEWHERE):
        return False
    hosts = exchange.lines(b"host")
    return len(hosts) == 1 and any(hosts[0] == host or hosts[0].startswith(host + b":") for host in OWN_HOSTS)
