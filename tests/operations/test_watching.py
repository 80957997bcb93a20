"""What metrics tell of the guard's own parts, with a real store and an issuer."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from asgi_guard import AuthSettings, Guard, GuardSettings
from asgi_guard.configuration.sections import MetricsSettings
from asgi_guard.middleware import AccessLogMiddleware
from asgi_guard.operations.instruments import exposition, prometheus
from asgi_guard.stores import RedisStore
from tests.asgi import Echo, get
from tests.guarded import settings
from tests.middleware.test_dpop import bound, shown
from tests.operations.test_log_writer import standard_output

if TYPE_CHECKING:
    from asgi_guard.testing import LocalIssuer
    from tests.stores.server import Server

DASHBOARD = Path(__file__).parents[2] / "examples" / "production" / "grafana.json"


def value(name: str, **labels: str) -> float:
    """What the registry of all guards has, which counts on from test to test."""
    return REGISTRY.get_sample_value(f"asgi_guard_{name}", labels) or 0.0


async def scraped(guard: Guard) -> None:
    exchange = await get(guard, "/metrics", client=("127.0.0.1", 1))
    assert exchange.status == 200


async def breakers_open(guard: Guard) -> float:
    """How many breakers are open, without those of other tests' guards that only wait to be collected."""
    gc.collect()
    await scraped(guard)
    return value("store_breakers_open")


def guarded(issuer: LocalIssuer, **options: Any) -> Guard:
    told = settings(issuer, metrics=MetricsSettings(path="/metrics"))
    return Guard(Echo(), told, http_client=issuer.client, **options)


async def test_parts(issuer: LocalIssuer, server: Server) -> None:
    """Scrapes tell of calls of the store, of the keys, and of tokens that were verified before, each once."""
    guard = guarded(issuer, store=server.store())
    opened = await breakers_open(guard)
    before = {
        "size": value("store_batch_size_sum"),
        "calls": value("store_call_seconds_count"),
        "hit": value("token_cache_lookups_total", outcome="hit"),
        "miss": value("token_cache_lookups_total", outcome="miss"),
        "ok": value("key_fetches_total", issuer=issuer.url, outcome="ok"),
    }
    token = [(b"authorization", b"Bearer " + issuer.token().encode())]
    await get(guard, "/a", token)
    await asyncio.gather(*(get(guard, "/a", token) for _ in range(20)))
    for _ in range(2):
        assert await breakers_open(guard) == opened
    assert value("store_batch_size_sum") - before["size"] == 21
    assert 1 <= value("store_call_seconds_count") - before["calls"] <= 21
    assert value("token_cache_lookups_total", outcome="miss") - before["miss"] == 1
    assert value("token_cache_lookups_total", outcome="hit") - before["hit"] == 20
    assert value("key_fetches_total", issuer=issuer.url, outcome="ok") - before["ok"] == 1
    assert value("keys_age_seconds", issuer=issuer.url) >= 0
    assert guard.store is not None
    await guard.store.aclose()


async def test_an_open_breaker(issuer: LocalIssuer) -> None:
    """A store that is not asked for a while is told, how often it failed until then, and keys that were not fetched."""
    store = RedisStore("unix:///nowhere/at/all")
    guard = guarded(issuer, store=store)
    before = value("key_fetches_total", issuer=issuer.url, outcome="failed")
    failures, opened = value("store_failures_total"), await breakers_open(guard)
    issuer.outage = True
    for _ in range(4):
        await get(guard, "/a", [(b"authorization", b"Bearer " + issuer.token().encode())])
    assert await breakers_open(guard) - opened == 1
    assert value("store_failures_total") - failures == 3
    assert value("key_fetches_total", issuer=issuer.url, outcome="failed") > before
    await store.aclose()


async def test_a_store_that_only_counts_proofs(issuer: LocalIssuer) -> None:
    """A store is told though there are no limits: it counts the proofs of tokens, and without it they are refused."""
    store = RedisStore("unix:///nowhere/at/all")
    section = AuthSettings(issuer=issuer.url, audience=(issuer.audience,), dpop="accept")
    told = GuardSettings(auth=section, metrics=MetricsSettings(path="/metrics"))
    guard = Guard(Echo(), told, http_client=issuer.client, store=store)
    assert guard.store is store
    failures, opened = value("store_failures_total"), await breakers_open(guard)
    for _ in range(4):
        assert (await get(guard, "/", shown(bound(issuer)))).status == 503
    assert await breakers_open(guard) - opened == 1
    assert value("store_failures_total") - failures == 3
    await store.aclose()


async def test_breakers_of_several_guards(issuer: LocalIssuer, server: Server) -> None:
    """Breakers of all guards of a process are told together, each once, whichever of them is scraped."""
    lost, well = RedisStore("unix:///nowhere/at/all"), server.store()
    guards = [guarded(issuer, store=store) for store in (lost, lost, well)]
    before = await breakers_open(guards[0])
    for _ in range(4):
        for guard in guards:
            await get(guard, "/a", client=("127.0.0.1", 1))
    for guard in guards:
        assert await breakers_open(guard) - before == 1
    guards.clear()
    for store in (lost, well):
        await store.aclose()


async def test_dropped_lines(issuer: LocalIssuer) -> None:
    """Lines of the log that a reader left no room for are counted."""
    guard = guarded(issuer)
    before = value("log_dropped_total")
    (log,) = [layer for layer in guard.layers if isinstance(layer, AccessLogMiddleware)]
    reading, writing = os.pipe()
    with standard_output(writing):
        log.write = lambda _: log._writer.write(b"x" * 3_000_000)
        for _ in range(4):
            await get(guard)
        await scraped(guard)
        assert value("log_dropped_total") - before == log.dropped > 0
        os.close(reading)
        assert await asyncio.to_thread(log._writer.flush)


def test_the_dashboard_names_what_there_is() -> None:
    """Every metric and every label that the dashboard asks for exists, and every metric is on it."""
    registry = CollectorRegistry()
    instruments = prometheus(registry)
    for family, labels in (
        (instruments.duration, 3), (instruments.refusals, 2), (instruments.shadow_refusals, 2),
        (instruments.late_errors, 1), (instruments.near_limit, 1), (instruments.keys_age, 1),
        (instruments.key_fetches, 2), (instruments.token_lookups, 1),
    ):  # fmt: skip
        family(*["x"] * labels)(1)
    told = exposition(registry, "")[0].decode()
    labels_of = {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(told)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    named = set(re.findall(r"\basgi_guard_\w+", " ".join(queries)))
    assert named <= labels_of.keys()
    families = {re.sub(r"_(sum|count|bucket)$", "", name) for name in labels_of}
    assert {re.sub(r"_(sum|count|bucket)$", "", name) for name in named} == families
    for query in queries:
        asked = {label.strip() for part in re.findall(r"by \(([^)]*)\)", query) for label in part.split(",")}
        asked |= set(re.findall(r"[{,](\w+)[=!]", query))
        for name in re.findall(r"\basgi_guard_\w+", query):
            assert asked <= labels_of[name] | {"job"}, query


def test_the_dashboard_tells_requests_and_probes_apart() -> None:
    """Rates and quantiles of requests leave out the guard's own paths, by the route that these have."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    of_requests = [each for each in queries if "request_duration_seconds" in each and "by (route)" not in each]
    assert len(of_requests) == 4
    for query in of_requests:
        (own,) = re.findall(r'route!~"([^"]+)"', query)
        paths = ("/health/live", "/health/ready", "/metrics", "/*", "_unmatched")
        assert [re.fullmatch(own, path) is not None for path in paths] == [True, True, True, False, False]


def test_off_imports_nothing() -> None:
    """Nobody who measures nothing imports what measures."""
    code = "import sys, asgi_guard; print('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
