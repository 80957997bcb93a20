"""What an issuer says of an opaque token (RFC 7662), judged and remembered.

The order of decisions on an answer: it is an object; `active` is true; it is of an access token; somebody is named, by
`sub` or else by a member that the operator says; `iss`, if it is said, is the issuer; `aud` names this API; nothing
binds the token to a key, of which a bearer shows no proof; `exp` and `nbf`, if they are said, hold; so do the bounds on
the token's age and its whole life, which ask for `iat` and `exp`; the required claims are there. A member that is null
counts as not there.

**What is an access token.** Endpoints answer for refresh tokens too (RFC 7662 section 4), which a client is never to
send here. So what tells the sort of a token has to tell this one: `token_type` as at the token endpoint (RFC 6749
section 7.1), and what servers have beside it or wrote before. A token of no sort has to say when it ends: servers leave
`token_type` out for refresh tokens, some of which do not. An operator whose server tells of no sort may take any; what
is bound to a key is refused all the same.

**Who it is without `sub`.** Not the client: that is the same for all its users, and its id may be someone's `sub`. So
nobody is, unless the operator names members that say who it is. A client that does is told apart from every user.

What was answered counts for a short time, since asking again is the point of such tokens: a positive answer for
`positive` seconds and never past `exp`, a negative one for `negative`. While the issuer cannot be asked, a positive
answer counts for `stale_for` seconds more.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections import OrderedDict
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from asgi_guard.errors import TokenError
from asgi_guard.policy.claims import SCOPE_CLAIMS, ClaimsPolicy, check_required, scopes_of
from asgi_guard.policy.frozen import frozen
from asgi_guard.policy.identity import User, revocation_key
from asgi_guard.policy.plain_types import require_times
from asgi_guard.policy.revocation import marks_of, subject_key
from asgi_guard.policy.token_cache import put_last

if TYPE_CHECKING:
    from collections.abc import Sequence


CLIENT = "client:"
"""What the subject of a client begins with that is known by its id, and that of no user beside it."""

_ACCESS = frozenset({"access_token", "access"})
_SORTS = {
    "token_use": _ACCESS,
    "token_usage": _ACCESS,
    "token_type": frozenset({"bearer", "access_token", "client_credentials"}),
}
"""What tells an access token, in any case: Hydra's word, OpenIddict's, and that of the RFC, by which Salesforce and
older servers tell the sort too (node-oidc-provider `client_credentials`, of a client's own)."""
_OTHER_TYPES = frozenset({"refresh", "offline", "id"})
"""What Keycloak has as `typ` in its other tokens; of an access token that says nothing, for JWTs have one too."""


def origin_of(url: str) -> str:
    """The endpoint's origin: the name of an issuer that is known by its endpoint alone."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def issuer_of(url: str, issuers: Sequence[str], main: str | None) -> str:
    """The issuer whose tokens an endpoint tells of, where nobody says so; empty where that cannot be told.

    An answer need not name it, and the same subject of another issuer is someone else. So it is the only issuer of the
    endpoint's origin, or else the main one, if there is no other; without any issuers it is the endpoint's origin.

    Args:
        url: the endpoint.
        issuers: those whose tokens are verified here, all of them.
        main: the one of these whose settings hold for the others.
    """
    origin = _compared(url)
    near = [each for each in issuers if _compared(each) == origin]
    if len(near) == 1:
        return near[0]
    if not issuers:
        return origin_of(url) if origin else ""
    return main if main is not None and len(issuers) == 1 else ""


def _compared(url: str) -> tuple[str, str | None, int | None] | None:
    """Scheme, host and port, alike for all ways to write them; None for what is no URL."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class IntrospectionPolicy:
    """What an answer has to say.

    Attributes:
        issuer: who is asked; the issuer of every token that it calls active.
        audience: of which `aud` has to name one; empty takes tokens for any API, which is right only where the issuer
            calls no token active that was made for another one.
        leeway: seconds by which clocks may differ.
        scope_claims: where scopes are; the first of these that is there counts.
        max_age: seconds since `iat` after which a token is refused though it is active; None for no bound.
        max_lifetime: seconds from `iat` to `exp` beyond which a token is refused from the first; None for no bound.
        required: members that have to be there, each with a value that it has to be, or to hold, or None for any.
        unsafe_subject: members of which the first that is there says who it is where `sub` is not; none refuses such
            tokens. It is unsafe, since nothing but `sub` is known to be one person's for good, and a name that one
            chooses may be another one's `sub`.
        unsafe_any_type: whether a token is taken whatever sort it is said to be, and where none is said. It is unsafe,
            since endpoints call refresh tokens active too.
    """

    issuer: str
    audience: frozenset[str]
    leeway: float = 30
    scope_claims: tuple[str, ...] = SCOPE_CLAIMS
    max_age: float | None = None
    max_lifetime: float | None = None
    required: tuple[tuple[str, str | None], ...] = ()
    unsafe_subject: tuple[str, ...] = ()
    unsafe_any_type: bool = False

    def user(self, answer: object, now: float) -> User:
        """The user whom an answer names; the module's docstring gives the order.

        Args:
            answer: the issuer's JSON.
            now: seconds since the Unix epoch.

        Raises:
            TokenError: the reason is `inactive`, `type`, `issuer`, `audience`, `claim`, `expired`, `not_yet_valid`,
                `too_old` or `too_long`.
        """
        if not isinstance(answer, dict):
            raise TokenError("inactive", "the issuer's answer is no object")
        if answer.get("active") is not True:
            raise TokenError("inactive", "the issuer does not call it active")
        said: dict[str, Any] = {name: value for name, value in answer.items() if value is not None}
        _check_unbound(said)
        if not self.unsafe_any_type:
            _check_sort(said)
        subject = self._subject(said)
        claims = {**said, "iss": said.get("iss", self.issuer), "sub": subject}
        if not self.audience:
            claims["aud"] = ""
        policy = ClaimsPolicy(
            self.issuer,
            self.audience or frozenset({""}),
            self.leeway,
            self.max_age,
            max_lifetime=self.max_lifetime,
            endless=True,  # the next answer says whether it has ended
        )
        ends = policy.check(claims, now)
        try:
            shown = frozen(said)
        except RecursionError:
            raise TokenError("claim", "the answer is nested deeper than any claims set") from None
        check_required(said, self.required)  # what was said, not what is taken for it
        token_id = said.get("jti")
        return User(
            subject,
            scopes_of(said, self.scope_claims),
            shown,
            self.issuer,
            expires=None if ends == inf else ends,
            key=subject_key(self.issuer, subject),
            token_id=None if token_id is None else revocation_key(self.issuer, token_id),
            marks=marks_of(self.issuer, subject, claims),
        )

    def _subject(self, said: dict[str, Any]) -> str:
        """Who it is: `sub`, or what stands in its place."""
        names = self.unsafe_subject
        name = next((name for name in ("sub", *names) if name in said), None)
        if name is None:
            also = f", and so {'is' if len(names) == 1 else 'are'} {', '.join(names)}" if names else ""
            raise TokenError("claim", f"sub is missing{also}: the answer does not say whose it is")
        subject = said[name]
        if not isinstance(subject, str) or not subject:
            raise TokenError("claim", f"{name} is not a string, or is empty")
        if name == "client_id":
            return CLIENT + subject
        if "client_id" in names and subject.startswith(CLIENT):
            raise TokenError("claim", f"{name} is {_shown(subject)}, and what begins with {CLIENT} is a client here")
        return subject


def _check_unbound(said: dict[str, Any]) -> None:
    """See to it that the token's type asks for no proof of a key; `cnf` is looked at with the other claims."""
    if str(said.get("token_type", "")).lower() == "dpop":
        proof = "it is bound to a key, of which nobody asks for a proof here (RFC 9449)"
        raise TokenError("type", f"token_type is {_shown(said['token_type'])}: {proof}")


def _check_sort(said: dict[str, Any]) -> None:
    """See to it that the token is one for APIs, and not one by which clients get others."""
    for name, access in _SORTS.items():
        if name in said and str(said[name]).lower() not in access:
            raise TokenError("type", f"{name} is {_shown(said[name])}: it is no access token")
    if str(said.get("typ", "")).lower() in _OTHER_TYPES:
        raise TokenError("type", f"typ is {_shown(said['typ'])}: it is no access token")
    if "exp" not in said and not said.keys() & _SORTS.keys():
        raise TokenError("type", "neither exp nor token_type is there: it may be a refresh token, which nobody ends")


def _shown(value: object) -> str:
    return ascii(value)[:128]


@dataclass(frozen=True, slots=True)
class IntrospectionTimes:
    """For how long answers count, in seconds.

    Attributes:
        positive: the token is active.
        negative: it is not.
        stale_for: how much longer a positive answer counts while the issuer cannot be asked; 0 refuses at once.

    Raises:
        ConfigError: a time is negative or no number.
    """

    positive: float = 60
    negative: float = 10
    stale_for: float = 300

    def __post_init__(self) -> None:
        require_times(self)


class IntrospectionCache:
    """What was answered, by the digest of the token.

    Negative answers have room of their own: a flood of made-up tokens drives out no good one.

    Args:
        times: for how long answers count.
        size: how many answers of each sort are kept; the oldest leaves first. Those that count no more leave a few at a
            time, as others come.
    """

    def __init__(self, times: IntrospectionTimes, size: int = 10_000) -> None:
        self._times = times
        self._size = size
        self._active: OrderedDict[bytes, tuple[User, float, float]] = OrderedDict()
        self._inactive: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def fresh(self, digest: bytes, now: float) -> User | None:
        """The user of a token that was called active a moment ago; None if it has to be asked about.

        Args:
            digest: the token's name.
            now: seconds since the Unix epoch.

        Raises:
            TokenError: it was refused a moment ago.
        """
        try:
            user, asked, ends = self._active[digest]  # most are there, and `get` takes longer
        except KeyError:
            pass
        else:
            return user if asked <= now < asked + self._times.positive and now < ends else None
        refused = self._inactive.get(digest)
        if refused is not None and self._refuses(refused, now):
            raise TokenError(refused[0], "the issuer said so a moment ago")
        return None

    def stale(self, digest: bytes, now: float) -> User | None:
        """The user of a token that was called active not too long ago, for when the issuer cannot be asked."""
        known = self._active.get(digest)
        if known is None:
            return None
        return known[0] if self._may_count(known, now) else None

    def _may_count(self, known: tuple[User, float, float], now: float) -> bool:
        """Whether a positive answer counts yet, if only while the issuer cannot be asked."""
        _, asked, ends = known
        return asked <= now < asked + self._times.positive + self._times.stale_for and now < ends

    def _refuses(self, refused: tuple[str, float], now: float) -> bool:
        """Whether a negative answer counts yet."""
        return refused[1] <= now < refused[1] + self._times.negative

    def accept(self, digest: bytes, user: User, now: float) -> None:
        """Remember a positive answer."""
        self._inactive.pop(digest, None)
        ends = inf if user.expires is None else user.expires
        put_last(self._active, digest, (user, now, ends), self._size, lambda known: not self._may_count(known, now))

    def refuse(self, digest: bytes, reason: str, now: float) -> None:
        """Remember a negative answer; a positive one before it is forgotten."""
        self._active.pop(digest, None)
        put_last(self._inactive, digest, (reason, now), self._size, lambda refused: not self._refuses(refused, now))


def is_opaque(token: bytes) -> bool:
    """Whether a token is none that could be verified here: not three parts with dots between, the first a header.

    Some that are no JWT have two dots as well (PASETO's `v4.public.`, Google's `ya29.c.`).
    """
    if token.count(b".") != 2:
        return True
    head = token[: token.index(b".")]
    try:
        return not isinstance(json.loads(urlsafe_b64decode(head + b"=" * (-len(head) % 4))), dict)
    except (ValueError, RecursionError):
        return True
