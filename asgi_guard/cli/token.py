"""`asgi-guard token`: a token of the local issuer, or why a token is not accepted."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click
from cryptography.exceptions import UnsupportedAlgorithm

from asgi_guard.cli.configured import app_option, configured
from asgi_guard.cli.options import said
from asgi_guard.cli.output import dump, say
from asgi_guard.configuration.variables import PREFIX
from asgi_guard.errors import ConfigError, KeysUnavailableError, Problem, StoreUnavailableError, TokenError, with_cause
from asgi_guard.policy.address import is_loopback
from asgi_guard.policy.bucket import Admission
from asgi_guard.policy.identity import User
from asgi_guard.policy.vocabulary import DETAILS
from asgi_guard.testing import LocalIssuer

if TYPE_CHECKING:
    from asgi_guard.middleware import IdentityMiddleware
    from asgi_guard.stores import Store

KEY_FILE = Path("~/.local/state/asgi-guard/local-issuer.pem")
LOCAL_ISSUER = "http://127.0.0.1:8001"
LOCAL_AUDIENCE = "demo"

HINTS_OF_CLAIMS = {
    "cnf": f"{PREFIX}AUTH_DPOP and {PREFIX}AUTH_CLIENT_CERT take tokens that are bound to a key or to a certificate",
    "exp": f"have the issuer say when its tokens end, which {PREFIX}AUTH_MAX_TOKEN_LIFETIME asks of opaque ones too",
    "iat": "have the issuer say when its tokens were issued, in seconds: "
    f"{PREFIX}AUTH_MAX_TOKEN_AGE and {PREFIX}AUTH_MAX_TOKEN_LIFETIME count from then",
    "jti": f"have the issuer name its tokens by jti, or leave {PREFIX}AUTH_REVOCATION off",
    "sub": "have the issuer say whose its tokens are by sub; what an introspection endpoint says instead is taken by "
    f"{PREFIX}AUTH_INTROSPECTION_UNSAFE_SUBJECT, at a risk that docs/identity.md tells",
}
"""What to do about a claim that is wrong, where that says more than the reason."""
LONG = 100 * 365 * 24 * 3600
"""Seconds for which no token lives: such an end is written in milliseconds."""


@click.command()
@click.option("--subject", default="alice", show_default=True, help="Whose token it is.")
@click.option("--scope", "scopes", multiple=True, help="A scope that it grants; may be repeated.")
@click.option("--audience", help="Whom it is for; the first of ASGI_GUARD_AUTH_AUDIENCE, else 'demo'.")
@click.option("--issuer", help="Who says so; ASGI_GUARD_AUTH_ISSUER, else the issuer of `asgi-guard demo`.")
@click.option("--lifetime", default=3600, show_default=True, help="Seconds until it ends.")
@click.option(
    "--key", "key_file", type=click.Path(path_type=Path), default=KEY_FILE, show_default=True, help="The key."
)
@click.option("--explain", metavar="TOKEN", help="Say why TOKEN is accepted or not; '-' reads it from standard input.")
@app_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def token(
    ctx: click.Context,
    *,
    subject: str,
    scopes: tuple[str, ...],
    audience: str | None,
    issuer: str | None,
    lifetime: int,
    key_file: Path,
    explain: str | None,
    app: str | None,
    as_json: bool,
) -> None:
    """Sign a token with the local issuer's key, for development; or explain a token.

    The key is that of `asgi-guard demo`; it is made when it is first needed. No other issuer's tokens can be made here,
    and in the name of an issuer that is not on this machine one is made with a warning.
    With --explain, the token is judged as the guard of this environment, or that of --app, would judge it, and the
    first reason is told; with revocation on, the store is asked too. Exit code 1 if it is not accepted.
    """
    if explain is not None and (
        ignored := said(ctx, "subject", "scopes", "audience", "issuer", "lifetime", "key_file")
    ):
        raise click.UsageError(
            f"--explain judges a token that there is, and makes none: leave out {', '.join(ignored)}"
        )
    if not subject.strip():
        raise click.BadParameter("a token is somebody's: name whose", param_hint="--subject")
    given = None if explain is None else token_given(explain)
    found = configured(app)
    settings = found.settings
    if given is not None:
        revoked = found.store if settings.auth.revocation else None
        ctx.exit(_explain(found.identity, revoked, given, as_json=as_json))
    local = local_issuer(
        key_file,
        url=issuer or next((each.issuer for each in settings.auth.trusted), LOCAL_ISSUER),
        audience=audience
        or next((name for each in settings.auth.trusted for name in each.audience or ()), LOCAL_AUDIENCE),
    )
    signed = local.token(subject, scopes=scopes, lifetime=lifetime)
    if not _of_this_machine(local.url):
        say(
            f"warning: {local.url} does not publish the key that this token is signed by, so whoever asks it refuses "
            f"the token; for the guard of `asgi-guard demo` say --issuer {LOCAL_ISSUER} --audience {LOCAL_AUDIENCE}",
            "yellow",
            error=True,
        )
    if as_json:
        dump({"token": signed, "issuer": local.url, "audience": local.audience, "subject": subject, "scopes": scopes})
    else:
        click.echo(signed)


def _of_this_machine(url: str) -> bool:
    """Whether an issuer of this URL may be a local one: those are served over http."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "http" and is_loopback(parts.hostname or "")


def local_issuer(key_file: Path, **options: Any) -> LocalIssuer:
    """The local issuer with the key of this file, which is made if it is not there.

    Raises:
        ConfigError: the file cannot be used.
    """
    try:
        return LocalIssuer.load(key_file.expanduser(), **options)
    except OSError as error:
        raise ConfigError([Problem(str(key_file), f"the key cannot be read or made: {error.strerror}")]) from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        message = (
            "it does not hold an RSA key as unencrypted PEM: name another file, or remove it and a new one is made"
        )
        raise ConfigError([Problem(str(key_file), message)]) from None


def token_given(argument: str) -> bytes:
    """The token of an argument, or of standard input for `-`, as the guard would find it behind the scheme.

    Raises:
        UsageError: nothing comes from there.
    """
    value = sys.stdin.buffer.read() if argument == "-" else os.fsencode(argument)
    if argument == "-" and not value.strip():
        raise click.UsageError("nothing was read from standard input, where - says that the token is")
    return value.strip().removeprefix(b"Bearer ").removeprefix(b"DPoP ")


def _explain(identity: IdentityMiddleware, store: Store | None, value: bytes, *, as_json: bool) -> int:
    try:
        user, needs = asyncio.run(_verify(identity, store, value))
    except TokenError as error:
        if as_json:
            dump({"accepted": False, "reason": error.reason, "detail": error.detail})
        else:
            say(f"not accepted ({error.reason}): {error.detail}", "bold red")
            of_claim = HINTS_OF_CLAIMS.get(error.detail.partition(" ")[0]) if error.reason == "claim" else None
            say(f"what to do: {of_claim or DETAILS[error.reason].advice}")
        return 1
    except (KeysUnavailableError, StoreUnavailableError) as error:
        reason = "keys_unavailable" if isinstance(error, KeysUnavailableError) else "store_unavailable"
        detail = with_cause(error, error.__cause__)
        if as_json:
            dump({"accepted": None, "reason": reason, "detail": detail})
        else:
            say(f"it cannot be judged: {detail}", "bold red")
        return 1
    left = None if user.expires is None else round(user.expires - time.time())
    if as_json:
        told = {"accepted": True, "subject": user.subject, "scopes": user.scopes, "seconds_left": left}
        dump({**told, "needs": needs})
    else:
        ends = "as long as the issuer calls it active" if left is None else f"for {left} s more"
        say(f"accepted: {user.subject!r} of {user.issuer}, {ends}", "green")
        say(f"scopes: {' '.join(user.scopes) or 'none'}")
        if left is not None and left > LONG:
            bound = f"{PREFIX}AUTH_MAX_TOKEN_LIFETIME refuses such tokens"
            say(f"its exp seems to count milliseconds, where seconds are meant (RFC 7519 4.1.4); {bound}", "yellow")
        for need in needs:
            say(f"only with {need}", "yellow")
        if store is not None and not store.shared:
            say("what was revoked stands in the memory of each worker, which is not seen from here", "yellow")
    return 0


async def _verify(identity: IdentityMiddleware, store: Store | None, value: bytes) -> tuple[User, tuple[str, ...]]:
    """Whose token it is, and what has to be shown besides."""
    try:
        user = await identity.tokens.verify(value)
        needs = identity.possession.needs(user)
        if store is not None:
            verdict = await store.admit(Admission((), user.token_id, marks=user.marks))
            if verdict.revoked:
                raise TokenError("token_revoked", "the store has it, its session or its subject among the revoked")
        return user, needs
    finally:
        await identity.shutdown()
        if store is not None:
            await store.aclose()
