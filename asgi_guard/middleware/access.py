"""The Access layer: *may they*. It refuses; who it is was found out by the layers before."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from asgi_guard.chain.exchange import Exchange, trusts_nobody
from asgi_guard.chain.layer import Decision, Layer
from asgi_guard.configuration.arguments import typed
from asgi_guard.errors import ConfigError, Problem, require_choice
from asgi_guard.limiting.accounts import give_back
from asgi_guard.policy import csrf
from asgi_guard.policy.access import NOT_REVOKED, AccessPolicy, AccessRule, Failure
from asgi_guard.policy.answer import Reason
from asgi_guard.policy.identity import ADD_IT_AFTER, was_looked_for
from asgi_guard.policy.resource_metadata import is_url
from asgi_guard.policy.routes import AuthMode, Route, RouteTable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asgi_guard.asgi import ASGIApp
    from asgi_guard.identity.possession import Possession


logger = logging.getLogger("asgi_guard")


class AccessMiddleware(Layer):
    """Refuses those who may not: 401, 403, and 503 where it cannot be decided.

    It judges the identity that `IdentityMiddleware`, further out, found. Without that layer everyone is a stranger, and
    where an identity is required, everyone is refused; the first time, that is told.

    Args:
        app: the app within.
        routes: the route table; its columns `auth`, `scopes` and `any_scopes`.
        default: what holds where no row says: `required`, `optional`, or `none`.
        challenge: the scheme of the `WWW-Authenticate` challenge.
        trusts_origin: tells which other origins may send requests with a user's cookie; none unless said.
        deny_unknown_revocation: whether a token is refused whose revocation cannot be looked up.
        resource_metadata: the address of this API's metadata, which challenges then name (RFC 9728).
        possession: what `IdentityMiddleware` was given, where bound tokens are taken, so that challenges ask for them.

    Raises:
        ConfigError: an argument cannot be used.
    """

    name = "access"

    @typed
    def __init__(
        self,
        app: ASGIApp,
        *,
        routes: Sequence[Route] | RouteTable = (),
        default: AuthMode = "required",
        challenge: str = "Bearer",
        trusts_origin: Callable[[bytes], bool] = trusts_nobody,
        deny_unknown_revocation: bool = True,
        resource_metadata: str | None = None,
        possession: Possession | None = None,
    ) -> None:
        super().__init__(app)
        require_choice("default", default, AuthMode)
        if resource_metadata is not None and not is_url(resource_metadata):
            raise ConfigError([Problem("resource_metadata", "write the whole URL of the metadata: https://host/path")])
        if possession is not None and possession.required:
            challenge = "DPoP"
        algorithms = () if possession is None else possession.algorithms
        self.policy = AccessPolicy(challenge, deny_unknown_revocation, resource_metadata, algorithms)
        self._possession = possession
        self._table = RouteTable.of(routes, open_to_all=default != "required")
        self._rules = (
            *(AccessRule(route.auth or default, route.scopes, route.any_scopes) for route in self._table.routes),
            AccessRule(default),
        )
        self._trusts_origin = trusts_origin
        self._warned = False

    def decide(self, exchange: Exchange) -> Decision:
        """Refuse, or let through."""
        exchange.judged = True
        row, disputed = exchange.find(self._table)
        if disputed:
            give_back(exchange)
            return exchange.refuse_disputed()
        rule, user = self._rules[row], exchange.user
        more_to_judge = exchange.failure is not None or exchange.ambient or exchange.revocation is not NOT_REVOKED
        if user is not None and rule.unscoped and not more_to_judge:
            return None  # as in most requests, which the policy lets through: it need not be asked
        answer = self.policy.decide(
            rule,
            user,
            exchange.failure,
            revocation=exchange.revocation,
            cross_site=exchange.ambient and self._may_be_forged(exchange),
            retry_after=exchange.retry_after,
            request_id=exchange.request_id,
            nonce=self._nonce(exchange),
        )
        if answer is not None:
            give_back(exchange, forged=answer.reason is Reason.CROSS_SITE)
            if not self._warned:
                self._tell_of_strangers(exchange)
        return answer

    def _tell_of_strangers(self, exchange: Exchange) -> None:
        """Warn, once, that nobody can be known, where no Identity layer is around this one."""
        self._warned = True
        if not was_looked_for(exchange.scope.get("user")):
            logger.warning(
                "everyone is refused: no IdentityMiddleware stands around AccessMiddleware to find out who it is; %s",
                ADD_IT_AFTER,
            )

    def _nonce(self, exchange: Exchange) -> str | None:
        """The nonce to tell, if the lack of one is why the proof was refused."""
        if exchange.failure is not Failure.NONCE or self._possession is None:
            return None
        return self._possession.nonce()

    def _may_be_forged(self, exchange: Exchange) -> bool:
        return not csrf.allows(
            exchange.method,
            websocket=exchange.kind == "websocket",
            fetch_site=exchange.lines(b"sec-fetch-site"),
            origin=exchange.lines(b"origin"),
            host=exchange.lines(b"host"),
            trusts=self._trusts_origin,
            secure=exchange.is_secure,
        )
