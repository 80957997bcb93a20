"""What a request is charged, and in whose name: the buckets that its limits lead to."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from asgi_guard.configuration.variables import PREFIX
from asgi_guard.policy.address import UNKNOWN, limit_key
from asgi_guard.policy.bucket import Charge
from asgi_guard.policy.identity import store_key
from asgi_guard.policy.limit_sets import OF_IDENTITIES, binds
from asgi_guard.stores.base import is_same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from asgi_guard.asgi import Scope
    from asgi_guard.chain.exchange import Exchange
    from asgi_guard.policy.limit_sets import LimitSet
    from asgi_guard.policy.rates import Limit
    from asgi_guard.stores import Store

logger = logging.getLogger("asgi_guard")

LONGEST_ADDRESS = 64
"""Characters of the longest address there is, with its zone; whatever is longer is hashed."""
MAX_REMEMBERED = 16_384
"""Clients whose charges are remembered: names of buckets are the same with every request of a client."""


class Charging:
    """Names the buckets of a request.

    Args:
        store: where they are.
        functions: what limits may go by beyond the grammar's own words.
        ipv6_prefix: how many bits of an IPv6 address tell one client from another.
    """

    def __init__(self, store: Store, functions: Mapping[str, Callable[[Scope], str | None]], ipv6_prefix: int) -> None:
        self._store = store
        self._functions = functions
        self._ipv6_prefix = ipv6_prefix
        self._warned = False
        self._recent: dict[tuple[int, str | None, str | None], tuple[Charge, ...]] = {}

    def of(self, exchange: Exchange, limit_set: LimitSet) -> tuple[Charge, ...]:
        """What this request is charged, remembered where it is the same for every request of its client."""
        if not limit_set.by_client or exchange.accounts:
            return self._anew(exchange, limit_set)
        user = exchange.user
        who = (id(limit_set), exchange.client, None if user is None else user.key)
        charges = self._recent.get(who)
        if charges is None:
            charges = self._anew(exchange, limit_set)
            if len(self._recent) >= MAX_REMEMBERED:
                self._recent.clear()
            if len(exchange.client or "") <= LONGEST_ADDRESS:
                self._recent[who] = charges
        return charges

    def _anew(self, exchange: Exchange, limit_set: LimitSet) -> tuple[Charge, ...]:
        charges = []
        for limit in limit_set.limits:
            client = self._client(exchange, limit, limit_set)
            if client is not None:
                # What stands in braces is what Redis Cluster chooses the node by: all limits of a client are on one.
                key = f"{{{client}}}:{limit.bucket}"
                charges.append(Charge(limit, key, limit_set.cost, binds(limit, client)))
        return tuple(self._left(charges, exchange) if exchange.accounts else charges)

    def _left(self, charges: list[Charge], exchange: Exchange) -> Iterator[Charge]:
        """What is left to be charged after guards further out: a request is charged once, and under way once."""
        accounts = (charged for _, store, charged, _ in exchange.accounts if is_same(self._store, store))
        taken = [charge for charged in accounts for charge in charged]
        for charge in charges:
            already = [other.cost for other in taken if _covers(other, charge)]
            if not already:
                yield charge
            elif sum(already) < charge.cost and not charge.limit.at_once:
                yield replace(charge, cost=charge.cost - sum(already))

    def _client(self, exchange: Exchange, limit: Limit, limit_set: LimitSet) -> str | None:
        """What a limit counts, as a name of bounded length; None where the limit does not apply."""
        key, user = limit.key, exchange.user
        if key == "ip":
            return f"ip:{self._address(exchange)}"
        if key in OF_IDENTITIES and user is not None:
            return f"{user.kind}:{user.key}"
        if key == "route":
            return f"route:{limit_set.place}"
        function = self._functions.get(key)
        if function is not None:
            try:
                value: object = function(exchange.scope)
            except Exception:
                exchange.culprit = f"the limit function {key!r}"
                raise
            if not isinstance(value, str | None):
                raise TypeError(f"the limit function {key!r} gave a {type(value).__name__}: give a text, or None")
            return None if value is None else f"{key}:{store_key(key, value)}"
        if key.startswith("header:"):
            lines = exchange.lines(key[7:].encode())
            if lines:
                return f"header:{store_key(key, *(line.decode('latin-1') for line in lines))}"
        return f"ip:{self._address(exchange)}"

    def _address(self, exchange: Exchange) -> str:
        address = exchange.client
        if address is None or "," in address:
            if not self._warned:
                self._warned = True
                told = "no client address, as on a UNIX socket"
                if address is not None:  # Mangum hands on what a load balancer of AWS says
                    told = "a whole X-Forwarded-For for the client's address, which a client can begin as it likes"
                advice = f"if a proxy there names them, say so by {PREFIX}PROXY_HOPS=1"
                logger.warning("the server names %s: all such clients share one bucket a limit; %s", told, advice)
            return UNKNOWN
        # Foreign middleware may have put anything there, of any length.
        return limit_key(address, self._ipv6_prefix) if len(address) <= LONGEST_ADDRESS else store_key("ip", address)


def _covers(other: Charge, charge: Charge) -> bool:
    """Whether what was charged further out is of the same bucket, and refuses where this is to."""
    return other.key == charge.key and (other.binding or not charge.binding)
