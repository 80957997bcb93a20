"""Limiters written here, on redis-py, to compare with: one call a check, and the script that is widely copied."""

from __future__ import annotations

from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError

from benchmarks.limits.contenders import ENOUGH_CONNECTIONS, KEYS, Contender, Limiter, Setup

if TYPE_CHECKING:
    from collections.abc import Sequence

ONE_CALL = "one call a check"
COPIED = "a widely copied script"
DEFAULTS = "redis-py as it comes"

ONE_CALL_SCRIPT = files(__package__).joinpath("one_call.lua").read_text("utf-8")
COPIED_SCRIPT = files(__package__).joinpath("copied.lua").read_text("utf-8")


def digest(script: str) -> str:
    """The name under which a server knows a script."""
    return sha1(script.encode(), usedforsecurity=False).hexdigest()


def revocation_key(setup: Setup, client: str) -> str:
    """Where a peer of ours looks for a revoked token."""
    return f"{setup.prefix}revoked:{client}"


class Question:
    """What the one-call script is asked, and how its answer is read: the client library's part is not in here."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._interval = -(-setup.seconds * 1_000_000 // setup.count)
        self._capacity = self._interval * setup.count

    def keys(self, client: str) -> list[str]:
        """The buckets, and the token."""
        keys = [f"{self._setup.prefix}{key}:{client}" for key in KEYS[: self._setup.windows]]
        if self._setup.revocation:
            keys.append(revocation_key(self._setup, client))
        return keys

    def arguments(self, cost: int = 1) -> list[int]:
        """Each bucket's cost and capacity."""
        return [self._setup.windows, *(cost * self._interval, self._capacity) * self._setup.windows]

    def read(self, answer: Sequence[int]) -> tuple[bool, list[int]]:
        """Whether it was admitted, and what is left in each bucket, as headers tell it."""
        admitted, revoked, now, *states = answer
        taken = self._interval if admitted else 0
        remaining = [(self._capacity - max(state - now, 0) - taken) // self._interval for state in states]
        return bool(admitted) and not revoked, remaining

    def used(self, answer: Sequence[int]) -> int:
        """Units taken from the first bucket, as the answer to a question of cost 0 tells."""
        _, _, now, state, *_ = answer
        return -(-max(state - now, 0) // self._interval)


class OneCall:
    """The decision that ours makes, in one `EVALSHA` for each check.

    Args:
        setup: what is asked.
        careful: whether nothing is ever tried twice; else the client's own defaults hold, as they do where it is made
            by its constructor: one made from a URL tries nothing twice either.
    """

    def __init__(self, setup: Setup, *, careful: bool) -> None:
        options: dict[str, Any] = {} if setup.timeout is None else {"socket_timeout": setup.timeout}
        if careful:
            options = {"retry": Retry(NoBackoff(), 0), "socket_timeout": setup.timeout}
            self._client = Redis.from_url(setup.url, max_connections=ENOUGH_CONNECTIONS, **options)
        else:
            parts = urlsplit(setup.url)
            where: dict[str, Any] = {"unix_socket_path": parts.path}
            if parts.scheme != "unix":
                where = {"host": parts.hostname, "port": parts.port}
            self._client = Redis(**where, **options)
        self._sha = digest(ONE_CALL_SCRIPT)
        self._question = Question(setup)

    async def _ask(self, client: str, cost: int) -> list[int]:
        keys, arguments = self._question.keys(client), self._question.arguments(cost)
        answer: list[int]
        try:
            answer = await self._client.evalsha(self._sha, len(keys), *keys, *arguments)
        except NoScriptError:
            answer = await self._client.eval(ONE_CALL_SCRIPT, len(keys), *keys, *arguments)
        return answer

    async def check(self, client: str) -> bool:
        """One call."""
        admitted, _ = self._question.read(await self._ask(client, 1))
        return admitted

    async def used(self, client: str) -> int:
        """A charge of nothing tells."""
        return self._question.used(await self._ask(client, 0))

    async def aclose(self) -> None:
        """Let go of connections."""
        await self._client.aclose()


class Copied:
    """The widely copied script: the server's time by a call of its own, then the script, for each window.

    It is often shown with a new client for each request. Here the client is kept.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._client = Redis.from_url(
            setup.url,
            max_connections=ENOUGH_CONNECTIONS,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=setup.timeout,
        )
        self._script = self._client.register_script(COPIED_SCRIPT)

    async def check(self, client: str) -> bool:
        """Two calls a window, and one for the token."""
        setup = self._setup
        admitted = True
        for key in KEYS[: setup.windows]:
            seconds, microseconds = await self._client.time()
            now = seconds + microseconds / 1_000_000
            arguments = [setup.count, setup.count / setup.seconds, now, 1]
            allowed, _ = await self._script([f"{setup.prefix}hash:{key}:{client}"], arguments)
            admitted = admitted and bool(allowed)
        if setup.revocation and await self._client.strlen(revocation_key(setup, client)):
            return False
        return admitted

    async def used(self, client: str) -> int:
        """What the hash says."""
        tokens = await self._client.hget(f"{self._setup.prefix}hash:{KEYS[0]}:{client}", "tokens")
        return 0 if tokens is None else self._setup.count - int(float(tokens))

    async def aclose(self) -> None:
        """Let go of connections."""
        await self._client.aclose()


async def _open_one_call(setup: Setup) -> Limiter:
    return OneCall(setup, careful=True)


async def _open_defaults(setup: Setup) -> Limiter:
    return OneCall(setup, careful=False)


async def _open_copied(setup: Setup) -> Limiter:
    return Copied(setup)


# A look-up of a token is a STRLEN, which tells an absent key by 0: no peer's script calls it, so it can be counted.
CONTENDERS = [
    Contender(ONE_CALL, ("evalsha",), _open_one_call),
    Contender(COPIED, ("time", "evalsha", "strlen"), _open_copied),
]
WITH_DEFAULTS = Contender(DEFAULTS, ("evalsha",), _open_defaults)
