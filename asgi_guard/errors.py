"""The errors of this package, in one tree.

`AsgiGuardError` is the root: catching it catches everything below. Whatever cannot be used for a configuration raises
`ConfigError`, which is a `ValueError` too. Errors carry facts as attributes; their text is for people and never holds a
secret value.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, get_args

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


class AsgiGuardError(Exception):
    """Root of the tree."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a configuration.

    Attributes:
        name: the environment variable or argument at fault.
        message: what is wrong and what to write instead, without secret values.
        kind: what sort of problem it is, in one word for programs, as `invalid` or `insecure`: of what CORS is told,
            and of origins for CSRF. Empty for any other.
    """

    name: str
    message: str
    kind: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.message}"


class ConfigError(AsgiGuardError, ValueError):
    """The configuration cannot be used. `problems` holds everything that is wrong with it, not only the first thing."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def wrong_type(value: object, instead: str) -> str:
    """What to say of an argument of another type than it should be; the value itself may be a secret."""
    return f"it is of the type {type(value).__name__}: give {instead}"


def meant(name: str, known: Collection[str], before: str = "") -> str:
    """A "did you mean ...?" for an unknown name, to be added to what is wrong; empty if no known name resembles it.

    Args:
        name: the name that there is not.
        known: those that there are.
        before: what all of them begin with, and `name` and `known` lack.
    """
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {before}{close[0]}?" if close else ""


def with_cause(what: object, cause: BaseException | None) -> str:
    """What went wrong, with what the server itself said of it, which may be anything, and so is escaped and cut."""
    return f"{what}: {str(cause)[:256]!a}" if cause is not None and str(cause) else str(what)


def require_choice(name: str, value: str, choices: object) -> None:
    """See to it that an option has one of the values of its `Literal` type, where no type checker did.

    Raises:
        ConfigError: it has not.
    """
    allowed = get_args(choices)
    if value not in allowed:
        raise ConfigError([Problem(name, f"{value!r} is none of {', '.join(map(repr, allowed))}")])


class TokenError(AsgiGuardError):
    """A token is not acceptable.

    Attributes:
        reason: a stable word for logs and for `asgi-guard token --explain`.
        detail: what is wrong, for the operator; never sent to the client.
    """

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")


class KeysUnavailableError(AsgiGuardError):
    """The issuer's keys could not be had, so no token can be judged: the client is told 503, never 401.

    Attributes:
        retry_after: seconds until the next try may be made.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class StoreUnavailableError(AsgiGuardError):
    """The store did not answer within its deadline, or could not be reached.

    Attributes:
        retry_after: seconds until the next try may be made.
        sent: whether the store may have been asked, so that what was asked may yet be done.
        revoked: whether the token is that was to be looked up, where the store tells that at least; else None.
    """

    def __init__(
        self, message: str, retry_after: float = 1.0, *, sent: bool = True, revoked: bool | None = None
    ) -> None:
        self.retry_after = retry_after
        self.sent = sent
        self.revoked = revoked
        super().__init__(message)


class UnknownScopeError(AsgiGuardError):
    """The server sent a scope that is neither `http`, `websocket` nor `lifespan`.

    What cannot be guarded is not let through.
    """
