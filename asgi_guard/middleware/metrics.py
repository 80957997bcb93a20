"""The Metrics layer: how long requests took, which were refused and why, and how the guard's own parts do."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, TypeAlias

from asgi_guard.chain.exchange import Exchange
from asgi_guard.chain.layer import Decision, Layer
from asgi_guard.chain.lifespan import Startups
from asgi_guard.chain.response import CLIENT_LEFT
from asgi_guard.configuration.arguments import typed
from asgi_guard.errors import ConfigError, Problem
from asgi_guard.operations.instruments import UNMATCHED, forget, opentelemetry, prometheus
from asgi_guard.operations.scrapes import Scrapes
from asgi_guard.policy.address import LOCAL, parse_networks
from asgi_guard.policy.answer import Answer, Reason
from asgi_guard.policy.listing import listed
from asgi_guard.policy.log_entry import CLIENT_GONE
from asgi_guard.policy.methods import KNOWN_METHODS
from asgi_guard.policy.path_index import NO_ROW
from asgi_guard.policy.routes import Route, RouteTable, path_faults

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prometheus_client import CollectorRegistry

    from asgi_guard.asgi import ASGIApp
    from asgi_guard.chain.response import Response
    from asgi_guard.operations.instruments import Instruments, Measure

MAX_SERIES = 2000
"""Combinations of method, route and status; an app that names more routes has the rest under `_unmatched`."""
KNOWN_SCHEMES = ("http", "https", "ws", "wss")
EVERY = 1.0
"""Seconds after which gauges are brought up to date, where anything happens."""
NEAR = 0.2
"""A limit is near when this share of its bucket, or less, is left."""
_Key: TypeAlias = "tuple[str, object, int | None, str, str | None]"
_STARTUPS = Startups()  # of all layers, for gauges are forgotten by the process


class MetricsMiddleware(Layer):
    """Measures, and answers scrapes.

    No label is made of what a client sends: the route is the app's own or the route table's pattern, or the path where
    the guard itself answers (of a probe, say); a method that nobody knows is `_OTHER`. Bounds of time hold: gauges are
    brought up to date once a second at most, and by a scrape. A scrape is written by a thread, beside the event loop.

    Args:
        app: the app within.
        path: where scrapes are answered; None measures without answering.
        allow: addresses and networks (CIDR) whose scrapes are answered, by the client's address as it is known here,
            within a Proxy layer or in a Guard; for all others the path is the app's.
        otel: whether to measure with OpenTelemetry's metrics API too.
        routes: the route table.
        registry: the registry to measure in and to tell; prometheus_client's own one unless given.

    Raises:
        ConfigError: the path is none, a network is malformed, or what it measures with is not installed.
    """

    name = "metrics"

    @typed
    def __init__(
        self,
        app: ASGIApp,
        *,
        path: str | None = "/metrics",
        allow: str | Sequence[str] = LOCAL,
        otel: bool = False,
        routes: Sequence[Route] | RouteTable = (),
        registry: CollectorRegistry | None = None,
    ) -> None:
        super().__init__(app)
        problems: list[Problem] = []
        if path is not None:
            problems += (Problem("path", fault) for fault in path_faults(path, pattern=False))
        try:
            self._allowed = parse_networks(listed(allow))
        except ValueError as error:
            problems.append(Problem("allow", str(error)))
        self.instruments: list[Instruments] = []
        try:
            if path is not None:
                from prometheus_client import REGISTRY  # noqa: PLC0415,RUF100 - an extra

                registry = registry or REGISTRY
                self.instruments.append(prometheus(registry))
                self._scrapes = Scrapes(registry)
        except ImportError:
            problems.append(Problem("path", "prometheus_client is missing: pip install 'asgi-guard[prometheus]'"))
        try:
            if otel:
                self.instruments.append(opentelemetry())
        except ImportError:
            problems.append(Problem("otel", "opentelemetry-api is missing: pip install 'asgi-guard[otel]'"))
        if problems:
            raise ConfigError(problems)
        self._path = path
        self._table = RouteTable.of(routes)
        self._under_way = self._shown = 0  # and how many of them the gauge knows of, which other guards may share
        self._due = 0
        self._timer: asyncio.TimerHandle | None = None
        self._in_flight = tuple(each.in_flight() for each in self.instruments)
        self._series: set[tuple[str, str, int, str, str | None]] = set()
        self._durations: dict[_Key, tuple[Measure, ...]] = {}
        self._refusals: dict[tuple[str | None, str], tuple[Measure, ...]] = {}
        self._near: dict[str, tuple[Measure, ...]] = {}
        self._sources: list[Callable[[], None]] = []

    def watch(self, count: Callable[[], float], measures: Sequence[Measure]) -> None:
        """Measure by how much a count has grown, whenever gauges are brought up to date."""
        last = 0.0

        def tell() -> None:
            nonlocal last
            now = count()
            if now > last:
                for measure in measures:
                    measure(now - last)
                last = now

        self._sources.append(tell)

    def watch_gauge(self, value: Callable[[], float | None], measures: Sequence[Measure]) -> None:
        """Measure a value, if there is one, whenever gauges are brought up to date."""

        def tell() -> None:
            now = value()
            if now is not None:
                for measure in measures:
                    measure(now)

        self._sources.append(tell)

    def enter(self, exchange: Exchange) -> None:
        """Start the clock. If an outer layer measures this exchange, this one does not."""
        if exchange.measured_by is None:
            exchange.measured_by = self
            exchange.entered = time.perf_counter_ns()
            self._under_way += 1
            if self._timer is None:
                self._attend()

    def decide(self, exchange: Exchange) -> Decision:
        """Answer a scrape, if it is one, and from where it may come."""
        if self._path is None or not exchange.asks_for(self._path) or exchange.method not in ("GET", "HEAD"):
            return None
        if exchange.is_of_page or not self._allowed.hold(exchange.known_client):
            return None
        self._tell()  # here, for what is measured is the event loop's
        return self._scraped(exchange, self._path)

    async def _scraped(self, exchange: Exchange, path: str) -> Answer:
        accept = exchange.headers.get(b"accept", b"").decode("latin-1")
        body, content_type = await exchange.wait(self._scrapes.ask(accept))
        headers = ((b"content-type", content_type.encode()), (b"cache-control", b"no-store"))
        return Answer(200, headers, body, path=path)

    def leave(self, exchange: Exchange, response: Response, error: BaseException | None) -> None:
        """Measure."""
        if exchange.measured_by is not self:
            return
        self._under_way -= 1
        now = time.perf_counter_ns()
        place = self._place(exchange)
        failure = None if response.finished and error is None else response.failure(error)
        failure = None if failure == CLIENT_LEFT else failure
        key = (exchange.method, place, CLIENT_GONE if response.unheard else response.status, exchange.scheme, failure)
        measures = self._durations.get(key) or self._measures(key, response)
        seconds = (now - exchange.entered) / 1e9
        for measure in measures:
            measure(seconds)
        if failure is not None and response.status is not None and response.status < 500:
            self._went_wrong(failure)
        if exchange.answer is not None and exchange.answer.reason is not None:
            self._refused(exchange.answered_by, exchange.answer.reason)
        if exchange.verdict is not None and exchange.verdict.admitted:
            for reading in exchange.verdict.readings:
                limit = reading.limit
                if reading.wait == 0 and reading.remaining <= limit.burst * NEAR:
                    self._count_near(limit.name)
        if now >= self._due:
            self._tell()
        elif self._shown and (not self._under_way or exchange.answered_by == self.name):
            self._tell_in_flight()  # for long nobody may come who would
        elif self._timer is None:
            self._attend()

    def _place(self, exchange: Exchange) -> object:
        """The route: the app's, the guard's own path, or the number of a row; None for none."""
        if exchange.route is not None:
            return getattr(exchange.route, "path", None)
        if exchange.answer is not None and exchange.answer.path is not None:
            return exchange.answer.path
        row, _ = exchange.find(self._table)
        return None if row == NO_ROW else row

    async def startup(self) -> None:
        """Note that one more server in this process has gauges."""
        _STARTUPS.add()

    async def shutdown(self) -> None:
        """Tell what is left, and with the last server take this process's gauges out of what several tell together."""
        self._tell()
        if _STARTUPS.remove() and self._path is not None:
            forget(os.getpid())

    def _measures(self, key: _Key, response: Response) -> tuple[Measure, ...]:
        """Find the series of a request, and keep it under its key as long as these are few."""
        method, place, status, scheme, failure = key
        method = method if method in KNOWN_METHODS else "_OTHER"
        scheme = scheme if scheme in KNOWN_SCHEMES else "_OTHER"
        if isinstance(place, int):
            place = self._table.routes[place].path
        if status is None:
            status = CLIENT_GONE if response.disconnected else 500
        series = (method, place if isinstance(place, str) else UNMATCHED, status, scheme, failure)
        full = len(self._series) >= MAX_SERIES
        if full and series not in self._series:
            series = (method, UNMATCHED, status, scheme, failure)
        self._series.add(series)
        found = tuple(each.duration(*series) for each in self.instruments)
        # What clients choose freely is no key: these would be any number. Nor is no status, which says two things.
        if not full and key[2] is not None and "_OTHER" not in series:
            self._durations[key] = found
        return found

    def _refused(self, layer: str | None, reason: str) -> None:
        key = (layer, reason)
        if key not in self._refusals:
            blamed = layer or ("guard" if reason == Reason.GUARD_ERROR else "app")
            self._refusals[key] = tuple(each.refusals(blamed, reason) for each in self.instruments)
        for measure in self._refusals[key]:
            measure(1)

    def _went_wrong(self, failure: str) -> None:
        for each in self.instruments:
            each.late_errors(failure)(1)

    def _count_near(self, limit: str) -> None:
        if limit not in self._near:
            self._near[limit] = tuple(each.near_limit(limit) for each in self.instruments)
        for measure in self._near[limit]:
            measure(1)

    def _attend(self) -> None:
        """See to it that gauges are brought up to date, though what is under way may go on for hours."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # the event loop is not asyncio's, and requests that end have to do
        self._timer = loop.call_later(EVERY, self._tell)

    def _tell_in_flight(self) -> None:
        more, self._shown = self._under_way - self._shown, self._under_way
        for measure in self._in_flight:
            measure(more)

    def _tell(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due = time.perf_counter_ns() + int(EVERY * 1e9)
        self._tell_in_flight()
        for tell in self._sources:
            tell()
