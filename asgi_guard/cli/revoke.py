"""`asgi-guard revoke`: put a token among the revoked, or all of a subject or of a session."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from asgi_guard.cli.configured import app_option, configured
from asgi_guard.cli.output import say
from asgi_guard.cli.token import token_given
from asgi_guard.configuration.variables import PREFIX
from asgi_guard.errors import ConfigError, KeysUnavailableError, Problem, StoreUnavailableError, TokenError, with_cause
from asgi_guard.revocation import Revocations, lives_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@click.command()
@click.argument("token", metavar="[TOKEN]", required=False)
@click.option("--subject", help="Revoke every token of this `sub` that was issued until now.")
@click.option("--session", help="Revoke every token of this `sid`.")
@click.option("--issuer", help="Whose subject or session it is, where there are several issuers.")
@click.option(
    "--ttl",
    type=float,
    help="Seconds for which a revocation by subject or session is kept; unless said, as long as the bounds on tokens' "
    "age and life let one be accepted, and 30 days without such bounds.",
)
@app_option
@click.pass_context
def revoke(
    ctx: click.Context,
    token: str | None,
    subject: str | None,
    session: str | None,
    issuer: str | None,
    ttl: float | None,
    app: str | None,
) -> None:
    """Put TOKEN among the revoked ('-' reads it from standard input), or all tokens of a subject or of a session.

    It needs a shared store (ASGI_GUARD_STORE_URL) and ASGI_GUARD_AUTH_REVOCATION=true. Exit code 1 if the token is not
    one that would be accepted anyway, or the store does not answer.
    """
    if sum(given is not None for given in (token, subject, session)) != 1:
        raise click.UsageError("say one of TOKEN, --subject and --session")
    if token is not None and (issuer is not None or ttl is not None):
        raise click.UsageError("a TOKEN says its issuer and its end itself")
    found = configured(app)
    if not found.settings.auth.revocation:
        raise ConfigError([Problem(f"{PREFIX}AUTH_REVOCATION", "it is not true, so nobody would look the token up")])
    identity, store = found.identity, found.store
    if not store.shared:
        message = "this process's memory ends with this command: name a Redis that the workers share"
        raise ConfigError([Problem(f"{PREFIX}STORE_URL", message)])
    revocations = Revocations(store, lives_of(identity))

    async def what() -> str:
        if subject is not None:
            seconds = await revocations.subject(subject, issuer, ttl)
            return f"revoked what was issued to the subject until now, for {seconds:.0f} s"
        if session is not None:
            return f"revoked the session, for {await revocations.session(session, issuer, ttl):.0f} s"
        seconds = await revocations.token(await identity.tokens.verify(token_given(token or "")))
        return f"revoked, for the {seconds:.0f} s until it ends"

    try:
        said = asyncio.run(_closing(what, identity.shutdown, store.aclose))
    except (TokenError, KeysUnavailableError, StoreUnavailableError) as error:
        say(f"not revoked: {with_cause(error, error.__cause__)}", "bold red", error=True)
        ctx.exit(1)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    say(said, "green")


async def _closing(what: Callable[[], Awaitable[str]], *close: Callable[[], Awaitable[None]]) -> str:
    try:
        return await what()
    finally:
        for each in close:
            await each()
