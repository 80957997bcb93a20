"""Which limits a request is under: compiled once, by row of the route table and by sort of client.

- A row that names limits has those, and no others; every other row, and what no row names, has the default ones.
- Of these, `user` and `api-key` apply to identities, `anonymous` to those without, and all others to anyone.
- An identity of a plan has the plan's limits in the place of the default ones by `user` and `api-key`.
- Who shows no identity where one is required has those by address alone: it is refused, and takes nothing of others.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias
from zlib import crc32

from asgi_guard.errors import ConfigError, Problem
from asgi_guard.policy.ratelimit_headers import policy_header
from asgi_guard.policy.rates import Limit, OnStoreFailure, parse_limits, slug

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from asgi_guard.asgi import Header
    from asgi_guard.policy.identity import User
    from asgi_guard.policy.routes import AuthMode, Route

OF_ADDRESSES = ("ip", "anonymous")
OF_IDENTITIES = ("user", "api-key")
BY_CLIENT = (*OF_ADDRESSES, *OF_IDENTITIES, "route")
Kind: TypeAlias = Literal["anonymous", "token", "api-key"]
"""A sort of client: without identity, or what its identity was shown by."""
OTHERS = "others"
"""The name, among limits by route, of the requests that no row names."""


class Rules(NamedTuple):
    """What all limits have in common.

    Attributes:
        on_failure: what requests meet when the store does not answer, where a limit does not say.
        shadow: whether no limit refuses.
        workers: how many processes share the store.
        functions: the names of functions that limits may go by.
        auth: what is asked of a client where a row does not say.
    """

    on_failure: OnStoreFailure = "local"
    shadow: bool = False
    workers: int = 1
    functions: Collection[str] = ()
    auth: AuthMode = "none"


@dataclass(frozen=True, slots=True)
class LimitSet:
    """The limits of one route for one sort of client.

    Attributes:
        limits: those that apply.
        cost: units that a request takes from each.
        place: the route's name among limits by route.
        counts: whether any of them counts requests under way.
        by_client: whether all of them go by the client's address or identity, or by the route alone.
        policy: the `RateLimit-Policy` header of the limits that refuse, the same for every such request but one that is
            refused before it is known whose it is; None where some refuse only a part of the clients.
        share: this worker's share of each limit that holds when the store does not answer, by name, which holds at
            least what the dearest request under the limit costs.
    """

    limits: tuple[Limit, ...]
    cost: int
    place: str
    counts: bool
    by_client: bool
    policy: Header | None
    share: Mapping[str, Limit]

    @classmethod
    def of(cls, limits: Iterable[Limit], cost: int, place: str, workers: int) -> LimitSet:
        """Compile limits whose `on_failure` is said."""
        limits = tuple(limits)
        refusing = [limit for limit in limits if limit.enforced]
        share = {limit.name: _share(limit, workers) for limit in refusing if limit.on_failure == "local"}
        return cls(
            limits,
            cost,
            place,
            counts=any(limit.at_once for limit in limits),
            by_client=all(limit.key in BY_CLIENT for limit in limits),
            policy=policy_header(refusing) if all(limit.enforced == 100 for limit in refusing) else None,
            share=share,
        )

    def with_room(self, costs: Mapping[str, int]) -> LimitSet:
        """The same, with shares that hold at least these costs, by the limits' names."""
        share = {
            name: limit if limit.at_once else replace(limit, burst=max(limit.burst, costs[name]))
            for name, limit in self.share.items()
        }
        return replace(self, share=share)

    @property
    def needs_store(self) -> bool:
        """Whether each request is refused while the store does not answer: a limit for all of them says `deny`."""
        return any(
            limit.on_failure == "deny"
            and limit.enforced == 100
            and (limit.key in BY_CLIENT or limit.key.startswith("header:"))  # by a function it may apply to nobody
            for limit in self.limits
        )


def _share(limit: Limit, workers: int) -> Limit:
    interval = limit.interval if limit.at_once else limit.interval * workers
    return replace(limit, interval=interval, burst=max(1, limit.burst // workers))


@dataclass(frozen=True, slots=True)
class RouteLimits:
    """The limits of one route, by the sort of client: with a token, with an API key, with neither.

    Attributes:
        named: those of identities that have a plan of that name, with a token and with an API key.
        known: the limits that hold whoever the client turns out to be, so that they can refuse before that is known.
        by_address: those of whoever will be refused, which are to take nothing of others.
    """

    anonymous: LimitSet
    token: LimitSet
    api_key: LimitSet
    known: LimitSet
    by_address: LimitSet
    named: Mapping[str, tuple[LimitSet, LimitSet]] = field(default_factory=dict)

    def of(self, user: User | None, claim: str | None = None) -> LimitSet:
        """The limits of this client.

        Args:
            user: the verified identity.
            claim: which claim of a token names its plan.
        """
        if user is None:
            return self.anonymous
        if self.named:
            name = user.plan if claim is None or user.kind == "api-key" else user.claims.get(claim)
            found = self.named.get(name) if isinstance(name, str) else None
            if found is not None:
                return found[user.kind == "api-key"]
        return self.token if user.kind == "token" else self.api_key

    def need_store(self, kinds: Collection[Kind]) -> bool:
        """Whether all clients of these sorts are refused while the store does not answer, plans by name aside."""
        by_kind = {"anonymous": self.anonymous, "token": self.token, "api-key": self.api_key}
        return all(by_kind[kind].needs_store for kind in kinds)

    def all(self) -> Iterable[LimitSet]:
        """Those of every sort of client."""
        return (self.anonymous, self.token, self.api_key, *(each for pair in self.named.values() for each in pair))


def compile_row(
    limits: tuple[Limit, ...],
    cost: int,
    place: str,
    workers: int,
    named: Mapping[str, tuple[Limit, ...]],
    auth: AuthMode,
) -> RouteLimits:
    """Sort a route's limits by whom they apply to. Where a limit `by api-key` is, `user` leaves API keys to it."""

    def applying(chosen: tuple[Limit, ...], *kinds: str) -> LimitSet:
        limits = (limit for limit in chosen if limit.key in kinds or limit.key not in ("anonymous", *OF_IDENTITIES))
        return LimitSet.of(limits, cost, place, workers)

    def of_identities(chosen: tuple[Limit, ...]) -> tuple[LimitSet, LimitSet]:
        has_api_key = any(limit.key == "api-key" for limit in chosen)
        return applying(chosen, "user"), applying(chosen, "api-key" if has_api_key else "user")

    others = tuple(limit for limit in limits if limit.key not in OF_IDENTITIES)
    by_name = {name: of_identities((*others, *replacing)) for name, replacing in named.items()}
    by_address = applying(tuple(limit for limit in limits if limit.key in OF_ADDRESSES), "anonymous")
    known = [limit for limit in others if limit.key in ("ip", "route") or limit.key.startswith("header:")]
    return RouteLimits(
        by_address if auth == "required" else applying(limits, "anonymous"),
        *of_identities(limits),
        LimitSet.of(known, cost, place, workers),
        by_address,
        named=by_name,
    )


def compile_table(
    limit: str, routes: Sequence[Route], rules: Rules | None = None, plans: Mapping[str, str] | None = None
) -> tuple[RouteLimits, ...]:
    """The limits of every row, and last, where the index `NO_ROW` finds them, the default's.

    Limits that a row names are that row's own; the default ones are shared by all rows that name none.

    Raises:
        ConfigError: with everything that is wrong.
    """
    rules = rules or Rules()
    problems: list[Problem] = []
    default = _parsed(limit, "", "limit", rules, problems)
    taken, places = {""}, {OTHERS}
    named = {
        name: _parsed(text, _free(slug(name), taken) + "-", f"plans: {name}", rules, problems)
        for name, text in (plans or {}).items()
    }
    of_plans = [limit for limits in named.values() for limit in limits]
    if any(limit.key not in OF_IDENTITIES for limit in of_plans):
        problems.append(Problem("plans", "a plan limits identities: its limits go by user, or by api-key"))
    compiled = []
    for route in routes:
        limits, others = default, named
        if route.limits is not None:
            limits = _parsed(route.limits, _free(slug(route.path), taken) + "-", f"routes: {route}", rules, problems)
            others = {}
        for each in (*limits, *(of_plans if others else ())):
            if not each.at_once and route.cost > each.burst:
                message = f"a request costs {route.cost}, but {each.text!r} never holds more than {each.burst}"
                problems.append(Problem(f"routes: {route}", message))
        place, auth = _free(slug(route.path), places), route.auth or rules.auth
        compiled.append(compile_row(limits, route.cost, place, rules.workers, others, auth))
    compiled.append(compile_row(default, 1, OTHERS, rules.workers, named, rules.auth))
    problems += _same_names(compiled)
    if problems:
        raise ConfigError(problems)
    return tuple(_with_room(compiled))


def _with_room(compiled: Sequence[RouteLimits]) -> Iterable[RouteLimits]:
    """Have a worker's share of a limit hold what the dearest request costs, so that each pays its whole cost.

    It is the same in all rows: they have the same buckets, and a smaller share would forget what a dearer row took.
    """
    costs: dict[str, int] = {}
    for each in (each for row in compiled for each in row.all()):
        for limit in each.limits:
            costs[limit.name] = max(each.cost, costs.get(limit.name, 0))
    for row in compiled:
        yield replace(
            row,
            anonymous=row.anonymous.with_room(costs),
            by_address=row.by_address.with_room(costs),
            token=row.token.with_room(costs),
            api_key=row.api_key.with_room(costs),
            named={name: (of.with_room(costs), key.with_room(costs)) for name, (of, key) in row.named.items()},
        )


def _same_names(compiled: Iterable[RouteLimits]) -> Iterable[Problem]:
    """Limits that share a name would share their buckets."""
    seen: dict[str, Limit] = {}
    for limit in dict.fromkeys(limit for row in compiled for each in row.all() for limit in each.limits):
        if seen.setdefault(limit.name, limit) is not limit:
            message = (
                f"{limit.text!r} and {seen[limit.name].text!r} both have the name {limit.name!r}: name one with 'as'"
            )
            yield Problem("limit", message)


def _free(name: str, taken: set[str]) -> str:
    """A name that no other row has: two rows must not share a bucket."""
    numbers = count(2)
    free = name
    while free in taken:
        free = f"{name}-{next(numbers)}"
    taken.add(free)
    return free


def _parsed(text: str, prefix: str, name: str, rules: Rules, problems: list[Problem]) -> tuple[Limit, ...]:
    try:
        limits = parse_limits(text, prefix, rules.functions)
    except ValueError as error:
        problems.append(Problem(name, str(error)))
        return ()
    return tuple(
        replace(
            limit,
            on_failure=limit.on_failure or rules.on_failure,
            enforced=0 if rules.shadow else limit.enforced,
        )
        for limit in limits
    )


def binds(limit: Limit, client: str) -> bool:
    """Whether a limit refuses this client: of those that it is enforced for in part, always the same ones."""
    return (
        limit.enforced == 100 or crc32(f"{limit.name}:{client}".encode("utf-8", "surrogatepass")) % 100 < limit.enforced
    )
