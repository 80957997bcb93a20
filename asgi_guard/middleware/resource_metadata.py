"""The ResourceMetadata layer: whom to ask for a token, for every client that has none yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_guard.chain.layer import Decision, Layer
from asgi_guard.configuration.arguments import typed
from asgi_guard.policy.answer import Answer, Reason, problem
from asgi_guard.policy.listing import all_listed
from asgi_guard.policy.resource_metadata import ResourceMetadata

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asgi_guard.asgi import ASGIApp
    from asgi_guard.chain.exchange import Exchange

MAX_AGE = b"3600"
_ANYONE = (b"access-control-allow-origin", b"*")


class ResourceMetadataMiddleware(Layer):
    """Answers with this API's Protected Resource Metadata (RFC 9728), to GET and HEAD, at its one address.

    The document is public and the same for everyone: it needs no token, may be cached for an hour, and pages of any
    origin may read it. Its address is `policy.url`, which `AccessMiddleware` names in challenges if it is told.

    Args:
        app: the app within.
        resource: the API's identifier: the URL that clients call, https (http to loopback).
        authorization_servers: the issuers whose tokens are accepted.
        scopes_supported: scopes that requests may need.
        resource_name: what the API is called, for people.
        resource_documentation: the URL of a page for developers.
        dpop_signing_alg_values_supported: the algorithms of proofs that are taken (RFC 9449); none where none are.
        dpop_bound_access_tokens_required: whether only tokens that are bound so are taken.
        tls_client_certificate_bound_access_tokens: whether tokens are taken that are bound to a certificate (RFC 8705).
        marks_origin: tells which origins' responses a CORS layer further out marks, which is then left to it.

    Raises:
        ConfigError: with everything that is wrong, by argument.
    """

    name = "resource_metadata"

    @typed
    def __init__(
        self,
        app: ASGIApp,
        *,
        resource: str,
        authorization_servers: str | Sequence[str],
        scopes_supported: str | Sequence[str] = (),
        resource_name: str | None = None,
        resource_documentation: str | None = None,
        dpop_signing_alg_values_supported: str | Sequence[str] = (),
        dpop_bound_access_tokens_required: bool = False,
        tls_client_certificate_bound_access_tokens: bool = False,
        marks_origin: Callable[[bytes], bool] | None = None,
    ) -> None:
        super().__init__(app)
        lists = all_listed(
            authorization_servers=authorization_servers,
            scopes_supported=scopes_supported,
            dpop_signing_alg_values_supported=dpop_signing_alg_values_supported,
        )
        self.policy = ResourceMetadata.of(
            resource,
            **lists,
            resource_name=resource_name,
            resource_documentation=resource_documentation,
            dpop_bound_access_tokens_required=dpop_bound_access_tokens_required,
            tls_client_certificate_bound_access_tokens=tls_client_certificate_bound_access_tokens,
        )
        self._marks_origin = marks_origin
        headers = (
            (b"content-type", b"application/json"),
            (b"cache-control", b"public, max-age=" + MAX_AGE),
        )
        self._marked = Answer(200, headers, self.policy.document, path=self.policy.path)
        self._answer = Answer(200, (*headers, _ANYONE), self.policy.document, path=self.policy.path)
        # A client in a page may send headers that a preflight asks for, such as the version of its protocol.
        allowed = ((b"access-control-allow-headers", b"*"), (b"access-control-max-age", MAX_AGE))
        self._preflight = Answer(204, (_ANYONE, *allowed), path=self.policy.path)

    def decide(self, exchange: Exchange) -> Decision:
        """Answer whoever asks for the document."""
        if not exchange.asks_for(self.policy.path):
            return None
        origins = exchange.lines(b"origin")
        if exchange.method in ("GET", "HEAD"):
            marks = self._marks_origin
            return self._marked if marks and len(origins) == 1 and marks(origins[0]) else self._answer
        if exchange.method == "OPTIONS" and origins and b"access-control-request-method" in exchange.headers:
            return self._preflight
        return problem(
            405, Reason.METHOD_NOT_ALLOWED, "This document can only be read.",
            request_id=exchange.request_id, headers=((b"allow", b"GET, HEAD"),),
        )  # fmt: skip
