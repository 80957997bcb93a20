"""What is compared: each limiter behind the same three methods."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Protocol

from asgi_guard import RedisStore
from asgi_guard.policy.bucket import Admission, Charge
from asgi_guard.policy.rates import parse_limits
from benchmarks.limits.servers import PREFIX

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

OURS = "asgi-guard"
KEYS = ("ip", "user")
"""What the one or two windows of a check go by."""
ENOUGH_CONNECTIONS = 1000
"""For clients that open a connection for each call under way: none of them shall wait for one."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a limiter is asked to do.

    Attributes:
        url: the server.
        count: units that a window holds, and that come back in
        seconds: this time.
        windows: how many windows a check takes from: 1 or 2.
        revocation: whether a check looks up a token too.
        timeout: seconds until an answer counts as none; None leaves it to the limiter.
        prefix: before every key.
    """

    url: str
    count: int = 1_000_000
    seconds: int = 60
    windows: int = 1
    revocation: bool = False
    timeout: float | None = None
    prefix: str = PREFIX


class Limiter(Protocol):
    """A limiter that is connected to a server."""

    async def check(self, client: str) -> bool:
        """Ask for all that one request of this client needs; whether it is admitted."""

    async def used(self, client: str) -> int:
        """Units that are taken from this client's first window. It takes none."""

    async def aclose(self) -> None:
        """Let go of connections."""


class UnsuitableError(Exception):
    """A limiter cannot be measured with this server. The text is the reason, without the URL."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A limiter that may be measured.

    Attributes:
        name: for people.
        commands: what it sends to the server. No script here calls these itself, so the server's count of them is the
            count of round trips.
        open: connects one.
        module: what must be there to import, and
        package: what it is called on the index; None where nothing more is needed.
    """

    name: str
    commands: tuple[str, ...]
    open: Callable[[Setup], Awaitable[Limiter]]
    module: str | None = None
    package: str | None = None

    def absence(self) -> str | None:
        """Why this contender cannot be measured here, or None if it can."""
        if self.module is None:
            return None
        try:
            importlib.import_module(self.module)
        except ImportError:
            return f"{self.package} is not installed"
        return None

    def version(self) -> str:
        """The version of its package, where it has one."""
        return "" if self.package is None else version(self.package)


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that was not measured.

    Attributes:
        name: the contender.
        reason: why not.
    """

    name: str
    reason: str


def present(contenders: Sequence[Contender]) -> tuple[list[Contender], list[Skipped]]:
    """Those that can be measured here, and those that cannot."""
    found, missing = [], []
    for contender in contenders:
        reason = contender.absence()
        if reason is None:
            found.append(contender)
        else:
            missing.append(Skipped(contender.name, reason))
    return found, missing


class Ours:
    """The store of this package: all that one request asks, in one call."""

    def __init__(self, setup: Setup) -> None:
        texts = [f"{setup.count}/{setup.seconds}s by {key}" for key in KEYS[: setup.windows]]
        self._limits = parse_limits("; ".join(texts))
        self._revocation = setup.revocation
        # Unless something else is asked, so long that a slow check is measured and not cut off.
        self._store = RedisStore(setup.url, prefix=setup.prefix, timeout=setup.timeout or 10)

    async def check(self, client: str) -> bool:
        """One call, with as many others as wait at the same moment."""
        charges = tuple([Charge(limit, f"{limit.name}:{client}") for limit in self._limits])  # twice as fast
        verdict = await self._store.admit(Admission(charges, client if self._revocation else None))
        return verdict.admitted and not verdict.revoked

    async def used(self, client: str) -> int:
        """A charge of nothing tells what is left."""
        limit = self._limits[0]
        verdict = await self._store.admit(Admission((Charge(limit, f"{limit.name}:{client}", 0),)))
        return limit.burst - verdict.readings[0].remaining

    async def aclose(self) -> None:
        """Let go of connections."""
        await self._store.aclose()


async def _open_ours(setup: Setup) -> Limiter:
    return Ours(setup)


def ours() -> Contender:
    """This package."""
    return Contender(OURS, ("evalsha",), _open_ours)


def everyone() -> list[Contender]:
    """All contenders, ours first and what it is most compared with second."""
    from benchmarks.limits import peers, scripts

    return [ours(), *scripts.CONTENDERS, *peers.CONTENDERS]


def named(contenders: Sequence[Contender], *names: str) -> list[Contender]:
    """Those with these names, in this order, as far as they are there."""
    return [contender for name in names for contender in contenders if contender.name == name]


def renamed(contender: Contender, name: str) -> Contender:
    """The same contender, under the name that fits what it is compared in."""
    return replace(contender, name=name)
