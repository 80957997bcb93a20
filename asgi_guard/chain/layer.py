"""How layers run: a layer is a few synchronous hooks, and one coroutine runs the hooks of however many there are.

A request passes a chain of layers in this order:

1. `enter` of every layer, outermost first. It refuses nothing, so a request that is refused later has an id and a start
   time too. It may correct what all further in see: Proxy writes the client, the scheme and the host.
2. `decide` of every layer, outermost first, until one answers. Only a decision that has to wait (for the store, for the
   issuer's keys) is a coroutine.
3. The app, if no layer answered.
4. `mark` of every layer, innermost first, on the head of the one response, whoever gives it.
5. `leave` of every layer, innermost first, when all is over.

A layer alone (`RequestIDMiddleware(app)`) is a chain of one; `Guard(app)` is a chain of all. So the whole stack costs
one coroutine and one wrapper of `send`, and a layer alone does what it does among others, but that those around it
have decided when it enters.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from asgi_guard.apps.inspection import misfit, own_root_path
from asgi_guard.asgi import ASGIApp, Head, Receive, Scope, Send
from asgi_guard.chain.exchange import CHAIN_KEY, SCOPE_KEY, Exchange, current
from asgi_guard.chain.lifespan import Lifespan
from asgi_guard.chain.mounting import DAPHNE, claim
from asgi_guard.chain.response import Response
from asgi_guard.chain.told import note
from asgi_guard.errors import ConfigError, Problem, UnknownScopeError
from asgi_guard.policy.answer import FAULTS, Answer, Reason, problem
from asgi_guard.policy.log_entry import without_login

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence
    from contextvars import Token

logger = logging.getLogger("asgi_guard")

Decision: TypeAlias = "Answer | Awaitable[Answer | None] | None"
"""What `decide` gives: nothing to say, an answer, or either of them later."""


class Chain:
    """Layers around an app, run by one coroutine. The module's docstring gives the order.

    Args:
        app: the app within.
        layers: outermost first.
    """

    def __init__(self, app: ASGIApp, layers: Sequence[Layer]) -> None:
        self.app = app
        self.layers = tuple(layers)
        self._root_path = own_root_path(app)
        self._enters = tuple(layer.enter for layer in layers if type(layer).enter is not Layer.enter)
        deciding = [layer for layer in layers if type(layer).decide is not Layer.decide]
        self._decides = tuple(layer.decide for layer in deciding)
        self._deciders = {layer.decide: layer.name for layer in deciding}
        self._marks = tuple(layer.mark for layer in reversed(layers) if type(layer).mark is not Layer.mark)
        self._leaves = tuple(layer.leave for layer in reversed(layers) if type(layer).leave is not Layer.leave)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # see `asgi_guard.asgi`
        """Serve one ASGI scope."""
        kind = scope["type"]
        if kind == "lifespan":
            await Lifespan(self.app, self.layers, receive, send).run(scope)
            return
        if kind not in ("http", "websocket"):
            raise UnknownScopeError(f"a scope of type {kind!r} cannot be guarded, so it is not let through")
        exchange, response = self._open(scope, receive, send)
        inner = exchange.scope
        token = current.set(exchange)
        error: BaseException | None = None
        in_app = False
        try:
            for enter in self._enters:
                enter(exchange)
            for decide in self._decides:
                answer = decide(exchange)
                if answer is None:
                    continue
                if not isinstance(answer, Answer):
                    answer = await answer
                    if exchange.scope is not inner:  # meanwhile another chain has looked at its own
                        exchange.turn_to(inner)
                if answer is not None:
                    exchange.answer, exchange.answered_by = answer, self._deciders[decide]
                    await response.answer(answer)
                    return
            # The meter is this chain's: an outer one would count every message again.
            response.meter, exchange.meter = exchange.meter, None
            in_app = True
            await self.app(inner, response.receive, response.send)
            if not response.started:
                await self._unanswered(exchange, response, inner)
        except BaseException as caught:
            error = caught
            if isinstance(caught, Exception) or _is_of_another_task(caught):
                _see_again(exchange, inner)
                await self._failed(exchange, response, caught, in_app=in_app)
            raise
        finally:
            self._leave(exchange, response, inner, error)
            # An exception's traceback holds this frame or one that holds it: letting go of it here, as `_let_go` does
            # of the scope, leaves no cycle for the garbage collector.
            error = response.lost = None
            _let_go(exchange, scope, token)

    def _open(self, scope: Scope, receive: Receive, send: Send) -> tuple[Exchange, Response]:
        """Find the exchange that an outer layer made, or make it; a copy of the scope is handed inward."""
        exchange: Exchange | None = scope.get(SCOPE_KEY)
        if "app" in scope:  # a framework stands outside, whose middleware is to see what the app notes in its state
            scope.setdefault("state", {})
        inner = dict(scope)
        if type(scope["headers"]) is not list:
            inner["headers"] = list(scope["headers"])  # what was an iterator can be read once
        if exchange is None:
            claimed = claim(inner) if DAPHNE in sys.modules else None
            inner[SCOPE_KEY] = exchange = Exchange(inner, self._root_path, claimed)
        else:
            exchange = exchange.hand_on(inner, self._root_path)
        return exchange, Response(exchange, receive, send, self._marks)

    async def _failed(self, exchange: Exchange, response: Response, error: BaseException, *, in_app: bool) -> None:
        """Log the exception, once, and answer 500 if nothing was sent yet. That the client left is nobody's error.

        A WebSocket that can only be closed is left to the server, which answers 500 where an app raises, and 403 where
        one closes.
        """
        in_app = in_app and error is not exchange.fault
        if response.is_loss(error):
            note(error)
        elif not exchange.reported:
            exchange.reported = True
            note(error)
            if response.unheard:
                _report(exchange, "the app raised after its client had left", error, logging.INFO)
            else:
                where = f"unhandled exception in {'the app' if in_app else 'the guard'}"
                culprit = None if in_app else getattr(exchange, "culprit", None)
                _report(exchange, where if culprit is None else f"{culprit} raised", error)
        if response.started or response.disconnected:
            return
        answer = self._error(exchange, Reason.APP_ERROR if in_app else Reason.GUARD_ERROR)
        if isinstance(error, Exception) and not response.can_answer:
            response.status = answer.status
        else:
            await response.fail(_last(exchange, answer))

    async def _unanswered(self, exchange: Exchange, response: Response, inner: Scope) -> None:
        """Answer 500 in the place of an app that returned without a word, unless its client has left."""
        if response.disconnected:
            return
        _see_again(exchange, inner)
        exchange.reported = True
        _report(exchange, "the app returned without a response")
        await response.fail(self._error(exchange, Reason.APP_ERROR))

    def _error(self, exchange: Exchange, reason: Reason) -> Answer:
        """The answer to an error; what a chain further in has called it, which knew better, is what it is called."""
        answer = exchange.answer
        if answer is None or answer.reason not in FAULTS:
            answer = problem(500, reason, "The request could not be served.", request_id=exchange.request_id)
            exchange.answer, exchange.answered_by = answer, None
        return answer

    def _leave(self, exchange: Exchange, response: Response, inner: Scope, error: BaseException | None) -> None:
        if exchange.route is None and "route" in inner:
            exchange.route = _route_in(inner)
        if exchange.scope is not inner:
            exchange.turn_to(inner)
        for leave in self._leaves:
            try:
                leave(exchange, response, error)
            except Exception:
                # The response is on its way; an error here must not take it back.
                logger.exception("a layer failed on leaving: %r", leave)


def _route_in(scope: Scope) -> object:
    """What the app's router left in the scope.

    That of a FastAPI whose `include_router` copies no routes has its path within its router: the whole one, with the
    prefix, stands beside it.
    """
    route, more = scope.get("route"), scope.get("fastapi")
    whole = more.get("effective_route_context") if isinstance(more, dict) else None
    return whole if route is not None and getattr(whole, "original_route", None) is route else route


def _last(exchange: Exchange, answer: Answer) -> Answer:
    """An answer that tells a client of HTTP/1 to send no more on this connection.

    Servers close it once an app has raised. Else a proxy would send another client's request on it, which is then lost.
    """
    if not exchange.is_http_1:
        return answer
    return replace(answer, headers=(*answer.headers, (b"connection", b"close")))


def _see_again(exchange: Exchange, inner: Scope) -> None:
    """See the request as this chain does: an app may end before a chain further in that it has called."""
    if exchange.scope is not inner:
        exchange.turn_to(inner)


def _let_go(exchange: Exchange, scope: Scope, token: Token[Exchange | None]) -> None:
    """Leave the exchange to the chain further out: the scope that was handed inward holds it."""
    exchange.turn_back(scope)
    exchange.innermost = scope.get(CHAIN_KEY)
    if scope.get(SCOPE_KEY) is not exchange:  # else chains further out have yet to see whose error it was
        exchange.fault = None
    try:
        current.reset(token)
    except ValueError:  # the other context knows nothing of this request, so nothing is left there
        logger.debug("a request that nobody waited for was closed in another context")


def _is_of_another_task(error: BaseException) -> bool:
    """Whether this is the cancellation of a task that was awaited, where nobody has cancelled the request's own."""
    if not isinstance(error, asyncio.CancelledError):
        return False
    try:
        task = asyncio.current_task()
    except RuntimeError:  # the event loop is not asyncio's
        return False
    return task is not None and not task.cancelling()


def _report(exchange: Exchange, what: str, error: BaseException | None = None, level: int = logging.ERROR) -> None:
    path = without_login(exchange.path, exchange.root_path)
    request = (exchange.method, path[:256], exchange.request_id)
    extra = {"request_id": exchange.request_id}
    logger.log(level, "%s: %a %a, request id %s", what, *request, exc_info=error, extra=extra)


class Layer(Chain):
    """One layer of the guard, usable alone around any ASGI app. Subclasses override the hooks they need."""

    name: ClassVar[str]
    """The layer's name in logs and on the command line."""

    def __init__(self, app: ASGIApp) -> None:
        if fault := misfit(app):
            raise ConfigError([Problem("app", fault)])
        super().__init__(app, (self,))

    def enter(self, exchange: Exchange) -> None:
        """Observe the request, or correct what all further in see. Never refuses, or fails on what a client sent."""

    def decide(self, exchange: Exchange) -> Decision:
        """Answer the request, or give None to let it through."""

    def mark(self, exchange: Exchange, head: Head) -> None:
        """Add to the response's headers."""

    def leave(self, exchange: Exchange, response: Response, error: BaseException | None) -> None:
        """Conclude. The response is over, or will never be."""

    async def startup(self) -> None:
        """Make ready whatever belongs to this process and its event loop, before the app's own start-up."""

    def started(self) -> None:
        """Note that the app's start-up is complete."""

    async def shutdown(self) -> None:
        """Close what `startup` or the requests opened, after the app's own shut-down or a start-up that failed."""

    def without_lifespan(self) -> None:
        """Be as if there were no lifespan, after `shutdown`: the app's start-up raised, and it may be served yet."""
