"""The Health layer: is this process alive, may it have requests, and how it leaves without losing one."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import orjson

from asgi_guard.errors import ConfigError, Problem
from asgi_guard.layer import Decision, Layer
from asgi_guard.policy.address import parse_address, parse_networks
from asgi_guard.policy.answer import Answer, Reason
from asgi_guard.policy.listing import listed
from asgi_guard.policy.routes import route_path
from asgi_guard.readiness import CHECK_TIMEOUT, Check, Readiness

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from asgi_guard.asgi import ASGIApp, Head
    from asgi_guard.exchange import Exchange

logger = logging.getLogger("asgi_guard")

LOCAL = ("127.0.0.0/8", "::1/128")


class HealthMiddleware(Layer):
    """Answers liveness and readiness probes, and drains on SIGTERM.

    Liveness is 200 as long as requests are answered at all. Readiness is 503 before the app's start-up is complete,
    while a required check fails, and while draining.

    Draining: with `drain_seconds`, SIGTERM first only turns readiness to 503 while requests are served on, with
    `Connection: close` on HTTP/1; after that time the server's own handler is called. It works where a server sets its
    handlers before lifespan start-up (uvicorn, alone and with `--workers`, and gunicorn's `uvicorn_worker`).

    Args:
        app: the app within.
        live_path: the path of liveness; None for none.
        ready_path: the path of readiness; None for none.
        drain_seconds: how long to serve on after SIGTERM; 0 leaves signals alone.
        checks: what readiness asks, all at once, remembered for a second.
        check_timeout: seconds that each of them has, unless it says otherwise.
        details: addresses and networks (CIDR) that are told what each check said, by the client's address as the Proxy
            layer has it; all others are told whether this process is ready, and no more.

    Raises:
        ConfigError: a path does not start with `/`, or both are the same; a network is malformed; checks have no
            time.
    """

    name = "health"

    def __init__(
        self,
        app: ASGIApp,
        *,
        live_path: str | None = "/health/live",
        ready_path: str | None = "/health/ready",
        drain_seconds: float = 0,
        checks: Sequence[Check] = (),
        check_timeout: float = CHECK_TIMEOUT,
        details: str | Sequence[str] = LOCAL,
    ) -> None:
        super().__init__(app)
        named = (("live_path", live_path), ("ready_path", ready_path))
        problems = [
            Problem(name, f"{path!r} does not start with '/'") for name, path in named if path and path[0] != "/"
        ]
        if live_path and live_path == ready_path:
            problems.append(Problem("ready_path", f"{ready_path!r} is the path of liveness, which would answer for it"))
        try:
            self._told = parse_networks(listed(details))
        except ValueError as error:
            problems.append(Problem("details", str(error)))
        if not check_timeout > 0:
            problems.append(Problem("check_timeout", f"{check_timeout} s are no time to answer in"))
        if problems:
            raise ConfigError(problems)
        self._endings = tuple(path for path in (live_path, ready_path) if path)
        self._live_path = live_path
        self._ready_path = ready_path
        self._drain_seconds = drain_seconds
        self._readiness = Readiness(checks, check_timeout)
        self._state = "serving"  # a server without lifespan never says when start-up is complete
        self._previous: Any = None
        self._timer: threading.Timer | None = None

    @property
    def checks(self) -> tuple[Check, ...]:
        """What readiness asks."""
        return self._readiness.checks

    async def startup(self) -> None:
        """Be not ready until the app's start-up is complete, and take SIGTERM over if draining is asked for."""
        self._state = "starting"
        if self._drain_seconds > 0 and threading.current_thread() is threading.main_thread():
            self._previous = signal.getsignal(signal.SIGTERM)
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def started(self) -> None:
        """Be ready, as far as the checks are, unless SIGTERM came first."""
        if self._state == "starting":
            self._state = "serving"

    async def shutdown(self) -> None:
        """Give SIGTERM back, and ask nothing more."""
        self._state = "draining"
        self._readiness.stop()
        if self._timer is not None:
            self._timer.cancel()
        if self._previous is not None and signal.getsignal(signal.SIGTERM) == self._on_sigterm:
            signal.signal(signal.SIGTERM, self._previous)

    def drain(self) -> None:
        """Turn readiness to 503 and close HTTP/1 connections as they answer; requests are served on."""
        if self._state != "draining":
            self._state = "draining"
            logger.warning("draining: not ready for new requests")

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        if self._state == "draining":
            self._hand_on(number, frame)  # a second signal: whoever sends it does not want to wait
            return
        self.drain()
        # A thread of its own, for the event loop may be busy, and the signal has to come again whatever happens.
        self._timer = threading.Timer(self._drain_seconds, _signal_main_thread, [number])
        self._timer.daemon = True
        self._timer.start()

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        previous, self._previous = self._previous, None
        signal.signal(signal.SIGTERM, previous if previous is not None else signal.SIG_DFL)
        if callable(previous):
            previous(number, frame)
        else:
            signal.raise_signal(number)

    def decide(self, exchange: Exchange) -> Decision:
        """Answer a probe."""
        path = exchange.path
        if not path.endswith(self._endings) or exchange.kind != "http":
            return None
        path = route_path(path, exchange.scope.get("root_path", ""))
        if exchange.method not in ("GET", "HEAD"):
            return None
        if path == self._live_path:
            return _answer(200, "live", {})
        if path == self._ready_path:
            if self._state != "serving":
                return _answer(503, self._state, {})
            return self._ready(exchange)
        return None

    async def _ready(self, exchange: Exchange) -> Answer:
        report = await self._readiness.ask()
        state = "ready" if report.ready else "not ready"
        return _answer(200 if report.ready else 503, state, report.results if self._may_know(exchange) else {})

    def _may_know(self, exchange: Exchange) -> bool:
        # A client in doubt has the address of a proxy, which may be among the allowed.
        address = None if exchange.client is None or exchange.client_doubt else parse_address(exchange.client)
        return address is not None and any(address in network for network in self._told)

    def mark(self, exchange: Exchange, head: Head) -> None:
        """Ask HTTP/1 clients to connect anew, elsewhere, while draining."""
        if (
            self._state == "draining"
            and exchange.kind == "http"
            and exchange.scope.get("http_version", "").startswith("1")
        ):
            head.set(b"connection", b"close")


def _signal_main_thread(number: int) -> None:
    """Send this process a signal where its handlers run: in another thread, it would not wake a sleeping event loop."""
    if sys.platform == "win32":
        signal.raise_signal(number)
    else:
        signal.pthread_kill(threading.main_thread().ident or 0, number)


def _answer(status: int, state: str, checks: dict[str, str]) -> Answer:
    body: dict[str, Any] = {"status": state}
    if checks:
        body["checks"] = checks
    reason = None if status == 200 else Reason.NOT_READY
    headers = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
    return Answer(status, headers, orjson.dumps(body), reason)
