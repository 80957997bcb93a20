"""The whole front: the layers in their order, made from settings, run by one chain.

To follow a request, read `asgi_guard.chain.layer.Chain`, then the layers in the order of `asgi_guard.stack`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from asgi_guard.apps.conflicts import conflicts
from asgi_guard.apps.inspection import is_of_one_route, misfit
from asgi_guard.chain.exchange import current
from asgi_guard.chain.layer import Chain
from asgi_guard.configuration.cautions import NOTHING_SAID, warnings
from asgi_guard.configuration.variables import PREFIX
from asgi_guard.errors import ConfigError, Problem, wrong_type
from asgi_guard.identity.fetching import default_client
from asgi_guard.middleware import IdentityMiddleware
from asgi_guard.middleware.rate_limit import limits_in
from asgi_guard.operations.readiness import checks_of
from asgi_guard.revocation import Revocations, lives_of, nobody_looks, require_user
from asgi_guard.settings import ROUTES, ROUTES_FILE, GuardSettings, SettingsError
from asgi_guard.stack import stack, store_of
from asgi_guard.stores import no_store
from asgi_guard.stores.base import is_same

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import httpx

    from asgi_guard.asgi import ASGIApp, Receive, Scope, Send
    from asgi_guard.chain.layer import Layer
    from asgi_guard.operations.readiness import Check, Checks
    from asgi_guard.policy.identity import User
    from asgi_guard.stores import Store

logger = logging.getLogger("asgi_guard")


class Guard(Chain):
    """A production front around any ASGI app.

    The layers, outermost first: drain, health, metrics, proxy, request id, access log, security headers, hosts, CORS,
    CSRF, resource metadata, identity, rate limits, access. Those that need no setting are on; the others once they are
    configured.

    Args:
        app: the app to guard: FastAPI, Starlette, Quart, Django, or any other callable of ASGI 3.
        settings: what to do; from `ASGI_GUARD_*` variables unless given.
        store: where buckets and revocations are kept; the one of `settings.store.url` unless given.
        checks: what readiness asks beside the store and the keys: coroutine functions by name, which fail by raising,
            or `Check`s, which also say how long they may take and whether they are required.
        http_client: makes the client that fetches the issuer's keys, or asks about opaque tokens: the place for a
            proxy, a CA bundle, or headers. Each call has to make a new one, which the guard closes.
        limit_functions: what limits may go by beyond the grammar's own words: functions by name, from the scope to a
            text, or to None where the limit does not apply.

    Raises:
        ConfigError: with everything that is wrong, by variable name; or that `app` is no ASGI app.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: GuardSettings | None = None,
        *,
        store: Store | None = None,
        checks: Checks = (),
        http_client: Callable[[], httpx.AsyncClient] = default_client,
        limit_functions: Mapping[str, Callable[[Scope], str | None]] | None = None,
    ) -> None:
        if isinstance(app, Guard):
            raise ConfigError([Problem("app", "it is a Guard already: two would charge every limit twice; keep one")])
        if fault := misfit(app):
            raise ConfigError([Problem("app", fault)])
        if is_of_one_route(app):
            each = "Litestar makes its middleware anew for each route, with a store in memory and probes of its own"
            raise ConfigError([Problem("app", f"{each}, and for no other path: wrap the app, Guard(Litestar(...))")])
        given: object = settings
        if not isinstance(given, GuardSettings | None):
            said = "GuardSettings(...), with sections such as auth="
            raise ConfigError([Problem("settings", wrong_type(given, said))])
        maker: object = http_client
        if not callable(maker):
            said = "a function that makes a client, as in lambda: httpx.AsyncClient(...)"
            raise ConfigError([Problem("http_client", wrong_type(maker, said))])
        if fault := no_store(store):
            raise ConfigError([Problem("store", f"{fault}, or the address as {PREFIX}STORE_URL")])
        self.settings, layers = configure(app, settings, store, checks_of(checks), http_client, limit_functions)
        super().__init__(app, layers)
        shared = self.settings.store.shared if store is None else store.shared
        limits = limits_in(layers, self.settings.routes)
        if settings is None and not self.settings.model_fields_set:
            logger.warning("%s", NOTHING_SAID)
        found = warnings(self.settings, limits, shared=shared, store=self.store)
        for warning in (*found, *conflicts(app, self.settings)):
            logger.warning("%s", warning)

    @property
    def store(self) -> Store | None:
        """Where limits, revocations and proofs that were seen are kept; None where nothing is."""
        return store_of(self.layers)

    async def revoke(self, user: User) -> None:
        """Refuse the token of an identity from now on, for the rest of its life: what a logout is to do.

        Args:
            user: the identity that the token showed, as in `scope["user"]`.

        Raises:
            ConfigError: `auth.revocation` is off, so nobody would look the token up. Or it is the token of the request
                in hand, which another guard serves that looks elsewhere: `asgi_guard.revoke` reaches that one.
            ValueError: an API key showed it, which does not end by itself: take it out of the configuration. Or an
                opaque token without a `jti`, by which it could be named: revoke it where it was issued.
            TypeError: it is no `User`; what `scope["user"]` holds for strangers is none.
            StoreUnavailableError: the store did not answer, and the token may be accepted still.
        """
        require_user(user)
        if not self._looks_for(user):
            raise nobody_looks(
                "another Guard serves this request and does not look here, so its token would still be taken: revoke "
                "it by asgi_guard.revoke(request.scope)"
            )
        await self._revocations().token(user)

    async def revoke_session(self, session_id: str, *, issuer: str | None = None, ttl: float | None = None) -> None:
        """Refuse every token of a session from now on, those too that the issuer may still issue for it.

        Args:
            session_id: the `sid` of its tokens.
            issuer: whose session it is; has to be said where there are several.
            ttl: seconds for which this is kept; unless said, as long as a token can be accepted by the bounds on its
                age and life, and 30 days where there are none.

        Raises:
            ConfigError: `auth.revocation` is off, so nobody would look it up.
            ValueError: there is no such issuer, several are meant, or a token could outlive the revocation.
            TypeError: an argument is of another type.
            StoreUnavailableError: the store did not answer, and its tokens may be accepted still.
        """
        await self._revocations().session(session_id, issuer, ttl)

    async def revoke_subject(self, subject: str, *, issuer: str | None = None, ttl: float | None = None) -> None:
        """Refuse every token of a subject that was issued until now: what a change of password is to do.

        A token is refused whose `iat` is not after this moment by this machine's clock, or that has none. `iat` mostly
        counts whole seconds, so one that is issued within this second is refused too.

        Args:
            subject: the `sub` of its tokens.
            issuer: whose subject it is; has to be said where there are several.
            ttl: as for `revoke_session`.

        Raises:
            ConfigError: `auth.revocation` is off, so nobody would look it up.
            ValueError: there is no such issuer, several are meant, or a token could outlive the revocation.
            TypeError: an argument is of another type.
            StoreUnavailableError: the store did not answer, and its tokens may be accepted still.
        """
        await self._revocations().subject(subject, issuer, ttl)

    def _looks_for(self, user: User) -> bool:
        """Whether a revocation here would hold for the request in hand, if it is that user's token that it shows."""
        exchange, store = current.get(), self.store
        shown = None if exchange is None else exchange.user
        if exchange is None or shown is None or shown.token_id is None or shown.token_id != user.token_id:
            return True
        if not exchange.revocations:
            return not self.settings.auth.revocation  # then this may be the guard that serves it
        return store is not None and any(is_same(store, each) for each in exchange.revocations)

    def _revocations(self) -> Revocations:
        store = self.store
        identity = next((layer for layer in self.layers if isinstance(layer, IdentityMiddleware)), None)
        if store is None or identity is None or not self.settings.auth.revocation:
            raise nobody_looks("it is not true, so nobody would look the token up")
        return Revocations(store, lives_of(identity))


async def no_app(scope: Scope, receive: Receive, send: Send) -> None:
    """The app of a stack that is only looked at."""


def configure(
    app: ASGIApp = no_app,
    settings: GuardSettings | None = None,
    store: Store | None = None,
    checks: Sequence[Check] = (),
    http_client: Callable[[], httpx.AsyncClient] = default_client,
    limit_functions: Mapping[str, Callable[[Scope], str | None]] | None = None,
) -> tuple[GuardSettings, list[Layer]]:
    """Read the environment, unless settings are given, and make the layers.

    Raises:
        ConfigError: with everything that is wrong with the values, one by one and as the layers understand them.
    """
    if settings is None:
        try:
            settings = GuardSettings()
        except SettingsError as error:
            problems = list(error.problems)
            try:
                stack(app, error.rest, store, checks, http_client, limit_functions)
            except ConfigError as more:
                # A variable at fault has its default there, which nobody chose; of rows, only those at fault are left
                # out.
                told = {problem.name for problem in problems} - {ROUTES, ROUTES_FILE}
                problems += (each for each in more.problems if each.name not in told and each not in problems)
            raise ConfigError(problems) from None
    return settings, stack(app, settings, store, checks, http_client, limit_functions)
