"""The SecurityHeaders layer: on every response, errors too, without touching what the app set itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_guard.chain.layer import Layer
from asgi_guard.configuration.arguments import typed
from asgi_guard.errors import ConfigError, Problem
from asgi_guard.policy.listing import all_listed
from asgi_guard.policy.routes import Route, RouteTable
from asgi_guard.policy.security import Preset, SecurityHeaders, SecurityPolicy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asgi_guard.asgi import ASGIApp, Head
    from asgi_guard.chain.exchange import Exchange

_NO_STORE = (b"cache-control", b"no-store")


class SecurityHeadersMiddleware(Layer):
    """Adds security headers that the app did not set, and takes the server's name away.

    Responses to identified users also get `Cache-Control: no-store`, unless the app says otherwise: what one user may
    see is not for a shared cache. A 304 gets `Strict-Transport-Security` alone: what it said besides would stand in the
    place of what the stored response said (RFC 9111 4.3.4), which may have been the app's own.

    Args:
        app: the app within.
        preset: `api` for answers that are no pages, `page` for pages, `docs` for Swagger UI and ReDoc, `off` for none,
            where nothing is taken away either.
        csp: another `Content-Security-Policy` than the preset's; `off` for none, and so for those below. `'nonce'` in
            it stands for the nonce of the response (`asgi_guard.csp.nonce`).
        csp_report_only: a `Content-Security-Policy-Report-Only` beside it.
        hsts: the `Strict-Transport-Security`, sent over https only.
        referrer_policy: the `Referrer-Policy`.
        permissions_policy: the `Permissions-Policy`.
        frame_options: the `X-Frame-Options`; with `SAMEORIGIN`, the preset's policy lets the app's own pages frame it.
        opener_policy: the `Cross-Origin-Opener-Policy`.
        embedder_policy: the `Cross-Origin-Embedder-Policy`.
        resource_policy: the `Cross-Origin-Resource-Policy`.
        cache_control: the `Cache-Control` of responses that say nothing of their own.
        reporting_endpoints: where browsers send reports, as in `default=https://reports.example.com/csp`.
        routes: the route table; its column `security` names another preset, or says more.

    Raises:
        ConfigError: a value cannot be sent, or would not do what it says.
    """

    name = "security"

    @typed
    def __init__(
        self,
        app: ASGIApp,
        *,
        preset: Preset = "api",
        csp: str | None = None,
        csp_report_only: str | None = None,
        hsts: str | None = None,
        referrer_policy: str | None = None,
        permissions_policy: str | None = None,
        frame_options: str | None = None,
        opener_policy: str | None = None,
        embedder_policy: str | None = None,
        resource_policy: str | None = None,
        cache_control: str | None = None,
        reporting_endpoints: str | Sequence[str] = (),
        routes: Sequence[Route] | RouteTable = (),
    ) -> None:
        super().__init__(app)
        said = SecurityHeaders(
            preset,
            csp,
            csp_report_only,
            hsts,
            referrer_policy,
            permissions_policy,
            frame_options,
            opener_policy,
            embedder_policy,
            resource_policy,
            cache_control,
            **all_listed(reporting_endpoints=reporting_endpoints),
        )
        self._table = RouteTable.of(routes)
        self.policy = SecurityPolicy.of(said)
        self._of_rows = (*(_of_row(route, said, self.policy) for route in self._table.routes), self.policy)
        self._rows_differ = any(policy is not self.policy for policy in self._of_rows)

    @property
    def of_rows(self) -> Iterator[tuple[Route, SecurityPolicy]]:
        """The rows of the route table, each with its policy."""
        return zip(self._table.routes, self._of_rows, strict=False)

    def mark(self, exchange: Exchange, head: Head) -> None:
        """Append what is missing."""
        policy = self._of_rows[exchange.find(self._table)[0]] if self._rows_differ else self.policy
        secure = exchange.scheme in ("https", "wss")
        lines = policy.secure if secure else policy.plain
        if exchange.nonce and policy.nonces is not None:
            lines = policy.with_nonce(exchange.nonce, secure=secure)
        elif policy.nonces is not None or exchange.nonce == "":  # a chain further in has begun it without one
            exchange.seal_nonce()
        present = head.names
        private = exchange.user is not None and policy.no_store and b"cache-control" not in present
        if head.status == 304:
            lines, private = policy.unchanged if secure else (), False
        if private and b"cache-control" in policy.names:
            lines = tuple(line for line in lines if line[0] != b"cache-control")
        if present.isdisjoint(policy.names):
            head.lines += lines
        else:
            if not present.isdisjoint(policy.taken):
                head.remove(policy.taken)
            if b"x-frame-options" in present:
                lines = policy.framed_by(lines, head.lines)
            head.lines += [line for line in lines if line[0] not in present]
        if private:
            head.lines.append(_NO_STORE)


def _of_row(route: Route, default: SecurityHeaders, policy: SecurityPolicy) -> SecurityPolicy:
    """The policy of one row, or the guard's own where the row says nothing."""
    said = route.security
    if said is None:
        return policy
    headers = said if isinstance(said, SecurityHeaders) else SecurityHeaders(said)
    try:
        return SecurityPolicy.of(headers.over(default))
    except ConfigError as error:
        where = f"security of the row {route}"
        problems = [Problem("routes", f"{where}: {fault.name}: {fault.message}") for fault in error.problems]
        raise ConfigError(problems) from None
