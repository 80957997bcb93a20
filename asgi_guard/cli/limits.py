"""`asgi-guard limits`: what is left of a client's limits, who has the least left, and to fill a bucket again."""

from __future__ import annotations

import asyncio
from heapq import nsmallest
from typing import TYPE_CHECKING, Any

import click
from redis.exceptions import RedisError

from asgi_guard.cli.output import dump, say, table, with_cause
from asgi_guard.errors import ConfigError, Problem
from asgi_guard.guard import configure
from asgi_guard.middleware import RateLimitMiddleware
from asgi_guard.policy.address import limit_key, parse_address
from asgi_guard.policy.identity import store_key
from asgi_guard.policy.plans import compile_table
from asgi_guard.policy.rates import SECOND, Limit
from asgi_guard.stores import operate
from asgi_guard.variables import PREFIX

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asgi_guard.settings import GuardSettings
    from asgi_guard.stores.operate import Found

PATIENCE = 60.0
"""Seconds that the store may take: looking through millions of buckets takes a while."""

KEY_HELP = "KEY is ip:ADDRESS, user:SUBJECT, api-key:NAME, route:NAME, header:NAME=VALUE, or a name as `top` prints it."


@click.group()
def limits() -> None:
    """Look into the limits of the store, and fill buckets again."""


@limits.command(help=f"Show what is left of each limit of a client.\n\n{KEY_HELP}")
@click.argument("key")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def show(ctx: click.Context, key: str, *, as_json: bool) -> None:
    """Show one client."""
    settings, rules = _rules()
    client = client_of(key, settings)
    names = [f"{{{client}}}:{name}" for name in rules]
    found = _ask(ctx, lambda redis, prefix: operate.look(redis, prefix, names))
    # Which limits a client is under is known by what it was charged: the others are full, or not its own.
    _print([each for each in found if each.reset or each.under_way], rules, f"limits of {client}", as_json=as_json)


@limits.command(help=f"Fill every bucket of a client, and forget its requests under way.\n\n{KEY_HELP}")
@click.argument("key")
@click.pass_context
def reset(ctx: click.Context, key: str) -> None:
    """Fill the buckets of one client."""
    settings, rules = _rules()
    client = client_of(key, settings)
    names = [f"{{{client}}}:{name}" for name in rules]
    count = _ask(ctx, lambda redis, prefix: operate.reset(redis, prefix, names))
    say(f"{count} of the limits of {client} had been used; they are full again", "green")
    if count and settings.rate.deny_cache:
        say(f"workers that refused this client may go on for {settings.rate.deny_cache:g} s", "dim")


@limits.command()
@click.option("--count", default=20, show_default=True, type=click.IntRange(min=1), help="How many to show.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def top(ctx: click.Context, *, count: int, as_json: bool) -> None:
    """Show the clients that have the least left, of all in the store.

    Identities are told by their hashes, as the store knows them: `show user:SUBJECT` prints the hash of a subject.
    """
    _, rules = _rules()

    async def scan(redis: Any, prefix: str) -> list[Found]:
        found = [each async for each in operate.scan(redis, prefix)]
        return nsmallest(count, found, key=lambda each: (_share(each, rules), -each.reset))

    _print(_ask(ctx, scan), rules, "the emptiest buckets", as_json=as_json)


def _rules() -> tuple[GuardSettings, dict[str, Limit]]:
    """The settings, and every limit that they name."""
    settings, _ = configure()
    compiled = compile_table(settings.rate.limit, settings.routes, plans=settings.rate.plans)
    found = {limit.name: limit for plans in compiled for plan in plans.all() for limit in plan.limits}
    if not found:
        raise ConfigError([Problem(f"{PREFIX}RATE_LIMIT", "no limit is set, so nobody is counted")])
    return settings, found


def client_of(key: str, settings: GuardSettings) -> str:
    """The name by which the store knows a client."""
    kind, _, name = key.partition(":")
    if kind == "ip" and name:
        if parse_address(name.partition("/")[0]) is None:
            raise click.BadParameter(f"{name!r} is no address", param_hint="KEY")
        return f"ip:{limit_key(name.partition('/')[0], settings.rate.ipv6_prefix)}"
    if kind == "user" and name:
        issuers = settings.auth.trusted
        if not issuers:
            raise click.BadParameter(f"there are no users: {PREFIX}AUTH_ISSUER is not set", param_hint="KEY")
        if len(issuers) > 1:
            # The same subject of another issuer is someone else.
            issuer, _, name = name.rpartition("#")
            if issuer not in {each.issuer for each in issuers}:
                raise click.BadParameter("there are several issuers: write user:ISSUER#SUBJECT", param_hint="KEY")
            return f"token:{store_key('user', issuer, name)}"
        return f"token:{store_key('user', issuers[0].issuer, name)}"
    is_hash = len(name) == 32 and set(name) <= set("0123456789abcdef")
    if kind == "api-key" and name and not is_hash:
        return f"api-key:{store_key('api-key', name)}"
    if kind == "header" and "=" in name:
        field, _, value = name.partition("=")
        return f"header:{store_key(f'header:{field.lower()}', value)}"
    if name and (is_hash or kind == "route"):
        return key
    raise click.BadParameter(KEY_HELP, param_hint="KEY")


def _ask(ctx: click.Context, ask: Callable[[Any, str], Awaitable[Any]]) -> Any:
    """Ask the store; where it does not answer, say so and end."""
    settings, layers = configure()
    store: Any = next(layer.store for layer in layers if isinstance(layer, RateLimitMiddleware))
    if not store.shared:
        message = "each process's memory is its own, and this command's is empty: name a Redis that the workers share"
        raise ConfigError([Problem(f"{PREFIX}STORE_URL", message)])

    async def run() -> Any:
        try:
            async with asyncio.timeout(PATIENCE):
                return await ask(store.client(), settings.store.prefix)
        finally:
            await store.aclose()

    try:
        return asyncio.run(run())
    except (RedisError, OSError, TimeoutError) as error:
        say(with_cause(f"the store does not answer ({type(error).__name__})", error), "bold red", error=True)
        ctx.exit(1)


def _share(found: Found, rules: dict[str, Limit]) -> float:
    """How much is left, from 0 to 1; a limit that is no longer configured comes last."""
    limit = rules.get(found.limit)
    return 2.0 if limit is None else _left(found, limit) / limit.burst


def _left(found: Found, limit: Limit) -> int:
    if limit.at_once:
        return max(0, limit.burst - found.under_way)
    return max(0, (limit.capacity - found.reset) // limit.interval)


def _print(found: list[Found], rules: dict[str, Limit], title: str, *, as_json: bool) -> None:
    rows = []
    for each in found:
        limit = rules.get(each.limit)
        rows.append(
            {
                "client": each.client,
                "limit": each.limit,
                "left": None if limit is None else _left(each, limit),
                "of": None if limit is None else limit.burst,
                "under_way": each.under_way,
                "full_in_seconds": -(-each.reset // SECOND),
            }
        )
    if as_json:
        dump(rows)
        return
    if not rows:
        say(f"{title}: nothing is used")
        return
    cells = [
        (
            row["client"],
            row["limit"],
            "no longer configured" if row["of"] is None else f"{row['left']} of {row['of']} left",
            f"{row['under_way']} under way" if row["under_way"] else f"full in {row['full_in_seconds']} s",
        )
        for row in rows
    ]
    table(("client", "limit", "", ""), [tuple(map(str, row)) for row in cells], title)
