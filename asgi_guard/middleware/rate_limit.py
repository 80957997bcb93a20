"""The RateLimit layer: all limits of a request, and whether its token is revoked, in one call to the store.

The order of decisions:

1. The path could be that of different rows of the route table: 400.
2. A bucket is known to refuse, from the store's last answer: 429, without asking. This process's memory is asked all
   the same, for it makes nobody wait.
3. The store is asked. It does not answer: what each limit says for that: nothing, 503, or buckets of this process.
4. A limit that binds this client refuses: 429, and none is charged. Limits in shadow never refuse.

When the request is over, however it ends, it is no longer under way, and what the app charged beyond the route's cost
is taken. What Access refused gives back what it took from buckets that are not its client's own.
"""

from __future__ import annotations

import logging
import time
from random import random
from typing import TYPE_CHECKING

from asgi_guard.asgi import Head, Header
from asgi_guard.chain.exchange import Exchange
from asgi_guard.chain.layer import Decision, Layer
from asgi_guard.chain.response import Response
from asgi_guard.configuration.arguments import typed
from asgi_guard.errors import ConfigError, Problem, StoreUnavailableError, require_choice
from asgi_guard.limiting.accounts import Accounts
from asgi_guard.limiting.charging import Charging
from asgi_guard.limiting.rate_options import exempt_from, functions_of, messages_of, out_of_range
from asgi_guard.limiting.undecided import Undecided
from asgi_guard.policy.access import Revocation, unavailable
from asgi_guard.policy.answer import Answer, Reason, problem
from asgi_guard.policy.bucket import Admission, Charge, Verdict, asked, retry_after
from asgi_guard.policy.deny_cache import DenyCache
from asgi_guard.policy.identity import ADD_IT_AFTER, ADD_IT_BEFORE, was_looked_for
from asgi_guard.policy.limit_sets import OF_IDENTITIES, LimitSet, Rules, compile_table
from asgi_guard.policy.meter import Meter
from asgi_guard.policy.path_index import NO_ROW
from asgi_guard.policy.ratelimit_headers import Style, policy_header, state_headers
from asgi_guard.policy.rates import SECOND, OnStoreFailure
from asgi_guard.policy.routes import AuthMode, Route, RouteTable
from asgi_guard.stores import MemoryStore, no_store
from asgi_guard.stores.base import Probed, is_same
from asgi_guard.stores.batching import can_be_read
from asgi_guard.stores.eviction import caution

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from asgi_guard.asgi import ASGIApp, Scope
    from asgi_guard.policy.identity import User
    from asgi_guard.policy.limit_sets import Kind, RouteLimits
    from asgi_guard.policy.rates import Limit
    from asgi_guard.policy.revocation import Marks
    from asgi_guard.stores import Store

logger = logging.getLogger("asgi_guard")

MAX_REVOKED = 10_000
"""Tokens that are known to be revoked."""
QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"


class RateLimitMiddleware(Layer):
    """Token buckets by address, user or API key, and numbers of requests at once: all are charged, or none is.

    A refusal is 429 with `Retry-After` as the bucket computes it, and a little more: see `retry_after`. Where the
    address is not known (UNIX sockets), all such clients share one bucket.

    Args:
        app: the app within.
        limit: the default limits, in the grammar of `asgi_guard.policy.rates`; empty for none.
        store: where the buckets are; this process's memory unless said.
        routes: the route table; its columns `limits`, `cost` and `auth`.
        default: what an Access layer within asks where no row says: `required`, `optional`, or `none`, which it is also
            to be where there is no such layer. Who shows no identity where one is required, or credentials that lead to
            nobody, is refused there, so such a request is charged by its address alone: it is to take nothing of
            others, not even for as long as it is under way.
        plans: limits by name, for identities that have a plan, instead of the default ones by `user` and `api-key`.
        plan_claim: the claim of a token that names its plan. An API key's entry names its plan itself.
        functions: what limits may go by beyond the grammar's own words: functions from the scope to a text, which is
            hashed before it is a key, or to None where the limit does not apply. They are called for every request.
        exempt: addresses, networks, `user:SUBJECT` and `api-key:NAME` that no limit applies to.
        messages: how many messages a WebSocket may send, as in `20/second burst 40`; one more closes it with 1008.
        on_store_failure: what a request meets when the store does not answer, where a limit does not say: `allow` (no
            limits), `deny` (503), or `local`: buckets in this process, each a `workers`-th of the limit.
        headers: how limits are told to clients: `draft` (`RateLimit`), `legacy` (`X-RateLimit-*`), or `off`.
        shadow: whether to refuse nothing, and only log what would be.
        workers: how many processes share the store, for `local`.
        ipv6_prefix: how many bits of an IPv6 address tell one client from another.
        revocation: whether tokens are looked up among the revoked; an Identity layer outside has to have verified them.
        deny_cache: seconds for which a bucket that refused is not asked again, unless it would admit sooner; 0 asks
            each time. That is also how long a reset, or units given back by another worker, may go unnoticed, and how
            long a token that was found revoked is not looked up again.
        clock: microseconds of a clock that only moves forward.

    Raises:
        ConfigError: a limit is malformed, a request could never be admitted, or there is none to charge.

    Attributes:
        store: where the buckets are.
        limits: those of every row of the route table, and last, those of what no row names.
    """

    name = "rate_limit"

    @typed
    def __init__(
        self,
        app: ASGIApp,
        *,
        limit: str = "",
        store: Store | None = None,
        routes: Sequence[Route] | RouteTable = (),
        default: AuthMode = "none",
        plans: Mapping[str, str] | None = None,
        plan_claim: str | None = None,
        functions: Mapping[str, Callable[[Scope], str | None]] | None = None,
        exempt: str | Sequence[str] = (),
        messages: str = "",
        on_store_failure: OnStoreFailure = "local",
        headers: Style = "draft",
        shadow: bool = False,
        workers: int = 1,
        ipv6_prefix: int = 64,
        revocation: bool = False,
        deny_cache: float = 1.0,
        clock: Callable[[], int] = lambda: time.monotonic_ns() // 1000,
    ) -> None:
        super().__init__(app)
        require_choice("on_store_failure", on_store_failure, OnStoreFailure)
        require_choice("headers", headers, Style)
        require_choice("default", default, AuthMode)
        if fault := no_store(store):
            raise ConfigError([Problem("store", fault)])
        self.store: Store = store if store is not None else MemoryStore()
        self._table = RouteTable.of(routes, open_to_all=default != "required")
        problems = list(out_of_range(workers, ipv6_prefix, deny_cache))
        functions = functions_of(functions, problems)
        self._exempt, self._messages = exempt_from(exempt, problems), messages_of(messages, problems)
        self._exempts = bool(self._exempt)
        rules = Rules(on_store_failure, shadow, max(1, workers), tuple(functions), default)
        try:
            self.limits = compile_table(limit, self._table.routes, rules, plans)
        except ConfigError as error:
            problems += error.problems
        if not problems and not revocation and self._messages is None and not any(self._every_limit()):
            problems.append(Problem("limit", "no limit is set, by default, in a row or on messages: give one"))
        if problems:
            raise ConfigError(problems)
        self._plan_claim = plan_claim
        self._shadow = shadow
        self._memory = self.store if isinstance(self.store, MemoryStore) else None
        self._local = MemoryStore()
        self._style = headers
        self._charging = Charging(self.store, functions, ipv6_prefix)
        if isinstance(self.store, Probed) and any(each.counts for row in self.limits for each in row.all()):
            self.store.expect_at_once()
        self._revocation = revocation
        self._refuses = default != "none"  # whether an Access layer within refuses credentials that lead to nobody
        # Tokens that were found revoked, and until when they are not looked up again.
        self._revoked: dict[tuple[str | None, Marks | None], int] = {}
        self._unjudged = False  # whether it was told that nobody refuses whoever is revoked
        self._undecided = Undecided(self.store, lambda error: " and ".join(self._without(error)))
        self.denied = DenyCache(int(deny_cache * SECOND))
        self._accounts = Accounts(self.denied, clock)
        self._clock = clock
        self._limits_identities = any(limit.key in OF_IDENTITIES for limit in self._every_limit())
        self._unsure = self._limits_identities or revocation

    async def startup(self) -> None:
        """Connect to the store before the first request does. A failure is logged, and the operator's choice holds."""
        await self._undecided.startup(self.caution)

    async def caution(self) -> str | None:
        """What to warn of: that the store may forget revocations."""
        return await caution(self.store, "a revoked token is then accepted again") if self._revocation else None

    async def shutdown(self) -> None:
        """Tell the store that nothing is under way any more, and let its connections go."""
        self._accounts.leases.end()
        await self.store.aclose()

    def _without(self, error: StoreUnavailableError) -> Iterator[str]:
        """What holds while the store does not answer, or does not count."""
        if choices := sorted({str(limit.on_failure) for limit in self._every_limit()}):
            yield f"limits meet {', '.join(map(repr, choices))}"
        if self._revocation and error.revoked is None and not can_be_read(error.__cause__):
            yield "no token can be looked up among the revoked"

    def _every_limit(self) -> Iterator[Limit]:
        return (limit for row in self.limits for each in row.all() for limit in each.limits)

    def needs_store(self, identities: Collection[Kind]) -> bool:
        """Whether requests in general are refused while the store does not answer.

        Those are what no row names, or what comes to a row for every path; rows for less, plans by name, and limits
        that hold for a part of the clients decide nothing.

        Args:
            identities: the sorts of identity that there are; a row that opens nothing serves no other client then.
        """
        every = ((place, row) for place, row in enumerate(self._table.routes) if row.path == "/*" and not row.methods)
        place, row = next(every, (NO_ROW, None))
        opens = not identities or (row is not None and row.opens)
        return self.limits[place].need_store([*identities, "anonymous"] if opens else identities)

    @property
    def knows(self) -> bool:
        """Whether clients may be refused before it is found out who they are: those known to be over a limit."""
        early = any(row.known.limits for row in self.limits) and not self._exempt.identities
        return early and self.denied.life > 0

    def known(self, exchange: Exchange) -> Answer | None:
        """Refuse whoever is known to be over a limit that holds for anyone, before it is found out who it is."""
        row, disputed = exchange.find(self._table)
        limit_set = self.limits[row].known
        if not limit_set.limits or disputed or self._is_exempt(exchange, None):
            return None
        verdict = self.denied.refuse(self._charging.of(exchange, limit_set), self._clock())
        return None if verdict is None else self._concluded(exchange, limit_set, verdict)

    def decide(self, exchange: Exchange) -> Decision:
        """Ask the store, if there is anything to ask."""
        if self._unsure:
            self._look_for_identity(exchange)
        row, disputed = exchange.find(self._table)
        if disputed:
            return exchange.refuse_disputed()
        user, limits = exchange.user, self.limits[row]
        fails = self._refuses and exchange.failure is not None
        limit_set = limits.by_address if fails else limits.of(user, self._plan_claim)
        token_id = marks = None
        if self._revocation and user is not None:
            token_id, marks = user.token_id, user.marks
            self._note_look_up(exchange)
            if self._revoked and self._is_known_revoked(exchange, user):
                limit_set, token_id, marks = limits.by_address, None, None
        exempt = self._exempts and self._is_exempt(exchange, user)
        if self._messages is not None and exchange.kind == "websocket" and not exempt:
            exchange.meter = Meter(self._messages, binding=not self._shadow)
        charges = () if exempt or not limit_set.limits else self._charging.of(exchange, limit_set)
        if not charges and token_id is None and marks is None:
            return None
        known = self.denied.refuse(charges, self._clock()) if self._memory is None and self.denied.known else None
        if known is not None:
            return self._concluded(exchange, limit_set, known)
        lease = self._accounts.leases.name() if limit_set.counts and charges else ""
        if charges:
            self._accounts.open(exchange, self.store, charges, lease)
        if self._memory is None:
            return self._ask(exchange, limit_set, asked((charges, token_id, lease, False, marks)))
        verdict = self._memory.judge(charges, token_id, lease, marks)
        if verdict.admitted and not verdict.revoked and limit_set.policy is not None:
            exchange.verdict, exchange.limit_policy = verdict, limit_set.policy
            return None
        if not verdict.admitted:
            self.denied.note(charges, verdict, self._clock())
        return self._answered(exchange, limit_set, charges, verdict)

    def _note_look_up(self, exchange: Exchange) -> None:
        """Say where the token is looked up, for whoever is to revoke it; and that what is found is yet to be judged."""
        exchange.judged = False
        if not any(is_same(self.store, store) for store in exchange.revocations):
            exchange.revocations += (self.store,)

    def _is_known_revoked(self, exchange: Exchange, user: User) -> bool:
        """Whether a token was found revoked a moment ago.

        It is charged by its address then, and not looked up: it is to take nothing of its owner's, not even while it
        is under way.
        """
        if self._revoked.get((user.token_id, user.marks), 0) <= self._clock():
            return False
        exchange.revocation = Revocation.REVOKED
        return True

    def _note_revoked(self, exchange: Exchange) -> None:
        exchange.revocation = Revocation.REVOKED
        user, life = exchange.user, self.denied.life
        if user is not None and life:
            if len(self._revoked) >= MAX_REVOKED:
                self._revoked.clear()
            self._revoked[user.token_id, user.marks] = self._clock() + life

    def _is_exempt(self, exchange: Exchange, user: User | None) -> bool:
        # Where the address may be a proxy's, what is granted to that is not its clients'.
        return self._exempt.cover(exchange.known_client, user)

    def _look_for_identity(self, exchange: Exchange) -> None:
        """See to it that limits of identities and revocations can hold; the first request that shows it settles it.

        Raises:
            ConfigError: no Identity layer stands outside this one, so such limits would silently hold for nobody, and
                revoked tokens be accepted.
        """
        if not was_looked_for(exchange.scope.get("user")):
            missing = "no IdentityMiddleware stands around this layer"
            problems = []
            if self._limits_identities:
                message = f"it limits identities, and {missing} to find them out"
                problems.append(Problem("limit", f"{message}; {ADD_IT_AFTER}"))
            if self._revocation:
                message = f"revoked tokens would be accepted: {missing} to verify tokens before they are looked up"
                problems.append(Problem("revocation", f"{message}; {ADD_IT_AFTER}"))
            raise ConfigError(problems)
        self._unsure = False

    async def _ask(self, exchange: Exchange, limit_set: LimitSet, request: Admission) -> Answer | None:
        since = self._clock()
        try:
            verdict = await self.store.admit(request)
        except StoreUnavailableError as error:
            self._undecided.note(error)
            return self._without_store(exchange, limit_set, request, error)
        if self._undecided.awaited:
            self._undecided.answered()
        if not verdict.admitted:
            self.denied.note(request.charges, verdict, since)
        return self._answered(exchange, limit_set, request.charges, verdict)

    def _answered(
        self, exchange: Exchange, limit_set: LimitSet, charges: tuple[Charge, ...], verdict: Verdict
    ) -> Answer | None:
        if verdict.revoked:
            self._note_revoked(exchange)
        if not verdict.admitted and charges:
            self._accounts.drop(exchange)
        return self._concluded(exchange, limit_set, verdict)

    def _without_store(
        self, exchange: Exchange, limit_set: LimitSet, request: Admission, error: StoreUnavailableError
    ) -> Answer | None:
        """What each limit says for when the store does not answer."""
        if request.token_id is not None or request.marks is not None:
            if error.revoked is None:
                exchange.revocation, exchange.retry_after = Revocation.UNKNOWN, error.retry_after
            elif error.revoked:
                self._note_revoked(exchange)
        if request.charges and error.sent:
            self._accounts.doubt(exchange)
        elif request.charges:
            # An account of each would push those out that are owed to a store that is gone.
            self._accounts.drop(exchange)
        binding = [charge for charge in request.charges if charge.binding]
        if any(charge.limit.on_failure == "deny" for charge in binding):
            return unavailable(Reason.STORE_UNAVAILABLE, error.retry_after, exchange.request_id)
        charges = tuple(
            Charge(limit_set.share[charge.limit.name], charge.key, charge.cost)
            for charge in binding
            if charge.limit.on_failure == "local"
        )
        if not charges:
            return None
        lease = request.lease and f"{request.lease}-local"  # that of the store may go on being renewed
        self._accounts.open(exchange, self._local, charges, lease)
        verdict = self._local.judge(charges, lease=lease)
        return self._answered(exchange, limit_set, charges, verdict)

    def leave(self, exchange: Exchange, response: Response, error: BaseException | None) -> None:
        """Settle what the request was charged; tell, once, where nobody has heeded what was found of a token."""
        if exchange.accounts:
            self._accounts.settle(exchange)
        looked_up = self._revocation and exchange.user is not None and not exchange.judged
        if looked_up and not self._unjudged and exchange.answer is None and error is None:
            self._unjudged = True
            logger.error(
                "a request with a token was answered within RateLimitMiddleware, and no AccessMiddleware within had "
                "judged it: there, revoked tokens are accepted; %s",
                ADD_IT_BEFORE,
            )

    def _concluded(self, exchange: Exchange, limit_set: LimitSet, verdict: Verdict) -> Answer | None:
        exchange.verdict, exchange.limit_policy = verdict, limit_set.policy
        if limit_set.policy is None:
            exchange.limit_policy = policy_header(reading.limit for reading in verdict.readings if reading.binding)
        if verdict.admitted:
            return None
        refusing = verdict.refusing
        wait = retry_after(refusing, random())  # noqa: S311 - it only spreads those who come back
        headers: tuple[Header, ...] = () if wait is None else ((b"retry-after", b"%d" % wait),)
        return problem(
            429, Reason.RATE_LIMITED, "Too many requests.", request_id=exchange.request_id, headers=headers,
            type_=QUOTA_EXCEEDED, **{"violated-policies": [reading.limit.name for reading in refusing]},
        )  # fmt: skip

    def mark(self, exchange: Exchange, head: Head) -> None:
        """Tell the client where it stands."""
        verdict = exchange.verdict
        if verdict is None or self._style == "off":
            return
        lines = state_headers(verdict, self._style)
        if not lines or lines[0][0] in head.names:
            return
        head.lines.extend(lines)
        if self._style == "draft" and exchange.limit_policy is not None:
            head.lines.append(exchange.limit_policy)


def limits_in(layers: Iterable[Layer], routes: Sequence[Route]) -> Sequence[RouteLimits]:
    """The limits of every row, and last, those of what no row names, as these layers ask for them."""
    found = (layer.limits for layer in layers if isinstance(layer, RateLimitMiddleware))
    return next(found, None) or compile_table("", routes)


class KnownLimits(Layer):
    """Stands before Identity in the stack, so that a client known to be over its limit costs no signature check."""

    name = "rate_limit"

    def __init__(self, app: ASGIApp, rate_limit: RateLimitMiddleware) -> None:
        super().__init__(app)
        self._rate_limit = rate_limit
        self._known = rate_limit.denied.known

    def decide(self, exchange: Exchange) -> Decision:
        """Refuse whoever is known to be over a limit."""
        return self._rate_limit.known(exchange) if self._known else None
