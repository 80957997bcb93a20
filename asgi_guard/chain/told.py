"""Marks exceptions that need no further logging: the guard has logged them, or they are nobody's fault.

The note stands on the exception itself, so that it ends with it; most exceptions cannot be referred to weakly.
"""

from __future__ import annotations

_NOTE = "_asgi_guard_told"
_MAX_CAUSES = 32


def note(error: BaseException) -> None:
    """Note that nobody has to be told of an exception any more, nor of those in it, if it is a group."""
    vars(error)[_NOTE] = True  # not as an attribute is set, which a frozen class refuses
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            note(each)


def is_told(error: BaseException | None) -> bool:
    """Whether an exception was noted, or was only put around such: as a group of them, or by `raise ... from`."""
    for _ in range(_MAX_CAUSES):
        if error is None:
            return False
        if _NOTE in vars(error):
            return True
        if isinstance(error, BaseExceptionGroup) and all(map(is_told, error.exceptions)):
            return True
        error = error.__cause__
    return False
