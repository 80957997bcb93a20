"""Limiters of others. None of them is needed: what is not installed is skipped, and said to be."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from benchmarks.limits.contenders import ENOUGH_CONNECTIONS, KEYS, Contender, Limiter, Setup, UnsuitableError
from benchmarks.limits.scripts import ONE_CALL_SCRIPT, Question, revocation_key

if TYPE_CHECKING:
    from collections.abc import Callable

Window = Literal["fixed", "moving", "sliding"]
STRATEGIES: dict[Window, str] = {
    "fixed": "FixedWindowRateLimiter",
    "moving": "MovingWindowRateLimiter",
    "sliding": "SlidingWindowCounterRateLimiter",
}


class Limits:
    """The package `limits`, on redis-py's asyncio client: a call a window, and one for the token."""

    def __init__(self, setup: Setup, window: Window) -> None:
        import limits
        from limits.aio import storage, strategies

        options: dict[str, Any] = {} if setup.timeout is None else {"socket_timeout": setup.timeout}
        scheme = "async+redis+unix" if setup.url.startswith("unix:") else f"async+{urlsplit(setup.url).scheme}"
        storage_: Any = storage.RedisStorage(
            f"{scheme}:{setup.url.partition(':')[2]}",
            implementation="redispy",
            key_prefix=f"{setup.prefix}{window}",
            max_connections=ENOUGH_CONNECTIONS,
            **options,
        )
        self._setup = setup
        self._client = storage_.bridge.get_connection()
        self._strategy = getattr(strategies, STRATEGIES[window])(storage_)
        self._item = limits.RateLimitItemPerSecond(setup.count, setup.seconds)

    async def check(self, client: str) -> bool:
        """Hit every window."""
        admitted = True
        for key in KEYS[: self._setup.windows]:
            admitted = bool(await self._strategy.hit(self._item, key, client)) and admitted
        if self._setup.revocation and await self._client.strlen(revocation_key(self._setup, client)):
            return False
        return admitted

    async def used(self, client: str) -> int:
        """What the window's statistics tell."""
        stats = await self._strategy.get_window_stats(self._item, KEYS[0], client)
        return self._setup.count - int(stats.remaining)

    async def aclose(self) -> None:
        """Let go of connections."""
        await self._client.aclose()


class Throttled:
    """The package `throttled-py`: its token bucket, on redis-py: a call a window, and one for the token."""

    def __init__(self, setup: Setup) -> None:
        from datetime import timedelta

        from throttled import asyncio as throttled
        from throttled import rate_limiter

        options: dict[str, Any] = {"CONNECTION_POOL_KWARGS": {"max_connections": ENOUGH_CONNECTIONS}}
        if setup.timeout is not None:
            options["SOCKET_TIMEOUT"] = setup.timeout
        store = throttled.RedisStore(server=setup.url, options=options)
        self._setup = setup
        self._client: Any = store._backend.get_client()  # it has no other way to be closed
        self._limiter = throttled.Throttled(
            using="token_bucket",
            quota=rate_limiter.per_duration(timedelta(seconds=setup.seconds), setup.count, burst=setup.count),
            store=store,
            key_prefix=f"{setup.prefix}throttled",
        )

    async def check(self, client: str) -> bool:
        """Take from every window."""
        admitted = True
        for key in KEYS[: self._setup.windows]:
            result = await self._limiter.limit(f"{key}:{client}")
            admitted = admitted and not result.limited
        if self._setup.revocation and await self._client.strlen(revocation_key(self._setup, client)):
            return False
        return admitted

    async def used(self, client: str) -> int:
        """A peek tells what is left."""
        state = await self._limiter.peek(f"{KEYS[0]}:{client}")
        return self._setup.count - int(state.remaining)

    async def aclose(self) -> None:
        """Let go of connections."""
        await self._client.aclose(close_connection_pool=True)


class Glide:
    """The client `valkey-glide`, which sends all calls over one connection: a call of the one-call script a check."""

    def __init__(self, client: Any, script: Any, setup: Setup) -> None:
        self._client = client
        self._script = script
        self._question = Question(setup)

    @classmethod
    async def open(cls, setup: Setup) -> Glide:
        """Connect. Its own deadline of a quarter of a second would cut off what is to be measured."""
        import glide

        parts = urlsplit(setup.url)
        if parts.scheme == "unix":
            address = glide.NodeAddress(unix_socket_path=parts.path)
        elif parts.scheme == "redis":
            address = glide.NodeAddress(parts.hostname or "localhost", parts.port or 6379)
        else:
            raise UnsuitableError(f"this benchmark does not set it up for {parts.scheme}://")
        credentials = glide.ServerCredentials(parts.password, parts.username) if parts.password else None
        configuration = glide.GlideClientConfiguration(
            [address],
            credentials=credentials,
            database_id=int(parts.path.strip("/") or 0) if parts.scheme == "redis" else 0,
            request_timeout=int((setup.timeout or 10) * 1000),
        )
        client = await glide.GlideClient.create(configuration)
        return cls(client, glide.Script(ONE_CALL_SCRIPT), setup)

    async def _ask(self, client: str, cost: int) -> list[int]:
        arguments = [str(argument) for argument in self._question.arguments(cost)]
        answer: list[int] = await self._client.invoke_script(
            self._script, keys=self._question.keys(client), args=arguments
        )
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
        await self._client.close()


def _opening(make: Callable[[Setup], Limiter]) -> Callable[[Setup], Any]:
    async def opened(setup: Setup) -> Limiter:
        return make(setup)

    return opened


def _limits(window: Window) -> Contender:
    opened = _opening(partial(Limits, window=window))
    return Contender(f"limits, {window} window", ("evalsha", "strlen"), opened, "limits", "limits")


FIXED, MOVING, SLIDING = _limits("fixed"), _limits("moving"), _limits("sliding")
THROTTLED = Contender("throttled-py", ("evalsha", "strlen"), _opening(Throttled), "throttled", "throttled-py")
GLIDE = Contender("valkey-glide", ("evalsha",), Glide.open, "glide", "valkey-glide")
CONTENDERS = [FIXED, MOVING, SLIDING, THROTTLED, GLIDE]
