"""What is known of the request in hand: facts that the layers find out, for those further in and for the log."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar
from weakref import WeakSet

from asgi_guard.policy.access import NOT_REVOKED
from asgi_guard.policy.address import parse_address
from asgi_guard.policy.answer import ambiguous_path
from asgi_guard.policy.path_index import NO_ROW
from asgi_guard.policy.routes import beyond_root, joined_path, route_path

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asgi_guard.asgi import Header, Scope
    from asgi_guard.limiting.accounts import Accounts
    from asgi_guard.operations.draining import Draining
    from asgi_guard.policy.access import Failure
    from asgi_guard.policy.answer import Answer, Reason
    from asgi_guard.policy.bucket import Charge, Verdict
    from asgi_guard.policy.identity import User
    from asgi_guard.policy.meter import Meter
    from asgi_guard.policy.routes import RouteTable
    from asgi_guard.policy.trace_context import Trace
    from asgi_guard.stores import Store

logger = logging.getLogger("asgi_guard")

T = TypeVar("T")

SCOPE_KEY = "asgi_guard"
"""Where the exchange stands in the scope, so that layers find it whatever stands between them."""
CHAIN_KEY = "asgi_guard.chain"
"""Where a chain that is not the outermost leaves a mark of its own in the scope that it hands inward."""

FORWARDING = (b"forwarded", b"x-forwarded-for", b"x-real-ip")
"""Headers by which proxies name the client that they stand before."""
RELAYING = (
    *FORWARDING, b"via", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-server", b"x-client-ip",
    b"cf-connecting-ip", b"true-client-ip",
)  # fmt: skip
"""Headers of which a proxy adds one at least: what comes with any of these may not be its peer's own request."""
_RELAYING = frozenset(RELAYING)

current: ContextVar[Exchange | None] = ContextVar("asgi_guard_exchange", default=None)


def trusts_nobody(_who: object) -> bool:
    """The default where no proxy or origin is trusted."""
    return False


def request_id() -> str | None:
    """The id of the request in hand, anywhere in the code that serves it; None outside of one."""
    exchange = current.get()
    return None if exchange is None else exchange.request_id


Account: TypeAlias = "tuple[Accounts, Store, tuple[Charge, ...], str]"
"""What one layer of limits charged a request: whose account it is, the store, the charges, and its lease, if any."""


class Exchange:
    """One HTTP exchange or WebSocket session, made by the outermost guard layer and shared by those within.

    Some of it is the chain's in hand, which sees the request as it was handed it: `scope`, `method`, `path`,
    `root_path`, `raw_path`, `claimed_root_path`, `headers` and `repeated`, and so what is worked out from these
    (`find`, `lines`, `below`, `known_client`). All else is the whole request's, whichever chain found it out. A hook
    finds what is its chain's. Once it has waited, another chain may be in hand: a hook that looks at the request
    afterwards has to wait by `wait`.

    Attributes:
        scope: the copy of the scope that is handed inward; layers write what the app shall see here.
        kind: `http` or `websocket`.
        method: the HTTP method in upper case, as some frameworks read it and not every server gives it; `GET` for a
            WebSocket handshake.
        path: the decoded path, as the server gives it.
        root_path: where the server, or whatever stands before this layer, has mounted the app, and
        raw_path: the path as it was sent, or None. Apps change both in the scope that they are handed.
        claimed_root_path: the root path in the scope, if a client may have set it and it changes how the path is read;
            else None.
        headers: the last line of each header; `lines` gives all of one, and
        repeated: whether any header has several lines, so that these are not all.
        peer: the connection's other end, or None. Empty where that stands in the scope: granian names a UNIX socket so,
            but uvicorn may so name whoever sends an empty `X-Forwarded-For`.
        client: the client's address, once the Proxy layer has found it out; the peer until then.
        client_doubt: why that is only the peer's, where a proxy was to name another.
        scheme: `http`, `https`, `ws` or `wss`.
        seen_client: the scope's client, and
        seen_scheme: its scheme, as the guard last saw or wrote them: another one comes from whatever stands between.
        request_id: the id, once there is one, and
        id_header: the header that it goes by.
        trace: the caller's trace context.
        user: the verified identity.
        ambient: whether the browser sent its credentials by itself (a cookie), so that other sites can abuse them.
        failure: why credentials that were sent led to none.
        detail: one word more on a refusal, for the log.
        csrf_shadow: why the CSRF layer would have refused, where it only logs.
        retry_after: seconds after which a failure that is not the client's may be over.
        verdict: the store's answer on limits, and
        limit_policy: the header that tells what these are.
        accounts: what limits were charged, and what is under way, to be settled when all is over.
        extra_cost: what the app charged beyond that.
        meter: counts the messages of a WebSocket.
        innermost: the mark of the chain furthest in that is under way; None for the outermost.
        revocation: what is known of the token's revocation, and
        revocations: the stores in which it was looked up.
        judged: whether an Access layer has judged the identity, and what is known of its revocation.
        answer: the guard's own answer, where the app was not asked, and
        answered_by: the layer that gave it.
        logged_by: the layer that has undertaken to log this exchange, and
        started: when it did, in nanoseconds, and
        timed: whether it has to know when the response ended.
        measured_by: the layer that has undertaken to measure it, and
        entered: when it did, in nanoseconds.
        route: what the app's router left in its scope as `route`.
        nonce: that of inline scripts and styles, once the app has asked for it; empty once it is too late for that, and
        sealed_by: the marks of the chains whose responses have begun without one.
        draining: how this process drains; None where nothing can begin it.
        reported: whether the exception in flight has been logged: every layer around it sees it pass.
        culprit: the function of the app's that the guard asked, and that raised; there is none unless one did.
        fault: the error of a layer's `mark`. It passes through the app, but is the guard's.
    """

    __slots__ = (
        "_claim",
        "_found",
        "_table",
        "_views",
        "accounts",
        "ambient",
        "answer",
        "answered_by",
        "claimed_root_path",
        "client",
        "client_doubt",
        "csrf_shadow",
        "culprit",
        "detail",
        "draining",
        "entered",
        "extra_cost",
        "failure",
        "fault",
        "headers",
        "id_header",
        "innermost",
        "judged",
        "kind",
        "limit_policy",
        "logged_by",
        "measured_by",
        "meter",
        "method",
        "nonce",
        "path",
        "peer",
        "raw_path",
        "repeated",
        "reported",
        "request_id",
        "retry_after",
        "revocation",
        "revocations",
        "root_path",
        "route",
        "scheme",
        "scope",
        "sealed_by",
        "seen_client",
        "seen_scheme",
        "started",
        "timed",
        "trace",
        "user",
        "verdict",
    )

    culprit: str
    entered: int
    sealed_by: set[object]

    def __init__(self, scope: Scope, root_path: str = "", claim: tuple[str, str] | None = None) -> None:
        self.kind: Literal["http", "websocket"] = scope["type"]
        self._views: dict[object, tuple[Any, ...]] | None = None
        self._claim = claim
        self._read(scope, root_path)
        peer = self.seen_client = scope.get("client")
        self.peer: str | None = peer[0] if peer else None
        self.client = self.peer or None
        self.client_doubt: str | None = None
        self.seen_scheme = scope.get("scheme")
        self.scheme: str = self.seen_scheme or ("http" if self.kind == "http" else "ws")
        self.request_id: str | None = None
        self.id_header = "x-request-id"
        self.trace: Trace | None = None
        self.user: User | None = None
        self.ambient = False
        self.failure: Failure | None = None
        self.detail: str | None = None
        self.csrf_shadow: Reason | None = None
        self.retry_after = 1.0
        self.verdict: Verdict | None = None
        self.limit_policy: Header | None = None
        self.accounts: list[Account] = []
        self.extra_cost = 0
        self.meter: Meter | None = None
        self.revocation = NOT_REVOKED
        self.revocations: tuple[Store, ...] = ()
        self.judged = False
        self.answer: Answer | None = None
        self.answered_by: str | None = None
        self.logged_by: object | None = None
        self.started = 0
        self.timed = False
        self.measured_by: object | None = None
        self.route: object = None
        self.reported = False
        self.fault: Exception | None = None
        self.draining: Draining | None = None
        self.nonce: str | None = None
        self.innermost: object = None

    def _read(self, scope: Scope, root_path: str) -> None:
        """See the request as this scope has it now. Apps may change it later, in place, as Starlette's mounts do.

        Args:
            scope: the scope.
            root_path: what the app within will put in the place of the server's (`own_root_path`); empty for nothing.
        """
        self.scope = scope
        self.method: str = scope["method"].upper() if self.kind == "http" else "GET"
        self.path: str = scope["path"]
        self.root_path: str = root_path or scope.get("root_path") or ""
        self.claimed_root_path: str | None = None
        if self._claim is not None and not root_path:
            self._doubt(*self._claim)
        self.raw_path: bytes | None = scope.get("raw_path")
        self.read_headers()
        self._table: RouteTable | None = None
        self._found = (NO_ROW, False)

    def _doubt(self, own: str, said: str) -> None:
        """Go by the server's own root path, and by that of mounts beyond it, where the scope's may be a client's.

        Args:
            own: what the server was told.
            said: what the scope said when it came from the server (`asgi_guard.chain.mounting.claim`).
        """
        claimed = self.root_path
        if claimed.startswith(said):
            self.root_path = own + claimed[len(said) :]
        if _readings(self.path, claimed) != _readings(self.path, self.root_path):
            self.claimed_root_path = claimed

    def read_headers(self) -> None:
        """See the headers as the scope has them now."""
        lines = self.scope["headers"]
        self.headers: dict[bytes, bytes] = dict(lines)
        self.repeated = len(self.headers) != len(lines)

    def hand_on(self, scope: Scope, root_path: str = "") -> Exchange:
        """Go on with a scope from further in. What stands between the layers may have changed the request.

        An app may call several guarded apps at once within one request. Each of them then judges for itself: what one
        has found out must not let anyone in at the other, so only the first shares this exchange.
        """
        if scope.get(CHAIN_KEY) is not self.innermost:
            return self._apart(scope, root_path)
        scope[CHAIN_KEY] = self.innermost = object()
        # Not compared with the scope handed on before: this may be a copy of that, changed in place.
        client, scheme = scope.get("client"), scope.get("scheme")
        if client != self.seen_client:
            self.seen_client = client
            self.client = (client[0] or None) if client else None
        if scheme != self.seen_scheme:
            self.seen_scheme = scheme
            self.scheme = scheme or ("http" if self.kind == "http" else "ws")
        self._keep_view()
        self._read(scope, root_path)
        return self

    def _apart(self, scope: Scope, root_path: str) -> Exchange:
        """An exchange of its own for the same request: who sent it and its name, but nothing that was found out."""
        other = scope[SCOPE_KEY] = Exchange(scope, root_path, self._claim)
        scope[CHAIN_KEY] = other.innermost = object()
        other.peer, other.client_doubt, other.draining = self.peer, self.client_doubt, self.draining
        other.request_id, other.id_header, other.trace = self.request_id, self.id_header, self.trace
        other.revocations = self.revocations
        return other

    def _keep_view(self) -> None:
        # By the chain's mark and not by the scope itself, of which apps hand on copies.
        if self._views is None:
            self._views = {}
        self._views[self.scope.get(CHAIN_KEY)] = _view_of(self)

    def _see(self, scope: Scope) -> None:
        self.scope = scope
        view = None if self._views is None else self._views.get(scope.get(CHAIN_KEY))
        if view is not None:
            # As `_VIEW` has them; written out, since each chain that ends within another comes here.
            (
                self.scope, self.headers, self.repeated, self.method, self.path, self.root_path, self.claimed_root_path,
                self.raw_path, self._table, self._found,
            ) = view  # fmt: skip

    def turn_to(self, scope: Scope) -> None:
        """See the request again as the chain did that was handed it in this scope, whatever became of the scope."""
        self._keep_view()
        self._see(scope)

    def turn_back(self, scope: Scope) -> None:
        """See it again as the chain further out does: the one that has the present scope is over.

        Args:
            scope: what that one was called with.
        """
        if self._views is None:
            self.scope = scope
            return
        over = self.scope.get(CHAIN_KEY)
        self._views.pop(over, None)  # those of others stay: an app may end before a chain further in that it has called
        self._see(scope)
        if self.nonce == "" and scope.get(SCOPE_KEY) is self:
            self.sealed_by.discard(over)
            if not self.sealed_by:
                self.nonce = None  # what is over was a part of the response at most, which may yet begin with one

    def seal_nonce(self) -> None:
        """Note that the response of this chain has begun without a nonce, so that it is too late to ask for one."""
        if self.nonce is None:
            self.nonce, self.sealed_by = "", set()
        self.sealed_by.add(self.scope.get(CHAIN_KEY))

    async def wait(self, awaited: Awaitable[T]) -> T:
        """Wait, and see the request afterwards as this chain does: another one may have looked at its own meanwhile."""
        scope = self.scope
        try:
            return await awaited
        finally:
            if self.scope is not scope:
                self.turn_to(scope)

    def lines(self, name: bytes) -> list[bytes]:
        """Every line of a request header, in order. `name` is lower case."""
        if self.repeated:
            return [value for found, value in self.scope["headers"] if found == name]
        value = self.headers.get(name)
        return [] if value is None else [value]

    @property
    def known_client(self) -> str | None:
        """The client's address, where it is surely the client's.

        None where a proxy's may stand in its place: what is forwarded is in doubt, or the peer forwards it and nobody
        has put another's address in the place of the peer's.
        """
        peer, seen = self.peer, self.seen_client
        relayed = self.client == peer and not _RELAYING.isdisjoint(self.headers)
        if relayed and seen and 0 in seen[1:2]:
            relayed = False  # no connection has this port: the server has put the client there, as uvicorn does
        return None if relayed or self.client_doubt else self.client

    @property
    def is_http_1(self) -> bool:
        """Whether HTTP/1 carries it, where headers say what later versions frame by themselves."""
        http_version: str = self.scope.get("http_version", "1.1")
        return self.kind == "http" and http_version.startswith("1")

    @property
    def is_secure(self) -> bool:
        """Whether it came over TLS, as the server or a trusted proxy says."""
        return self.scheme in ("https", "wss")

    @property
    def is_of_page(self) -> bool:
        """Whether a page asks, in a browser that may be on a machine which is told more than others are.

        A page of any site may ask as one of this host's own, once its name leads here (DNS rebinding). Over plain http
        browsers do not say who asks, so there any browser counts that asks for a name; no page's name is an address.
        """
        headers = self.headers
        site = headers.get(b"sec-fetch-site")
        if b"origin" in headers or site is not None:
            return site != b"none"
        host = headers.get(b"host", b"").decode("latin-1")
        # All browsers send the languages that they want, whatever a script says.
        return b"accept-language" in headers and not (parse_address(host) or host.partition(":")[0] == "localhost")

    @property
    def below(self) -> str:
        """The path below the place where the server mounted the app, by which the route table and options go."""
        return route_path(self.path, self.root_path)

    @property
    def joined(self) -> str | None:
        """How else a router may read that; see `joined_path`."""
        return joined_path(self.path, self.root_path)

    def asks_for(self, path: str) -> bool:
        """Whether this is an HTTP request for a path of the guard's own."""
        return self.path.endswith(path) and self.kind == "http" and self.below == path

    def find(self, table: RouteTable) -> tuple[int, bool]:
        """The route table's row for this request, and whether routers could take its path for another row's.

        It is looked up once, however many layers ask.
        """
        if table is not self._table:
            self._found, self._table = self._look_up(table) if table.routes else (NO_ROW, False), table
        return self._found

    def _look_up(self, table: RouteTable) -> tuple[int, bool]:
        path, joined = self.path, None
        if self.root_path:
            path, joined = _readings(self.path, self.root_path)
            if table not in _looked_at:
                _look_for_rows_beyond(table, self.root_path)
        row, disputed = table.find(path, self.method, self.raw_path, joined)
        if self.claimed_root_path is not None and not disputed:
            path, joined = _readings(self.path, self.claimed_root_path)
            disputed = table.find(path, self.method, self.raw_path, joined) != (row, False)
        return row, disputed

    def refuse_disputed(self) -> Answer:
        """Refuse a request whose path is disputed."""
        if self.claimed_root_path is not None:
            self.detail = "root_path"
        return ambiguous_path(self.request_id)


_VIEW = (
    "scope", "headers", "repeated", "method", "path", "root_path", "claimed_root_path", "raw_path", "_table", "_found",
)  # fmt: skip
"""All that `_read` sets: how one chain sees the request, which is kept while another one is in hand."""
_view_of: Callable[[Exchange], tuple[Any, ...]] = attrgetter(*_VIEW)


def _readings(path: str, root_path: str) -> tuple[str, str | None]:
    return route_path(path, root_path), joined_path(path, root_path)


_looked_at: WeakSet[RouteTable] = WeakSet()
rows_told: set[str] = set()
"""What was said of such rows, at start too."""


def _look_for_rows_beyond(table: RouteTable, root_path: str) -> None:
    """Warn, with the first request below a root path, of rows that were written as if there were none."""
    _looked_at.add(table)
    for beyond in beyond_root(table.routes, root_path):
        if beyond not in rows_told:  # layers that stand alone have a table each
            rows_told.add(beyond)
            logger.warning("%s", beyond)
