"""The Host layer: answers to its own names only, and sends plain http to https."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_guard.chain.layer import Decision, Layer
from asgi_guard.configuration.arguments import typed
from asgi_guard.policy.answer import Answer, Reason, problem
from asgi_guard.policy.hosts import HostPolicy, https_location
from asgi_guard.policy.listing import all_listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asgi_guard.asgi import ASGIApp
    from asgi_guard.chain.exchange import Exchange


MAX_REMEMBERED = 256
"""How many hosts that passed are remembered: where there is a wildcard, clients choose them."""


class HostMiddleware(Layer):
    """Refuses requests for other hosts (400), and redirects http to https (308, which keeps method and body).

    Args:
        app: the app within.
        allowed: host names without scheme and port; `*.example.com` for all below it; none allows all.
        https_redirect: whether plain http is redirected; the scheme is the one that a trusted proxy says.
        exempt: paths that are served whatever the host and the scheme: an app's own probes, or `/.well-known/` files.

    Raises:
        ConfigError: a name is not a host's, a path is none, or a redirect is asked for without any host.
    """

    name = "host"

    @typed
    def __init__(
        self,
        app: ASGIApp,
        *,
        allowed: str | Sequence[str] = (),
        https_redirect: bool = False,
        exempt: str | Sequence[str] = (),
    ) -> None:
        super().__init__(app)
        lists = all_listed(allowed=allowed, exempt=exempt)
        self.policy = HostPolicy.of(**lists, https_redirect=https_redirect)
        self._passed: set[tuple[bytes | None, str]] = set()

    def decide(self, exchange: Exchange) -> Decision:
        """Refuse or redirect."""
        scheme = exchange.scheme
        if not exchange.repeated and (exchange.headers.get(b"host"), scheme) in self._passed:
            return None
        hosts = exchange.lines(b"host")
        path = exchange.below if exchange.claimed_root_path is None else ""  # a client is not to choose what is exempt
        verdict = self.policy.decide(hosts, scheme, path)
        if verdict == "pass":
            if path not in self.policy.exempt:
                self._remember(hosts[0], scheme)
            return None
        if verdict == "redirect":
            query = exchange.scope.get("query_string") or b""
            location = https_location(hosts[0], exchange.path, query, exchange.raw_path, exchange.root_path)
            # A shared cache whose keys have no scheme would answer the https request, too, with this.
            return Answer(308, ((b"location", location), (b"cache-control", b"no-store")))
        if verdict == "insecure":
            detail, reason = "This resource is served over TLS only.", Reason.HTTPS_REQUIRED
        else:
            detail, reason = "This server does not answer for that host.", Reason.HOST_NOT_ALLOWED
        return problem(400, reason, detail, request_id=exchange.request_id)

    def _remember(self, host: bytes, scheme: str) -> None:
        if len(self._passed) >= MAX_REMEMBERED:
            self._passed.clear()
        self._passed.add((host, scheme))
