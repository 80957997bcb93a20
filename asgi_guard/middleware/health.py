"""The Health layer: is this process alive, may it have requests, and how it leaves without losing one."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from asgi_guard.errors import ConfigError, Problem
from asgi_guard.layer import Decision, Layer
from asgi_guard.policy.answer import Answer, Reason
from asgi_guard.policy.routes import route_path

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import FrameType

    from asgi_guard.asgi import ASGIApp, Head
    from asgi_guard.exchange import Exchange

logger = logging.getLogger("asgi_guard")

CACHE_SECONDS = 1.0
CHECK_TIMEOUT = 1.0


@dataclass(frozen=True, slots=True)
class Check:
    """Something that readiness asks.

    Attributes:
        name: what it is called in the answer.
        probe: fails by raising.
        required: whether its failure makes this process not ready, or is only told.
    """

    name: str
    probe: Callable[[], Awaitable[object]]
    required: bool = True


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
        checks: what readiness asks, all at once, a second each, remembered for a second.

    Raises:
        ConfigError: a path does not start with `/`, or both are the same.
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
    ) -> None:
        super().__init__(app)
        named = (("live_path", live_path), ("ready_path", ready_path))
        problems = [
            Problem(name, f"{path!r} does not start with '/'") for name, path in named if path and path[0] != "/"
        ]
        if live_path and live_path == ready_path:
            problems.append(Problem("ready_path", f"{ready_path!r} is the path of liveness, which would answer for it"))
        if problems:
            raise ConfigError(problems)
        self._live_path = live_path
        self._ready_path = ready_path
        self._drain_seconds = drain_seconds
        self._checks = tuple(checks)
        self._state = "serving"  # a server without lifespan never says when start-up is complete
        self._results: tuple[float, dict[str, str], bool] | None = None
        self._asking: asyncio.Task[tuple[dict[str, str], bool]] | None = None
        self._previous: Any = None
        self._timer: threading.Timer | None = None

    @property
    def checks(self) -> tuple[Check, ...]:
        """What readiness asks."""
        return self._checks

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
        """Give SIGTERM back."""
        self._state = "draining"
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
        if not path.endswith((self._live_path or "\0", self._ready_path or "\0")) or exchange.kind != "http":
            return None
        path = route_path(path, exchange.scope.get("root_path", ""))
        if exchange.method not in ("GET", "HEAD"):
            return None
        if path == self._live_path:
            return _answer(200, "live", {})
        if path == self._ready_path:
            if self._state != "serving":
                return _answer(503, self._state, {})
            return self._ready()
        return None

    async def _ready(self) -> Answer:
        results, ready = await self._ask()
        return _answer(200 if ready else 503, "ready" if ready else "not ready", results)

    async def _ask(self) -> tuple[dict[str, str], bool]:
        """Ask the checks, or remember what they said; however many probes ask at once, each check is asked once."""
        if self._results is not None and time.monotonic() < self._results[0]:
            return self._results[1], self._results[2]
        task = self._asking
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            task = self._asking = asyncio.create_task(self._run_checks(), name="asgi-guard readiness")
        return await asyncio.shield(task)

    async def _run_checks(self) -> tuple[dict[str, str], bool]:
        outcomes = await asyncio.gather(*(_run(check) for check in self._checks))
        ready = all(fine or not check.required for check, fine in zip(self._checks, outcomes, strict=True))
        results = {check.name: "ok" if fine else "failed" for check, fine in zip(self._checks, outcomes, strict=True)}
        if self._results is not None and self._results[2] != ready:
            logger.warning("readiness: %s: %s", "ready" if ready else "not ready", results)
        self._results = (time.monotonic() + CACHE_SECONDS, results, ready)
        return results, ready

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


async def _run(check: Check) -> bool:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT):
            await check.probe()
    except Exception as error:  # noqa: BLE001 - whatever a check raises, it has failed
        logger.debug("check %s failed: %s", check.name, type(error).__name__)
        return False
    return True


def _answer(status: int, state: str, checks: dict[str, str]) -> Answer:
    body: dict[str, Any] = {"status": state}
    if checks:
        body["checks"] = checks
    reason = None if status == 200 else Reason.NOT_READY
    headers = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
    return Answer(status, headers, orjson.dumps(body), reason)
