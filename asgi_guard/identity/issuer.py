"""An issuer whose tokens are accepted, and what judges them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

from asgi_guard.errors import ConfigError, Problem, TokenError
from asgi_guard.identity.fetching import check_name, check_url, default_client
from asgi_guard.identity.jwks import KeyEngine
from asgi_guard.policy import token
from asgi_guard.policy.claims import (
    NO_AUDIENCE,
    SCOPE_CLAIMS,
    ClaimsPolicy,
    Profile,
    names_api,
    parse_required,
    scopes_of,
    wrong_bounds,
)
from asgi_guard.policy.frozen import frozen
from asgi_guard.policy.identity import User, revocation_key
from asgi_guard.policy.keyring import KeyTimes
from asgi_guard.policy.keys import ALGORITHMS, VerificationKey
from asgi_guard.policy.listing import listed
from asgi_guard.policy.plain_types import require_fields
from asgi_guard.policy.revocation import marks_of, subject_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import httpx

DEFAULT_ALGORITHMS = ("RS256", "ES256", "EdDSA")


@dataclass(frozen=True)
class Issuer:
    """An issuer whose tokens are accepted, bound to its own keys, algorithms and audience.

    Attributes:
        issuer: its identifier: `iss`, exactly, and where its keys are discovered, if `jwks_url` does not say where they
            are: any text else.
        audience: of which a token has to name one.
        jwks_url: where its keys are, if they shall not be discovered.
        algorithms: the allowed ones, all asymmetric.
        leeway: seconds by which its clock may differ, 300 at most.
        max_token_age: seconds after which a token is refused though it has not expired.
        require_jti: whether a token has to have an id, without which it cannot be revoked.
        max_token_lifetime: seconds from `iat` to `exp` beyond which a token is refused from the first.
        profile: `at+jwt` takes access tokens as RFC 9068 has them only; `any` takes what has the right audience.
        required_claims: claims that have to be there, as `NAME` or `NAME=VALUE`.
        scope_claims: where scopes are; the first of these that is there counts.
        times: how its keys age.
        client: makes the HTTP client of a key fetch, a new one each time, which is closed after it: the place for a
            proxy, a CA bundle, or headers.

    Raises:
        ConfigError: something of this cannot be used.
    """

    issuer: str
    audience: Sequence[str] | str
    jwks_url: str | None = None
    algorithms: Sequence[str] | str = DEFAULT_ALGORITHMS
    leeway: float = 30
    max_token_age: float | None = None
    require_jti: bool = False
    max_token_lifetime: float | None = None
    profile: Profile = "any"
    required_claims: Sequence[str] | str = ()
    scope_claims: Sequence[str] | str = SCOPE_CLAIMS
    times: KeyTimes = field(default_factory=KeyTimes)
    client: Callable[[], httpx.AsyncClient] = default_client

    def __post_init__(self) -> None:
        require_fields(self)
        problems = list(wrong_bounds(self.leeway, self.max_token_age, self.max_token_lifetime))
        for name, message in self._wrong_with_urls():
            problems.append(Problem(name, message))
        for name in ("audience", "algorithms", "required_claims", "scope_claims"):
            try:
                object.__setattr__(self, name, listed(getattr(self, name)))
            except ValueError as error:
                problems.append(Problem(name, str(error)))
        if all(problem.name != "audience" for problem in problems) and not names_api(self.audience):
            problems.append(Problem("audience", NO_AUDIENCE))
        try:
            parse_required(self.required_claims)
        except ValueError as error:
            problems.append(Problem("required_claims", str(error)))
        if self.profile not in get_args(Profile):
            problems.append(Problem("profile", f"{self.profile!r} is none of {', '.join(get_args(Profile))}"))
        unknown = [name for name in self.algorithms if name not in ALGORITHMS]
        if unknown or not self.algorithms:
            what = f"{', '.join(unknown)} cannot be allowed" if unknown else "none is allowed"
            # What is only alike may be a symmetric one, and so another thing altogether.
            known = [name for name in ALGORITHMS if name.lower() in {each.lower() for each in unknown}]
            choice = f"did you mean {', '.join(known)}?" if known else f"choose among {', '.join(ALGORITHMS)}"
            problems.append(Problem("algorithms", f"{what}; {choice}"))
        if problems:
            raise ConfigError(problems)

    def _wrong_with_urls(self) -> Iterator[tuple[str, str]]:
        """What is wrong with where keys are fetched from: there, and nowhere else, only https is spoken."""
        try:
            check_name(self.issuer)
        except ValueError as error:
            yield "issuer", str(error)
        else:
            if self.jwks_url is None and (fault := _fault(self.issuer)):
                yield "issuer", f"{fault}; or set jwks_url to an https URL of its keys, and any text may be an issuer"
        if self.jwks_url is not None and (fault := _fault(self.jwks_url, query=True)):
            yield "jwks_url", fault


def _fault(url: str, *, query: bool = False) -> str | None:
    try:
        check_url(url, query=query)
    except ValueError as error:
        return str(error)
    return None


@dataclass(frozen=True)
class Verifier:
    """An issuer, ready to judge tokens."""

    claims: ClaimsPolicy
    engine: KeyEngine
    algorithms: frozenset[str]

    @classmethod
    def of(cls, issuer: Issuer, bindings: frozenset[str]) -> Verifier:
        """What judges this issuer's tokens, bound to a key or a certificate in these ways at most."""
        algorithms = frozenset(issuer.algorithms)
        claims = ClaimsPolicy(
            issuer.issuer,
            frozenset(issuer.audience),
            issuer.leeway,
            issuer.max_token_age,
            issuer.require_jti,
            issuer.max_token_lifetime,
            issuer.profile,
            parse_required(issuer.required_claims),
            tuple(issuer.scope_claims),
            bindings,
        )
        engine = KeyEngine(
            issuer.issuer, issuer.jwks_url, algorithms=algorithms, times=issuer.times, client=issuer.client
        )
        return cls(claims, engine, algorithms)

    def check_algorithm(self, algorithm: str) -> None:
        """Check the header's `alg`, before a key is looked for: none would be found, and one might be fetched.

        Raises:
            TokenError: it is not allowed for this issuer, but may be for another.
        """
        if algorithm not in self.algorithms:
            allowed = ", ".join(sorted(self.algorithms))
            raise TokenError("algorithm", f"{algorithm} is not allowed for {self.claims.issuer} (allowed: {allowed})")

    def user(self, parsed: token.ParsedToken, key: VerificationKey, now: float) -> User:
        """Verify the signature, then the claims, and say who it is."""
        self.claims.check_type(parsed.header)
        if not key.verifies(parsed.algorithm, parsed.signing_input, parsed.signature):
            raise TokenError("signature", "the signature is not that of the issuer's key")
        claims = parsed.claims
        expires = self.claims.check(claims, now)
        subject, issuer = claims["sub"], self.claims.issuer
        token_id = claims.get("jti")
        marks = marks_of(issuer, subject, claims)
        return User(
            subject,
            scopes_of(claims, self.claims.scope_claims),
            frozen(claims),
            issuer,
            expires=expires,
            key=subject_key(issuer, subject),
            token_id=None if token_id is None else revocation_key(issuer, token_id),
            marks=marks,
        )
