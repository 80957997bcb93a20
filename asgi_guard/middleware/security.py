"""The SecurityHeaders layer: on every response, errors too, without touching what the app set itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_guard.errors import ConfigError, require_choice
from asgi_guard.layer import Layer
from asgi_guard.policy.faults import FaultsError
from asgi_guard.policy.routes import Preset, Route, RouteTable
from asgi_guard.policy.security import SecurityPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asgi_guard.asgi import ASGIApp, Head
    from asgi_guard.exchange import Exchange

_TELLING = frozenset({b"server", b"x-powered-by"})
_NO_STORE = (b"cache-control", b"no-store")


class SecurityHeadersMiddleware(Layer):
    """Adds security headers that the app did not set, and takes the server's name away.

    Responses to identified users also get `Cache-Control: no-store`, unless the app says otherwise: what one user may
    see is not for a shared cache.

    Args:
        app: the app within.
        preset: `api` for answers that are no pages, `page` for pages, `docs` for Swagger UI and ReDoc, `off` for none.
        csp: another `Content-Security-Policy` than the preset's; `off` for none. So too for those below.
        csp_report_only: a `Content-Security-Policy-Report-Only` beside it.
        hsts: the `Strict-Transport-Security`, sent over https only.
        referrer_policy: the `Referrer-Policy`.
        permissions_policy: the `Permissions-Policy`.
        routes: the route table; its column `security` names another preset, as it is.

    Raises:
        ConfigError: a value cannot be sent, or would not do what it says.
    """

    name = "security"

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
        routes: Sequence[Route] | RouteTable = (),
    ) -> None:
        super().__init__(app)
        require_choice("preset", preset, Preset)
        try:
            default = SecurityPolicy.of(
                preset,
                csp=csp,
                csp_report_only=csp_report_only,
                hsts=hsts,
                referrer_policy=referrer_policy,
                permissions_policy=permissions_policy,
            )
        except FaultsError as error:
            raise ConfigError.of(error) from None
        self._table = RouteTable.of(routes)
        self._policies = (
            *(
                default if route.security is None else SecurityPolicy.of(route.security, hsts=hsts)
                for route in self._table.routes
            ),
            default,
        )

    def mark(self, exchange: Exchange, head: Head) -> None:
        """Append what is missing."""
        policy = self._policies[exchange.row(self._table)]
        present = head.names
        if not present.isdisjoint(_TELLING):
            head.remove(_TELLING)
        lines = policy.secure if exchange.scheme in ("https", "wss") else policy.plain
        if present.isdisjoint(policy.names):
            head.lines += lines
        else:
            head.lines.extend(line for line in lines if line[0] not in present)
        if exchange.user is not None and b"cache-control" not in present:
            head.lines.append(_NO_STORE)
