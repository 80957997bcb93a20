"""What people assemble today: one well-known package for each job.

asgi-correlation-id, secure's middleware, Starlette's CORS and allowed hosts, asgi-logger, PyJWT in a dependency, and
limits with a hit for each of two windows. With a Redis, a GET of the token's id makes out whether it is revoked.
"""

from __future__ import annotations

from typing import Any

import jwt
import redis.asyncio
from asgi_correlation_id import CorrelationIdMiddleware
from asgi_logger import AccessLoggerMiddleware
from fastapi import Depends, FastAPI, HTTPException, Request
from limits import RateLimitItemPerSecond
from limits.aio import storage, strategies
from secure import Secure
from secure.middleware import SecureASGIMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from benchmarks import subjects


def build(issuer: str, audience: str, store: str | None) -> Any:
    """The stack around FastAPI's endpoint.

    Args:
        issuer: the URL of the tokens' issuer.
        audience: the tokens' audience.
        store: the URL of a Redis; None counts in memory and looks up no revocation.
    """
    keys = jwt.PyJWKClient(f"{issuer}/jwks.json", cache_keys=True, lifespan=600)
    denied: Any = None if store is None else redis.asyncio.Redis.from_url(store, max_connections=100)
    counted: Any
    if store is None:
        counted = storage.MemoryStorage()
    else:
        scheme = "async+redis+unix" if store.startswith("unix:") else "async+redis"
        counted = storage.RedisStorage(f"{scheme}:{store.partition(':')[2]}", implementation="redispy")
    limiter = strategies.FixedWindowRateLimiter(counted)
    window = RateLimitItemPerSecond(subjects.RATE)

    async def user(request: Request) -> str:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise HTTPException(401, headers={"www-authenticate": "Bearer"})
        try:
            key = keys.get_signing_key_from_jwt(token)
            claims = jwt.decode(token, key, algorithms=["RS256"], audience=audience, issuer=issuer)
        except jwt.PyJWTError:
            raise HTTPException(401, headers={"www-authenticate": "Bearer"}) from None
        if denied is not None and await denied.get(f"revoked:{claims['jti']}"):
            raise HTTPException(401)
        return str(claims["sub"])

    async def limited(request: Request, user: str = Depends(user)) -> None:
        address = request.client.host if request.client else ""
        if not await limiter.hit(window, "ip", address) or not await limiter.hit(window, "user", user):
            raise HTTPException(429, headers={"retry-after": "1"})

    app = FastAPI()

    @app.get("/items/{item}", dependencies=[Depends(limited)])
    async def read(item: int, page: int = 1) -> dict[str, int]:
        return {"item": item, "page": page}

    inner: Any = CORSMiddleware(app, allow_origins=[subjects.ORIGIN], expose_headers=["x-request-id"])
    inner = TrustedHostMiddleware(inner, allowed_hosts=[subjects.HOST])
    inner = SecureASGIMiddleware(inner, secure=Secure.with_default_headers())
    inner = AccessLoggerMiddleware(inner)
    return CorrelationIdMiddleware(inner)
