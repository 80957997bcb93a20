"""`asgi-guard check`: what is on, what is off, what is wrong, and whether the store and the issuer answer."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click
from pydantic import SecretStr

from asgi_guard.apps.conflicts import conflicts
from asgi_guard.cli.configured import Configured, app_option, configured
from asgi_guard.cli.headers import grades_as_json, show_grades
from asgi_guard.cli.options import Seconds, said
from asgi_guard.cli.output import dump, say, table
from asgi_guard.cli.production import Deployment, as_json, facts_of, report, show
from asgi_guard.configuration.cautions import OPEN, warnings
from asgi_guard.configuration.values import revealed
from asgi_guard.configuration.variables import PREFIX, written
from asgi_guard.errors import AsgiGuardError, ConfigError, with_cause
from asgi_guard.identity.fetching import public_url
from asgi_guard.middleware import IdentityMiddleware, RateLimitMiddleware
from asgi_guard.policy.rates import holds_limits
from asgi_guard.policy.servers import SERVERS, ServerName, drain_problem
from asgi_guard.settings import variables
from asgi_guard.stack import store_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from asgi_guard.chain.layer import Layer
    from asgi_guard.configuration.sections import IssuerSettings
    from asgi_guard.identity.jwks import KeyEngine
    from asgi_guard.policy.routes import Route
    from asgi_guard.settings import GuardSettings

SWITCHES = {
    "drain": f"{PREFIX}HEALTH_DRAIN_SECONDS",
    "health": f"{PREFIX}HEALTH_LIVE_PATH",
    "metrics": f"{PREFIX}METRICS_PATH",
    "proxy": f"{PREFIX}PROXY_TRUSTED",
    "request_id": f"{PREFIX}REQUEST_ID_HEADER",
    "access_log": f"{PREFIX}LOG_FORMAT",
    "security": f"{PREFIX}SECURITY_PRESET",
    "host": f"{PREFIX}HOSTS_ALLOWED",
    "cors": f"{PREFIX}CORS_ALLOW_ORIGINS",
    "csrf": f"{PREFIX}CSRF_MODE",
    "resource_metadata": f"{PREFIX}AUTH_RESOURCE",
    "identity": f"{PREFIX}AUTH_ISSUER",
    "rate_limit": f"{PREFIX}RATE_LIMIT",
    "access": f"{PREFIX}AUTH_ISSUER",
}
"""Each layer, outermost first, with the variable that turns it on."""


@click.command()
@click.option("--json", "json_wanted", is_flag=True, help="Print JSON.")
@click.option("--probe/--no-probe", default=True, help="Ask the store and the issuer, or do not.")
@app_option
@click.option("--production", is_flag=True, help="Judge the checklist of a service in production instead.")
@click.option("--headers", is_flag=True, help="Grade the security headers, and say what each point costs.")
@click.option("--server", type=click.Choice(list(SERVERS)), help="Say whether draining works under this server.")
@click.option(
    "--graceful",
    default=30.0,
    show_default=True,
    type=Seconds(),
    help="As `asgi-guard run` is told, for the checklist.",
)
@click.option("--p99", type=Seconds(), help="Seconds that 99 of 100 requests take at most, for the checklist.")
@click.option("--grace-period", type=Seconds(), help="Seconds from SIGTERM to SIGKILL, for the checklist.")
@click.pass_context
def check(
    ctx: click.Context,
    *,
    json_wanted: bool,
    probe: bool,
    app: str | None,
    production: bool,
    headers: bool,
    server: ServerName | None,
    graceful: float,
    p99: float | None,
    grace_period: float | None,
) -> None:
    """Show the effective configuration, with every problem at once, and ask the store and the issuer.

    Exit code 0: all is well; 1: the store or the issuer does not answer, a line of the checklist fails, or draining
    does not work under the server; 2: the configuration cannot be used, and what is wrong is told on standard error,
    with --json on standard output too.
    """
    if sum((production, headers, server is not None)) > 1:
        raise click.UsageError("--production, --headers and --server are asked one at a time")
    if not production and (told := said(ctx, "graceful", "p99", "grace_period")):
        raise click.UsageError(f"{told[0]} is for the checklist: say --production too")
    try:
        found = configured(app)
    except ConfigError as error:
        if json_wanted:
            dump({"problems": [asdict(problem) for problem in error.problems]})
        raise
    settings, layers = found.settings, found.layers
    if headers:
        _grade(layers, json_wanted=json_wanted)
        return
    if server is not None:
        ctx.exit(0 if _drains(server, settings, json_wanted=json_wanted) else 1)
    probes, told = asyncio.run(_probe(layers)) if probe else ([], [])
    well = all(ok for _, ok, _ in probes)
    if production:
        failed = {name for name, ok, _ in probes if not ok}
        answered = {name: name not in failed for name, _, _ in probes}
        deployment = Deployment(graceful, p99, grace_period)
        judged, holds = report(facts_of(found, deployment, answered))
        if json_wanted:
            dump({"checklist": as_json(judged), "holds": holds})
        else:
            show(judged)
        ctx.exit(0 if well and holds else 1)
    if json_wanted:
        dump(_as_json(found, probes, told))
    else:
        _print(found, probes, told)
    ctx.exit(0 if well else 1)


def _grade(layers: Sequence[Layer], *, json_wanted: bool) -> None:
    if json_wanted:
        dump({"headers": grades_as_json(layers)})
    else:
        show_grades(layers)


def _drains(name: ServerName, settings: GuardSettings, *, json_wanted: bool) -> bool:
    """Tell what a server needs for a drain, and whether it has it."""
    section, server = settings.health, SERVERS[name]
    found = drain_problem(
        name,
        section.drain_seconds,
        on_signal=section.drain_signal,
        file=bool(section.drain_file),
        path=bool(section.drain_path),
    )
    if json_wanted:
        dump({"server": name, **server._asdict(), "problem": found})
        return found is None
    how = "SIGTERM drains" if server.sigterm else "SIGTERM does not drain"
    say(f"{server.started}: {how}; {server.note}")
    say("it drains as configured" if found is None else found, "green" if found is None else "yellow")
    return found is None


def _as_json(found: Configured, probes: list[tuple[str, bool, str]], told: list[str]) -> dict[str, Any]:
    settings, layers = found.settings, found.layers
    return {
        "problems": [],
        "layers": {name: _is_on(name, layers, settings) for name in SWITCHES},
        "settings": {name: value for name, value, default in effective(settings) if value != default},
        "routes": [str(route) for route in settings.routes],
        "probes": [{"name": name, "ok": ok, "detail": detail} for name, ok, detail in probes],
        "warnings": cautions(found) + told,
        "notes": notes(found),
    }


def _print(found: Configured, probes: list[tuple[str, bool, str]], told: list[str]) -> None:
    settings, layers = found.settings, found.layers
    rows = []
    for name, switch in SWITCHES.items():
        on = _is_on(name, layers, settings)
        rows.append((name, "on" if on else "off", "" if on else f"set {switch} to turn it on"))
    table(("layer", "state", ""), rows, "Layers, outermost first")
    values = [(name, value) for name, value, default in effective(settings) if value != default]
    table(("variable", "value"), values or [("(all defaults)", "")], "Settings")
    if settings.routes:
        routes = [(str(index), str(route), _columns(route)) for index, route in enumerate(settings.routes, start=1)]
        table(("row", "matches", "says"), routes, "Routes, first match wins")
    if probes:
        table(
            ("asked", "answer", ""), [(name, "ok" if ok else "failed", detail) for name, ok, detail in probes], "Probes"
        )
    for caution in cautions(found) + told:
        say(f"warning: {caution}", "yellow")
    for note in notes(found):
        say(f"note: {note}", "dim")


def _columns(route: Any) -> str:
    said = {name: getattr(route, name) for name in ("auth", "scopes", "any_scopes", "limits", "security")}
    parts = [
        f"{name}={' '.join(value) if isinstance(value, tuple) else value}" for name, value in said.items() if value
    ]
    return ", ".join([*parts, *_unlike(route)])


def _unlike(route: Route) -> list[str]:
    """What a row says by an empty value, and the columns whose default is not empty, where it says otherwise."""
    unlimited = route.limits is not None and not holds_limits(route.limits)
    said = {"limits=none": unlimited, f"cost={route.cost}": route.cost != 1, "csrf=false": not route.csrf}
    return [text for text, holds in said.items() if holds]


def _is_on(name: str, layers: Sequence[Layer], settings: GuardSettings) -> bool:
    """A layer that is there and has nothing to believe or to answer is off all the same."""
    if name == "proxy":
        return bool(settings.proxy.trusted or settings.proxy.hops)
    if name == "health":
        return bool(settings.health.live_path or settings.health.ready_path)
    if name == "rate_limit" and not settings.limited and not settings.rate.messages:
        return False  # it only looks up who is revoked
    return any(layer.name == name for layer in layers)


def effective(settings: GuardSettings) -> list[tuple[str, str, str]]:
    """Every variable with its effective value and its default, secrets left out."""
    found = []
    for variable in variables():
        section = getattr(settings, variable.section) if variable.section else settings
        value = getattr(section, variable.field)
        if variable.name == f"{PREFIX}STORE_URL":
            text = public_url(revealed(value))
        elif isinstance(value, SecretStr):
            text = "***"
        elif variable.field in ("jwks_url", "introspection_url"):
            text = public_url(value) if value else ""
        elif variable.field == "issuers":
            text = written(tuple(map(_public, value)))
        elif variable.field == "api_keys":
            text = ", ".join(key.name for key in value)
        elif variable.field == "routes":
            text = f"{len(value)} row{'s' if len(value) > 1 else ''}" if value else ""
        else:
            text = written(value)
            if not text and variable.default:  # an empty variable would count as not set, and its default hold
                text = "[]" if isinstance(value, tuple) else "off"
        found.append((variable.name, text, variable.default))
    return found


def _public(issuer: IssuerSettings) -> IssuerSettings:
    """An issuer without what may be a secret in the URL of its keys."""
    return issuer.model_copy(update={"jwks_url": public_url(issuer.jwks_url)}) if issuer.jwks_url else issuer


def cautions(configured: Configured) -> list[str]:
    """What works, and is probably not meant; that some requests never come to the guard, and nobody is asked who."""
    store = store_of(configured.layers)
    found = list(warnings(configured.settings, configured.limits, shared=configured.shared, store=store))
    found += conflicts(configured.app, configured.settings, added=configured.added)
    found += configured.past
    if not configured.settings.auth.on:
        found.append(OPEN)
    return found


def notes(configured: Configured) -> list[str]:
    """What holds for one process, and where a server's own features would get in the way; `run` turns these off."""
    settings, found = configured.settings, [configured.unseen] if configured.unseen else []
    if settings.limited and not configured.shared and settings.rate.workers == 1:
        found.append(
            f"limits are counted in this process's memory: with N workers clients get N times as much, unless "
            f"{PREFIX}STORE_URL names a Redis that all share"
        )
    auth = settings.auth
    if auth.introspected is not None and not auth.trusted and auth.introspection_issuer is None:
        found.append(
            f"opaque tokens count as those of {auth.introspected.issuer}, the origin of the endpoint: if it tells of "
            f"another iss, all are refused until {PREFIX}AUTH_INTROSPECTION_ISSUER names that"
        )
    if find_spec("uvicorn") is not None:
        found.append(
            "uvicorn by itself believes X-Forwarded-For from 127.0.0.1, tells its name and writes its own access log: "
            "start it by `asgi-guard run`, or with --no-proxy-headers --no-server-header --no-access-log"
        )
    if settings.health.drain_seconds:
        others = ", ".join(server.started for server in SERVERS.values() if not server.sigterm)
        found.append(f"SIGTERM does not drain under {others}: `asgi-guard check --server NAME` says what does")
    return found


async def _probe(layers: Sequence[Layer]) -> tuple[list[tuple[str, bool, str]], list[str]]:
    """What the store and the issuer answer, and what to warn of once they do."""
    asked: list[tuple[str, Callable[[], Awaitable[object]], Callable[[], str]]] = []
    for layer in layers:
        if isinstance(layer, IdentityMiddleware) and layer.tokens.verifiers:
            for issuer, verifier in layer.tokens.verifiers.items():
                asked.append(("issuer keys", verifier.engine.check, partial(_keys, issuer, verifier.engine)))
        if isinstance(layer, IdentityMiddleware) and layer.tokens.introspector is not None:
            whose = partial(str, f"tokens of {layer.tokens.introspector.policy.issuer}")
            asked.append(("introspection", layer.tokens.introspector.check, whose))
    if (store := store_of(layers)) is not None:
        asked.append(("store", store.ping, str))
    results = []
    for name, ask, tell in asked:
        started = time.perf_counter()
        try:
            await ask()
        except AsgiGuardError as error:
            results.append((name, False, with_cause(error, error.__cause__)))
        else:
            took = f"{(time.perf_counter() - started) * 1000:.1f} ms"
            results.append((name, True, "; ".join(filter(None, (tell(), took)))))
    answers = any(name == "store" and ok for name, ok, _ in results)
    told = [await _caution(layer) for layer in layers] if answers else []
    for layer in reversed(layers):
        await layer.shutdown()
    return results, [caution for caution in told if caution is not None]


async def _caution(layer: Layer) -> str | None:
    if isinstance(layer, RateLimitMiddleware):
        return await layer.caution()
    return await layer.possession.caution() if isinstance(layer, IdentityMiddleware) else None


def _keys(issuer: str, engine: KeyEngine) -> str:
    return f"{issuer}: {engine.status()}"
