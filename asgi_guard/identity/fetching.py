"""How an issuer's servers are asked, for keys and about tokens: at which URLs, by which client, for how much."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

from asgi_guard.configuration.variables import PREFIX
from asgi_guard.policy.address import is_loopback

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from types import TracebackType

TIMEOUT = 3.0
"""Seconds for one answer, all that it takes included; redirects are not followed."""
HEADERS = {"accept": "application/json", "accept-encoding": "identity"}
"""Not compressed: what a small answer could grow to is not known before it has grown."""
EXPECTED = (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError, ValueError)
"""What asking fails with when the fault is the issuer's or the network's."""
NEW_EACH = "each call of http_client has to make a new one, which the guard closes"


_ours: ContextVar[bool] = ContextVar("asgi_guard_asks", default=False)
"""Whether a client of ours sends a request: nothing is taken from the log of an app's own."""


def _without_query(record: logging.LogRecord) -> bool:
    """Leave the query out of the URL in a line of httpx's log, if the line is on a request of ours."""
    if _ours.get() and isinstance(record.args, tuple):
        record.args = tuple(public_url(str(each)) if isinstance(each, httpx.URL) else each for each in record.args)
    return True


class _Client(httpx.AsyncClient):
    """A client that goes by the proxies of the environment (`HTTP_PROXY` and its kin), but not to this machine itself.

    What is said to loopback may be said over http, since nobody on the network can stand in for it; a proxy could.

    httpx has a line for each request in its own log, at INFO, with the URL. Its query may be a secret: it is left out.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._direct = httpx.AsyncClient(**options, trust_env=False)
        logging.getLogger("httpx").addFilter(_without_query)  # which is there once, however often it is added

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        ours = _ours.set(True)
        try:
            if is_loopback(request.url.host):
                return await self._direct.send(request, **options)
            return await super().send(request, **options)
        finally:
            _ours.reset(ours)

    async def aclose(self) -> None:
        await self._direct.aclose()
        await super().aclose()

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        await self._direct.aclose()
        await super().__aexit__(kind, error, trace)


def default_client() -> httpx.AsyncClient:
    """A client as it is made unless a user makes another."""
    return _Client(
        timeout=TIMEOUT, follow_redirects=False, headers={"user-agent": "asgi-guard"}, verify=_trusted_certificates()
    )


@lru_cache(maxsize=1)
def _trusted_certificates() -> ssl.SSLContext:
    """Loading the CA bundle takes tens of milliseconds: once is enough."""
    return httpx.create_ssl_context()


async def made(client: Callable[[], httpx.AsyncClient]) -> httpx.AsyncClient:
    """Make the client: the usual one in a thread, for the first takes some 200 ms, by its imports and certificates.

    A user's own is made here, for it may want this event loop.

    Raises:
        ValueError: a user's own was closed before; whatever else making it raises is raised on.
    """
    if client is default_client:
        return await asyncio.to_thread(default_client)
    own = client()
    if own.is_closed:
        raise ValueError(f"the client is closed: {NEW_EACH}")
    return own


@asynccontextmanager
async def opened(client: Callable[[], httpx.AsyncClient]) -> AsyncIterator[httpx.AsyncClient]:
    """Make the client for a while; raises as `made`, and likewise for one that is in use."""
    async with AsyncExitStack() as stack:
        own = await made(client)
        try:
            await stack.enter_async_context(own)
        except RuntimeError as error:  # httpx's, before it opens anything
            raise ValueError(f"{error} {NEW_EACH}") from error
        yield own


def check_url(url: str, *, query: bool = False) -> str:
    """Return a URL that keys may be fetched from, or tokens be asked about.

    Args:
        url: an issuer's identifier, or where it answers.
        query: whether it may have one: an identifier may not, and some issuers tell their key sets apart by it.

    Raises:
        ValueError: it is not https (or http to loopback), or holds user information, a query or a fragment; or it is
            several, or where an issuer's keys are discovered, or its port is none.
    """
    parts = urlsplit(url)
    if "," in parts.netloc or any(character.isspace() for character in url):
        raise ValueError("this is no single URL: write one, without spaces and commas")
    if not query and "/.well-known/" in parts.path:
        raise ValueError("an issuer is what stands before /.well-known/, where its keys are looked for")
    if not parts.hostname or parts.username is not None or parts.fragment or (parts.query and not query):
        also = "" if query else ", query"
        raise ValueError(f"write a plain URL: https://host/path, without user{also} or fragment")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        raise ValueError("use https: over http, whoever is on the network could put their own keys there")
    if not has_sound_port(url):
        raise ValueError("a port is a number from 1 to 65535")
    return url


def has_sound_port(url: str) -> bool:
    """Whether a URL's port can be one, or is left out."""
    try:
        return urlsplit(url).port != 0
    except ValueError:  # which quotes what stands there, and that may be a password without its @
        return False


def check_name(issuer: str) -> None:
    """See to it that this may be an issuer's identifier, which nothing is fetched by: any text (RFC 7519 4.1.1).

    Raises:
        ValueError: it is none, or what is probably not meant: several, or where keys are discovered.
    """
    if not issuer or not issuer.isprintable():
        raise ValueError("write what iss says in its tokens, letter by letter")
    if issuer.count("://") > 1:
        raise ValueError(f"these are several issuers: write one, and the others into {PREFIX}AUTH_ISSUERS")
    if "/.well-known/" in issuer:
        before = issuer.partition("/.well-known/")[0]
        raise ValueError(f"an issuer is what iss says, which stands before /.well-known/: write {before}")


def public_url(url: str) -> str:
    """A URL as errors and the log tell of it: without user, password and query, any of which may be a secret."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{'***@' if '@' in parts.netloc else ''}{host}{parts.path}"


async def read_json(response: httpx.Response, most: int) -> Any:
    """Read the document of a response that is under way.

    Args:
        response: to a request with `HEADERS`.
        most: bytes that it may have.

    Raises:
        ValueError: its status is not 200, it is compressed, too large, or no JSON. The text says which, and of whom.
    """
    url = public_url(str(response.request.url))
    if response.status_code != 200:
        raise ValueError(f"{url} answered {response.status_code}")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise ValueError(f"{url} answered with a content-encoding that it was not asked for")
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > most:
            raise ValueError(f"{url} answered more than {most} bytes")
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError(f"{url} answered JSON nested too deep") from None
    except ValueError:
        raise ValueError(f"{url} did not answer JSON") from None


def why(error: Exception) -> str:
    """Why something could not be fetched: what was found wrong here stands for itself, anything else with its type.

    The text may hold what an issuer sent, and so is escaped and cut. Time that has run out has none of its own.
    """
    kind, text = type(error), ascii(str(error)[:640])
    if isinstance(error, TimeoutError | httpx.TimeoutException) and not str(error):
        return f"{kind.__name__}: no answer within {_limit(error):g} s"
    ours = kind is ValueError or kind.__module__.partition(".")[0] == "asgi_guard"
    return text[1:-1] if ours else f"{kind.__name__}: {text}"


def _limit(error: Exception) -> float:
    """Seconds that there were for an answer: those that a user's own client has for it, or ours."""
    try:
        limits = error.request.extensions["timeout"] if isinstance(error, httpx.TimeoutException) else {}
    except (RuntimeError, KeyError):  # what raises it did not say of which request it is
        limits = {}
    return limits.get(type(error).__name__.removesuffix("Timeout").lower()) or TIMEOUT
