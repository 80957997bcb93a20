"""A server of the official MCP Python SDK behind the guard: clients find out by themselves whom to ask for a token.

Run it with the issuer that your clients get their tokens from:

    pip install '.[mcp]'
    export ASGI_GUARD_AUTH_ISSUER=https://id.example.com
    export ASGI_GUARD_AUTH_RESOURCE=http://127.0.0.1:8000/mcp
    uvicorn examples.mcp_server:app --no-proxy-headers --no-server-header --no-access-log

A client that comes without a token is told where this resource describes itself, reads there which issuer to ask, and
comes back with a token that names this resource as its audience and has the scope `notes:read`:

    curl -i -X POST http://127.0.0.1:8000/mcp
    curl http://127.0.0.1:8000/.well-known/oauth-protected-resource/mcp
"""

from __future__ import annotations

from typing import Any

from mcp.server.mcpserver import Context, MCPServer

from asgi_guard import Guard, GuardSettings, Route

NOTES = {"alice": ["Water the fern.", "Call the bank."]}

server = MCPServer("notes")


@server.tool()
def list_notes(context: Context[Any, Any]) -> list[str]:
    """List the notes of whoever asks."""
    request: Any = context.request_context.request
    return NOTES.get(request.user.subject, [])


# The SDK knows none of the guard's users, so it would let any of them go on with another's session: it is to keep none.
# It answers to 127.0.0.1 and localhost only; for any other name, give it `host` or `transport_security`.
app = Guard(
    server.streamable_http_app(stateless_http=True),
    GuardSettings(routes=(Route("/mcp", scopes=("notes:read",)),)),
)
