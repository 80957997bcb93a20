"""The Health layer: is this process alive, and may it have requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from asgi_guard.chain.exchange import Exchange
from asgi_guard.chain.layer import Decision, Layer
from asgi_guard.chain.lifespan import Startups
from asgi_guard.configuration.arguments import typed
from asgi_guard.errors import ConfigError, Problem
from asgi_guard.operations.readiness import CHECK_TIMEOUT, Check, Checks, Readiness, as_checks, namesakes
from asgi_guard.policy.address import LOCAL, parse_networks
from asgi_guard.policy.answer import Answer, Reason
from asgi_guard.policy.listing import listed
from asgi_guard.policy.routes import path_faults

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asgi_guard.asgi import ASGIApp


class HealthMiddleware(Layer):
    """Answers liveness and readiness probes.

    Liveness is 200 as long as requests are answered at all. Readiness is 503 before the app's start-up is complete,
    while a required check fails, and while draining, which `DrainMiddleware` around this layer does.

    Args:
        app: the app within.
        live_path: the path of liveness; None for none.
        ready_path: the path of readiness; None for none.
        checks: what readiness asks, all at once, remembered for a second.
        check_timeout: seconds that each of them has, unless it says otherwise.
        details: addresses and networks (CIDR) that are told what each check said, by the client's address as it is
            known here, within a Proxy layer or in a Guard; all others are told whether this process is ready, no more.

    Raises:
        ConfigError: a path can be no request's, or both are the same; a network is malformed; checks have no
            time.
    """

    name = "health"

    @typed
    def __init__(
        self,
        app: ASGIApp,
        *,
        live_path: str | None = "/health/live",
        ready_path: str | None = "/health/ready",
        checks: Checks = (),
        check_timeout: float = CHECK_TIMEOUT,
        details: str | Sequence[str] = LOCAL,
    ) -> None:
        super().__init__(app)
        named = (("live_path", live_path), ("ready_path", ready_path))
        problems = [Problem(name, fault) for name, path in named if path for fault in path_faults(path, pattern=False)]
        if live_path and live_path == ready_path:
            problems.append(Problem("ready_path", f"{ready_path!r} is the path of liveness, which would answer for it"))
        try:
            self._detailed_for = parse_networks(listed(details))
        except ValueError as error:
            problems.append(Problem("details", str(error)))
        if not check_timeout > 0:
            problems.append(Problem("check_timeout", f"{check_timeout} s are no time to answer in"))
        asked = as_checks(checks)
        problems += namesakes(asked)
        if problems:
            raise ConfigError(problems)
        self._endings = tuple(path for path in (live_path, ready_path) if path)
        self._live_path = live_path
        self._ready_path = ready_path
        self._readiness = Readiness(asked, check_timeout)
        self._startups = Startups()
        self._state = "serving"  # a server without lifespan never says when start-up is complete

    @property
    def checks(self) -> tuple[Check, ...]:
        """What readiness asks."""
        return self._readiness.checks

    async def startup(self) -> None:
        """Be not ready until the app's start-up is complete, unless another server in this process has started it."""
        if self._startups.add():
            self._state = "starting"

    def started(self) -> None:
        """Be ready, as far as the checks are."""
        self._state = "serving"

    async def shutdown(self) -> None:
        """Be not ready any more, and ask nothing, unless another server in this process goes on."""
        if self._startups.remove():
            self._state = "draining"
            self._readiness.stop()

    def without_lifespan(self) -> None:
        """Be ready, as far as the checks are: nobody will say when start-up is complete."""
        self._state = "serving"

    def decide(self, exchange: Exchange) -> Decision:
        """Answer a probe."""
        if not exchange.path.endswith(self._endings) or exchange.kind != "http":
            return None
        path = exchange.below
        if exchange.method not in ("GET", "HEAD"):
            return None
        if path == self._live_path:
            return _answer(path, 200, "live")
        if path == self._ready_path:
            draining = exchange.draining
            state = "draining" if draining is not None and draining.unready else self._state
            if state != "serving":
                return _answer(path, 503, state)
            return self._ready(exchange, path)
        return None

    async def _ready(self, exchange: Exchange, path: str) -> Answer:
        report = await exchange.wait(self._readiness.ask())
        state = "ready" if report.ready else "not ready"
        return _answer(path, 200 if report.ready else 503, state, report.results if self._may_know(exchange) else None)

    def _may_know(self, exchange: Exchange) -> bool:
        return not exchange.is_of_page and self._detailed_for.hold(exchange.known_client)


def _answer(path: str, status: int, state: str, checks: dict[str, str] | None = None) -> Answer:
    body: dict[str, Any] = {"status": state}
    if checks:
        body["checks"] = checks
    reason = None if status == 200 else Reason.NOT_READY
    headers = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
    return Answer(status, headers, orjson.dumps(body), reason, path=path)
