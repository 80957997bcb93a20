"""What goes along with calls that the app makes: the request's id and its trace context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from asgi_guard.chain.exchange import current
from asgi_guard.policy.trace_context import TRACE_HEADERS, Trace

if TYPE_CHECKING:
    from collections.abc import Generator, MutableMapping


def trace() -> Trace | None:
    """The caller's trace context, anywhere in the code that serves the request in hand; None where there is none."""
    exchange = current.get()
    return None if exchange is None else exchange.trace


def propagation_headers() -> dict[str, str]:
    """The headers that a call to another service should carry, so that its logs and traces join this request's.

    The request's id, in the header that `RequestIDMiddleware` uses, and the caller's `traceparent` and `tracestate`
    (W3C Trace Context). Where the caller sent no trace context, none is made up: it would decide for the services
    called whether they record. Outside of a request there are none.
    """
    exchange = current.get()
    if exchange is None:
        return {}
    headers = {} if exchange.trace is None else exchange.trace.headers()
    if exchange.request_id is not None:
        headers[exchange.id_header] = exchange.request_id
    return headers


class _Request(Protocol):
    """What is needed of an `httpx.Request`."""

    @property
    def headers(self) -> MutableMapping[str, str]: ...


class _Done:
    """What `propagate` gives: asynchronous clients await it, others do not."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


_DONE = _Done()


def propagate(request: _Request) -> _Done:
    """An event hook of httpx, for `Client` and `AsyncClient`: requests carry `propagation_headers()`.

        client = httpx.AsyncClient(event_hooks={"request": [asgi_guard.propagate]})

    What a request says itself stays, and one with a trace context of its own gets nothing of the caller's. Use it for
    clients of your own services: an id tells strangers nothing, but a trace state may.
    """
    headers = request.headers
    traced = any(name in headers for name in TRACE_HEADERS)
    for name, value in propagation_headers().items():
        if not (traced and name in TRACE_HEADERS):
            headers.setdefault(name, value)
    return _DONE
