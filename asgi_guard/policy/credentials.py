"""Where a request's credentials are, and whether they are in one place only (RFC 6750 section 2).

The order of decisions:

1. More than one `Authorization` or API-key header line: malformed.
2. `Authorization` present: it has to be `Bearer TOKEN` or, where proofs are taken, `DPoP TOKEN` (RFC 9449); several in
   one line, or none, is malformed. Another scheme (`Basic`, say) is nothing of ours, and counts as no credentials.
   Where API keys come in it, no tokens are taken, and it holds a key (`key_alone`).
3. More than one of token, cookie, API key and query: malformed, for which of them would be meant?
4. The one that is there, or none. The query string is looked at only of a WebSocket handshake, and only where an
   operator names a parameter of it: addresses end up in logs and histories (RFC 6750 section 5.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote_to_bytes

from asgi_guard.policy.token import MAX_TOKEN_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

_TOKEN68 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/="
_KEY_SCHEMES = (b"bearer", b"apikey")
MAX_COOKIE_BYTES = 16384
MAX_QUERY_BYTES = 16384


@dataclass(frozen=True, slots=True)
class Credential:
    """What a client showed, not yet verified.

    Attributes:
        kind: `bearer` or `dpop` (the header, by its scheme), `cookie`, `api-key` or `query`.
        value: the token or key.
    """

    kind: Literal["bearer", "dpop", "cookie", "api-key", "query"]
    value: bytes

    def __repr__(self) -> str:
        return f"Credential(kind={self.kind!r})"


class MalformedCredentialsError(ValueError):
    """The credentials are not in a form that can be judged: 400 `invalid_request`."""


def find(
    authorization: Sequence[bytes],
    api_key: Sequence[bytes] = (),
    cookies: Sequence[bytes] = (),
    cookie_name: bytes | None = None,
    *,
    dpop: bool = False,
    query: bytes = b"",
    query_name: bytes | None = None,
) -> Credential | None:
    """Find a request's credentials; the module's docstring gives the order.

    Args:
        authorization: the lines of `Authorization`.
        api_key: the lines of the API key's header.
        cookies: the lines of `Cookie`; HTTP/2 may split them.
        cookie_name: the cookie that holds a token; None if none does.
        dpop: whether the scheme `DPoP` is one of ours.
        query: the query string, as it was sent.
        query_name: the parameter of it that holds a token; None if none does.

    Raises:
        MalformedCredentialsError: they are repeated, malformed, or of several kinds.
    """
    if len(authorization) > 1 or len(api_key) > 1:
        raise MalformedCredentialsError("the credentials are sent more than once")
    found: list[Credential] = []
    if authorization:
        credential = _token(authorization[0], dpop=dpop)
        if credential is not None:
            found.append(credential)
    if api_key:
        found.append(Credential("api-key", api_key[0]))
    if cookie_name is not None and cookies:
        values = cookie_values(cookies, cookie_name)
        if len(values) > 1:
            raise MalformedCredentialsError("the cookie is sent more than once")
        found.extend(Credential("cookie", value) for value in values if value)  # apps blank a cookie at log-out
    if query_name is not None and query:
        found.extend(Credential("query", value) for value in _query_values(query, query_name))
    if len(found) > 1:
        raise MalformedCredentialsError("credentials of several kinds are sent")
    return found[0] if found else None


def _token(value: bytes, *, dpop: bool) -> Credential | None:
    scheme, _, token = value.strip(b" \t").partition(b" ")
    bound = dpop and scheme.lower() == b"dpop"
    if not bound and scheme.lower() != b"bearer":
        words = value.lower().replace(b"\t", b" ")
        if b"bearer " in words or (dpop and b"dpop " in words):
            raise MalformedCredentialsError("the Authorization header is malformed")
        return None
    token = token.strip(b" ")
    if not _is_token68(token):
        raise MalformedCredentialsError("the Authorization header is malformed")
    return Credential("dpop" if bound else "bearer", token)


def key_alone(value: bytes) -> bytes:
    """An API key that comes in `Authorization`, without the scheme `Bearer` or `ApiKey` that may stand before it."""
    scheme, *rest = value.split(None, 1) or (b"",)
    return rest[0] if rest and scheme.lower() in _KEY_SCHEMES else value


def _is_token68(token: bytes) -> bool:
    # One that is too large is refused for its size, before anybody looks at each of its bytes.
    return bool(token) and (len(token) > MAX_TOKEN_BYTES or not token.translate(None, _TOKEN68))


def _query_values(query: bytes, name: bytes) -> list[bytes]:
    if len(query) > MAX_QUERY_BYTES:
        raise MalformedCredentialsError("the query is too large")
    pairs = (pair.partition(b"=") for pair in query.split(b"&"))
    values = [unquote_to_bytes(value) for found, _, value in pairs if unquote_to_bytes(found) == name]
    if not all(map(_is_token68, values)):
        raise MalformedCredentialsError("the token in the query is malformed")
    return values


def cookie_values(lines: Sequence[bytes], name: bytes) -> list[bytes]:
    """The values of a cookie, as they were sent but for quotes around them: one for each time that it was.

    Raises:
        MalformedCredentialsError: the cookies are too large to be looked through.
    """
    if sum(map(len, lines)) > MAX_COOKIE_BYTES:
        raise MalformedCredentialsError("the cookies are too large")
    pairs = (pair.partition(b"=") for line in lines for pair in line.split(b";"))
    return [value.strip(b' \t"') for found, equals, value in pairs if equals and found.strip() == name]
