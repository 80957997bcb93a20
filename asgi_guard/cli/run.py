"""`asgi-guard run`: an app behind the guard, under uvicorn."""

from __future__ import annotations

import logging
import logging.config
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asgi_guard.apps.own_guard import guarded, own_guard
from asgi_guard.cli.addresses import require_address, require_socket
from asgi_guard.cli.importing import import_app
from asgi_guard.cli.options import said
from asgi_guard.cli.server_log import listening, log_config
from asgi_guard.cli.workers import run_workers
from asgi_guard.configuration.variables import PREFIX
from asgi_guard.errors import ConfigError, Problem
from asgi_guard.guard import Guard, no_app
from asgi_guard.settings import WORKERS, workers_said

if TYPE_CHECKING:
    from types import ModuleType

    from asgi_guard.asgi import ASGIApp


logger = logging.getLogger("asgi_guard")


def server() -> ModuleType:
    """The server that the extra `server` installs.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import uvicorn
    except ImportError:
        raise ConfigError([Problem("uvicorn", "it is not installed: pip install 'asgi-guard[server]'")]) from None
    return uvicorn


def end_well_on_signals() -> None:
    """Let SIGTERM, and Ctrl+C, end this process with exit code 0.

    uvicorn stops in good order and then raises the signal again for whoever handled it before; unhandled, that would
    end the process as if it had been killed.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))


SERVER_OPTIONS: dict[str, Any] = {
    # The guard writes the access log, finds out the client's address, and does not tell the server's name.
    "access_log": False,
    "proxy_headers": False,
    "server_header": False,
}


@click.command()
@click.argument("app", metavar="MODULE:ATTRIBUTE")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="The port; 0 for a free one."
)
@click.option("--uds", type=click.Path(), help="A UNIX socket to listen on, instead.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="How many processes.")
@click.option(
    "--graceful",
    default=30,
    show_default=True,
    type=click.IntRange(0),
    help="Seconds that requests get to end in at a stop.",
)
@click.option(
    "--keep-alive",
    default=75,
    show_default=True,
    type=click.IntRange(1),
    help="Seconds that an idle connection is kept: longer than whoever is in front keeps it, or requests meet its end.",
)
@click.option(
    "--app-dir",
    default=".",
    show_default=True,
    type=click.Path(exists=True, file_okay=False),
    help="Where to look for MODULE.",
)
@click.option(
    "--log-level",
    default="info",
    show_default=True,
    type=click.Choice(["critical", "error", "warning", "info", "debug"]),
    help="The server's own log, on standard error.",
)
@click.pass_context
def run(
    ctx: click.Context,
    *,
    app: str,
    host: str,
    port: int,
    uds: str | None,
    workers: int,
    graceful: int,
    keep_alive: int,
    app_dir: str,
    log_level: str,
) -> None:
    """Serve MODULE:ATTRIBUTE behind the guard, with uvicorn.

    ATTRIBUTE ends in () if it is to be called for the app. An app whose own Guard gets every request is served as it
    is: that is its outside, was added as middleware, or stands within what is known to hand on all requests. Around any
    other the Guard of the environment is put. The access log goes to standard output, one line of JSON an exchange;
    everything else to standard error.
    """
    if uds is not None and (beside := said(ctx, "host", "port")):
        raise click.UsageError(f"--uds is instead of {' and '.join(beside)}: say one or the other")
    uvicorn = server()
    logging.config.dictConfig(log_config())  # what the app's own import and the guard warn of comes before the server
    os.environ[f"{PREFIX}APP"] = app
    if workers > 1:
        _count(workers)
    sys.path.insert(0, str(Path(app_dir).absolute()))  # which workers have from here, wherever the app has gone by then
    with listening(logger) as told:
        target = _target(import_app(app, "MODULE:ATTRIBUTE"), workers)
    if uds is None:
        require_address(host, port)
    else:
        require_socket(uds)
    end_well_on_signals()
    options: dict[str, Any] = {
        "host": host,
        "port": port,
        "uds": uds,
        "timeout_graceful_shutdown": graceful,
        "timeout_keep_alive": keep_alive,
        "log_level": log_level,
        "log_config": log_config(told),
        **SERVER_OPTIONS,
    }
    if workers > 1:
        run_workers(uvicorn, uvicorn.Config(target, workers=workers, **options))
    else:
        uvicorn.run(target, workers=workers, **options)


def _count(workers: int) -> None:
    """Tell the guard of each worker how many share the store; where more are said, others share it too.

    Fewer cannot be: each would take too large a part of the limits where the store does not answer.
    """
    counted = workers_said()
    if not counted:
        os.environ[WORKERS] = str(workers)
    elif counted.isdecimal() and 0 < int(counted) < workers:
        logger.warning("%s=%s is less than --workers: %d are counted", WORKERS, counted, workers)
        os.environ[WORKERS] = str(workers)


def _target(app: ASGIApp, workers: int) -> ASGIApp | str:
    """What the server is to serve: the app behind its guard, or what makes both in each worker.

    Whatever is wrong is told here, and once, though each worker makes a guard for itself, and one that was added as
    middleware is made with the first request, to which it would be an error of the server's.

    Raises:
        ConfigError: the guard cannot be made.
    """
    served, own = guarded(app), own_guard(app)
    guard = served if own is None else own if isinstance(own, Guard) else own(no_app)
    assert isinstance(guard, Guard)  # noqa: S101 - what is put around an app that has none is one
    if workers == 1:
        return served
    if guard.settings.metrics.path and not guard.settings.scraped_whole:
        logger.warning(
            "%d workers each measure for themselves, and a scrape meets any one of them: set "
            "PROMETHEUS_MULTIPROC_DIR to an empty directory before they start", workers,
        )  # fmt: skip
    return "asgi_guard.cli.worker_app:app"
