"""What goes along with calls that the app makes: the request's id and its trace context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from asgi_guard.exchange import current
from asgi_guard.policy.trace_context import Trace, begin
from asgi_guard.randomness import random_digits

if TYPE_CHECKING:
    from collections.abc import Generator, MutableMapping


def trace() -> Trace | None:
    """The trace context of the request in hand, anywhere in the code that serves it; None where there is none."""
    exchange = current.get()
    return None if exchange is None else exchange.trace


def propagation_headers() -> dict[str, str]:
    """The headers that a call to another service should carry, so that its logs and traces join this request's.

    The request's id, in the header that `RequestIDMiddleware` uses, and `traceparent` and `tracestate` (W3C Trace
    Context). Where the caller sent no trace context, a trace begins here, the same for all calls of the request.
    Outside of a request there are none.
    """
    exchange = current.get()
    if exchange is None:
        return {}
    if exchange.trace is None:
        exchange.trace = begin(random_digits(), random_digits())
    headers = exchange.trace.headers()
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

    What a request says itself stays. Use it for clients of your own services: an id tells strangers nothing, but a
    trace state may.
    """
    for name, value in propagation_headers().items():
        request.headers.setdefault(name, value)
    return _DONE
