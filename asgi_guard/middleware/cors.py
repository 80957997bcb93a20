"""The CORS layer: preflights answered, responses marked (errors too), WebSocket origins checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_guard.errors import ConfigError, Problem
from asgi_guard.layer import Decision, Layer
from asgi_guard.policy.answer import Answer, Reason, problem
from asgi_guard.policy.cors import CORSPolicy
from asgi_guard.policy.csrf import is_same_origin
from asgi_guard.policy.faults import FaultsError
from asgi_guard.policy.listing import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asgi_guard.asgi import ASGIApp, Head
    from asgi_guard.exchange import Exchange


class CORSMiddleware(Layer):
    """Lets pages of other origins call the app, exactly as far as is said, and tells refused ones nothing.

    An app that sets `Access-Control-Allow-Origin` itself is left alone in that response.

    Args:
        app: the app within.
        allow_origins: `https://app.example.com`, `https://*.example.com`, `http://localhost:*`, or `*` alone.
        allow_methods: beyond GET, HEAD and POST; `*` for all.
        allow_headers: that a page's script may set; `*` for all but `authorization`, unless credentials are
            allowed or it is named beside.
        allow_credentials: whether cookies are sent, and answers to them may be read; not with `*` origins.
        expose_headers: that a page's script may read.
        max_age: seconds for which a browser may remember a preflight, up to 86400.

    Raises:
        ConfigError: with everything that is wrong, by argument.
    """

    name = "cors"

    def __init__(
        self,
        app: ASGIApp,
        *,
        allow_origins: str | Sequence[str],
        allow_methods: str | Sequence[str] = (),
        allow_headers: str | Sequence[str] = (),
        allow_credentials: bool = False,
        expose_headers: str | Sequence[str] = (),
        max_age: int | None = None,
    ) -> None:
        super().__init__(app)
        lists = _listed(
            allow_origins=allow_origins,
            allow_methods=allow_methods,
            allow_headers=allow_headers,
            expose_headers=expose_headers,
        )
        try:
            self.policy = CORSPolicy.of(**lists, allow_credentials=allow_credentials, max_age=max_age)
        except FaultsError as error:
            raise ConfigError.of(error) from None

    def decide(self, exchange: Exchange) -> Decision:
        """Answer a preflight; refuse a WebSocket of a foreign origin."""
        if b"origin" not in exchange.headers:
            return None
        if exchange.kind == "websocket":
            return self._handshake(exchange)
        if exchange.method != "OPTIONS" or b"access-control-request-method" not in exchange.headers:
            return None
        origins, methods = exchange.lines(b"origin"), exchange.lines(b"access-control-request-method")
        headers = None
        if len(origins) == len(methods) == 1:
            headers = self.policy.preflight(origins[0], methods[0], exchange.lines(b"access-control-request-headers"))
        if headers is None:
            return problem(
                403,
                Reason.PREFLIGHT_REFUSED,
                "This cross-origin request is not allowed.",
                request_id=exchange.request_id,
            )
        return Answer(204, headers)

    def _handshake(self, exchange: Exchange) -> Answer | None:
        """Browsers let any page open a WebSocket anywhere; only the server can refuse (RFC 6455 10.2)."""
        origins = exchange.lines(b"origin")
        if len(origins) == 1 and (
            self.policy.allows_origin(origins[0]) or is_same_origin(origins[0], exchange.lines(b"host"))
        ):
            return None
        return problem(
            403, Reason.ORIGIN_NOT_ALLOWED, "Pages of this origin may not connect.", request_id=exchange.request_id
        )

    def mark(self, exchange: Exchange, head: Head) -> None:
        """Let the page read the response, errors too. Preflights carry their headers already."""
        if exchange.answered_by == self.name and exchange.answer is not None:
            if exchange.answer.reason is Reason.PREFLIGHT_REFUSED:
                head.vary(b"origin")
            return
        any_origin = self.policy.any_origin
        if not any_origin:
            head.vary(b"origin")
        if exchange.kind == "websocket" or b"access-control-allow-origin" in head.names:
            return
        # Where everyone may read, every response says so: without `Vary`, a cache may hand it to anyone.
        origins = [b"*"] if any_origin else exchange.lines(b"origin")
        if len(origins) == 1 and (lines := self.policy.actual(origins[0])):
            head.lines += lines


def _listed(**options: str | Sequence[str]) -> dict[str, tuple[str, ...]]:
    lists: dict[str, tuple[str, ...]] = {}
    problems: list[Problem] = []
    for name, value in options.items():
        try:
            lists[name] = listed(value)
        except ValueError as error:
            problems.append(Problem(name, str(error)))
    if problems:
        raise ConfigError(problems)
    return lists
