"""The Host layer: answers to its own names only, and sends plain http to https."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_guard.errors import ConfigError, Problem
from asgi_guard.layer import Decision, Layer
from asgi_guard.policy.answer import Answer, Reason, problem
from asgi_guard.policy.hosts import HostPolicy, https_location
from asgi_guard.policy.listing import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asgi_guard.asgi import ASGIApp
    from asgi_guard.exchange import Exchange


class HostMiddleware(Layer):
    """Refuses requests for other hosts (400), and redirects http to https (308).

    Args:
        app: the app within.
        allowed: host names without scheme and port; `*.example.com` for all below it; none allows all.
        https_redirect: whether plain http is redirected; the scheme is the one that a trusted proxy says.

    Raises:
        ConfigError: a name is not a host's, or a redirect is asked for without any.
    """

    name = "host"

    def __init__(self, app: ASGIApp, *, allowed: str | Sequence[str] = (), https_redirect: bool = False) -> None:
        super().__init__(app)
        try:
            self.policy = HostPolicy.of(listed(allowed), https_redirect=https_redirect)
        except ValueError as error:
            raise ConfigError([Problem("allowed", str(error))]) from None

    def decide(self, exchange: Exchange) -> Decision:
        """Refuse or redirect."""
        hosts = exchange.lines(b"host")
        verdict = self.policy.decide(hosts, exchange.scheme)
        if verdict == "pass":
            return None
        if verdict == "redirect":
            location = https_location(hosts[0], exchange.path, exchange.scope.get("query_string") or b"")
            return Answer(308, ((b"location", location),))
        if verdict == "insecure":
            detail, reason = "This resource is served over TLS only.", Reason.HTTPS_REQUIRED
        else:
            detail, reason = "This server does not answer for that host.", Reason.HOST_NOT_ALLOWED
        return problem(400, reason, detail, request_id=exchange.request_id)
