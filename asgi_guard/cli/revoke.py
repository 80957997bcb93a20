"""`asgi-guard revoke`: put a token among the revoked, for the rest of its life."""

from __future__ import annotations

import asyncio
import time

import click

from asgi_guard.cli.output import say
from asgi_guard.cli.token import identity_of, token_given
from asgi_guard.errors import ConfigError, KeysUnavailableError, Problem, StoreUnavailableError, TokenError
from asgi_guard.guard import configure
from asgi_guard.middleware import IdentityMiddleware, RateLimitMiddleware
from asgi_guard.stores import Store
from asgi_guard.variables import PREFIX


@click.command()
@click.argument("token", metavar="TOKEN")
@click.pass_context
def revoke(ctx: click.Context, token: str) -> None:
    """Put TOKEN among the revoked; '-' reads it from standard input.

    It needs a shared store (ASGI_GUARD_STORE_URL) and ASGI_GUARD_AUTH_REVOCATION=true. Exit code 1 if the token is not
    one that would be accepted anyway, or the store does not answer.
    """
    settings, layers = configure()
    if not settings.auth.revocation:
        raise ConfigError([Problem(f"{PREFIX}AUTH_REVOCATION", "it is not true, so nobody would look the token up")])
    identity = identity_of(layers)
    store = next(layer.store for layer in layers if isinstance(layer, RateLimitMiddleware))
    if not store.shared:
        message = "this process's memory ends with this command: name a Redis that the workers share"
        raise ConfigError([Problem(f"{PREFIX}STORE_URL", message)])
    try:
        seconds = asyncio.run(_revoke(identity, store, token_given(token)))
    except (TokenError, KeysUnavailableError, StoreUnavailableError) as error:
        say(f"not revoked: {error}", "bold red", error=True)
        ctx.exit(1)
    say(f"revoked, for the {seconds:.0f} s that it would have been accepted", "green")


async def _revoke(identity: IdentityMiddleware, store: Store, value: bytes) -> float:
    try:
        user = await identity.verify(value)
        assert user.token_id is not None  # noqa: S101 - where revocation is on, no token without jti is verified
        seconds = user.expires - time.time()
        await store.revoke(user.token_id, seconds)
        return seconds
    finally:
        await identity.shutdown()
        await store.aclose()
