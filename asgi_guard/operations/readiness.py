"""Readiness: what is asked, all at once, with a deadline each, and remembered for a moment."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from inspect import isawaitable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from asgi_guard.apps.inspection import can_take
from asgi_guard.errors import AsgiGuardError, ConfigError, Problem, wrong_type
from asgi_guard.policy.plain_types import require_fields

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

logger = logging.getLogger("asgi_guard")

_ONE_BY_ONE = "Check(name, function), or a dict of functions by their names"
CACHE_SECONDS = 1.0
CHECK_TIMEOUT = 1.0
OWN_CHECKS = frozenset({"store", "keys"})
"""What readiness asks by itself."""
KEYS_OF = "keys of "
"""What the name of a check begins with that tells of one issuer among several; every other check is the app's."""


@dataclass(frozen=True, slots=True)
class Check:
    """Something that readiness asks.

    Attributes:
        name: what it is called in the answer.
        probe: fails by raising, or by giving False.
        required: whether its failure makes this process not ready, or is only told.
        timeout: seconds after which it has failed; None for what is said for all of them.

    Raises:
        ConfigError: a value is of the wrong type, or it has no time to answer in.
    """

    name: str
    probe: Callable[[], Awaitable[object]]
    required: bool = True
    timeout: float | None = None

    def __post_init__(self) -> None:
        require_fields(self)
        if self.timeout is not None and not self.timeout > 0:
            message = f"the check {self.name!r} has {self.timeout} s, which is no time to answer in"
            raise ConfigError([Problem("timeout", message)])


Checks: TypeAlias = "Mapping[str, Callable[[], Awaitable[object]]] | Sequence[Check]"
"""What an app asks: coroutine functions by name, or checks."""


class Report(NamedTuple):
    """What the checks said.

    Attributes:
        ready: whether every required one passed.
        results: `ok`, `failed` or `timed out`, by the check's name.
    """

    ready: bool
    results: dict[str, str]


def checks_of(checks: Checks) -> tuple[Check, ...]:
    """What an app asks, as checks.

    Raises:
        ConfigError: two are called the same, or one as the guard's own are; or one is no check.
    """
    made = as_checks(checks)
    own = ", ".join((*sorted(OWN_CHECKS), f"{KEYS_OF}..."))
    problems = [
        Problem("checks", f"{check.name!r} is taken: {own} are the guard's own") for check in made if is_own(check.name)
    ]
    if problems or (problems := list(namesakes(made))):
        raise ConfigError(problems)
    return made


def is_own(name: str) -> bool:
    """Whether a check of that name is the guard's own."""
    return name in OWN_CHECKS or name.startswith(KEYS_OF)


def as_checks(checks: Checks) -> tuple[Check, ...]:
    """What is asked, as checks.

    Raises:
        ConfigError: one is no check.
    """
    given: object = checks
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ConfigError([Problem("checks", wrong_type(given, f"a list of {_ONE_BY_ONE}"))])
    made = tuple(Check(name, probe) for name, probe in checks.items()) if isinstance(checks, Mapping) else tuple(checks)
    if faults := [fault for each in made if (fault := _misfit(each))]:
        raise ConfigError([Problem("checks", fault) for fault in faults])
    return made


def namesakes(checks: Iterable[Check]) -> Iterator[Problem]:
    """Names that several checks have: nobody could tell which of them failed, and each would be taken for the other."""
    for name, number in Counter(check.name for check in checks).items():
        if number > 1:
            yield Problem("checks", f"{number} are called {name!r}: give each a name of its own")


def _misfit(check: object) -> str | None:
    if not isinstance(check, Check):
        return wrong_type(check, _ONE_BY_ONE)
    probe: object = check.probe
    if not callable(probe):
        return f"{check.name!r} asks a {type(probe).__name__}: name a coroutine function"
    return None if can_take(probe, 0) else f"{check.name!r} asks a function that cannot be called without arguments"


class _NoAnswerError(AsgiGuardError):
    """What is wrong with a check itself."""


class Readiness:
    """Asks the checks, or remembers what they said; however many probes ask at once, each check is asked once.

    A deadline holds whatever the check does: one that does not even end when it is cancelled has failed, and is not
    asked again until it has ended, so that nothing piles up on what hangs.

    Args:
        checks: what is asked.
        timeout: seconds that a check has, unless it says otherwise.
    """

    def __init__(self, checks: Iterable[Check], timeout: float = CHECK_TIMEOUT) -> None:
        self.checks = tuple(checks)
        self._timeout = timeout
        self._last: Report | None = None
        self._until = 0.0
        self._asking: asyncio.Task[Report] | None = None
        self._hanging: dict[str, asyncio.Task[object]] = {}

    async def ask(self) -> Report:
        """What the checks say, or said less than a second ago."""
        if self._last is not None and time.monotonic() < self._until:
            return self._last
        task = self._asking
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            task = self._asking = asyncio.create_task(self._ask_all(), name="asgi-guard readiness")
        # A probe that is cancelled does not cancel it, nor does its end a probe that waits.
        await asyncio.wait([task])
        return Report(False, {}) if task.cancelled() else task.result()

    def stop(self) -> None:
        """Ask nothing more: the app's resources, which the checks use, are gone."""
        for task in (*([self._asking] if self._asking is not None else []), *self._hanging.values()):
            if not task.get_loop().is_closed():
                task.cancel()

    async def _ask_all(self) -> Report:
        outcomes = await asyncio.gather(*map(self._ask, self.checks))
        told = dict(zip((check.name for check in self.checks), outcomes, strict=True))
        ready = all(told[check.name] is None for check in self.checks if check.required)
        results = {name: "ok" if failure is None else failure.partition(":")[0] for name, failure in told.items()}
        before = {} if self._last is None else self._last.results
        if changed := [name for name, result in results.items() if result != before.get(name, "ok")]:
            said = ", ".join(f"{name} {told[name] or 'ok'}" for name in changed)
            logger.warning("readiness: %s: %s", "ready" if ready else "not ready", said)
        self._last, self._until = Report(ready, results), time.monotonic() + CACHE_SECONDS
        return self._last

    async def _ask(self, check: Check) -> str | None:
        """Why a check fails, as `failed: WHY` or `timed out`; None if it passes."""
        task = self._hanging.get(check.name)
        if task is not None and not task.done() and task.get_loop() is asyncio.get_running_loop():
            return "timed out"
        task = asyncio.ensure_future(_probed(check))
        task.add_done_callback(_retrieve)
        self._hanging[check.name] = task
        try:
            done, _ = await asyncio.wait((task,), timeout=self._timeout if check.timeout is None else check.timeout)
        finally:
            task.cancel()
        if not done:
            return "timed out"
        del self._hanging[check.name]
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            return None
        # The text of any other may hold an address or a password, and is the app's to tell.
        return f"failed: {error if isinstance(error, AsgiGuardError) else type(error).__name__}"


def _retrieve(task: asyncio.Task[object]) -> None:
    """Take what a check raised when it was cancelled: nobody waits for it, and asyncio would log its text."""
    if not task.cancelled():
        task.exception()


async def _probed(check: Check) -> object:
    waiting: object = check.probe()
    if not isawaitable(waiting):
        raise _NoAnswerError("its function is no coroutine function, and gave nothing to wait for")
    if (answer := await waiting) is False:
        raise _NoAnswerError("it said False")
    return answer
