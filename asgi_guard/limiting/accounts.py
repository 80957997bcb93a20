"""What a request was charged, by the RateLimit layer: an account is opened before the store is asked, and settled."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from asgi_guard.limiting.leases import Leases
from asgi_guard.policy.access import Revocation
from asgi_guard.policy.bucket import Admission
from asgi_guard.policy.limit_sets import OF_IDENTITIES
from asgi_guard.stores.base import is_same

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from asgi_guard.chain.exchange import Account, Exchange
    from asgi_guard.policy.bucket import Charge
    from asgi_guard.policy.deny_cache import DenyCache
    from asgi_guard.stores import Store


class Accounts:
    """The accounts of one layer. Whatever becomes of a request, each that was opened is settled when it is over.

    Args:
        denied: who is known to be over a limit, which units given back may end.
        clock: microseconds of a clock that only moves forward.

    Attributes:
        leases: the requests under way that this process holds.
    """

    def __init__(self, denied: DenyCache, clock: Callable[[], int]) -> None:
        self.leases = Leases()
        self._denied = denied
        self._clock = clock

    def open(self, exchange: Exchange, store: Store, charges: tuple[Charge, ...], lease: str) -> None:
        """Note what a request is about to be charged.

        Args:
            exchange: the request.
            store: where.
            charges: what.
            lease: its name among those under way; empty where nothing counts them.
        """
        exchange.accounts.append((self, store, charges, lease))
        if lease:
            self.leases.hold(lease, store, charges)

    def drop(self, exchange: Exchange) -> None:
        """Forget the last account of a request: nothing was charged, and nothing is to settle."""
        _, _, _, lease = exchange.accounts.pop()
        self.leases.let_go(lease)

    def doubt(self, exchange: Exchange) -> None:
        """The store was asked and did not answer, so nobody knows what was charged: keep only the last account's lease.

        What the app charges or gives back then concerns none of its buckets.
        """
        _, store, charges, lease = exchange.accounts[-1]
        under_way = tuple(charge for charge in charges if charge.limit.at_once)
        exchange.accounts[-1] = (self, store, under_way, lease)

    def settle(self, exchange: Exchange) -> None:
        """Settle those of a request that is over: it is under way no more, and what the app charged since is taken."""
        cost, others = exchange.extra_cost, []
        for place, account in enumerate(exchange.accounts):
            owner, store, charges, lease = account
            if owner is not self:
                others.append(account)
                continue
            if cost and place:
                charges = tuple(_first_charged(charges, store, exchange.accounts[:place]))
            if cost or lease:
                self._settle(store, charges, lease, cost)
        exchange.accounts = others
        if not others:
            exchange.extra_cost = 0  # it is taken: what the app asks next within this request is another's

    def _settle(self, store: Store, charges: tuple[Charge, ...], lease: str, cost: int) -> None:
        if lease and not self.leases.let_go(lease):
            lease = ""
        # What is counted among those under way takes a lease to end, and that may have been ended before.
        settled = tuple(replace(charge, cost=cost) for charge in charges if (lease if charge.limit.at_once else cost))
        if settled:
            if cost < 0:
                self._denied.forget((charge.key for charge in settled), self._clock())
            store.tell(Admission(settled, lease=lease, settles=True))

    def give_back(self, store: Store, charges: tuple[Charge, ...], lease: str, others: Collection[str]) -> Account:
        """Give back what a request that Access refuses took from others, and give the account of what it keeps.

        A limit in shadow, which shuts nobody out, may not have been charged.

        Args:
            store: where it was taken.
            charges: what was.
            lease: its name among those under way.
            others: what the limits go by that are others'.
        """
        taken = tuple(charge for charge in charges if charge.limit.key in others)
        kept = tuple(charge for charge in charges if charge.limit.key not in others)
        back = (charge for charge in taken if charge.cost and charge.binding and not charge.limit.at_once)
        if units := tuple(replace(charge, cost=-charge.cost) for charge in back):
            self._denied.forget((charge.key for charge in units), self._clock())
            store.tell(Admission(units, settles=True))
        if lease and any(charge.limit.at_once for charge in taken):
            self._settle(store, taken, lease, 0)
            if any(charge.limit.at_once for charge in kept):
                self.leases.hold(lease, store, kept)
            else:
                lease = ""
        return self, store, kept, lease


def _first_charged(charges: tuple[Charge, ...], store: Store, before: Sequence[Account]) -> Iterator[Charge]:
    """Those whose bucket no account before has: what a guard within only charged more is settled by the one without."""
    keys = {charge.key for _, other, charged, _ in before if is_same(store, other) for charge in charged}
    return (charge for charge in charges if charge.limit.at_once or charge.key not in keys)


def give_back(exchange: Exchange, *, forged: bool = False) -> None:
    """Give back what a request that Access refuses took from others, who could else be shut out by it.

    Those are all clients of a route; and the user, where it is not they who ask: by a token that was revoked, or by a
    browser that another site has made to. It is to be done before the answer is sent, for which a client may have to be
    waited for.
    """
    not_theirs = forged or exchange.revocation is Revocation.REVOKED
    others = ("route", *OF_IDENTITIES) if not_theirs else ("route",)
    for at, (owner, store, charges, lease) in enumerate(exchange.accounts):
        exchange.accounts[at] = owner.give_back(store, charges, lease, others)
