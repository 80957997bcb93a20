"""What is measured, under which name, and with what: prometheus_client or the metrics API of OpenTelemetry.

Neither is imported unless it is asked for. A family gives, for values of its labels, the function that takes a
measurement; who measures often keeps that function, so that no label is looked up again.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prometheus_client import CollectorRegistry

Measure: TypeAlias = "Callable[[float], object]"
Family: TypeAlias = "Callable[..., Measure]"

UNMATCHED = "_unmatched"
"""The route of a request that no row of the route table and no router of the app has one for."""
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds of a request's duration; those that OpenTelemetry's HTTP conventions advise, without the in-between ones."""
STORE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)
MAX_FORGOTTEN = 64
"""Processes whose gauges one scrape forgets at most, since each takes a look through the folder."""
_LIVE_GAUGES = re.compile(r"gauge_live[a-z]+_(\d{1,10})\.db")
"""The files whose gauges count for as long as their process lives."""
BATCH = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)


class Metric(NamedTuple):
    """One metric.

    Attributes:
        kind: `counter`, `up_down`, which is told by how much it has changed, `gauge` or `histogram`.
        name: Prometheus's; the one of OpenTelemetry has dots for the words' ends.
        other_name: OpenTelemetry's.
        unit: OpenTelemetry's.
        help: what it tells.
        labels: names of its labels.
        bounds: of a histogram's buckets.
        required: names of labels behind those, which OpenTelemetry's conventions require and Prometheus does without.
    """

    kind: str
    name: str
    other_name: str
    unit: str
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    required: tuple[str, ...] = ()


METRICS = {
    "duration": Metric(
        "histogram", "asgi_guard_request_duration_seconds", "http.server.request.duration", "s",
        "Seconds from a request's start to its end.", ("method", "route", "status"), SECONDS,
        required=("scheme", "error"),
    ),
    "in_flight": Metric(
        "up_down", "asgi_guard_requests_in_flight", "asgi_guard.requests_in_flight", "{request}",
        "Requests and WebSocket sessions under way.",
    ),
    "refusals": Metric(
        "counter", "asgi_guard_refusals", "asgi_guard.refusals", "{request}",
        "Requests that the guard answered itself, by layer and reason.", ("layer", "reason"),
    ),
    "shadow_refusals": Metric(
        "counter", "asgi_guard_shadow_refusals", "asgi_guard.shadow_refusals", "{request}",
        "Requests that a layer would have refused, did it not only log, by layer and reason.", ("layer", "reason"),
    ),
    "late_errors": Metric(
        "counter", "asgi_guard_late_errors", "asgi_guard.late_errors", "{request}",
        "Requests that went wrong in the app behind a head that says otherwise, by the exception's type.", ("error",),
    ),
    "near_limit": Metric(
        "counter", "asgi_guard_limit_near", "asgi_guard.limit_near", "{request}",
        "Requests that were allowed with a limit used to 80 % or more.", ("limit",),
    ),
    "log_dropped": Metric(
        "counter", "asgi_guard_log_dropped", "asgi_guard.log_dropped", "{line}",
        "Lines of the access log that were dropped: a slow reader left no room for them, or they could not be written.",
    ),
    "store_seconds": Metric(
        "histogram", "asgi_guard_store_call_seconds", "asgi_guard.store_call.duration", "s",
        "Seconds of one call of the store, for all requests of its batch.", (), STORE_SECONDS,
    ),
    "batch_size": Metric(
        "histogram", "asgi_guard_store_batch_size", "asgi_guard.store_call.size", "{request}",
        "Requests that one call of the store was for.", (), BATCH,
    ),
    "store_failures": Metric(
        "counter", "asgi_guard_store_failures", "asgi_guard.store_call.failures", "{failure}",
        "Failures of the store: no answer in time, no connection, or an error in the place of an answer.",
    ),
    "breakers_open": Metric(
        "gauge", "asgi_guard_store_breakers_open", "asgi_guard.store_breakers_open", "{breaker}",
        "Breakers that are open: servers of the store that are not asked for a while.",
    ),
    "keys_age": Metric(
        "gauge", "asgi_guard_keys_age_seconds", "asgi_guard.keys.age", "s",
        "Seconds since an issuer last confirmed its keys.", ("issuer",),
    ),
    "key_fetches": Metric(
        "counter", "asgi_guard_key_fetches", "asgi_guard.key_fetches", "{fetch}",
        "Fetches of an issuer's keys.", ("issuer", "outcome"),
    ),
    "token_lookups": Metric(
        "counter", "asgi_guard_token_cache_lookups", "asgi_guard.token_cache.lookups", "{token}",
        "Tokens that were looked up among those verified before.", ("outcome",),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Instruments:
    """The family of every metric, under its name in `METRICS`."""

    duration: Family
    in_flight: Family
    refusals: Family
    shadow_refusals: Family
    late_errors: Family
    near_limit: Family
    log_dropped: Family
    store_seconds: Family
    batch_size: Family
    store_failures: Family
    breakers_open: Family
    keys_age: Family
    key_fetches: Family
    token_lookups: Family


class _Make(Protocol):
    def __call__(self, metric: Metric) -> Family: ...


def _instruments(make: _Make) -> Instruments:
    return Instruments(**{name: make(metric) for name, metric in METRICS.items()})


def prometheus(registry: CollectorRegistry) -> Instruments:
    """The instruments of a registry: the same ones for every guard of it.

    Raises:
        ImportError: prometheus_client is not installed.
    """
    import prometheus_client  # noqa: PLC0415,RUF100 - an extra

    known = _of_registries.get(registry)
    if known is not None:
        return known

    def make(metric: Metric) -> Family:
        options: dict[str, Any] = {"registry": registry}
        if metric.kind == "counter":
            counter = prometheus_client.Counter(metric.name, metric.help, metric.labels, **options)
            return lambda *values: (counter.labels(*values) if values else counter).inc
        if metric.kind in ("gauge", "up_down"):
            # Of several processes that live, what goes up and down adds up, and of the others the worst counts.
            adds = metric.kind == "up_down"
            options["multiprocess_mode"] = "livesum" if adds else "livemax"
            gauge = prometheus_client.Gauge(metric.name, metric.help, metric.labels, **options)

            def gauging(*values: Any) -> Measure:
                of_values = gauge.labels(*values) if values else gauge
                return of_values.inc if adds else of_values.set

            return gauging
        options["buckets"] = metric.bounds
        histogram = prometheus_client.Histogram(metric.name, metric.help, metric.labels, **options)
        count = len(metric.labels)
        return lambda *values: (histogram.labels(*values[:count]) if count else histogram).observe

    made = _of_registries[registry] = _instruments(make)
    return made


_of_registries: WeakKeyDictionary[CollectorRegistry, Instruments] = WeakKeyDictionary()


def exposition(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """What a registry holds, in the format that a scraper accepts, and that format's name.

    With `PROMETHEUS_MULTIPROC_DIR`, which prometheus_client reads itself, it is what all processes hold together: also
    what those counted that have ended, but not their gauges.
    """
    from prometheus_client import CollectorRegistry, values  # noqa: PLC0415,RUF100 - an extra
    from prometheus_client.exposition import choose_encoder  # noqa: PLC0415,RUF100 - an extra

    if values.ValueClass is not values.MutexValue:
        from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415,RUF100 - an extra

        registry = CollectorRegistry()
        collector = MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # its package declares no types here
        forget_ended(Path(collector._path))  # which nothing else tells that does not read the environment
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # a version in quotes, say, which may be written and is not understood
        encode, content_type = choose_encoder("")
    return encode(registry), content_type


def forget_ended(folder: Path) -> None:
    """Forget the gauges of processes that have ended without doing so, as those do that are killed.

    Args:
        folder: that of `PROMETHEUS_MULTIPROC_DIR`.
    """
    if sys.platform == "win32":
        return  # where asking a process whether it runs ends it
    named = (_LIVE_GAUGES.fullmatch(path.name) for path in folder.iterdir())
    pids = {int(found[1]) for found in named if found is not None}
    if os.getpid() not in pids:
        return  # files are named by something else, so no name tells of a process
    for pid in islice((pid for pid in pids if not _runs(pid)), MAX_FORGOTTEN):
        forget(pid)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # another user's, or none that could be asked
    return True


def forget(pid: int) -> None:
    """Forget the gauges of a process that ends, where several processes are scraped as one."""
    from prometheus_client import values  # noqa: PLC0415,RUF100 - an extra
    from prometheus_client.multiprocess import mark_process_dead  # noqa: PLC0415,RUF100 - an extra

    if values.ValueClass is not values.MutexValue:
        with suppress(OSError):  # another worker is forgetting it too
            mark_process_dead(pid)  # type: ignore[no-untyped-call]  # its package declares no types here


def opentelemetry() -> Instruments:
    """The instruments of OpenTelemetry's current meter provider.

    Raises:
        ImportError: opentelemetry-api is not installed.
    """
    from opentelemetry import metrics  # noqa: PLC0415,RUF100 - an extra

    meter = metrics.get_meter("asgi_guard")
    names = {
        "method": "http.request.method",
        "route": "http.route",
        "status": "http.response.status_code",
        "scheme": "url.scheme",
        "error": "error.type",
    }

    def make(metric: Metric) -> Family:
        told: Any = (metric.other_name, metric.unit, metric.help)
        if metric.kind == "counter":
            measure: Any = meter.create_counter(*told).add
        elif metric.kind == "up_down":
            measure = meter.create_up_down_counter(*told).add
        elif metric.kind == "gauge":
            measure = meter.create_gauge(*told).set
        else:
            bounds: Sequence[float] = metric.bounds
            measure = meter.create_histogram(*told, explicit_bucket_boundaries_advisory=bounds).record
        labels = [names.get(label, f"asgi_guard.{label}") for label in (*metric.labels, *metric.required)]

        def family(*values: Any) -> Measure:
            attributes: dict[str, Any] = dict(zip(labels, values, strict=True))
            if attributes.get(names["route"]) == UNMATCHED:
                del attributes[names["route"]]  # which the conventions want only where there is one
            if attributes.get(names["status"], 0) >= 500:
                attributes[names["error"]] = str(attributes[names["status"]])
            elif attributes.get(names["error"], "") is None:
                del attributes[names["error"]]
            return lambda value: measure(value, attributes)

        return family

    return _instruments(make)
