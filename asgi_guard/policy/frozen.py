"""JSON that cannot be changed: what one request reads of a remembered token is what the next one reads.

They are a dict and a list still, so that whatever asks for these, compares or writes them (json, orjson, pydantic,
pickle, `dataclasses.asdict`) takes them as such. `dict(...)`, `list(...)` and `.copy()` make plain ones of them, which
may be changed, but not what is in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

K = TypeVar("K")
V = TypeVar("V")


def _refuse(self: object, *_: object, **__: object) -> NoReturn:
    raise TypeError("this is read-only: a remembered token is shown to other requests too; change a copy of it")


class FrozenDict(dict[K, V]):
    """A dict that is what it was made as."""

    __slots__ = ()
    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __deepcopy__(self, memo: object) -> FrozenDict[K, V]:
        return self

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[dict[K, V]]]:
        return type(self), (dict(self),)


class FrozenList(list[V]):
    """A list that is what it was made as."""

    __slots__ = ()
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __deepcopy__(self, memo: object) -> FrozenList[V]:
        return self

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[list[V]]]:
        return type(self), (list(self),)


def frozen(members: Mapping[str, Any]) -> FrozenDict[str, Any]:
    """An object of JSON, such that nothing of it can be changed, however deep it lies.

    Raises:
        RecursionError: it is nested deeper than any claims set.
    """
    changed = {name: _frozen(value) for name, value in members.items() if type(value) in _NESTED}
    return FrozenDict(members, **changed) if changed else FrozenDict(members)


_NESTED = (dict, list)


def _frozen(value: Any) -> Any:
    if type(value) is dict:
        return frozen(value)
    if type(value) is list:
        return FrozenList([_frozen(each) if type(each) in _NESTED else each for each in value])
    return value
