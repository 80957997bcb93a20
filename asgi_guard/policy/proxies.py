"""Who is calling, through proxies that the operator trusts: the client's address, its scheme, the host it asked for.

The order of decisions:

1. The peer (the other end of the connection) is not in the trusted networks: it is the client. Where no networks are
   named, nobody is believed; with a number of hops, whoever connects is.
2. The configured header's lines are joined in order and read from the right, where the nearest proxy wrote.
   With a number of hops, the entry at that place is the client. Without, entries in the trusted networks are skipped,
   and the first that is not is the client.
3. If that entry is not an address, if there are too few or too many entries, or if all are of trusted proxies, the
   client is the *peer*, and in doubt: what a proxy forwards is not its own request. If there is no entry, it is the
   peer.

Exactly one header is read, `X-Forwarded-For` or `Forwarded` (RFC 7239), never both: a proxy rewrites the one it knows
and passes the other on as the client sent it. Scheme and host are those that the same hop names: in the same element,
or at the same place of `X-Forwarded-Proto` and `X-Forwarded-Host`; lists of another length count by their last value.
Where the client is in doubt, they are those that the nearest proxy names, in the last element or as the last value: it
is trusted, whatever it was sent. With a number of hops there are none then.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from asgi_guard.policy.address import Networks, read_address
from asgi_guard.policy.forwarded import elements, tail
from asgi_guard.policy.hosts import is_host

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

ForwardedHeader: TypeAlias = Literal["x-forwarded-for", "forwarded"]
Doubt: TypeAlias = Literal["unreadable", "too_few", "too_many", "all_trusted", "other_header", "unnamed"]
"""Why the client is not known: what is written cannot be read, names too few or too many hops or none but proxies,
stands in another header than the one that is read, or nowhere, though a proxy handed the request on."""

MAX_HOPS = 16
"""The longest chain of proxies that is followed."""


@dataclass(slots=True)
class Client:
    """Who is calling. Nobody changes one, since it is remembered.

    Attributes:
        address: the address as text, or None where the server names none.
        scheme: `http`, `https`, `ws` or `wss` as a trusted proxy says, or None where none says.
        host: the host that the client asked for, as a trusted proxy says, or None.
        doubt: why the address is only the peer's, where a proxy was to name another.
    """

    address: str | None
    scheme: str | None = None
    host: bytes | None = None
    doubt: Doubt | None = None


@dataclass(frozen=True, slots=True)
class ProxyPolicy:
    """Which proxies are believed, and in which header.

    Attributes:
        trusted: the networks of the proxies; none means that nobody is believed, unless there are hops.
        header: the one header family that they write.
        hops: how many proxies there are, the last of them the peer; 0 goes by the networks alone.
        host: whether they name the host too.
    """

    trusted: Networks = field(default_factory=Networks)
    header: ForwardedHeader = "x-forwarded-for"
    hops: int = 0
    host: bool = False

    def trusts(self, address: str) -> bool:
        """Tell whether this is the address of a trusted proxy."""
        return self.trusted.hold(address)

    def believes(self, peer: str | None) -> bool:
        """Tell whether what this peer says of its client is believed."""
        return self.trusted.hold(peer) if self.trusted else self.hops > 0

    def client(
        self, peer: str | None, forwarded: Sequence[bytes], proto: Sequence[bytes] = (), host: Sequence[bytes] = ()
    ) -> Client:
        """Decide who is calling; the module's docstring gives the order.

        Args:
            peer: the connection's other end.
            forwarded: the lines of the configured header.
            proto: the lines of `X-Forwarded-Proto`; unused with `Forwarded`, which names the scheme itself.
            host: the lines of `X-Forwarded-Host`, likewise.
        """
        if not self.believes(peer):
            return Client(peer)
        if self.header == "forwarded":
            return self._from_forwarded(peer, tail(forwarded))
        text = b",".join(forwarded).decode("latin-1")
        # From the right, and no more of it than can count.
        entries = reversed(text.rsplit(",", MAX_HOPS)) if forwarded else ()
        index, address, doubt = self._walk(entries)
        if address is None and self.hops:
            return Client(peer, doubt=doubt)
        scheme, named = _at(proto, index, text), _at(host, index, text) if self.host else None
        return Client(address or peer, _scheme(scheme), _host(named), doubt)

    def _from_forwarded(self, peer: str | None, text: str) -> Client:
        read: list[dict[str, str]] = []

        def entries() -> Iterator[str]:
            for element in elements(text):
                read.append(element or {})
                yield read[-1].get("for", "")

        index, address, doubt = self._walk(entries() if text else ())
        if not read or (address is None and self.hops):
            return Client(peer, doubt=doubt)
        named = read[index].get("host") if self.host else None
        return Client(address or peer, _scheme(read[index].get("proto")), _host(named), doubt)

    def _walk(self, entries: Iterable[str]) -> tuple[int, str | None, Doubt | None]:
        """Find the entry that counts, from the right: its place, its address, and if it has none, why."""
        index = -1
        for index, entry in enumerate(entries):
            if index == MAX_HOPS:
                return 0, None, "too_many"
            if index < self.hops - 1:
                continue
            address = read_address(entry)  # the layer remembers what became of the whole header
            if address is None:
                return 0, None, "unreadable"
            if self.hops or address not in self.trusted:
                return index, address.text, None
        return 0, None, None if index < 0 else "too_few" if self.hops else "all_trusted"


def _at(lines: Sequence[bytes], index: int, entries: str) -> str | None:
    """What the hop at this place says: a list of the entries' length has a value a hop, any other counts by its last.

    A header of several lines says nothing.
    """
    if len(lines) != 1:
        return None
    text = lines[0].decode("latin-1")
    if index == 0 or text.count(",") != entries.count(","):
        return text.rpartition(",")[2]
    return text.rsplit(",", index + 1)[-1 - index]


def _scheme(value: str | None) -> str | None:
    scheme = value.strip().lower() if value else None
    return scheme if scheme in ("http", "https", "ws", "wss") else None


def _host(value: str | None) -> bytes | None:
    host = value.strip(" \t").encode("latin-1") if value else b""
    return host if is_host(host) else None
