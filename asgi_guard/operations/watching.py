"""What the metrics tell of the guard's own parts: the log, the store, the issuers' keys, the tokens verified before."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from asgi_guard.middleware import (
    AccessLogMiddleware,
    CSRFMiddleware,
    IdentityMiddleware,
    MetricsMiddleware,
)
from asgi_guard.stores.base import Watch, Watched

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asgi_guard.chain.layer import Layer
    from asgi_guard.identity.jwks import KeyEngine
    from asgi_guard.stores import Store


def watch(metrics: MetricsMiddleware, layers: Sequence[Layer], store: Store | None) -> None:
    """Let the metrics tell of these layers too, and of the store that they ask, if they ask one."""
    if store is not None and isinstance(store, Watched):
        _watch_store(metrics, store)
    for layer in layers:
        if isinstance(layer, AccessLogMiddleware):
            _watch_log(metrics, layer)
        elif isinstance(layer, CSRFMiddleware):
            _watch_csrf(metrics, layer)
        elif isinstance(layer, IdentityMiddleware):
            _watch_identity(metrics, layer)


def _watch_log(metrics: MetricsMiddleware, log: AccessLogMiddleware) -> None:
    metrics.watch(lambda: log.dropped, [each.log_dropped() for each in metrics.instruments])


def _watch_csrf(metrics: MetricsMiddleware, csrf: CSRFMiddleware) -> None:
    for reason in csrf.shadowed:
        told = [each.shadow_refusals(csrf.name, reason.value) for each in metrics.instruments]
        metrics.watch(partial(csrf.shadowed.__getitem__, reason), told)


def _watch_store(metrics: MetricsMiddleware, store: Watched) -> None:
    seconds = [each.store_seconds() for each in metrics.instruments]
    sizes = [each.batch_size() for each in metrics.instruments]
    failures = [each.store_failures() for each in metrics.instruments]

    def answered(took: float, size: int) -> None:
        for measure in seconds:
            measure(took)
        for measure in sizes:
            measure(size)

    def failed() -> None:
        for measure in failures:
            measure(1)

    store.watch(Watch(answered, failed))
    _stores[metrics] = store
    opened = [each.breakers_open() for each in metrics.instruments]
    metrics.watch_gauge(_breakers_open, opened)


_stores: WeakKeyDictionary[MetricsMiddleware, Watched] = WeakKeyDictionary()
"""The store of each guard there is, since all of them tell by one gauge."""


def _breakers_open() -> int:
    stores = {id(store): store for store in _stores.values()}  # several guards may have the same
    return sum(breaker.is_open for store in stores.values() for breaker in store.breakers)


def _watch_identity(metrics: MetricsMiddleware, identity: IdentityMiddleware) -> None:
    instruments, tokens = metrics.instruments, identity.tokens
    metrics.watch(lambda: tokens.hits, [each.token_lookups("hit") for each in instruments])
    metrics.watch(lambda: tokens.misses, [each.token_lookups("miss") for each in instruments])
    for issuer, verifier in tokens.verifiers.items():
        _watch_keys(metrics, issuer, verifier.engine)


def _watch_keys(metrics: MetricsMiddleware, issuer: str, engine: KeyEngine) -> None:
    instruments = metrics.instruments
    metrics.watch_gauge(lambda: engine.status().age, [each.keys_age(issuer) for each in instruments])
    metrics.watch(lambda: engine.fetched, [each.key_fetches(issuer, "ok") for each in instruments])
    metrics.watch(lambda: engine.failed, [each.key_fetches(issuer, "failed") for each in instruments])
