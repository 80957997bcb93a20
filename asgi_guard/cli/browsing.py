"""What a browser would make of a request that the guard is asked about: `asgi-guard explain --origin`."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from asgi_guard.chain.exchange import Exchange
from asgi_guard.chain.layer import Chain
from asgi_guard.configuration.variables import PREFIX
from asgi_guard.middleware import CORSMiddleware, CSRFMiddleware, HostMiddleware, ResourceMetadataMiddleware
from asgi_guard.policy.cors import obstacles
from asgi_guard.policy.fetch import BrowserVerdict, PageRequest, Reply, Step, judge, preflight_of, unsafe_names
from asgi_guard.policy.routes import route_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asgi_guard.asgi import ASGIApp, Header, Message, Receive, Scope, Send
    from asgi_guard.chain.layer import Layer
    from asgi_guard.policy.cors import CORSPolicy
    from asgi_guard.settings import GuardSettings

_ASKED = (HostMiddleware, CORSMiddleware, ResourceMetadataMiddleware)
"""The layers that decide what a browser makes of an answer. What any other answers, CORS marks as it does the app's,
and to ask it could probe, log, count or drain. What CSRF says is told beside it."""

_SAME_ORIGIN = "a page there may read the answer: it is of the app's own origin, so a browser asks nobody"

_ADVICE = {
    Step.METHOD_FORBIDDEN: "use another method: no setting helps",
    Step.PREFLIGHT_STATUS: f"see {PREFIX}HOSTS_ALLOWED, and call the address that is not redirected",
}


def seen_by_browser(
    settings: GuardSettings,
    layers: Sequence[Layer],
    request: PageRequest,
    path: str,
    *,
    websocket: bool = False,
    root_path: str = "",
) -> dict[str, Any]:
    """What a browser would make of a page's request, and what to change where its script may not read the answer.

    The guard's own layers that decide it are asked, in this process, with an app behind them that says ok.

    Args:
        settings: the settings, and
        layers: what was made of them.
        request: what the page asks for.
        path: the path, as it is sent.
        websocket: whether it opens a WebSocket.
        root_path: the app's own, below which paths are matched.
    """
    asked = [layer for layer in layers if isinstance(layer, _ASKED)]
    cors = next((layer.policy for layer in asked if isinstance(layer, CORSMiddleware)), None)
    csrf = next((layer for layer in layers if isinstance(layer, CSRFMiddleware)), None)
    own = bool(settings.hosts.allowed) and request.origin == f"https://{_host(settings)}"
    if websocket:
        scope = _scope(settings, root_path, "GET", path, _origin(request), "websocket")
        passes = asyncio.run(_ask(asked, scope)).status == 101
        cookie = request.credentials and settings.auth.cookie is not None
        trusts = csrf.trusts if csrf is not None else cors.names_origin if cors and cors.credentials else None
        trusted = trusts is not None and trusts(request.origin.encode())
        seen = _handshake(request, cors, passes=passes, cookie=cookie, trusted=trusted or own)
        return _forged(_nameless(seen, settings, route_path(scope["path"], root_path)), csrf, scope)
    asking_first = preflight_of(request)
    preflight = None
    if asking_first is not None:
        preflight = asyncio.run(_ask(asked, _scope(settings, root_path, "OPTIONS", path, asking_first)))
    actual = asyncio.run(_ask(asked, _scope(settings, root_path, request.method, path, _origin(request))))
    verdict = judge(request, preflight, actual)
    if own and verdict.step is not Step.METHOD_FORBIDDEN:
        verdict = BrowserVerdict(readable=True, preflighted=False, sent=True, exposed=("*",), ignored=verdict.ignored)
    seen = {
        "origin": request.origin,
        "readable": verdict.readable,
        "preflight": _why_preflight(request) if verdict.preflighted else "not needed",
        "sent": verdict.sent,
        "stopped_at": verdict.step,
        "verdict": _SAME_ORIGIN if own and verdict.readable else _said(verdict),
        "exposed": list(verdict.exposed),
        "ignored": list(verdict.ignored),
        "change": _change(verdict, cors, request),
    }
    return _forged(seen, csrf, _scope(settings, root_path, request.method, path, _origin(request)))


def _forged(seen: dict[str, Any], layer: CSRFMiddleware | None, scope: Scope) -> dict[str, Any]:
    """Add what the CSRF layer makes of it: an answer that may be read can be a refusal."""
    reason = None if layer is None else layer.refusal(Exchange(scope))
    if layer is None or reason is None:
        return seen
    told = "it would be refused, and is only logged" if layer.log_only else "it is refused"
    change = {**seen["change"], f"{PREFIX}CSRF_TRUSTED_ORIGINS": f"add {seen['origin']}"}
    seen = {**seen, "csrf": f"{told}: {reason}", "change": change}
    if scope["type"] == "websocket" and not layer.log_only:
        seen |= {"readable": False, "verdict": "a page there is refused at the handshake"}
    return seen


def _nameless(seen: dict[str, Any], settings: GuardSettings, path: str) -> dict[str, Any]:
    """Add that nothing can come along that tells who it is: a page's script can set no header of a handshake."""
    auth, row = settings.auth, settings.route_table.row(path, "GET")
    asks = auth.on and (row is None or not row.opens)
    if not seen["readable"] or not asks or auth.cookie is not None or auth.unsafe_websocket_query_token is not None:
        return seen
    tokens = auth.trusted or auth.introspection_url is not None
    change = {f"{PREFIX}AUTH_COOKIE": "have the token in a cookie"} if tokens else {}
    verdict = "a page there can send no token with the handshake, so it is refused with 401"
    return {**seen, "readable": False, "verdict": verdict, "change": {**seen["change"], **change}}


def _handshake(
    request: PageRequest, policy: CORSPolicy | None, *, passes: bool, cookie: bool, trusted: bool
) -> dict[str, Any]:
    """What becomes of a WebSocket handshake, to which browsers give the cookies unasked.

    Args:
        request: what the page asks for.
        policy: the configuration of CORS; None where there is none.
        passes: whether the handshake gets by the layers that answer before anybody asks who it is.
        cookie: whether it comes with a cookie that tells who its user is, so that it has to come from a trusted page.
        trusted: whether the page is one.
    """
    opens = passes and (trusted or not cookie)
    verdict = "a page there may open the WebSocket" if opens else "a page there is refused at the handshake"
    if passes and not opens:
        verdict += ", since it brings its user's cookie along"
    found = () if opens else obstacles(policy, request.origin.encode(), b"GET", (), credentials=cookie)
    change = _named((fault.name, fault.message) for fault in found)
    return {"origin": request.origin, "readable": opens, "verdict": verdict, "change": change}


def _change(verdict: BrowserVerdict, policy: CORSPolicy | None, request: PageRequest) -> dict[str, str]:
    """Every variable that stands in the way, not only the first that the browser meets."""
    if verdict.step is None:
        return {}
    found = obstacles(
        policy,
        request.origin.encode(),
        request.method.encode(),
        unsafe_names(request.headers),
        credentials=request.credentials,
    )
    if verdict.step in _ADVICE or not found:
        advice = _ADVICE.get(verdict.step, _ADVICE[Step.PREFLIGHT_STATUS])
        return {"": advice}
    return _named((fault.name, fault.message) for fault in found)


def _named(problems: Iterable[tuple[str, str]]) -> dict[str, str]:
    named: dict[str, str] = {}
    for field, message in problems:
        name = f"{PREFIX}CORS_{field.upper()}"
        named[name] = f"{named[name]}; {message}" if name in named else message
    return named


def _said(verdict: BrowserVerdict) -> str:
    if verdict.readable:
        return "a page there may read the answer"
    if verdict.sent:
        return f"a page there may not read the answer, though the request is made: {verdict.detail}"
    where = "the preflight fails" if verdict.preflighted else "it is not sent"
    return f"a page there may not ask: {where}, since {verdict.detail}"


def _why_preflight(request: PageRequest) -> str:
    asked = dict(preflight_of(request) or ())
    method = asked[b"access-control-request-method"].decode()
    headers = asked.get(b"access-control-request-headers", b"").decode().replace(",", ", ")
    return f"asks for {method}" + (f" with {headers}" if headers else "")


def _origin(request: PageRequest) -> tuple[Header, ...]:
    return ((b"origin", request.origin.encode()),)


_UNNAMED = "app.invalid"
"""The app's host where none is named: that of no page (RFC 2606), for nobody knows what is the app's own."""


def _host(settings: GuardSettings) -> str:
    """The name by which the app is asked: the first that is allowed, or one below the first wildcard."""
    names = [name.lower().rstrip(".") for name in settings.hosts.allowed] or [_UNNAMED]
    return next((name for name in names if "*" not in name), names[0].replace("*", "any"))


def _scope(
    settings: GuardSettings, root_path: str, method: str, path: str, headers: Iterable[Header], kind: str = "http"
) -> dict[str, Any]:
    """The request as a server would hand it on: over https, to a host that is allowed. The path is as it is sent."""
    raw_path = os.fsencode(path)
    decoded = unquote_to_bytes(raw_path).decode("utf-8", "replace")
    host = _host(settings)
    scheme = "wss" if kind == "websocket" else "https"
    return {
        "type": kind, "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": scheme,
        "path": decoded, "raw_path": raw_path, "query_string": b"", "root_path": root_path,
        "headers": [(b"host", host.encode()), *headers], "client": ("127.0.0.1", 0), "server": ("127.0.0.1", 443),
        "extensions": {"websocket.http.response": {}},
    }  # fmt: skip


async def _ask(layers: Sequence[Layer], scope: Scope) -> Reply:
    """What the layers answer. An accepted WebSocket counts as 101, as on the wire."""
    replies: list[Reply] = []

    async def receive() -> Message:
        return {"type": "websocket.connect" if scope["type"] == "websocket" else "http.request"}

    async def send(message: Message) -> None:
        if message["type"].endswith("response.start") or message["type"] == "websocket.accept":
            replies.append(Reply(message.get("status", 101), message["headers"]))

    await _chain(layers)(scope, receive, send)
    return replies[0]


def _chain(layers: Sequence[Layer]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept", "headers": []})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return Chain(app, layers)
