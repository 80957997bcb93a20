"""An issuer's keys, fetched: the shell around `asgi_guard.policy.keyring`, which decides when.

One fetch is in flight at a time, whoever waits for it; a waiter that is cancelled does not cancel it. Redirects are not
followed, answers are bounded in size and time, and only https is spoken, loopback excepted. A set with an entity tag is
asked for by it, so that an issuer may answer that nothing has changed (RFC 9110 section 13.1.2).
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import httpx

from asgi_guard.errors import KeysUnavailableError, TokenError
from asgi_guard.identity.fetching import EXPECTED, HEADERS, TIMEOUT, check_url, default_client, opened, read_json, why
from asgi_guard.policy.keyring import KeyRing, KeyStatus, KeyTimes, Step, remaining_life
from asgi_guard.policy.keys import KeySet, VerificationKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

logger = logging.getLogger("asgi_guard")

MAX_BODY = 256 * 1024
_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]{0,256}"')
"""An entity tag that can be sent back as it came (RFC 9110 section 8.8.3); odd or overlong ones are passed over."""


class NoKeysError(ValueError):
    """The issuer answered with a set without any key of use."""


@dataclass(frozen=True, slots=True)
class _Fetched:
    """What a fetch brought.

    Attributes:
        keys: the set; the one at hand, if the issuer says that it has not changed.
        life: how much longer it is fresh; None if the issuer does not say.
        tag: where it is, and its entity tag there.
    """

    keys: KeySet
    life: float | None
    tag: tuple[str, str] | None


async def check_any(engines: Iterable[KeyEngine]) -> None:
    """Raise unless the tokens of one issuer at least can be verified; for readiness. All fetches that are due start.

    Raises:
        KeysUnavailableError: none of them can, with what is known of each.
    """
    waiting = {asyncio.create_task(_fault(engine)) for engine in engines}
    faults: list[KeysUnavailableError] = []
    try:
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            found = [task.result() for task in done]
            faults += [fault for fault in found if fault is not None]
            if None in found:
                return
    finally:
        for task in waiting:
            task.cancel()
    raise KeysUnavailableError("; ".join(sorted(map(str, faults))), min(fault.retry_after for fault in faults))


async def _fault(engine: KeyEngine) -> KeysUnavailableError | None:
    try:
        await engine.check()
    except KeysUnavailableError as error:
        return error
    return None


def _another(named: str, url: str) -> str:
    """What to do about a discovery document that is of another issuer than the one it was found by."""
    if "{" in named:
        return f"the discovery document is of many tenants, {named!a}: name one of them as the issuer"
    take = f"the discovery document names another issuer, {named!a}: take that, letter by letter"
    return f"{take}, and if no keys are found by it, {url!a} as the JWKS URL"


class KeyEngine:
    """The current keys of one issuer.

    Args:
        issuer: the issuer's identifier, from which the keys are discovered (OpenID Connect Discovery 1.0).
        jwks_url: where the keys are; given, nothing is discovered.
        algorithms: the allowed algorithms; keys for others are not loaded.
        times: how keys age.
        client: makes the HTTP client of one fetch, a new one each time, which is closed: the place for a proxy, a CA
            bundle, or headers.
        clock: seconds of a clock that only moves forward.
        random: numbers from 0 to 1, which keep workers from asking together.
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
        random: Callable[[], float] = random.random,
    ) -> None:
        self.issuer = issuer
        self._jwks_url = jwks_url
        self._algorithms = algorithms
        self._times = times or KeyTimes()
        self._client = client
        self._clock = clock
        self._random = random
        self._ring = KeyRing()
        self._tag: tuple[str, str] | None = None
        self._fetch: asyncio.Task[None] | None = None
        self._reported = "well"
        self.fetched = self.failed = 0  # fetches since the start, for metrics

    @property
    def keys(self) -> KeySet | None:
        """The keys that verify tokens now; a token verified by any other set has to be verified again."""
        ring, now = self._ring, self._clock()
        # Most requests come while the keys are fresh, and ask no more.
        return ring.keys if now < ring.expires or ring.usable(now, self._times) else None

    def status(self) -> KeyStatus:
        """How things stand: how many keys, of what age, and how the last fetches went."""
        return self._ring.status(self._clock(), self._times)

    def peek(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        """The key for a token, if no fetch has to be waited for. A refresh that is due starts in the background.

        Raises:
            TokenError: no key fits, and none may be looked for now (`unknown_key`), or several fit.
            KeysUnavailableError: there are no keys, or none fits and the last fetch failed; no other may start now.
        """
        step, key = self._decide(kid, algorithm, waited=False)
        if step is Step.USE_AND_REFRESH:
            self._start()
        return key

    async def obtain(self, kid: str | None, algorithm: str) -> VerificationKey:
        """The key for a token, after waiting for a fetch if that is what it takes; raises as `peek` does."""
        key = self.peek(kid, algorithm)
        if key is None:
            await self.refresh()
            _, key = self._decide(kid, algorithm, waited=True)
        return cast("VerificationKey", key)  # who has waited is given a key, or an error

    def _decide(self, kid: str | None, algorithm: str, *, waited: bool) -> tuple[Step, VerificationKey | None]:
        ring = self._ring
        fetching = self._fetching() is not None
        step, key = ring.decide(kid, algorithm, self._clock(), self._times, fetching=fetching, waited=waited)
        if step is Step.UNKNOWN_KEY:
            raise TokenError("unknown_key", f"the issuer has no {algorithm} key of that kid")
        if step is Step.UNAVAILABLE:
            raise self._unavailable(known=ring.knows(kid, algorithm))
        return step, key

    def _unavailable(self, *, known: bool) -> KeysUnavailableError:
        wait, status = self._ring.next_try(self._times, known=known) - self._clock(), self.status()
        what = f"the keys of {self.issuer} are not available"
        if status.usable:
            what = f"whether {self.issuer} has a key of that kid by now could not be found out"
        return KeysUnavailableError(f"{what}: {status}", max(0.0, wait))

    async def refresh(self) -> None:
        """Fetch the keys now, or wait for the fetch that is under way. Failures are logged, not raised.

        Cancelling who waits does not cancel the fetch, and a fetch that is given up does not cancel who waits.
        """
        await asyncio.wait([self._fetching() or self._start()])

    async def check(self) -> None:
        """Raise unless tokens can be verified; for readiness. Fetches if a fetch is due.

        It waits for the fetch only where there is nothing to fall back on: a slow issuer is no reason to be not ready.

        Raises:
            KeysUnavailableError: they cannot.
        """
        now = self._clock()
        if not self._ring.held(now, self._times) and self._ring.is_due(now, self._times):
            await self.refresh()
        await self.look()

    async def look(self) -> None:
        """Raise unless tokens can be verified, as `check` does, but wait for no fetch: one that is due is started.

        Raises:
            KeysUnavailableError: they cannot, as yet.
        """
        now = self._clock()
        if self._ring.is_due(now, self._times) and self._fetching() is None:
            self._start()
        if not self._ring.held(now, self._times):
            raise self._unavailable(known=True)

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
            async with asyncio.timeout(TIMEOUT), opened(self._client) as client:
                fetched = await self._fetch_keys(client)
        except asyncio.CancelledError:
            self._failed("the fetch was given up")
            raise
        except Exception as error:  # noqa: BLE001 - whatever a client fails with, the keys were not fetched
            withdrawn = isinstance(error, NoKeysError)
            self._failed(why(error), withdrawn=withdrawn)
            self._report(None if isinstance(error, EXPECTED) else error)
            return
        keys, known = fetched.keys, self._ring.keys
        if known is not None and keys == known:
            keys = known  # the same object, so that tokens verified by it stay verified
        else:
            for reason in keys.skipped:
                logger.warning("%s: not used: %s", self.issuer, reason)
            logger.info("%s: %d keys", self.issuer, len(keys.keys))
        self._ring = self._ring.fetched(keys, self._clock(), self._times, fetched.life, self._random())
        self._tag = fetched.tag
        self.fetched += 1
        self._report()

    def _failed(self, why: str, *, withdrawn: bool = False) -> None:
        self.failed += 1
        self._ring = self._ring.failed(self._clock(), self._times, why, self._random(), withdrawn=withdrawn)

    def _report(self, fault: Exception | None = None) -> None:
        """Log once a transition, not once a failure; a fault that is not the issuer's with its traceback."""
        status = self.status()
        state = "well" if not status.failures else "failing" if status.usable else "unavailable"
        if state == self._reported:
            return
        if state == "well":
            logger.warning("the keys of %s can be fetched again: %s", self.issuer, status)
        else:
            comes_to = "" if status.usable else "; until they are, its tokens are answered with 503"
            logger.error("the keys of %s could not be fetched: %s%s", self.issuer, status, comes_to, exc_info=fault)
        self._reported = state

    async def _fetch_keys(self, client: httpx.AsyncClient) -> _Fetched:
        url = self._jwks_url or await self._discover(client)
        known, tag = self._ring.keys, self._tag
        asked = tag[1] if known is not None and tag is not None and tag[0] == url else None
        document, headers = await self._get(client, url, asked)
        life = remaining_life(headers.get("cache-control", ""), headers.get("age", ""))
        if document is None and known is not None:
            return _Fetched(known, life, tag)
        keys = KeySet.of(document, self._algorithms)
        if not keys.keys:
            raise NoKeysError(f"no key of the set can be used: {'; '.join(keys.skipped) or 'it is empty'}")
        found = headers.get("etag", "")
        return _Fetched(keys, life, (url, found) if _ETAG.fullmatch(found) else None)

    async def _discover(self, client: httpx.AsyncClient) -> str:
        document, _ = await self._get(client, self.issuer.rstrip("/") + "/.well-known/openid-configuration")
        if not isinstance(document, dict):
            raise ValueError("the discovery document is no object")  # noqa: TRY004 - bad data, not a bad argument
        named = document.get("issuer")
        url = document.get("jwks_uri")
        if named != self.issuer:
            raise ValueError(_another(str(named)[:200], str(url)[:200]))
        if not isinstance(url, str):
            raise ValueError("the discovery document names no jwks_uri")  # noqa: TRY004 - bad data, not a bad argument
        return check_url(url, query=True)

    async def _get(self, client: httpx.AsyncClient, url: str, tag: str | None = None) -> tuple[Any, httpx.Headers]:
        """Get a JSON document and the headers it came with; None for the document if it is still that of the tag."""
        headers = HEADERS if tag is None else {**HEADERS, "if-none-match": tag}
        async with client.stream("GET", url, headers=headers, follow_redirects=False) as response:
            if response.status_code == 304 and tag is not None:
                return None, response.headers
            return await read_json(response, MAX_BODY), response.headers
