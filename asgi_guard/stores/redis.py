"""The store in Redis or Valkey: one `EVALSHA` a request, on the server's clock, with a deadline and a breaker."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from asgi_guard.errors import StoreUnavailableError
from asgi_guard.policy.breaker import Breaker
from asgi_guard.policy.bucket import Admission, Verdict, decide

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

logger = logging.getLogger("asgi_guard")

SCRIPT = files(__package__).joinpath("admit.lua").read_text("utf-8")
SCRIPT_SHA1 = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
CONNECT_TIMEOUT = 1.0
CONNECTIONS = 16
"""Calls under way at once, each on a connection of its own; the others wait in line, within their deadlines. More would
be no faster, and opening them all in a burst would take longer than a call may."""


class RedisStore:
    """Buckets and revocations in a Redis or Valkey server that all workers share.

    A call that has not been answered after `timeout` counts as not answered, and is *not* repeated: a charge that was
    made and whose answer was lost would be made twice. After three such calls in a row the breaker opens, and calls
    fail at once until a probe is answered.

    Args:
        url: `redis://`, `rediss://` or `unix://`. It is kept out of errors, logs and reprs, for it may hold a password.
        prefix: put before every key.
        timeout: seconds until an answer counts as none.
        breaker: when to stop asking, and when to try again.
    """

    shared = True

    def __init__(
        self, url: str, *, prefix: str = "asgi-guard:", timeout: float = 0.05, breaker: Breaker | None = None
    ) -> None:
        self._url = url
        self._prefix = prefix
        self._timeout = timeout
        self._breaker = breaker or Breaker()
        self._client: Redis | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._line = asyncio.Semaphore(CONNECTIONS)
        try:
            check_url(url)
            # Made here and thrown away: a malformed URL or option is an error now, not at the first request.
            pool: Any = self._make_client().connection_pool  # whose methods are not typed in every version
            pool.make_connection()
        except (ValueError, TypeError, RedisError):
            # The parser's own message may hold a part of the password.
            raise ValueError(
                "the URL cannot be read: check host, port, path and options, and percent-encode the password"
            ) from None

    def __repr__(self) -> str:
        return f"RedisStore(prefix={self._prefix!r}, timeout={self._timeout})"

    def _make_client(self) -> Redis:
        return Redis.from_url(
            self._url,
            socket_connect_timeout=CONNECT_TIMEOUT,
            # The deadline is ours alone. The client's own costs a task a command, and before Python 3.12 that task can
            # swallow a cancellation, so that a call would outlive its deadline.
            socket_timeout=None,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
            client_name="asgi-guard",
        )

    def _connected(self) -> Redis:
        """The client of this event loop: connections belong to the loop they were opened in."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._client, self._loop = self._make_client(), loop
            self._line = asyncio.Semaphore(CONNECTIONS)
        return self._client

    async def admit(self, request: Admission) -> Verdict:
        """Decide all that a request asks by one script call."""
        charges = request.charges
        keys = [self._prefix + charge.key for charge in charges]
        if request.token_id is not None:
            keys.append(self._revocation(request.token_id))
        arguments: list[int] = [len(charges)]
        for charge in charges:
            arguments += (charge.cost * charge.limit.interval, charge.limit.capacity)
        admitted, revoked, now, *states = await self._call(lambda client: self._evaluate(client, keys, arguments))
        _, _, readings = decide(charges, states, now)
        return Verdict(bool(admitted), readings, bool(revoked))

    async def _evaluate(self, client: Redis, keys: list[str], arguments: list[int]) -> Any:
        try:
            return await client.evalsha(SCRIPT_SHA1, len(keys), *keys, *arguments)
        except NoScriptError:
            # A server that was restarted, failed over or flushed: the script goes along once, and is known again.
            return await client.eval(SCRIPT, len(keys), *keys, *arguments)

    def _revocation(self, token_id: str) -> str:
        return f"{self._prefix}revoked:{token_id}"

    async def revoke(self, token_id: str, ttl: float) -> None:
        """Put a token among the revoked, for `ttl` seconds."""
        milliseconds = max(1, int(ttl * 1000))
        await self._call(lambda client: client.set(self._revocation(token_id), 1, px=milliseconds))

    async def ping(self) -> float:
        """Ask for a sign of life; seconds that it took. It asks even while the breaker is open, and closes it."""
        started = time.perf_counter()
        await self._call(lambda client: client.ping(), probe=True)
        return time.perf_counter() - started

    async def aclose(self) -> None:
        """Let go of the connections of this event loop."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()

    async def _call(self, command: Callable[[Redis], Awaitable[Any]], *, probe: bool = False) -> Any:
        now = time.monotonic()
        if not probe and not self._breaker.allows(now):
            raise StoreUnavailableError("the store has failed lately and is not asked", self._breaker.retry_after(now))
        was_open = self._breaker.is_open
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT if probe else self._timeout):
                client = self._connected()
                async with self._line:
                    answer = await command(client)
        except (RedisError, OSError, TimeoutError) as error:
            raise self._failed(error, count=was_open or not self._breaker.is_open) from error
        if self._breaker.succeeded():
            logger.warning("the store answers again")
        return answer

    def _failed(self, error: Exception, *, count: bool) -> StoreUnavailableError:
        """Note a failure. Calls that were under way when the breaker opened do not count: one stall is one failure."""
        now = time.monotonic()
        kind = type(error).__name__
        if count and self._breaker.failed(now):
            logger.error("the store does not answer, so it is not asked for a while: %s: %a", kind, str(error)[:256])
        return StoreUnavailableError(f"the store does not answer ({kind})", self._breaker.retry_after(now) or 1.0)


def check_url(url: str) -> None:
    """Refuse what the client's parser would quietly read as something else.

    Raises:
        ValueError: an unencoded `/`, `?` or `#` ends the password early, the database is not a number, or a socket's
            path is not absolute.
    """
    parts = urlsplit(url)
    if parts.scheme == "unix":
        if parts.hostname or not parts.path:
            raise ValueError("a socket has an absolute path: unix:///path")
    elif not re.fullmatch(r"/?\d*", parts.path) or "@" in parts.query + parts.fragment:
        raise ValueError("a database is a number, and what may be meant as the password ends before the @")
