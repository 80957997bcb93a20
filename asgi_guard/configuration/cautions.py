"""What works, and is probably not meant: told at start-up, and by `asgi-guard check`."""

from __future__ import annotations

import re
from itertools import permutations
from typing import TYPE_CHECKING

from asgi_guard.configuration.values import revealed
from asgi_guard.configuration.variables import PREFIX
from asgi_guard.policy.cors_names import normalized_method
from asgi_guard.policy.methods import resembled
from asgi_guard.policy.rates import parse_limits
from asgi_guard.policy.routes import sample
from asgi_guard.stores.urls import unverified

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asgi_guard.policy.limit_sets import LimitSet, RouteLimits
    from asgi_guard.settings import GuardSettings
    from asgi_guard.stores import Store

OPEN = f"identity is off: everyone may do everything; set {PREFIX}AUTH_ISSUER or {PREFIX}AUTH_API_KEYS"
"""What holds where nobody is asked who they are, which an app of its own may be meant for."""
NOTHING_SAID = (
    f"no {PREFIX} variable is set, so everyone is let in, as often as they like: there are ids, the log, security "
    "headers and probes, and nothing else; if there is a file of variables, load it before the server starts"
)
"""What holds around an app whose Guard is told nothing, perhaps since the file that tells it was not read."""
IDENTIFYING = {f"{PREFIX}AUTH_{name}" for name in ("ISSUER", "ISSUERS", "API_KEYS", "INTROSPECTION_URL")}
"""Variables each of which has identity asked for."""
BESIDE = {"ip", "anonymous", "user", "api-key"}
"""What a client cannot choose: whoever slips out of another limit stays in one of these."""


def warnings(
    settings: GuardSettings, limits: Sequence[RouteLimits], *, shared: bool, store: Store | None = None
) -> Iterator[str]:
    """What works, and is probably not meant.

    Args:
        settings: what is looked at.
        limits: those that it asks for, as `limits_in` gives them.
        shared: whether other processes see what is kept, as one sees it who knows a store that was given in Python.
        store: where it is kept, that of the settings or one that was given in Python; None where nothing is.
    """
    if settings.unread:
        names, places = ", ".join(settings.unread), ", ".join(dict.fromkeys(settings.unread.values()))
        yield f"{names} will not hold: a section that is given in Python is taken as it is there; say {places}"
    for name, meant in settings.resembling.items():
        yield f"{name} is none of the guard's variables, and does nothing: did you mean {meant}?"
    if not settings.auth.on and (emptied := [name for name in settings.emptied if name in IDENTIFYING]):
        yield f"{', '.join(emptied)} is set to nothing, which counts as not set: {OPEN}"
    yield from _played(settings, store)
    limited = settings.limited
    if limited and not shared and settings.rate.workers > 1:
        yield (
            f"{settings.rate.workers} workers each keep their own buckets in memory, so clients get up to "
            f"{settings.rate.workers} times the limits: set {PREFIX}STORE_URL to a Redis that all share"
        )
    if settings.store.shared and not limited and not settings.auth.revocation and settings.auth.dpop == "off":
        yield f"{PREFIX}STORE_URL names a store, and nothing is kept there: no limit is set, and revocation is off"
    if settings.auth.dpop != "off" and not shared and settings.rate.workers > 1:
        yield (
            f"{settings.rate.workers} workers each remember in memory which proofs they have seen, so one can be used "
            f"{settings.rate.workers} times: set {PREFIX}STORE_URL to a Redis that all share"
        )
    if settings.auth.dpop != "off" and not settings.hosts.allowed:
        yield (
            "a proof of possession is held to the host that its request names, so one that was made for another server "
            f"is taken from whoever names that one: set {PREFIX}HOSTS_ALLOWED"
        )
    if settings.auth.revocation and not shared:
        yield f"revocations are kept in this process's memory and end with it: set {PREFIX}STORE_URL to a Redis"
    yield from _of_strangers(settings, limits)
    yield from _forgeable(limits)
    yield from _idle(limits)
    yield from _for_keys_only(settings)
    yield from _credentials_at_risk(settings)
    yield from _redirected_for_ever(settings)
    yield from _anyone_is_believed(settings)
    yield from _forged(settings)
    yield from _beside_a_mount(settings)
    yield from _below_a_row(settings)
    yield from _at_probes(settings)
    yield from _of_no_method(settings)
    yield from _unsendable_by_pages(settings)
    yield from _in_another_case(settings)
    yield from _for_everyone(settings)
    if settings.rate.shadow and (limited or settings.rate.messages):
        yield f"limits refuse nothing: {PREFIX}RATE_SHADOW is on"


def _played(settings: GuardSettings, store: Store | None) -> Iterator[str]:
    """A store whose server need not show who it is."""
    named = unverified(revealed(settings.store.url))
    option = named if store is None else getattr(store, "unverified", None)
    if option:
        where = f"{PREFIX}STORE_URL" if option == named else "the URL of the store that is given in Python"
        yield (
            f"whoever is on the way to the store can play it, and read its password: {where} says {option}; "
            "leave that out, and name who signs the server's certificate by ssl_ca_certs"
        )


def _of_strangers(settings: GuardSettings, limits: Sequence[RouteLimits]) -> Iterator[str]:
    """Limits that leave out those who show nothing, or nothing good: what they send is looked at all the same."""
    closed = [
        str(route)
        for route, row in zip(settings.routes, limits, strict=False)
        if route.limits is not None
        and (row.token.limits or row.api_key.limits)
        and not (row.anonymous.limits or route.opens)
    ]
    if closed and settings.auth.on:
        yield (
            f"those without identity are under no limit, however many tokens they try, at {'; '.join(closed)}, whose "
            "own limits hold in the place of any other and say nothing of them; add one by anonymous or by ip"
        )
    if not settings.rate.limit or limits[-1].anonymous.limits:
        return
    rows = [str(route) for route in settings.routes if route.opens and route.limits is None]
    yield (
        f"those without identity are under no limit, however many tokens they try: {PREFIX}RATE_LIMIT says nothing of "
        "them; add one by anonymous or by ip" + (f", also for what is open: {'; '.join(rows)}" if rows else "")
    )


def _credentials_at_risk(settings: GuardSettings) -> Iterator[str]:
    """Places from which credentials are taken, where others may read them or put theirs."""
    cookie, parameter = settings.auth.cookie, settings.auth.unsafe_websocket_query_token
    if parameter is not None:
        yield (
            f"tokens are taken from the address of WebSockets, which servers, proxies and browsers write down: "
            f"{PREFIX}AUTH_UNSAFE_WEBSOCKET_QUERY_TOKEN={parameter}; a __Host- cookie is not written down"
        )
    if "client_id" in settings.auth.introspection_unsafe_subject:
        yield (
            f"all users of a client whose tokens name nobody else are one: {PREFIX}AUTH_INTROSPECTION_UNSAFE_SUBJECT "
            "says client_id, which is right for clients that act for no user"
        )
    if settings.auth.introspection_unsafe_any_type:
        yield (
            f"refresh tokens, which live long, open this API too: {PREFIX}AUTH_INTROSPECTION_UNSAFE_ANY_TYPE is on, "
            "which is right where the endpoint tells of no sort of token"
        )
    if cookie is not None and not cookie.startswith("__Host-"):
        better = "__Host-" + re.sub("^__(host|secure)-", "", cookie, flags=re.IGNORECASE)
        yield (
            f"{PREFIX}AUTH_COOKIE={cookie} can be planted, for without the prefix __Host- any subdomain may set "
            f"it, so that a user acts in an attacker's account: call it {better}, and set it with Secure, HttpOnly, "
            "SameSite and Path=/"
        )


def _beside_a_mount(settings: GuardSettings) -> Iterator[str]:
    """What is asked of everything below a path, and not of that path itself, where apps have an index."""
    table = settings.route_table
    for route in settings.routes:
        if route.opens or not route.path.endswith("/*") or route.path == "/*":
            continue
        above = route.path.removesuffix("*")
        row = table.row(sample(above), (route.methods or ("GET",))[0])
        of_their_own = "if the app answers there, give these rows of their own"
        neither = f"holds for neither {above} nor {above.removesuffix('/')}"
        if row is None and (route.scopes or route.any_scopes):
            yield f"the row {route} asks for scopes, and {neither}: {of_their_own}"
        elif row is not None and row.opens and settings.auth.on:
            yield f"the row {route} asks who it is, and {neither}, which {row} opens: {of_their_own}"


def _below_a_row(settings: GuardSettings) -> Iterator[str]:
    """What is closed by name, and nothing below it is, since a row for more than that opens it."""
    table = settings.route_table
    for route in settings.routes:
        scoped = bool(route.scopes or route.any_scopes)
        closed = scoped or (settings.auth.on and route.auth == "required")
        if not closed or route.path.endswith(("*", "/")):
            continue
        row = table.row(sample(f"{route.path}/*"), (route.methods or ("GET",))[0])
        # What is opened below it by name is meant to be open.
        if row is not None and row.opens and not row.path.startswith(f"{route.path}/"):
            yield (
                f"the row {route} asks for {'scopes' if scoped else 'an identity'}, and holds for nothing below "
                f"{route.path}, which {row} opens: if the app answers there, add a row for {route.path}/*"
            )


def _at_probes(settings: GuardSettings) -> Iterator[str]:
    """Rows for probes, which the guard answers before; one that opens a probe and says no more is right about it."""
    health = settings.health
    for route in settings.routes:
        reads = not route.methods or {"GET", "HEAD"} & set(route.methods)
        asks = not route.opens or route.limits
        if reads and asks and route.path in {health.live_path, health.ready_path}:
            yield f"the row {route} does not hold for the probe there, which the guard answers itself, to everyone"


def _of_no_method(settings: GuardSettings) -> Iterator[str]:
    """Methods that nobody has registered and that look like one, so that a row or CORS may not be for what is sent."""
    for route in settings.routes:
        for method in route.methods:
            if known := resembled(method):
                yield f"the row {route} is for {method}, which is no registered method: did you mean {known}?"
    for method in settings.cors.allow_methods:
        if method.isupper() and (known := resembled(method)):
            yield f"{PREFIX}CORS_ALLOW_METHODS names {method}, which is no registered method: did you mean {known}?"


def _unsendable_by_pages(settings: GuardSettings) -> Iterator[str]:
    """Credentials that pages of other origins cannot send, though they may call."""
    auth, cors = settings.auth, settings.cors
    if not auth.on or not cors.allow_origins or auth.unsafe_websocket_query_token is not None:
        return
    if any(route.opens for route in settings.routes):
        return  # which pages may be for
    allowed = {name.lower() for name in cors.allow_headers}
    by_header = {"authorization"} if auth.trusted or auth.introspection_url else set()
    by_header |= {auth.api_key_header.lower()} if auth.api_keys else set()
    if by_header & allowed or (by_header - {"authorization"} and "*" in allowed):
        return
    if auth.cookie is None:
        yield (
            f"pages of {PREFIX}CORS_ALLOW_ORIGINS can send no credentials: name {' or '.join(sorted(by_header))} in "
            f"{PREFIX}CORS_ALLOW_HEADERS" + (", for * does not mean authorization" if "*" in allowed else "")
        )
    elif not cors.allow_credentials:
        yield (
            f"pages of {PREFIX}CORS_ALLOW_ORIGINS can send no credentials: set {PREFIX}CORS_ALLOW_CREDENTIALS for the "
            f"cookie {auth.cookie}, or name authorization in {PREFIX}CORS_ALLOW_HEADERS"
        )


def _in_another_case(settings: GuardSettings) -> Iterator[str]:
    """Methods that are told apart by their case, and named in one in which hardly a page sends them."""
    allowed = settings.cors.allow_methods
    sent = ((method, normalized_method(method).decode()) for method in allowed)
    odd = [method for method, each in sent if each != each.upper() and each.upper() not in allowed]
    if odd:
        yield (
            f"browsers send methods as pages write them, in capitals as a rule: in {PREFIX}CORS_ALLOW_METHODS, write "
            f"{' and '.join(map(str.upper, odd))} for {' and '.join(odd)}"
        )


def _for_everyone(settings: GuardSettings) -> Iterator[str]:
    """Exemptions that leave nobody out."""
    of_networks = (("RATE_EXEMPT", settings.rate.exempt), ("METRICS_ALLOW", settings.metrics.allow))
    for name, values in of_networks:
        everyone = [value for value in values if value.endswith("/0") and not value.startswith(("user:", "api-key:"))]
        if everyone:
            yield f"{PREFIX}{name} means everybody: {', '.join(everyone)}"
    if "/*" in settings.csrf.exempt:
        yield f"{PREFIX}CSRF_EXEMPT means every path: /*"


def _forged(settings: GuardSettings) -> Iterator[str]:
    """Requests that other sites forge and nobody refuses, and honest ones that are."""
    csrf, cors = settings.csrf, settings.cors
    if csrf.mode == "log":
        yield f"requests that other sites can forge are only logged: {PREFIX}CSRF_MODE is log"
    if csrf.mode == "enforce" and cors.allow_origins and not cors.allow_credentials:
        yield (
            f"pages of {PREFIX}CORS_ALLOW_ORIGINS may call, without cookies, and what they POST is refused as another "
            f'site\'s: name them in {PREFIX}CSRF_TRUSTED_ORIGINS, or give the rows of the API "csrf": false'
        )


def _redirected_for_ever(settings: GuardSettings) -> Iterator[str]:
    """A redirect to https from which nobody arrives, since whoever ends TLS is not believed."""
    if settings.hosts.https_redirect and not settings.proxy.trusted and not settings.proxy.hops:
        yield (
            "unless this server speaks TLS itself, every request is plain http to it, and is redirected to where it "
            f"came from: name the proxy that ends TLS in {PREFIX}PROXY_TRUSTED"
        )


def _anyone_is_believed(settings: GuardSettings) -> Iterator[str]:
    """Proxies that anybody can play."""
    proxy = settings.proxy
    if proxy.hops and not proxy.trusted:
        yield (
            f"whoever connects is believed about its address: {PREFIX}PROXY_HOPS is set without {PREFIX}PROXY_TRUSTED; "
            "see to it that nobody but the proxy can connect"
        )
    everyone = [text for text in proxy.trusted if text.endswith("/0")]
    if everyone and not proxy.hops:
        yield (
            f"{PREFIX}PROXY_TRUSTED names everyone ({', '.join(everyone)}): no entry is a client's, so the client is "
            f"always the connection's other end; name the proxies, or set {PREFIX}PROXY_HOPS"
        )


def _every(limits: Iterable[RouteLimits]) -> Iterator[LimitSet]:
    """The limits of all rows, for all sorts of clients."""
    return (each for row in limits for each in row.all())


def _forgeable(limits: Iterable[RouteLimits]) -> Iterator[str]:
    """Limits that a client can slip out of."""
    warned = set()
    for each in _every(limits):
        kinds = {limit.key for limit in each.limits}
        for limit in each.limits:
            if limit.key.startswith("header:") and not kinds & BESIDE and limit not in warned:
                warned.add(limit)
                yield (
                    f"the limit {limit.text!r} goes by a header that any client can write, and change with every "
                    "request: put a limit by ip or user beside it"
                )


def _idle(limits: Iterable[RouteLimits]) -> Iterator[str]:
    """Limits that never refuse anything, since another one beside them is as strict or stricter."""
    told = set()
    for each in _every(limits):
        for (place, limit), (other_place, other) in permutations(enumerate(each.limits), 2):
            # Of two that are the same, the later one is told of.
            idle = other.covers(limit) and (place > other_place or not limit.covers(other))
            # Rows may say the same, and one that is in shadow is there to be looked at.
            if idle and limit.enforced and (limit.text, other.text) not in told:
                told.add((limit.text, other.text))
                yield (
                    f"the limit {limit.text!r} refuses nothing that {other.text!r} does not: leave it out, or make it "
                    "stricter in one way, the rate or the burst"
                )


def _for_keys_only(settings: GuardSettings) -> Iterator[str]:
    """Plans that take a token's limit away, and put none in its place."""
    if settings.rate.plan_claim is None:
        return
    for name, text in settings.rate.plans.items():
        limits = parse_limits(text)
        if limits and all(limit.key == "api-key" for limit in limits):
            yield (
                f"a token of the plan {name!r} is under no limit by user: the plan takes the place of the default "
                "ones, and limits API keys only"
            )
