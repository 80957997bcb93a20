"""The layers that settings ask for, in their order.

To follow a request, read `asgi_guard.chain.layer.Chain`, then the layers in the order of `stack` below.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

from asgi_guard.chain.exchange import trusts_nobody
from asgi_guard.configuration.values import revealed
from asgi_guard.configuration.variables import PREFIX
from asgi_guard.errors import ConfigError, Problem, StoreUnavailableError
from asgi_guard.identity.fetching import default_client, has_sound_port
from asgi_guard.identity.introspection import Introspection
from asgi_guard.identity.possession import Possession
from asgi_guard.limiting.rate_options import functions_of
from asgi_guard.middleware import (
    AccessLogMiddleware,
    AccessMiddleware,
    CORSMiddleware,
    CSRFMiddleware,
    DrainMiddleware,
    HealthMiddleware,
    HostMiddleware,
    IdentityMiddleware,
    Issuer,
    MetricsMiddleware,
    ProxyMiddleware,
    RateLimitMiddleware,
    RequestIDMiddleware,
    ResourceMetadataMiddleware,
    SecurityHeadersMiddleware,
)
from asgi_guard.middleware.rate_limit import KnownLimits
from asgi_guard.operations.readiness import KEYS_OF, Check
from asgi_guard.operations.watching import watch
from asgi_guard.policy.bucket import Admission
from asgi_guard.policy.ratelimit_headers import HEADER_NAMES
from asgi_guard.policy.resource_metadata import path_of
from asgi_guard.policy.routes import RouteTable
from asgi_guard.settings import GuardSettings
from asgi_guard.stores import Store, open_store, own_clock
from asgi_guard.stores.batching import can_be_read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import httpx

    from asgi_guard.asgi import ASGIApp, Scope
    from asgi_guard.chain.layer import Layer
    from asgi_guard.configuration.sections import AuthSettings
    from asgi_guard.policy.limit_sets import Kind

T = TypeVar("T")


def stack(
    app: ASGIApp,
    settings: GuardSettings,
    store: Store | None = None,
    checks: Sequence[Check] = (),
    http_client: Callable[[], httpx.AsyncClient] = default_client,
    limit_functions: Mapping[str, Callable[[Scope], str | None]] | None = None,
) -> list[Layer]:
    """Make the layers that settings ask for, outermost first.

    Raises:
        ConfigError: with everything that is wrong, by variable name.
    """
    problems = _Problems(settings.routes_variable)
    table = settings.route_table
    if store is None:  # one that holds nothing yet is falsy
        store = problems.collect("store", lambda: _store(settings))
    proxy = problems.collect("proxy", lambda: ProxyMiddleware(app, **settings.proxy.model_dump()))
    trusts_proxy = proxy.policy.trusts if proxy is not None else trusts_nobody
    request_id = problems.collect(
        "request_id",
        lambda: RequestIDMiddleware(app, **settings.request_id.model_dump(), trusts_proxy=trusts_proxy),
    )
    cors = problems.collect("cors", lambda: _cors(app, settings, request_id))
    csrf = problems.collect("csrf", lambda: _csrf(app, settings, table, cors))
    metadata = problems.collect("auth", lambda: _resource_metadata(app, settings, cors))
    possession = problems.collect("auth", lambda: _possession(settings.auth, store, proxy))
    identity = problems.collect(
        "auth",
        lambda: _identity(app, settings, table, http_client, possession),
        introspection="introspection_unsafe_subject",
    )
    rate_limit = problems.collect("rate", lambda: _rate_limit(app, settings, table, store, limit_functions))
    layers: list[Layer | None] = [
        problems.collect("health", lambda: _drain(app, settings), path="drain_path", on_signal="drain_signal"),
        problems.collect("health", lambda: _health(app, settings, store, identity, rate_limit, checks)),
        problems.collect("metrics", lambda: _metrics(app, settings, table)),
        proxy,
        request_id,
        problems.collect("log", lambda: _access_log(app, settings, table)),
        problems.collect("security", lambda: _security(app, settings, table)),
        problems.collect("hosts", lambda: _hosts(app, settings)),
        cors,
        csrf,
        metadata,
        # Without Identity between them, the layer itself comes next.
        KnownLimits(app, rate_limit) if rate_limit is not None and identity is not None and rate_limit.knows else None,
        identity,
        rate_limit,
        _access(app, settings, table, _trusts(cors) if csrf is None else csrf.trusts, metadata, possession),
    ]
    if problems.found:
        raise ConfigError(problems.found)
    made = [layer for layer in layers if layer is not None]
    for layer in made:
        if isinstance(layer, MetricsMiddleware):
            watch(layer, made, store_of(made))
    return made


def store_of(layers: Sequence[Layer]) -> Store | None:
    """The store of layers: that of limits and revocations, else the one that counts proofs; None without either."""
    for layer in reversed(layers):
        if isinstance(layer, RateLimitMiddleware):
            return layer.store
        if isinstance(layer, IdentityMiddleware):
            return layer.possession.store
    return None


class _Problems:
    """Collects what is wrong with each section, so that all of it can be reported together.

    Args:
        rows: the variable that the route table is from.
    """

    def __init__(self, rows: str) -> None:
        # The layers' names for what is no option of a section, and what it is told by.
        self._arguments = {"functions": "limit_functions", "routes": rows}
        self.found: list[Problem] = []

    def collect(self, section: str, make: Callable[[], T], **renamed: str) -> T | None:
        """Make something; if that fails, note the problems by their variables' names and go on with None.

        Args:
            section: whose options they are.
            make: makes it.
            renamed: the section's name of an option, where the layer has another.
        """
        try:
            return make()
        except ConfigError as error:
            fields = type(GuardSettings.model_fields[section].default).model_fields
            for problem in error.problems:
                option, _, where = problem.name.partition(": ")
                option = renamed.get(option, option)
                named = PREFIX + (f"{section}_{option}" if option in fields else option).upper()
                variable = self._arguments.get(option, named)
                message = f"{where}: {problem.message}" if where else problem.message
                self.found.append(Problem(variable, message, problem.kind))
            return None


def _store(settings: GuardSettings) -> Store:
    section = settings.store
    return open_store(
        revealed(section.url),
        prefix=section.prefix,
        timeout=section.timeout,
        max_keys=section.max_keys,
        clock=own_clock if section.clock == "worker" else None,
    )


def _drain(app: ASGIApp, settings: GuardSettings) -> DrainMiddleware | None:
    section = settings.health
    if not section.drains:
        return None
    return DrainMiddleware(
        app,
        seconds=section.drain_seconds,
        on_signal=section.drain_signal,
        file=section.drain_file or None,
        path=section.drain_path or None,
        max_requests=section.max_requests,
        siblings=settings.rate.workers > 1,
    )


def _health(
    app: ASGIApp,
    settings: GuardSettings,
    store: Store | None,
    identity: IdentityMiddleware | None,
    rate_limit: RateLimitMiddleware | None,
    checks: Sequence[Check],
) -> HealthMiddleware:
    """Readiness asks what requests need: a store without which they are served all the same is told, not required."""
    section, asked = settings.health, list(checks)
    auth, counts_proofs = settings.auth, identity is not None and identity.possession.dpop
    if (rate_limit is not None or counts_proofs) and store is not None and store.shared:
        denies_revoked = auth.revocation and auth.revocation_on_store_failure == "deny"
        denies = rate_limit is not None and rate_limit.needs_store(_identities(auth))
        required = denies or denies_revoked or counts_proofs
        look = partial(_look_up, store) if denies_revoked and not denies and not counts_proofs else store.ping
        asked.append(Check("store", look, required))
    if identity is not None and identity.tokens.verifiers:
        asked += _key_checks(identity)
    return HealthMiddleware(
        app,
        live_path=section.live_path or None,
        ready_path=section.ready_path or None,
        checks=asked,
        check_timeout=section.check_timeout,
        details=section.details,
    )


async def _look_up(store: Store) -> bool:
    """Ask a store for a sign of life that has only to tell who is revoked, as one does that is full."""
    try:
        await store.ping()
    except StoreUnavailableError as error:
        if not can_be_read(error.__cause__):
            raise
        await store.admit(Admission((), "readiness"))
    return True


def _key_checks(identity: IdentityMiddleware) -> Iterator[Check]:
    """One of several issuers may be away: the others' users are served all the same, and which one it is is told."""
    yield Check("keys", identity.tokens.check)
    if len(identity.tokens.verifiers) > 1:
        for issuer, verifier in identity.tokens.verifiers.items():
            yield Check(f"{KEYS_OF}{issuer}", verifier.engine.look, required=False)


def _identities(auth: AuthSettings) -> list[Kind]:
    tokens = bool(auth.trusted or auth.introspection_url)
    kinds: list[tuple[Kind, bool]] = [("token", tokens), ("api-key", bool(auth.api_keys))]
    return [kind for kind, believed in kinds if believed]


def _metrics(app: ASGIApp, settings: GuardSettings, table: RouteTable) -> MetricsMiddleware | None:
    section = settings.metrics
    if not section.on:
        return None
    values = {**section.model_dump(), "path": section.path or None}
    return MetricsMiddleware(app, routes=table, **values)


def _access_log(app: ASGIApp, settings: GuardSettings, table: RouteTable) -> AccessLogMiddleware | None:
    section = settings.log
    if section.format == "off":
        return None
    probes = [path for path in (settings.health.live_path, settings.health.ready_path) if path]
    auth = settings.auth
    issuers = {each.issuer for each in (*auth.trusted, auth.introspected) if each is not None}
    several = len(issuers) + bool(auth.api_keys) > 1
    return AccessLogMiddleware(app, quiet=probes, issuer=several, routes=table, **section.model_dump())


def _security(app: ASGIApp, settings: GuardSettings, table: RouteTable) -> SecurityHeadersMiddleware | None:
    section = settings.security.model_dump()
    said = [value for name, value in section.items() if name != "preset"]
    said += [route.security for route in settings.routes]
    if settings.security.preset == "off" and not any(said):
        return None
    return SecurityHeadersMiddleware(app, routes=table, **section)


def _hosts(app: ASGIApp, settings: GuardSettings) -> HostMiddleware | None:
    section = settings.hosts
    if not section.allowed and not section.https_redirect:
        return None
    return HostMiddleware(app, **section.model_dump())


def _cors(app: ASGIApp, settings: GuardSettings, request_id: RequestIDMiddleware | None) -> CORSMiddleware | None:
    section = settings.cors
    if not section.allow_origins:
        return None
    # What the guard says to clients, a page's script may read; browsers hide every header that is not named here.
    own = [*HEADER_NAMES[settings.rate.headers], "www-authenticate"]
    if request_id is not None:
        own.insert(0, settings.request_id.header)
    if settings.auth.dpop_nonce_secret is not None:
        own.append("dpop-nonce")
    values = {**section.model_dump(), "expose_headers": (*section.expose_headers, *own)}
    described = settings.auth.resource_metadata(settings.routes)
    return CORSMiddleware(app, **values, open_path=path_of(described["resource"]) if described else None)


def _trusts(cors: CORSMiddleware | None) -> Callable[[bytes], bool]:
    """Tells whose pages may act with a user's cookie: those that CORS names and allows to send it."""
    return cors.policy.names_origin if cors is not None and cors.policy.credentials else trusts_nobody


def _csrf(
    app: ASGIApp, settings: GuardSettings, table: RouteTable, cors: CORSMiddleware | None
) -> CSRFMiddleware | None:
    section = settings.csrf
    if section.mode == "off":
        return None
    values = section.model_dump()
    for name in ("secret", "previous_secret"):
        values[name] = revealed(values[name])
    return CSRFMiddleware(app, routes=table, trusts_origin=_trusts(cors), **values)


def _resource_metadata(
    app: ASGIApp, settings: GuardSettings, cors: CORSMiddleware | None
) -> ResourceMetadataMiddleware | None:
    members = settings.auth.resource_metadata(settings.routes)
    marks_origin = None if cors is None else cors.policy.allows_origin
    return ResourceMetadataMiddleware(app, **members, marks_origin=marks_origin) if members else None


def _identity(
    app: ASGIApp,
    settings: GuardSettings,
    table: RouteTable,
    http_client: Callable[[], httpx.AsyncClient],
    possession: Possession | None,
) -> IdentityMiddleware | None:
    section = settings.auth
    if not section.on:
        return None
    issuers = []
    problems: list[Problem] = []
    for trusted in section.trusted:
        try:
            issuers.append(Issuer(**trusted.model_dump(), require_jti=section.revocation, client=http_client))
        except ConfigError as error:
            first = trusted.issuer == section.issuer
            problems += error.problems if first else (Problem(f"issuers: {_called(trusted.issuer)}", str(error)),)
    introspection = None
    if section.introspection_url is not None:
        try:
            introspection = _introspection(section, http_client)
        except ConfigError as error:
            own = {name: f"introspection_{name}" for name in ("url", "client_id", "client_secret")}
            named = (Problem(own.get(each.name, each.name), each.message, each.kind) for each in error.problems)
            problems += (each for each in named if each not in problems)  # an issuer may have told of it
    if problems:
        raise ConfigError(problems)
    return IdentityMiddleware(
        app,
        issuers=issuers,
        introspection=introspection,
        api_keys=section.api_keys,
        api_key_header=section.api_key_header,
        cookie=section.cookie,
        unsafe_websocket_query_token=section.unsafe_websocket_query_token,
        routes=table,
        possession=possession,
    )


def _called(issuer: str) -> str:
    """What to call an issuer by that cannot be used: a user, a query, or a port that is none, may be a secret."""
    if {"@", "?"} & set(issuer):
        return "one with an @ or a ? in it"
    return issuer if has_sound_port(issuer) else "one whose port is none"


def _possession(section: AuthSettings, store: Store | None, proxy: ProxyMiddleware | None) -> Possession:
    return Possession(
        dpop=section.dpop,
        client_cert=section.client_cert,
        # Hops alone believe whoever connects. To have the certificate believed of all who do would bind no token.
        trusts_proxy=trusts_nobody if proxy is None else proxy.policy.trusts,
        trusts_socket=proxy is not None and proxy.policy.believes(None),
        dpop_nonce_secret=revealed(section.dpop_nonce_secret),
        store=store,
    )


def _introspection(section: AuthSettings, http_client: Callable[[], httpx.AsyncClient]) -> Introspection:
    asked = section.introspected
    assert asked is not None  # noqa: S101 - the caller has looked
    return Introspection(
        section.introspection_url or "",
        section.introspection_client_id or "",
        revealed(section.introspection_client_secret),
        audience=() if section.introspection_unsafe_any_audience else asked.audience or (),
        unsafe_subject=section.introspection_unsafe_subject,
        unsafe_any_type=section.introspection_unsafe_any_type,
        unsafe_any_audience=section.introspection_unsafe_any_audience,
        client=http_client,
        **asked.model_dump(exclude={"audience", "jwks_url", "algorithms", "profile"}),
    )


def _rate_limit(
    app: ASGIApp,
    settings: GuardSettings,
    table: RouteTable,
    store: Store | None,
    functions: Mapping[str, Callable[[Scope], str | None]] | None,
) -> RateLimitMiddleware | None:
    section = settings.rate
    if not settings.limited and not settings.auth.revocation and not section.messages:
        unusable: list[Problem] = []
        functions_of(functions, unusable)
        if unusable:
            raise ConfigError(unusable)
        return None
    return RateLimitMiddleware(
        app,
        store=store,
        routes=table,
        functions=functions,
        default="required" if settings.auth.on else "none",
        revocation=settings.auth.revocation,
        **section.model_dump(),
    )


def _access(
    app: ASGIApp,
    settings: GuardSettings,
    table: RouteTable,
    trusts_origin: Callable[[bytes], bool],
    metadata: ResourceMetadataMiddleware | None,
    possession: Possession | None,
) -> AccessMiddleware | None:
    section = settings.auth
    if not section.on:
        return None
    return AccessMiddleware(
        app,
        routes=table,
        challenge="Bearer" if section.trusted or section.introspection_url else "ApiKey",
        trusts_origin=trusts_origin,
        deny_unknown_revocation=section.revocation_on_store_failure == "deny",
        resource_metadata=None if metadata is None else metadata.policy.url,
        possession=possession,
    )
