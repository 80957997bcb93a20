"""`asgi-guard explain`: what the guard would ask of a request, and which rule says so."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import click

from asgi_guard.cli.browsing import seen_by_browser
from asgi_guard.cli.configured import Configured, app_option, configured
from asgi_guard.cli.output import dump, table
from asgi_guard.configuration.variables import PREFIX
from asgi_guard.policy.cors_names import is_token
from asgi_guard.policy.csrf import SAFE_METHODS, ForgeryExemptions
from asgi_guard.policy.exemptions import Exemptions
from asgi_guard.policy.fetch import PageRequest
from asgi_guard.policy.methods import misspelt, not_a_method
from asgi_guard.policy.origins import page_origin_fault
from asgi_guard.policy.path_index import NO_ROW
from asgi_guard.policy.resource_metadata import ResourceMetadata
from asgi_guard.policy.routes import doubtful, joined_path, route_path
from asgi_guard.policy.security import SecurityHeaders

if TYPE_CHECKING:
    from asgi_guard.policy.limit_sets import LimitSet, RouteLimits
    from asgi_guard.policy.routes import Route
    from asgi_guard.settings import GuardSettings


def explanation(found: Configured, method: str, path: str) -> dict[str, Any]:
    """What the guard would ask of a request, and which rule says so. The path is written as it would be sent."""
    settings = found.settings
    raw_path = os.fsencode(path.partition("?")[0])
    whole = unquote_to_bytes(raw_path).decode("utf-8", "replace")
    path, joined = route_path(whole, found.root_path), joined_path(whole, found.root_path)
    if method in ("GET", "HEAD") and path in (settings.health.live_path, settings.health.ready_path):
        return {"request": f"{method} {whole}", "rule": "the guard answers this probe itself", "auth": "none"}
    metadata = settings.auth.resource_metadata(settings.routes)
    if metadata and path == ResourceMetadata.of(**metadata).path:
        rule = "the guard answers this itself, with what the resource says of itself (RFC 9728)"
        return {"request": f"{method} {whole}", "rule": rule, "auth": "none"}
    table = settings.route_table
    row, disputed = table.find(path, method, raw_path, joined)
    route = None if row == NO_ROW else settings.routes[row]
    rate, exemptions = settings.rate, ForgeryExemptions(table, settings.csrf.exempt)
    limits = found.limits[row]
    default_limits = settings.unread.get(f"{PREFIX}RATE_LIMIT", f"{PREFIX}RATE_LIMIT")
    auth = "none" if not settings.auth.on else (route.auth if route and route.auth else "required")
    answer: dict[str, Any] = {
        "request": f"{method} {whole}",
        "rule": "no row matches: the defaults" if route is None else f"row {row + 1}: {route}",
        **({"below": f"{path}, below the app's own root path {found.root_path}"} if path != whole else {}),
        "auth": auth,
        "auth_because": _auth_because(settings, route is not None and route.auth is not None, row),
        "scopes": list(route.scopes) if route else [],
        "any_scopes": list(route.any_scopes) if route else [],
        "limits": _limits_by_client(settings, auth, limits),
        "limits_because": f"row {row + 1}" if route and route.limits is not None else default_limits,
        "cost": route.cost if route else 1,
        "security": _security(settings, route),
        "cors": ", ".join(settings.cors.allow_origins) or "off",
        "csrf": _csrf(settings, exemptions.cover(path, method, raw_path, joined), method),
    }
    answer.update(_about_limits(found, auth, limits))
    if settings.metrics.path and path == settings.metrics.path and method in ("GET", "HEAD"):
        answer["note"] = f"the guard answers {', '.join(settings.metrics.allow)} itself, with its metrics"
    elif settings.health.drain_path and path == settings.health.drain_path and method == "POST":
        answer["note"] = "where this machine asks, the guard answers itself, and begins to drain"
    elif disputed and (settings.auth.on or settings.limited or rate.messages):
        answer["note"] = "routers may disagree about this path, and take it for another row's: it is refused with 400"
    elif disputed or joined is not None or doubtful(path, raw_path):
        answer["note"] = "routers may disagree about this path, so no row that opens anything matches it"
    if told := found.unseen or "; ".join(found.past):
        answer["guard"] = told
    return answer


def _security(settings: GuardSettings, route: Route | None) -> str:
    """The preset of security headers that holds, and what is said beside it."""
    said = SecurityHeaders(**settings.security.model_dump())
    if route is not None and route.security is not None:
        own = route.security
        said = (own if isinstance(own, SecurityHeaders) else SecurityHeaders(own)).over(said)
    return str(said).removeprefix("preset: ")


def _csrf(settings: GuardSettings, exempt: bool, method: str) -> str:
    """What is asked of the page that a request comes from."""
    section = settings.csrf
    if section.mode == "off":
        return "off"
    if exempt:
        return "exempt: any page may ask"
    if method in SAFE_METHODS:
        return f"any page may ask, for {method} changes nothing; a WebSocket, only pages of the app and trusted origins"
    asked = "only pages of the app and of trusted origins"
    if section.secret is not None:
        asked += f"; where the browser names none, with the session's token in {section.token_header}"
    return asked + (" (others are logged, and let through)" if section.mode == "log" else "")


def _auth_because(settings: GuardSettings, by_row: bool, row: int) -> str:
    if not settings.auth.on:
        return f"identity is off: neither {PREFIX}AUTH_ISSUER nor {PREFIX}AUTH_API_KEYS is set"
    return f"row {row + 1}" if by_row else "what no row opens needs an identity"


def _limits_by_client(settings: GuardSettings, auth: str, row: RouteLimits) -> dict[str, list[str]]:
    """The limits for each sort of client that there is; where no credentials are looked at, there is but one."""
    if auth == "none":
        return {"of anyone": _limits(row.anonymous)}
    found = {"without identity": _limits(row.anonymous)}
    of_keys = {key.plan for key in settings.auth.api_keys}
    if settings.auth.trusted or settings.auth.introspection_url:
        found["with a token"] = _limits(row.token)
        if settings.rate.plan_claim is not None:
            found |= {f"with a token of plan {name!r}": _limits(each) for name, (each, _) in row.named.items()}
    if settings.auth.api_keys:
        found["with an API key"] = _limits(row.api_key)
        named = ((name, each) for name, (_, each) in row.named.items() if name in of_keys)
        found |= {f"with an API key of plan {name!r}": _limits(each) for name, each in named}
    return found


def _limits(limit_set: LimitSet) -> list[str]:
    return [
        f"{limit.text} (as {limit.name!r}{', in shadow' if not limit.enforced else ''})" for limit in limit_set.limits
    ]


def _about_limits(found: Configured, auth: str, row: RouteLimits) -> dict[str, Any]:
    """For whom the limits do not hold, what refuses before it is known who it is, and what holds without the store."""
    settings = found.settings
    rate, answer = settings.rate, dict[str, Any]()
    possible = (row.anonymous,) if auth == "none" else row.all()
    limits = {limit.name: limit for each in possible for limit in each.limits}
    if rate.exempt and (limits or rate.messages):
        answer["exempt"] = list(rate.exempt)
    if rate.messages:
        answer["messages"] = f"{rate.messages} by WebSocket" + (" (in shadow)" if rate.shadow else "")
    known = [limit.name for limit in row.known.limits if limit.enforced and not limit.at_once]
    if settings.auth.on and rate.deny_cache and not Exemptions.parse(rate.exempt).identities and known:
        answer["before_identity"] = known
    without = {name: str(limit.on_failure) for name, limit in limits.items() if limit.enforced}
    if without and found.shared:
        answer["without_store"] = without
    return answer


def _rows(answer: dict[str, Any]) -> list[tuple[str, str]]:
    """The answer, for people."""
    rows = [("path", answer["below"])] if "below" in answer else []
    rows += [("rule", answer["rule"]), ("auth", f"{answer['auth']} ({answer.get('auth_because', 'anyone may ask')})")]
    if answer.get("scopes"):
        rows.append(("scopes", " ".join(answer["scopes"])))
    if answer.get("any_scopes"):
        rows.append(("one of", " ".join(answer["any_scopes"])))
    for client, limits in answer.get("limits", {}).items():
        rows.append((f"limits {client}", "; ".join(limits) or "none"))
    if answer.get("limits") and any(answer["limits"].values()):
        rows.append(("limits from", f"{answer['limits_because']}, at a cost of {answer['cost']} a request"))
    if "exempt" in answer:
        rows.append(("exempt", ", ".join(answer["exempt"])))
    if "messages" in answer:
        rows.append(("messages", answer["messages"]))
    if "before_identity" in answer:
        rows.append(("refuse before identity", ", ".join(answer["before_identity"])))
    if "without_store" in answer:
        rows.append(
            ("without the store", ", ".join(f"{name}: {each}" for name, each in answer["without_store"].items()))
        )
    rows += [(name, str(answer[name])) for name in ("security", "cors", "csrf", "note", "guard") if name in answer]
    return rows + _browser_rows(answer.get("browser", {}))


def _no_method(text: str) -> str | None:
    """What is wrong with a method as rows are held to it, which would be answered for as one that no row names."""
    if known := misspelt(text.upper()):
        return f"there is no method {text}; did you mean {known}?"
    return not_a_method(text) or (None if is_token(text) else f"{text!r} is no method: name one, as in POST")


def _header(text: str) -> tuple[str, str | None]:
    """A header as it is written on the command line; without a value, one that needs a preflight."""
    name, colon, value = text.partition(":")
    if not is_token(name.strip()):
        raise click.BadParameter(f"{name.strip()!r} is not a header's name", param_hint="--header")
    return name.strip(), value.strip() if colon else None


def _browser_rows(seen: dict[str, Any]) -> list[tuple[str, str]]:
    """What a browser makes of the request, for people."""
    rows = [(f"from {seen['origin']}", seen["verdict"])] if seen else []
    rows += [(name, str(seen[name])) for name in ("preflight", "csrf") if name in seen]
    if seen.get("exposed"):
        rows.append(("it may read", ", ".join(seen["exposed"])))
    if seen.get("ignored"):
        rows.append(("left out by browsers", ", ".join(seen["ignored"])))
    return rows + [(f"change {name}".rstrip(), advice) for name, advice in seen.get("change", {}).items()]


@click.command()
@click.argument("method")
@click.argument("path")
@click.option("--origin", metavar="ORIGIN", help="Say whether a browser lets a page of this origin read the answer.")
@click.option("--header", "headers", multiple=True, metavar="NAME[: VALUE]", help="A header that the page sets.")
@click.option("--credentials", is_flag=True, help="The page sends its cookies along.")
@click.option("--websocket", is_flag=True, help="The page opens a WebSocket.")
@app_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain(
    method: str,
    path: str,
    *,
    origin: str | None,
    headers: tuple[str, ...],
    credentials: bool,
    websocket: bool,
    app: str | None,
    as_json: bool,
) -> None:
    """Say what the guard would ask of METHOD PATH, and which rule says so.

    With --origin, say too what a browser makes of it: whether it asks first, whether a page there may read the answer,
    and which variables to change if not.
    """
    if fault := _no_method(method):
        raise click.BadParameter(fault, param_hint="METHOD")
    if not path.startswith("/"):
        raise click.BadParameter("a path starts with '/'", param_hint="PATH")
    if origin is None and (headers or credentials or websocket):
        raise click.UsageError("--header, --credentials and --websocket go with --origin")
    if origin is not None and (fault := page_origin_fault(origin)):
        raise click.BadParameter(fault, param_hint="--origin")
    sent = tuple(map(_header, headers))
    found = configured(app)
    answer = explanation(found, method.upper(), path)
    if origin is not None:
        request = PageRequest(origin, method, sent, credentials)
        raw_path = path.partition("?")[0]
        answer["browser"] = seen_by_browser(
            found.settings, found.layers, request, raw_path, websocket=websocket, root_path=found.root_path
        )
    if as_json:
        dump(answer)
        return
    table(("", ""), _rows(answer), answer["request"])
