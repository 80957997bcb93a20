"""What is wrong with settings only in combination: a rule that would silently not hold."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from asgi_guard.configuration.variables import PREFIX
from asgi_guard.errors import Problem
from asgi_guard.policy.claims import NO_AUDIENCE
from asgi_guard.policy.identity import names_of_one_key
from asgi_guard.policy.limit_sets import OF_IDENTITIES
from asgi_guard.policy.rates import holds_limits, parse_limits
from asgi_guard.policy.routes import UNNAMED, RouteTable, sample

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from asgi_guard.configuration.section_base import Section
    from asgi_guard.configuration.sections import AuthSettings
    from asgi_guard.settings import GuardSettings

CROSS_CHECKED = frozenset({"routes", "auth", "rate", "cors", "csrf", "hosts", "proxy", "request_id"})
"""What is looked at here: where one of these is wrong in itself, nothing can be said about its combinations."""

_BY_WORD = re.compile(r"\bby\s+([a-z][a-z0-9_-]*)(?=[\s;]|$)")
"""What a limit goes by that may be a function, which only the Guard is given."""


def cross_check(settings: GuardSettings, at_fault: Collection[str] = ()) -> Iterator[Problem]:
    """Find every rule that another setting keeps from holding.

    Args:
        settings: what is looked at.
        at_fault: the sections that are wrong in themselves, of which not all is known.
    """
    auth, cors = settings.auth, settings.cors
    yield from _credentials(auth)
    yield from _introspection(auth)
    yield from _resource(auth)
    yield from _possession(settings)
    if not cors.allow_origins:
        yield from _without(cors, "cors", "allow_origins", _said(cors))
    if settings.csrf.mode == "off":
        yield from _csrf_missing(settings)
    if not settings.hosts.allowed:
        yield from _without(settings.hosts, "hosts", "allowed", ("exempt",))
    if settings.request_id.trust_incoming == "proxies" and not settings.proxy.trusted:
        message = f"nobody is believed: set {PREFIX}PROXY_TRUSTED, or say `anyone` or `nobody`"
        yield Problem(f"{PREFIX}REQUEST_ID_TRUST_INCOMING", message)
    yield from _headers_taken(settings)
    yield from _identity_missing(settings)
    if settings.rate.limit and not holds_limits(settings.rate.limit):
        yield Problem(f"{PREFIX}RATE_LIMIT", f"{settings.rate.limit!r} holds no limit: leave it out if none is meant")
    yield from _plans_missing(settings)
    yield from _exempt_missing(settings)
    yield from _dead_rows(settings)
    yield from _costs_missing(settings)
    yield from _paths_taken(settings)
    yield from _unused(settings, at_fault)


def _unused(settings: GuardSettings, at_fault: Collection[str]) -> Iterator[Problem]:
    """What is said of something that there is not, by no more than its default.

    Limits, the store and the log may be off in one environment of several that share a file of variables: what is said
    of them stays without effect there, and does no harm.
    """
    for section, needed, is_there, fields in _needs(settings):
        if section not in at_fault and not is_there:
            yield from _without(getattr(settings, section), section, needed, fields)
    log = settings.log
    if "log" not in at_fault and log.gcp_project is not None and log.format != "gcp":
        yield Problem(f"{PREFIX}LOG_GCP_PROJECT", f"it has no effect unless {PREFIX}LOG_FORMAT is gcp")


def _needs(settings: GuardSettings) -> Iterator[tuple[str, str, bool, tuple[str, ...]]]:
    """What has an effect only beside another option: the section, that option, whether it is said, and its fields."""
    proxy, csrf = settings.proxy, settings.csrf
    yield "proxy", "trusted", bool(proxy.trusted or proxy.hops), ("header",)
    yield "metrics", "path", bool(settings.metrics.path), ("allow",)
    yield "auth", "revocation", settings.auth.revocation, ("revocation_on_store_failure",)
    # Where CSRF is off, all of it has no effect, which is told elsewhere.
    yield "csrf", "secret", csrf.mode == "off" or csrf.secret is not None, ("token_header",)


def _credentials(auth: AuthSettings) -> Iterator[Problem]:
    """Who is believed, where it is not told whole, or told of nobody."""
    if auth.issuer is not None and not auth.audiences:
        yield Problem(f"{PREFIX}AUTH_AUDIENCE", NO_AUDIENCE)
    if len({each.issuer for each in auth.trusted}) < len(auth.trusted):
        yield Problem(f"{PREFIX}AUTH_ISSUERS", "an issuer is named twice")
    if not auth.trusted and auth.introspection_url is None:
        needless = (
            "audience", "cookie", "unsafe_websocket_query_token", "max_token_age", "max_token_lifetime",
            "required_claims", "revocation", "algorithms", "leeway", "profile", "scope_claims",
        )  # fmt: skip
        yield from _without(auth, "auth", "issuer", needless)
    elif not auth.trusted:  # every token is asked about, and none is looked into here
        yield from _without(auth, "auth", "issuer", ("algorithms", "profile"))
    if not auth.api_keys:
        yield from _without(auth, "auth", "api_keys", ("api_key_header",))
    if auth.issuer is None and auth.jwks_url is not None:
        yield Problem(f"{PREFIX}AUTH_JWKS_URL", f"it has no effect without {PREFIX}AUTH_ISSUER")
    for message in names_of_one_key(auth.api_keys):
        yield Problem(f"{PREFIX}AUTH_API_KEYS", message)


def _costs_missing(settings: GuardSettings) -> Iterator[Problem]:
    """Costs that are taken from no limit: neither the row's own, which hold in the place of any other, nor another."""
    for route in settings.routes:
        own = route.limits
        if own is not None and not holds_limits(own) and route.cost > 1:
            message = f"the row {route} costs {route.cost}, and its own limits, {own!r}, are none: leave either out"
            yield Problem(settings.routes_variable, message)
        elif own is None and route.cost > 1 and not holds_limits(settings.rate.limit) and not settings.rate.plans:
            message = f"the row {route} costs {route.cost}, and no limit counts it: set {PREFIX}RATE_LIMIT"
            yield Problem(settings.routes_variable, message)


def _headers_taken(settings: GuardSettings) -> Iterator[Problem]:
    """One header for two things: ids of requests are logged and sent back, and what else stands there may be secret."""
    taken = {settings.request_id.header.lower(): "REQUEST_ID_HEADER"}
    said = (
        (settings.auth.api_key_header, "AUTH_API_KEY_HEADER", bool(settings.auth.api_keys)),
        (settings.csrf.token_header, "CSRF_TOKEN_HEADER", settings.csrf.secret is not None),
    )
    for header, variable, used in said:
        if used and (other := taken.setdefault(header.lower(), variable)) != variable:
            yield Problem(f"{PREFIX}{variable}", f"{header!r} is {PREFIX}{other} too: name another")


def _paths_taken(settings: GuardSettings) -> Iterator[Problem]:
    """Metrics at the path of a probe, which is answered first."""
    health, path = settings.health, settings.metrics.path
    for name in ("live_path", "ready_path"):
        if path and path == getattr(health, name):
            yield Problem(f"{PREFIX}METRICS_PATH", f"{path} is {PREFIX}HEALTH_{name.upper()}, which answers there")


def _said(section: Section) -> tuple[str, ...]:
    """The fields that are not as they are by default."""
    return tuple(name for name, info in type(section).model_fields.items() if getattr(section, name) != info.default)


def _csrf_missing(settings: GuardSettings) -> Iterator[Problem]:
    """What is said of a layer that is off, and rows that it does not hold for."""
    yield from _without(settings.csrf, "csrf", "mode", _said(settings.csrf))
    for route in settings.routes:
        if not route.csrf:
            message = f"the row {route} is exempt from what is off: set {PREFIX}CSRF_MODE"
            yield Problem(settings.routes_variable, message)


def _introspection(auth: AuthSettings) -> Iterator[Problem]:
    """Introspection that is not told whole."""
    asked = auth.introspected
    if asked is None:
        names = ("client_id", "client_secret", "issuer", "unsafe_any_audience", "unsafe_any_type", "unsafe_subject")
        yield from _without(auth, "auth", "introspection_url", tuple(f"introspection_{name}" for name in names))
        return
    for field in ("introspection_client_id", "introspection_client_secret"):
        if not getattr(auth, field):
            message = f"{PREFIX}AUTH_INTROSPECTION_URL needs it: no issuer tells strangers about tokens"
            yield Problem(f"{PREFIX}AUTH_{field.upper()}", message)
    if auth.trusted and not asked.issuer:
        known = ", ".join(each.issuer for each in auth.trusted)
        message = f"say whose tokens the endpoint tells of, which its origin does not tell: one of {known}, or another"
        yield Problem(f"{PREFIX}AUTH_INTROSPECTION_ISSUER", message)
    if not asked.audience and not auth.introspection_unsafe_any_audience and auth.issuer is None:
        yield Problem(f"{PREFIX}AUTH_AUDIENCE", NO_AUDIENCE)


def _resource(auth: AuthSettings) -> Iterator[Problem]:
    """A resource that could tell clients of no issuer, and a description of no resource."""
    if not auth.trusted:
        yield from _without(auth, "auth", "issuer", ("resource", "resource_name", "resource_documentation"))
    elif auth.resource is not None and not auth.resource_metadata(()):
        names = ", ".join(each.issuer for each in auth.trusted)
        message = (
            f"it leads clients to the issuer, and they could ask none of {names}, which is no https URL: leave it out, "
            f"and name this API by {PREFIX}AUTH_AUDIENCE"
        )
        yield Problem(f"{PREFIX}AUTH_RESOURCE", message)
    elif auth.resource is None:
        yield from _without(auth, "auth", "resource", ("resource_name", "resource_documentation"))


def _possession(settings: GuardSettings) -> Iterator[Problem]:
    """Proofs that nobody is asked for, or that nobody could show."""
    auth = settings.auth
    for field in ("dpop", "client_cert"):
        if not auth.trusted and getattr(auth, field) != "off":
            yield Problem(f"{PREFIX}AUTH_{field.upper()}", f"it has no effect without {PREFIX}AUTH_ISSUER")
    if auth.dpop == "off":
        yield from _without(auth, "auth", "dpop", ("dpop_nonce_secret",))
    for field in ("cookie", "unsafe_websocket_query_token", "introspection_url"):
        if auth.dpop == "require" and getattr(auth, field):
            message = f"such tokens come without a proof, and {PREFIX}AUTH_DPOP takes none of these"
            yield Problem(f"{PREFIX}AUTH_{field.upper()}", message)
    if auth.client_cert not in ("off", "tls") and not settings.proxy.trusted and not settings.proxy.hops:
        message = (
            f"nobody is believed who writes that header: set {PREFIX}PROXY_TRUSTED, or {PREFIX}PROXY_HOPS alone if the "
            "proxy connects by a UNIX socket"
        )
        yield Problem(f"{PREFIX}AUTH_CLIENT_CERT", message)


def _without(section: Section, name: str, needed: str, fields: tuple[str, ...]) -> Iterator[Problem]:
    said = _said(section)
    for field in fields:
        if field in said and getattr(section, field):
            message = f"it has no effect without {PREFIX}{name.upper()}_{needed.upper()}"
            yield Problem(f"{PREFIX}{name.upper()}_{field.upper()}", message)


def _dead_rows(settings: GuardSettings) -> Iterator[Problem]:
    """Rows whose every request an earlier row takes: whatever they say does not hold."""
    routes = settings.routes
    table = RouteTable(routes)
    for index, route in enumerate(routes):
        takers = {table.match(sample(route.path), method) for method in route.methods or (UNNAMED,)}
        if index not in takers:
            earlier = " and ".join(str(routes[taker]) for taker in sorted(takers))
            twice = any(str(routes[taker]) == str(route) for taker in takers)
            advice = "it stands there twice" if twice else "put it first"
            message = f"the row {route} never holds, since {earlier} before it takes its requests: {advice}"
            yield Problem(settings.routes_variable, message)


def _plans_missing(settings: GuardSettings) -> Iterator[Problem]:
    """Plans that nobody has, and keys whose plan there is not."""
    auth, rate = settings.auth, settings.rate
    if rate.plans and rate.plan_claim is None and not any(key.plan for key in auth.api_keys):
        message = f"nobody has a plan: set {PREFIX}RATE_PLAN_CLAIM, or give API keys a plan"
        yield Problem(f"{PREFIX}RATE_PLANS", message)
    if rate.plan_claim is not None and not auth.trusted and auth.introspection_url is None:
        yield Problem(f"{PREFIX}RATE_PLAN_CLAIM", f"it has no effect without {PREFIX}AUTH_ISSUER")
    if rate.plan_claim is not None and not rate.plans:
        yield Problem(f"{PREFIX}RATE_PLAN_CLAIM", f"it has no effect without {PREFIX}RATE_PLANS")
    if "" in rate.plans:
        yield Problem(f"{PREFIX}RATE_PLANS", "a plan has a name, by which a claim or an API key names it")
    for key in auth.api_keys:
        if key.plan is not None and key.plan not in rate.plans:
            known = ", ".join(rate.plans) or "none"
            message = f"the plan {key.plan!r} of {key.name!r} is none of {PREFIX}RATE_PLANS: {known}"
            yield Problem(f"{PREFIX}AUTH_API_KEYS", message)


def _exempt_missing(settings: GuardSettings) -> Iterator[Problem]:
    """Exemptions of nobody, or from nothing."""
    auth, rate, name = settings.auth, settings.rate, f"{PREFIX}RATE_EXEMPT"
    if rate.exempt and not settings.limited and not rate.messages:
        yield Problem(name, f"it has no effect without {PREFIX}RATE_LIMIT")
        return
    keys = {f"api-key:{key.name}" for key in auth.api_keys}
    issuers = {each.issuer for each in auth.trusted}
    if auth.introspected is not None and auth.introspected.issuer:
        issuers.add(auth.introspected.issuer)
    for each in rate.exempt:
        if each.startswith("api-key:") and each not in keys:
            known = ", ".join(sorted(key.name for key in auth.api_keys)) or "none"
            yield Problem(name, f"{each!r} is the name of no API key: {known}")
        if not each.startswith("user:"):
            continue
        issuer = each.removeprefix("user:").rpartition("#")[0]
        if not issuers:
            yield Problem(name, f"{each!r} is a token's subject, and no tokens are accepted: set {PREFIX}AUTH_ISSUER")
        elif not issuer and len(issuers) > 1:
            yield Problem(name, f"{each!r} could be anyone's of several issuers: write user:ISSUER#SUBJECT")
        elif issuer and issuer not in issuers:
            known = ", ".join(sorted(issuers))
            yield Problem(name, f"{each!r} is of none of the issuers, and is written user:ISSUER#SUBJECT: {known}")


def _identity_missing(settings: GuardSettings) -> Iterator[Problem]:
    """Rules that ask who it is, where nobody can say."""
    auth = settings.auth
    remedy = f"set {PREFIX}AUTH_ISSUER or {PREFIX}AUTH_API_KEYS"
    for route in settings.routes:
        if not auth.on and (route.scopes or route.any_scopes or route.auth in ("required", "optional")):
            yield Problem(settings.routes_variable, f"the row {route} asks who it is, and nobody can say: {remedy}")
        if auth.on and route.auth == "none" and _of_identities(_keys(route.limits or "")):
            message = f"the row {route} looks at no credentials, so {route.limits!r} knows no identities: limit by ip"
            yield Problem(settings.routes_variable, message)
    limits = [(f"{PREFIX}RATE_LIMIT", settings.rate.limit)]
    limits += ((settings.routes_variable, route.limits or "") for route in settings.routes)
    if auth.on:  # else nobody has a plan
        limits += ((f"{PREFIX}RATE_PLANS", text) for text in settings.rate.plans.values())
    for name, text in limits:
        keys = _keys(text)
        if not auth.on and _of_identities(keys):
            yield Problem(name, f"{text!r} limits identities, and there are none: {remedy}")
        elif not auth.api_keys and "api-key" in keys:
            yield Problem(name, f"{text!r} limits API keys, and there are none: set {PREFIX}AUTH_API_KEYS")


def _of_identities(keys: Iterable[str]) -> bool:
    return any(key in OF_IDENTITIES for key in keys)


def _keys(text: str) -> set[str]:
    """What limits go by; nothing where they cannot be read, which is told, alone, when they are compiled."""
    try:
        return {limit.key for limit in parse_limits(text, functions=_BY_WORD.findall(text))}
    except ValueError:
        return set()
