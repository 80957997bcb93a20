"""Asking an issuer about opaque tokens (RFC 7662): the shell around `asgi_guard.policy.introspection`.

Each token is asked about once at a time, whoever waits; so many at once and no more; after three failures in a row with
growing pauses, during which nobody is asked. Redirects are not followed, answers are bounded in size and time, and only
https is spoken, loopback excepted. Tokens and the client's secret stand in no log and no error.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote_plus

import httpx

from asgi_guard.errors import ConfigError, KeysUnavailableError, Problem, TokenError
from asgi_guard.identity.fetching import (
    EXPECTED,
    HEADERS,
    TIMEOUT,
    check_url,
    default_client,
    made,
    public_url,
    read_json,
    why,
)
from asgi_guard.policy.breaker import Breaker
from asgi_guard.policy.claims import NO_AUDIENCE, SCOPE_CLAIMS, names_api, parse_required, wrong_bounds
from asgi_guard.policy.introspection import IntrospectionCache, IntrospectionPolicy, IntrospectionTimes, origin_of
from asgi_guard.policy.listing import all_listed
from asgi_guard.policy.plain_types import require_fields
from asgi_guard.policy.token import MAX_TOKEN_BYTES, too_large
from asgi_guard.policy.token_cache import TokenCache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from asgi_guard.policy.identity import User

logger = logging.getLogger("asgi_guard")

MAX_BODY = 64 * 1024
MAX_ASKED = 32
"""Tokens that are asked about at once, in each line: more would be an attack on the issuer through us."""
MAX_WAITING = 512
"""Tokens that may be asked about or wait for that, in each line. Requests with the same token wait for the same answer,
and count once: one that waits takes hardly more than the server holds of it anyway."""
ABOUT_THE_TOKEN = frozenset({400, 403, 413, 414, 422})
"""Answers by which servers, and firewalls before them, mean what was sent: one such token, which anybody can send, does
not keep the others from being asked about."""
NOBODYS = b"asgi-guard-asks-whether-it-may-ask"
"""A token that no issuer has made."""
UNKNOWN_CLIENT = (
    "it answered 401: compare ASGI_GUARD_AUTH_INTROSPECTION_CLIENT_ID and ASGI_GUARD_AUTH_INTROSPECTION_CLIENT_SECRET "
    "with what it knows this API by"
)
QUIET = 60.0
"""Seconds between two words in the log on such tokens, and on single failures."""


@dataclass(frozen=True)
class Introspection:
    """Where opaque tokens are asked about.

    Attributes:
        url: the issuer's introspection endpoint.
        client_id: by which this API is known to it.
        client_secret: the secret that goes with it.
        issuer: the issuer of every token that it calls active; the endpoint's origin unless said.
        audience: of which a token has to name one.
        leeway: seconds by which its clock may differ, 300 at most.
        scope_claims: where scopes are; the first of these that is there counts.
        max_token_age: seconds after which a token is refused though it is active; the answer then has to say `iat`.
        max_token_lifetime: seconds from `iat` to `exp`, both of which the answer then has to say, beyond which a token
            is refused from the first.
        required_claims: what an answer has to say, as `NAME` or `NAME=VALUE`.
        unsafe_subject: members of an answer, of which the first that is there says who it is where `sub` is not; none
            refuses such tokens. It is unsafe, since a `username` may change hands, or be chosen to be another one's
            `sub`, and `client_id` makes one of all users of a client: it is right only for clients that act for nobody,
            and gives them the subject `client:ID`.
        unsafe_any_type: whether a token is taken whatever sort it is said to be, and where none is said. It is unsafe,
            since endpoints call refresh tokens active too, which live long.
        unsafe_any_audience: whether a token is taken whomever it was made for; `audience` is then left empty. It is
            unsafe, since any other API of the issuer could use the tokens that it is sent here: it is right only where
            the issuer calls no token active that was made for another one.
        times: for how long answers count.
        client: makes the HTTP client, a new one each time, which is closed in the end: the place for a proxy, a CA
            bundle, or headers.

    Raises:
        ConfigError: a value cannot be used, or the URL is not https.
    """

    url: str
    client_id: str
    client_secret: str = field(repr=False)
    issuer: str = ""
    audience: Sequence[str] | str = ()
    leeway: float = 30
    scope_claims: Sequence[str] | str = SCOPE_CLAIMS
    max_token_age: float | None = None
    max_token_lifetime: float | None = None
    required_claims: Sequence[str] | str = ()
    unsafe_subject: Sequence[str] | str = ()
    unsafe_any_type: bool = False
    unsafe_any_audience: bool = False
    times: IntrospectionTimes = field(default_factory=IntrospectionTimes)
    client: Callable[[], httpx.AsyncClient] = default_client

    def __post_init__(self) -> None:
        require_fields(self)
        listed = ("audience", "scope_claims", "required_claims", "unsafe_subject")
        lists = {name: getattr(self, name) for name in listed}
        for name, value in all_listed(**lists).items():
            object.__setattr__(self, name, value)
        bounds = wrong_bounds(self.leeway, self.max_token_age, self.max_token_lifetime)
        problems = [*self._wrong_with_audience(), *bounds]
        for name, check in (("url", partial(check_url, query=True)), ("required_claims", parse_required)):
            try:
                check(getattr(self, name))
            except ValueError as error:
                problems.append(Problem(name, str(error)))
        if problems:
            raise ConfigError(problems)

    def _wrong_with_audience(self) -> Iterator[Problem]:
        if not self.unsafe_any_audience and not names_api(self.audience):
            yield Problem("audience", NO_AUDIENCE)
        elif self.audience and self.unsafe_any_audience:
            yield Problem("unsafe_any_audience", "it takes tokens for any API: leave it out, or the audience")

    def introspector(self) -> Introspector:
        """What asks there."""
        policy = IntrospectionPolicy(
            self.issuer or origin_of(self.url),
            frozenset(self.audience),
            self.leeway,
            tuple(self.scope_claims),
            self.max_token_age,
            self.max_token_lifetime,
            parse_required(self.required_claims),
            tuple(self.unsafe_subject),
            self.unsafe_any_type,
        )
        return Introspector(self.url, self.client_id, self.client_secret, policy, times=self.times, client=self.client)


class _UnansweredError(KeysUnavailableError):
    """The endpoint was asked, and does not answer for this token. That is no outage, so no answer of before counts."""


class _Line:
    """Tokens that wait to be asked about: those that were active a while ago in one line, strangers in another.

    So a flood of invented tokens delays only other unknown tokens. For a known one of which the answer does not come in
    time, that of before counts as in an outage: a slow issuer shuts nobody out whom one that is away does not.

    Attributes:
        turns: for those that are asked about.
        questions: how many there are, whether or not it is their turn, or anybody still waits for the answer.
    """

    def __init__(self) -> None:
        self.turns = asyncio.Semaphore(MAX_ASKED)
        self.questions = 0


class _OddTokenError(Exception):
    """The server does not answer for a token. The text is what it said."""


class Introspector:
    """Asks one issuer about tokens.

    Args:
        url: its introspection endpoint.
        client_id: by which this API is known to it.
        client_secret: the secret that goes with it (client_secret_basic, RFC 6749 section 2.3.1).
        policy: what its answers have to say.
        times: for how long they count.
        client: makes the HTTP client, a new one each time, which is closed in the end: the place for a proxy, a CA
            bundle, or headers.
        clock: seconds since the Unix epoch.

    Raises:
        ValueError: the URL is not https.
    """

    def __init__(
        self,
        url: str,
        client_id: str,
        client_secret: str,
        policy: IntrospectionPolicy,
        *,
        times: IntrospectionTimes | None = None,
        client: Callable[[], httpx.AsyncClient] = default_client,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.url = check_url(url, query=True)
        self._shown = public_url(url)
        # Encoded as a form's fields are before they are joined (RFC 6749 2.3.1).
        self._auth = httpx.BasicAuth(quote_plus(client_id), quote_plus(client_secret))
        self.policy = policy
        self._cache = IntrospectionCache(times or IntrospectionTimes())
        self._client = client
        self._clock = clock
        self._breaker = Breaker(threshold=3, first_wait=1, max_wait=60)
        self._asked: dict[bytes, asyncio.Task[User]] = {}
        self._http: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lines = {known: _Line() for known in (True, False)}
        self._quiet_until = self._quiet_on_failures_until = self._quiet_on_overload_until = 0.0

    def __repr__(self) -> str:
        return f"Introspector({self._shown!r})"

    def peek(self, token: bytes) -> User | None:
        """The token's user, if the issuer was asked a moment ago; None if it has to be asked.

        Raises:
            TokenError: the issuer refused it a moment ago, or it is none that could be asked about.
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise too_large(token)
        if not token.isascii():  # of a cookie, which may hold anything
            raise TokenError("malformed", "the token is not ASCII")
        return self._cache.fresh(TokenCache.digest(token), self._clock())

    async def obtain(self, token: bytes) -> User:
        """The token's user, after asking the issuer if need be.

        Raises:
            TokenError: the issuer does not call it active, or what it says of it does not fit.
            KeysUnavailableError: the issuer cannot be asked, and nothing is known that may still count.
        """
        user = self.peek(token)
        if user is not None:
            return user
        digest = TokenCache.digest(token)
        self._enter()
        try:
            return await self._answer(self._asking(digest) or self._ask_about(digest, token))
        except _UnansweredError:
            raise
        except KeysUnavailableError:
            user = self._cache.stale(digest, self._clock())
            if user is None:
                raise
            return user

    async def _answer(self, question: asyncio.Task[User]) -> User:
        """Wait for it. A waiter that is cancelled does not cancel it, for others wait too, nor it one that waits."""
        await asyncio.wait([question])
        if question.cancelled():
            raise KeysUnavailableError(f"{self._shown} is not asked any more", 1)
        return question.result()

    async def check(self) -> None:
        """Ask about a token that nobody has, so that it is known whether others can be asked about.

        Raises:
            KeysUnavailableError: they cannot.
        """
        with suppress(TokenError):
            await self.obtain(NOBODYS)

    async def aclose(self) -> None:
        """Give up what is asked, and let go of the connections of this event loop."""
        for task in tuple(self._asked.values()):
            if task.get_loop() is asyncio.get_running_loop():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        http, self._http = self._http, None
        if http is not None and self._loop is asyncio.get_running_loop():
            await http.aclose()

    def _asking(self, digest: bytes) -> asyncio.Task[User] | None:
        """The question about this token that is under way in this event loop."""
        task = self._asked.get(digest)
        return None if task is None or task.get_loop() is not asyncio.get_running_loop() else task

    def _ask_about(self, digest: bytes, token: bytes) -> asyncio.Task[User]:
        line = self._lines[self._cache.stale(digest, self._clock()) is not None]
        if line.questions >= MAX_WAITING:
            raise self._overloaded("too many tokens wait to be asked about already")
        now = time.monotonic()
        if not self._breaker.allows(now):
            raise self._not_asked(now)
        work = self._run(digest, token, line, probing=self._breaker.is_open)
        task = asyncio.get_running_loop().create_task(work, name="asgi-guard introspection")
        self._asked[digest] = task
        line.questions += 1
        task.add_done_callback(lambda done: self._forget(digest, line, done))
        return task

    def _forget(self, digest: bytes, line: _Line, task: asyncio.Task[User]) -> None:
        line.questions -= 1
        if self._asked.get(digest) is task:
            del self._asked[digest]
        if not task.cancelled():
            task.exception()  # looked at, in case nobody waits for it any more

    def _not_asked(self, now: float) -> KeysUnavailableError:
        wait = self._breaker.retry_after(now)
        return KeysUnavailableError(f"{self._shown} has failed lately and is not asked", wait)

    async def _run(self, digest: bytes, token: bytes, line: _Line, *, probing: bool) -> User:
        try:
            async with asyncio.timeout(TIMEOUT):
                await line.turns.acquire()
        except TimeoutError:
            raise self._overloaded("too many tokens are to be asked about, or it is too slow") from None
        try:
            if self._breaker.is_open and not probing:  # since it waited
                raise self._not_asked(time.monotonic())
            answer = await self._ask(token, probing=probing)
        finally:
            line.turns.release()
        self._works()
        now = self._clock()
        try:
            user = self.policy.user(answer, now)
        except TokenError as error:
            self._cache.refuse(digest, error.reason, now)
            raise
        self._cache.accept(digest, user, now)
        return user

    async def _ask(self, token: bytes, *, probing: bool) -> object:
        """What the endpoint answers. Whatever a client fails with, or who makes it, nothing was answered."""
        try:
            async with asyncio.timeout(TIMEOUT):
                return await self._post(await self._connected(), token)
        except _OddTokenError as error:
            raise self._unanswered(error) from None
        except Exception as error:  # noqa: BLE001 - see above
            raise self._failed(error, probing=probing) from None

    def _works(self) -> None:
        if self._breaker.succeeded():
            logger.warning("%s can be asked about tokens again", self._shown)

    def _unanswered(self, error: Exception) -> KeysUnavailableError:
        """The error for a token that is not answered for. It says nothing of others: any client can send such a one."""
        self._works()
        if (now := time.monotonic()) >= self._quiet_until:
            self._quiet_until = now + QUIET
            logger.warning("%s does not answer for a token: %s", self._shown, error)
        return _UnansweredError(f"{self._shown} does not answer for this token: {error}", 1)

    def _overloaded(self, what: str) -> KeysUnavailableError:
        """The error for a token whose turn does not come: an answer of before counts instead, if there is one."""
        if (now := time.monotonic()) >= self._quiet_on_overload_until:
            self._quiet_on_overload_until = now + QUIET
            logger.warning("%s: %s; what it said before counts, as far as that may", self._shown, what)
        return KeysUnavailableError(what, 1)

    def _failed(self, error: Exception, *, probing: bool) -> KeysUnavailableError:
        """The error for a token without an answer. What was under way when the breaker opened does not count.

        The log is told of the one that opens the breaker, and of a first one, after which there may be none for long.
        """
        now, told = time.monotonic(), why(error)
        fault = None if isinstance(error, EXPECTED) else error
        if (probing or not self._breaker.is_open) and self._breaker.failed(now):
            logger.error("%s cannot be asked about tokens: %s", self._shown, told, exc_info=fault)
        elif not self._breaker.is_open and now >= self._quiet_on_failures_until:
            self._quiet_on_failures_until = now + QUIET
            logger.warning("%s could not be asked about a token: %s", self._shown, told, exc_info=fault)
        return KeysUnavailableError(f"{self._shown} cannot be asked: {told}", self._breaker.retry_after(now) or 1)

    def _enter(self) -> None:
        """Begin anew in another event loop: connections and queues belong to the one that they began in."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._http, self._loop = None, loop
            self._lines = {known: _Line() for known in (True, False)}

    async def _connected(self) -> httpx.AsyncClient:
        """The HTTP client of this event loop. Where somebody else has closed it, another one is made."""
        if self._http is None or self._http.is_closed:
            client = await made(self._client)
            if self._http is not None and not self._http.is_closed:
                await client.aclose()  # another request was faster
                return self._http
            self._http = client
        return self._http

    async def _post(self, client: httpx.AsyncClient, token: bytes) -> object:
        form = {"token": token.decode("ascii"), "token_type_hint": "access_token"}
        async with client.stream(
            "POST", self.url, data=form, auth=self._auth, headers=HEADERS, follow_redirects=False
        ) as response:
            if response.status_code in ABOUT_THE_TOKEN:
                raise _OddTokenError(f"it answered {response.status_code}")
            if response.status_code == 401:
                raise ValueError(UNKNOWN_CLIENT)
            return await read_json(response, MAX_BODY)
