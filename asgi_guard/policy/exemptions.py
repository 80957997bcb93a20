"""Whom limits do not apply to: addresses, networks, and identities by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from asgi_guard.policy.address import Networks, parse_networks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asgi_guard.policy.address import Network
    from asgi_guard.policy.identity import User

_KINDS = {"user": "token", "api-key": "api-key"}


@dataclass(frozen=True, slots=True)
class Exemptions:
    """Who is exempt.

    Attributes:
        networks: clients of these addresses.
        identities: verified identities: `token` or `api-key`, the issuer or None for any, and the subject or the key's
            name.
    """

    networks: Networks = field(default_factory=Networks)
    identities: frozenset[tuple[str, str | None, str]] = frozenset()

    @classmethod
    def parse(cls, values: Iterable[str]) -> Exemptions:
        """Parse addresses, networks, `user:SUBJECT`, `user:ISSUER#SUBJECT` and `api-key:NAME`.

        Raises:
            ValueError: one of them is none of these; the text names it.
        """
        networks: list[Network] = []
        identities: set[tuple[str, str | None, str]] = set()
        for value in values:
            kind, separator, name = value.partition(":")
            if separator and kind in _KINDS and name:
                issuer, _, subject = name.rpartition("#") if kind == "user" else ("", "", name)
                identities.add((_KINDS[kind], issuer or None, subject))
                continue
            try:
                networks += parse_networks([value])
            except ValueError as error:
                raise ValueError(f"{error}; who is known is written user:SUBJECT or api-key:NAME") from None
        return cls(Networks(networks), frozenset(identities))

    def __bool__(self) -> bool:
        return bool(self.networks or self.identities)

    def cover(self, address: str | None, user: User | None) -> bool:
        """Whether this client is exempt."""
        if user is not None and self.identities:
            for issuer in (None, user.issuer):
                if (user.kind, issuer, user.subject) in self.identities:
                    return True
        return bool(self.networks) and self.networks.hold(address)
