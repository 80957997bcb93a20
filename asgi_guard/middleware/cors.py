"""The CORS layer: preflights answered, responses marked (errors too), WebSocket origins checked."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from asgi_guard.chain.layer import Decision, Layer
from asgi_guard.configuration.arguments import typed
from asgi_guard.errors import ConfigError, Problem
from asgi_guard.policy.answer import Answer, Reason, problem
from asgi_guard.policy.cors import CORSOptions, CORSPolicy
from asgi_guard.policy.csrf import is_same_origin
from asgi_guard.policy.listing import all_listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asgi_guard.asgi import ASGIApp, Head, Header
    from asgi_guard.chain.exchange import Exchange

_CREDENTIALS = frozenset({b"access-control-allow-credentials"})
_PRIVATE_NETWORK = b"access-control-request-private-network"
_ASKED = b"access-control-request-headers"
_VARY = (b"vary", b"origin")
MAX_REMEMBERED = 256
"""Answers to preflights that are kept: an app's pages ask for a handful, over and over."""
MAX_REMEMBERED_BYTES = 256
"""The origin, the method and the headers that are asked for together: clients choose what stands there."""


class CORSMiddleware(Layer):
    """Lets pages of other origins call the app, exactly as far as is said, and tells refused ones nothing.

    An app that sets `Access-Control-Allow-Origin` itself is left alone in that response, but for `Vary: origin`.

    Args:
        app: the app within.
        allow_origins: `https://app.example.com`, `https://*.example.com`, `http://localhost:*`, or `*` alone.
        allow_methods: beyond GET, HEAD and POST; `*` for all.
        allow_headers: that a page's script may set; `*` for all but `authorization`, unless credentials are
            allowed or it is named beside.
        allow_credentials: whether cookies are sent, and answers to them may be read; not with `*` origins.
        expose_headers: that a page's script may read.
        max_age: seconds for which a browser may remember a preflight, up to 86400.
        preflight_status: the status of an allowed preflight, 200 to 299.
        unsafe_insecure_origins: allow credentials for http origins, which anyone on the network can imitate.
        unsafe_public_suffixes: allow `*.` before names under which anyone can register, such as `github.io`.
        unsafe_private_network: answer `Access-Control-Request-Private-Network`, which standards have dropped.
        unsafe_debug: tell allowed origins what is allowed where their preflight is refused; that is then answered with
            `preflight_status`, without a reason in the log, and it is the browser that refuses.
        open_path: the path of what a layer further in lets pages of every origin read, as `ResourceMetadataMiddleware`
            does: a preflight that is not allowed here is left to that layer.

    Raises:
        ConfigError: with everything that is wrong, by argument.
    """

    name = "cors"

    @typed
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
        preflight_status: int = 204,
        unsafe_insecure_origins: bool = False,
        unsafe_public_suffixes: bool = False,
        unsafe_private_network: bool = False,
        unsafe_debug: bool = False,
        open_path: str | None = None,
    ) -> None:
        super().__init__(app)
        if open_path is not None and not open_path.startswith("/"):
            raise ConfigError([Problem("open_path", f"{open_path!r} does not start with '/'")])
        lists = all_listed(
            allow_origins=allow_origins,
            allow_methods=allow_methods,
            allow_headers=allow_headers,
            expose_headers=expose_headers,
        )
        self.policy = CORSPolicy.of(
            CORSOptions(
                **lists,
                allow_credentials=allow_credentials,
                max_age=max_age,
                preflight_status=preflight_status,
                unsafe_insecure_origins=unsafe_insecure_origins,
                unsafe_public_suffixes=unsafe_public_suffixes,
                unsafe_private_network=unsafe_private_network,
                unsafe_debug=unsafe_debug,
            )
        )
        policy = self.policy
        self._open_path = open_path
        self._of_open_path = replace(policy, debug=False)
        # By origin, what stands on a response; None stands for no origin and for one that may not read. Where everyone
        # may, every response says so: without `Vary`, a cache may hand it to anyone.
        self._lines: dict[bytes | None, tuple[Header, ...]] = {
            origin: (_VARY, *(policy.actual(origin) or ())) for origin in policy.origins
        }
        self._answers: dict[tuple[bytes, bytes, bytes, bool], Answer] = {}
        self._vary_alone: tuple[Header, ...] = () if policy.any_origin else (_VARY,)
        self._lines[None] = (policy.actual(b"*") or ()) if policy.any_origin else (_VARY,)

    def decide(self, exchange: Exchange) -> Decision:
        """Answer a preflight; refuse a WebSocket of a foreign origin."""
        headers = exchange.headers
        if b"origin" not in headers:
            return None
        if exchange.kind == "websocket":
            return self._handshake(exchange)
        if exchange.method != "OPTIONS" or b"access-control-request-method" not in headers:
            return None
        if self._open_path is not None and exchange.asks_for(self._open_path):
            allowed = self._preflight(exchange, self._of_open_path)
            return allowed if allowed.reason is None else None
        origin = headers[b"origin"]
        asked, method = headers.get(_ASKED, b""), headers[b"access-control-request-method"]
        if exchange.repeated or len(origin) + len(asked) + len(method) > MAX_REMEMBERED_BYTES:
            return self._preflight(exchange, self.policy)
        private = headers.get(_PRIVATE_NETWORK) == b"true"
        key = (origin, method, asked, private)
        answer = self._answers.get(key)
        if answer is None:
            answer = self._preflight(exchange, self.policy)
            if answer.reason is None:
                if len(self._answers) >= MAX_REMEMBERED:
                    self._answers.clear()
                self._answers[key] = answer
        return answer

    def _preflight(self, exchange: Exchange, policy: CORSPolicy) -> Answer:
        answer = None
        origins, methods = exchange.lines(b"origin"), exchange.lines(b"access-control-request-method")
        if len(origins) == len(methods) == 1:
            private = exchange.headers.get(_PRIVATE_NETWORK) == b"true"
            asked = exchange.lines(_ASKED)
            answer = policy.preflight(origins[0], methods[0], asked, private_network=private)
        if answer is None:
            detail = "This cross-origin request is not allowed."
            return problem(403, Reason.PREFLIGHT_REFUSED, detail, request_id=exchange.request_id)
        return Answer(policy.preflight_status, answer)

    def _handshake(self, exchange: Exchange) -> Answer | None:
        """Browsers let any page open a WebSocket anywhere; only the server can refuse (RFC 6455 10.2)."""
        origins = exchange.lines(b"origin")
        if len(origins) == 1 and (
            self.policy.allows_origin(origins[0])
            or is_same_origin(origins[0], exchange.lines(b"host"), secure=exchange.is_secure)
        ):
            return None
        return problem(
            403, Reason.ORIGIN_NOT_ALLOWED, "Pages of this origin may not connect.", request_id=exchange.request_id
        )

    def mark(self, exchange: Exchange, head: Head) -> None:
        """Let the page read the response, errors too. Preflights carry their headers already."""
        if exchange.answered_by == "cors":
            if exchange.answer is not None and exchange.answer.reason is Reason.PREFLIGHT_REFUSED:
                head.vary(b"origin")
            return
        names, lines = head.names, self._lines.get(exchange.headers.get(b"origin"))
        if exchange.kind == "websocket":
            lines = self._vary_alone
        elif lines is None or exchange.repeated:
            lines = self._of_origin(exchange)
        if b"access-control-allow-origin" in names:
            lines = self._vary_alone
        elif b"access-control-allow-credentials" in names:
            # It is said of another origin than the one that is let in here; together they would say what neither does.
            head.remove(_CREDENTIALS)
        if b"vary" in names and lines and lines[0] is _VARY:
            head.vary(b"origin")
            lines = lines[1:]
        head.lines += lines

    def _of_origin(self, exchange: Exchange) -> tuple[Header, ...]:
        """What stands on a response to this page, or to nobody's."""
        origins = exchange.lines(b"origin")
        if len(origins) != 1:
            return self._lines[None]
        (origin,) = origins
        found = self._lines.get(origin)
        if found is not None:
            return found
        # One that a pattern allows, or a stranger, or anyone where all may read.
        lines = None if self.policy.any_origin else self.policy.actual(origin)
        return self._lines[None] if lines is None else (_VARY, *lines)
