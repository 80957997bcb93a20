"""What the RateLimit layer is told, beside the limits themselves: read, and held to what can work."""

from __future__ import annotations

import re
from collections.abc import Mapping
from inspect import iscoroutinefunction
from math import inf
from typing import TYPE_CHECKING

from asgi_guard.apps.inspection import can_take
from asgi_guard.errors import Problem, wrong_type
from asgi_guard.policy.exemptions import Exemptions
from asgi_guard.policy.listing import listed
from asgi_guard.policy.rates import KEY_KINDS, Limit, parse_rate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from asgi_guard.asgi import Scope

_FUNCTION = re.compile(r"[a-z][a-z0-9_-]{0,63}")


def exempt_from(values: str | Sequence[str], problems: list[Problem]) -> Exemptions:
    """Whom no limit applies to; what is wrong with it is put among the problems."""
    try:
        return Exemptions.parse(listed(values))
    except ValueError as error:
        problems.append(Problem("exempt", str(error)))
        return Exemptions()


def messages_of(text: str, problems: list[Problem]) -> Limit | None:
    """How many messages a WebSocket may send, if it is said; what is wrong with it is put among the problems."""
    try:
        return parse_rate(text, "messages") if text.strip() else None
    except ValueError as error:
        problems.append(Problem("messages", str(error)))
        return None


def out_of_range(workers: int, ipv6_prefix: int, deny_cache: float) -> Iterator[Problem]:
    """Numbers that mean nothing."""
    if workers < 1:
        yield Problem("workers", f"{workers} processes: there is at least 1")
    if not 0 <= ipv6_prefix <= 128:
        yield Problem("ipv6_prefix", f"{ipv6_prefix} is no number of bits from 0 to 128")
    if not 0 <= deny_cache < inf:
        yield Problem("deny_cache", f"{deny_cache} is no number of seconds from 0")


def functions_of(functions: object, problems: list[Problem]) -> dict[str, Callable[[Scope], str | None]]:
    """What limits may go by beyond the grammar's own words; what is wrong with it is put among the problems."""
    if functions is None:
        return {}
    if not isinstance(functions, Mapping):
        problems.append(Problem("functions", wrong_type(functions, "a dict of functions by their names")))
        return {}
    problems += _unusable(functions)
    return {name: function for name, function in functions.items() if isinstance(name, str)}


def _unusable(functions: Mapping[object, object]) -> Iterator[Problem]:
    """Functions that no limit can go by, or whose answers are no texts."""
    for name, function in functions.items():
        if name in KEY_KINDS:
            yield Problem("functions", f"{name!r} is one of the grammar's own words: give the function another name")
        elif not isinstance(name, str) or not _FUNCTION.fullmatch(name):
            message = f"{name!r} is no name of a function: a letter, then letters, digits, '-' and '_', all lower case"
            yield Problem("functions", message)
        elif not callable(function):
            yield Problem("functions", f"{name!r} is no function: it cannot be called")
        elif iscoroutinefunction(function) or iscoroutinefunction(type(function).__call__):
            yield Problem("functions", f"{name!r} is a coroutine function: limits go by functions that do not wait")
        elif not can_take(function, 1):
            yield Problem("functions", f"{name!r} does not take the scope, as its one argument")
