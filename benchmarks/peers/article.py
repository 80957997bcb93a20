"""A stack as articles on FastAPI in production sketch it, mended only as far as it runs.

Three function middlewares (each a BaseHTTPMiddleware) for the request's id, the security headers and a JSON log line,
Starlette's CORS, PyJWT in a dependency at each request, and a token bucket in Redis by a client for each request: TIME,
then a script over a hash of two fields. Without a Redis the bucket is a dict of this process.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any

import httpx
import jwt
import redis.asyncio
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from starlette.middleware.cors import CORSMiddleware

from benchmarks import subjects

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BUCKET = """
local held = redis.call('HMGET', KEYS[1], 'tokens', 'time')
local now = tonumber(ARGV[1])
local tokens = tonumber(held[1]) or tonumber(ARGV[3])
local since = tonumber(held[2]) or now
tokens = math.min(tonumber(ARGV[3]), tokens + math.max(0, now - since) * tonumber(ARGV[2]))
local admitted = tokens >= 1
if admitted then tokens = tokens - 1 end
redis.call('HMSET', KEYS[1], 'tokens', tokens, 'time', now)
redis.call('EXPIRE', KEYS[1], 3600)
return admitted and 1 or 0
"""
KEYS_SECONDS = 600
SECURITY = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "strict-origin-when-cross-origin",
    "strict-transport-security": "max-age=31536000; includeSubDomains",
}


class Buckets:
    """Token buckets, by name, in this process."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[float, float]] = {}

    async def take(self, names: tuple[str, ...], token_id: str) -> bool:
        """Take from each; nothing is known of revoked tokens."""
        now = time.time()
        for name in names:
            tokens, since = self._held.get(name, (float(subjects.BURST), now))
            tokens = min(subjects.BURST, tokens + (now - since) * subjects.RATE)
            if tokens < 1:
                return False
            self._held[name] = (tokens - 1, now)
        return True


class RedisBuckets:
    """The same in Redis, and the list of revoked tokens, by a client for each request or one for all."""

    def __init__(self, url: str, *, one_client: bool) -> None:
        self._url = url
        self._client: Any = redis.asyncio.Redis.from_url(url) if one_client else None

    async def take(self, names: tuple[str, ...], token_id: str) -> bool:
        """Look the token up, ask for the time, and take from each."""
        client: Any = redis.asyncio.Redis.from_url(self._url) if self._client is None else self._client
        try:
            if await client.get(f"denylist:{token_id}"):
                return False
            for name in names:
                seconds, micros = await client.time()
                now = seconds + micros / 1e6
                if not await client.eval(BUCKET, 1, f"bucket:{name}", now, subjects.RATE, subjects.BURST):
                    return False
            return True
        finally:
            if self._client is None:
                await client.aclose()


class Keys:
    """The issuer's keys, fetched again when they are old."""

    def __init__(self, issuer: str) -> None:
        self._url = f"{issuer}/jwks.json"
        self._keys: dict[str, Any] = {}
        self._until = 0.0

    async def get(self) -> dict[str, Any]:
        """Keys by their ids."""
        if time.time() >= self._until:
            async with httpx.AsyncClient() as client:
                found = (await client.get(self._url)).json()
            self._keys = {jwk["kid"]: jwt.PyJWK(jwk) for jwk in found["keys"]}
            self._until = time.time() + KEYS_SECONDS
        return self._keys


class JSONFormatter(logging.Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record, with what the middleware added to it."""
        line = {
            "timestamp": self.formatTime(record),
            "level": record.levelname,
            "message": record.getMessage(),
            **{name: getattr(record, name, None) for name in ("request_id", "route", "status", "duration_ms")},
        }
        return json.dumps(line)


def build(issuer: str, audience: str, store: str | None, *, one_client: bool = False) -> Any:
    """The stack around FastAPI's endpoint.

    Args:
        issuer: the URL of the tokens' issuer.
        audience: the tokens' audience.
        store: the URL of a Redis; None counts in memory and looks up no revocation.
        one_client: whether all requests share a client of it.
    """
    keys = Keys(issuer)
    buckets = Buckets() if store is None else RedisBuckets(store, one_client=one_client)

    async def claims(request: Request) -> dict[str, Any]:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        try:
            key = (await keys.get())[jwt.get_unverified_header(token)["kid"]]
            found = jwt.decode(token, key, algorithms=["RS256"], audience=audience, issuer=issuer)
        except (jwt.PyJWTError, KeyError) as error:
            raise HTTPException(401, type(error).__name__) from error
        return dict(found)

    async def limited(request: Request, claims: dict[str, Any] = Depends(claims)) -> None:  # noqa: B008 - as FastAPI has it
        address = request.client.host if request.client else ""
        if not await buckets.take((f"ip:{address}", f"user:{claims['sub']}"), claims["jti"]):
            raise HTTPException(429, headers={"retry-after": "30"})

    app = FastAPI()

    @app.get("/items/{item}", dependencies=[Depends(limited)])
    async def read(item: int, page: int = 1) -> dict[str, int]:
        return {"item": item, "page": page}

    app.add_middleware(
        CORSMiddleware, allow_origins=[subjects.ORIGIN], allow_credentials=True, expose_headers=["x-request-id"]
    )
    _add_functions(app)
    return app


def _add_functions(app: FastAPI) -> None:
    logger = logging.getLogger("article")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JSONFormatter())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)

    @app.middleware("http")
    async def secured(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call(request)
        response.headers.update(SECURITY)
        return response

    @app.middleware("http")
    async def logged(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        started = time.perf_counter()
        response = await call(request)
        extra = {
            "request_id": request.state.request_id,
            "route": request.url.path,
            "status": response.status_code,
            "duration_ms": (time.perf_counter() - started) * 1000,
        }
        logger.info("request", extra=extra)
        return response

    @app.middleware("http")
    async def named(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        request.state.request_id = request.headers.get("x-request-id") or uuid.uuid4().hex
        response = await call(request)
        response.headers["x-request-id"] = request.state.request_id
        return response
