"""A server of the official MCP Python SDK, guarded and served, and the SDK's own client, told only its address."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from base64 import b64decode
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qs

import pytest

pytest.importorskip("mcp", reason="this needs the extra 'mcp', which the lowest versions of the others do not fit")

import httpx
import httpx2
import uvicorn
from hypothesis import example, given
from hypothesis import strategies as st
from mcp import Client
from mcp.client.auth import OAuthFlowError
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.auth.utils import build_protected_resource_metadata_discovery_urls
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken, ProtectedResourceMetadata
from mcp.shared.auth_utils import resource_url_from_server_url
from mcp.types import TextContent

from asgi_guard.errors import ConfigError
from asgi_guard.policy.resource_metadata import ResourceMetadata
from asgi_guard.testing import LocalIssuer
from tests.end_to_end.serving import ROOT, Served, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from asgi_guard.asgi import Receive, Scope, Send

SECRET = "a-secret"
SERVER_METADATA = "/.well-known/oauth-authorization-server"
RESOURCE_METADATA = "/.well-known/oauth-protected-resource/mcp"
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
ACCEPT = {"accept": "application/json, text/event-stream"}


class AuthorizationServer:
    """A local issuer that also gives tokens, to clients that know the secret, for the resource that they name."""

    def __init__(self, issuer: LocalIssuer) -> None:
        self.issuer = issuer
        self.asked: list[dict[str, str]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        status, headers, body = self._answer(scope, await _body(receive))
        lines = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": lines})
        await send({"type": "http.response.body", "body": body})

    def _answer(self, scope: Scope, body: bytes) -> tuple[int, dict[str, str], bytes]:
        path, url = scope["path"], self.issuer.url
        document: dict[str, Any] = {
            "issuer": url,
            "authorization_endpoint": f"{url}/authorize",
            "token_endpoint": f"{url}/token",
        }
        if path == "/token":
            document = self._grant(dict(scope["headers"]), body)
        elif path != SERVER_METADATA:
            return self.issuer.answer(path)
        return 200, {"content-type": "application/json"}, json.dumps(document).encode()

    def _grant(self, headers: dict[bytes, bytes], body: bytes) -> dict[str, Any]:
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        kind, _, encoded = headers.get(b"authorization", b"").partition(b" ")
        client, _, secret = b64decode(encoded).decode().partition(":")
        assert (kind, secret, form["grant_type"]) == (b"Basic", SECRET, "client_credentials")
        self.asked.append(form)
        scopes = form.get("scope", "").split()
        token = self.issuer.token(client, scopes=scopes, aud=form["resource"])
        return {"access_token": token, "token_type": "Bearer", "expires_in": 300, "scope": " ".join(scopes)}


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


@contextmanager
def in_thread(app: Any, port: int) -> Iterator[None]:
    """Serve an app from a thread of this process."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(20)


@contextmanager
def by_the_documented_line(folder: Path, port: int, **environment: str) -> Iterator[Served]:
    """Run the example as it says itself, but at a port that is free."""
    (line,) = [line.split() for line in (ROOT / "examples/mcp_server.py").read_text().splitlines() if "uvicorn" in line]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ASGI_GUARD_")}
    out, err = folder / "out", folder / "err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", *line, "--port", str(port)],
            stdout=stdout,
            stderr=stderr,
            cwd=ROOT,
            env={**kept, **environment},
        )
        served = Served(f"http://127.0.0.1:{port}", process, out, err)
        try:
            served.wait_until_ready()
            yield served
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, AuthorizationServer]]:
    issuer_port, port = free_port(), free_port()
    authority = AuthorizationServer(LocalIssuer(f"http://127.0.0.1:{issuer_port}"))
    environment = {
        "ASGI_GUARD_AUTH_ISSUER": authority.issuer.url,
        "ASGI_GUARD_AUTH_RESOURCE": f"http://127.0.0.1:{port}/mcp",
    }
    with (
        in_thread(authority, issuer_port),
        by_the_documented_line(tmp_path_factory.mktemp("mcp"), port, **environment) as served,
    ):
        yield served, authority
        served.stop()
        assert "Traceback" not in served.errors()


class Storage:
    """Keeps what the SDK's client was given."""

    def __init__(self, tokens: OAuthToken | None = None) -> None:
        self.tokens = tokens

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        raise AssertionError("the client brings its own")

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        raise AssertionError("the client brings its own")


@asynccontextmanager
async def connected(
    site: tuple[Served, AuthorizationServer],
    mode: Literal["legacy", "auto"] = "legacy",
    tokens: OAuthToken | None = None,
    issuer: str | None = None,
) -> AsyncIterator[tuple[Client, list[tuple[str, str, int]]]]:
    """The SDK's client, with what it asked: the method, the path and the status of each answer."""
    served, authority = site
    asked: list[tuple[str, str, int]] = []

    async def note(response: httpx2.Response) -> None:
        asked.append((response.request.method, response.request.url.path, response.status_code))

    provider = ClientCredentialsOAuthProvider(
        f"{served.url}/mcp", Storage(tokens), "alice", SECRET, issuer=issuer or authority.issuer.url
    )
    async with (
        httpx2.AsyncClient(auth=provider, event_hooks={"response": [note]}) as http,
        Client(streamable_http_client(f"{served.url}/mcp", http_client=http), mode=mode) as client,
    ):
        yield client, asked


def texts(result: Any) -> list[str]:
    return [part.text for part in result.content if isinstance(part, TextContent)]


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_client_finds_its_way(
    site: tuple[Served, AuthorizationServer], mode: Literal["legacy", "auto"]
) -> None:
    """A client that knows the server's address finds the issuer, gets a token for the server, and calls its tool."""
    served, authority = site
    authority.asked.clear()
    async with connected(site, mode) as (client, asked):
        assert texts(await client.call_tool("list_notes", {})) == ["Water the fern.", "Call the bank."]
    assert asked[:5] == [
        ("POST", "/mcp", 401),
        ("GET", RESOURCE_METADATA, 200),
        ("GET", SERVER_METADATA, 200),
        ("POST", "/token", 200),
        ("POST", "/mcp", 200),
    ]
    assert authority.asked == [
        {"grant_type": "client_credentials", "resource": f"{served.url}/mcp", "scope": "notes:read"}
    ]
    assert {path for _, path, _ in asked[5:]} == {"/mcp"}


async def test_a_client_with_a_token_that_grants_too_little(site: tuple[Served, AuthorizationServer]) -> None:
    """A client whose token lacks the scope is told which, and where to get it, and comes back with it."""
    served, authority = site
    kept = OAuthToken(access_token=authority.issuer.token("alice", aud=f"{served.url}/mcp"), expires_in=300)
    async with connected(site, tokens=kept) as (client, asked):
        assert texts(await client.call_tool("list_notes", {})) == ["Water the fern.", "Call the bank."]
    assert [status for _, _, status in asked[:5]] == [403, 200, 200, 200, 200]
    assert asked[1][1] == RESOURCE_METADATA


async def test_a_client_of_another_issuer(site: tuple[Served, AuthorizationServer]) -> None:
    """A client whose secret is for another issuer learns that this server trusts none that it knows, and sends none."""
    _, authority = site
    authority.asked.clear()
    with pytest.RaisesGroup(OAuthFlowError, flatten_subgroups=True):
        async with connected(site, issuer="https://elsewhere.example"):
            raise AssertionError("it was let in")
    assert authority.asked == []


@pytest.mark.parametrize(
    ("claims", "status", "challenge"),
    [
        (None, 401, 'Bearer resource_metadata="{url}"'),
        ({}, 200, None),
        ({"aud": "http://127.0.0.1/mcp"}, 401, 'Bearer error="invalid_token", resource_metadata="{url}"'),
        ({"aud": "{site}"}, 401, 'Bearer error="invalid_token", resource_metadata="{url}"'),
        ({"aud": "{site}/mcp/"}, 401, 'Bearer error="invalid_token", resource_metadata="{url}"'),
        (
            {"scope": "notes:write"},
            403,
            'Bearer error="insufficient_scope", scope="notes:read", resource_metadata="{url}"',
        ),
    ],
)
def test_only_tokens_for_this_server_are_accepted(
    site: tuple[Served, AuthorizationServer], claims: dict[str, str] | None, status: int, challenge: str | None
) -> None:
    """Without a token, or with one for another resource, there is a challenge that names this one's metadata."""
    served, authority = site
    headers = dict(ACCEPT)
    if claims is not None:
        said: dict[str, Any] = {name: value.format(site=served.url) for name, value in claims.items()}
        token = authority.issuer.token("alice", **{"aud": f"{served.url}/mcp", "scope": "notes:read", **said})
        headers["authorization"] = f"Bearer {token}"
    answer = httpx.post(f"{served.url}/mcp", json=CALL, headers=headers)
    assert answer.status_code == status
    expected = challenge and challenge.format(url=served.url + RESOURCE_METADATA)
    assert answer.headers.get("www-authenticate") == expected


def test_the_example_says_where_its_metadata_are(site: tuple[Served, AuthorizationServer]) -> None:
    """The address that the example shows is that of the metadata, which name the issuer and the scope."""
    served, authority = site
    assert f"curl http://127.0.0.1:8000{RESOURCE_METADATA}\n" in (ROOT / "examples" / "mcp_server.py").read_text()
    assert httpx.get(served.url + RESOURCE_METADATA).json() == {
        "resource": f"{served.url}/mcp",
        "authorization_servers": [authority.issuer.url],
        "scopes_supported": ["notes:read"],
        "bearer_methods_supported": ["header"],
    }


HOSTS = st.sampled_from(
    [
        "api.example.com", "API.example.com", "localhost", "127.0.0.1", "127.1", "1", "1.2.3", "0x7f.1", "a.0x1",
        "a..b", "a.", "a_b.example", "xn--bcher-kva.example", "%41.example", "*.example", ";", "[::1]", "[0:0::1]",
    ]
)  # fmt: skip
PORTS = st.sampled_from(["", ":", ":443", ":80", ":8443", ":08443", ":0"])
# The SDK leaves what follows a semicolon out of the address that it would guess, were it not told.
PATHS = st.text("/aZ0.-_~!$&'()*+,=:@%41fF2e[]", max_size=10).map(lambda path: path and "/" + path.lstrip("/"))


@given(scheme=st.sampled_from(["https", "http"]), host=HOSTS, port=PORTS, path=PATHS)
@example(scheme="https", host="api.example.com", port="", path="")
@example(scheme="https", host="api.example.com", port="", path="/")
@example(scheme="https", host="api.example.com", port=":8443", path="/mcp/")
@example(scheme="https", host="[::1]", port="", path="/%41")
def test_the_sdk_reads_identifiers_as_they_are(scheme: str, host: str, port: str, path: str) -> None:
    """An identifier that may be configured is one that the SDK neither changes nor looks for in another place."""
    resource = f"{scheme}://{host}{port}{path}"
    try:
        metadata = ResourceMetadata.of(resource, ("https://id.example.com",))
    except ConfigError:
        return
    assert str(ProtectedResourceMetadata.model_validate_json(metadata.document).resource) == resource
    assert resource_url_from_server_url(resource) == resource
    assert build_protected_resource_metadata_discovery_urls(None, resource)[0] == metadata.url
