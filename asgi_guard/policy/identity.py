"""Who a request comes from, in the shape that Starlette's `request.user`, `request.auth` and `@requires` expect.

That shape is a convention of attributes, so it works without Starlette and in frameworks that never heard of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b, sha256
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from asgi_guard.errors import ConfigError, Problem, wrong_type
from asgi_guard.policy.frozen import FrozenDict
from asgi_guard.policy.listing import one_text
from asgi_guard.policy.plain_types import require_fields

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Marks(NamedTuple):
    """What else a token is looked up by among the revoked, beside its id.

    Attributes:
        session: the store's name for its session; None if it has no `sid`.
        subject: the store's name for its subject; None asks nothing.
        issued: its `iat` in microseconds since the Unix epoch; 0 if it does not say.
    """

    session: str | None
    subject: str | None
    issued: int = 0


class Auth(NamedTuple):
    """What stands in `scope["auth"]`: the scopes, as Starlette's `@requires` looks them up."""

    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class User:
    """A verified identity: what stands in `scope["user"]`.

    Attributes:
        subject: the token's `sub`, or the API key's name. For an opaque token without `sub` what the operator takes in
            its place; `client:ID` is then a client that acts for no user.
        scopes: what it may do.
        claims: the token's claims, which their own methods do not change, however deep; empty for an API key.
        issuer: the token's `iss`; None for an API key.
        kind: how it was shown: `token`, or `api-key`.
        expires: seconds since the Unix epoch, leeway included; None for an API key, and for an opaque token whose end
            nobody says.
        key: its name in the store: bounded in length, and not reversible to the subject.
        token_id: the token's name among the revoked, or None if it has no `jti`.
        marks: what else a token is looked up by among the revoked, for the guard alone; None for an API key.
        plan: the plan of limits that an API key's entry names.
        auth: what stands in `scope["auth"]`.
    """

    subject: str
    scopes: tuple[str, ...] = ()
    claims: Mapping[str, Any] = field(default_factory=FrozenDict, repr=False, hash=False)
    issuer: str | None = None
    kind: Literal["token", "api-key"] = "token"
    expires: float | None = None
    key: str = ""
    token_id: str | None = None
    marks: Marks | None = field(default=None, repr=False)
    plan: str | None = None
    auth: Auth = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "auth", Auth(self.scopes))

    @property
    def is_authenticated(self) -> bool:
        """Starlette's convention: always true of a `User`."""
        return True

    @property
    def display_name(self) -> str:
        """Starlette's convention: the subject."""
        return self.subject

    @property
    def identity(self) -> str:
        """Starlette's convention: the subject."""
        return self.subject


@dataclass(frozen=True, slots=True)
class Anonymous:
    """Nobody in particular: what stands in `scope["user"]` where no identity was shown."""

    @property
    def is_authenticated(self) -> bool:
        """Starlette's convention: always false of nobody."""
        return False

    @property
    def display_name(self) -> str:
        """Starlette's convention: empty."""
        return ""

    @property
    def identity(self) -> str:
        """Starlette's convention: empty."""
        return ""

    @property
    def subject(self) -> str:
        """Empty, as `identity` is."""
        return ""


ADD_IT_AFTER = "by add_middleware, which puts the last outermost, add that one after it"
"""What to do where no Identity layer stands around a layer that needs one."""
ADD_IT_BEFORE = "by add_middleware, which puts the last outermost, add that one before it"
"""What to do where no Access layer stands within a layer that needs one."""


def was_looked_for(user: object) -> bool:
    """Whether what stands in `scope["user"]` was put there by an Identity layer, if only to say that it is nobody."""
    return isinstance(user, User | Anonymous)


ANONYMOUS = Anonymous()
NO_AUTH = Auth()


def store_key(*parts: str) -> str:
    """A name for the store: 32 hexadecimal digits, whatever the parts hold."""
    return blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def revocation_key(issuer: str, token_id: str) -> str:
    """The name of a token among the revoked: issuers choose their `jti`s apart from one another."""
    return store_key("jti", issuer, token_id)


_OF_NOTHING = sha256(b"").hexdigest()
_SCOPES = 'several texts, as in ("deploy",)'


@dataclass(frozen=True, slots=True)
class APIKey:
    """An API key as it is kept: by its hash.

    Attributes:
        name: who it belongs to.
        sha256: the key's SHA-256, 64 lower-case hexadecimal digits.
        scopes: what it may do.
        plan: the plan of limits that it has.

    Raises:
        ConfigError: it is none; the text repeats nothing of it.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - pydantic asks for a plain dict

    name: str
    sha256: str = field(repr=False)
    scopes: tuple[str, ...] = ()
    plan: str | None = None

    def __post_init__(self) -> None:
        require_fields(self)
        if not self.name or len(self.name) > 128 or not self.name.isprintable():
            raise _unusable("an API key's name is 1 to 128 printable characters")
        if len(self.sha256) != 64 or not set(self.sha256) <= set("0123456789abcdef"):
            # Nothing of it is repeated: the name may be the key or its hash, written the wrong way round.
            raise _unusable("an API key is not given as name and SHA-256, in 64 lower-case hexadecimal digits")
        given: object = self.scopes
        if fault := one_text(scopes=given):
            raise _unusable(fault)
        scopes = tuple(given) if isinstance(given, Iterable) else (None,)
        if not all(isinstance(each, str) for each in scopes):
            raise _unusable(f"scopes: {wrong_type(given, _SCOPES)}")
        object.__setattr__(self, "scopes", scopes)  # a list could be changed by the app, for whoever asks next
        if self.sha256 == _OF_NOTHING:
            raise _unusable("this is the SHA-256 of nothing: the key was empty when it was hashed")

    def user(self) -> User:
        """The identity of whoever shows this key."""
        return User(self.name, self.scopes, kind="api-key", key=store_key("api-key", self.name), plan=self.plan)


def _unusable(message: str) -> ConfigError:
    return ConfigError([Problem(APIKey.__name__, message)])


def names_of_one_key(keys: Sequence[APIKey]) -> Iterator[str]:
    """What is wrong with keys of which one has several names: whose it is, and what it may do, would be chance."""
    counts = Counter(key.sha256 for key in keys)
    for key in keys:
        if counts.pop(key.sha256, 1) > 1:
            yield f"the key of {key.name!r} has another name too: keep one"


def api_key_digest(key: bytes) -> str:
    """The hash under which a key is kept and looked up.

    Looking it up in a dict takes no time that tells anything about the key: what is compared are hashes of it.
    """
    return sha256(key).hexdigest()
