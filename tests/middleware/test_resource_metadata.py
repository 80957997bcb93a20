"""The ResourceMetadata layer, alone and in the guard: what it answers, to whom, and who is told of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette

from asgi_guard import (
    AccessMiddleware,
    AuthSettings,
    ConfigError,
    CORSMiddleware,
    CORSSettings,
    Guard,
    GuardSettings,
    HostsSettings,
    RateSettings,
    ResourceMetadataMiddleware,
    Route,
)
from asgi_guard.policy.resource_metadata import WELL_KNOWN
from asgi_guard.testing import LocalIssuer
from tests.asgi import Echo, call, get, http_scope, websocket_scope
from tests.guarded import LAYERS, PAGE, Recorded, settings

if TYPE_CHECKING:
    from asgi_guard.asgi import Header

RESOURCE = "https://api.example.com/mcp"
PATH = f"{WELL_KNOWN}/mcp"
URL = f"https://api.example.com{PATH}"
NAMED = f'resource_metadata="{URL}"'
ORIGIN = (b"origin", PAGE.encode())
PREFLIGHT = (b"access-control-request-method", b"GET")
VERSION = (b"access-control-request-headers", b"mcp-protocol-version")


def layer(app: Any, **options: Any) -> ResourceMetadataMiddleware:
    return ResourceMetadataMiddleware(
        app, **{"resource": RESOURCE, "authorization_servers": "https://id.example.com", **options}
    )


def guarded(issuer: LocalIssuer, **sections: Any) -> Guard:
    """A guard around an API that describes itself; the resource is the audience."""
    chosen = GuardSettings(auth=AuthSettings(issuer=issuer.url, resource=RESOURCE), **sections)
    return Guard(Echo(), chosen, http_client=issuer.client)


def bearer(token: str) -> Header:
    return b"authorization", f"Bearer {token}".encode()


async def test_the_document() -> None:
    """The document is JSON that anyone may read and keep for an hour, and the app is not asked."""
    app = Echo()
    exchange = await get(layer(app, scopes_supported="b, a", resource_name="Notes"), PATH)
    assert exchange.error is None
    assert exchange.status == 200
    assert exchange.headers == {
        "content-type": "application/json",
        "cache-control": "public, max-age=3600",
        "access-control-allow-origin": "*",
        "content-length": str(len(exchange.body)),
    }
    assert json.loads(exchange.body) == {
        "resource": RESOURCE,
        "authorization_servers": ["https://id.example.com"],
        "scopes_supported": ["a", "b"],
        "bearer_methods_supported": ["header"],
        "resource_name": "Notes",
    }
    assert app.scopes == []


async def test_head() -> None:
    """HEAD gets the head of a GET, without its body."""
    answers = [await call(layer(Echo()), http_scope(method, PATH)) for method in ("GET", "HEAD")]
    assert answers[0].headers == answers[1].headers
    assert answers[1].body == b""


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"])
async def test_other_methods(method: str) -> None:
    """The document can only be read: any other method is refused, with those that there are."""
    app = Echo()
    exchange = await call(layer(app), http_scope(method, PATH))
    assert (exchange.status, exchange.headers["allow"]) == (405, "GET, HEAD")
    assert exchange.headers["content-type"] == "application/problem+json"
    assert json.loads(exchange.body)["reason"] == "method_not_allowed"
    assert app.scopes == []


@pytest.mark.parametrize(
    ("path", "members"),
    [
        ("/", {}),
        (WELL_KNOWN, {}),
        (f"{PATH}/", {}),
        (f"{PATH}2", {}),
        (f"/x{PATH}", {}),
        (f"/api{PATH}", {"root_path": "/ap"}),
        ("/mcp", {}),
    ],
)
async def test_other_paths(path: str, members: dict[str, Any]) -> None:
    """Every other path is the app's, that of a resource without a path too: its clients may not use this document."""
    app = Echo()
    await get(layer(app), path, **members)
    assert len(app.scopes) == 1


@pytest.mark.parametrize(
    ("path", "root_path"), [(f"/api{PATH}", "/api"), (PATH, "/api"), (PATH, ""), (f"/a/b{PATH}", "/a/b")]
)
async def test_root_path(path: str, root_path: str) -> None:
    """Behind a root path the document is found below it, and where the server leaves the root path out."""
    assert (await get(layer(Echo()), path, root_path=root_path)).status == 200


async def test_a_websocket_is_the_apps() -> None:
    """A WebSocket at the document's path is the app's."""
    app = Echo()
    exchange = await call(layer(app), websocket_scope(PATH))
    assert exchange.messages[0]["type"] == "websocket.accept"
    assert len(app.scopes) == 1


async def test_starlette() -> None:
    """`add_middleware` of Starlette takes the layer."""
    app = Starlette()
    app.add_middleware(
        ResourceMetadataMiddleware, resource=RESOURCE, authorization_servers=["https://id.example.com"]
    )  # fmt: skip
    assert (await get(app, PATH)).status == 200
    assert (await get(app, WELL_KNOWN)).status == 404


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"resource": "api"}, {"resource"}),
        ({"authorization_servers": ()}, {"authorization_servers"}),
        ({"authorization_servers": "[1]"}, {"authorization_servers"}),
        ({"scopes_supported": '["a"'}, {"scopes_supported"}),
        ({"resource": "api", "resource_documentation": "docs"}, {"resource", "resource_documentation"}),
    ],
)
def test_options_that_cannot_be_used(options: dict[str, Any], named: set[str]) -> None:
    """What is wrong with the options is told by their names."""
    with pytest.raises(ConfigError) as caught:
        layer(Echo(), **options)
    assert {problem.name for problem in caught.value.problems} == named


@pytest.mark.parametrize("url", ["/x", 'https://a.example/"', "https://a.example/\r\nset-cookie:a=b", ""])
def test_challenges_name_whole_urls(url: str) -> None:
    """What cannot stand in a challenge is refused before it does."""
    with pytest.raises(ConfigError, match="resource_metadata: write the whole URL"):
        AccessMiddleware(Echo(), resource_metadata=url)


async def test_preflights() -> None:
    """Without a CORS layer, a page of any origin may ask with the headers that its client sends."""
    exchange = await call(layer(Echo()), http_scope("OPTIONS", PATH, [ORIGIN, PREFLIGHT, VERSION]))
    assert (exchange.status, exchange.body) == (204, b"")
    assert exchange.headers == {
        "access-control-allow-origin": "*",
        "access-control-allow-headers": "*",
        "access-control-max-age": "3600",
    }
    for incomplete in ([ORIGIN], [PREFLIGHT]):
        assert (await call(layer(Echo()), http_scope("OPTIONS", PATH, incomplete))).status == 405


@pytest.mark.parametrize(
    ("origins", "allowed", "credentials"),
    [
        ([], "*", None),
        ([ORIGIN], PAGE, "true"),
        ([(b"origin", b"https://evil.example")], "*", None),
        ([ORIGIN, ORIGIN], "*", None),
    ],
)
async def test_behind_cors(issuer: LocalIssuer, origins: list[Header], allowed: str, credentials: str | None) -> None:
    """An origin that the CORS layer knows is marked by it, and every other may read the document all the same."""
    guard = guarded(issuer, cors=CORSSettings(allow_origins=(PAGE,), allow_credentials=True))
    exchange = await get(guard, PATH, origins)
    assert exchange.status == 200
    assert exchange.headers["access-control-allow-origin"] == allowed
    assert exchange.headers.get("access-control-allow-credentials") == credentials
    assert exchange.headers["vary"] == "origin"


STRANGER = (b"origin", b"https://evil.example")
NAMED_HEADER = (b"access-control-request-headers", b"x-named")


@pytest.mark.parametrize(
    ("headers", "allowed", "names"),
    [
        ([STRANGER, PREFLIGHT], "*", "*"),
        ([STRANGER, PREFLIGHT, VERSION], "*", "*"),
        ([ORIGIN, PREFLIGHT, VERSION], "*", "*"),
        ([ORIGIN, PREFLIGHT, NAMED_HEADER], PAGE, "x-named"),
        ([STRANGER, ORIGIN, PREFLIGHT], "*", "*"),
    ],
)
@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("root_path", ["", "/api"])
async def test_preflights_behind_cors(
    issuer: LocalIssuer, headers: list[Header], allowed: str, names: str, debug: bool, root_path: str
) -> None:
    """A preflight that CORS would refuse is answered as there is no CORS; one that it allows, as everywhere."""
    cors = CORSSettings(
        allow_origins=(PAGE,), allow_headers=("x-named",), allow_credentials=True, unsafe_debug=debug
    )  # fmt: skip
    guard = guarded(issuer, cors=cors)
    for _ in range(2):
        exchange = await call(guard, http_scope("OPTIONS", root_path + PATH, headers, root_path=root_path))
        assert exchange.status == 204
        assert exchange.headers["access-control-allow-origin"] == allowed
        assert exchange.headers["access-control-allow-headers"] == names
        assert exchange.headers.get("access-control-allow-credentials") == ("true" if allowed == PAGE else None)
        assert "origin" in exchange.headers["vary"]
    elsewhere = await call(guard, http_scope("OPTIONS", "/", [STRANGER, PREFLIGHT]))
    assert (elsewhere.status, json.loads(elsewhere.body)["reason"]) == (403, "preflight_refused")


async def test_layers_of_their_own_behind_cors() -> None:
    """A CORS layer that is used alone is told which path is open."""
    policy = layer(Echo()).policy
    alone = CORSMiddleware(layer(Echo()), allow_origins=PAGE, open_path=policy.path)
    asked = [STRANGER, PREFLIGHT, VERSION]
    assert (await call(alone, http_scope("OPTIONS", PATH, asked))).status == 204
    assert (await call(alone, http_scope("OPTIONS", "/", asked))).status == 403
    assert (await get(alone, PATH, [STRANGER])).headers["access-control-allow-origin"] == "*"
    with pytest.raises(ConfigError, match="open_path: 'x' does not start with '/'"):
        CORSMiddleware(Echo(), allow_origins=PAGE, open_path="x")


async def test_pages_may_read_the_challenge(issuer: LocalIssuer) -> None:
    """A page that is refused may read where to look, and then the document."""
    guard = guarded(issuer, cors=CORSSettings(allow_origins=("*",)))
    refused = await get(guard, "/", [ORIGIN])
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, "*")
    assert "www-authenticate" in refused.headers["access-control-expose-headers"]
    assert (await get(guard, PATH, [ORIGIN])).headers["access-control-allow-origin"] == "*"


def test_its_place(issuer: LocalIssuer) -> None:
    """The layer stands behind hosts and CORS, and before anything that asks who it is or how often."""
    auth = {**dict(settings(issuer).auth), "resource": RESOURCE}
    guard = Guard(Echo(), settings(issuer, auth=AuthSettings(**auth)), http_client=issuer.client)
    expected = list(LAYERS)
    expected.insert(LAYERS.index("cors") + 1, "resource_metadata")
    assert [each.name for each in guard.layers] == expected


async def test_who_may_read_it(issuer: LocalIssuer) -> None:
    """Anyone may, however often, with credentials of any sort, through the hosts that are allowed; and it is logged."""
    chosen = GuardSettings(
        auth=AuthSettings(issuer=issuer.url, resource=RESOURCE),
        hosts=HostsSettings(allowed=("testserver",)),
        rate=RateSettings(limit="1/hour by ip"),
    )
    guard = Recorded(Echo(), issuer, chosen)
    for headers in ([], [bearer("x")], [(b"authorization", b"Bearer"), (b"authorization", b"Basic")]):
        assert (await get(guard.guard, PATH, headers)).status == 200
        assert guard.record["url.path"] == PATH
    foreign = await call(guard.guard, {**http_scope(path=PATH), "headers": [(b"host", b"evil.example")]})
    assert foreign.status == 400
    assert (guard.record["asgi_guard.refused_by"], issuer.fetches) == ("host", {})
    assert (await call(guard.guard, http_scope("POST", PATH))).status == 405
    assert guard.record["asgi_guard.refused_by"] == "resource_metadata"


@pytest.mark.parametrize(
    ("path", "headers", "status", "challenge"),
    [
        ("/", [], 401, f"Bearer {NAMED}"),
        ("/", [bearer("a.b.c")], 401, f'Bearer error="invalid_token", {NAMED}'),
        ("/", [(b"authorization", b"Bearer")], 400, f'Bearer error="invalid_request", {NAMED}'),
        ("/notes", ["read"], 403, f'Bearer error="insufficient_scope", scope="write", {NAMED}'),
        ("/notes", ["write"], 200, None),
        (WELL_KNOWN, [], 401, f"Bearer {NAMED}"),
    ],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_challenges_name_the_document(
    issuer: LocalIssuer, kind: str, path: str, headers: list[Any], status: int, challenge: str | None
) -> None:
    """Every challenge of a resource that describes itself says where, behind what it says otherwise."""
    shown = [
        bearer(issuer.token(scopes=[each], aud=RESOURCE)) if isinstance(each, str) else each for each in headers
    ]  # fmt: skip
    scope = http_scope("GET", path, shown) if kind == "http" else websocket_scope(path, shown)
    exchange = await call(guarded(issuer, routes=(Route("/notes", scopes=("write",)),)), scope)
    if status != 200:
        assert (exchange.status, exchange.headers["www-authenticate"]) == (status, challenge)
    else:
        assert exchange.messages[0]["type"] in ("http.response.start", "websocket.accept")
