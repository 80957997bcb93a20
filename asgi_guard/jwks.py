"""An issuer's keys, fetched: the shell around `asgi_guard.policy.keyring`, which decides when.

One fetch is in flight at a time, whoever waits for it; a waiter that is cancelled does not cancel it. Redirects are not
followed, answers are bounded in size and time, and only https is spoken, loopback excepted.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import ssl
import time
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

from asgi_guard.errors import KeysUnavailableError, TokenError
from asgi_guard.policy.keyring import KeyRing, KeyTimes, Step
from asgi_guard.policy.keys import KeySet, VerificationKey

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("asgi_guard")

MAX_BODY = 256 * 1024
TIMEOUT = 3.0
"""Seconds for everything: discovery, keys, connections, redirects not followed."""
_MAX_AGE = re.compile(r"(?:^|[\s,])max-age=(\d{1,9})(?:$|[\s,])")


def default_client() -> httpx.AsyncClient:
    """The client of one fetch. Fetches are rare, so none is kept open, and none can belong to another event loop."""
    return httpx.AsyncClient(
        timeout=TIMEOUT, follow_redirects=False, headers={"user-agent": "asgi-guard"}, verify=_trusted_certificates()
    )


@lru_cache(maxsize=1)
def _trusted_certificates() -> ssl.SSLContext:
    """Loading the CA bundle takes tens of milliseconds, in which no request is served: once is enough."""
    return httpx.create_ssl_context()


def check_url(url: str, *, query: bool = False) -> str:
    """Return a URL that keys may be fetched from.

    Args:
        url: an issuer's identifier, or where its keys are.
        query: whether it may have one: an identifier may not, and some issuers tell their key sets apart by it.

    Raises:
        ValueError: it is not https (or http to loopback), or holds user information, a query or a fragment.
    """
    parts = urlsplit(url)
    if not parts.hostname or parts.username is not None or parts.fragment or (parts.query and not query):
        also = "" if query else ", query"
        raise ValueError(f"write a plain URL: https://host/path, without user{also} or fragment")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname)):
        raise ValueError("use https: over http, whoever is on the network could put their own keys there")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class KeyEngine:
    """The current keys of one issuer.

    Args:
        issuer: the issuer's identifier, from which the keys are discovered (OpenID Connect Discovery 1.0).
        jwks_url: where the keys are; given, nothing is discovered.
        algorithms: the allowed algorithms; keys for others are not loaded.
        times: how keys age.
        client: makes the HTTP client of one fetch: the place for a proxy, a CA bundle, or headers.
        clock: seconds of a clock that only moves forward.
    """

    def __init__(
        self,
        issuer: str,
        jwks_url: str | None = None,
        *,
        algorithms: frozenset[str],
        times: KeyTimes | None = None,
        client: Callable[[], httpx.AsyncClient] = default_client,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.issuer = issuer
        self._jwks_url = jwks_url
        self._algorithms = algorithms
        self._times = times or KeyTimes()
        self._client = client
        self._clock = clock
        self._ring = KeyRing()
        self._fetch: asyncio.Task[None] | None = None
        self._reported: str | None = None

    @property
    def keys(self) -> KeySet | None:
        """The keys that verify tokens now; a token verified by any other set has to be verified again."""
        return self._ring.keys if self._ring.usable(self._clock(), self._times) else None

    def peek(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        """The key for a token, if no fetch has to be waited for. A refresh that is due starts in the background.

        Raises:
            TokenError: no key fits, and none may be looked for now (`unknown_key`), or several fit.
            KeysUnavailableError: there are no keys, and no fetch may be started now.
        """
        now = self._clock()
        step, key = self._ring.decide(kid, algorithm, now, self._times, fetching=self._fetching() is not None)
        if step is Step.USE_AND_REFRESH:
            self._start()
        elif step is Step.UNKNOWN_KEY:
            raise TokenError("unknown_key", f"the issuer has no {algorithm} key of that kid")
        elif step is Step.UNAVAILABLE:
            wait = self._ring.next_try(self._times) - now
            raise KeysUnavailableError(f"the keys of {self.issuer} are not available", wait)
        return key

    async def obtain(self, kid: str | None, algorithm: str) -> VerificationKey:
        """The key for a token, after waiting for a fetch if that is what it takes; raises as `peek` does."""
        key = self.peek(kid, algorithm)
        if key is None:
            await self.refresh()
            key = self.peek(kid, algorithm)
        if key is None:
            # Only a second failed fetch that was due at once leads here; nobody waits twice.
            raise KeysUnavailableError(f"the keys of {self.issuer} are not available", self._times.first_backoff)
        return key

    async def refresh(self) -> None:
        """Fetch the keys now, or wait for the fetch that is under way. Failures are logged, not raised."""
        await asyncio.shield(self._fetching() or self._start())

    async def check(self) -> None:
        """Raise unless tokens can be verified; for readiness. Fetches if a fetch is due.

        Raises:
            KeysUnavailableError: they cannot.
        """
        now = self._clock()
        if not self._ring.usable(now, self._times) and self._ring.may_fetch(now, self._times, for_unknown_key=False):
            await self.refresh()
        if not self._ring.usable(self._clock(), self._times):
            raise KeysUnavailableError(f"the keys of {self.issuer} are not available", self._times.first_backoff)

    async def aclose(self) -> None:
        """Give up the fetch that is under way."""
        task = self._fetching()
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _fetching(self) -> asyncio.Task[None] | None:
        """The fetch under way in this event loop; one that was left behind in another counts for nothing."""
        task = self._fetch
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            return None
        return task

    def _start(self) -> asyncio.Task[None]:
        self._ring = self._ring.started(self._clock())
        self._fetch = asyncio.create_task(self._run(), name="asgi-guard key fetch")
        return self._fetch

    async def _run(self) -> None:
        try:
            async with asyncio.timeout(TIMEOUT), self._client() as client:
                keys, max_age = await self._fetch_keys(client)
        except asyncio.CancelledError:
            self._ring = self._ring.failed(self._clock())
            raise
        except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError, ValueError) as error:
            self._ring = self._ring.failed(self._clock())
            self._report(
                f"the keys of {self.issuer} could not be fetched: {type(error).__name__}: {str(error)[:256]!a}"
            )
            return
        except Exception:
            self._ring = self._ring.failed(self._clock())
            logger.exception("the keys of %s could not be fetched", self.issuer)
            return
        known = self._ring.keys
        if known is not None and keys == known:
            keys = known  # the same object, so that tokens verified by it stay verified
        else:
            for reason in keys.skipped:
                logger.warning("%s: not used: %s", self.issuer, reason)
            logger.info("%s: %d keys", self.issuer, len(keys.keys))
        self._ring = self._ring.fetched(keys, self._clock(), self._times, max_age)
        self._report(None)

    def _report(self, failure: str | None) -> None:
        """Log once a transition, not once a failure."""
        if failure is not None and self._reported is None:
            logger.error("%s", failure)
        elif failure is None and self._reported is not None:
            logger.warning("the keys of %s can be fetched again", self.issuer)
        self._reported = failure

    async def _fetch_keys(self, client: httpx.AsyncClient) -> tuple[KeySet, float | None]:
        url = self._jwks_url or await self._discover(client)
        document, response = await self._get(client, url)
        keys = KeySet.of(document, self._algorithms)
        if not keys.keys:
            raise ValueError(f"no key of the set can be used: {'; '.join(keys.skipped) or 'it is empty'}")
        match = _MAX_AGE.search(response.headers.get("cache-control", ""))
        return keys, float(match[1]) if match else None

    async def _discover(self, client: httpx.AsyncClient) -> str:
        document, _ = await self._get(client, self.issuer.rstrip("/") + "/.well-known/openid-configuration")
        if not isinstance(document, dict) or document.get("issuer") != self.issuer:
            raise ValueError("the discovery document names another issuer")
        url = document.get("jwks_uri")
        if not isinstance(url, str):
            raise ValueError("the discovery document names no jwks_uri")  # noqa: TRY004 - bad data, not a bad argument
        return check_url(url, query=True)

    async def _get(self, client: httpx.AsyncClient, url: str) -> tuple[Any, httpx.Response]:
        # Not compressed: what a small answer could grow to is not known before it has grown.
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        async with client.stream("GET", url, headers=headers) as response:
            if response.status_code != 200:
                raise ValueError(f"{url} answered {response.status_code}")
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_BODY:
                    raise ValueError(f"{url} answered more than {MAX_BODY} bytes")
        try:
            return json.loads(body), response
        except RecursionError:
            raise ValueError(f"{url} answered JSON nested too deep") from None
