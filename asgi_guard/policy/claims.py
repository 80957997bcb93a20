"""Which claims make an acceptable access token (RFC 7519 section 4.1, RFC 8725, RFC 6750, RFC 9068)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from asgi_guard.errors import Problem, TokenError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

Profile: TypeAlias = Literal["any", "at+jwt"]
SCOPE_CLAIMS = ("scope", "scp")
"""Where scopes are looked for: RFC 8693 section 4.2, and what issuers wrote before it."""
NO_AUDIENCE = "name this API: a token without an audience could be meant for anyone"
"""What is wrong where no audience is asked for."""
MAX_LEEWAY = 300
"""Seconds by which clocks may differ at most: beyond that a token's end would mean little."""
_SHA256 = re.compile(r"[A-Za-z0-9_-]{43}")
_AT_JWT = ("at+jwt", "application/at+jwt")
_AT_JWT_CLAIMS = ("exp", "iat", "jti", "client_id")
"""What RFC 9068 section 2.2 requires beyond what is always required."""


def names_api(audience: Sequence[str]) -> bool:
    """Whether an audience names this API: an empty one, as of a template that was not filled in, names none."""
    return bool(audience) and all(map(str.strip, audience))


@dataclass(frozen=True, slots=True)
class ClaimsPolicy:
    """What an issuer's tokens have to say.

    The order of decisions: `iss`, `aud`, the types of `sub`, `jti`, `sid` and `client_id`, no `cnf` but a known one
    (RFC 7800: such a token is worth nothing without a proof of its key), the profile's claims, the required ones,
    `exp`, `nbf`, `iat`, the token's whole life, its age.

    Attributes:
        issuer: `iss`, exactly.
        audience: of which `aud`, a string or a list of them, has to name one.
        leeway: seconds by which clocks may differ; it applies to `exp`, `nbf` and `iat`.
        max_age: seconds since `iat` after which a token is refused though it has not expired; None for no bound.
        require_jti: whether the token has to have an id, without which it cannot be revoked.
        max_lifetime: seconds from `iat` to `exp` beyond which a token is refused from the first; None for no bound.
        profile: `at+jwt` takes access tokens as RFC 9068 has them, and nothing else that the issuer may sign; `any` is
            for the many issuers that do not mark their access tokens.
        required: claims that have to be there, each with a value that it has to be, or to hold, or None for any.
        scope_claims: where scopes are; the first of these that is there counts. A dot leads into an object, unless a
            claim of the whole name is there: `realm_access.roles`, `resource_access.api.example.com.roles`.
        bindings: the members that `cnf` may have: those of which somebody else asks for the proof, with every request.
        endless: whether a token need not say its end, as one need not whose issuer is asked whether it has ended.
    """

    issuer: str
    audience: frozenset[str]
    leeway: float = 30
    max_age: float | None = None
    require_jti: bool = False
    max_lifetime: float | None = None
    profile: Profile = "any"
    required: tuple[tuple[str, str | None], ...] = ()
    scope_claims: tuple[str, ...] = SCOPE_CLAIMS
    bindings: frozenset[str] = frozenset()
    endless: bool = False

    def check_type(self, header: Mapping[str, Any]) -> None:
        """Check the header's `typ`, where the profile asks for one (RFC 9068 section 4).

        Raises:
            TokenError: the reason is `type`.
        """
        if self.profile == "at+jwt":
            found = header.get("typ")
            if not isinstance(found, str) or found.lower() not in _AT_JWT:
                raise TokenError("type", f"typ is {_shown(found)}, not at+jwt: it may be no access token")

    def check(self, claims: Mapping[str, Any], now: float) -> float:
        """Check the claims and return when the token stops being acceptable; infinity if nothing says when.

        Args:
            claims: the payload of a token whose signature is right.
            now: seconds since the Unix epoch.

        Raises:
            TokenError: the reason is `issuer`, `audience`, `claim`, `expired`, `not_yet_valid`, `too_old` or
                `too_long`.
        """
        if claims.get("iss") != self.issuer:
            raise TokenError("issuer", f"iss is {_shown(claims.get('iss'))}, not {self.issuer!r}")
        self._check_audience(claims.get("aud"))
        _check_names(claims)
        confirmation(claims, self.bindings)
        self._check_present(claims)
        ends = instant(claims, "exp")
        if ends is None:
            if not self.endless:
                raise TokenError("claim", "exp is missing: a token has to end")
            ends = inf
        ends += self.leeway
        if now >= ends:
            raise TokenError("expired", f"it expired {now - ends + self.leeway:.0f} s ago")
        starts = instant(claims, "nbf")
        if starts is not None and now < starts - self.leeway:
            raise TokenError("not_yet_valid", f"nbf lies {starts - now:.0f} s ahead")
        issued = instant(claims, "iat")
        if issued is not None and now < issued - self.leeway:
            raise TokenError("not_yet_valid", f"iat lies {issued - now:.0f} s ahead")
        return self._bounded(issued, ends, now)

    def _bounded(self, issued: float | None, ends: float, now: float) -> float:
        """When the token ends, by our own bounds on its age and its life."""
        if self.max_age is None and self.max_lifetime is None:
            return ends
        if issued is None:
            raise TokenError("claim", "iat is missing, and the token's age is bounded")
        if self.max_lifetime is not None and ends == inf:
            raise TokenError("claim", "exp is missing, and the token's life is bounded")
        life = ends - self.leeway - issued
        if self.max_lifetime is not None and life > self.max_lifetime:
            raise TokenError("too_long", f"it lives for {life:.0f} s; {self.max_lifetime:.0f} are allowed")
        if self.max_age is not None:
            ends = min(ends, issued + self.max_age + self.leeway)
            if now >= ends:
                raise TokenError("too_old", f"it was issued {now - issued:.0f} s ago; {self.max_age:.0f} are allowed")
        return ends

    def _check_present(self, claims: Mapping[str, Any]) -> None:
        if self.require_jti and "jti" not in claims:
            raise TokenError("claim", "jti is missing: the token could not be revoked")
        if self.profile == "at+jwt":
            for name in _AT_JWT_CLAIMS:
                if name not in claims:
                    raise TokenError("claim", f"{name} is missing, and an at+jwt has to have it (RFC 9068 2.2)")
        check_required(claims, self.required)

    def _check_audience(self, audience: object) -> None:
        named = [audience] if isinstance(audience, str) else audience
        if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
            raise TokenError("audience", "aud is missing, or neither a string nor a list of strings")
        if self.audience.isdisjoint(named):
            raise TokenError("audience", f"aud is {_shown(audience)}, which names none of {sorted(self.audience)}")


def wrong_bounds(leeway: float, max_token_age: float | None, max_token_lifetime: float | None) -> Iterator[Problem]:
    """What is wrong with the bounds in time that tokens are to be held to, by the names of these arguments."""
    # Written so that each holds for NaN, too.
    if not 0 <= leeway <= MAX_LEEWAY:
        yield Problem("leeway", f"it is none of 0 to {MAX_LEEWAY} seconds")
    for name, bound in (("max_token_age", max_token_age), ("max_token_lifetime", max_token_lifetime)):
        if bound is not None and not bound > 0:
            yield Problem(name, "it is not more than 0 seconds, so that no token would be taken")


def claim(claims: Mapping[str, Any], name: str) -> Any:
    """A claim by its name, or, where there is none, by a path that dots make of it; None where there is neither.

    Names on the path may have dots themselves, as clients of Keycloak do: at each level the longest that is there
    counts, unless it leads nowhere.
    """
    if name in claims or "." not in name:
        return claims.get(name)
    head = name
    while (end := head.rfind(".")) >= 0:
        head, rest = name[:end], name[end + 1 :]
        inner = claims.get(head)
        found = claim(inner, rest) if isinstance(inner, dict) else None
        if found is not None:
            return found
    return None


def scopes_of(claims: Mapping[str, Any], names: Iterable[str] = SCOPE_CLAIMS) -> tuple[str, ...]:
    """The scopes a token grants: the first of the claims that is there, a string of words or a list of them.

    `scope` is a string (RFC 8693 4.2): a list there is refused, so that no reader takes it differently.

    Raises:
        TokenError: the claim has another type.
    """
    for name in names:
        value = claim(claims, name)
        if value is None and name not in claims:
            continue
        if isinstance(value, str):
            return tuple(scope for scope in value.split(" ") if scope)
        if name != "scope" and isinstance(value, list) and all(isinstance(scope, str) for scope in value):
            return tuple(value)
        instead = ", but a list: have the issuer write one string (RFC 9068 2.2.3)" if isinstance(value, list) else ""
        raise TokenError("claim", f"{name} is not a string of scopes{instead if name == 'scope' else ''}")
    return ()


def check_required(claims: Mapping[str, Any], required: Iterable[tuple[str, str | None]]) -> None:
    """Check that claims are there that have to be, each with the value that it has to be, or to hold; None takes any.

    Raises:
        TokenError: the reason is `claim`.
    """
    for name, wanted in required:
        value = claim(claims, name)
        if value is None:
            raise TokenError("claim", f"{name} is missing, and it is required")
        if wanted is not None and not any(_is(each, wanted) for each in _several(value)):
            raise TokenError("claim", f"{name} is {_shown(value)}, not {wanted!r}")


def parse_required(values: Iterable[str]) -> tuple[tuple[str, str | None], ...]:
    """Parse required claims: `NAME`, or `NAME=VALUE`.

    Raises:
        ValueError: one has no name, or two signs of equality where one is meant.
    """
    found = []
    for text in values:
        name, equals, value = text.partition("=")
        if not name.strip():
            raise ValueError(f"{text!r} names no claim: write NAME or NAME=VALUE")
        if value.startswith("="):
            raise ValueError(f"{text!r} has two signs of equality: write NAME=VALUE")
        found.append((name.strip(), value.strip() if equals else None))
    return tuple(found)


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is(value: Any, wanted: str) -> bool:
    """Whether a claim has a value that is written down as text: `true` is the text, and what JSON has for it."""
    if isinstance(value, bool):
        return wanted == ("true" if value else "false")
    return value == wanted or (isinstance(value, int | float) and str(value) == wanted)


def confirmation(claims: Mapping[str, Any], known: Collection[str]) -> Mapping[str, str]:
    """What a token is bound to (RFC 7800): the members of `cnf`, each a SHA-256; none where there is no `cnf`.

    Args:
        claims: the token's.
        known: the members of which a proof is asked for.

    Raises:
        TokenError: it is bound to anything else, or in another form.
    """
    if "cnf" not in claims:
        return {}
    bound = claims["cnf"]
    if not isinstance(bound, dict) or not bound or not all(name in known for name in bound):
        raise TokenError("claim", "cnf binds the token to a key, of which a bearer shows no proof (RFC 7800)")
    if not all(isinstance(value, str) and _SHA256.fullmatch(value) for value in bound.values()):
        raise TokenError("claim", "cnf does not hold a SHA-256 in base64url")
    return bound


def _check_names(claims: Mapping[str, Any]) -> None:
    """Whom the token names."""
    for name in ("sub", "jti", "sid", "client_id"):
        value = claims.get(name, "-")
        if not isinstance(value, str) or not value:
            raise TokenError("claim", f"{name} is not a string, or is empty")
    if "sub" not in claims:
        raise TokenError("claim", "sub is missing: the token says nobody's name")


def instant(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519 section 2): a finite number, and not a boolean, which Python takes for one.

    Raises:
        TokenError: the claim is there, and is something else.
    """
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e15 or not isfinite(value):
        raise TokenError("claim", f"{name} is not a number of seconds")
    return float(value)


def _shown(value: object) -> str:
    return ascii(value)[:128]
