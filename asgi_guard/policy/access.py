"""May they: the last decision, over everything that the layers before it found out.

The order of decisions. Where the route looks at no credentials (`none`), all are let through; where an identity is
optional, so is who sent none:

1. The credentials are malformed: 400 `invalid_request`.
2. The issuer's keys are unavailable, or it cannot be told whether a proof was seen before: 503.
3. The credentials are invalid: 401 `invalid_token`, in fixed words that tell nothing of why. A token's proof of
   possession is missing, wrong or stale: 401 `invalid_dpop_proof`, or `use_dpop_nonce` with the nonce to use.
4. None were sent and one is required: 401 with a bare challenge.
5. The token is revoked: 401. It could not be looked up, and the operator said `deny`: 503.
6. The browser sent the identity by itself, and the request may be cross-site: 403.
7. A scope is missing: 403 `insufficient_scope`, naming what is needed.

Challenges are those of RFC 6750 section 3, and of RFC 9449 section 7.1 where proofs are taken; where the resource
describes itself, they say where (RFC 9728 section 5.1).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from asgi_guard.policy.answer import Answer, Reason, problem

if TYPE_CHECKING:
    from asgi_guard.asgi import Header
    from asgi_guard.policy.identity import User
    from asgi_guard.policy.routes import AuthMode


class Failure(Enum):
    """Why credentials that were sent led to no identity."""

    MALFORMED = "malformed"
    INVALID = "invalid"
    PROOF = "proof"
    NONCE = "nonce"
    KEYS_UNAVAILABLE = "keys_unavailable"
    STORE_UNAVAILABLE = "store_unavailable"


class Revocation(Enum):
    """What is known of a token's revocation."""

    NOT_REVOKED = "not revoked"
    REVOKED = "revoked"
    UNKNOWN = "unknown"


NOT_REVOKED = Revocation.NOT_REVOKED
"""Of most tokens, and looked at with every request: to find a member in its class takes three times as long."""


@dataclass(frozen=True, slots=True)
class AccessRule:
    """What a route asks of whoever calls it.

    Attributes:
        auth: whether an identity is required, optional, or not looked at.
        scopes: scopes that it must all have.
        any_scopes: scopes of which it must have one; none asks for none.
        unscoped: whether it asks for no scope at all.
    """

    auth: AuthMode = "required"
    scopes: tuple[str, ...] = ()
    any_scopes: tuple[str, ...] = ()
    unscoped: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "unscoped", not self.scopes and not self.any_scopes)


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """How refusals are worded.

    Attributes:
        challenge: the scheme of the `WWW-Authenticate` challenge: `Bearer`, or `ApiKey` where only keys are taken.
        deny_unknown_revocation: whether a token whose revocation cannot be looked up is refused.
        resource_metadata: the address of the metadata that challenges name (RFC 9728); None names none.
        proof_algorithms: the algorithms of proofs, for which a challenge `DPoP` asks (RFC 9449); none asks for none.
    """

    challenge: str = "Bearer"
    deny_unknown_revocation: bool = True
    resource_metadata: str | None = None
    proof_algorithms: tuple[str, ...] = ()

    def decide(
        self,
        rule: AccessRule,
        user: User | None,
        failure: Failure | None,
        *,
        revocation: Revocation = Revocation.NOT_REVOKED,
        cross_site: bool = False,
        retry_after: float = 1,
        request_id: str | None = None,
        nonce: str | None = None,
    ) -> Answer | None:
        """Decide: None lets the request through; the module's docstring gives the order."""
        if rule.auth == "none":
            return None
        if failure is not None:
            return self._failed(failure, retry_after, request_id, nonce)
        if user is None:
            if rule.auth == "optional":
                return None
            return problem(
                401, Reason.CREDENTIALS_MISSING, "This resource needs credentials.",
                request_id=request_id, headers=self._challenge(),
            )  # fmt: skip
        if revocation is Revocation.REVOKED:
            return self._invalid(Reason.TOKEN_REVOKED, request_id)
        if revocation is Revocation.UNKNOWN and self.deny_unknown_revocation:
            return unavailable(Reason.STORE_UNAVAILABLE, retry_after, request_id)
        if cross_site:
            return problem(
                403,
                Reason.CROSS_SITE,
                "Another site may not do this in a user's name.",
                request_id=request_id,
            )
        missing = [scope for scope in rule.scopes if scope not in user.scopes]
        if missing or (rule.any_scopes and not any(scope in user.scopes for scope in rule.any_scopes)):
            # The challenge has no words for "one of these": the first is named, with which the request would succeed.
            needed = " ".join(dict.fromkeys((*rule.scopes, *rule.any_scopes[:1])))
            return problem(
                403, Reason.SCOPE_MISSING, "The credentials do not grant what this resource needs.",
                request_id=request_id, headers=self._challenge(f'error="insufficient_scope", scope="{needed}"'),
            )  # fmt: skip
        return None

    def _failed(self, failure: Failure, retry_after: float, request_id: str | None, nonce: str | None) -> Answer:
        if failure in (Failure.KEYS_UNAVAILABLE, Failure.STORE_UNAVAILABLE):
            return unavailable(Reason(failure.value), retry_after, request_id)
        if failure is Failure.MALFORMED:
            return problem(
                400, Reason.CREDENTIALS_MALFORMED, "The credentials are repeated, of several kinds, or malformed.",
                request_id=request_id, headers=self._challenge('error="invalid_request"'),
            )  # fmt: skip
        if failure in (Failure.PROOF, Failure.NONCE):
            error = "invalid_dpop_proof" if failure is Failure.PROOF else "use_dpop_nonce"
            headers = self._challenge(f'error="{error}"', only="DPoP")
            if nonce is not None:
                headers += ((b"dpop-nonce", nonce.encode()),)
            return problem(
                401, Reason.CREDENTIALS_INVALID, "The proof of possession is not valid.",
                request_id=request_id, headers=headers,
            )  # fmt: skip
        return self._invalid(Reason.CREDENTIALS_INVALID, request_id)

    def _invalid(self, reason: Reason, request_id: str | None) -> Answer:
        return problem(
            401, reason, "The credentials are not valid.",
            request_id=request_id, headers=self._challenge('error="invalid_token"'),
        )  # fmt: skip

    def _challenge(self, *parameters: str, only: str | None = None) -> tuple[Header, ...]:
        """A challenge for each scheme, or for the only one whose credentials were wrong."""
        if self.resource_metadata is not None:
            parameters = (*parameters, f'resource_metadata="{self.resource_metadata}"')
        schemes = {self.challenge: parameters}
        if self.proof_algorithms:
            schemes["DPoP"] = (*parameters, f'algs="{" ".join(self.proof_algorithms)}"')
        elif only is not None:
            schemes[only] = parameters
        return tuple(
            (b"www-authenticate", f"{scheme} {', '.join(said)}".strip().encode())
            for scheme, said in schemes.items()
            if only in (None, scheme)
        )


def unavailable(reason: Reason, retry_after: float, request_id: str | None) -> Answer:
    """503: something that the decision needs cannot be reached; when to come back is said in whole seconds."""
    seconds = max(1, -int(-retry_after // 1))
    return problem(
        503, reason, "The service cannot decide on this request right now.",
        request_id=request_id, headers=((b"retry-after", b"%d" % seconds),),
    )  # fmt: skip
