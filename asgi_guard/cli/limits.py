"""`asgi-guard limits`: what is left of a client's limits, who has the least left, and to fill a bucket again."""

from __future__ import annotations

import asyncio
import re
from heapq import nsmallest
from typing import TYPE_CHECKING, Any

import click
from redis.exceptions import RedisClusterException, RedisError

from asgi_guard.cli.configured import Configured, app_option, configured
from asgi_guard.cli.output import dump, say, table
from asgi_guard.configuration.variables import PREFIX
from asgi_guard.errors import ConfigError, Problem, with_cause
from asgi_guard.middleware import IdentityMiddleware
from asgi_guard.policy.address import limit_key, parse_address
from asgi_guard.policy.identity import store_key
from asgi_guard.policy.rates import KEY_KINDS, SECOND, Limit
from asgi_guard.revocation import lives_of
from asgi_guard.stores import ClusterStore, RedisStore, operate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable

    from asgi_guard.stores.operate import Found

_NUMBERS = re.compile(r"[\d.:/]+")
"""What can be no more than a misspelt address; other names stand for clients whose address the server does not tell."""
PATIENCE = 60.0
"""Seconds that the store may take: looking through millions of buckets takes a while."""

KEY_HELP = (
    "KEY is ip:ADDRESS, user:SUBJECT, api-key:NAME, route:PATH of a row, header:NAME=VALUE, FUNCTION:TEXT for a limit "
    "function of --app, or a name as `top` prints it."
)


@click.group()
def limits() -> None:
    """Look into the limits of the store, and fill buckets again."""


@limits.command(help=f"Show what is left of each limit of a client.\n\n{KEY_HELP}")
@click.argument("key")
@app_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def show(ctx: click.Context, key: str, *, app: str | None, as_json: bool) -> None:
    """Show one client."""
    here = configured(app)
    rules = _rules(here)
    client, names = _buckets(key, here, rules)
    found = _ask(ctx, here, lambda redis, prefix: operate.look(redis, prefix, names))
    # Which limits a client is under is known by what it was charged: the others are full, or not its own.
    _print([each for each in found if each.reset or each.under_way], rules, f"limits of {client}", as_json=as_json)


@limits.command(help=f"Fill every bucket of a client, and forget its requests under way.\n\n{KEY_HELP}")
@click.argument("key")
@app_option
@click.pass_context
def reset(ctx: click.Context, key: str, *, app: str | None) -> None:
    """Fill the buckets of one client."""
    here = configured(app)
    client, names = _buckets(key, here, _rules(here))
    count = _ask(ctx, here, lambda redis, prefix: operate.reset(redis, prefix, names))
    if not count:
        say(f"none of the limits of {client} had been used", "green")
    else:
        used = "1 limit" if count == 1 else f"{count} limits"
        say(f"{used} of {client} had been used, and {'is' if count == 1 else 'are'} full again", "green")
    if count and here.settings.rate.deny_cache:
        say(f"workers that refused this client may go on for {here.settings.rate.deny_cache:g} s", "dim")


@limits.command()
@click.option("--count", default=20, show_default=True, type=click.IntRange(min=1), help="How many to show.")
@app_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def top(ctx: click.Context, *, count: int, app: str | None, as_json: bool) -> None:
    """Show the clients that have the least left, of all in the store.

    Identities are told by their hashes, as the store knows them: `show user:SUBJECT` prints the hash of a subject.
    """
    here = configured(app)
    rules = _rules(here)

    found: list[Found] = []

    async def scan(redis: Any, prefix: str) -> bool:
        try:
            async for each in operate.scan(redis, prefix, PATIENCE):
                found.append(each)  # noqa: PERF401 - what was found until then counts, when the time is over
        except TimeoutError:
            if not found:
                raise
            return False
        return True

    whole = _ask(ctx, here, scan, PATIENCE + 2 * operate.LAST)
    emptiest = nsmallest(count, found, key=lambda each: (_share(each, rules), -each.reset))
    _print(emptiest, rules, "the emptiest buckets", as_json=as_json)
    if not whole:
        told = f"these are not all: {len(found)} buckets were looked at in {PATIENCE:g} s, and there are more"
        say(told, "yellow", error=True)


def _rules(here: Configured) -> dict[str, Limit]:
    """Every limit that there is, by what its buckets are called."""
    found = {limit.bucket: limit for row in here.limits for each in row.all() for limit in each.limits}
    if not found:
        raise ConfigError([Problem(f"{PREFIX}RATE_LIMIT", "no limit is set, so nobody is counted")])
    return found


def _buckets(key: str, here: Configured, rules: Iterable[str]) -> tuple[str, list[str]]:
    """The client's name in the store, and those of its buckets."""
    client = client_of(key, here)
    return client, [f"{{{client}}}:{bucket}" for bucket in rules]


def client_of(key: str, here: Configured) -> str:
    """The name by which the store knows a client."""
    kind, _, name = key.partition(":")
    if kind == "ip" and name:
        if _NUMBERS.fullmatch(name) and parse_address(name.partition("/")[0]) is None:
            raise click.BadParameter(f"{name!r} is no address", param_hint="KEY")
        return f"ip:{limit_key(name.partition('/')[0], here.settings.rate.ipv6_prefix)}"
    if kind == "route" and name:
        return f"route:{_place(name, here)}"
    if kind == "user" and name:
        return f"token:{store_key('user', *_issuer_and_subject(name, here))}"
    is_hash = len(name) == 32 and set(name) <= set("0123456789abcdef")
    if kind == "header" and "=" in name:
        field, _, value = name.partition("=")
        by_header = (limit.key for limit in _rules(here).values() if limit.key.startswith("header:"))
        _require(f"header:{field.lower()}", {*by_header})
        sent = value.encode("utf-8", "surrogateescape").decode("latin-1")  # as limits read a header's bytes
        return f"header:{store_key(f'header:{field.lower()}', sent)}"
    if name and is_hash:
        return key
    functions = {limit.key for limit in _rules(here).values()} - set(KEY_KINDS)
    if name and kind == "api-key":
        _require(key, {f"api-key:{each.name}" for each in here.settings.auth.api_keys})
    if name and (kind == "api-key" or kind in functions):
        return f"{kind}:{store_key(kind, name)}"
    raise click.BadParameter(KEY_HELP, param_hint="KEY")


def _require(key: str, known: Collection[str]) -> None:
    """See to it that somebody can be meant: of nobody, nothing is used, and a slip of the hand would be told that."""
    if key not in known:
        message = f"nobody is counted as {key}: there are {', '.join(sorted(known)) or 'none'}"
        raise click.BadParameter(message, param_hint="KEY")


def _place(name: str, here: Configured) -> str:
    """A row's name among limits by route: by its path, or as it is."""
    *rows, others = (row.anonymous.place for row in here.limits)
    by_path: dict[str, list[str]] = {}
    for route, place in zip(here.settings.routes, rows, strict=True):
        by_path.setdefault(route.path, []).append(place)
    found = by_path.get(name, [name] if name in (*rows, others) else [])
    if len(found) == 1:
        return found[0]
    if found:
        message = f"there are several rows of {name}: write {' or '.join(f'route:{place}' for place in found)}"
    else:
        known = ", ".join(f"route:{each}" for each in (*by_path, others))
        message = f"there is no row {name}: there are {known}, the last for what no row names"
    raise click.BadParameter(message, param_hint="KEY")


def _issuer_and_subject(name: str, here: Configured) -> tuple[str, str]:
    """Whose subject it is: the same subject of another issuer is someone else."""
    identity = next((layer for layer in here.layers if isinstance(layer, IdentityMiddleware)), None)
    issuers = () if identity is None else tuple(lives_of(identity))
    if not issuers:
        message = f"there are no users, since {PREFIX}AUTH_ISSUER is not set; an API key is api-key:NAME"
        raise click.BadParameter(message, param_hint="KEY")
    if len(issuers) == 1:
        return issuers[0], name
    issuer, _, subject = name.rpartition("#")
    if issuer not in issuers:
        message = f"there are several issuers: write user:ISSUER#SUBJECT, with one of {', '.join(issuers)}"
        raise click.BadParameter(message, param_hint="KEY")
    return issuer, subject


def _ask(
    ctx: click.Context,
    here: Configured,
    ask: Callable[[Any, str], Awaitable[Any]],
    patience: float = PATIENCE,
) -> Any:
    """Ask the store; where it does not answer in so many seconds, say so and end."""
    store = here.store
    if not isinstance(store, RedisStore | ClusterStore):
        message = "each process's memory is its own, and this command's is empty: name a Redis that the workers share"
        raise ConfigError([Problem(f"{PREFIX}STORE_URL", message)])

    async def run() -> Any:
        try:
            async with asyncio.timeout(patience):
                return await ask(store.client(), store.prefix)
        finally:
            await store.aclose()

    try:
        return asyncio.run(run())
    except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
        say(with_cause(f"the store does not answer ({type(error).__name__})", error), "bold red", error=True)
        ctx.exit(1)


def _share(found: Found, rules: dict[str, Limit]) -> float:
    """How much is left, from 0 to 1; a limit that is no longer configured comes last."""
    limit = rules.get(found.bucket)
    return 2.0 if limit is None else _left(found, limit) / limit.burst


def _left(found: Found, limit: Limit) -> int:
    if limit.at_once:
        return max(0, limit.burst - found.under_way)
    return max(0, (limit.capacity - found.reset) // limit.interval)


def _print(found: list[Found], rules: dict[str, Limit], title: str, *, as_json: bool) -> None:
    rows = []
    for each in found:
        limit = rules.get(each.bucket)
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
