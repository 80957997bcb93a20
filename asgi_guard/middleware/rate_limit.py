"""The RateLimit layer: all limits of a request, and whether its token is revoked, in one call to the store."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Literal, TypeAlias

from asgi_guard.asgi import Header, Headers, has_header
from asgi_guard.errors import ConfigError, Problem, StoreUnavailableError, require_choice
from asgi_guard.layer import Decision, Layer
from asgi_guard.policy.access import Revocation, unavailable
from asgi_guard.policy.address import UNKNOWN, limit_key
from asgi_guard.policy.answer import Answer, Reason, ambiguous_path, problem
from asgi_guard.policy.bucket import Admission, Charge, Verdict, retry_after
from asgi_guard.policy.ratelimit_headers import Style, policy_header, state_headers
from asgi_guard.policy.rates import Limit, parse_limits, slug
from asgi_guard.policy.routes import Route, RouteTable
from asgi_guard.stores import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asgi_guard.asgi import ASGIApp
    from asgi_guard.exchange import Exchange
    from asgi_guard.policy.identity import User
    from asgi_guard.stores import Store

logger = logging.getLogger("asgi_guard")

OnStoreFailure: TypeAlias = Literal["allow", "deny", "local"]
QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"


@dataclass(frozen=True, slots=True)
class Plan:
    """The limits of one route for one sort of client.

    Attributes:
        limits: those that apply.
        cost: units that a request takes from each.
        policy: the `RateLimit-Policy` header, which is the same for every such request.
        share: this worker's share of the limits, for when the store that all share cannot be asked.
    """

    limits: tuple[Limit, ...]
    cost: int
    policy: Header
    share: tuple[Limit, ...]


@dataclass(frozen=True, slots=True)
class RoutePlans:
    """The plans of one route, by the sort of client: with a token, with an API key, with neither."""

    anonymous: Plan
    token: Plan
    api_key: Plan

    def of(self, user: User | None) -> Plan:
        """The plan for this client."""
        if user is None:
            return self.anonymous
        return self.token if user.kind == "token" else self.api_key


def compile_plans(limits: tuple[Limit, ...], cost: int, workers: int) -> RoutePlans:
    """Sort a route's limits by whom they apply to.

    `ip` applies to all; `anonymous` to those without an identity; `user` to identities, and `api-key` to those of keys,
    which `user` then leaves to it.
    """
    has_api_key = any(limit.key == "api-key" for limit in limits)
    kinds = {
        "anonymous": ("ip", "anonymous"),
        "token": ("ip", "user"),
        "api_key": ("ip", "api-key") if has_api_key else ("ip", "user"),
    }
    plans: dict[str, Plan] = {}
    for client, applying in kinds.items():
        chosen = tuple(limit for limit in limits if limit.key in applying)
        share = tuple(
            replace(limit, interval=limit.interval * workers, burst=max(1, limit.burst // workers)) for limit in chosen
        )
        plans[client] = Plan(chosen, cost, policy_header(chosen), share)
    return RoutePlans(**plans)


class RateLimitMiddleware(Layer):
    """Token buckets by address, user or API key: all of a request's are charged, or none is.

    A refusal is 429 with `Retry-After` as the bucket computes it. Where the address is not known (UNIX sockets), all
    such clients share one bucket.

    Args:
        app: the app within.
        limit: the default limits, in the grammar of `asgi_guard.policy.rates`; empty for none.
        store: where the buckets are; this process's memory unless said.
        routes: the route table; its columns `limits` and `cost`.
        on_store_failure: what a request meets when the store does not answer: `allow` (no limits), `deny` (503), or
            `local`: buckets in this process, each a `workers`-th of the limit.
        headers: how limits are told to clients: `draft` (`RateLimit`), `legacy` (`X-RateLimit-*`), or `off`.
        shadow: whether to refuse nothing, and only log what would be.
        workers: how many processes share the store, for `local`.
        ipv6_prefix: how many bits of an IPv6 address tell one client from another.
        revocation: whether tokens are looked up among the revoked.

    Raises:
        ConfigError: a rate is malformed, or a request could never be admitted.
    """

    name = "rate_limit"

    def __init__(
        self,
        app: ASGIApp,
        *,
        limit: str = "",
        store: Store | None = None,
        routes: Sequence[Route] | RouteTable = (),
        on_store_failure: OnStoreFailure = "local",
        headers: Style = "draft",
        shadow: bool = False,
        workers: int = 1,
        ipv6_prefix: int = 64,
        revocation: bool = False,
    ) -> None:
        super().__init__(app)
        require_choice("on_store_failure", on_store_failure, OnStoreFailure)
        require_choice("headers", headers, Style)
        self.store: Store = store if store is not None else MemoryStore()
        self._table = RouteTable.of(routes)
        self._plans = compile_table(limit, self._table.routes, workers)
        self._on_failure = on_store_failure
        self._local = MemoryStore()
        self._style = headers
        self._shadow = shadow
        self._ipv6_prefix = ipv6_prefix
        self._revocation = revocation
        self._warned = False

    async def startup(self) -> None:
        """Connect to the store before the first request does. A failure is logged, and the operator's choice holds."""
        try:
            await self.store.ping()
        except StoreUnavailableError as error:
            logger.warning("%s; until it does, requests meet %r", error, self._on_failure)

    async def shutdown(self) -> None:
        """Let the store's connections go."""
        await self.store.aclose()

    def decide(self, exchange: Exchange) -> Decision:
        """Ask the store, if there is anything to ask."""
        user = exchange.user
        plan = self._plans[exchange.row(self._table)].of(user)
        if exchange.disputed:
            return ambiguous_path(exchange.request_id)
        token_id = user.token_id if self._revocation and user is not None else None
        if not plan.limits and token_id is None:
            return None
        return self._admit(exchange, plan, token_id)

    async def _admit(self, exchange: Exchange, plan: Plan, token_id: str | None) -> Answer | None:
        try:
            verdict = await self.store.admit(Admission(self._charges(exchange, plan.limits, plan.cost), token_id))
        except StoreUnavailableError as error:
            if token_id is not None:
                exchange.revocation, exchange.retry_after = Revocation.UNKNOWN, error.retry_after
            if self._on_failure == "allow" or self._shadow or not plan.limits:
                return None
            if self._on_failure == "deny":
                return unavailable(Reason.STORE_UNAVAILABLE, error.retry_after, exchange.request_id)
            verdict = self._local.decide(Admission(self._charges(exchange, plan.share, plan.cost)))
        if verdict.revoked:
            exchange.revocation = Revocation.REVOKED
        exchange.verdict = verdict
        if verdict.admitted or self._shadow:
            return None
        return self._refusal(exchange, verdict)

    def _charges(self, exchange: Exchange, limits: tuple[Limit, ...], cost: int) -> tuple[Charge, ...]:
        user = exchange.user
        charges = []
        for limit in limits:
            client = self._address(exchange) if limit.key == "ip" or user is None else user.key
            # A share of a limit that is smaller than the cost still admits one such request at a time.
            units = cost if cost <= limit.burst else limit.burst  # noqa: FURB136 - a call of min costs more than the rest
            charges.append(Charge(limit, f"{limit.name}:{client}", units))
        return tuple(charges)

    def _address(self, exchange: Exchange) -> str:
        address = exchange.client
        if address is None:
            if not self._warned:
                self._warned = True
                logger.warning("the server names no client address: all clients share one bucket a limit")
            return UNKNOWN
        return limit_key(address, self._ipv6_prefix)

    def _refusal(self, exchange: Exchange, verdict: Verdict) -> Answer:
        wait = retry_after(verdict.readings)
        headers: tuple[Header, ...] = () if wait is None else ((b"retry-after", b"%d" % wait),)
        violated = [reading.limit.name for reading in verdict.readings if reading.wait != 0]
        return problem(
            429, Reason.RATE_LIMITED, "Too many requests.", request_id=exchange.request_id, headers=headers,
            type_=QUOTA_EXCEEDED, **{"violated-policies": violated},
        )  # fmt: skip

    def mark(self, exchange: Exchange, headers: Headers) -> None:
        """Tell the client where it stands."""
        verdict = exchange.verdict
        if verdict is None or self._style == "off" or not verdict.readings:
            return
        lines = state_headers(verdict, self._style)
        if not lines or has_header(headers, lines[0][0]):
            return
        headers.extend(lines)
        if self._style == "draft":
            headers.append(self._plans[exchange.row(self._table)].of(exchange.user).policy)


def compile_table(limit: str, routes: Sequence[Route], workers: int = 1) -> tuple[RoutePlans, ...]:
    """The plans of every row, and last, where the index `NO_ROW` finds them, the default's.

    Limits that a row names are that row's own; the default ones are shared by all rows that name none.

    Raises:
        ConfigError: with everything that is wrong.
    """
    problems: list[Problem] = []
    default = _parsed(limit, "", "limit", problems)
    taken: set[str] = set()
    plans = []
    for route in routes:
        if route.limits is None:
            limits = default
        else:
            prefix = _free_prefix(slug(route.path), taken)
            limits = _parsed(route.limits, prefix, f"routes: {route}", problems)
        for each in limits:
            if route.cost > each.burst:
                message = f"a request costs {route.cost}, but {each.text!r} never holds more than {each.burst}"
                problems.append(Problem(f"routes: {route}", message))
        plans.append(compile_plans(limits, route.cost, workers))
    if problems:
        raise ConfigError(problems)
    return (*plans, compile_plans(default, 1, workers))


def _free_prefix(name: str, taken: set[str]) -> str:
    """A prefix for the names of a row's limits that no other row has: two rows must not share a bucket."""
    numbers = count(2)
    prefix = f"{name}-"
    while prefix in taken:
        prefix = f"{name}-{next(numbers)}-"
    taken.add(prefix)
    return prefix


def _parsed(text: str, prefix: str, name: str, problems: list[Problem]) -> tuple[Limit, ...]:
    try:
        return parse_limits(text, prefix)
    except ValueError as error:
        problems.append(Problem(name, str(error)))
        return ()
