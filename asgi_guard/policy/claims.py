"""Which claims make an acceptable access token (RFC 7519 section 4.1, RFC 8725, RFC 6750)."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

from asgi_guard.errors import TokenError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class ClaimsPolicy:
    """What an issuer's tokens have to say.

    The order of decisions: `iss`, `aud`, the types of `sub`, `jti` and `client_id`, no `cnf` (RFC 7800: such a token
    is worth nothing without a proof of its key), `exp`, `nbf`, `iat`, the token's age.

    Attributes:
        issuer: `iss`, exactly.
        audience: of which `aud`, a string or a list of them, has to name one.
        leeway: seconds by which clocks may differ; it applies to `exp`, `nbf` and `iat`.
        max_age: seconds since `iat` after which a token is refused though it has not expired; None for no such bound.
        require_jti: whether the token has to have an id, without which it cannot be revoked.
    """

    issuer: str
    audience: frozenset[str]
    leeway: float = 30
    max_age: float | None = None
    require_jti: bool = False

    def check(self, claims: Mapping[str, Any], now: float) -> float:
        """Check the claims and return when the token stops being acceptable.

        Args:
            claims: the payload of a token whose signature is right.
            now: seconds since the Unix epoch.

        Raises:
            TokenError: the reason is `issuer`, `audience`, `claim`, `expired`, `not_yet_valid` or `too_old`.
        """
        if claims.get("iss") != self.issuer:
            raise TokenError("issuer", f"iss is {_shown(claims.get('iss'))}, not {self.issuer!r}")
        self._check_audience(claims.get("aud"))
        _check_bearer(claims)
        if self.require_jti and "jti" not in claims:
            raise TokenError("claim", "jti is missing: the token could not be revoked")
        ends = _instant(claims, "exp")
        if ends is None:
            raise TokenError("claim", "exp is missing: a token has to end")
        ends += self.leeway
        if now >= ends:
            raise TokenError("expired", f"it expired {now - ends + self.leeway:.0f} s ago")
        starts = _instant(claims, "nbf")
        if starts is not None and now < starts - self.leeway:
            raise TokenError("not_yet_valid", f"nbf lies {starts - now:.0f} s ahead")
        issued = _instant(claims, "iat")
        if issued is not None and now < issued - self.leeway:
            raise TokenError("not_yet_valid", f"iat lies {issued - now:.0f} s ahead")
        if self.max_age is not None:
            if issued is None:
                raise TokenError("claim", "iat is missing, and the token's age is bounded")
            ends = min(ends, issued + self.max_age + self.leeway)
            if now >= ends:
                raise TokenError("too_old", f"it was issued {now - issued:.0f} s ago; {self.max_age:.0f} are allowed")
        return ends

    def _check_audience(self, audience: object) -> None:
        named = [audience] if isinstance(audience, str) else audience
        if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
            raise TokenError("audience", "aud is missing, or neither a string nor a list of strings")
        if self.audience.isdisjoint(named):
            raise TokenError("audience", f"aud is {_shown(audience)}, which names none of {sorted(self.audience)}")


def scopes_of(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """The scopes a token grants: `scope`, a string (RFC 8693 4.2), or else `scp`, a string or a list.

    Raises:
        TokenError: the claim has another type.
    """
    name = "scope" if "scope" in claims else "scp"
    value = claims.get(name, "")
    if isinstance(value, str):
        return tuple(scope for scope in value.split(" ") if scope)
    if name == "scp" and isinstance(value, list) and all(isinstance(scope, str) for scope in value):
        return tuple(value)
    raise TokenError("claim", f"{name} is not a string of scopes")


def _check_bearer(claims: Mapping[str, Any]) -> None:
    """Whom the token names, and that whoever bears it is meant."""
    for name in ("sub", "jti", "client_id"):
        value = claims.get(name, "-")
        if not isinstance(value, str) or not value:
            raise TokenError("claim", f"{name} is not a string, or is empty")
    if "sub" not in claims:
        raise TokenError("claim", "sub is missing: the token says nobody's name")
    if "cnf" in claims:
        raise TokenError("claim", "cnf binds the token to a key, of which a bearer shows no proof (RFC 7800)")


def _instant(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519 section 2): a finite number, and not a boolean, which Python takes for one."""
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e15 or not isfinite(value):
        raise TokenError("claim", f"{name} is not a number of seconds")
    return float(value)


def _shown(value: object) -> str:
    return ascii(value)[:128]
