"""The Metrics layer: what is measured, under bounded labels, and who may see it."""

from __future__ import annotations

import asyncio
import math
import os
import random
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from asgi_guard import (
    AccessLogMiddleware,
    Check,
    ConfigError,
    DrainMiddleware,
    HealthMiddleware,
    HostMiddleware,
    MetricsMiddleware,
    ProxyMiddleware,
    RateLimitMiddleware,
)
from asgi_guard import Route as Row
from asgi_guard.chain.layer import Layer
from asgi_guard.operations.instruments import BATCH, SECONDS, STORE_SECONDS, prometheus
from tests.asgi import Echo, call, get, http_scope, websocket_scope
from tests.stores.server import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

    from asgi_guard.asgi import ASGIApp, Message, Receive, Scope, Send
    from asgi_guard.chain.exchange import Exchange
    from asgi_guard.chain.layer import Decision

LOCAL: Any = ("127.0.0.1", 50000)
DURATIONS = "asgi_guard_request_duration_seconds_count"


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


async def scrape(app: ASGIApp) -> dict[str, dict[tuple[str, ...], float]]:
    """Every series that a scrape tells, by name and by values of its labels."""
    exchange = await get(app, "/metrics", client=LOCAL)
    assert exchange.status == 200
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(exchange.body.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


async def test_durations(registry: CollectorRegistry) -> None:
    """Requests are counted by method, route and status, refused ones, failed ones and WebSocket sessions too."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/broken":
            raise LookupError
        if scope["path"].startswith("/users/"):
            scope["route"] = SimpleNamespace(path="/users/{id}")
        await Echo()(scope, receive, send)

    layer = MetricsMiddleware(HostMiddleware(app, allowed="testserver"), routes=[Row("/items/*")], registry=registry)
    for path in ("/users/1", "/users/2", "/items/1", "/other", "/broken"):
        await get(layer, path)
    await get(layer, "/users/3", [(b"host", b"evil.example")])  # a second one, so it is refused
    await call(layer, http_scope("BREW", "/other"))
    found = (await scrape(layer))[DURATIONS]
    assert found == {
        ("GET", "/users/{id}", "200"): 2,
        ("GET", "/items/*", "200"): 1,
        ("GET", "_unmatched", "200"): 1,
        ("GET", "_unmatched", "500"): 1,
        ("GET", "_unmatched", "400"): 1,
        ("_OTHER", "_unmatched", "200"): 1,
    }


async def broken() -> None:
    raise OSError


async def test_the_guards_own_paths(registry: CollectorRegistry) -> None:
    """Probes, scrapes and what else the guard answers at paths of its own are told by these, apart from the app's."""
    drain = DrainMiddleware(HealthMiddleware(Echo(), checks=[Check("it", broken)]), path="/drain")
    layer = MetricsMiddleware(drain, routes=[Row("/*")], registry=registry)
    for method, path in (
        ("GET", "/health/live"),
        ("GET", "/health/ready"),
        ("HEAD", "/health/ready"),
        ("POST", "/drain"),
        ("POST", "/health/live"),
        ("GET", "/other"),
    ):
        await call(layer, {**http_scope(method, path, client=LOCAL), "headers": [(b"host", b"localhost")]})
    await drain.shutdown()
    await get(layer, "/mounted/health/live", root_path="/mounted")
    await scrape(layer)
    assert (await scrape(layer))[DURATIONS] == {
        ("GET", "/health/live", "200"): 2,
        ("GET", "/health/ready", "503"): 1,
        ("HEAD", "/health/ready", "503"): 1,
        ("POST", "/drain", "200"): 1,
        ("GET", "/metrics", "200"): 1,
        ("POST", "/*", "200"): 1,
        ("GET", "/*", "200"): 1,
    }


async def test_probes_of_guards_further_in(registry: CollectorRegistry) -> None:
    """A probe that a guard further in answers has that one's path as route, wherever a client finds it mounted."""
    inner = HealthMiddleware(Echo())

    async def mounting(scope: Scope, receive: Receive, send: Send) -> None:
        root_path = scope["path"].removesuffix("/health/live")
        await inner({**scope, "root_path": root_path}, receive, send)

    layer = MetricsMiddleware(mounting, registry=registry)
    for tenant in range(3):
        assert (await get(layer, f"/t/{tenant}/health/live")).body == b'{"status":"live"}'
    assert (await scrape(layer))[DURATIONS] == {("GET", "/health/live", "200"): 3}


async def test_an_answer_that_nobody_waits_for(registry: CollectorRegistry) -> None:
    """A request whose client leaves before the answer is counted as 499, whatever its app then answers."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if scope["path"] == "/answered":
            await Echo()(scope, receive, send)

    layer = MetricsMiddleware(app, registry=registry)
    for path in ("/answered", "/left"):
        await call(layer, http_scope(path=path), {"type": "http.disconnect"})
    assert (await scrape(layer))[DURATIONS] == {("GET", "_unmatched", "499"): 2}


@pytest.mark.parametrize("errors", [(OSError, RuntimeError), (RuntimeError, OSError)], ids=["left", "refused"])
async def test_a_head_that_is_not_sent(errors: tuple[type[Exception], ...], registry: CollectorRegistry) -> None:
    """A client that is lost at the head is counted as 499, and a head that the server does not take as 500."""
    layer = MetricsMiddleware(Echo(), registry=registry)

    async def receive() -> Message:
        return {"type": "http.request"}

    for error in errors:

        async def send(message: Message, error: type[Exception] = error) -> None:
            raise error

        with pytest.raises(error):
            await layer(http_scope(), receive, send)
    assert (await scrape(layer))[DURATIONS] == {("GET", "_unmatched", "499"): 1, ("GET", "_unmatched", "500"): 1}


async def test_errors_behind_a_head(registry: CollectorRegistry) -> None:
    """What goes wrong in the app behind a head that promised well is counted by its kind; that a client left is not."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept", "headers": []})
            raise LookupError
        if path == "/at once":
            raise KeyError
        await send({"type": "http.response.start", "status": 500 if path == "/told" else 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": path != "/afterwards"})
        if path == "/left":
            await receive()
        if path != "/unfinished":
            raise KeyError

    layer = MetricsMiddleware(app, registry=registry)
    for path in ("/at once", "/told", "/raised", "/unfinished", "/afterwards"):
        await get(layer, path)
    await call(layer, http_scope(path="/left"), {"type": "http.disconnect"})
    await call(layer, websocket_scope(), {"type": "websocket.connect"})
    found = (await scrape(layer))["asgi_guard_late_errors_total"]
    assert found == {("KeyError",): 2, ("response_unfinished",): 1, ("LookupError",): 1}


@pytest.mark.long
async def test_series_are_bounded(registry: CollectorRegistry) -> None:
    """Five thousand paths, and as many methods, make no series, and an app of many routes makes no endless ones."""
    dice = random.Random(1)  # noqa: S311 - nothing here is secret

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith("/named"):
            scope["route"] = SimpleNamespace(path=scope["path"])
        await Echo()(scope, receive, send)

    layer = MetricsMiddleware(app, registry=registry)
    await get(layer, "/first")
    await call(layer, http_scope("M", "/first"))
    await scrape(layer)
    before = (await scrape(layer))[DURATIONS].keys()
    for _ in range(5000):
        await call(layer, http_scope(dice.choice(["GET", f"M{dice.random()}"]), f"/{dice.getrandbits(64):x}"))
    after = (await scrape(layer))[DURATIONS]
    assert after.keys() - {("GET", "_unmatched", "200")} == before - {("GET", "_unmatched", "200")}
    assert sum(after.values()) == 5002 + 2  # scrapes are requests, too
    await call(layer, http_scope("M", "/named/first"))
    for method in ("GET", "M"):
        for number in range(3000):
            await call(layer, http_scope(method, f"/named/{number}"))
    await call(layer, http_scope("M", "/named/first"))
    found = (await scrape(layer))[DURATIONS]
    assert len(found) <= 2002
    assert found["_OTHER", "/named/first", "200"] == 2


async def test_in_flight(registry: CollectorRegistry) -> None:
    """Requests under way are told, the scrape itself among them."""
    begun, end = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await end.wait()

    layer = MetricsMiddleware(app, registry=registry)
    task = asyncio.create_task(get(layer))
    await begun.wait()
    assert (await scrape(layer))["asgi_guard_requests_in_flight"] == {(): 2}
    other = MetricsMiddleware(Echo(), registry=registry)
    assert (await get(other)).status == 200
    assert (await scrape(other))["asgi_guard_requests_in_flight"] == {(): 2}, "another guard's are told along"
    end.set()
    await task
    assert (await scrape(other))["asgi_guard_requests_in_flight"] == {(): 1}
    assert (await scrape(layer))["asgi_guard_requests_in_flight"] == {(): 1}


async def test_sessions_that_go_on(registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions that are opened, and those that end beside others, are told though nothing else happens for hours."""
    monkeypatch.setattr("asgi_guard.middleware.metrics.EVERY", 0.05)
    ends = [asyncio.Event() for _ in range(6)]
    waiting = iter(ends)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await next(waiting).wait()

    layer = MetricsMiddleware(app, registry=registry)

    async def told(expected: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while registry.get_sample_value("asgi_guard_requests_in_flight") != expected:  # noqa: ASYNC110 - as read
                await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(call(layer, websocket_scope())) for _ in range(3)]
    await told(3)
    tasks += [asyncio.create_task(call(layer, websocket_scope())) for _ in range(3)]
    await told(6)
    assert layer._timer is None, "a timer runs on though nothing happens"
    for number, end in enumerate(ends):
        end.set()
        await tasks[number]
        await told(5 - number)


@pytest.mark.parametrize(("shadow", "refused", "wide"), [(False, 4, 1), (True, 0, 2)])
async def test_refusals_and_near_limits(shadow: bool, refused: int, wide: int, registry: CollectorRegistry) -> None:
    """Refusals are counted by layer and reason, and what was allowed with a fifth of a limit left or less.

    What a limit in shadow would have refused is neither.
    """
    limits = "5/hour by ip; 6/hour by ip as wide"
    layer = MetricsMiddleware(RateLimitMiddleware(Echo(), limit=limits, shadow=shadow), registry=registry)
    for _ in range(8):
        await get(layer)
    await call(layer, websocket_scope())
    found = await scrape(layer)
    assert found.get("asgi_guard_refusals_total", {}) == ({("rate_limit", "rate_limited"): refused} if refused else {})
    assert found["asgi_guard_limit_near_total"] == {("ip",): 2, ("wide",): wide}


async def test_whose_error_it_was(registry: CollectorRegistry) -> None:
    """An error is counted as the app's or as the guard's own."""

    class Faulty(Layer):
        name = "faulty"

        def decide(self, exchange: Exchange) -> Decision:
            raise ZeroDivisionError

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError

    for app in (failing, Faulty(Echo())):
        await get(MetricsMiddleware(app, registry=registry))
    found = await scrape(MetricsMiddleware(Echo(), registry=registry))
    assert found["asgi_guard_refusals_total"] == {("app", "app_error"): 1, ("guard", "guard_error"): 1}


@pytest.mark.parametrize(
    ("client", "headers", "path", "method", "answered"),
    [
        ("127.0.0.1", [], "/metrics", "GET", True),
        ("127.0.0.1", [], "/metrics", "HEAD", True),
        ("::1", [], "/metrics", "GET", True),
        ("203.0.113.9", [], "/metrics", "GET", False),
        ("127.0.0.1", [], "/metrics", "POST", False),
        ("127.0.0.1", [], "/metrics/", "GET", False),
        ("10.0.0.1", [(b"x-forwarded-for", b"127.0.0.1")], "/metrics", "GET", True),
        ("10.0.0.1", [(b"x-forwarded-for", b"203.0.113.9")], "/metrics", "GET", False),
        ("10.0.0.1", [(b"x-forwarded-for", b"?")], "/metrics", "GET", False),
        ("127.0.0.1", [(b"x-forwarded-for", b"203.0.113.9")], "/metrics", "GET", False),
        ("127.0.0.1", [(b"forwarded", b"for=203.0.113.9")], "/metrics", "GET", False),
        ("127.0.0.1", [(b"x-real-ip", b"203.0.113.9")], "/metrics", "GET", False),
        ("127.0.0.1", [(b"sec-fetch-site", b"none")], "/metrics", "GET", True),
        ("127.0.0.1", [(b"sec-fetch-site", b"same-origin")], "/metrics", "GET", False),
        ("127.0.0.1", [(b"sec-fetch-site", b"cross-site")], "/metrics", "GET", False),
        ("127.0.0.1", [(b"origin", b"https://evil.example")], "/metrics", "GET", False),
    ],
)
async def test_who_may_scrape(
    client: str, headers: Any, path: str, method: str, answered: bool, registry: CollectorRegistry
) -> None:
    """Scrapes are answered to allowed addresses, not to a proxy's where the client is in doubt; else asks the app."""
    layer = MetricsMiddleware(Echo(), allow="127.0.0.1, ::1, 10.0.0.0/8", registry=registry)
    if client.startswith("10."):
        layer = MetricsMiddleware(Echo(), allow="127.0.0.1, 10.0.0.0/30", registry=registry)
    app = ProxyMiddleware(layer, trusted="10.0.0.0/8")
    exchange = await call(app, http_scope(method, path, headers, client=(client, 1)))
    assert (exchange.status, exchange.body != b"ok") == (200, answered)
    if answered and method == "GET":
        assert b"asgi_guard_requests_in_flight" in exchange.body


async def test_twice(registry: CollectorRegistry) -> None:
    """Two layers of one registry share its instruments, and what passes both is measured once."""
    layer = MetricsMiddleware(MetricsMiddleware(Echo(), registry=registry), registry=registry)
    await get(layer)
    found = await scrape(layer)
    assert found[DURATIONS] == {("GET", "_unmatched", "200"): 1}
    assert found["asgi_guard_requests_in_flight"] == {(): 1}, "the scrape itself"


@pytest.mark.parametrize(
    ("name", "family", "bounds"),
    [
        ("asgi_guard_request_duration_seconds", lambda made: made.duration("GET", "/", 200, "http", None), SECONDS),
        ("asgi_guard_store_call_seconds", lambda made: made.store_seconds(), STORE_SECONDS),
        ("asgi_guard_store_batch_size", lambda made: made.batch_size(), BATCH),
    ],
)
def test_bounds(name: str, family: Any, bounds: tuple[float, ...], registry: CollectorRegistry) -> None:
    """A histogram tells apart what its metric is about: a store answers in less than the least time of requests."""
    family(prometheus(registry))(bounds[0])
    samples = [sample for metric in registry.collect() for sample in metric.samples if sample.name == f"{name}_bucket"]
    assert [float(sample.labels["le"]) for sample in samples] == [*bounds, math.inf]


async def test_formats(registry: CollectorRegistry) -> None:
    """A scraper that asks for OpenMetrics gets that."""
    layer = MetricsMiddleware(Echo(), registry=registry)
    asked = [(b"accept", b"application/openmetrics-text; version=1.0.0")]
    exchange = await get(layer, "/metrics", asked, client=LOCAL)
    assert exchange.headers["content-type"].startswith("application/openmetrics-text")
    assert exchange.body.endswith(b"# EOF\n")
    quoted = [(b"accept", b'application/openmetrics-text;version="1.0.0"')]
    exchange = await get(layer, "/metrics", quoted, client=LOCAL)
    assert (exchange.status, b"# HELP" in exchange.body) == (200, True)


@pytest.mark.parametrize(("options", "name"), [({"path": "metrics"}, "path"), ({"allow": "localhost"}, "allow")])
def test_problems(options: dict[str, Any], name: str, registry: CollectorRegistry) -> None:
    """What cannot be is said at construction, by the option's name."""
    with pytest.raises(ConfigError) as caught:
        MetricsMiddleware(Echo(), registry=registry, **options)
    assert [problem.name for problem in caught.value.problems] == [name]


@pytest.mark.parametrize(
    ("module", "options", "name"),
    [("prometheus_client", {}, "path"), ("opentelemetry", {"path": None, "otel": True}, "otel")],
)
def test_missing_extras(module: str, options: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install is said where it is missing."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"pip install 'asgi-guard\[") as caught:
        MetricsMiddleware(Echo(), **options)
    assert [problem.name for problem in caught.value.problems] == [name]


async def test_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was counted since gauges were last brought up to date is told at the end, without prometheus_client too."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    layer, told = MetricsMiddleware(Echo(), path=None, otel=True), list[float]()
    layer.watch(lambda: 3, [told.append])
    await layer.startup()
    await layer.shutdown()
    assert told == [3]


async def test_opentelemetry() -> None:
    """OpenTelemetry's reader finds the same, in its names and units, with what its conventions require besides."""
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([reader]))
    layer = MetricsMiddleware(
        HostMiddleware(Echo(), allowed="other.example"), path=None, otel=True, routes=[Row("/items/*")]
    )
    await get(layer, "/items/1")
    await get(MetricsMiddleware(Echo(503), path=None, otel=True), scheme="https")
    await get(MetricsMiddleware(Echo(404), path=None, otel=True), scheme="gopher")
    data = reader.get_metrics_data()
    assert data is not None
    found: dict[str, Any] = {
        metric.name: (metric.unit, [(dict(point.attributes or {}), point) for point in metric.data.data_points])
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
    }
    unit, requests = found["http.server.request.duration"]
    assert (unit, [point.count for _, point in requests]) == ("s", [1, 1, 1])
    assert {tuple(point.explicit_bounds) for _, point in requests} == {SECONDS}
    common = {"http.request.method": "GET"}
    assert [labels for labels, _ in requests] == [
        {**common, "http.route": "/items/*", "http.response.status_code": 400, "url.scheme": "http"},
        {**common, "http.response.status_code": 503, "url.scheme": "https", "error.type": "503"},
        {**common, "http.response.status_code": 404, "url.scheme": "_OTHER"},
    ]
    _, ((labels, point),) = found["asgi_guard.refusals"]
    assert (point.value, labels) == (1, {"asgi_guard.layer": "host", "asgi_guard.reason": "host_not_allowed"})
    assert found["asgi_guard.requests_in_flight"][1][0][1].value == 0


BROKEN = """
import asyncio
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from asgi_guard import MetricsMiddleware
from tests.asgi import call, get, http_scope, websocket_scope

reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))

async def app(scope, receive, send):
    head, path = {"status": 200, "headers": []}, scope["path"]
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept", "headers": []})
        raise LookupError
    await send({"type": "http.response.start", **head})
    await send({"type": "http.response.body", "body": b"a", "more_body": path != "/afterwards"})
    if path == "/left":
        await receive()
    if path != "/unfinished":
        raise KeyError

async def main():
    layer = MetricsMiddleware(app, path=None, otel=True)
    for path in ("/raised", "/unfinished", "/afterwards"):
        await get(layer, path)
    await call(layer, http_scope(path="/left"), {"type": "http.disconnect"})
    await call(layer, websocket_scope(), {"type": "websocket.connect"})

asyncio.run(main())
for metric in reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics:
    if metric.name == "http.server.request.duration":
        for point in metric.data.data_points:
            status, error = (point.attributes.get(name) for name in ("http.response.status_code", "error.type"))
            print(status, error, point.count)
"""


def test_what_breaks_off_in_opentelemetry() -> None:
    """What an app breaks off after its head is told by its kind, as in the access log; that a client left is not."""
    # In a process of its own: there is one provider in each.
    found = subprocess.run([sys.executable, "-c", BROKEN], capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert set(found.stdout.splitlines()) == {
        "200 KeyError 2",
        "200 response_unfinished 1",
        "200 None 1",
        "101 LookupError 1",
    }


WORKER = """
import asyncio
from asgi_guard import MetricsMiddleware
from tests.asgi import Echo, get

async def main():
    layer = MetricsMiddleware(Echo())
    for _ in range(3):
        await get(layer)
    print((await get(layer, "/metrics", client=("127.0.0.1", 1))).body.decode())

asyncio.run(main())
"""


def test_several_processes(tmp_path: Path) -> None:
    """In prometheus_client's mode of several processes, whoever is scraped tells what all of them counted."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    for expected in (3, 6):
        command = [sys.executable, "-c", WORKER]
        told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        assert f'{DURATIONS}{{method="GET",route="_unmatched",status="200"}} {expected}.0' in told.splitlines()


LIVING = """
import sys
from prometheus_client import REGISTRY
from asgi_guard.operations.instruments import exposition, prometheus
instruments = prometheus(REGISTRY)
instruments.keys_age("issuer")(float(sys.argv[1]))
instruments.in_flight()(1)
told = exposition(REGISTRY, "")[0].decode().splitlines()
print(*sorted(line for line in told if line.startswith(("asgi_guard_keys_age", "asgi_guard_requests"))), flush=True)
sys.stdin.read()
"""


def test_gauges_of_several_processes(tmp_path: Path) -> None:
    """Of processes that live, requests under way add up, and of the ages of an issuer's keys the worst counts."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    command, pipe = [sys.executable, "-c", LIVING], subprocess.PIPE
    with subprocess.Popen([*command, "100"], env=environment, stdin=pipe, stdout=pipe, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline()
        told = subprocess.run([*command, "40"], env=environment, input="", stdout=pipe, text=True, check=True).stdout
        first.communicate()
    assert told == 'asgi_guard_keys_age_seconds{issuer="issuer"} 100.0 asgi_guard_requests_in_flight 2.0\n'


ENDING = """
import asyncio, os, signal, sys
from asgi_guard import MetricsMiddleware
from tests.asgi import Echo, call, get, http_scope

async def hang(scope, receive, send):
    if scope["path"] == "/hang":
        await asyncio.Event().wait()
    await Echo()(scope, receive, send)

async def main(way):
    layer = MetricsMiddleware(hang)
    hanging = [asyncio.create_task(call(layer, http_scope(path="/hang"))) for _ in range(5)]
    await asyncio.sleep(0)
    told = (await get(layer, "/metrics", client=("127.0.0.1", 1))).body.decode()
    print(*[line for line in told.splitlines() if line.startswith("asgi_guard_requests_in_flight ")], flush=True)
    if way == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if way == "stopped":
        await layer.shutdown()
    os._exit(0)

if sys.argv[1] == "other names":
    from prometheus_client import values
    values.ValueClass = values.MultiProcessValue(lambda: int(sys.argv[2]))
asyncio.run(main(sys.argv[1]))
"""


def ended(folder: Path, *arguments: str) -> tuple[str, list[str]]:
    """What a process tells that ends with five requests under way, and the files that it leaves of gauges."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", ENDING, *arguments]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return told.stdout or told.stderr, [path.name for path in folder.glob("gauge_live*")]


@pytest.mark.long
def test_processes_that_have_ended(tmp_path: Path) -> None:
    """Gauges of a process that was killed are told by no other, and one that stops takes its own away."""
    for way in ("killed", "killed", "stopped"):
        told, left = ended(tmp_path, way)
        assert told == "asgi_guard_requests_in_flight 6.0\n"
        assert bool(left) is (way == "killed")


TWO_SERVERS = """
import asyncio
from asgi_guard import MetricsMiddleware
from tests.asgi import Echo, get

async def main():
    layers = {layers}
    for layer in layers:
        await layer.startup()
    await layers[1].shutdown()
    told = (await get(layers[0], "/metrics", client=("127.0.0.1", 1))).body.decode()
    print(*[line for line in told.splitlines() if line.startswith("asgi_guard_requests_in_flight ")])
    await layers[0].shutdown()

asyncio.run(main())
"""


@pytest.mark.parametrize("layers", ["[MetricsMiddleware(Echo())] * 2", "[MetricsMiddleware(Echo()) for _ in range(2)]"])
def test_two_servers_of_one_process(layers: str, tmp_path: Path) -> None:
    """Gauges of a process are told until the last of its servers stops, with one layer or one each."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", TWO_SERVERS.format(layers=layers)]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert told.stdout == "asgi_guard_requests_in_flight 1.0\n"
    assert not list(tmp_path.glob("gauge_live*"))


@pytest.mark.long
def test_files_that_tell_of_no_process(tmp_path: Path) -> None:
    """Where files are named by something else than processes, nobody's gauges are taken for those of one that ended."""
    for number in ("2147483001", "2147483002"):
        told, _ = ended(tmp_path, "other names", number)
    assert told == "asgi_guard_requests_in_flight 11.0\n", "a scrape that is over is not told"


async def test_scrapes_are_not_logged_and_what_others_get_there_is(registry: CollectorRegistry) -> None:
    """The layer's own answers stay out of the access log; those that the app gives at that path do not."""
    written: list[bytes] = []
    app = AccessLogMiddleware(MetricsMiddleware(Echo(), registry=registry), write=written.append)
    assert (await get(app, "/metrics", client=LOCAL)).status == 200
    assert written == []
    assert (await get(app, "/metrics", client=("203.0.113.9", 1))).status == 200
    assert len(written) == 1
