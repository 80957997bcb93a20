"""`asgi-guard demo`: an app behind the guard, a local issuer, and calls to try."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asgi_guard.apps.own_guard import guard_within
from asgi_guard.cli.addresses import require_address
from asgi_guard.cli.importing import import_app
from asgi_guard.cli.output import say
from asgi_guard.cli.run import SERVER_OPTIONS, end_well_on_signals, server
from asgi_guard.cli.server_log import log_config
from asgi_guard.cli.token import KEY_FILE, LOCAL_AUDIENCE, local_issuer
from asgi_guard.configuration.sections import AuthSettings, CORSSettings, RateSettings
from asgi_guard.errors import ConfigError, Problem
from asgi_guard.guard import Guard
from asgi_guard.policy.routes import Route
from asgi_guard.settings import GuardSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from asgi_guard.asgi import ASGIApp, Receive, Scope, Send
    from asgi_guard.testing import LocalIssuer

PAGE_ORIGIN = "http://localhost:3000"


def demo_settings(issuer: str) -> GuardSettings:
    """What the demo's guard is told; in the environment, each would be a variable."""
    return GuardSettings(
        auth=AuthSettings(issuer=issuer, audience=(LOCAL_AUDIENCE,)),
        rate=RateSettings(limit="20/second burst 40 by user; 5/second burst 10 by anonymous"),
        cors=CORSSettings(
            allow_origins=(PAGE_ORIGIN,),
            allow_headers=("authorization", "content-type"),
            allow_methods=("PUT", "DELETE"),
        ),
        routes=(
            Route("/", auth="none"),
            Route("/docs", auth="none", security="docs"),
            Route("/redoc", auth="none", security="docs"),
            Route("/openapi.json", auth="none"),
            Route("/login", methods=("POST",), auth="none", limits="3/minute by ip"),
            Route("/items", methods=("POST",), scopes=("items:write",)),
        ),
    )


async def demo_app(scope: Scope, receive: Receive, send: Send) -> None:
    """A small app, for where no framework is installed: it says who calls, and which request this is."""
    if scope["type"] != "http":
        raise NotImplementedError("this app speaks HTTP only")
    who = scope["user"].display_name or "stranger"
    body = f"hello {who}, this is request {scope['state']['request_id']}\n".encode()
    status = 201 if (scope["method"], scope["path"]) == ("POST", "/items") else 200
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})


@click.command()
@click.argument("app", metavar="[MODULE:ATTRIBUTE]", required=False)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535), help="The app's port.")
@click.option(
    "--issuer-port", default=8001, show_default=True, type=click.IntRange(1, 65535), help="The issuer's port."
)
def demo(app: str | None, host: str, port: int, issuer_port: int) -> None:
    """Serve an app behind the guard, with a local issuer, and print calls to try.

    Without MODULE:ATTRIBUTE it is a small app of its own. Nothing but this machine is needed, and nothing is kept but
    the local issuer's key.
    """
    uvicorn = server()
    sys.path.insert(0, str(Path.cwd()))
    if port == issuer_port:
        raise ConfigError([Problem("--issuer-port", f"{port} is the app's --port too: choose another")])
    require_address(host, port)
    require_address("127.0.0.1", issuer_port, "--issuer-port")
    inner = _bare(app) if app else demo_app
    local = local_issuer(KEY_FILE, audience=LOCAL_AUDIENCE)
    with local.serve(port=issuer_port):
        guarded = Guard(inner, demo_settings(local.url))
        end_well_on_signals()
        config = uvicorn.Config(
            guarded, host=host, port=port, log_level="warning", log_config=log_config(), **SERVER_OPTIONS
        )
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        serving = _announcing(uvicorn, lambda: _announce(local, url))(config)
        serving.run()
    if not serving.started:
        sys.exit(3)  # as uvicorn by itself says that the app's start-up failed, which is in its log


def _bare(name: str) -> ASGIApp:
    """The app of this name, around which the demo can put its own guard."""
    found = import_app(name, "MODULE:ATTRIBUTE")
    if isinstance(guard_within(found), Guard):
        said = f"{name} has a Guard already, and the demo puts its own around: name the bare app within it"
        raise ConfigError([Problem("MODULE:ATTRIBUTE", said)])
    return found


def _announcing(uvicorn: Any, ready: Callable[[], None]) -> Any:
    """A server that says when it is ready: calls printed earlier could be refused."""

    class Server(uvicorn.Server):  # type: ignore[misc]  # the base is known at run time only, being an extra
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                ready()

    return Server


def _announce(local: LocalIssuer, url: str) -> None:
    reader, writer = (
        local.token("alice", scopes=scopes, lifetime=3600) for scopes in (["items:read"], ["items:write"])
    )
    calls = [
        ("the tokens, good for an hour", f"READ={reader}\nWRITE={writer}"),
        ("200: with a token", f'curl -i {url}/items -H "Authorization: Bearer $READ"'),
        ("401: without one", f"curl -i {url}/items"),
        ("403: without the scope items:write", f'curl -i -X POST {url}/items -H "Authorization: Bearer $READ"'),
        ("201: with it", f'curl -i -X POST {url}/items -H "Authorization: Bearer $WRITE"'),
        (
            "429: the fourth login in a minute",
            f'for i in 1 2 3 4; do curl -s -o /dev/null -w "%{{http_code}}\\n" -X POST {url}/login; done',
        ),
        (
            "204: a preflight, as a browser sends it",
            f"curl -i -X OPTIONS {url}/items -H 'Origin: {PAGE_ORIGIN}' -H 'Access-Control-Request-Method: PUT'",
        ),
    ]
    say(
        f"The guarded app is at {url}, its local issuer at {local.url}. Try, in another terminal:\n", "bold", error=True
    )
    for what, call in calls:
        say(f"# {what}", "green", error=True)
        say(f"{call}\n", error=True)
    say("The access log follows, one line of JSON an exchange. Ctrl+C stops.\n", "bold", error=True)
