"""What a command looks at: the configuration of the environment, or that of the Guard that an app brings along."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import click

from asgi_guard.apps.inspection import own_root_path
from asgi_guard.apps.loading import load_app, misnamed
from asgi_guard.apps.own_guard import guard_within, own_guard, passing_by, require_servable
from asgi_guard.cli.importing import import_app, outcome
from asgi_guard.configuration.variables import PREFIX
from asgi_guard.errors import ConfigError, Problem
from asgi_guard.guard import Guard, configure
from asgi_guard.middleware import IdentityMiddleware, RateLimitMiddleware
from asgi_guard.middleware.rate_limit import limits_in
from asgi_guard.settings import environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asgi_guard.asgi import ASGIApp
    from asgi_guard.chain.layer import Layer
    from asgi_guard.policy.limit_sets import RouteLimits
    from asgi_guard.settings import GuardSettings
    from asgi_guard.stores import Store

logger = logging.getLogger("asgi_guard")

app_option = click.option(
    "--app",
    metavar="MODULE:ATTRIBUTE",
    help="Look at the Guard that this app has, if it is one: what is set in Python, and its limit functions. Unless "
    f"said, the app that {PREFIX}APP names, if it can be imported here; an empty one for none.",
)


class Configured(NamedTuple):
    """What is in force.

    Attributes:
        settings: the settings.
        layers: what was made of them.
        guard: the app's own guard, if it has one.
        app: the app, where one is looked at.
        unseen: why the one that the environment names is not, or that the one that is looked at has no guard.
        past: what may answer requests that never come to the app's own guard.
        added: whether that guard was added to the app as middleware, and so is not around all of it.
    """

    settings: GuardSettings
    layers: Sequence[Layer]
    guard: Guard | None = None
    app: object = None
    unseen: str = ""
    past: Sequence[str] = ()
    added: bool = False

    @property
    def limits(self) -> Sequence[RouteLimits]:
        """The limits, by row."""
        return limits_in(self.layers, self.settings.routes)

    @property
    def root_path(self) -> str:
        """Where the app will say that it is mounted: paths are matched below it."""
        return own_root_path(self.app)

    @property
    def shared(self) -> bool:
        """Whether other processes see what is kept."""
        store = None if self.guard is None else self.guard.store
        return self.settings.store.shared if store is None else store.shared

    @property
    def identity(self) -> IdentityMiddleware:
        """The Identity layer.

        Raises:
            ConfigError: no issuer is configured.
        """
        for layer in self.layers:
            if isinstance(layer, IdentityMiddleware) and (layer.tokens.verifiers or layer.tokens.introspector):
                return layer
        raise ConfigError([Problem(f"{PREFIX}AUTH_ISSUER", "it is not set, so there is no issuer to ask")])

    @property
    def store(self) -> Store:
        """Where limits and revocations are kept, which one of them has to be for."""
        return next(layer.store for layer in self.layers if isinstance(layer, RateLimitMiddleware))


def configured(app: str | None) -> Configured:
    """What the environment says, or the guard that this app brings along, or the one that the environment names.

    An app that only the environment names may be out of reach here: then what the environment says is looked at alone.
    A name that can be no app's is a problem of the environment all the same.

    Args:
        app: the app; empty for none, whatever the environment names.

    Raises:
        ConfigError: there is no such app, or the configuration has problems.
    """
    name = environment().get("app") if app is None else app
    if not name:
        return Configured(*configure())
    if app is None and (malformed := misnamed(name)):
        raise ConfigError([malformed, *_problems()])
    sys.path.insert(0, str(Path.cwd()))
    if app:
        with redirect_stdout(sys.stderr):  # standard output is for the command's own answer
            named = import_app(app, "--app")
        return _around(named, app)
    try:
        with _quietly():
            found = load_app(name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever an app may raise where it is not at home
        why = str(error) if isinstance(error, ConfigError) else f"importing it {outcome(error)}"
        return Configured(*configure(), unseen=f"{PREFIX}APP={name} was not looked at: {why}")
    return _around(found)


def _problems() -> Sequence[Problem]:
    """What else is wrong with the environment."""
    try:
        configure()
    except ConfigError as error:
        return error.problems
    return ()


def _around(found: object, named: str = "") -> Configured:
    """What an app's own guard does, or what the environment's would around it.

    Args:
        found: the app.
        named: its name, where someone gave it here, and not for a guard to be put around it.

    Raises:
        ConfigError: it cannot be served, or the configuration has problems.
    """
    require_servable(found)
    guard, past = own_guard(found), passing_by(found)
    if named and guard is None:  # it may stand where only some requests come to
        guard = guard_within(found)
    if isinstance(guard, Guard):
        return Configured(guard.settings, guard.layers, guard, guard.app, past=past)
    if guard is not None:
        with _quietly():  # what it would warn of is told by whoever looks at it
            made = guard(cast("ASGIApp", found))
        return Configured(made.settings, made.layers, made, found, past=past, added=True)
    unseen = ""
    if named:
        unseen = (
            f"{named} is no Guard: this is what `asgi-guard run {named}` does, and `uvicorn {named}` serves it bare"
        )
    return Configured(*configure(), app=found, unseen=unseen, past=past)


@contextmanager
def _quietly() -> Iterator[None]:
    """Have what is imported write to nowhere that a command's own answer goes, and its guard warn of nothing twice."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        logger.setLevel(level)
