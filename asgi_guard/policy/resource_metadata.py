"""What a protected resource says of itself, so that clients find out by themselves whom to ask for a token (RFC 9728).

A client that was refused reads the document's address in the challenge (`resource_metadata`), and in the document the
issuers that are trusted. It may use the document only if `resource` is, letter by letter, the identifier that its
address was made from (3.3). So there is one address: the well-known path, inserted between the identifier's host and
path. And an identifier that clients would write differently before they compare it is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

import orjson

from asgi_guard.errors import ConfigError, Problem
from asgi_guard.policy.address import is_loopback
from asgi_guard.policy.routes import doubtful

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WELL_KNOWN = "/.well-known/oauth-protected-resource"

# RFC 3986: nothing of it ends a quoted string or a header.
_URL = re.compile(r"(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")
_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\.)*[a-z](?:[a-z0-9-]*[a-z0-9])?")
_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class ResourceMetadata:
    """The document, and where it is.

    Attributes:
        path: its decoded path, as requests name it.
        url: its whole address, as challenges name it.
        document: its bytes.
    """

    path: str
    url: str
    document: bytes

    @classmethod
    def of(
        cls,
        resource: str,
        authorization_servers: Sequence[str],
        *,
        scopes_supported: Sequence[str] = (),
        resource_name: str | None = None,
        resource_documentation: str | None = None,
        dpop_signing_alg_values_supported: Sequence[str] = (),
        dpop_bound_access_tokens_required: bool = False,
        tls_client_certificate_bound_access_tokens: bool = False,
    ) -> ResourceMetadata:
        """Write the document. The arguments are its members, by the names of RFC 9728 section 2.

        Raises:
            ConfigError: with everything that is wrong, by argument.
        """
        problems = [Problem("resource", message) for message in _wrong_with_resource(resource)]
        if not authorization_servers:
            problems.append(Problem("authorization_servers", "name one: clients learn here whom to ask for a token"))
        if resource_documentation is not None and not is_url(resource_documentation):
            problems.append(Problem("resource_documentation", "write the whole URL of a page: https://host/path"))
        if problems:
            raise ConfigError(problems)
        members = {
            "resource": resource,
            "authorization_servers": list(dict.fromkeys(authorization_servers)),
            "scopes_supported": sorted(set(scopes_supported)),
            "bearer_methods_supported": ["header"],
            "resource_name": resource_name,
            "resource_documentation": resource_documentation,
            "dpop_signing_alg_values_supported": list(dpop_signing_alg_values_supported),
            "dpop_bound_access_tokens_required": dpop_bound_access_tokens_required,
            "tls_client_certificate_bound_access_tokens": tls_client_certificate_bound_access_tokens,
        }
        parts = urlsplit(resource)
        path = _well_known(parts.path)
        document = orjson.dumps({name: value for name, value in members.items() if value})
        return cls(unquote(path), f"{parts.scheme}://{parts.netloc}{path}", document)


def path_of(resource: str) -> str:
    """The decoded path of a resource's document, whether or not the resource is one that can be described."""
    parts = _split(resource)
    return WELL_KNOWN if parts is None else unquote(_well_known(parts.path))


def _well_known(path: str) -> str:
    return WELL_KNOWN + ("" if path == "/" else path)


def audiences_of(resource: str) -> tuple[str, ...]:
    """What a token for this resource names in `aud` (RFC 8707): its identifier.

    An identifier without a path and the same with the path `/` are one address (RFC 3986 6.2.3), and clients write the
    one as the other: both are taken.
    """
    host, _, path = resource.partition("://")[2].partition("/")
    if path or not host:
        return (resource,)
    bare = resource.removesuffix("/")
    return bare, f"{bare}/"


def _wrong_with_resource(resource: str) -> Iterator[str]:
    parts = _split(resource)
    if parts is None or not parts.hostname or "@" in parts.netloc or "?" in resource or "#" in resource:
        yield "write the URL that clients call: https://host/path, without user, query or fragment"
        return
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        yield "use https: over http, whoever is on the network could send clients to an issuer of their own"
    elif parts.netloc != _authority(parts) or not resource.startswith(f"{parts.scheme}:"):
        yield (
            f"write it as clients do, who would else ask for tokens that are refused: {parts.scheme}://"
            f"{_authority(parts)}{parts.path}"
        )
    if not _is_address(parts.hostname) and not _NAME.fullmatch(parts.hostname):
        yield f"{parts.hostname!r} is neither a host's name nor its address"
    if set(parts.path) & set("[]") or (parts.path and doubtful(unquote(parts.path), parts.path.encode())):
        yield "its path has an empty, '.' or '..' segment, a bracket or an encoded slash: not all read that alike"


def _split(url: str) -> SplitResult | None:
    """The parts of a URL, or None if it is none."""
    if not _URL.fullmatch(url):
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port  # is looked at only when it is asked for
    except ValueError:
        return None
    return parts


def _authority(parts: SplitResult) -> str:
    """Host and port as clients write them: in lower case, and no port where it is the scheme's own."""
    host = parts.hostname or ""
    written = f"[{host}]" if ":" in host else host
    return written if parts.port in (None, _PORTS.get(parts.scheme)) else f"{written}:{parts.port}"


def is_url(url: str) -> bool:
    """Whether this is an absolute URL of the web, in characters that need no quoting anywhere."""
    parts = _split(url)
    return parts is not None and parts.scheme in _PORTS and bool(parts.hostname)


def can_be_asked(issuer: str) -> bool:
    """Whether clients can ask an issuer for tokens: it is an https URL (RFC 8414 section 2), or http to loopback."""
    parts = _split(issuer)
    if parts is None or not parts.hostname:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))


def _is_address(host: str) -> bool:
    """Whether this is an address, in the one way that clients write it."""
    try:
        return str(ip_address(host)) == host
    except ValueError:
        return False
