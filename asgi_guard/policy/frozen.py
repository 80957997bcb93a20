"""JSON that its own methods do not change: what one request reads of a remembered token is what the next one reads.

They are a dict and a list still, so that whatever asks for these, compares or writes them (json, orjson, pydantic,
pickle, `dataclasses.asdict`) takes them as such. What asks for exactly these types, as yaml does, needs plain ones at
every depth. `dict(...)`, `list(...)` and `.copy()` make plain ones of them, which may be changed, but not what is in
them.

What goes past their methods changes them all the same: `list.append(it, ...)`, and functions in C that do so, as
`heapq.heappush`. These are for a copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

K = TypeVar("K")
V = TypeVar("V")


def _refuse(self: object, *_: object, **__: object) -> NoReturn:
    raise TypeError("this is read-only: a remembered token is shown to other requests too; change a copy of it")


def _is_made(self: object, *_: object, **__: object) -> None:
    """Do nothing, however often it is called: `__new__` has made it."""


class FrozenDict(dict[K, V]):
    """A dict that is what it was made as, unless something goes past its methods."""

    __slots__ = ()
    __init__ = _is_made
    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __new__(cls, /, *members: Any, **named: Any) -> Self:
        """Make it as `dict` does."""
        made = super().__new__(cls)
        dict.update(made, *members, **named)
        return made

    def __deepcopy__(self, memo: object) -> FrozenDict[K, V]:
        return self

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[dict[K, V]]]:
        return type(self), (dict(self),)


class FrozenList(list[V]):
    """A list that is what it was made as, unless something goes past its methods."""

    __slots__ = ()
    __init__ = _is_made
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __new__(cls, members: Iterable[V] = (), /) -> Self:
        """Make it as `list` does."""
        made = super().__new__(cls)
        list.extend(made, members)
        return made

    def __deepcopy__(self, memo: object) -> FrozenList[V]:
        return self

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[list[V]]]:
        return type(self), (list(self),)


def frozen(members: Mapping[str, Any]) -> FrozenDict[str, Any]:
    """An object of JSON that its own methods do not change, nor those of what lies in it, however deep.

    Raises:
        RecursionError: it is nested deeper than any claims set.
    """
    changed = {name: _frozen(value) for name, value in members.items() if type(value) in _NESTED}
    made: FrozenDict[str, Any] = dict.__new__(FrozenDict)  # its own costs several times that
    dict.update(made, members, **changed)
    return made


_NESTED = (dict, list)


def _frozen(value: Any) -> Any:
    if type(value) is dict:
        return frozen(value)
    if type(value) is list:
        made: FrozenList[Any] = list.__new__(FrozenList)
        list.extend(made, [_frozen(each) if type(each) in _NESTED else each for each in value])
        return made
    return value
